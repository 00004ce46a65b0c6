"""How well two sets of numbers agree: correlations, differences, distances between histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

__all__ = [
    "NUM_BINS",
    "Agreement",
    "RunningAgreement",
    "agreement",
    "histogram_distances",
    "spearman",
]

NUM_BINS = 18
"""Of memorization on 0 .. 1, as in the authors' pictures."""

_Values = Float64[np.ndarray, " value"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well two values of each of some things agree.

    Attributes
    ----------
    num_compared
        Of how many things both values are defined.
    pearson
        Correlation; NaN where one side does not vary.
    mean_absolute_difference
        NaN if nothing was compared.
    """

    num_compared: int
    pearson: float
    mean_absolute_difference: float


class RunningAgreement:
    r"""An `Agreement` of values that come in parts.

    Means and sums of squares about them are merged after T. F. Chan, G. H. Golub, R. J. LeVeque (1979): with
    :math:`\delta = \bar y - \bar x` of two parts of :math:`n, m` values, :math:`M = M_x + M_y + \delta^2 nm / (n + m)`. Sums of
    raw squares would cancel.
    """

    def __init__(self) -> None:
        self._count, self._absolute = 0, 0.0
        self._means = np.zeros(2)
        self._moments = np.zeros((2, 2))
        self._lowest, self._highest = np.full(2, np.inf), np.full(2, -np.inf)

    def add(self, first: Float64[np.ndarray, "..."], second: Float64[np.ndarray, "..."]) -> None:
        """Compare some more values; pairs with a NaN are left out."""
        defined = ~(np.isnan(first) | np.isnan(second))
        values = np.stack([first[defined], second[defined]])
        count = values.shape[1]
        if not count:
            return
        means = values.mean(axis=1)
        centred, delta, total = values - means[:, None], means - self._means, self._count + count
        self._moments += centred @ centred.T + np.outer(delta, delta) * (self._count * count / total)
        self._means += delta * (count / total)
        self._lowest = np.minimum(self._lowest, values.min(axis=1))
        self._highest = np.maximum(self._highest, values.max(axis=1))
        self._absolute += float(np.abs(values[0] - values[1]).sum())
        self._count = total

    def result(self) -> Agreement:
        """Return the agreement of all values so far."""
        scale = float(np.sqrt(self._moments[0, 0] * self._moments[1, 1]))
        varies = (
            bool((self._lowest < self._highest).all()) and scale > 0
        )  # rounding lets the moments of a constant differ from 0
        return Agreement(
            num_compared=self._count,
            pearson=float(np.clip(self._moments[0, 1] / scale, -1, 1)) if varies else float("nan"),
            mean_absolute_difference=self._absolute / self._count if self._count else float("nan"),
        )


def agreement(first: _Values, second: _Values) -> Agreement:
    """Compare two values of each thing; pairs with a NaN are left out."""
    running = RunningAgreement()
    running.add(first, second)
    return running.result()


def spearman(first: _Values, second: _Values) -> float:
    """Return Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank."""
    return agreement(_ranks(first), _ranks(second)).pearson


def histogram_distances(
    first: Float64[np.ndarray, " first"], second: Float64[np.ndarray, " second"]
) -> tuple[float, float]:
    r"""Compare the distributions of two sets of values over `NUM_BINS` equal bins on 0 .. 1; values beyond go into the outermost.

    With shares :math:`p, q` and cumulative shares :math:`P, Q`, total variation is :math:`\frac12 \sum_b |p_b - q_b|`, 0 .. 1,
    and the earth mover's distance, in units of memorization, :math:`\sum_b |P_b - Q_b| / B`.

    Returns
    -------
    total_variation, earth_movers_distance
        NaN if either set is empty.
    """
    if not (len(first) and len(second)):
        return float("nan"), float("nan")
    shares = [
        np.histogram(np.clip(values, 0, 1), bins=NUM_BINS, range=(0, 1))[0] / len(values) for values in (first, second)
    ]
    difference = shares[0] - shares[1]
    return float(np.abs(difference).sum() / 2), float(np.abs(np.cumsum(difference)).sum() / NUM_BINS)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[position]
    return ranks
