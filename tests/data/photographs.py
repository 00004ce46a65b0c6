"""Folders of images as ImageNet comes: written by Pillow, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = ("jpg", "png", "JPEG")


def write_photographs(
    root: Path, num_train: int = 6, num_test: int = 3, classes: tuple[str, ...] = ("n01", "n02")
) -> Path:
    """Write ``train/CLASS`` and ``val/CLASS``: images of many sizes, shapes and formats."""
    for part, count in (("train", num_train), ("val", num_test)):
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                picture(label + 10 * index).save(folder / f"{index:03d}.{SUFFIXES[index % 3]}")
    return root


def picture(seed: int) -> Image.Image:
    """A smooth picture: what a photograph is to a JPEG."""
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(20, 60, 2))
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def damage(path: Path) -> None:
    """Cut an image in half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
