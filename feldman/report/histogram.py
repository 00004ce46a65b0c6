"""How many training examples of each class are memorized how much: counts of all of them, whatever else a page shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

__all__ = ["BIN_WIDTH", "Histogram", "bin_of", "count_memorization"]

BIN_WIDTH = 0.05

_BINS_TO_ONE = 20
_ROUNDING = 1e-9
"""A value that is a multiple of the width, but for the last place of a float, lies in the bin that begins there."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of training examples by class and memorization.

    Attributes
    ----------
    first
        The first bin: bin ``k`` holds values of ``k * BIN_WIDTH`` up to, not with, the next multiple; the last one with 1.
    counts
        int64 [class, bin].
    undefined
        int64 [class]: examples that were in all trials or in none.
    """

    first: int
    counts: Int64[np.ndarray, "class bin"]
    undefined: Int64[np.ndarray, " class"]

    @property
    def total(self) -> int:
        """How many examples there are, undefined ones too."""
        return int(self.counts.sum() + self.undefined.sum())


def bin_of(memorization: Float64[np.ndarray, " example"]) -> Int64[np.ndarray, " example"]:
    """Return the bin of each value; of undefined ones any."""
    bins: NDArray[np.float64] = np.floor(np.nan_to_num(memorization) / BIN_WIDTH + _ROUNDING)
    return bins.clip(max=_BINS_TO_ONE - 1).astype(np.int64)


def count_memorization(
    label: Int64[np.ndarray, " example"], memorization: Float64[np.ndarray, " example"], num_classes: int
) -> Histogram:
    """Count examples in bins of `BIN_WIDTH` from 0, or from the lowest value that there is, to 1.

    Parameters
    ----------
    label
        0 .. ``num_classes`` - 1.
    memorization
        NaN where undefined.
    num_classes
        Rows of the counts.
    """
    defined = np.isfinite(memorization)
    bins = bin_of(memorization[defined])
    first = min(0, int(bins.min(initial=0)))
    width = _BINS_TO_ONE - first
    flat = np.bincount(label[defined] * width + bins - first, minlength=num_classes * width)
    return Histogram(
        first=first,
        counts=flat.reshape(num_classes, width).astype(np.int64),
        undefined=np.bincount(label[~defined], minlength=num_classes).astype(np.int64),
    )
