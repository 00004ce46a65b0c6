"""Which examples each trial learns from, and its seed: functions of (seed, trial), through Philox."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from feldman.errors import ExperimentError

__all__ = ["subset_masks", "subset_size", "trial_seeds", "whole_set_seed"]

_SUBSET_STREAM = 0
_SEED_STREAM = 1
_WHOLE_SET_STREAM = 2
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
    index = np.arange(num_train, dtype=np.uint64)
    high = np.uint64(~((1 << _INDEX_BITS) - 1) & (2**64 - 1))
    masks = np.empty((len(trials), num_train), dtype=bool)
    for row, trial in enumerate(trials):
        words = (_raw(seed, trial, _SUBSET_STREAM, num_train) & high) | index
        masks[row] = words <= np.partition(words, size - 1)[size - 1]
    return masks


def trial_seeds(seed: int, trials: range) -> Int64[np.ndarray, " trial"]:
    """Draw the seed of each trial, from which initial weights and shuffles follow.

    Returns
    -------
    ndarray of int64 [trial]
        0 to 2**63 - 1.
    """
    return np.array([_raw(seed, trial, _SEED_STREAM, 1)[0] >> np.uint64(1) for trial in trials]).astype(np.int64)


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
