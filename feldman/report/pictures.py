"""What stands for an example on a page: a thumbnail in a sheet of many, or, where inputs are no images, their values."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Inputs", "SpriteSheets", "image_layout", "num_short", "short_values", "sprite_sheets", "thumbnails"]

Layout = Literal["grey", "colour", "channels first"]

TILES_A_ROW = 16
TILES_A_SHEET = TILES_A_ROW * TILES_A_ROW
MOST_VALUES = 64
"""Of an input that is no image: more are shown as means of neighbours."""

_SMALLEST_SIDE = 4
_JPEG_BLOCK = 8
"""JPEG mixes the pixels of a block: a tile fills whole ones, so that no picture shows in its neighbour."""
_JPEG_QUALITY = 85
_READ_AT_ONCE = 256
_DATA_URI = "data:image/{};base64,"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Some inputs of an array, which may be memory-mapped and larger than memory.

    Attributes
    ----------
    x
        All inputs.
    index
        Which of them, in any order.
    """

    x: Shaped[np.ndarray, "example ..."]
    index: Int64[np.ndarray, " chosen"]

    def parts(self) -> Iterator[Shaped[np.ndarray, "part ..."]]:
        """Yield them in their order, a few at a time."""
        for first in range(0, len(self.index), _READ_AT_ONCE):
            yield np.asarray(self.x[self.index[first : first + _READ_AT_ONCE]])


def image_layout(shape: tuple[int, ...]) -> Layout | None:
    """Say how an input of this shape is an image, or that it is none.

    Images are [height, width], [height, width, channel] with at most 4 channels, and [channel, height, width] with 1 or 3; they
    have at least 4 pixels a side.
    """
    if len(shape) == 2 and min(shape) >= _SMALLEST_SIDE:
        return "grey"
    if len(shape) == 3 and min(shape[:2]) >= _SMALLEST_SIDE and shape[2] <= 4:
        return "colour" if shape[2] >= 3 else "grey"
    if len(shape) == 3 and min(shape[1:]) >= _SMALLEST_SIDE and shape[0] in (1, 3):
        return "channels first"
    return None


def thumbnails(inputs: Sequence[Inputs], size: int) -> UInt8[np.ndarray, "example height width channel"]:
    """Make small pictures of images; the same values are black and white in all of them.

    Parameters
    ----------
    inputs
        Arrays of images, of one shape that `image_layout` knows, and which of each: read a few at a time, and in their order.
        Of four channels the first three are shown, of two the mean.
    size
        Of the longer side at the most, in pixels; a longer one is reduced to it.

    Returns
    -------
    ndarray of uint8 [example, height, width, channel]
        With 1 or 3 channels.
    """
    bounds = _value_bounds(
        [(float(part.min()), float(part.max())) for each in inputs for part in each.parts()], inputs[0].x.dtype
    )
    return np.concatenate([_pictures(part, bounds, size) for each in inputs for part in each.parts()])


def _value_bounds(ranges: list[tuple[float, float]], kind: np.dtype[Any]) -> tuple[float, float]:
    """Return what is black and what white: the range of bytes that use it, else 0 or the lowest value, and the highest."""
    low, high = min(least for least, _ in ranges), max(most for _, most in ranges)
    if kind == np.uint8 and high > 127:
        return 0.0, 255.0
    return min(low, 0.0), high


def _pictures(x: NDArray[Any], bounds: tuple[float, float], size: int) -> NDArray[np.uint8]:
    if image_layout(x.shape[1:]) == "channels first":
        x = np.moveaxis(x, 1, -1)
    x = x[..., np.newaxis] if x.ndim == 3 else x
    pixels = x[..., :3] if x.shape[-1] >= 3 else x.mean(axis=-1, keepdims=True)
    low, high = bounds
    if x.dtype != np.uint8 or bounds != (0.0, 255.0):
        scale = 255 / (high - low) if high > low else 0.0
        pixels = np.rint((pixels.astype(np.float64) - low) * scale).clip(0, 255)
    return _reduced(pixels.astype(np.uint8), size)


