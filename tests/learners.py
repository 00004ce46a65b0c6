"""Learners of a user's own, for tests: named in experiments as ``tests.learners:...``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset

Bits = NDArray[np.bool_]


def nearest_centroid(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Classify by the nearest class mean, each mean shaken a little by the trial's seed.

    ``sleep_seconds`` makes a block last; ``log`` names a file that gets a line a call.
    """
    time.sleep(float(parameters.get("sleep_seconds", 0)))
    if "log" in parameters:
        with Path(str(parameters["log"])).open("a") as file:
            file.write(f"{os.getpid()} {len(masks)}\n")
    x_train, x_test = (x.reshape(len(x), -1).astype(np.float64) for x in (dataset.x_train, dataset.x_test))
    rows = []
    for mask, seed in zip(masks, seeds, strict=True):
        rng = np.random.default_rng(int(seed))
        classes = [x_train[mask & (dataset.y_train == label)] for label in range(dataset.num_classes)]
        means = np.array([part.mean(axis=0) if len(part) else np.full(x_train.shape[1], 1e9) for part in classes])
        means += rng.normal(scale=0.3, size=means.shape)
        rows.append([_nearest(x, means) == y for x, y in ((x_train, dataset.y_train), (x_test, dataset.y_test))])
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def failing(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Fail always."""
    raise RuntimeError("this learner always fails")


def wrong_shape(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Return bits of the wrong shape."""
    return np.zeros((1, 1), bool), np.zeros((1, 1), bool)


def leaving(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Try to end the process, successfully."""
    raise SystemExit(0)


def printing(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Print what it does."""
    print("training", len(masks), "models")
    return nearest_centroid(dataset, masks, seeds, {})


def meddling(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Write into what it was given."""
    {"x_train": dataset.x_train, "masks": masks, "seeds": seeds}[str(parameters["target"])][:] = 0
    return nearest_centroid(dataset, masks, seeds, {})


def changing(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Be another learner under the same name while ``FELDMAN_TEST_CHANGED`` is set."""
    train, test = nearest_centroid(dataset, masks, seeds, {})
    return (~train, ~test) if "FELDMAN_TEST_CHANGED" in os.environ else (train, test)


not_a_function = 3


def _nearest(x: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.intp]:
    distances = ((x[:, None] - means[None]) ** 2).sum(axis=2)
    nearest: NDArray[np.intp] = np.argmin(distances, axis=1)
    return nearest
