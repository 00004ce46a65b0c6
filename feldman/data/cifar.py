"""CIFAR-10 and CIFAR-100 (A. Krizhevsky, 2009): the python or the binary version, as a folder or as the original archive.

A record is 3,072 bytes: 1,024 red, 1,024 green, 1,024 blue, each 32 rows of 32. The binary version puts its labels before it, one
byte (CIFAR-10) or two, coarse and fine (CIFAR-100); the python version keeps both in dicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

from feldman.data.cifar_pickle import as_bytes_array, read_cifar_pickle
from feldman.data.dataset import Dataset, as_labels
from feldman.data.members import read_members
from feldman.data.places import cache_folder, download, is_there, searched_folders
from feldman.errors import DatasetError, listed, suggestion

__all__ = ["CIFAR_DATASETS", "CifarSource", "load_cifar"]

_RECORD_BYTES = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class LabelKind:
    """One way in which examples are labelled: where labels and class names are, in either version."""

    key: str
    names_key: str
    names_file: str
    byte: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class CifarSource:
    """One of the two data sets: its files, its kinds of labels (the first is the default) and its constants."""

    name: str
    torchvision_class: str
    python_folder: str
    python_archive: str
    binary_folder: str
    binary_archive: str
    train_files: tuple[str, ...]
    test_file: str
    meta_file: str
    binary_test_file: str
    labels: Mapping[str, LabelKind]
    # Of each channel's values (0 to 255) in the 50,000 training images, rounded: declared constants.
    means: tuple[float, float, float]
    stds: tuple[float, float, float]

    @property
    def versions(self) -> tuple[str, ...]:
        """What is looked for, in this order."""
        return (self.python_folder, self.binary_folder, self.python_archive, self.binary_archive)


CIFAR_DATASETS = {
    "cifar10": CifarSource(
        name="cifar10",
        torchvision_class="CIFAR10",
        python_folder="cifar-10-batches-py",
        python_archive="cifar-10-python.tar.gz",
        binary_folder="cifar-10-batches-bin",
        binary_archive="cifar-10-binary.tar.gz",
        train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test_file="test_batch",
        meta_file="batches.meta",
        binary_test_file="test_batch.bin",
        labels={
            "fine": LabelKind(
                key="labels", names_key="label_names", names_file="batches.meta.txt", byte=0, num_classes=10
            )
        },
        means=(125.31, 122.95, 113.87),
        stds=(62.99, 62.09, 66.70),
    ),
    "cifar100": CifarSource(
        name="cifar100",
        torchvision_class="CIFAR100",
        python_folder="cifar-100-python",
        python_archive="cifar-100-python.tar.gz",
        binary_folder="cifar-100-binary",
        binary_archive="cifar-100-binary.tar.gz",
        train_files=("train",),
        test_file="test",
        meta_file="meta",
        binary_test_file="test.bin",
        labels={
            "fine": LabelKind(
                key="fine_labels",
                names_key="fine_label_names",
                names_file="fine_label_names.txt",
                byte=1,
                num_classes=100,
            ),
            "coarse": LabelKind(
                key="coarse_labels",
                names_key="coarse_label_names",
                names_file="coarse_label_names.txt",
                byte=0,
                num_classes=20,
            ),
        },
        means=(129.30, 124.07, 112.43),
        stds=(68.17, 65.39, 70.42),
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Records and labels of one file, or of several."""

    records: UInt8[np.ndarray, "example 3072"]
    labels: Int64[np.ndarray, " example"]


def load_cifar(source: CifarSource, root: str | None, labels: str = "fine") -> Dataset:
    """Load CIFAR-10 or CIFAR-100: uint8 [example, 32, 32, 3].

    Both versions hold the same examples in the same order. They are looked for in ``root`` alone if it is given, else under
    ``$FELDMAN_DATA`` or ``~/.cache/feldman``, there or in a folder of the data set's name; what is nowhere is downloaded there
    with torchvision, as the archive of the python version.

    Parameters
    ----------
    source
        Which of the two.
    root
        The folder that holds a version's folder or archive, or that folder or archive itself.
    labels
        ``"fine"``, or for CIFAR-100 ``"coarse"``.

    Raises
    ------
    DatasetError
        If files are nowhere to be found, incomplete, cut short, or not what CIFAR holds.
    """
    if labels not in source.labels:
        raise DatasetError(
            f"{source.name} has no labels '{labels}'{suggestion(labels, source.labels)}; choose one of {listed(source.labels)}"
        )
    kind = source.labels[labels]
    where = _find(source, root)
    is_python = where.name in (source.python_folder, source.python_archive)
    train, test, class_names = (_read_python if is_python else _read_binary)(source, kind, where)
    if len(class_names) != kind.num_classes:
        raise DatasetError(f"{where} must name {kind.num_classes} classes; found {len(class_names)}")
    return Dataset(
        name=source.name,
        x_train=_images(train.records),
        y_train=train.labels,
        x_test=_images(test.records),
        y_test=test.labels,
        class_names=class_names,
        shift=source.means,
        scale=tuple(1 / std for std in source.stds),
    )


