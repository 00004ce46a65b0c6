"""A user's own data: arrays from an .npz file or a folder of .npy files, or a function."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldman.data.arrays import load_arrays
from feldman.data.dataset import Dataset
from feldman.data.load import load_dataset
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection
from tests.conftest import small_arrays, small_dataset

pytestmark = pytest.mark.usefixtures("as_shipped")


def in_folder(folder: Path, arrays: dict[str, Any]) -> str:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def in_file(path: Path, arrays: dict[str, Any]) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_a_file_and_a_folder_of_the_same_arrays_are_one_data_set(tmp_path: Path) -> None:
    from_file = load_arrays(in_file(tmp_path / "data.npz", small_arrays()))
    from_folder = load_arrays(in_folder(tmp_path / "data", small_arrays()))
    assert from_file.fingerprint == from_folder.fingerprint == small_dataset().fingerprint


def test_inputs_in_a_folder_are_memory_mapped_and_read_only(tmp_path: Path) -> None:
    dataset = load_arrays(in_folder(tmp_path / "data", small_arrays()))
    for x in (dataset.x_train, dataset.x_test):
        assert isinstance(x, np.memmap)
        assert not x.flags.writeable


@pytest.mark.parametrize("shape", [(1,), (2, 3), (4, 4, 3), (1, 1, 1, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float64", ">f4"])
def test_inputs_keep_their_shape_and_type(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    arrays = small_arrays()
    for part in ("train", "test"):
        arrays[f"x_{part}"] = np.ones((len(arrays[f"y_{part}"]), *shape), dtype)
    dataset = load_arrays(in_file(tmp_path / "data.npz", arrays))
    assert dataset.example_shape == shape
    assert dataset.x_train.dtype == dtype
    assert dataset.scale == (1 / 255 if dtype == "uint8" else 1.0)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64", ">i2"])
def test_labels_of_any_integer_type_become_int64(tmp_path: Path, dtype: str) -> None:
    arrays = small_arrays()
    arrays |= {name: arrays[name].astype(dtype) for name in ("y_train", "y_test")}
    dataset = load_arrays(in_file(tmp_path / "data.npz", arrays))
    assert dataset.y_train.dtype == np.int64
    np.testing.assert_array_equal(dataset.y_train, small_arrays()["y_train"])


def test_any_number_of_classes_is_counted_from_the_labels(tmp_path: Path) -> None:
    arrays = small_arrays() | {"y_train": np.arange(60), "y_test": np.arange(30)}
    assert load_arrays(in_file(tmp_path / "data.npz", arrays)).class_names == tuple(map(str, range(60)))


@pytest.mark.parametrize("write", [in_file, in_folder])
def test_class_names_are_taken_where_they_are_given(tmp_path: Path, write: Any) -> None:
    arrays = small_arrays() | {"class_names": np.array(["cat", "dog", "bird"])}
    assert load_arrays(write(tmp_path / "data.npz", arrays)).class_names == ("cat", "dog", "bird")


def test_a_class_that_is_named_but_has_no_training_example_is_refused(tmp_path: Path) -> None:
    arrays = small_arrays() | {"class_names": np.array(["cat", "dog", "bird", "fish"])}
    with pytest.raises(DatasetError, match=r"class 3 \('fish'\) has none"):
        load_arrays(in_file(tmp_path / "data.npz", arrays))


def _npz_with(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{part}.npy", content if part == name else _npy(small_arrays()[part]))
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read as .npz"),
        (b"PK\x03\x04 not really", "cannot be read as .npz"),
        (b"x_train,y_train\n1,2\n", "cannot be read as .npz"),
        (_npz_with("x_test", _npy(small_arrays()["x_test"])[:-5]), "cannot be read as .npz"),
        (_npz_with("x_test", b""), "cannot be read as .npz"),
        (_npz_with("y_test", _npy(small_arrays()["y_test"]))[:-30], "cannot be read as .npz"),
        (_npy(np.zeros((3, 3))), "holds one array; expected an .npz file with x_train, y_train, x_test, y_test"),
        (_npz_with("x_train", _npy(np.array([{}, {}]))), "it holds Python objects, which are not read"),
    ],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        load_arrays(str(path))
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not numpy", _npy(small_arrays()["x_train"])[:-5], _npy(np.array([{}]))])
def test_a_folder_with_a_damaged_array_is_refused_by_the_name_of_the_file(tmp_path: Path, content: bytes) -> None:
    folder = in_folder(tmp_path / "data", small_arrays())
    (tmp_path / "data" / "x_train.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x_train\.npy cannot be read as \.npy"):
        load_arrays(folder)


@pytest.mark.parametrize("write", [in_file, in_folder])
def test_missing_arrays_are_named_with_those_that_are_there(tmp_path: Path, write: Any) -> None:
    arrays = {name: array for name, array in small_arrays().items() if name.startswith("x")}
    with pytest.raises(DatasetError, match="lacks y_train, y_test; it holds x_test, x_train"):
        load_arrays(write(tmp_path / "data.npz", arrays))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"y_train": np.zeros(60)}, "y_train must hold integer labels; found dtype float64"),
        ({"y_test": np.array(["a"] * 30)}, "y_test must hold integer labels; found dtype <U1"),
        ({"y_test": np.empty(0, np.int64)}, "y_train and y_test must hold at least one label each"),
        ({"y_train": np.int64(3)}, "y_train must hold one label an example"),
        ({"y_test": np.zeros((30, 1), np.int64)}, "y_test must hold one label an example"),
        ({"x_train": np.float32(3)}, "x_train must be [example, ...]"),
        ({"y_train": np.full(60, 10**15)}, "every class needs a training example"),
        ({"y_test": np.full(30, 10**15)}, "every class needs a training example"),
        ({"y_train": -np.ones(60, np.int64), "y_test": -np.ones(30, np.int64)}, "labels must be"),
        ({"class_names": np.array("cat")}, "class_names must be one name a class"),
        ({"class_names": np.array([["a", "b", "c"]])}, "class_names must be one name a class"),
        ({"class_names": np.array(["a", "b"])}, "labels must be 0 .. 1; y_train[2] is 2"),
    ],
)
def test_arrays_that_make_no_data_set_are_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = in_file(tmp_path / "data.npz", small_arrays() | changes)
    with pytest.raises(DatasetError) as caught:
        load_arrays(path)
    assert told in str(caught.value)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.path = '.*nowhere\.npz' does not exist"):
        load_arrays(str(tmp_path / "nowhere.npz"))
    with pytest.raises(DatasetError, match=r"'arrays' needs dataset\.path"):
        load_arrays(None)


def make(seed: int = 0, name: str = "mine") -> Dataset:
    return replace(small_dataset(seed), name=name)


def make_nothing() -> None:
    pass


def make_failing() -> Dataset:
    raise RuntimeError("no network today")


def test_a_users_own_function_is_called_with_its_parameters() -> None:
    section = DatasetSection(name="tests.data.test_arrays:make", parameters={"seed": 3, "name": "here"})
    dataset = load_dataset(section)
    assert dataset.name == "here"
    assert dataset.fingerprint == small_dataset(3).fingerprint


def test_a_part_of_a_users_own_data_set_can_be_taken() -> None:
    assert load_dataset(DatasetSection(name="tests.data.test_arrays:make", num_train=30)).num_train == 30


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("tests.data.test_arrays:make_nothing", {}, "must return a Dataset; it returned a NoneType"),
        ("tests.data.test_arrays:mak", {}, "has no 'mak' (did you mean 'make'?)"),
        ("tests.data.test_arrays:np", {}, "must be a function; found a module"),
        ("tests.nowhere:make", {}, "cannot import 'tests.nowhere'"),
        (":make", {}, "importing '' raised"),
        ("tests.data.test_arrays:", {}, "has no ''"),
        ("tests.data.test_arrays:make", {"sed": 1}, "unexpected keyword argument 'sed'"),
        ("tests.data.test_arrays:make_failing", {}, "no network today"),
        (
            "digit",
            {},
            "there is no data set 'digit' (did you mean 'digits'?); choose one of digits, mnist, fashion-mnist",
        ),
    ],
)
def test_a_function_that_gives_no_data_set_is_refused_with_the_reason(
    name: str, parameters: dict[str, Any], told: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset(DatasetSection(name=name, parameters=parameters))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [("path", "x.npz", "digits"), ("root", "x", "arrays"), ("parameters", {"a": 1}, "mnist")],
)
def test_a_key_that_says_nothing_to_a_data_set_is_refused(key: str, value: Any, name: str) -> None:
    with pytest.raises(DatasetError, match=rf"dataset\.{key} says nothing to the data set '{name}'; take it out"):
        load_dataset(DatasetSection.model_validate({"name": name, key: value}))
