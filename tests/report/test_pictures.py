"""Pictures on a page: each tile holds the pixels of its image, sheets keep to their limit, other inputs keep their values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from feldman.report.document import Pictures
from feldman.report.pictures import (
    MOST_VALUES,
    TILES_A_SHEET,
    Inputs,
    SpriteSheets,
    image_layout,
    num_short,
    short_values,
    sprite_sheets,
    thumbnails,
)
from tests.pages import tile as page_tile

PLENTY = 10**9


def tile(sheets: SpriteSheets, slot: int) -> NDArray[np.uint8]:
    nowhere = np.empty(0, np.int64)
    return page_tile(Pictures(sheets=sheets, train=nowhere, test=nowhere).as_json(), slot)


def random_tiles(num: int, height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, channels), dtype=np.uint8)


@settings(max_examples=25)
@given(st.integers(1, 600), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 5))
def test_every_tile_of_a_lossless_sheet_has_the_pixels_of_its_picture(
    num: int, height: int, width: int, channels: int, seed: int
) -> None:
    tiles = random_tiles(num, height, width, channels, seed)
    sheets = sprite_sheets(tiles, PLENTY)
    assert sheets.lossless
    assert sheets.num_tiles == num
    for slot in {0, num // 2, num - 1}:
        np.testing.assert_array_equal(tile(sheets, slot), tiles[slot])


def test_what_does_not_fit_as_it_is_is_compressed_and_then_cut() -> None:
    tiles = random_tiles(700, 12, 12, 3)
    whole = sum(map(len, sprite_sheets(tiles, PLENTY).sheets))
    lossy = sprite_sheets(tiles, whole - 1)
    assert not lossy.lossless
    assert lossy.num_tiles == 700
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in lossy.sheets)
    least = sum(map(len, lossy.sheets))
    assert least < whole
    for limit in (least - 1, len(lossy.sheets[0]), len(lossy.sheets[0]) - 1, 0):
        cut = sprite_sheets(tiles, limit)
        assert sum(map(len, cut.sheets)) <= limit
        assert cut.num_tiles == min(len(cut.sheets) * TILES_A_SHEET, 700)
        assert list(cut.sheets) == list(lossy.sheets[: len(cut.sheets)])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_compressed_tile_does_not_show_in_its_neighbour(channels: int) -> None:
    tiles = np.zeros((600, 10, 12, channels), np.uint8)
    tiles[1::2] = 255
    sheets = sprite_sheets(tiles, 1)
    assert not sheets.sheets
    sheets = sprite_sheets(random_tiles(600, 10, 12, channels), PLENTY)
    half = sprite_sheets(
        np.concatenate([tiles, random_tiles(600, 10, 12, channels)]), sum(map(len, sheets.sheets)) // 2
    )
    assert half.sheets
    assert not half.lossless
    for slot in range(40):
        assert abs(tile(half, slot).astype(int) - tiles[slot].astype(int)).max() <= 2


def of(x: NDArray[np.generic], size: int = 64) -> NDArray[np.uint8]:
    return thumbnails([Inputs(x=x, index=np.arange(len(x)))], size)


def test_bytes_are_shown_as_they_are_and_other_numbers_from_their_least_to_their_most() -> None:
    rng = np.random.default_rng(0)
    bytes_ = rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(of(bytes_), bytes_)
    np.testing.assert_array_equal(of(bytes_[..., 0]), bytes_[..., :1])
    for x in (bytes_ / 255, bytes_.astype(np.float32) / 255, (bytes_ / 17.0)):
        np.testing.assert_array_equal(of(x), np.rint(x / x.max() * 255).astype(np.uint8))
    signed = rng.normal(size=(5, 6, 7, 1))
    scaled = (signed - signed.min()) / (signed.max() - signed.min())
    np.testing.assert_array_equal(of(signed), np.rint(scaled * 255).astype(np.uint8))
    few = rng.integers(0, 17, (4, 8, 8, 1), dtype=np.uint8)
    np.testing.assert_array_equal(of(few), np.rint(few * (255 / few.max())).astype(np.uint8))
    assert (of(np.zeros((2, 5, 5), np.float32)) == 0).all()


def test_the_same_value_has_the_same_grey_in_training_and_test_pictures() -> None:
    dark, light = np.full((1, 4, 4), 1.0), np.full((1, 4, 4), 4.0)
    found = thumbnails([Inputs(x=x, index=np.array([0])) for x in (dark, light)], 64)
    assert found[:, 0, 0, 0].tolist() == [64, 255]


def test_channels_are_shown_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 6, 7, 4), dtype=np.uint8)
    np.testing.assert_array_equal(of(images), images[..., :3])
    np.testing.assert_array_equal(of(np.moveaxis(images[..., :3], -1, 1)), images[..., :3])
    pair = images[..., :2].astype(np.float64)
    np.testing.assert_allclose(of(pair)[..., 0], pair.mean(axis=-1) * 255 / pair.max(), atol=1)


def test_a_large_image_is_made_smaller_and_keeps_its_shape_and_what_it_shows() -> None:
    x = np.zeros((2, 100, 200, 3), np.uint8)
    x[:, :, 100:] = 255
    small = of(x, size=64)
    assert small.shape == (2, 32, 64, 3)
    assert small[:, :, :28].max() < 8
    assert small[:, :, 36:].min() > 247
    assert of(x, size=200).shape == x.shape
    grey = of(x[..., 0], size=20)
    assert grey.shape == (2, 10, 20, 1)


def test_pictures_of_a_memory_map_are_read_in_any_order() -> None:
    x = random_tiles(600, 4, 5, 1)
    index = np.random.default_rng(0).permutation(600)
    np.testing.assert_array_equal(thumbnails([Inputs(x=x, index=index)], 64), x[index])


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 8), "grey"), ((28, 28, 1), "grey"), ((32, 32, 3), "colour"), ((32, 32, 4), "colour"), ((9, 9, 2), "grey"),
        ((3, 32, 32), "channels first"), ((1, 28, 28), "channels first"), ((5,), None), ((784,), None), ((2, 50), None),
        ((16, 16, 16), None), ((7, 3, 32, 32), None), ((2, 32, 32), None),
    ],
)  # fmt: skip
def test_what_is_an_image_is_told_by_its_shape(shape: tuple[int, ...], layout: str | None) -> None:
    assert image_layout(shape) == layout


@given(st.integers(1, 400), st.integers(1, 3), st.integers(0, 3))
def test_short_values_are_the_values_or_means_that_weigh_up_to_the_same_total(num: int, rows: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(rows, num, 1))
    short = short_values(x)
    assert short.shape == (rows, num_short(x))
    assert short.shape[1] <= MOST_VALUES
    if num <= MOST_VALUES:
        np.testing.assert_array_equal(short, x[..., 0])
    else:
        counts = np.diff([*np.linspace(0, num, MOST_VALUES, endpoint=False).astype(int), num])
        np.testing.assert_allclose((short * counts).sum(axis=1), x.sum(axis=(1, 2)), atol=1e-9)
