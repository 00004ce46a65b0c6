"""Folders of images, a folder a class, as ImageNet comes: what is there, in an order that is the same everywhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from feldman.errors import DatasetError, command, listed

__all__ = ["ImageListing", "ImagePart", "has_class_folders", "list_images", "prepare_command"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
HELD_OUT = ("test", "val")


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """The images to train on, or those held out.

    Attributes
    ----------
    files
        Paths below the source, sorted by class folder, then by path.
    labels
        int64 [image]: the class folder's number.
    """

    files: tuple[str, ...]
    labels: Int64[np.ndarray, " image"]


@dataclass(frozen=True, kw_only=True)
class ImageListing:
    """All images of a source.

    Attributes
    ----------
    source
        The folder.
    held_out
        Which of its folders is held out: ``test`` or ``val``.
    class_names
        One a class folder of ``train``, sorted by the folder's name.
    train, test
        The images.
    num_ignored
        Files beside them that are no images, by their names.
    """

    source: Path
    held_out: str
    class_names: tuple[str, ...]
    train: ImagePart
    test: ImagePart
    num_ignored: int

    @property
    def digest(self) -> str:
        """SHA-256 of the order of files and their labels."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            digest.update(repr(len(part.files)).encode())
            digest.update("\0".join(part.files).encode())
            digest.update(part.labels.tobytes())
        return digest.hexdigest()


def prepare_command(source: Path | str) -> str:
    """Return the command that prepares a source, as it can be typed."""
    return command("prepare", source, "-o", f"{str(source).rstrip('/')}-64", "--size", 64)


def has_class_folders(folder: Path) -> bool:
    """Tell whether a folder holds folders."""
    return folder.is_dir() and any(entry.is_dir() for entry in _visible(folder))


def list_images(source: Path, class_names_file: Path | None = None) -> ImageListing:
    """List ``source/train/CLASS/...`` and ``source/test/CLASS/...``, or ``source/val`` where ``test`` has no class folders.

    Parameters
    ----------
    source
        The folder.
    class_names_file
        A line a class: its folder, then its name, as ImageNet's ``LOC_synset_mapping.txt``. Default: the folders' names.

    Raises
    ------
    DatasetError
        If folders are missing, empty or of unknown classes, a name cannot be written down, or anything is unreadable.
    """
    try:
        if not source.is_dir():
            raise DatasetError(f"'{source}' is no folder; expected one with train/CLASS/*.jpg and test/CLASS/*.jpg")
        if not has_class_folders(source / "train"):
            raise DatasetError(
                f"'{source}' has no train/ with a folder a class in it; it holds {listed(_names(source)[:8]) or 'nothing'}"
            )
        held_out = next((name for name in HELD_OUT if has_class_folders(source / name)), None)
        if held_out is None:
            raise DatasetError(
                f"'{source}' has neither test/ nor val/ with a folder a class in it; predictions on held-out images are half of "
                f"what is estimated. It holds {listed(_names(source)[:8])}"
            )
        classes = _class_folders(source / "train")
        unknown = [name for name in _class_folders(source / held_out) if name not in classes]
        if unknown:
            raise DatasetError(
                f"'{source / held_out}' has {len(unknown)} classes that train/ lacks: {listed(unknown[:5])}; move them away"
            )
        train, ignored_train = _part(source, "train", classes)
        test, ignored_test = _part(source, held_out, classes)
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename or source}: {error.strerror or error}") from None
    empty = [name for label, name in enumerate(classes) if not (train.labels == label).any()]
    if empty or not test.files:
        where = f"{source / 'train' / empty[0]}" if empty else f"{source / held_out}"
        raise DatasetError(f"'{where}' holds no image ({listed(sorted(SUFFIXES))}); put some in, or remove the folder")
    names = classes if class_names_file is None else _mapped_names(class_names_file, classes)
    return ImageListing(
        source=source,
        held_out=held_out,
        class_names=tuple(names),
        train=train,
        test=test,
        num_ignored=ignored_train + ignored_test,
    )


def _part(source: Path, part: str, classes: list[str]) -> tuple[ImagePart, int]:
    files: list[str] = []
    labels: list[int] = []
    num_ignored = 0
    for label, name in enumerate(classes):
        found = sorted(_files_below(source / part / name))
        images = [path for path in found if Path(path).suffix.lower() in SUFFIXES]
        num_ignored += len(found) - len(images)
        files += [f"{part}/{name}/{path}" for path in images]
        labels += [label] * len(images)
    _check_names(files)
    return ImagePart(files=tuple(files), labels=np.array(labels, np.int64)), num_ignored


def _files_below(folder: Path) -> Iterable[str]:
    for parent, folders, files in os.walk(folder, onerror=_raise if folder.exists() else None):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = "" if Path(parent) == folder else f"{Path(parent).relative_to(folder).as_posix()}/"
        yield from (below + name for name in files if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _check_names(files: list[str]) -> None:
    for name in files:
        if "\n" in name or not _is_text(name):
            raise DatasetError(f"the name of {name!r} cannot be written down as one line of text; rename the file")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return True


def _mapped_names(file: Path, classes: list[str]) -> list[str]:
    try:
        lines = [line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DatasetError(f"{file} is not a text file in UTF-8") from None
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror or error}") from None
    names = {words[0]: words[1].strip() for words in lines if len(words) == 2}
    missing = [name for name in classes if name not in names]
    if missing:
        raise DatasetError(
            f"{file} names no class for {len(missing)} folders: {listed(missing[:5])}; expected a line each, the folder and its "
            "name, as in 'n01440764 tench'"
        )
    return [names[name] for name in classes]


def _class_folders(folder: Path) -> list[str]:
    return [entry.name for entry in _visible(folder) if entry.is_dir()]


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in _visible(folder)]


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
