"""Images decoded and brought to one size, in processes of their own. A shard's pixels depend on its files and sizes alone."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feldman.errors import FeldmanError

__all__ = ["DecodedShard", "Geometry", "decode_image", "decode_shards"]

# What photographs come in. Pillow knows more, among them one that starts another program to draw.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_DRAFT_FACTOR = 2
"""A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, several times as fast, while that leaves twice what is needed."""

_SHARDS_A_WORKER = 3
"""Shards handed out ahead: one at work, one waiting, one done."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How an image is brought to size: its short side to ``resize_short`` pixels, then the ``size`` x ``size`` in its centre."""

    size: int
    resize_short: int


@dataclass(frozen=True, kw_only=True)
class DecodedShard:
    """Some images, decoded.

    Attributes
    ----------
    images
        uint8 [image, size, size, 3], without those that are damaged.
    damaged
        Of each of those its position in the shard, and what is wrong.
    """

    images: NDArray[np.uint8]
    damaged: tuple[tuple[int, str], ...]


def decode_image(content: bytes, geometry: Geometry) -> NDArray[np.uint8]:
    """Decode an image to RGB, [size, size, 3].

    Raises
    ------
    Exception
        Whatever Pillow has to say about one that is damaged.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
        least = _DRAFT_FACTOR * geometry.resize_short
        opened.draft("RGB", (least, least))
        image = opened.convert("RGB")
    # The crop in the image's own pixels, so that it is resized once, and nothing that is cropped away is.
    width, height = image.size
    side = min(width, height) * geometry.size / geometry.resize_short
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    target = (geometry.size, geometry.size)
    return np.asarray(image.resize(target, Image.Resampling.BILINEAR, box=box))  # antialiased where it shrinks


def decode_shards(
    source: Path, shards: Sequence[Sequence[str]], geometry: Geometry, num_workers: int
) -> Generator[DecodedShard, None, None]:
    """Decode shards in parallel; yields them in their order.

    Parameters
    ----------
    source
        The folder that files are named from.
    shards
        Names of files.
    geometry
        The size.
    num_workers
        How many processes.

    Raises
    ------
    FeldmanError
        If a file cannot be read, or a process dies.
    """
    # Processes are begun afresh: a copy of this one would have its locks, held by threads that the copy lacks.
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), _begin_worker)
    waiting: deque[Future[DecodedShard]] = deque()
    try:
        for shard in shards:
            waiting.append(pool.submit(_decode_shard, source, tuple(shard), geometry))
            if len(waiting) > _SHARDS_A_WORKER * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise FeldmanError(
            "a process that decoded images died, perhaps for lack of memory; what is prepared is safe, and the same command goes "
            "on (with fewer --workers it needs less)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; this process is told by the one that began it
    warnings.simplefilter("ignore")  # about what a photograph says of itself
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the process that began this one has: killed, it cannot say so, and its queue would be waited on for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode_shard(source: Path, files: tuple[str, ...], geometry: Geometry) -> DecodedShard:
    images: list[NDArray[np.uint8]] = []
    damaged: list[tuple[int, str]] = []
    for position, file in enumerate(files):
        try:
            content = (source / file).read_bytes()
        except (
            OSError
        ) as error:  # not the image's fault: who leaves out damaged images shall not lose a disk of good ones
            raise FeldmanError(
                f"cannot read {source / file}: {error.strerror or error}; what is prepared is safe, and the same command goes on"
            ) from None
        try:
            images.append(decode_image(content, geometry))
        except Exception as error:  # decoders stumble over damage in many ways
            damaged.append((position, f"{type(error).__name__}: {_without_address(str(error))}"))
    shape = (len(images), geometry.size, geometry.size, 3)
    return DecodedShard(images=np.array(images, np.uint8).reshape(shape), damaged=tuple(damaged))


def _without_address(text: str) -> str:
    """Leave out where in memory the image was, so that reports of one damage are equal."""
    return text.split(" <_io.BytesIO")[0]
