"""Which examples each trial learns from, and its seed: functions of (seed, trial), through Philox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from feldman.errors import ExperimentError

__all__ = [
    "Plan",
    "RandomPlan",
    "drawn_seeds",
    "random_words",
    "subset_masks",
    "subset_size",
    "trial_seeds",
    "whole_set_seed",
]

_SUBSET_STREAM = 0
_SEED_STREAM = 1
_WHOLE_SET_STREAM = 4
"""2 and 3 are those of `feldman.trials.design`."""
_INDEX_BITS = 24
MAX_TRAIN = 1 << _INDEX_BITS


def subset_size(subset_ratio: float, num_train: int) -> int:
    """Return m = round(ratio n), the number of examples each trial learns from.

    Raises
    ------
    ExperimentError
        If no example, or every example, would be in the subset.
    """
    size = round(subset_ratio * num_train)
    if not 0 < size < num_train:
        raise ExperimentError(
            f"subsets.subset_ratio = {subset_ratio} of {num_train} training examples is {size}; "
            f"a subset must hold at least one example and leave at least one out"
        )
    if num_train > MAX_TRAIN:
        raise ExperimentError(f"at most {MAX_TRAIN} training examples can be planned for; found {num_train}")
    return size


def subset_masks(
    seed: int, trials: range, num_train: int, subset_ratio: float
) -> Bool[np.ndarray, "trial {num_train}"]:
    """Draw the subsets of some trials.

    Each subset is uniform over those of size round(ratio n): the examples with the smallest of n random numbers. The numbers
    are raw Philox words, so no change of NumPy's samplers can change a plan. Their low bits are replaced by the example's
    index, which makes them distinct (ties among the 40 random bits go to the smaller index).

    Parameters
    ----------
    seed
        The experiment's seed.
    trials
        Which trials.
    num_train
        n, the number of training examples.
    subset_ratio
        The share of them that a trial learns from.

    Returns
    -------
    ndarray of bool [trial, train]
        True where the trial learns from the example.

    Raises
    ------
    ExperimentError
        As `subset_size`.
    """
    size = subset_size(subset_ratio, num_train)
    masks = np.empty((len(trials), num_train), dtype=bool)
    for row, trial in enumerate(trials):
        words = random_words(seed, trial, _SUBSET_STREAM, num_train)
        masks[row] = words <= np.partition(words, size - 1)[size - 1]
    return masks


def random_words(seed: int, number: int, stream: int, num_train: int) -> UInt64[np.ndarray, " {num_train}"]:
    """Return a random number for each example, no two alike: those with the smallest are a random subset; see `subset_masks`."""
    high = np.uint64(~((1 << _INDEX_BITS) - 1) & (2**64 - 1))
    words: np.ndarray = (_raw(seed, number, stream, num_train) & high) | np.arange(num_train, dtype=np.uint64)
    return words


def trial_seeds(seed: int, trials: range) -> Int64[np.ndarray, " trial"]:
    """Draw the seed of each trial, from which initial weights and shuffles follow.

    Returns
    -------
    ndarray of int64 [trial]
        0 to 2**63 - 1.
    """
    return drawn_seeds(seed, trials, _SEED_STREAM)


def drawn_seeds(seed: int, numbers: Sequence[int], stream: int) -> Int64[np.ndarray, " number"]:
    """Draw a seed, 0 to 2**63 - 1, for each of some numbers of one stream."""
    return np.array([_raw(seed, number, stream, 1)[0] >> np.uint64(1) for number in numbers]).astype(np.int64)


@runtime_checkable
class Plan(Protocol):
    """Which examples each trial of a run learns from, and its seed."""

    def masks(self, trials: range) -> Bool[np.ndarray, "trial train"]:
        """Return the subsets of some trials."""
        ...

    def seeds(self, trials: range) -> Int64[np.ndarray, " trial"]:
        """Return the seeds of some trials."""
        ...


@dataclass(frozen=True, kw_only=True)
class RandomPlan:
    """The plan of an estimate: every trial learns from a random subset, `subset_masks`.

    Attributes
    ----------
    seed, subset_ratio
        The experiment's.
    num_train
        Number of training examples.
    """

    seed: int
    subset_ratio: float
    num_train: int

    def masks(self, trials: range) -> Bool[np.ndarray, "trial train"]:
        """Draw the subsets of some trials."""
        return subset_masks(self.seed, trials, self.num_train, self.subset_ratio)

    def seeds(self, trials: range) -> Int64[np.ndarray, " trial"]:
        """Draw the seeds of some trials."""
        return trial_seeds(self.seed, trials)


def whole_set_seed(seed: int) -> int:
    """Draw the seed of a network that learns from the whole training set: of a stream from which no trial draws.

    Parameters
    ----------
    seed
        Any; each gives another network.

    Returns
    -------
    int
        0 to 2**63 - 1.
    """
    return int(_raw(seed, 0, _WHOLE_SET_STREAM, 1)[0] >> np.uint64(1))


def _raw(seed: int, trial: int, stream: int, count: int) -> np.ndarray:
    """Draw ``count`` words of the Philox4x64 stream with key (seed, trial); streams are far apart in its counter."""
    bits = np.random.Philox(key=np.array([seed, trial], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))
    words: np.ndarray = np.atleast_1d(bits.random_raw(count))
    return words
