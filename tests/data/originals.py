"""CIFAR and SVHN in small, written in the very formats of the originals."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.io import savemat

from feldman.data.cifar import CIFAR_DATASETS

NUM_TRAIN = {"cifar10": 20, "cifar100": 200}
NUM_TEST = {"cifar10": 10, "cifar100": 100}
NAMES = {
    "cifar10": [f"class {label}" for label in range(10)],
    "cifar100": [f"class {label}" for label in range(100)],
    "coarse": [f"family {label}" for label in range(20)],
}


class Python2Pickler(pickle._Pickler):
    """Writes protocol 2 as Python 2 and its NumPy did: texts as `str` of bytes, arrays by `numpy.core.multiarray`."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(pickle._Pickler.dispatch)

    def save_text(self, text: bytes) -> None:
        short = len(text) < 256
        self.write(b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text)))  # type: ignore[attr-defined]
        self.write(text)  # type: ignore[attr-defined]

    def save_array(self, array: np.ndarray) -> None:
        write, save = self.write, self.save  # type: ignore[attr-defined]
        write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n")
        save((0,))
        save(b"b")
        write(b"\x87R(")
        save(1)
        save(array.shape)
        write(b"cnumpy\ndtype\n")
        save(array.dtype.str[1:].encode())
        save(0)
        save(1)
        write(b"\x87R")
        save((3, array.dtype.str[:1].encode(), None, None, None, -1, -1, 0))
        write(b"b")
        save(bool(array.flags.f_contiguous and not array.flags.c_contiguous))
        save(array.tobytes(order="A"))
        write(b"tb")

    dispatch[bytes] = save_text
    dispatch[np.ndarray] = save_array


def python2_pickle(value: object, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def records(name: str, part: str) -> np.ndarray:
    """uint8 [example, 3072]: red, green, blue."""
    count = (NUM_TRAIN if part == "train" else NUM_TEST)[name]
    return np.random.default_rng(len(name + part)).integers(0, 256, (count, 3072), dtype=np.uint8)


def labels(name: str, part: str) -> np.ndarray:
    return np.arange((NUM_TRAIN if part == "train" else NUM_TEST)[name]) % len(NAMES[name])


def coarse(fine: np.ndarray) -> np.ndarray:
    return fine // 5


def python_files(name: str) -> dict[str, bytes]:
    """The files of the python version."""
    files = {file: python2_pickle(batch) for file, batch in python_batches(name).items()}
    meta: dict[bytes, Any] = {b"label_names": [label.encode() for label in NAMES["cifar10"]], b"num_vis": 3072}
    if name == "cifar100":
        meta = {
            b"fine_label_names": [label.encode() for label in NAMES["cifar100"]],
            b"coarse_label_names": [label.encode() for label in NAMES["coarse"]],
        }
    # CIFAR-10's own is of protocol 0.
    return files | {CIFAR_DATASETS[name].meta_file: python2_pickle(meta, 0 if name == "cifar10" else 2)}


def python_batches(name: str) -> dict[str, dict[bytes, Any]]:
    source = CIFAR_DATASETS[name]
    rows = np.array_split(np.arange(NUM_TRAIN[name]), len(source.train_files))
    parts = [(file, "train", chosen) for file, chosen in zip(source.train_files, rows, strict=True)]
    parts.append((source.test_file, "test", np.arange(NUM_TEST[name])))
    batches = {}
    for file, part, chosen in parts:
        y = labels(name, part)[chosen]
        keys = {b"labels": y} if name == "cifar10" else {b"fine_labels": y, b"coarse_labels": coarse(y)}
        batches[file] = {
            b"batch_label": b"a batch",
            b"filenames": [b"image_%d.png" % index for index in chosen],
            b"data": records(name, part)[chosen],
            **{key: [int(label) for label in values] for key, values in keys.items()},
        }
    return batches


def binary_files(name: str) -> dict[str, bytes]:
    """The files of the binary version: the same examples."""
    source = CIFAR_DATASETS[name]
    files = {}
    for file, batch in python_batches(name).items():
        columns = [batch[b"labels"]] if name == "cifar10" else [batch[b"coarse_labels"], batch[b"fine_labels"]]
        lines = np.concatenate([np.array(columns, np.uint8).T, batch[b"data"]], axis=1)
        files[source.binary_test_file if file == source.test_file else f"{file}.bin"] = lines.tobytes()
    for kind in source.labels.values():
        names = NAMES["coarse" if kind.num_classes == 20 else name]
        files[kind.names_file] = ("\n".join(names) + "\n\n").encode()
    return files


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(
    path: Path, folder: str, files: Mapping[str, bytes], extra: list[tarfile.TarInfo] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        top = tarfile.TarInfo(folder)
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        for name, content in {"readme.html": b"<a/>", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra or []:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def write_version(root: Path, name: str, version: str) -> Path:
    """Write one of the four forms of a data set: its folder or archive lies in ``root`` then."""
    source = CIFAR_DATASETS[name]
    files = python_files(name) if version.startswith("python") else binary_files(name)
    folder = source.python_folder if version.startswith("python") else source.binary_folder
    if version.endswith("folder"):
        return write_folder(root / folder, files)
    archive = source.python_archive if version.startswith("python") else source.binary_archive
    return write_archive(root / archive, folder, files)


def svhn_arrays(part: str) -> dict[str, np.ndarray]:
    """``X`` [32, 32, 3, example] and ``y`` [example, 1], 10 for 0."""
    count = {"train": 30, "test": 15}[part]
    rng = np.random.default_rng(count)
    y = (np.arange(count) % 10 + 1).astype(np.uint8)[:, np.newaxis]
    return {"X": rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8), "y": y}


def write_svhn(root: Path, **changes: Any) -> Path:
    """Write both files, compressed as the originals are; ``changes`` replace arrays of the training file."""
    root.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        arrays = svhn_arrays(part) | (changes if part == "train" else {})
        kept = {name: array for name, array in arrays.items() if array is not None}
        savemat(root / f"{part}_32x32.mat", kept, do_compression=True)
    return root
