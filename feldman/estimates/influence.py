"""Influence: how much more often a test example is predicted right by trials that learned from a training example.

Everything follows from one number a pair, the count of trials that had the training example and got the test example right,
and from the two marginals. It is counted by matrix products of zeros and ones in float32, which are exact up to 2**24
trials, a tile of training examples at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer
from numpy.typing import NDArray

from feldman.errors import InputError
from feldman.estimates.bits import TrialBits
from feldman.estimates.intervals import Difference, proportion_difference

__all__ = ["Pairs", "estimate_influence", "select_pairs"]

_TILE_VALUES = 4_000_000
"""Pairs counted at once: 16 MB of counts in float32, and the float64 arrays of their estimates."""

_EXACT_TRIALS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Train/test pairs with their influence, ordered by training, then by test example.

    Attributes
    ----------
    train_index, test_index
        int64 [pair].
    influence, stderr, ci_low, ci_high
        float64 [pair].
    """

    train_index: Int64[np.ndarray, " pair"]
    test_index: Int64[np.ndarray, " pair"]
    influence: Float64[np.ndarray, " pair"]
    stderr: Float64[np.ndarray, " pair"]
    ci_low: Float64[np.ndarray, " pair"]
    ci_high: Float64[np.ndarray, " pair"]


def estimate_influence(bits: TrialBits, train_index: Integer[np.ndarray, " chosen"]) -> Difference:
    r"""Estimate the influence of some training examples on all test examples.

    .. math:: infl_{ij} = \Pr_k[h_k(x'_j) = y'_j \mid i \in I_k] - \Pr_k[h_k(x'_j) = y'_j \mid i \notin I_k]

    V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), Algorithm 1, line 7.

    Parameters
    ----------
    bits
        What the trials got right.
    train_index
        Which training examples.

    Returns
    -------
    Difference
        float64 [chosen, test]; NaN for examples that were in all trials or in none.

    Raises
    ------
    InputError
        For more than 2**24 trials, which float32 cannot count.
    """
    if bits.num_trials > _EXACT_TRIALS:
        raise InputError(
            f"influence is counted exactly for up to {_EXACT_TRIALS} trials; this run has {bits.num_trials}"
        )
    had = bits.subset_mask[:, train_index].astype(np.float32)
    joint = np.empty((len(train_index), bits.test_correct.shape[1]), dtype=np.float32)
    width = max(1, _TILE_VALUES // bits.num_trials)
    for start in range(0, joint.shape[1], width):
        joint[:, start : start + width] = had.T @ bits.test_correct[:, start : start + width].astype(np.float32)
    num_in = had.sum(axis=0, dtype=np.float64)[:, None]
    total = bits.test_correct.sum(axis=0, dtype=np.int64)[None, :]
    return proportion_difference(joint, num_in, total - joint.astype(np.float64), bits.num_trials - num_in)


def select_pairs(
    bits: TrialBits,
    memorization: Float64[np.ndarray, " train"],
    *,
    min_influence: float,
    min_memorization: float,
    on_examples: Callable[[int], None] = lambda count: None,
) -> Pairs:
    """Find the pairs at or above both thresholds, in memory that does not grow with the training set.

    Parameters
    ----------
    bits
        What the trials got right.
    memorization
        float64 [train].
    min_influence, min_memorization
        Thresholds, inclusive; undefined (NaN) values are never selected.
    on_examples
        Told how many more training examples have been looked at, for a progress bar.
    """
    candidates = np.flatnonzero(memorization >= min_memorization)
    found: list[tuple[NDArray[np.int64], ...]] = []
    parts: list[Difference] = []
    for tile in _tiles(candidates, bits):
        difference = estimate_influence(bits, tile)
        row, column = np.nonzero(difference.value >= min_influence)
        found.append((tile[row].astype(np.int64), column.astype(np.int64)))
        parts.append(Difference(*(values[row, column] for values in difference)))
        on_examples(len(tile))
    joined = (
        Difference(*(np.concatenate([np.empty(0), *values]) for values in zip(*parts, strict=True))) if parts else None
    )
    empty = np.empty(0, dtype=np.float64)
    return Pairs(
        train_index=np.concatenate([np.empty(0, np.int64), *(part[0] for part in found)]),
        test_index=np.concatenate([np.empty(0, np.int64), *(part[1] for part in found)]),
        influence=joined.value if joined else empty,
        stderr=joined.stderr if joined else empty,
        ci_low=joined.ci_low if joined else empty,
        ci_high=joined.ci_high if joined else empty,
    )


def _tiles(candidates: NDArray[np.intp], bits: TrialBits) -> Iterator[NDArray[np.intp]]:
    # Neither the counts [tile, test] nor the gathered masks [trial, tile] may outgrow the tile.
    size = max(1, _TILE_VALUES // max(bits.test_correct.shape[1], bits.num_trials))
    for start in range(0, len(candidates), size):
        yield candidates[start : start + size]
