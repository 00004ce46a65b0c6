"""Data sets of the hub by name. The library is an extra and the hub is far: a stand-in follows its interface."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from feldman.data.dataset import Dataset
from feldman.data.load import load_dataset
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection
from tests.conftest import cli_environment

pytestmark = pytest.mark.usefixtures("as_shipped")


class StandInSplit:
    """What `datasets.Dataset` is to us: rows as dicts, columns by name, features; images come as Pillow's."""

    def __init__(self, columns: dict[str, list[Any]], names: list[str] | None = None, label: str = "label") -> None:
        self._columns = columns
        self.column_names = list(columns)
        self.features = {name: SimpleNamespace() for name in columns}
        if names is not None:
            self.features[label] = SimpleNamespace(names=names)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return self._columns[key]
        return {name: values[key] for name, values in self._columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def select_columns(self, names: list[str]) -> StandInSplit:
        selected = StandInSplit({name: self._columns[name] for name in names})
        selected.features = {name: self.features[name] for name in names}
        return selected


def picture(index: int, mode: str = "RGB", size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new(mode, size, index if mode == "L" else (index, 0, 255 - index))


def split(
    count: int, *, image: str = "image", label: str = "label", mode: str = "RGB", names: Any = None
) -> StandInSplit:
    columns: dict[str, list[Any]] = {
        image: [picture(index, mode) for index in range(count)],
        label: [index % 3 for index in range(count)],
        "id": list(range(count)),
    }
    return StandInSplit(columns, names, label)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("datasets")
    module.splits = {"train": split(9, names=["a", "b", "c"]), "test": split(6, names=["a", "b", "c"])}
    module.asked = []

    def load_dataset(path: str, name: str | None = None, *, split: str, revision: str | None = None) -> Any:
        module.asked.append((path, name, split, revision))
        if split not in module.splits:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(module.splits)}.')
        return module.splits[split]

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module  # type: ignore[no-any-return]


def load(name: str = "owner/shapes", **parameters: Any) -> Dataset:
    return load_dataset(DatasetSection(name=f"huggingface:{name}", parameters=parameters))


def refusal(**parameters: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        load(**parameters)
    return str(caught.value)


def test_images_labels_and_class_names_are_those_of_the_splits(library: Any) -> None:
    dataset = load()
    assert dataset.name == "huggingface:owner/shapes"
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((9, 3, 4, 3), (6, 3, 4, 3))
    assert dataset.x_train.dtype == np.uint8
    assert dataset.x_train[5, 0, 0].tolist() == [5, 0, 250]
    assert dataset.y_train.tolist() == [0, 1, 2] * 3
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.scale == 1 / 255
    assert library.asked == [("owner/shapes", None, "train", None), ("owner/shapes", None, "test", None)]


def test_columns_splits_configuration_and_revision_are_parameters(library: Any) -> None:
    library.splits = {"a": split(6, image="img", label="fine"), "b": split(3, image="img", label="fine")}
    dataset = load(image="img", label="fine", train="a", test="b", config="small", revision="v1")
    assert (dataset.num_train, dataset.class_names) == (6, ("0", "1", "2"))
    assert library.asked == [("owner/shapes", "small", "a", "v1"), ("owner/shapes", "small", "b", "v1")]


def test_grey_images_have_one_channel(library: Any) -> None:
    library.splits = {part: split(6, mode="L") for part in ("train", "test")}
    assert load().example_shape == (3, 4, 1)


def test_a_part_is_taken_as_of_any_data_set(library: Any) -> None:
    section = DatasetSection(name="huggingface:owner/shapes", num_train=6)
    assert load_dataset(section).num_train == 6


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "needs the library 'datasets', an extra that is not installed" in refusal()
    assert "install it with: pip install 'feldman[huggingface]'" in refusal()


def test_another_module_of_that_name_is_told(library: Any) -> None:
    del library.load_dataset
    assert "found another module of that name" in refusal()


def test_what_the_library_says_is_passed_on(library: Any) -> None:
    assert "its split 'tests' could not be loaded (ValueError: Unknown split \"tests\"" in refusal(test="tests")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"lable": "x"}, "dataset.parameters.lable says nothing to huggingface:owner/shapes (did you mean 'label'?)"),
        ({"label": 3}, "dataset.parameters.label must be a text; found 3"),
        ({"image": "img"}, "has the columns image, label, id; dataset.parameters must name those of images and labels"),
        ({"image": "id"}, "image 0 of 'train' must be an image; found a int"),
        ({"label": "image"}, "column 'image' must hold one label an example; found shape (9, 3, 4, 3)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(library: Any, parameters: dict[str, Any], told: str) -> None:
    assert told in refusal(**parameters)


def test_images_of_many_sizes_are_refused_with_the_way_to_prepare_them(library: Any) -> None:
    library.splits["test"]._columns["image"][2] = picture(0, size=(5, 3))
    assert "image 2 of 'test' has shape (3, 5, 3), the first one of 'train' has (3, 4, 3)" in refusal()
    assert "use `feldman prepare`" in refusal()


def test_splits_that_name_other_classes_or_none_or_nothing_are_refused(library: Any) -> None:
    library.splits["test"] = split(6, names=["a", "c", "b"])
    assert "'train' and 'test' name other classes" in refusal()
    library.splits["test"] = split(0)
    assert "its split 'test' is empty" in refusal()
    library.splits["test"] = split(6, names=["a", "b", "c"])
    library.splits["test"]._columns["label"][4] = -1  # as the hub marks what has no label
    assert "y_test[4] is -1 (1 out of range)" in refusal()


@pytest.mark.skipif(find_spec("datasets") is None, reason="the extra 'huggingface' is not installed")
def test_the_real_library_loads_a_folder_as_the_stand_in_does(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for index in range(count):
                picture(10 * label + index).save(tmp_path / "data" / part / name / f"{index}.png")
    script = """
import sys
from feldman.data.load import load_dataset
from feldman.experiment import DatasetSection

dataset = load_dataset(DatasetSection(name="huggingface:" + sys.argv[1]))
print(dataset.x_train.shape, dataset.x_train[:, 0, 0, 0].tolist(), dataset.y_test.tolist(), dataset.class_names)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data")],
        env=cli_environment() | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "(8, 3, 4, 3) [0, 1, 2, 3, 10, 11, 12, 13] [0, 0, 1, 1] ('cat', 'dog')\n", done.stderr
