"""Labels that are random on purpose: nothing but memory can learn them, so they show what a measure of memorization finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset, RandomLabels
from feldman.errors import DatasetError

__all__ = ["with_random_labels"]

_KEY = 2**64 - 1
"""The second word of the key, where subsets and seeds have the trial's number."""

_WHO_STREAM, _WHAT_STREAM = 0, 1


def with_random_labels(dataset: Dataset, num_random: int, seed: int) -> Dataset:
    """Give some training examples the label of another class, each other class being as likely.

    Which, and what they get, is a function of the seed and the numbers of examples and classes: raw Philox words, which no
    sampler of a library can change. With the same seed more of them are those and others.

    Parameters
    ----------
    dataset
        The data set as it is.
    num_random
        How many labels to replace.
    seed
        Of the draws.

    Raises
    ------
    DatasetError
        If there are not so many training examples, only one class, or a class loses its last example.
    """
    if num_random > dataset.num_train:
        raise DatasetError(
            f"dataset.random_labels = {num_random}, but there are only {dataset.num_train} training examples"
        )
    if dataset.num_classes < 2:
        raise DatasetError("dataset.random_labels needs another class to take labels from; there is only one")
    chosen = np.sort(np.argsort(_raw(seed, _WHO_STREAM, dataset.num_train), kind="stable")[:num_random]).astype(
        np.int64
    )
    words = _raw(seed, _WHAT_STREAM, dataset.num_train)[chosen]
    labels = np.array(dataset.y_train, np.int64)
    original = labels[chosen]
    other = 1 + (words % np.uint64(dataset.num_classes - 1)).astype(np.int64)
    labels[chosen] = (original + other) % dataset.num_classes
    return replace(
        dataset,
        y_train=labels,
        random_labels=RandomLabels(train_index=chosen, original_label=original),
        source=None,  # whose labels are others
    )


def _raw(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    bits = np.random.Philox(key=np.array([seed, _KEY], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))
    words: NDArray[np.uint64] = np.atleast_1d(bits.random_raw(count))
    return words
