"""MNIST and Fashion-MNIST: the idx format, where the files are looked for, and the real ones."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman.data import idx
from feldman.data.idx import FILES, IDX_DATASETS, read_idx
from feldman.data.load import load_dataset
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx_bytes(values: np.ndarray) -> bytes:
    """The format as its authors describe it: zeros, type, rank, big-endian sizes, values."""
    header = b"\0\0\x08" + bytes([values.ndim]) + b"".join(struct.pack(">I", size) for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


def images_and_labels(part: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(part))
    count = {"train": 40, "test": 20}[part]
    return rng.integers(0, 256, (count, 5, 4)), np.arange(count) % 10


def write_files(folder: Path, *, gzipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        for axis, values in zip("xy", images_and_labels(part), strict=True):
            path = folder / FILES[f"{axis}_{part}"]
            if gzipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx_bytes(values)))
            else:
                path.write_bytes(idx_bytes(values))


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Debian's packages nor a cache from before, and no download."""
    monkeypatch.delenv("FELDMAN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, source in IDX_DATASETS.items():
        nowhere = replace(source, system_folder=str(tmp_path / "system" / name))
        monkeypatch.setitem(IDX_DATASETS, name, nowhere)
    monkeypatch.setattr(idx, "_download", refuse_download)


def refuse_download(source: idx.IdxSource, looked_in: list[Path]) -> Path:
    raise DatasetError(f"{source.name}: would be downloaded; looked in {len(looked_in)} folders")


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.booleans())
def test_idx_files_of_any_shape_read_back_as_written(shape: list[int], gzipped: bool) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape) % 256
    with pytest.MonkeyPatch.context() as patch:
        content = idx_bytes(values)
        patch.setattr(Path, "read_bytes", lambda _: gzip.compress(content) if gzipped else content)
        read = read_idx(Path("file.gz" if gzipped else "file"))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, values)


def test_sizes_are_big_endian(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 4]) + bytes(260))
    assert read_idx(path).shape == (260,)


GOOD = idx_bytes(np.arange(12).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("f", GOOD[:-1], "says it holds 3x2x2 = 12 bytes, but has 11: it is cut short or damaged; fetch it again"),
        ("f", GOOD + b"x", "but has 13"),
        ("f", GOOD[:9], "is not an idx file of unsigned bytes (its first bytes are '00000803')"),
        ("f", b"", "is not an idx file of unsigned bytes (its first bytes are '')"),
        ("f", b"\0\0\x0d" + GOOD[3:], "is not an idx file of unsigned bytes (its first bytes are '00000d03')"),
        ("f", gzip.compress(GOOD), "is not an idx file of unsigned bytes (its first bytes are '1f8b"),
        ("f.gz", gzip.compress(GOOD)[:-9], "is damaged or cut short"),
        ("f.gz", GOOD, "is damaged or cut short (Not a gzipped file"),
        ("f.gz", gzip.compress(GOOD)[:-8] + bytes(8), "is damaged or cut short (CRC check failed"),
        ("f.gz", gzip.compress(GOOD)[:10] + b"\xff" * 20, "is damaged or cut short"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)


def test_a_missing_file_is_refused_with_the_reason_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read .*: Is a directory"):
        read_idx(tmp_path)


def layouts(name: str) -> list[str]:
    return ["", name, f"{IDX_DATASETS[name].torchvision_class}/raw"]


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("where", ["root", "environment", "home"])
@pytest.mark.parametrize(("name", "layout"), [(name, layout) for name in IDX_DATASETS for layout in layouts(name)])
def test_files_are_found_in_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, layout: str, where: str, gzipped: bool
) -> None:
    root = tmp_path / "home" / ".cache" / "feldman" if where == "home" else tmp_path / "files"
    write_files(root / layout, gzipped=gzipped)
    if where == "environment":
        monkeypatch.setenv("FELDMAN_DATA", str(root))
    dataset = load_dataset(DatasetSection(name=name, root=str(root) if where == "root" else None))
    for part in ("train", "test"):
        x, y = images_and_labels(part)
        np.testing.assert_array_equal(getattr(dataset, f"x_{part}"), x[..., np.newaxis])
        np.testing.assert_array_equal(getattr(dataset, f"y_{part}"), y)
    assert dataset.class_names == IDX_DATASETS[name].class_names
    assert (dataset.shift, dataset.scale) == (IDX_DATASETS[name].mean, 1 / IDX_DATASETS[name].std)


