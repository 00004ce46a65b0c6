"""The digits that scikit-learn ships, split once and for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits as load_bunch

from feldman.data.dataset import Dataset
from feldman.data.digits import load_digits


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_digits()


def test_the_split_is_1437_to_360_images_of_8x8(digits: Dataset) -> None:
    assert digits.x_train.shape == (1437, 8, 8, 1)
    assert digits.x_test.shape == (360, 8, 8, 1)
    assert digits.x_train.dtype == np.uint8
    assert digits.y_train.dtype == np.int64


def test_the_split_is_the_same_for_ever(digits: Dataset) -> None:
    # of the images and labels alone: as if they were scaled to 0 .. 1, so that the hash outlives another choice of scaling
    content = replace(digits, shift=0.0, scale=1 / 16).fingerprint
    assert content == "57020aca206f5fd707b9af9752fdccdd5811fba0c51970ef36c04a8fead23c53"


def test_every_class_has_its_share_in_both_parts(digits: Dataset) -> None:
    assert np.bincount(digits.y_train).tolist() == [142, 145, 142, 146, 145, 146, 145, 143, 139, 144]
    assert np.bincount(digits.y_test).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert digits.class_names == tuple("0123456789")


def test_the_two_parts_are_the_real_images_each_once(digits: Dataset) -> None:
    bunch = load_bunch()
    originals = sorted(
        (image.astype(np.uint8).tobytes(), int(y)) for image, y in zip(bunch.images, bunch.target, strict=True)
    )
    x, y = np.concatenate([digits.x_train, digits.x_test]), np.concatenate([digits.y_train, digits.y_test])
    assert sorted((image.tobytes(), int(label)) for image, label in zip(x, y, strict=True)) == originals


def test_the_declared_constants_are_mean_and_deviation_of_the_training_pixels(digits: Dataset) -> None:
    pixels = digits.x_train.astype(np.float64)
    assert digits.shift == pytest.approx(pixels.mean(), abs=0.01)
    assert 1 / np.asarray(digits.scale) == pytest.approx(pixels.std(), abs=0.01)
