"""SVHN: MATLAB files as they are distributed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldman.data import svhn
from feldman.data.load import load_dataset
from feldman.data.svhn import MEANS
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection
from tests.data.originals import svhn_arrays, write_svhn

pytestmark = pytest.mark.usefixtures("as_shipped")


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FELDMAN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def refusal(root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        load_dataset(DatasetSection(name="svhn", root=str(root)))
    return str(caught.value)


def test_images_are_example_height_width_channel_and_ten_means_zero(tmp_path: Path) -> None:
    dataset = load_dataset(DatasetSection(name="svhn", root=str(write_svhn(tmp_path))))
    for part in ("train", "test"):
        x, y = svhn_arrays(part)["X"], svhn_arrays(part)["y"]
        found_x, found_y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        assert found_x.dtype == np.uint8
        assert found_x.flags.c_contiguous
        for example in range(len(found_y)):
            np.testing.assert_array_equal(found_x[example], x[..., example])
            assert found_y[example] == (0 if y[example, 0] == 10 else y[example, 0])
    assert dataset.class_names == tuple("0123456789")
    assert dataset.shift == MEANS
    assert dataset.fingerprint == "36934fd6995eb4beeaaf6d0145ccceef0717da171c70d5f7caaf12fac734f905"


@pytest.mark.parametrize("layout", ["", "svhn"])
@pytest.mark.parametrize("where", ["root", "environment", "home"])
def test_files_are_found_in_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, layout: str
) -> None:
    root = tmp_path / "home" / ".cache" / "feldman" if where == "home" else tmp_path / "files"
    write_svhn(root / layout)
    if where == "environment":
        monkeypatch.setenv("FELDMAN_DATA", str(root))
    section = DatasetSection(name="svhn", root=str(root) if where == "root" else None)
    assert load_dataset(section).num_train == 30


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"X": None}, "lacks X; expected the images X and the digits y"),
        ({"y": None}, "lacks y"),
        (
            {"X": np.zeros((32, 32, 3, 29), np.uint8)},
            "an example for each of 30 digits in y; found uint8 (32, 32, 3, 29)",
        ),
        ({"X": np.zeros((30, 32, 32, 3), np.uint8)}, "found uint8 (30, 32, 32, 3)"),
        ({"X": np.zeros((32, 32, 3, 30))}, "found float64 (32, 32, 3, 30)"),
        ({"y": np.zeros((30, 1), np.uint8)}, "y must be digits 1 .. 10, where 10 stands for 0; found 0 .. 0"),
        ({"y": np.full((30, 1), 11, np.uint8)}, "found 11 .. 11"),
        ({"y": np.ones((30, 1))}, "y must hold integer labels; found dtype float64"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    message = refusal(write_svhn(tmp_path, **changes))
    assert told in message
    assert str(tmp_path / "train_32x32.mat") in message


@pytest.mark.parametrize("kept", [0, 3, 100, 127, 128, 200, 2000, -1000, -2])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    file = write_svhn(tmp_path) / "test_32x32.mat"
    file.write_bytes(file.read_bytes()[:kept])
    message = refusal(tmp_path)
    assert message.startswith(str(file))
    assert "cut short" in message or "lacks" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (write_svhn(tmp_path) / "test_32x32.mat").unlink()
    assert refusal(tmp_path).endswith(" lacks test_32x32.mat; svhn needs train_32x32.mat, test_32x32.mat")
    assert "no svhn files under dataset.root = " in refusal(tmp_path / "nowhere")


def test_what_is_nowhere_is_downloaded_and_what_is_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(url: str, md5: str, folder: Path) -> Path:
        asked.append(url.rpartition("/")[2])
        if len(asked) == 2:
            raise OSError("the line is cut")
        (write_svhn(tmp_path / "made") / asked[-1]).rename(folder / asked[-1])
        return folder / asked[-1]

    (tmp_path / "cache" / "svhn").mkdir(parents=True)
    monkeypatch.setenv("FELDMAN_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(svhn, "download", download)
    with pytest.raises(DatasetError, match=r"could not be downloaded \(the line is cut\); put train_32x32\.mat and"):
        load_dataset(DatasetSection(name="svhn"))
    for _ in range(2):
        assert load_dataset(DatasetSection(name="svhn")).num_test == 15
    assert asked == ["train_32x32.mat", "test_32x32.mat", "test_32x32.mat"]