@pytest.mark.parametrize("name", IDX_DATASETS)
def test_files_are_found_where_the_system_puts_them(tmp_path: Path, name: str) -> None:
    write_files(tmp_path / "system" / name, gzipped=True)
    assert load_dataset(DatasetSection(name=name)).num_train == 40


def test_plain_and_gzipped_files_are_one_data_set(tmp_path: Path) -> None:
    write_files(tmp_path / "plain")
    write_files(tmp_path / "zipped", gzipped=True)
    plain, zipped = (load_dataset(DatasetSection(name="mnist", root=str(tmp_path / f))) for f in ("plain", "zipped"))
    assert plain.fingerprint == zipped.fingerprint


def test_a_root_that_is_given_is_the_only_place_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "elsewhere")
    monkeypatch.setenv("FELDMAN_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(
        DatasetError, match=r"no mnist files under dataset.root = '.*empty'; expected train-images-idx3"
    ):
        load_dataset(DatasetSection(name="mnist", root=str(tmp_path / "empty")))


def test_files_that_are_nowhere_are_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="mnist: would be downloaded; looked in 4 folders"):
        load_dataset(DatasetSection(name="mnist"))


@pytest.mark.parametrize("file", FILES.values())
def test_one_missing_file_of_the_four_is_named(tmp_path: Path, file: str) -> None:
    write_files(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(DatasetError, match=rf"lacks {file}\[\.gz\]; the data set needs four files"):
        load_dataset(DatasetSection(name="fashion-mnist", root=str(tmp_path)))


def test_images_without_height_and_width_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / FILES["x_test"]).write_bytes(idx_bytes(np.zeros((20, 20))))
    with pytest.raises(DatasetError, match=r"must hold \[example, height, width\]; found \(20, 20\)"):
        load_dataset(DatasetSection(name="mnist", root=str(tmp_path)))


def test_labels_that_are_not_labels_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / FILES["y_test"]).write_bytes(idx_bytes(np.full(20, 10)))
    with pytest.raises(DatasetError, match=r"labels must be 0 \.\. 9; y_test\[0\] is 10 \(20 out of range\)"):
        load_dataset(DatasetSection(name="mnist", root=str(tmp_path)))


def test_the_real_fashion_mnist_is_what_its_authors_say_and_has_the_declared_constants() -> None:
    assert DEBIAN.is_dir(), (
        f"{DEBIAN} is missing: install Debian's package dataset-fashion-mnist (.ci/run does), "
        "so that the reader is tested on the real files"
    )
    dataset = load_dataset(DatasetSection(name="fashion-mnist", root=str(DEBIAN)))
    assert dataset.x_train.shape == (60_000, 28, 28, 1)
    assert dataset.x_test.shape == (10_000, 28, 28, 1)
    assert np.bincount(dataset.y_train).tolist() == [6000] * 10
    assert np.bincount(dataset.y_test).tolist() == [1000] * 10
    # From the counts of the 256 pixel values: the mean of 47 million floats in little memory.
    counts = np.bincount(dataset.x_train.reshape(-1), minlength=256)
    mean = (counts * np.arange(256)).sum() / counts.sum()
    std = np.sqrt((counts * (np.arange(256) - mean) ** 2).sum() / counts.sum())
    assert dataset.shift == pytest.approx(mean, abs=0.005)
    assert 1 / np.asarray(dataset.scale) == pytest.approx(std, abs=0.005)
    assert dataset.fingerprint == "029fe31f22fe6901e0812386dcb60859a12ea7076d23d7e1f814e291428e9f28"
