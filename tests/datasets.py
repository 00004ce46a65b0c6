"""Data sets of a user's own, for tests: named in experiments as ``tests.datasets:...``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.data.digits import load_digits

FLIPPED_SHARE = 0.03


def flipped_examples(dataset: Dataset) -> NDArray[np.intp]:
    """The training examples whose labels are replaced: 3% of them, chosen at random."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(dataset.num_train, round(FLIPPED_SHARE * dataset.num_train), replace=False))


def flipped_digits(duplicated: bool = False) -> Dataset:
    """The digits with 3% of the training labels replaced by another class; every second one of those twice, if asked."""
    digits = load_digits()
    chosen = flipped_examples(digits)
    labels = digits.y_train.copy()
    labels[chosen] = (labels[chosen] + np.random.default_rng(1).integers(1, 10, len(chosen))) % 10
    rows = np.concatenate([np.arange(digits.num_train), chosen[::2]]) if duplicated else np.arange(digits.num_train)
    return replace(digits, name="flipped-digits", x_train=digits.x_train[rows], y_train=labels[rows])