def _images(records: UInt8[np.ndarray, "example 3072"]) -> UInt8[np.ndarray, "example 32 32 3"]:
    return np.ascontiguousarray(records.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _joined(parts: list[_Part]) -> _Part:
    return _Part(
        records=np.concatenate([part.records for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )


def _read_python(source: CifarSource, kind: LabelKind, where: Path) -> tuple[_Part, _Part, tuple[str, ...]]:
    names = [*source.train_files, source.test_file, source.meta_file]
    files = read_members(where, source.python_folder, names)
    meta_name = f"{where}: {source.meta_file}"
    meta = read_cifar_pickle(files.pop(source.meta_file), meta_name)
    parts = {name: _python_part(kind, content, f"{where}: {name}") for name, content in files.items()}
    class_names = tuple(
        name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        for name in _list_of(meta, kind.names_key, meta_name)
    )
    return _joined([parts[name] for name in source.train_files]), parts[source.test_file], class_names


def _python_part(kind: LabelKind, content: bytes, where: str) -> _Part:
    batch = read_cifar_pickle(content, where)
    labels = _list_of(batch, kind.key, where)
    if not all(type(label) is int and 0 <= label < kind.num_classes for label in labels):
        raise _labels_error(where, kind)
    if "data" not in batch:
        raise DatasetError(f"{where} lacks 'data'; it holds {listed(sorted(batch))}")
    records = as_bytes_array(batch["data"], f"{where}: data")
    if records.ndim != 2 or records.shape[1] != _RECORD_BYTES or len(records) != len(labels):
        raise DatasetError(
            f"{where} must hold {_RECORD_BYTES} bytes for each of its {len(labels)} labels; found {records.shape}"
        )
    return _Part(records=records, labels=as_labels(np.array(labels, np.int64), where))


def _list_of(found: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(found.get(key), list):
        raise DatasetError(f"{where} must hold a list '{key}'; it holds {listed(sorted(found)) or 'nothing'}")
    return list(found[key])


def _read_binary(source: CifarSource, kind: LabelKind, where: Path) -> tuple[_Part, _Part, tuple[str, ...]]:
    train_files = [f"{name}.bin" for name in source.train_files]
    files = read_members(where, source.binary_folder, [*train_files, source.binary_test_file, kind.names_file])
    class_names = tuple(files.pop(kind.names_file).decode("utf-8", "replace").split("\n"))
    parts = {
        name: _binary_part(kind, content, f"{where}: {name}", len(source.labels)) for name, content in files.items()
    }
    train = _joined([parts[name] for name in train_files])
    return train, parts[source.binary_test_file], tuple(name.strip() for name in class_names if name.strip())


def _binary_part(kind: LabelKind, content: bytes, where: str, num_label_bytes: int) -> _Part:
    size = num_label_bytes + _RECORD_BYTES
    if not content or len(content) % size:
        raise DatasetError(
            f"{where} must hold records of {size} bytes; found {len(content)} bytes: it is cut short or damaged; fetch it again"
        )
    records: NDArray[np.uint8] = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = records[:, kind.byte].astype(np.int64)
    if labels.max() >= kind.num_classes:
        raise _labels_error(where, kind)
    return _Part(records=records[:, num_label_bytes:], labels=labels)


def _labels_error(where: str, kind: LabelKind) -> DatasetError:
    return DatasetError(f"{where} must hold labels 0 .. {kind.num_classes - 1} alone; it is damaged: fetch it again")


def _find(source: CifarSource, root: str | None) -> Path:
    folders = searched_folders(root, source.name, source.versions)
    for folder in folders:
        for version in source.versions:
            if is_there(folder / version):
                return folder / version
    if root is not None:
        raise DatasetError(
            f"no {source.name} files under dataset.root = '{root}'; expected one of {listed(source.versions)}"
        )
    return _download(source, folders)


def _download(source: CifarSource, looked_in: list[Path]) -> Path:
    import torchvision

    # Not by the class itself, which would unpickle what it has fetched.
    distribution = getattr(torchvision.datasets, source.torchvision_class)
    try:
        return download(distribution.url, distribution.tgz_md5, cache_folder())
    except (OSError, RuntimeError) as error:
        raise DatasetError(
            f"{source.name} was not found in {listed(map(str, looked_in))} and could not be downloaded ({error}); put one of "
            f"{listed(source.versions)} in a folder and set dataset.root to it, or connect to the network"
        ) from None
