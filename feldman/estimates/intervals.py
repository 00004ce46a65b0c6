"""The difference of two independent proportions: standard error and 95% interval."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

__all__ = [
    "Difference",
    "adjusted_stderr",
    "agresti_caffo_interval",
    "largest_stderr",
    "newcombe_interval",
    "proportion_difference",
    "wald_interval",
    "wilson_interval",
]

Z_95 = NormalDist().inv_cdf(0.975)

Counts = NDArray[np.integer] | NDArray[np.floating]
Interval = tuple[NDArray[np.float64], NDArray[np.float64]]


class Difference(NamedTuple):
    """A difference of proportions with its error; NaN where a group is empty.

    Attributes
    ----------
    value, stderr, ci_low, ci_high
        float64, of the counts' shape.
    """

    value: Float64[np.ndarray, "..."]
    stderr: Float64[np.ndarray, "..."]
    ci_low: Float64[np.ndarray, "..."]
    ci_high: Float64[np.ndarray, "..."]


def proportion_difference(correct_in: Counts, num_in: Counts, correct_out: Counts, num_out: Counts) -> Difference:
    r"""Compare the share of correct trials with and without an example.

    With :math:`p = c_{in} / n_{in}` and :math:`q = c_{out} / n_{out}` the value is :math:`p - q`, its standard error (Wald)
    :math:`\sqrt{p(1-p)/n_{in} + q(1-q)/n_{out}}`, and its 95% interval `newcombe_interval`: chosen by its measured coverage
    (``analysis/coverage``).

    Parameters
    ----------
    correct_in, num_in
        Trials that had the example and were right, and all that had it. Any shapes that broadcast together.
    correct_out, num_out
        The same for the trials without it.

    Returns
    -------
    Difference
        NaN, not 0, wherever ``num_in`` or ``num_out`` is 0.
    """
    p, n_in, q, n_out = _rates(correct_in, num_in, correct_out, num_out)
    ci_low, ci_high = newcombe_interval(correct_in, num_in, correct_out, num_out)
    return Difference(p - q, _stderr(p, n_in, q, n_out), ci_low, ci_high)


def adjusted_stderr(
    correct_in: Counts, num_in: Counts, correct_out: Counts, num_out: Counts
) -> Float64[np.ndarray, "..."]:
    """Return the standard error, or the one after a right and a wrong trial were added to each group if that is larger.

    The plain one is 0 where few trials all agree, and whoever waits until errors are small would stop there. Adding a trial
    of either outcome is what Agresti and Caffo do.
    """
    plain = _rates(correct_in, num_in, correct_out, num_out)
    added = _rates(correct_in + 1.0, num_in + 2.0, correct_out + 1.0, num_out + 2.0)
    return np.maximum(_stderr(*plain), _stderr(*added))  # NaN where a group is empty


def newcombe_interval(correct_in: Counts, num_in: Counts, correct_out: Counts, num_out: Counts) -> Interval:
    r"""Return Newcombe's hybrid score interval of :math:`p - q`.

    With the Wilson limits :math:`(l_p, u_p)` and :math:`(l_q, u_q)` it is

    .. math:: p - q - \sqrt{(p - l_p)^2 + (u_q - q)^2}, \quad p - q + \sqrt{(u_p - p)^2 + (q - l_q)^2}.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions: comparison of eleven methods",
    Statistics in Medicine 17 (1998), method 10. It holds the estimate and lies within -1 .. 1.
    """
    p, n_in, q, n_out = _rates(correct_in, num_in, correct_out, num_out)
    (low_p, high_p), (low_q, high_q) = wilson_interval(p, n_in), wilson_interval(q, n_out)
    ci_low = p - q - np.sqrt((p - low_p) ** 2 + (high_q - q) ** 2)
    ci_high = p - q + np.sqrt((high_p - p) ** 2 + (q - low_q) ** 2)
    return ci_low, ci_high


def wald_interval(correct_in: Counts, num_in: Counts, correct_out: Counts, num_out: Counts) -> Interval:
    """Return the estimate and 1.96 of its standard errors to each side: of no width where both proportions are 0 or 1."""
    p, n_in, q, n_out = _rates(correct_in, num_in, correct_out, num_out)
    half = Z_95 * _stderr(p, n_in, q, n_out)
    return p - q - half, p - q + half


def agresti_caffo_interval(correct_in: Counts, num_in: Counts, correct_out: Counts, num_out: Counts) -> Interval:
    """Return Wald's interval after a right and a wrong trial were added to each group; NaN where a group was empty.

    A. Agresti, B. Caffo, "Simple and effective confidence intervals for proportions and differences of proportions result from
    adding two successes and two failures", The American Statistician 54 (2000).
    """
    right_in, n_in, right_out, n_out = (
        np.asarray(given, np.float64) for given in (correct_in, num_in, correct_out, num_out)
    )
    empty = (n_in == 0) | (n_out == 0)
    low, high = wald_interval(right_in + 1, n_in + 2, right_out + 1, n_out + 2)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def largest_stderr(num_in: Counts, num_out: Counts) -> float:
    r"""Return the standard error that no estimate exceeds: that of two proportions of 0.5, for the least balanced example.

    .. math:: \max_i \sqrt{0.25 / n_{in,i} + 0.25 / n_{out,i}}

    Examples that were in all trials or in none, whose estimates are undefined, are left out; NaN if all are.
    """
    defined = (num_in > 0) & (num_out > 0)
    if not defined.any():
        return float("nan")
    return float(np.sqrt(0.25 / num_in[defined] + 0.25 / num_out[defined]).max())


def wilson_interval(p: NDArray[np.float64], n: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's 95% score limits of one proportion p of n; NaN where n is 0."""
    z2 = Z_95**2
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z_95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return centre - half, centre + half


def _rates(
    correct_in: Counts, num_in: Counts, correct_out: Counts, num_out: Counts
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return both proportions, NaN of an empty group, each with the size of its group."""
    n_in, n_out = np.asarray(num_in, np.float64), np.asarray(num_out, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(correct_in, np.float64) / n_in, n_in, np.asarray(correct_out, np.float64) / n_out, n_out


def _stderr(
    p: NDArray[np.float64], n_in: NDArray[np.float64], q: NDArray[np.float64], n_out: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        stderr: NDArray[np.float64] = np.sqrt(p * (1 - p) / n_in + q * (1 - q) / n_out)
    return stderr
