"""The `Dataset` record: what it refuses, and what its fingerprint covers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from feldman.data.dataset import Dataset
from feldman.errors import DatasetError
from tests.conftest import small_dataset


def test_the_fingerprint_is_of_the_content_and_not_of_the_name_or_memory_layout() -> None:
    dataset = small_dataset()
    strided = np.asfortranarray(dataset.x_train)
    assert replace(dataset, name="other", x_train=strided).fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {"x_train": d.x_train + np.float32(1)},
        lambda d: {"x_test": d.x_test[:, ::-1].copy()},
        lambda d: {"x_train": d.x_train.astype(np.float64)},
        lambda d: {"x_train": d.x_train.reshape(60, 5, 1), "x_test": d.x_test.reshape(30, 5, 1)},
        lambda d: {"y_train": np.roll(d.y_train, 1)},
        lambda d: {"y_test": np.roll(d.y_test, 1)},
        lambda d: {"class_names": ("a", "b", "c")},
        lambda d: {"shift": 1.0},
        lambda d: {"scale": 2.0},
        lambda d: {"shift": (0.0, 0.0, 0.0, 0.0, 0.5)},
    ],
)
def test_the_fingerprint_changes_with_all_that_a_learner_sees(change: Any) -> None:
    dataset = small_dataset()
    assert replace(dataset, **change(dataset)).fingerprint != dataset.fingerprint


def _with(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: {"x_train": d.x_train[:, 0]}, "x_train must be [example, ...]"),
        (lambda d: {"x_train": d.x_train[:, :0]}, "x_train must be [example, ...]"),
        (lambda d: {"x_test": d.x_test[:0], "y_test": d.y_test[:0]}, "x_test must be [example, ...]"),
        (
            lambda d: {"x_train": d.x_train.astype(str)},
            "x_train must hold integers or floats of at most 64 bits; found dtype <U",
        ),
        (lambda d: {"x_train": d.x_train.astype(complex)}, "x_train must hold integers or floats"),
        (
            lambda d: {"x_train": d.x_train > 0},
            "x_train must hold integers or floats of at most 64 bits; found dtype bool",
        ),
        (lambda d: {"y_train": d.y_train[:-1]}, "y_train must hold one label an example (60 of them)"),
        (lambda d: {"y_test": d.y_test[:, None]}, "y_test must hold one label an example (30 of them)"),
        (lambda d: {"x_train": _with(d.x_train, (7, 2), np.nan)}, "x_train must be finite; example 7 holds NaN"),
        (lambda d: {"x_test": _with(d.x_test, (3, 0), -np.inf)}, "x_test must be finite; example 3 holds NaN"),
        (lambda d: {"x_test": d.x_test[:, :4]}, "one shape; found (5,) in x_train and (4,) in x_test"),
        (lambda d: {"y_train": _with(d.y_train, 5, 3)}, "labels must be 0 .. 2; y_train[5] is 3 (1 out of range)"),
        (lambda d: {"y_test": _with(d.y_test, [2, 9], -1)}, "labels must be 0 .. 2; y_test[2] is -1 (2 out of range)"),
        (
            lambda d: {"class_names": ("a", "b", "c", "d")},
            "every class needs a training example; class 3 ('d') has none",
        ),
        (
            lambda d: {"shift": (1.0, 2.0)},
            "shift must be one number, or a tuple of one a channel: 5 for examples of shape (5,); found (1.0, 2.0)",
        ),
        (lambda d: {"scale": [1.0] * 5}, "scale must be one number, or a tuple of one a channel: 5 for examples"),
        (lambda d: {"scale": float("inf")}, "scale must be finite; found inf"),
        (lambda d: {"x_train": d.x_train[:1], "y_train": d.y_train[:1], "class_names": ("0",)}, "at least 2"),
    ],
)
@pytest.mark.usefixtures("as_shipped")
def test_arrays_that_do_not_fit_are_refused_with_the_reason(change: Any, told: str) -> None:
    dataset = small_dataset()
    changes = change(dataset)
    if len(changes.get("class_names", ())) == 1:
        changes["y_test"] = np.zeros_like(dataset.y_test)
    with pytest.raises(DatasetError) as caught:
        Dataset(**{**vars(dataset), **changes})
    assert told in str(caught.value)


@pytest.mark.parametrize("shape", [(60, 1), (60, 2, 3), (60, 2, 3, 4), (60, 1, 1, 1, 2)])
def test_inputs_may_have_any_shape_behind_the_example(shape: tuple[int, ...]) -> None:
    dataset = replace(small_dataset(), x_train=np.zeros(shape, np.int16), x_test=np.zeros((30, *shape[1:]), np.int16))
    assert dataset.example_shape == shape[1:]
