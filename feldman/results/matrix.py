"""What an estimate may leave besides tables: the whole matrix of influences, and counts for the next estimate."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from jaxtyping import Float64, Int64, Integer
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.array_spec import ArrayConfigParams

from feldman.errors import CorruptStoreError, StorageError
from feldman.estimates.memorization import MemorizationCounts
from feldman.results.tables import TableFacts
from feldman.trials.rundir import remove
from feldman.trials.store import TrialStore

__all__ = ["CHUNK_ROWS", "KeptCounts", "MatrixPrecision", "new_counts", "new_matrix", "open_counts"]

MatrixPrecision = Literal["float16", "float32"]
CHUNK_ROWS = 256
_CHUNK_COLUMNS = 4096
_COUNTS_FORMAT = "feldman-counts"
_WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}  # so that counts that are gone can be told from zeros
_UNREADABLE = (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError)
"""What Zarr raises where metadata or chunks are damaged."""
_TRAIN_COUNTS = ("num_in", "correct_in", "correct")


@contextmanager
def new_matrix(
    path: Path, facts: TableFacts, shape: tuple[int, int], precision: MatrixPrecision
) -> Iterator[zarr.Array[Any]]:
    """Make a Zarr array ``[train, test]`` of influences, to be written in runs of `CHUNK_ROWS` rows; it appears when left well.

    Raises
    ------
    StorageError
        If it does not fit on the disk.
    """
    with _appearing(path, shape[0] * shape[1] * np.dtype(precision).itemsize, "the influence matrix") as building:
        yield zarr.create_array(
            building,
            shape=shape,
            chunks=_chunks(shape),
            dtype=precision,
            fill_value=float("nan"),
            compressors=_compressors(precision),
            dimension_names=("train", "test"),
            attributes=facts.as_json(),
        )


class KeptCounts:
    """Counts of pairs and examples over some committed blocks: what estimates follow from, and what adds up over trials.

    Attributes
    ----------
    blocks
        Which blocks are counted.
    """

    def __init__(self, path: Path, group: zarr.Group, blocks: list[int]) -> None:
        self.blocks = blocks
        self._path, self._group = path, group

    @property
    def totals(self) -> Float64[np.ndarray, " test"]:
        """Trials that got each test example right."""
        return self._read("totals", slice(None)).astype(np.float64)

    def joint(self, rows: slice) -> Int64[np.ndarray, "row test"]:
        """Return trials that had some training examples and got each test example right."""
        return self._read("joint", rows)

    def memorization_counts(self, panel: range) -> MemorizationCounts:
        """Return the counts of some training examples."""
        num_in, correct_in, correct = (self._read(name, slice(panel.start, panel.stop)) for name in _TRAIN_COUNTS)
        return MemorizationCounts(num_in=num_in, correct_in=correct_in, correct=correct)

    def write_totals(self, totals: Float64[np.ndarray, " test"]) -> None:
        """Write down how many trials got each test example right."""
        _array(self._group, "totals")[:] = totals.astype(np.int64)

    def write_joint(self, rows: slice, counts: Integer[np.ndarray, "row test"]) -> None:
        """Write down the counts of pairs of some training examples."""
        _array(self._group, "joint")[rows] = counts

    def write_memorization_counts(self, panel: range, counts: MemorizationCounts) -> None:
        """Write down the counts of some training examples."""
        for name in _TRAIN_COUNTS:
            _array(self._group, name)[panel.start : panel.stop] = getattr(counts, name)

    def _read(self, name: str, rows: slice) -> NDArray[np.int64]:
        try:
            array = _array(self._group, name)
            _require_chunks(self._path / name, array, rows)
            return np.asarray(array[rows]).astype(np.int64)
        except _UNREADABLE as error:
            raise CorruptStoreError(
                f"{self._path} is damaged ({name}: {error}); delete it, and all blocks are read and counted anew"
            ) from None


def open_counts(path: Path, store: TrialStore) -> KeptCounts | None:
    """Open the counts of an earlier estimate; None if there are none of trials that are still the committed ones."""
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        attributes = group.attrs.asdict()
        blocks = [int(block) for block in attributes["blocks"]]  # type: ignore[arg-type, union-attr]
        made_of = (attributes["format"], attributes["fingerprint"], attributes["digest"])
        if not set(blocks) <= set(store.committed_blocks()):
            return None
        if made_of != (_COUNTS_FORMAT, store.experiment.fingerprint, store.digest(blocks)):
            return None
        return KeptCounts(path, group, blocks)
    except _UNREADABLE:
        return None


@contextmanager
def new_counts(path: Path, store: TrialStore, blocks: list[int], num_trials: int) -> Iterator[KeptCounts]:
    """Make room for the counts of some blocks; they replace those that are there when left well.

    Raises
    ------
    StorageError
        If they do not fit on the disk.
    """
    dtype = "uint16" if num_trials < 2**16 else "uint32"
    shape = store.num_train, store.num_test
    with _appearing(path, shape[0] * shape[1] * np.dtype(dtype).itemsize, "counts of all pairs") as building:
        attributes = {
            "format": _COUNTS_FORMAT,
            "fingerprint": store.experiment.fingerprint,
            "blocks": blocks,
            "digest": store.digest(blocks),
        }
        group = zarr.create_group(building, zarr_format=3, attributes=attributes)
        group.create_array(
            "joint",
            shape=shape,
            chunks=_chunks(shape),
            dtype=dtype,
            compressors=_compressors(dtype),
            dimension_names=("train", "test"),
            config=_WRITE_ALL,
        )
        for name, size in (*((name, shape[0]) for name in _TRAIN_COUNTS), ("totals", shape[1])):
            group.create_array(name, shape=(size,), dtype="int64", compressors=_compressors("int64"), config=_WRITE_ALL)
        yield KeptCounts(building, group, blocks)


@contextmanager
def _appearing(path: Path, num_bytes: int, what: str) -> Iterator[Path]:
    """Give a folder to build in; it takes its name, and the place of what had it, when left without an error."""
    free = shutil.disk_usage(path.parent).free
    if num_bytes > free:
        raise StorageError(
            f"{what} would take up to {num_bytes / 1e9:.1f} GB as {path.name}, and '{path.parent}' has {free / 1e9:.1f} GB "
            "left; make room, or leave it out"
        )
    building, old = (path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial") for _ in range(2))
    try:
        yield building
        if path.exists():
            path.rename(old)
        try:
            building.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    finally:
        for leftover in (building, old):
            with suppress(OSError):  # the next estimate removes it
                remove(leftover)


def _chunks(shape: tuple[int, int]) -> tuple[int, int]:
    return min(CHUNK_ROWS, shape[0]), min(_CHUNK_COLUMNS, shape[1])


def _compressors(dtype: str) -> list[Any]:
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=np.dtype(dtype).itemsize)
    return [blosc, Crc32cCodec()]


def _require_chunks(folder: Path, array: zarr.Array[Any], rows: slice) -> None:
    """Refuse to read a chunk that is gone: it would read as zeros."""
    first, last, _ = rows.indices(array.shape[0])
    columns = [range(-(-size // chunk)) for size, chunk in zip(array.shape[1:], array.chunks[1:], strict=True)]
    for index in product(range(first // array.chunks[0], -(-last // array.chunks[0])), *columns):
        key = array.metadata.encode_chunk_key(index)
        if not (folder / key).is_file():
            raise ValueError(f"chunk {key} is missing")


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array
