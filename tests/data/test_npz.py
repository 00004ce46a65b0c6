"""Files of strangers: nothing in them is executed, and damage of any kind is one clear refusal."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.data.npz import open_npz
from feldman.errors import ExchangeError


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def read_all(path: Path) -> dict[str, np.ndarray]:
    with open_npz(path, "a, b", ExchangeError) as npz:
        return {name: npz.read(name) for name in npz.names}


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    arrays = {"a": np.arange(3), "b": np.eye(2, dtype=np.float32)}
    np.savez_compressed(tmp_path / "f.npz", **arrays)  # type: ignore[arg-type]
    found = read_all(tmp_path / "f.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_pickle_is_refused_and_its_payload_is_not_executed(tmp_path: Path) -> None:
    flag = tmp_path / "executed"
    objects = np.empty(1, object)
    objects[0] = Payload(flag)
    for members in (
        {"a.npy": npy(objects)},
        {"a": pickle.dumps(Payload(flag))},
        {"a.npy": pickle.dumps(Payload(flag))},
    ):
        with pytest.raises(ExchangeError, match=r"holds Python objects, which are not read|in it is not an array"):
            read_all(zipped(tmp_path / "f.npz", members))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Payload(flag)))
    with pytest.raises(ExchangeError, match=r"it is not a zip file of arrays, as numpy\.savez writes it"):
        read_all(tmp_path / "bare.npz")
    assert not flag.exists()
    pickle.loads(pickle.dumps(Payload(flag)))
    assert flag.exists(), "the payload works where something is unpickled"


def test_a_shape_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with pytest.raises(ExchangeError, match=r"f\.npz cannot be read as \.npz: a: "):
        read_all(zipped(tmp_path / "f.npz", {"a.npy": header.getvalue()}))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_damaged_anywhere_is_refused_or_gives_the_same_arrays(
    tmp_path_factory: pytest.TempPathFactory, method: int
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    arrays = {"a": np.arange(100), "b": np.linspace(0, 1, 50)}
    with zipfile.ZipFile(folder / "good.npz", "w", method) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", npy(array))
    good = (folder / "good.npz").read_bytes()

    @given(position=st.integers(0, len(good) - 1), bits=st.integers(1, 255), cut=st.booleans())
    @settings(max_examples=150, deadline=None)
    def damage(position: int, bits: int, cut: bool) -> None:
        bad = bytearray(good)
        bad[position] ^= bits
        (folder / "bad.npz").write_bytes(good[:position] if cut else bytes(bad))
        try:
            found = read_all(folder / "bad.npz")
        except ExchangeError:
            return
        for name, array in found.items():  # a name or a date may be what was hit: no checksum covers them
            if name in arrays:
                np.testing.assert_array_equal(array, arrays[name])

    damage()


def test_what_the_body_raises_is_not_taken_for_a_fault_of_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", a=np.arange(3))
    with pytest.raises(OSError, match="the disk of somebody else"), open_npz(tmp_path / "f.npz", "a", ExchangeError):
        raise OSError("the disk of somebody else")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"cannot read .*/nothing\.npz: No such file"):
        read_all(tmp_path / "nothing.npz")
    with pytest.raises(ExchangeError, match="Is a directory"):
        read_all(tmp_path)
