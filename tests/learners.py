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
from feldman.learners.outputs import margins
from feldman.learners.protocol import Correctness

Bits = NDArray[np.bool_]
Scores = NDArray[np.float64]


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
    train, test = centroid_scores(dataset, masks, seeds)
    return train.argmax(axis=2) == dataset.y_train, test.argmax(axis=2) == dataset.y_test


def centroid_scores(dataset: Dataset, masks: Bits, seeds: NDArray[np.int64]) -> tuple[Scores, Scores]:
    """How near each example is to each class mean, of training and test examples: float64 [trial, example, class]."""
    x_train, x_test = (x.reshape(len(x), -1).astype(np.float64) for x in (dataset.x_train, dataset.x_test))
    rows = []
    for mask, seed in zip(masks, seeds, strict=True):
        rng = np.random.default_rng(int(seed))
        classes = [x_train[mask & (dataset.y_train == label)] for label in range(dataset.num_classes)]
        means = np.array([part.mean(axis=0) if len(part) else np.full(x_train.shape[1], 1e9) for part in classes])
        means += rng.normal(scale=0.3, size=means.shape)
        rows.append([-((x[:, None] - means[None]) ** 2).sum(axis=2) for x in (x_train, x_test)])
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def nearest_neighbour(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Take the label of the nearest example that was learned from. While the file ``fails_while`` is there, fail."""
    if Path(str(parameters.get("fails_while", ""))).is_file():
        raise RuntimeError("asked to fail")
    rows = []
    for mask in masks:
        known, labels = dataset.x_train[mask], dataset.y_train[mask]
        rows.append(
            [
                labels[((x[:, None] - known[None]) ** 2).sum(axis=2).argmin(axis=1)] == y
                for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test))
            ]
        )
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def telling_centroid(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> Correctness:
    """Say more than right or wrong. While ``FELDMAN_TEST_CHANGED`` is set, margins are doubled, and no bit is another.

    ``spoiled`` names an output, and ``how``: left out, of another shape or type, or not of its bits.
    """
    train, test = centroid_scores(dataset, masks, seeds)
    factor = 2 if "FELDMAN_TEST_CHANGED" in os.environ else 1
    told: dict[str, Any] = {}
    for part, scores, labels in (("train", train, dataset.y_train), ("test", test, dataset.y_test)):
        told |= {
            part: scores.argmax(axis=2) == labels,
            f"{part}_margin": margins(factor * scores, labels),
            f"{part}_prediction": scores.argmax(axis=2),
        }
    if "spoiled" in parameters:
        name = str(parameters["spoiled"])
        spoils: dict[str, Any] = {
            "absent": lambda values: None,
            "short": lambda values: values[:, 1:],
            "text": lambda values: values.astype(str),
            "other": lambda values: values[::-1],
            "nan": lambda values: values * np.nan,
            "outside": lambda values: values - 10,
        }
        told[name] = spoils[str(parameters["how"])](told[name])
    return Correctness(**told)


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
