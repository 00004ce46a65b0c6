"""Pickles of strangers: what CIFAR's files hold is read, everything else is refused and never run."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldman.data.cifar_pickle import as_bytes_array, read_cifar_pickle
from feldman.data.load import load_dataset
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection
from tests.data.originals import python2_pickle, python_batches, python_files, write_folder

BATCH = {b"data": np.arange(24, dtype=np.uint8).reshape(4, 6), b"labels": [0, 1, 2, 3], b"filenames": [b"a.png"] * 4}


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_the_pickles_of_these_tests_are_what_python_2_wrote() -> None:
    content = python2_pickle(BATCH)
    found = pickle.loads(content, encoding="bytes")
    np.testing.assert_array_equal(found[b"data"], BATCH[b"data"])
    names = {argument for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert {"SHORT_BINSTRING", "PROTO"} <= {code.name for code, _, _ in pickletools.genops(content)}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_batch_reads_as_it_was_written(protocol: int, order: Any) -> None:
    batch = BATCH | {b"data": np.asarray(BATCH[b"data"], order=order)}
    found = read_cifar_pickle(python2_pickle(batch, protocol), "file")
    np.testing.assert_array_equal(as_bytes_array(found["data"], "file"), BATCH[b"data"])
    assert found["labels"] == [0, 1, 2, 3]
    assert found["filenames"] == [b"a.png"] * 4


def malicious(marker: Path) -> dict[str, bytes]:
    command = f"touch {marker}"
    return {
        "posix.system": pickle.dumps({"data": Calls(os.system, command)}, 2),
        "os.system": b"\x80\x02cos\nsystem\n(U" + bytes([len(command)]) + command.encode() + b"tR.",
        "builtins.eval": pickle.dumps([Calls(eval, f"open({str(marker)!r}, 'w')")], 4),
        "__builtin__.eval": b"c__builtin__\neval\n(S'1'\ntR.",
        "builtins.getattr": pickle.dumps(Calls(getattr, {}, "keys"), 4),
        "builtins.bytearray": pickle.dumps({b"data": bytearray(b"x")}, 4),
        "numpy._core.multiarray._reconstruct": pickle.dumps({b"data": np.array([{}], object)}, 4),
        "numpy.core.multiarray.scalar": b"cnumpy.core.multiarray\nscalar\n(tR.",
        "numpy.load": b"cnumpy\nload\n(S'x'\ntR.",
        "subprocess.Popen": b"(isubprocess\nPopen\n.",
        "numpy.ndarray.tofile": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    }


@pytest.mark.parametrize("name", malicious(Path("/x")))
def test_a_pickle_that_asks_for_anything_else_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(DatasetError) as caught:
        read_cifar_pickle(malicious(marker)[name], "the file")
    assert str(caught.value).startswith(f"the file is refused: it asks for {name}, which no CIFAR file holds")
    assert not marker.exists()


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_data_set_with_such_a_file_is_refused_and_nothing_is_run(tmp_path: Path, file: str) -> None:
    marker = tmp_path / "marker"
    files = python_files("cifar10") | {file: malicious(marker)["posix.system"]}
    write_folder(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(DatasetError, match=rf"{file} is refused: it asks for posix\.system"):
        load_dataset(DatasetSection(name="cifar10", root=str(tmp_path)))
    assert not marker.exists()


def test_arrays_of_objects_are_refused_and_never_made() -> None:
    content = python2_pickle(BATCH).replace(b"U\x02u1", b"U\x02O8")
    found = read_cifar_pickle(content, "file")
    with pytest.raises(DatasetError, match="file must be an array of unsigned bytes; found one of another type"):
        as_bytes_array(found["data"], "file")


@pytest.mark.parametrize("shape", [(4, 7), (10**9, 10**9, 10**9), (0, 6)])
def test_a_shape_that_its_bytes_do_not_fill_is_refused_before_anything_is_made(shape: tuple[int, ...]) -> None:
    found = read_cifar_pickle(python2_pickle(BATCH), "file")
    found["data"].state = (1, shape, *found["data"].state[2:])
    with pytest.raises(DatasetError, match=r"says it holds \d+ bytes, but has 24: it is damaged; fetch it again"):
        as_bytes_array(found["data"], "file")


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n}S'x'\nS'y'\nsb.",  # set attributes of the class that stands in
        b"cnumpy.core.multiarray\n_reconstruct\n(tRN}S'arguments'\nS'y'\ns\x86b.",
        b"cnumpy\ndtype\n(tR(K\x01tb.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
    ],
)
def test_the_names_that_are_allowed_do_nothing(content: bytes) -> None:
    with pytest.raises(DatasetError):
        read_cifar_pickle(content, "file")
    assert python_batches("cifar10")["test_batch"].keys() == {b"batch_label", b"filenames", b"data", b"labels"}
    found = read_cifar_pickle(python2_pickle(BATCH), "file")
    np.testing.assert_array_equal(as_bytes_array(found["data"], "file"), BATCH[b"data"])


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_a_pickle_that_is_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(DatasetError, match="is no pickle, damaged or cut short"):
        read_cifar_pickle(python2_pickle(BATCH)[:length], "file")
