"""The folder in which images become arrays: shards are appended and committed one by one, in order, by one process.

::

    FOLDER.partial/plan.json      what is made of what, and how: written first; another plan does not go on here
    FOLDER.partial/x_train.npy    grows by a shard at a time; its header is set right at the end
    FOLDER.partial/x_test.npy
    FOLDER.partial/shards.jsonl   one line a committed shard, written when its pixels are on the disk
    FOLDER                        the same folder, renamed when all is in it

So a kill costs the shards in flight: what lies behind the last committed shard is cut off, and the arrays come out the same.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from feldman.errors import FeldmanError, InputError, StoreBusyError

__all__ = ["DAMAGED", "PARTS", "ArrayBuilder", "CommittedShard", "array_builder", "npy", "write_file"]

PARTS = ("train", "test")

DAMAGED = "damaged.txt"

_JOURNAL, _PLAN = "shards.jsonl", "plan.json"


@dataclass(frozen=True, kw_only=True)
class CommittedShard:
    """A line of the journal: how many images a shard gave, and which files of it are damaged and why."""

    part: str
    num_images: int
    damaged: Mapping[str, str]


class ArrayBuilder:
    """Appends shards to the two arrays of images; made by `array_builder`.

    Attributes
    ----------
    folder
        Where it works.
    committed
        The shards that are safe, in order.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.committed = folder, list[CommittedShard]()
        self._example_shape = (size, size, 3)
        self._journal = (folder / _JOURNAL).open("ab", buffering=0)
        self._arrays: dict[str, BinaryIO] = {}
        for part in PARTS:
            path = folder / f"x_{part}.npy"
            path.touch()
            self._arrays[part] = path.open("r+b", buffering=0)

    def recover(self, *, with_damaged: bool) -> None:
        """Take up what an earlier process committed, and cut off what it did not.

        Parameters
        ----------
        with_damaged
            Keep shards in which images are damaged; else the first such one and all after it are decoded again.

        Raises
        ------
        FeldmanError
            If an array is shorter than what was committed to it.
        """
        length = 0
        for line in (self.folder / _JOURNAL).read_bytes().splitlines(keepends=True):
            shard = _parsed(line)
            if shard is None or (shard.damaged and not with_damaged):
                break
            self.committed.append(shard)
            length += len(line)
        for part, array in self._arrays.items():
            end = self._end(part)
            if self.committed and array.seek(0, os.SEEK_END) < end:
                raise FeldmanError(
                    f"'{self.folder}' is damaged: x_{part}.npy is shorter than what was written to it; remove the folder, and "
                    "prepare from the start"
                )
            if not self.committed:
                array.write(_header((0, *self._example_shape)))
            array.truncate(end)
            array.seek(end)
        self._journal.truncate(length)

    def append(self, part: str, images: UInt8[np.ndarray, "image size size 3"], damaged: Mapping[str, str]) -> None:
        """Append a shard; when this returns, it stays."""
        shard = CommittedShard(part=part, num_images=len(images), damaged=damaged)
        array = self._arrays[part]
        _write_all(array, images.tobytes())
        os.fsync(array.fileno())
        line = {"part": part, "num_images": len(images), "damaged": dict(damaged)}
        _write_all(self._journal, json.dumps(line).encode() + b"\n")
        os.fsync(self._journal.fileno())
        self.committed.append(shard)

    def num_images(self, part: str) -> int:
        """Return how many images are committed to a part."""
        return sum(shard.num_images for shard in self.committed if shard.part == part)

    @property
    def damaged(self) -> dict[str, str]:
        """Every damaged file and what is wrong with it, in order."""
        return {file: problem for shard in self.committed for file, problem in shard.damaged.items()}

    def finish(self, files: Mapping[str, bytes], target: Path) -> None:
        """Set the arrays' headers right, add files, and let the folder take its place."""
        for part, array in self._arrays.items():
            array.seek(0)
            _write_all(array, _header((self.num_images(part), *self._example_shape)))
            os.fsync(array.fileno())
        for name, content in files.items():
            write_file(self.folder / name, content)
        self.folder.rename(target)
        _sync_folder(target.parent)
        for name in (_JOURNAL, _PLAN, DAMAGED):
            (target / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        for file in (self._journal, *self._arrays.values()):
            file.close()

    def _end(self, part: str) -> int:
        row_bytes = int(np.prod(self._example_shape))
        return len(_header((0, *self._example_shape))) + self.num_images(part) * row_bytes


@contextmanager
def array_builder(folder: Path, plan: Mapping[str, Any], size: int, *, with_damaged: bool) -> Iterator[ArrayBuilder]:
    """Open the folder, made if it is not there, and hold it: one process at a time.

    Parameters
    ----------
    folder
        Where to work.
    plan
        What is made of what; a folder that was begun with another plan is refused.
    size
        Of the images.
    with_damaged
        As `ArrayBuilder.recover`.

    Raises
    ------
    StoreBusyError
        If another process works on it.
    InputError
        If it was begun with another plan, or holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusyError(
                f"another `feldman prepare` is at work in '{folder}'; wait for it, or stop it"
            ) from None
        _check_plan(folder, plan)
        builder = ArrayBuilder(folder, size)
        try:
            builder.recover(with_damaged=with_damaged)
            yield builder
        finally:
            builder.close()
    finally:
        os.close(descriptor)


def _parsed(line: bytes) -> CommittedShard | None:
    try:
        return CommittedShard(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):  # cut by a kill, as is a line without its end
        return None


def _check_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    path = folder / _PLAN
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):  # a kill may have left half a plan
            raise InputError(f"'{folder}' holds other things; remove it, or choose another folder with -o")
        write_file(path, json.dumps(plan, indent=1).encode())
        return
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"'{folder}' is damaged: its {_PLAN} cannot be read; remove the folder, and prepare from the start"
        )
    differing = [
        f"{key}: {found.get(key)!r} there, {plan.get(key)!r} now"
        for key in {**found, **plan}
        if found.get(key) != plan.get(key)
    ]
    if differing:
        raise InputError(
            f"'{folder}' was begun otherwise ({'; '.join(differing)}); give what it was begun with, or remove it to prepare from "
            "the start"
        )


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears whole, and stays."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def npy(array: NDArray[np.generic]) -> bytes:
    """Return an array as the content of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the head of a ``.npy`` file of bytes; of one length for any number of images, for which NumPy leaves room."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _write_all(file: BinaryIO, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
