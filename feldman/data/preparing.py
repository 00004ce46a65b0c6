"""`feldman prepare`: a folder of images becomes a folder of arrays that open memory-mapped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from feldman.data.image_arrays import DAMAGED, PARTS, ArrayBuilder, array_builder, npy, write_file
from feldman.data.image_decoding import Geometry, decode_shards
from feldman.data.image_folder import PREPARED
from feldman.data.image_listing import ImageListing, list_images
from feldman.errors import DatasetError, FeldmanError, StorageError

__all__ = ["PrepareOptions", "PrepareSummary", "prepare_images"]

SHARD_IMAGES = 256

_MAX_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How images are prepared.

    Attributes
    ----------
    size
        Images become size x size pixels.
    resize_short
        Their short side first becomes so many pixels; the rest is cut away around the centre. Default: ``size``.
    num_workers
        How many processes decode.
    skip_damaged
        Leave out images that cannot be decoded, instead of refusing.
    class_names
        A file that names the class folders; see `list_images`.

    Raises
    ------
    DatasetError
        If sizes are out of range.
    """

    size: int = 64
    resize_short: int | None = None
    num_workers: int = 1
    skip_damaged: bool = False
    class_names: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _MAX_SIZE:
            raise DatasetError(f"--size must be 1 .. {_MAX_SIZE}; found {self.size}")
        if not self.size <= self.geometry.resize_short <= _MAX_SIZE:
            raise DatasetError(
                f"--resize-short is what is cut to --size, so it must be {self.size} .. {_MAX_SIZE}; found {self.resize_short}"
            )

    @property
    def geometry(self) -> Geometry:
        """How an image is brought to size."""
        return Geometry(size=self.size, resize_short=self.size if self.resize_short is None else self.resize_short)


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What came of it."""

    folder: str
    source: str
    held_out: str
    num_train: int
    num_test: int
    num_classes: int
    size: int
    num_ignored: int
    skipped: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def prepare_images(
    source: Path, folder: Path, options: PrepareOptions, tell: Callable[[int, int], None] = lambda done, total: None
) -> PrepareSummary:
    """Decode and resize the images of ``source`` once, into arrays in ``folder``; goes on where an earlier process stopped.

    The folder gets ``x_train``, ``y_train``, ``x_test``, ``y_test`` and ``class_names`` as ``.npy`` files, ``files_train.txt``
    and ``files_test.txt`` (a line an example: which file it was), and ``prepared.json`` (what was made of what). Its bytes
    depend on the images and the options alone, not on the number of workers or on how often it was stopped.

    Parameters
    ----------
    source
        See `list_images`.
    folder
        New or empty.
    options
        How.
    tell
        Called with the number of images done and of all.

    Raises
    ------
    DatasetError
        If the source is no folder of images, or the folder is not vacant; nothing was written.
    FeldmanError
        If images are damaged and not to be left out, or one cannot be read; what is done is safe.
    StorageError
        If the storage refuses.
    """
    _check_vacant(folder)
    listing = list_images(source, options.class_names)
    target = folder.resolve()  # a link to an empty folder cannot be renamed to
    working = target.with_name(f"{target.name}.partial")
    with (
        _storage_errors(working),
        array_builder(working, _plan(listing, options), options.size, with_damaged=options.skip_damaged) as builder,
    ):
        _decode_missing(builder, listing, options, tell)
        if builder.damaged and not options.skip_damaged:
            raise _damaged_error(builder, listing)
        summary = PrepareSummary(
            folder=str(folder),
            source=str(source),
            held_out=listing.held_out,
            num_train=builder.num_images("train"),
            num_test=builder.num_images("test"),
            num_classes=len(listing.class_names),
            size=options.size,
            num_ignored=listing.num_ignored,
            skipped=builder.damaged,
        )
        builder.finish(_small_files(builder, listing, options), target)
    return summary


def _plan(listing: ImageListing, options: PrepareOptions) -> dict[str, Any]:
    return {
        "format": "feldman-images",
        "format_version": 1,
        "source": str(listing.source.resolve()),
        "held_out": listing.held_out,
        "size": options.size,
        "resize_short": options.geometry.resize_short,
        "num_train_files": len(listing.train.files),
        "num_test_files": len(listing.test.files),
        "files_sha256": listing.digest,
        "pillow": PIL.__version__,  # another version may round pixels otherwise
    }


def _shards(listing: ImageListing) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (part, files[start : start + SHARD_IMAGES])
        for part, files in (("train", listing.train.files), ("test", listing.test.files))
        for start in range(0, len(files), SHARD_IMAGES)
    ]


def _decode_missing(
    builder: ArrayBuilder, listing: ImageListing, options: PrepareOptions, tell: Callable[[int, int], None]
) -> None:
    shards = _shards(listing)
    missing = shards[len(builder.committed) :]
    total = sum(len(files) for _, files in shards)
    done = total - sum(len(files) for _, files in missing)
    tell(done, total)
    if not missing:
        return
    names = [files for _, files in missing]
    with closing(decode_shards(listing.source, names, options.geometry, options.num_workers)) as decoded:
        for (part, files), shard in zip(missing, decoded, strict=True):
            builder.append(part, shard.images, {files[position]: problem for position, problem in shard.damaged})
            done += len(files)
            tell(done, total)


def _damaged_error(builder: ArrayBuilder, listing: ImageListing) -> FeldmanError:
    report = builder.folder / DAMAGED
    write_file(report, "".join(f"{file}: {problem}\n" for file, problem in builder.damaged.items()).encode())
    first = "; ".join(f"{listing.source / file} ({problem})" for file, problem in list(builder.damaged.items())[:3])
    return FeldmanError(
        f"{len(builder.damaged)} of {len(listing.train.files) + len(listing.test.files)} images cannot be decoded: {first}. "
        f"All are listed in {report}. Repair them and type the same command again, or leave them out with --skip-damaged"
    )


def _small_files(builder: ArrayBuilder, listing: ImageListing, options: PrepareOptions) -> dict[str, bytes]:
    files: dict[str, bytes] = {"class_names.npy": npy(np.array(listing.class_names))}
    damaged = builder.damaged
    for name, part in zip(PARTS, (listing.train, listing.test), strict=True):
        kept = [index for index, file in enumerate(part.files) if file not in damaged]
        files[f"y_{name}.npy"] = npy(part.labels[kept])
        files[f"files_{name}.txt"] = "".join(f"{part.files[index]}\n" for index in kept).encode()
    facts = {
        **_plan(listing, options),
        "num_train": builder.num_images("train"),
        "num_test": builder.num_images("test"),
        "skipped": damaged,
    }
    files[PREPARED] = json.dumps(facts, indent=1).encode()  # last: it says that all is there
    return files


def _check_vacant(folder: Path) -> None:
    try:
        if not os.path.lexists(folder):
            _check_parent(folder)
            return
        if not folder.is_dir():
            raise DatasetError(f"'{folder}' is there already and is no folder; choose another one with -o")
        found = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DatasetError(f"cannot look into '{folder}': {error.strerror or error}") from None
    if PREPARED in found:
        raise DatasetError(
            f"'{folder}' holds prepared images already, and nothing is overwritten; choose another one with -o"
        )
    if found:
        raise DatasetError(
            f"'{folder}' is not empty (it holds {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}) and nothing is "
            "overwritten; choose a new or empty folder with -o"
        )


def _check_parent(folder: Path) -> None:
    there = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
    if not there.is_dir():
        raise DatasetError(f"'{there}' is not a folder, so '{folder}' cannot be made; choose another one with -o")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise DatasetError(f"no permission to write in '{there}'; choose another folder with -o")


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write '{error.filename or folder}': {error.strerror or error}; what is prepared is safe, and the same "
            "command goes on"
        ) from None
