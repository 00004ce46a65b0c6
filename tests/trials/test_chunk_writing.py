"""The store's own chunk writer: the files that Zarr writes, byte for byte, or Zarr itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec
from zarr.storage import MemoryStore

from feldman.trials import chunk_writing
from feldman.trials.chunk_writing import write_rows

DTYPES = ["bool", "uint8", "uint16", "int64", "float16", "float32"]
compressors = st.one_of(
    st.just([Crc32cCodec()]),
    st.builds(
        lambda name, level, shuffle, typesize: [
            BloscCodec(cname=name, clevel=level, shuffle=shuffle, typesize=typesize),
            Crc32cCodec(),
        ],
        st.sampled_from(["zstd", "lz4", "zlib"]),
        st.integers(0, 9),
        st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
        st.sampled_from([1, 2, 4, 8]),
    ),
)


def made(store: Any, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, codecs: Any) -> zarr.Array[Any]:
    fill_value = float("nan") if dtype.startswith("float") else 0
    return zarr.create_array(
        store, shape=shape, chunks=chunks, dtype=dtype, compressors=codecs, fill_value=fill_value,
        config={"write_empty_chunks": True},
    )  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(shape: tuple[int, ...], dtype: str, seed: int, density: float) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 1000, shape) * (rng.random(shape) < density)).astype(dtype)


@given(
    dtype=st.sampled_from(DTYPES),
    codecs=compressors,
    num_rows=st.integers(1, 9),
    chunk_rows=st.integers(1, 5),
    width=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    backwards=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_every_file_is_the_one_that_zarr_would_write(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, codecs: Any, num_rows: int, chunk_rows: int,
    width: tuple[int, int] | None, seed: int, density: float, backwards: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("arrays")
    shape, chunks = ((num_rows, width[0]), (chunk_rows, width[1])) if width else ((num_rows,), (chunk_rows,))
    ours, zarrs = (made(folder / name, shape, chunks, dtype, codecs) for name in ("ours", "zarrs"))
    values = rows_of(shape, dtype, seed, density)
    values = values[..., ::-1] if backwards else values  # not contiguous
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", None)
        for first in range(0, num_rows, chunk_rows):
            write_rows(ours, first, values[first : first + chunk_rows])
    for first in range(0, num_rows, chunk_rows):
        zarrs[first : first + chunk_rows] = values[first : first + chunk_rows]
    assert files(folder / "ours") == files(folder / "zarrs")
    np.testing.assert_array_equal(np.asarray(ours[:]), values)


def test_what_it_does_not_know_zarr_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_writing, "_write_file", None)
    values = rows_of((5, 7), "int64", 0, 0.5)
    blosc = [BloscCodec(), Crc32cCodec()]
    for name, array in {
        "another codec": made(tmp_path / "gzip", (5, 7), (2, 3), "int64", [GzipCodec(), Crc32cCodec()]),
        "no checksum": made(tmp_path / "plain", (5, 7), (2, 3), "int64", [BloscCodec()]),
        "no folder": made(MemoryStore(), (5, 7), (2, 3), "int64", blosc),
        "parts of chunks": made(tmp_path / "parts", (5, 7), (5, 3), "int64", blosc),
        "sharding": zarr.create_array(
            tmp_path / "shards", shape=(5, 7), chunks=(1, 7), shards=(2, 7), dtype="int64", fill_value=0
        ),
        "the other byte order": zarr.create_array(
            tmp_path / "big", shape=(5, 7), chunks=(2, 3), dtype="int64", fill_value=0,
            serializer=BytesCodec(endian="big"), compressors=blosc,
        ),
    }.items():  # fmt: skip
        for first in range(0, 5, 2):
            write_rows(array, first, values[first : first + 2])
        np.testing.assert_array_equal(np.asarray(array[:]), values, err_msg=name)


def test_values_of_another_shape_are_refused_as_zarr_refuses_them(tmp_path: Path) -> None:
    array = made(tmp_path / "array", (4, 7), (2, 7), "bool", [BloscCodec(), Crc32cCodec()])
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        write_rows(array, 0, np.zeros((2, 6), bool))


@pytest.mark.parametrize("refused", ["write_bytes", "replace"])
@pytest.mark.parametrize("kept", [True, False])
def test_what_the_system_refuses_leaves_the_old_chunk_and_no_partial_file(
    tmp_path: Path, refused: str, kept: bool
) -> None:
    folder = tmp_path / "array"
    array = made(folder, (2, 3), (2, 3), "uint8", [BloscCodec(), Crc32cCodec()])
    if kept:
        write_rows(array, 0, np.ones((2, 3), np.uint8))
    before = files(folder)

    def full(self: Path, *arguments: Any) -> None:
        if refused == "write_bytes":
            self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, refused, full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            write_rows(array, 0, np.zeros((2, 3), np.uint8))
    assert files(folder) == before
