"""Which of many training examples a page shows: of each class the most memorized, and typical ones beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from feldman.errors import QueryError

__all__ = ["PageLimits", "most_memorized_of_each", "typical_of_each"]

_MEMORIZED_IN_ALL = 1200
_FEWEST_OF_A_CLASS, _MOST_OF_A_CLASS = 3, 24


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """How much a page holds.

    Attributes
    ----------
    per_class
        The most memorized training examples of each class, but no more than half of it; half as many typical ones. By default
        `memorized_per_class`.
    top_pairs
        The pairs of largest influence.
    pairs_per_example
        So many more of each of these training examples, and of each test example that stands in a pair.
    thumbnail
        Pixels of the longer side of a picture; larger ones are made smaller.
    max_megabytes
        Of the file, in 10^6 bytes: pictures of what comes last are left out beyond.
    """

    per_class: int | None = None
    top_pairs: int = 5000
    pairs_per_example: int = 5
    thumbnail: int = 64
    max_megabytes: float = 15.0

    def __post_init__(self) -> None:
        """Refuse limits that no page can keep."""
        for name in ("per_class", "top_pairs", "pairs_per_example", "thumbnail"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise QueryError(f"{name} is how many a page shows, at least 1; found {value!r}")
        if not self.max_megabytes > 0:
            raise QueryError(f"max_megabytes is the size of a file, more than 0; found {self.max_megabytes!r}")

    def memorized_per_class(self, num_classes: int) -> int:
        """Return how many memorized examples of a class are shown: 1,200 in all, but 3 at least and 24 at most, or as asked."""
        if self.per_class is not None:
            return self.per_class
        return int(np.clip(_MEMORIZED_IN_ALL // max(num_classes, 1), _FEWEST_OF_A_CLASS, _MOST_OF_A_CLASS))

    def typical_per_class(self, num_classes: int) -> int:
        """Return how many typical examples of a class are shown."""
        return -(-self.memorized_per_class(num_classes) // 2)


def most_memorized_of_each(
    label: Int64[np.ndarray, " example"], memorization: Float64[np.ndarray, " example"], most: int
) -> NDArray[np.intp]:
    """Choose the most memorized examples of each class, at most half of it; equal ones by their place, undefined ones never.

    Returns
    -------
    ndarray of intp [chosen]
        Places: first the most memorized of every class, then the second of every class, and so on.
    """
    defined = np.flatnonzero(np.isfinite(memorization))
    chosen = _first_of_each(defined[np.argsort(-memorization[defined], kind="stable")], label, len(defined))
    half = -(-np.bincount(label[defined], minlength=1) // 2)
    kept = _ranks(label[chosen]) < np.minimum(most, half[label[chosen]])
    return np.asarray(chosen[kept])


def typical_of_each(
    label: Int64[np.ndarray, " example"],
    memorization: Float64[np.ndarray, " example"],
    right_without: Float64[np.ndarray, " example"],
    most: int,
    but: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Choose examples of each class that models get right without having learned from them, and that are not memorized.

    Parameters
    ----------
    label, memorization
        Of each example.
    right_without
        Share of the trials without it that got it right; NaN where not known.
    most
        How many of a class.
    but
        Places that are not chosen: the most memorized.

    Returns
    -------
    ndarray of intp [chosen]
        Places, as `most_memorized_of_each` orders them: the most often right first; of these the memorization nearest to 0.
    """
    defined = np.setdiff1d(np.flatnonzero(np.isfinite(memorization)), but)
    right = np.nan_to_num(right_without[defined], nan=-1.0)
    order = np.lexsort((defined, np.abs(memorization[defined]), -right))
    return _first_of_each(defined[order], label, most)


def _first_of_each(ordered: NDArray[np.intp], label: Int64[np.ndarray, " example"], most: int) -> NDArray[np.intp]:
    """Keep the first places of each class; by their rank in it, then by class."""
    rank = _ranks(label[ordered])
    kept = ordered[rank < most]
    return np.asarray(kept[np.lexsort((label[kept], rank[rank < most]))])


def _ranks(label: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return how many of each one's class come before it."""
    by_class = np.argsort(label, kind="stable")
    ranks = np.empty(len(label), np.intp)
    ranks[by_class] = np.arange(len(label)) - np.searchsorted(label[by_class], label[by_class])
    return ranks
