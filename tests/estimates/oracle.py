"""The textbook formula, dense, in float64: written from Algorithm 1, sharing nothing with feldman.estimates."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]


def memorization(mask: Bits, train_correct: Bits) -> NDArray[np.float64]:
    values = np.full(mask.shape[1], np.nan)
    for i in range(mask.shape[1]):
        values[i] = mean(train_correct[mask[:, i], i]) - mean(train_correct[~mask[:, i], i])
    return values


def influence(mask: Bits, test_correct: Bits) -> NDArray[np.float64]:
    values = np.full((mask.shape[1], test_correct.shape[1]), np.nan)
    correct = test_correct.astype(np.float64)
    for i in range(mask.shape[1]):
        values[i] = mean(correct[mask[:, i]]) - mean(correct[~mask[:, i]])
    return values


def mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN
        result: NDArray[np.float64] = np.asarray(np.mean(values, axis=0, dtype=np.float64))
    return result
