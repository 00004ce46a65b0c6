"""CIFAR-10 and CIFAR-100: four forms of one data set, where they are looked for, and what is refused."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feldman.data import cifar
from feldman.data.cifar import CIFAR_DATASETS, CifarSource
from feldman.data.dataset import Dataset
from feldman.data.load import load_dataset
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection
from tests.data.originals import (
    NAMES,
    binary_files,
    coarse,
    labels,
    python2_pickle,
    python_batches,
    python_files,
    records,
    write_archive,
    write_folder,
    write_version,
)

VERSIONS = ("python folder", "python archive", "binary folder", "binary archive")

pytestmark = pytest.mark.usefixtures("as_shipped")


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache from before, and no download."""
    monkeypatch.delenv("FELDMAN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cifar, "_download", refuse_download)


def refuse_download(source: CifarSource, looked_in: list[Path]) -> Path:
    raise DatasetError(f"{source.name}: would be downloaded; looked in {len(looked_in)} folders")


def load(name: str, root: Path | None, **parameters: str) -> Dataset:
    return load_dataset(
        DatasetSection(name=name, root=None if root is None else str(root), parameters=dict(parameters))
    )


def refusal(name: str, root: Path, **parameters: str) -> str:
    with pytest.raises(DatasetError) as caught:
        load(name, root, **parameters)
    return str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CIFAR_DATASETS)
def test_images_are_height_width_channel_and_labels_and_names_are_those_of_the_files(
    tmp_path: Path, name: str, version: str
) -> None:
    write_version(tmp_path, name, version)
    dataset = load(name, tmp_path)
    for part in ("train", "test"):
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        assert x.dtype == np.uint8
        assert x.shape == (len(y), 32, 32, 3)
        np.testing.assert_array_equal(y, labels(name, part))
        for channel in range(3):  # a record is 1,024 red, 1,024 green, 1,024 blue
            plane = records(name, part)[:, 1024 * channel : 1024 * (channel + 1)]
            np.testing.assert_array_equal(x[..., channel].reshape(len(y), -1), plane)
    assert dataset.class_names == tuple(NAMES[name])
    assert dataset.shift == CIFAR_DATASETS[name].means
    assert dataset.scale == tuple(1 / std for std in CIFAR_DATASETS[name].stds)


@pytest.mark.parametrize("name", CIFAR_DATASETS)
def test_all_forms_are_one_data_set_with_one_fingerprint_for_ever(tmp_path: Path, name: str) -> None:
    for version in VERSIONS:
        write_version(tmp_path / version, name, version)
    (fingerprint,) = {load(name, tmp_path / version).fingerprint for version in VERSIONS}
    assert (
        fingerprint
        == {
            "cifar10": "223a0576dd1b261d80135ad7e025fd63158b6e5d945b07c48e66e088ae1fc66d",
            "cifar100": "f724272f57f42e1a87ec0d7392b93c469c7b54e7cc08475148ac14919479b9d4",
        }[name]
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_coarse_labels_of_cifar100_are_asked_for_by_a_parameter(tmp_path: Path, version: str) -> None:
    write_version(tmp_path, "cifar100", version)
    fine, families = load("cifar100", tmp_path, labels="fine"), load("cifar100", tmp_path, labels="coarse")
    assert fine.fingerprint == load("cifar100", tmp_path).fingerprint
    np.testing.assert_array_equal(families.y_train, coarse(fine.y_train))
    assert families.class_names == tuple(NAMES["coarse"])


def test_parameters_that_say_nothing_are_refused(tmp_path: Path) -> None:
    assert "has no labels 'corse' (did you mean 'coarse'?); choose one of fine, coarse" in refusal(
        "cifar100", tmp_path, labels="corse"
    )
    assert "may only be labels = 'fine' or 'coarse'; found {'label': 'fine'}" in refusal(
        "cifar100", tmp_path, label="fine"
    )
    assert "dataset.parameters says nothing to the data set 'cifar10'" in refusal("cifar10", tmp_path, labels="fine")


@pytest.mark.parametrize("layout", ["", "cifar10"])
@pytest.mark.parametrize("where", ["root", "environment", "home"])
def test_files_are_found_in_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, layout: str
) -> None:
    root = tmp_path / "home" / ".cache" / "feldman" if where == "home" else tmp_path / "files"
    write_version(root / layout, "cifar10", "python archive")
    if where == "environment":
        monkeypatch.setenv("FELDMAN_DATA", str(root))
    assert load("cifar10", root if where == "root" else None).num_train == 20


