"""Influence: how much more often a test example is predicted right by trials that learned from a training example.

Everything follows from one number a pair, the count of trials that had the training example and got the test example right,
and from the two marginals. `feldman.estimates.kernel` counts; here counts become estimates, a tile of training examples at
a time, tiles on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64, Int64, Integer
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, in_lanes
from feldman.estimates.intervals import Difference, proportion_difference
from feldman.estimates.kernel import count_bits, joint_counts, select_counts
from feldman.trials.executor import usable_cores

__all__ = ["Pairs", "estimate_influence", "select_pairs"]

_TILE_ROWS = 64
"""Training examples a tile: with 4,000 trials their words fill the second-level cache no more than one tile of tests does."""

_SLACK = 1e-9
"""Pairs this close below the threshold are counted too; the exact comparison is made on their estimates."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Train/test pairs with their influence, ordered by training, then by test example.

    Attributes
    ----------
    train_index, target_index
        int64 [pair].
    influence, stderr, ci_low, ci_high
        float64 [pair].
    """

    train_index: Int64[np.ndarray, " pair"]
    target_index: Int64[np.ndarray, " pair"]
    influence: Float64[np.ndarray, " pair"]
    stderr: Float64[np.ndarray, " pair"]
    ci_low: Float64[np.ndarray, " pair"]
    ci_high: Float64[np.ndarray, " pair"]


def estimate_influence(
    bits: TrialBits,
    train_index: Integer[np.ndarray, " chosen"],
    test_index: Integer[np.ndarray, " target"] | None = None,
) -> Difference:
    r"""Estimate the influence of some training examples on all test examples, or on some.

    .. math:: infl_{ij} = \Pr_k[h_k(x'_j) = y'_j \mid i \in I_k] - \Pr_k[h_k(x'_j) = y'_j \mid i \notin I_k]

    V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), Algorithm 1, line 7.

    Parameters
    ----------
    bits
        What the trials got right.
    train_index
        Which training examples.
    test_index
        Which test examples; None for all.

    Returns
    -------
    Difference
        float64 [chosen, target]; NaN for examples that were in all trials or in none.
    """
    targets = bits.test_correct if test_index is None else bits.test_correct[test_index]
    tests = in_lanes(targets)
    rows = np.ascontiguousarray(bits.subset_mask[train_index])
    counts = np.empty((len(rows), tests.shape[0] * tests.shape[2]), np.uint32)
    if len(rows):
        joint_counts(rows, tests, counts)
    joint = counts[:, : len(targets)].astype(np.float64)
    num_in = count_bits(rows, rows)[:, None]
    total = count_bits(targets, targets)[None]
    return proportion_difference(joint, num_in, total - joint, bits.num_trials - num_in)


def select_pairs(
    bits: TrialBits,
    memorization: Float64[np.ndarray, " train"],
    *,
    min_influence: float,
    min_memorization: float,
    on_examples: Callable[[int], None] = lambda count: None,
) -> Iterator[Pairs]:
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

    Yields
    ------
    Pairs
        Those of one tile of training examples; tiles come in order.
    """
    candidates = np.flatnonzero(memorization >= min_memorization)
    tiles = [candidates[start : start + _TILE_ROWS] for start in range(0, len(candidates), _TILE_ROWS)]
    tests = in_lanes(bits.test_correct)
    totals = count_bits(bits.test_correct, bits.test_correct)
    work = partial(_tile_pairs, bits, tests, totals, min_influence)
    with ThreadPoolExecutor(usable_cores()) as threads:  # the kernel runs without Python's lock
        for tile, pairs in zip(tiles, threads.map(work, tiles), strict=True):
            on_examples(len(tile))
            yield pairs


def _tile_pairs(
    bits: TrialBits,
    tests: NDArray[np.uint64],
    totals: NDArray[np.int64],
    min_influence: float,
    tile: NDArray[np.intp],
) -> Pairs:
    r"""Select the pairs of one tile.

    With :math:`n, m` trials with and without the example, :math:`c` of them right and :math:`t` right in all,
    :math:`c/n - (t - c)/m \ge \theta` is :math:`c \ge (\theta + t/m) / (1/n + 1/m)`: a bound on the count, linear in t.
    """
    rows = np.ascontiguousarray(bits.subset_mask[tile])
    num_in = count_bits(rows, rows)
    num_out = bits.num_trials - num_in
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / (1 / num_in + 1 / num_out)
        bounds = np.stack([(min_influence - _SLACK) * scale, scale / num_out], axis=1)
    bounds[(num_in == 0) | (num_out == 0)] = np.nan
    padded = np.zeros(tests.shape[0] * tests.shape[2])
    padded[: len(totals)] = totals
    found = np.empty((len(rows) * len(padded), 3), np.int64)
    num_found = select_counts(rows, tests, bounds, padded.reshape(tests.shape[0], -1), found)
    found = found[:num_found]
    found = found[found[:, 1] < len(totals)]  # lanes beyond the last test example
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    row, test, joint = found.T
    difference = proportion_difference(joint, num_in[row], totals[test] - joint, num_out[row])
    kept = difference.value >= min_influence
    value, stderr, ci_low, ci_high = (values[kept] for values in difference)
    return Pairs(
        train_index=tile[row[kept]].astype(np.int64),
        target_index=test[kept],
        influence=value,
        stderr=stderr,
        ci_low=ci_low,
        ci_high=ci_high,
    )
