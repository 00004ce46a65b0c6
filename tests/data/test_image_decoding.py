"""Images brought to one size: the centre, in RGB, whatever they come as."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from feldman.data.image_decoding import Geometry, decode_image, decode_shards
from feldman.errors import FeldmanError
from tests.data.photographs import damage, picture, write_photographs


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "height"), [(30, 30), (60, 20), (20, 60), (7, 5), (200, 90)])
@pytest.mark.parametrize("size", [1, 8, 32])
def test_every_image_becomes_a_square_of_the_size(size: int, width: int, height: int) -> None:
    found = decode_image(encoded(Image.new("RGB", (width, height), (9, 8, 7))), Geometry(size=size, resize_short=size))
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert (found == [9, 8, 7]).all()


def test_the_centre_is_kept() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 255  # a white square in the middle
    found = decode_image(encoded(Image.fromarray(image)), Geometry(size=40, resize_short=40))
    assert (found == 255).all()
    wider = decode_image(encoded(Image.fromarray(image[:, 10:90])), Geometry(size=10, resize_short=40))
    assert (wider == 255).all()


def test_nothing_is_changed_where_the_size_is_right() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found = decode_image(encoded(Image.fromarray(pixels)), Geometry(size=16, resize_short=16))
    np.testing.assert_array_equal(found, pixels)


def test_a_larger_short_side_cuts_more_away() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = decode_image(encoded(Image.fromarray(pixels)), Geometry(size=16, resize_short=32))
    np.testing.assert_array_equal(found, pixels[8:24, 8:24])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_kind_of_colour_becomes_red_green_blue(mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    white = encoded(Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode), form)
    assert (decode_image(white, Geometry(size=4, resize_short=4)) == 255).all()


def test_a_jpeg_decoded_at_a_fraction_is_close_to_one_decoded_whole() -> None:
    image = picture(3).resize((640, 480), Image.Resampling.BICUBIC)
    geometry = Geometry(size=32, resize_short=32)
    fast = decode_image(encoded(image, "JPEG", quality=95), geometry).astype(int)
    whole = decode_image(encoded(image), geometry).astype(int)
    assert np.abs(fast - whole).mean() < 2


@pytest.mark.parametrize("form", ["EPS", "PDF"])
def test_formats_that_other_programs_draw_are_not_opened(form: str) -> None:
    with pytest.raises(OSError, match="cannot identify"):
        decode_image(encoded(Image.new("RGB", (8, 8)), form), Geometry(size=4, resize_short=4))


def test_shards_come_in_order_with_damage_named_by_position_whatever_the_number_of_workers(tmp_path: Path) -> None:
    write_photographs(tmp_path, num_train=6)
    files = [f"train/n01/{index:03d}.{suffix}" for index, suffix in enumerate(("jpg", "png", "JPEG") * 2)]
    damage(tmp_path / files[2])
    (tmp_path / files[3]).write_bytes(b"")
    shards = [files[:2], files[2:4], files[4:]]
    for num_workers in (1, 2):
        found = list(decode_shards(tmp_path, shards, Geometry(size=8, resize_short=8), num_workers))
        assert [len(shard.images) for shard in found] == [2, 0, 2]
        assert [position for position, _ in found[1].damaged] == [0, 1]
        assert found[1].damaged[1][1] == "UnidentifiedImageError: cannot identify image file"
        expected = decode_image((tmp_path / files[4]).read_bytes(), Geometry(size=8, resize_short=8))
        np.testing.assert_array_equal(found[2].images[0], expected)


def test_a_file_that_cannot_be_read_is_no_damaged_image(tmp_path: Path) -> None:
    with pytest.raises(
        FeldmanError, match=r"cannot read .*gone\.jpg: No such file or directory; what is prepared is safe"
    ):
        list(decode_shards(tmp_path, [["gone.jpg"]], Geometry(size=8, resize_short=8), 1))
