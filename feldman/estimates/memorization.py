"""Memorization: how much more often a training example is predicted right by trials that learned from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from feldman.estimates.bits import TrialBits
from feldman.estimates.intervals import proportion_difference
from feldman.estimates.packing import count_bits

__all__ = [
    "Memorization",
    "MemorizationCounts",
    "count_memorization",
    "estimate_memorization",
    "memorization_from_counts",
]


@dataclass(frozen=True, kw_only=True)
class Memorization:
    """Memorization of every training example.

    Attributes
    ----------
    memorization, stderr, ci_low, ci_high
        float64 [train]; NaN where an example was in all trials or in none.
    num_in, num_out
        int64 [train]: trials that learned from the example, and that did not.
    correct_in, correct_out
        int64 [train]: how many of them predict it right.
    """

    memorization: Float64[np.ndarray, " train"]
    stderr: Float64[np.ndarray, " train"]
    ci_low: Float64[np.ndarray, " train"]
    ci_high: Float64[np.ndarray, " train"]
    num_in: Int64[np.ndarray, " train"]
    num_out: Int64[np.ndarray, " train"]
    correct_in: Int64[np.ndarray, " train"]
    correct_out: Int64[np.ndarray, " train"]


def estimate_memorization(bits: TrialBits) -> Memorization:
    r"""Estimate the memorization of every training example.

    .. math:: mem_i = \Pr_k[h_k(x_i) = y_i \mid i \in I_k] - \Pr_k[h_k(x_i) = y_i \mid i \notin I_k]

    V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), Algorithm 1, line 5.
    """
    return memorization_from_counts(count_memorization(bits), bits.num_trials)


@dataclass(frozen=True, kw_only=True)
class MemorizationCounts:
    """What memorization follows from. Counts of disjoint trials add up.

    Attributes
    ----------
    num_in, correct_in, correct
        int64 [train]: trials that learned from an example, those of them that predict it right, all that predict it right.
    """

    num_in: Int64[np.ndarray, " train"]
    correct_in: Int64[np.ndarray, " train"]
    correct: Int64[np.ndarray, " train"]


def count_memorization(bits: TrialBits) -> MemorizationCounts:
    """Count what memorization follows from."""
    return MemorizationCounts(
        num_in=count_bits(bits.subset_mask, bits.subset_mask),
        correct_in=count_bits(bits.subset_mask, bits.train_correct),
        correct=count_bits(bits.train_correct, bits.train_correct),
    )


def memorization_from_counts(counts: MemorizationCounts, num_trials: int) -> Memorization:
    """Turn counts of so many trials into estimates."""
    num_out, correct_out = num_trials - counts.num_in, counts.correct - counts.correct_in
    difference = proportion_difference(counts.correct_in, counts.num_in, correct_out, num_out)
    return Memorization(
        memorization=difference.value,
        stderr=difference.stderr,
        ci_low=difference.ci_low,
        ci_high=difference.ci_high,
        num_in=counts.num_in,
        num_out=num_out,
        correct_in=counts.correct_in,
        correct_out=correct_out,
    )
