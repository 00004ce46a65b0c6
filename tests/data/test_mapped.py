"""How memory-mapped data sets reach workers: once a machine, whatever their size."""

from __future__ import annotations

import os
import pickle
import re
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldman.data.arrays import load_arrays
from feldman.data.dataset import Dataset
from feldman.data.mapped import MappedDataset, Whereabouts, for_workers
from feldman.errors import DatasetError
from feldman.trials.executor import Task
from feldman.trials.loop import run_blocks
from feldman.trials.ray_executor import RayExecutor
from tests.conftest import small_arrays, small_dataset

NUM_ROWS = 20_000
WHEREABOUTS: tuple[Whereabouts, ...] = ("here", "same-path", "elsewhere")


@pytest.fixture
def mapped(tmp_path: Path) -> Dataset:
    """Inputs of 20 MB in a folder of .npy files."""
    arrays: dict[str, np.ndarray] = {
        "x_train": np.arange(NUM_ROWS * 1000, dtype=np.uint32).astype(np.uint8).reshape(NUM_ROWS, 1000),
        "y_train": np.arange(NUM_ROWS) % 3,
        "x_test": np.zeros((30, 1000), np.uint8),
        "y_test": np.arange(30) % 3,
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return load_arrays(str(tmp_path))


def test_on_the_same_machine_files_are_sent_by_name_and_mapped_again(mapped: Dataset) -> None:
    sent = for_workers(mapped, "here")
    assert len(pickle.dumps(sent, protocol=5)) < 500_000, "labels, and two names"
    assert isinstance(sent, MappedDataset)
    opened = pickle.loads(pickle.dumps(sent)).open()
    assert isinstance(opened.x_train, np.memmap)
    assert opened.fingerprint == mapped.fingerprint


def test_elsewhere_arrays_are_sent_plain_so_that_no_worker_copies_them(mapped: Dataset) -> None:
    sent = for_workers(mapped, "elsewhere")
    assert isinstance(sent, Dataset)
    assert type(sent.x_train) is np.ndarray
    assert np.shares_memory(sent.x_train, mapped.x_train), "no copy here either"
    buffers: list[pickle.PickleBuffer] = []
    assert len(pickle.dumps(sent, protocol=5, buffer_callback=buffers.append)) < 10_000
    assert sent.fingerprint == mapped.fingerprint


@pytest.mark.parametrize("whereabouts", ["here", "elsewhere"])
def test_arrays_in_memory_are_sent_as_they_are(whereabouts: Whereabouts) -> None:
    dataset = small_dataset()
    assert for_workers(dataset, whereabouts) is dataset


def test_a_map_of_part_of_a_file_is_sent_plain(mapped: Dataset, tmp_path: Path) -> None:
    part = replace(mapped, x_train=mapped.x_train[:60], y_train=mapped.y_train[:60])
    backwards = replace(mapped, x_train=mapped.x_train[::-1])
    raw = np.memmap(tmp_path / "x_train.npy", np.uint8, "r", 128, (NUM_ROWS, 1000))
    (tmp_path / "x_test.npy").rename(tmp_path / "away.npy")
    for dataset in (part, backwards, replace(mapped, x_train=raw)):
        sent = for_workers(dataset, "here")
        opened = sent.open() if isinstance(sent, MappedDataset) else sent
        np.testing.assert_array_equal(opened.x_train[:5], dataset.x_train[:5])
        assert opened.fingerprint == dataset.fingerprint


@pytest.mark.usefixtures("as_shipped")
def test_a_file_that_is_no_longer_what_it_was_is_refused(mapped: Dataset, tmp_path: Path) -> None:
    sent = for_workers(mapped, "here")
    assert isinstance(sent, MappedDataset)
    file = tmp_path / "x_train.npy"
    os.utime(file, (1, 1))
    with pytest.raises(DatasetError, match=r"x_train\.npy has changed since the run began; put it back as it was"):
        sent.open()
    file.unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*x_train\.npy, which the run learns from: .*No such file"):
        sent.open()


@pytest.mark.usefixtures("as_shipped")
def test_a_node_that_sees_other_content_under_the_path_is_refused_by_its_name(mapped: Dataset, tmp_path: Path) -> None:
    sent = for_workers(mapped, "same-path")
    assert isinstance(sent, MappedDataset)
    file = tmp_path / "x_train.npy"
    os.utime(file, (1, 1))
    assert sent.open().fingerprint == mapped.fingerprint, "a copy of the file may have been made at another time"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    node = re.escape(socket.gethostname())
    with pytest.raises(
        DatasetError, match=rf"x_train\.npy on node {node} is not the file that the driver sees: SHA-256 .* found"
    ):
        sent.open()
    file.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match=r"bytes were expected, [0-9,]+ found; copy the driver's file there"):
        sent.open()
    file.unlink()
    with pytest.raises(
        DatasetError, match=rf"cannot read .*x_train\.npy, which the run learns from on node {node}: .*No such file"
    ):
        sent.open()


@pytest.mark.usefixtures("as_shipped")
def test_files_cannot_be_shared_where_there_are_none() -> None:
    with pytest.raises(DatasetError, match=r"data set 'arrays' has none: give a folder of \.npy files"):
        for_workers(small_dataset(), "same-path")


def own_bytes(shared: Any) -> Task:
    """Tell how the worker holds the inputs."""
    dataset = shared.open() if isinstance(shared, MappedDataset) else shared
    return partial(_held, dataset)


def _held(dataset: Dataset, block: int) -> tuple[str, bool, bool, str]:
    x = dataset.x_train
    base: Any = x
    while isinstance(base.base, np.ndarray):
        base = base.base
    return type(x).__name__, bool(base.flags.owndata), bool(x.flags.writeable), dataset.fingerprint


@pytest.mark.ray
@pytest.mark.parametrize(
    ("whereabouts", "kind"), [("here", "memmap"), ("same-path", "memmap"), ("elsewhere", "ndarray")]
)
def test_no_worker_of_ray_holds_a_copy(mapped: Dataset, ray_address: str, whereabouts: Whereabouts, kind: str) -> None:
    shared, seen = for_workers(mapped, whereabouts), dict[int, Any]()
    with RayExecutor(own_bytes, shared, address=ray_address, num_workers=2) as executor:
        report = run_blocks(range(4), executor, seen.__setitem__, max_attempts=1)
    assert sorted(report.committed) == list(range(4)), report.set_aside
    assert list(seen.values()) == [(kind, False, False, mapped.fingerprint)] * 4


def test_bits_are_the_same_however_the_data_set_came(tmp_path: Path) -> None:
    from feldman.trials.task import prepare_block_task
    from tests.conftest import small_experiment

    for name, array in small_arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    dataset = load_arrays(str(tmp_path))
    experiment = small_experiment(tmp_path)
    tasks = [prepare_block_task(experiment, (), for_workers(dataset, where)) for where in WHEREABOUTS]
    for name in ("subset_mask", "train_correct", "test_correct"):
        first, *others = (getattr(task(0), name) for task in tasks)
        for other in others:
            np.testing.assert_array_equal(first, other)
