"""The store's own chunk reader: what Zarr reads, or a ValueError that says what is wrong; never anything else."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from google_crc32c import value as crc32c
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numcodecs import blosc

from feldman.trials import layout
from feldman.trials.chunks import read_chunk
from feldman.trials.layout import BLOCK_ARRAYS
from feldman.trials.rundir import RunPaths
from tests.estimates.stores import random_run

ARRAYS = [*BLOCK_ARRAYS, "train_label", "test_label"]
WRONG = "^(is missing|cannot be decoded: |cannot be read: )"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Three columns of chunks, the last ones not full; a last block that is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "MAX_CHUNK_EXAMPLES", 16)
        return random_run(tmp_path_factory.mktemp("chunks") / "run", num_trials=20)


def opened(paths: RunPaths, name: str) -> zarr.Array[Any]:
    array = zarr.open_group(paths.store, mode="r")[name]
    assert isinstance(array, zarr.Array)
    return array


def chunk_file(paths: RunPaths, name: str, index: tuple[int, ...]) -> Path:
    return paths.store / name / "c" / "/".join(map(str, index))


@pytest.mark.parametrize("name", ARRAYS)
def test_every_chunk_of_a_store_reads_as_zarr_reads_it(paths: RunPaths, name: str) -> None:
    array = opened(paths, name)
    grid = [range(-(-size // chunk)) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    assert len(list(product(*grid))) > 1
    for index in product(*grid):
        found = read_chunk(chunk_file(paths, name, index), array.chunks, array.dtype)
        part = tuple(slice(k * chunk, (k + 1) * chunk) for k, chunk in zip(index, array.chunks, strict=True))
        expected = np.asarray(array[part])
        assert (found.shape, found.dtype, found.flags.writeable) == (array.chunks, expected.dtype, False)
        np.testing.assert_array_equal(found[tuple(slice(size) for size in expected.shape)], expected)


def harmed(content: bytes, data: st.DataObject) -> bytes:
    kind = data.draw(st.sampled_from(["change a byte", "cut", "cut the beginning", "lengthen", "insert"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "change a byte":
        return content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    if kind == "cut":
        return content[:place]
    if kind == "cut the beginning":
        return content[place + 1 :]
    more = data.draw(st.binary(min_size=1, max_size=20))
    return content + more if kind == "lengthen" else content[:place] + more + content[place:]


@given(name=st.sampled_from(ARRAYS), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_a_chunk_that_is_not_what_was_written_is_a_value_error(
    paths: RunPaths, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    array, file = opened(paths, name), tmp_path / "chunk"
    content = chunk_file(paths, name, (0,) * array.ndim).read_bytes()
    file.write_bytes(harmed(content, data))
    if file.read_bytes() != content:
        with pytest.raises(ValueError, match=WRONG):
            read_chunk(file, array.chunks, array.dtype)


with_header = st.builds(
    lambda head, block, body: bytes([2, 1, *head]) + struct.pack("<III", 64, block, 16 + len(body)) + body,
    st.tuples(st.integers(0, 255), st.sampled_from([1, 8])),
    st.one_of(st.integers(0, 2**32 - 1), st.just(64)),
    st.binary(max_size=90).filter(lambda body: len(body) != 64),
)
"""Of 64 bytes, says the header."""


@given(content=st.one_of(st.binary(max_size=60), with_header), shape=st.sampled_from([(8,), (8, 16), (1,)]))
@example(content=blosc.compress(bytes(64), b"zstd", 1, 1)[:-1], shape=(8,))
@example(content=blosc.compress(bytes(65), b"zstd", 1, 1), shape=(8,))
@example(content=blosc.compress(bytes(64), b"zstd", 1, 1)[:15], shape=(8,))
@example(content=bytes([2, 1, 1, 8]) + struct.pack("<III", 2**31 - 17, 2**31 - 17, 60), shape=(8,))
@example(content=bytes([2, 1, 1, 8]) + struct.pack("<III", 64, 64, 2**30), shape=(8,))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_what_another_program_wrote_with_a_right_checksum_is_a_value_error_too(
    tmp_path: Path, content: bytes, shape: tuple[int, ...]
) -> None:
    file = tmp_path / "chunk"
    file.write_bytes(content + crc32c(content).to_bytes(4, "little"))
    with pytest.raises(ValueError, match=WRONG):
        read_chunk(file, shape, np.dtype("int64"))


def test_nothing_a_folder_and_a_path_below_a_file_are_value_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, says in (
        ("nothing", "^is missing$"),
        ("folder", "^is missing$"),
        ("file", "^cannot be decoded: its checksum differs"),
        ("file/0", "^cannot be read: Not a directory$"),
    ):
        with pytest.raises(ValueError, match=says):
            read_chunk(tmp_path / name, (8,), np.dtype("int64"))
