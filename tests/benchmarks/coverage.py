"""Exact coverage of intervals and exact size of tests: binomial probabilities summed, nothing simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from feldman.estimates.intervals import agresti_caffo_interval, newcombe_interval, wald_interval
from feldman.estimates.significance import pair_p_values

__all__ = ["INTERVALS", "RATIO", "TESTS", "exact_coverage", "exact_size"]

RATIO = 0.7
INTERVALS: dict[str, Callable[..., Any]] = {
    "Wald": wald_interval,
    "Newcombe": newcombe_interval,
    "Agresti-Caffo": agresti_caffo_interval,
}
_LEFT_OUT = 1e-9
"""Probability beyond which outcomes are not looked at, at each end."""


def exact_coverage(interval: Callable[..., Any], rates: tuple[float, float], num_trials: int) -> tuple[float, float]:
    """Return how often an interval covers the difference of two rates, and its mean width.

    The number of trials with the example is random, too: the sum is over all numbers that are at all likely.
    """
    covered, width, total = 0.0, 0.0, 0.0
    for num_in, weight in _group_sizes(num_trials):
        (x, mass_x), (y, mass_y) = _outcomes(num_in, rates[0]), _outcomes(num_trials - num_in, rates[1])
        low, high = interval(x[:, None], np.array(num_in), y[None], np.array(num_trials - num_in))
        mass = mass_x[:, None] * mass_y[None]
        holds = (low <= rates[0] - rates[1] + 1e-12) & (rates[0] - rates[1] <= high + 1e-12)
        covered += weight * float(mass[holds].sum())
        width += weight * float((mass * (high - low)).sum())
        total += weight * float(mass.sum())
    return covered / total, width / total


def exact_size(test: Callable[..., NDArray[np.float64]], rate: float, num_trials: int, level: float) -> float:
    """Return how often a test of a pair without influence gives a p-value of at most ``level``."""
    size, total = 0.0, 0.0
    for num_in, weight in _group_sizes(num_trials):
        (x, mass_x), (y, mass_y) = _outcomes(num_in, rate, 1e-14), _outcomes(num_trials - num_in, rate, 1e-14)
        mass = mass_x[:, None] * mass_y[None]
        grid = np.broadcast_arrays(x[:, None], num_in, x[:, None] + y[None])
        p_value = test(*(values.ravel().astype(np.int64) for values in grid), num_trials=num_trials)
        size += weight * float(mass.ravel()[p_value <= level].sum())
        total += weight
    return size / total


def pooled_z(
    joint: NDArray[np.int64], num_in: NDArray[np.int64], totals: NDArray[np.int64], *, num_trials: int
) -> NDArray[np.float64]:
    """The score test of two equal rates: normal, with the rate of both groups together."""
    num_out, rate = num_trials - num_in, totals / num_trials
    spread = np.sqrt(rate * (1 - rate) * (1 / num_in + 1 / num_out))
    difference = joint / num_in - (totals - joint) / num_out
    z = np.divide(np.abs(difference), spread, out=np.zeros_like(spread), where=spread > 0)
    p_value: NDArray[np.float64] = 2 * norm.sf(z)
    return p_value


TESTS: dict[str, Callable[..., NDArray[np.float64]]] = {"Fisher": pair_p_values, "pooled z": pooled_z}


def _group_sizes(num_trials: int) -> Iterator[tuple[int, float]]:
    """Numbers of trials with the example, neither 0 nor all, and how likely they are; of many every n-th."""
    sizes = np.arange(1, num_trials)
    mass = binom.pmf(sizes, num_trials, RATIO)
    likely = np.flatnonzero(mass > 1e-7)
    likely = likely[:: max(1, len(likely) // 40)]
    for place in likely:
        yield int(sizes[place]), float(mass[place] / mass[likely].sum())


def _outcomes(num: int, rate: float, left_out: float = _LEFT_OUT) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    low, high = binom.ppf([left_out, 1 - left_out], num, rate)
    counts = np.arange(int(low), int(high) + 1)
    return counts, binom.pmf(counts, num, rate)