@pytest.mark.parametrize("version", VERSIONS)
def test_a_root_may_be_the_folder_or_the_archive_itself(tmp_path: Path, version: str) -> None:
    assert load("cifar10", write_version(tmp_path, "cifar10", version)).num_train == 20


def test_a_root_that_is_given_is_the_only_place_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(tmp_path / "elsewhere", "cifar10", "python folder")
    monkeypatch.setenv("FELDMAN_DATA", str(tmp_path / "elsewhere"))
    assert refusal("cifar10", tmp_path / "empty") == (
        f"no cifar10 files under dataset.root = '{tmp_path / 'empty'}'; expected one of cifar-10-batches-py, "
        "cifar-10-batches-bin, cifar-10-python.tar.gz, cifar-10-binary.tar.gz"
    )


def test_files_that_are_nowhere_are_downloaded() -> None:
    with pytest.raises(DatasetError, match="cifar100: would be downloaded; looked in 2 folders"):
        load("cifar100", None)


def test_the_archive_is_downloaded_and_read_but_not_by_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    asked = []

    def download(url: str, md5: str, folder: Path) -> Path:
        asked.append((url, md5))
        return write_version(folder, "cifar10", "python archive")

    monkeypatch.undo()
    monkeypatch.setenv("FELDMAN_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "download", download)
    original = torchvision.datasets.CIFAR10
    assert load("cifar10", None).num_train == 20
    assert load("cifar10", None).num_train == 20
    assert asked == [(original.url, original.tgz_md5)], "once"


def test_no_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, md5: str, folder: Path) -> Path:
        raise OSError("no route to host")

    monkeypatch.undo()
    monkeypatch.setenv("FELDMAN_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "download", download)
    with pytest.raises(
        DatasetError, match=r"could not be downloaded \(no route to host\); put one of .* dataset\.root"
    ):
        load("cifar10", None)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CIFAR_DATASETS)
def test_each_missing_file_is_named(tmp_path: Path, name: str, version: str) -> None:
    is_python = version.startswith("python")
    source, files = CIFAR_DATASETS[name], (python_files if is_python else binary_files)(name)
    folder = source.python_folder if is_python else source.binary_folder
    archive = source.python_archive if is_python else source.binary_archive
    needed = set(files) - {"coarse_label_names.txt"}
    for number, missing in enumerate(sorted(needed)):
        root, kept = tmp_path / str(number), {file: content for file, content in files.items() if file != missing}
        if version.endswith("folder"):
            write_folder(root / folder, kept)
        else:
            write_archive(root / archive, folder, kept)
        assert f" lacks {missing}; the data set needs " in refusal(name, root)


def changed(file: str, change: Callable[[bytes], bytes], *, binary: bool = False) -> dict[str, bytes]:
    files = (binary_files if binary else python_files)("cifar10")
    return files | {file: change(files[file])}


def batch(**changes: object) -> bytes:
    """A batch in which some values are others, or missing where None."""
    found = python_batches("cifar10")["data_batch_2"] | {key.encode(): value for key, value in changes.items()}
    return python2_pickle({key: value for key, value in found.items() if value is not None})


DAMAGED_PYTHON = [
    ("data_batch_2", lambda content: content[:-100], "data_batch_2 is no pickle, damaged or cut short (UnpicklingError"),
    ("data_batch_2", lambda content: b"", "is no pickle, damaged or cut short (EOFError"),
    ("batches.meta", lambda content: b"not a pickle", "batches.meta is no pickle, damaged"),
    ("data_batch_2", lambda _: python2_pickle([1, 2]), "must hold a dict, as CIFAR's python version does; found a list"),
    ("data_batch_2", lambda _: batch(labels=None), "must hold a list 'labels'; it holds batch_label, data, filenames"),
    ("data_batch_2", lambda _: batch(labels=b"0123"), "must hold a list 'labels'"),
    ("data_batch_2", lambda _: batch(labels=[0, 1, 2, 10]), "must hold labels 0 .. 9 alone; it is damaged"),
    ("data_batch_2", lambda _: batch(labels=[0, 1, 2, -1]), "must hold labels 0 .. 9 alone"),
    ("data_batch_2", lambda _: batch(labels=[0, 1, 2, 2**70]), "must hold labels 0 .. 9 alone"),
    ("data_batch_2", lambda _: batch(labels=[0, 1, 2, 1.0]), "must hold labels 0 .. 9 alone"),
    ("data_batch_2", lambda _: batch(labels=[0, 1, 2]), "must hold 3072 bytes for each of its 3 labels; found (4, 3072)"),
    ("data_batch_2", lambda _: batch(data=None), "lacks 'data'; it holds batch_label, filenames, labels"),
    ("data_batch_2", lambda _: batch(data=[1, 2]), "data must be an array of unsigned bytes; found a list"),
    ("data_batch_2", lambda _: batch(data=np.zeros((4, 3071), np.uint8)), "found (4, 3071)"),
    ("data_batch_2", lambda _: batch(data=np.zeros(4 * 3072, np.uint8)), "found (12288,)"),
    ("data_batch_2", lambda _: batch(data=np.zeros((4, 3072), np.int16)), "found one of another type"),
    ("batches.meta", lambda _: python2_pickle({b"num_vis": 3072}), "must hold a list 'label_names'; it holds num_vis"),
    ("batches.meta", lambda _: python2_pickle({b"label_names": [b"a"] * 9}), "must name 10 classes; found 9"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "told"), DAMAGED_PYTHON)
