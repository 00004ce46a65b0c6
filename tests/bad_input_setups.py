"""How a folder with a good experiment and a finished run of it goes bad: set-ups for the table of bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from feldman.job import run
from feldman.trials.store import TrialStore
from tests.conftest import small_arrays, small_experiment
from tests.data.originals import python_files, write_folder, write_svhn, write_version
from tests.data.photographs import write_photographs

Setup = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case. The folder holds `data.npz`, a good `experiment.toml` of it, and `done`, a finished run of that."""

    name: str
    command: str
    says: str
    code: int = 2
    setup: Setup = field(default=lambda folder: None)
    unprivileged: bool = False


def toml(text: str | bytes) -> Setup:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: _write(folder / "experiment.toml", content)


def environment(text: str) -> Setup:
    """Write a runtime environment."""
    return lambda folder: _write(folder / "env.json", text.encode())


def edited(old: str, new: str) -> Setup:
    """Change the good experiment."""

    def setup(folder: Path) -> None:
        file = folder / "experiment.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return setup


def arrays(**changes: Any) -> Setup:
    def setup(folder: Path) -> None:
        kept = {name: array for name, array in (small_arrays() | changes).items() if array is not None}
        (folder / "data.npz").unlink()
        np.savez(folder / "data.npz", **kept)

    return setup


def cut_data(folder: Path) -> None:
    content = (folder / "data.npz").read_bytes()
    _write(folder / "data.npz", content[: len(content) // 2])


def attributes(**changes: Any) -> Setup:
    """Change attributes of the finished run's store."""

    def setup(folder: Path) -> None:
        file = folder / "done" / "trials.zarr" / "zarr.json"
        document = json.loads(file.read_text())
        document["attributes"] = {
            key: value for key, value in (document["attributes"] | changes).items() if value is not None
        }
        _write(file, json.dumps(document).encode())

    return setup


def content(path: str, data: bytes) -> Setup:
    return lambda folder: _write(folder / path, data)


def recorded_arrays(record: bytes) -> Setup:
    """Put the arrays into a folder of features, with such a record."""

    def setup(folder: Path) -> None:
        _write(folder / "folder" / "features.json", record)
        for name, array in small_arrays().items():
            np.save(folder / "folder" / f"{name}.npy", array)

    return setup


def without(path: str) -> Setup:
    def setup(folder: Path) -> None:
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return setup


def foreign_group(folder: Path) -> None:
    zarr.create_group(folder / "other" / "trials.zarr", zarr_format=3, attributes={"title": "rain"})


def foreign_array(folder: Path) -> None:
    zarr.create_array(folder / "other" / "trials.zarr", shape=(3,), dtype="int8", zarr_format=3)


def damaged_chunk(folder: Path) -> None:
    chunk = folder / "done" / "trials.zarr" / "test_correct" / "c" / "1" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    _write(chunk, bytes(data))


def other_run(num_committed: int = 5, **subsets: int) -> Setup:
    """Put a second run there, `other`: of the same experiment, but for what is changed, with its first blocks committed."""

    def setup(folder: Path) -> None:
        experiment = small_experiment(folder / "data.npz", **subsets)
        run(experiment, folder / "other")
        store = TrialStore.open(folder / "other" / "trials.zarr")
        for block in store.committed_blocks()[num_committed:]:
            store.withdraw_block(block)

    return setup


def other_bits(folder: Path) -> None:
    """Let `other` hold another prediction of trial 17, its accuracy made to fit."""
    other_run()(folder)
    store = TrialStore.open(folder / "other" / "trials.zarr")
    correct = store.read("test_correct", 2).copy()
    correct[1, 0] ^= True
    store.array("test_correct")[16:24] = correct
    store.array("test_accuracy")[16:24] = correct.mean(axis=1).astype(np.float32)


def other_data(folder: Path) -> None:
    """Let `other` be of other inputs."""
    arrays(x_test=np.zeros((30, 5), np.float32))(folder)
    other_run()(folder)


def moved_data(folder: Path) -> None:
    """Let the run name a file that is not there."""
    store = TrialStore.open(folder / "done" / "trials.zarr")
    store.record_circumstances(store.experiment.replace("dataset", {"path": str(folder / "gone.npz")}))


def recorded_range(folder: Path) -> None:
    """Let the run have been begun for some of its trials."""
    store = TrialStore.open(folder / "done" / "trials.zarr")
    store.record_circumstances(store.experiment.replace("execution", {"trials": (8, 24)}))


def damaged_other(folder: Path) -> None:
    other_run()(folder)
    (folder / "other" / "trials.zarr" / "test_correct" / "c" / "1" / "0").unlink()


def truncated_images(folder: Path) -> None:
    _write(folder / "mnist.toml", b'[dataset]\nname = "mnist"\nroot = "."\n')
    _write(folder / "train-images-idx3-ubyte", b"\0\0\x08\x03")


def data_set(text: str) -> str:
    """An experiment on a data set by name, whose files lie beside it."""
    return f"[dataset]\n{text}\n"


def malicious_cifar(folder: Path) -> None:
    """CIFAR-10 with a batch that makes a file when it is unpickled."""
    toml(data_set('name = "cifar10"\nroot = "."'))(folder)
    command = b"touch marker"
    pickled = b"cos\nsystem\n(U" + bytes([len(command)]) + command + b"tR."
    write_folder(folder / "cifar-10-batches-py", python_files("cifar10") | {"data_batch_3": pickled})


def cut_cifar(folder: Path) -> None:
    toml(data_set('name = "cifar100"\nroot = "."'))(folder)
    archive = write_version(folder, "cifar100", "binary archive")
    _write(archive, archive.read_bytes()[:-1000])


def closed_cifar(folder: Path) -> None:
    toml(data_set('name = "cifar10"\nroot = "closed"'))(folder)
    (folder / "closed").mkdir(mode=0)


def cut_svhn(folder: Path) -> None:
    toml(data_set('name = "svhn"\nroot = "."'))(folder)
    file = write_svhn(folder) / "train_32x32.mat"
    _write(file, file.read_bytes()[:1000])


def photographs(folder: Path) -> None:
    """A folder of images, and an experiment on it."""
    toml(data_set('name = "image-folder"\npath = "images"'))(folder)
    write_photographs(folder / "images", num_train=2, num_test=1)


def no_held_out_photographs(folder: Path) -> None:
    photographs(folder)
    shutil.rmtree(folder / "images" / "val")


def mode(path: str, bits: int) -> Setup:
    return lambda folder: (folder / path).chmod(bits)


def read_only_folder(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o555)


def link_loop(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link to a file that others share
    path.write_bytes(data)


def data_in_a_loop(folder: Path) -> None:
    link_loop(folder)
    edited("data.npz", "loop")(folder)
