"""Images that `feldman prepare` has made arrays of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from feldman.data.arrays import load_arrays
from feldman.data.dataset import Dataset
from feldman.data.image_listing import has_class_folders, prepare_command
from feldman.errors import DatasetError

__all__ = ["PREPARED", "load_image_folder", "read_file_names"]

PREPARED = "prepared.json"
"""Marks a prepared folder, and says what it was made of."""

# Of ImageNet's training images, in 0 to 255, as the field uses them for photographs of any kind: declared constants.
MEANS = (123.675, 116.28, 103.53)
STDS = (58.395, 57.12, 57.375)


def load_image_folder(path: str | None) -> Dataset:
    """Open prepared images memory-mapped: uint8 [example, size, size, 3].

    Raises
    ------
    DatasetError
        If the folder is not what `feldman prepare` makes; says what to type if it is what that command takes.
    """
    if path is None:
        raise DatasetError("dataset 'image-folder' needs dataset.path: a folder that `feldman prepare` has made")
    folder = Path(path)
    try:
        if not (folder / PREPARED).exists():
            raise _not_prepared(folder)
    except OSError as error:
        raise DatasetError(f"cannot read dataset.path = '{path}': {error.strerror or error}") from None
    return replace(load_arrays(path), name="image-folder", shift=MEANS, scale=tuple(1 / std for std in STDS))


def read_file_names(path: str, part: str) -> list[str] | None:
    """Return which file each image of ``"train"`` or ``"test"`` was; None where the folder no longer tells."""
    try:
        return (Path(path) / f"files_{part}.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError):
        return None


def _not_prepared(folder: Path) -> DatasetError:
    if folder.with_name(f"{folder.name}.partial").is_dir():
        return DatasetError(
            f"dataset.path = '{folder}' is not finished; type the `feldman prepare` command that began it again, which goes on"
        )
    if has_class_folders(folder / "train"):
        return DatasetError(
            f"dataset.path = '{folder}' is a folder of images; make arrays of it once, with `{prepare_command(folder)}`, and set "
            "dataset.path to the folder it makes"
        )
    what = "is no folder that `feldman prepare` has made" if folder.exists() else "does not exist"
    return DatasetError(
        f"dataset.path = '{folder}' {what}; `{prepare_command('IMAGES')}` makes one of IMAGES/train/CLASS/*.jpg"
    )