def test_a_damaged_python_version_is_refused_by_the_name_of_the_file(
    tmp_path: Path, file: str, change: Callable[[bytes], bytes], told: str
) -> None:
    write_folder(tmp_path / "cifar-10-batches-py", changed(file, change))
    assert told in refusal("cifar10", tmp_path)


DAMAGED_BINARY = [
    ("data_batch_3.bin", lambda content: content[:-1], "data_batch_3.bin must hold records of 3073 bytes; found 12291"),
    ("data_batch_3.bin", lambda content: b"", "must hold records of 3073 bytes; found 0 bytes: it is cut short"),
    ("test_batch.bin", lambda content: b"\x0a" + content[1:], "must hold labels 0 .. 9 alone"),
    ("batches.meta.txt", lambda content: b"one\ntwo\n", "must name 10 classes; found 2"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "told"), DAMAGED_BINARY)
def test_a_damaged_binary_version_is_refused_by_the_name_of_the_file(
    tmp_path: Path, file: str, change: Callable[[bytes], bytes], told: str
) -> None:
    write_folder(tmp_path / "cifar-10-batches-bin", changed(file, change, binary=True))
    assert told in refusal("cifar10", tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 5, 20, 3000, 30_000, -1, -8])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    archive = write_version(tmp_path, "cifar10", "python archive")
    archive.write_bytes(archive.read_bytes()[:kept])
    assert str(archive) in refusal("cifar10", tmp_path)


def test_an_archive_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    archive = write_version(tmp_path, "cifar10", "python archive")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    assert str(archive) in refusal("cifar10", tmp_path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


SURPRISES = [
    (member("cifar-10-batches-py/x", tarfile.SYMTYPE, "/etc/passwd"), "its member 'cifar-10-batches-py/x' is no file in"),
    (member("cifar-10-batches-py/x", tarfile.LNKTYPE, "/etc/passwd"), "is no file in cifar-10-batches-py/"),
    (member("cifar-10-batches-py/x", tarfile.CHRTYPE), "is no file in"),
    (member("cifar-10-batches-py/x", tarfile.FIFOTYPE), "is no file in"),
    (member("cifar-10-batches-py/../../x"), "is no file in"),
    (member("/etc/passwd"), "is no file in"),
    (member("other/data_batch_1"), "is no file in"),
    (member("cifar-10-batches-py/test_batch", size=3), "it holds 'cifar-10-batches-py/test_batch' twice"),
]  # fmt: skip


@pytest.mark.parametrize(("surprise", "told"), SURPRISES)
def test_an_archive_that_holds_anything_but_files_of_its_folder_is_refused(
    tmp_path: Path, surprise: tarfile.TarInfo, told: str
) -> None:
    files = python_files("cifar10")
    write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files, [surprise])
    message = refusal("cifar10", tmp_path)
    assert told in message
    assert "is refused" in message
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cifar-10-python.tar.gz"], "nothing is extracted"


def test_a_file_that_would_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feldman.data.members._MAX_FILE_BYTES", 1000)
    for number, version in enumerate(("python folder", "python archive")):
        write_version(tmp_path / str(number), "cifar10", version)
        assert "more than 1,000: it is no file of this data set" in refusal("cifar10", tmp_path / str(number))
