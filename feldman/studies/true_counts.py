"""How many examples are truly memorized: the count of noisy estimates, corrected by what more noise does to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from feldman.estimates.intervals import Z_95

__all__ = ["TrueCounts", "correctable", "largest_stderr_at", "no_true_counts", "true_counts"]

_CORRECTED_ERRORS = (4 * 2**0.5 - 3) ** 0.5
"""Standard error of a corrected count, in those of the count. See `TrueCounts`."""

_ERRORS_FROM_ENDS = 3.0


@dataclass(frozen=True, kw_only=True)
class TrueCounts:
    r"""How many examples truly reach each threshold, as far as the trials tell; NaN where they do not.

    An estimate is the truth and noise of variance :math:`\sigma^2 / T`. Where the density of memorization falls, noise lifts more
    examples over a threshold than it takes below. Half of the trials have twice the variance, so the mean count of random halves
    :math:`C_{T/2}` should be to :math:`C_T` as that is to the truth,

    .. math:: \hat N = C_T^2 / C_{T/2}.

    It is so where the density falls exponentially and noise is normal and alike, and up to terms of :math:`1 / T^2` wherever the
    density is smooth. With random quarters the next order is :math:`C_T^{8/3} C_{T/2}^{-2} C_{T/4}^{1/3}`; the interval is 1.96
    standard errors and the distance of the two orders to each side. The standard error is the root mean square of
    :math:`2 C_T - C_{T/2} - N` where examples lie at random, as densely above the threshold as below over the width of normal
    noise: :math:`\sqrt{4 \sqrt 2 - 3} = 1.63` times the count's.

    Nothing is said of thresholds within three of the largest standard errors of 0 or 1, where most examples are: from there
    halves and quarters lift examples over the threshold as all trials do not.

    Attributes
    ----------
    count, stderr, ci_low, ci_high
        float64 [threshold].
    """

    count: Float64[np.ndarray, " threshold"]
    stderr: Float64[np.ndarray, " threshold"]
    ci_low: Float64[np.ndarray, " threshold"]
    ci_high: Float64[np.ndarray, " threshold"]


def true_counts(
    counts: tuple[
        Float64[np.ndarray, " threshold"], Float64[np.ndarray, " threshold"], Float64[np.ndarray, " threshold"]
    ],
    stderr: Float64[np.ndarray, " threshold"],
    known: Bool[np.ndarray, " threshold"],
    most: float,
) -> TrueCounts:
    """Extrapolate how many examples reach each threshold; see `TrueCounts`.

    Parameters
    ----------
    counts
        float64 [threshold]: of all trials, and means of halves and of quarters.
    stderr
        float64 [threshold]: of the first.
    known
        bool [threshold]: where anything is to be said.
    most
        How many examples there are.
    """
    whole, half, quarter = counts
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(whole > 0, whole**2 / half, 0.0)
        second = np.where(whole > 0, whole ** (8 / 3) * half**-2 * quarter ** (1 / 3), 0.0)
    corrected = np.where(known, np.minimum(first, most), np.nan)
    errors = _CORRECTED_ERRORS * np.where(known, stderr, np.nan)
    reach = Z_95 * errors + np.abs(second - first)
    return TrueCounts(
        count=corrected,
        stderr=errors,
        ci_low=np.maximum(corrected - reach, 0.0),
        ci_high=np.minimum(corrected + reach, most),
    )


def no_true_counts(num_thresholds: int) -> TrueCounts:
    """Return what is said where nothing is known."""
    nothing = np.full(num_thresholds, np.nan)
    return TrueCounts(count=nothing, stderr=nothing, ci_low=nothing, ci_high=nothing)


def correctable(
    thresholds: Float64[np.ndarray, " threshold"], num_in: int, num_out: int
) -> Bool[np.ndarray, " threshold"]:
    """Tell which thresholds lie far enough from 0 and 1 for `TrueCounts`; so many trials have an example, and have it not."""
    nearest = np.minimum(thresholds, 1 - thresholds)
    errors = largest_stderr_at(thresholds, num_in, num_out)
    far: NDArray[np.bool_] = (nearest > 0) & (nearest >= _ERRORS_FROM_ENDS * errors)
    return far


def largest_stderr_at(
    memorization: Float64[np.ndarray, " value"], num_in: int, num_out: int
) -> Float64[np.ndarray, " value"]:
    r"""Return the largest standard error of an example with memorization m >= 0: over all rates with :math:`p - q = m`.

    .. math:: \max_p \sqrt{p (1 - p) / n_{in} + (p - m)(1 - p + m) / n_{out}}

    It is attained at :math:`p = \min(1, \tfrac12 + m n_{in} / (n_{in} + n_{out}))`. NaN where nobody has, or lacks, an example.
    """
    p = np.minimum(1.0, 0.5 + memorization * num_in / (num_in + num_out))
    q = p - memorization
    with np.errstate(divide="ignore", invalid="ignore"):
        stderr: NDArray[np.float64] = np.sqrt(p * (1 - p) / np.float64(num_in) + q * (1 - q) / np.float64(num_out))
    return stderr