def num_short(x: Shaped[np.ndarray, "example ..."]) -> int:
    """Return how many numbers `short_values` makes of an input."""
    return min(int(np.prod(x.shape[1:])), MOST_VALUES)


def short_values(x: Shaped[np.ndarray, "example ..."]) -> Float64[np.ndarray, "example value"]:
    """Return inputs as at most `MOST_VALUES` numbers each: means of neighbours where there are more."""
    flat = x.reshape(len(x), -1)
    if flat.shape[1] <= MOST_VALUES:
        return flat.astype(np.float64)
    begins = np.linspace(0, flat.shape[1], MOST_VALUES, endpoint=False).astype(np.intp)
    counts = np.diff([*begins, flat.shape[1]])
    return np.add.reduceat(flat.astype(np.float64), begins, axis=1) / counts


@dataclass(frozen=True, kw_only=True)
class SpriteSheets:
    """Pictures side by side in a few images.

    Attributes
    ----------
    sheets
        Data URIs. Each holds `TILES_A_SHEET` tiles, `TILES_A_ROW` a row; the last one may be shorter.
    width, height
        Of a picture, in pixels.
    pitch
        From one tile to the next, to the right and down.
    num_tiles
        How many pictures there are: the first of those that were given.
    lossless
        Whether pixels are what they were.
    """

    sheets: tuple[str, ...]
    width: int
    height: int
    pitch: tuple[int, int]
    num_tiles: int
    lossless: bool


def sprite_sheets(tiles: UInt8[np.ndarray, "tile height width channel"], max_bytes: int) -> SpriteSheets:
    """Put pictures into sheets: as PNG where all fit, else as JPEG, as many as fit.

    Parameters
    ----------
    tiles
        The pictures, the most important ones first; with 1 or 3 channels.
    max_bytes
        Of all sheets together.
    """
    num_tiles, height, width = tiles.shape[:3]
    sheets = _encoded(tiles, max_bytes, "png")
    lossless = len(sheets) == -(-num_tiles // TILES_A_SHEET)
    if not lossless:
        sheets = _encoded(tiles, max_bytes, "jpeg")
    block = 1 if lossless else _JPEG_BLOCK
    return SpriteSheets(
        sheets=tuple(sheets),
        width=width,
        height=height,
        pitch=(-(-width // block) * block, -(-height // block) * block),
        num_tiles=min(len(sheets) * TILES_A_SHEET, num_tiles),
        lossless=lossless,
    )


def _encoded(tiles: NDArray[np.uint8], max_bytes: int, kind: Literal["png", "jpeg"]) -> list[str]:
    sheets: list[str] = []
    left = max_bytes
    for first in range(0, len(tiles), TILES_A_SHEET):
        sheet = _sheet(tiles[first : first + TILES_A_SHEET], 1 if kind == "png" else _JPEG_BLOCK)
        buffer = io.BytesIO()
        if kind == "png":
            sheet.save(buffer, "png", compress_level=6)
        else:
            sheet.save(buffer, "jpeg", quality=_JPEG_QUALITY, subsampling=0)
        uri = _DATA_URI.format(kind) + base64.b64encode(buffer.getvalue()).decode("ascii")
        left -= len(uri)
        if left < 0:
            break
        sheets.append(uri)
    return sheets


def _sheet(tiles: NDArray[np.uint8], block: int) -> Image.Image:
    num, height, width, channels = tiles.shape
    padding = ((0, 0), (0, -height % block), (0, -width % block), (0, 0))
    tiles = np.pad(tiles, padding, mode="edge")
    columns = min(num, TILES_A_ROW)
    rows = -(-num // columns)
    full = np.zeros((rows * columns, *tiles.shape[1:]), np.uint8)
    full[:num] = tiles
    grid = full.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2)
    pixels = grid.reshape(rows * tiles.shape[1], columns * tiles.shape[2], channels)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def _reduced(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[1:3]
    longer = max(height, width)
    if longer <= size:
        return pixels
    to = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
    images = (Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels)
    small = np.stack([np.asarray(image.resize(to, Image.Resampling.LANCZOS)) for image in images])
    return small.reshape(len(small), to[1], to[0], pixels.shape[-1])
