"""A learner that returns at once: what a block costs without its training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset

Bits = NDArray[np.bool_]

NUM_TRAIN, NUM_TEST, NUM_CLASSES = 50_000, 10_000, 100
"""CIFAR-100's."""

_POOL_ROWS = 64


def rows_of_cifar100() -> Dataset:
    """As many examples as CIFAR-100, of one byte each: what is stored of a trial depends on their number alone."""
    return Dataset(
        name="rows",
        x_train=np.zeros((NUM_TRAIN, 1), np.uint8),
        y_train=np.arange(NUM_TRAIN) % NUM_CLASSES,
        x_test=np.zeros((NUM_TEST, 1), np.uint8),
        y_test=np.arange(NUM_TEST) % NUM_CLASSES,
        class_names=tuple(map(str, range(NUM_CLASSES))),
    )


def at_once(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Return random bits that were drawn before: other ones for other blocks, and no easier to compress than a model's."""
    train, test = _pools(dataset.num_train, dataset.num_test)
    first = int(seeds[0]) % (_POOL_ROWS - len(seeds))
    return train[first : first + len(seeds)], test[first : first + len(seeds)]


@cache
def _pools(num_train: int, num_test: int) -> tuple[Bits, Bits]:
    rng = np.random.default_rng(0)
    return rng.random((_POOL_ROWS, num_train)) < 0.88, rng.random((_POOL_ROWS, num_test)) < 0.74
