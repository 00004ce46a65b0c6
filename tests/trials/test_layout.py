from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from feldman import job
from feldman.data.dataset import Dataset
from feldman.experiment import Experiment
from feldman.trials.layout import MAX_CHUNK_EXAMPLES
from feldman.trials.plan import subset_masks, trial_seeds
from feldman.trials.store import TrialStore
from tests.conftest import small_arrays, small_experiment

# Section 4 of the design, written down once more: dtype, dimensions, shape and chunks of a run of 20 trials in blocks of 8.
CONTRACT: dict[str, tuple[str, tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = {
    "subset_mask": ("bool", ("trial", "train"), (20, 60), (8, 60)),
    "train_correct": ("bool", ("trial", "train"), (20, 60), (8, 60)),
    "test_correct": ("bool", ("trial", "test"), (20, 30), (8, 30)),
    "train_label": ("int64", ("train",), (60,), (60,)),
    "test_label": ("int64", ("test",), (30,), (30,)),
    "trial_seed": ("int64", ("trial",), (20,), (8,)),
    "train_accuracy": ("float32", ("trial",), (20,), (8,)),
    "test_accuracy": ("float32", ("trial",), (20,), (8,)),
    "train_seconds": ("float32", ("trial",), (20,), (8,)),
    "committed": ("uint8", ("block",), (3,), (1,)),
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, allow_pickle=False, **small_arrays())
    return small_experiment(path, num_trials=20)


@pytest.fixture(scope="module")
def store_path(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    job.run(experiment, run)
    return run / "trials.zarr"


def _array(store_path: Path, name: str) -> zarr.Array[Any]:
    array = zarr.open_group(store_path, mode="r")[name]
    assert isinstance(array, zarr.Array)
    return array


def _metadata(store_path: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((store_path / name / "zarr.json").read_text())
    return document


def test_the_group_holds_the_arrays_of_the_contract_and_no_others(store_path: Path) -> None:
    assert sorted(zarr.open_group(store_path, mode="r").array_keys()) == sorted(CONTRACT)
    assert sorted(path.name for path in store_path.iterdir()) == sorted([*CONTRACT, "zarr.json"])


@pytest.mark.parametrize("name", CONTRACT)
def test_each_array_has_the_type_dimensions_shape_and_chunks_of_the_contract(store_path: Path, name: str) -> None:
    array, (dtype, dimensions, shape, chunks) = _array(store_path, name), CONTRACT[name]
    assert array.metadata.zarr_format == 3
    assert (array.dtype, array.shape, array.chunks) == (np.dtype(dtype), shape, chunks)
    document = _metadata(store_path, name)
    assert tuple(document["dimension_names"]) == dimensions
    assert document["data_type"] == dtype


@pytest.mark.parametrize("name", CONTRACT)
def test_each_array_is_compressed_by_blosc_zstd_and_checked_by_crc32c_last(store_path: Path, name: str) -> None:
    codecs = _metadata(store_path, name)["codecs"]
    names = [codec["name"] for codec in codecs]
    assert names[0] == "bytes"
    assert names[-1] == "crc32c"
    if name == "committed":
        assert names == ["bytes", "crc32c"]
        return
    assert names == ["bytes", "blosc", "crc32c"]
    blosc = codecs[1]["configuration"]
    bits = CONTRACT[name][0] == "bool"
    assert (blosc["cname"], blosc["shuffle"]) == ("zstd", "bitshuffle" if bits else "shuffle")


def test_no_array_holds_objects_or_pickles(store_path: Path) -> None:
    for name in CONTRACT:
        assert not _array(store_path, name).dtype.hasobject
    assert b"pickle" not in b"".join(path.read_bytes() for path in store_path.rglob("*") if path.is_file())


def test_metadata_is_not_consolidated(store_path: Path) -> None:
    assert "consolidated_metadata" not in json.loads((store_path / "zarr.json").read_text())


def test_attributes_are_those_of_the_contract(store_path: Path, experiment: Experiment) -> None:
    attributes = dict(zarr.open_group(store_path, mode="r").attrs)
    assert attributes["format"] == "feldman-trials"
    assert attributes["format_version"] == 1
    assert attributes["experiment"] == experiment.model_dump(mode="json")
    assert attributes["fingerprint"] == experiment.fingerprint
    dataset = attributes["dataset"]
    assert isinstance(dataset, dict)
    assert set(dataset) == {"name", "fingerprint", "num_train", "num_test", "class_names"}
    assert (dataset["name"], dataset["num_train"], dataset["num_test"]) == ("arrays", 60, 30)
    assert dataset["class_names"] == ["0", "1", "2"]
    created_with = attributes["created_with"]
    assert isinstance(created_with, dict)
    assert set(created_with) == {"versions", "git"}
    assert isinstance(created_with["versions"], dict)
    assert {"feldman", "python", "ray", "torch", "numpy", "zarr"} <= set(created_with["versions"])


def test_plain_zarr_reads_the_plan_the_labels_and_the_commits(store_path: Path) -> None:
    arrays = small_arrays()
    assert np.array_equal(np.asarray(_array(store_path, "train_label")[:]), arrays["y_train"])
    assert np.array_equal(np.asarray(_array(store_path, "test_label")[:]), arrays["y_test"])
    assert np.array_equal(np.asarray(_array(store_path, "subset_mask")[:]), subset_masks(7, range(20), 60, 0.7))
    assert np.array_equal(np.asarray(_array(store_path, "trial_seed")[:]), trial_seeds(7, range(20)))
    assert np.asarray(_array(store_path, "committed")[:]).tolist() == [1, 1, 1]
    masks, correct = (np.asarray(_array(store_path, name)[:]) for name in ("subset_mask", "train_correct"))
    accuracy = np.asarray(_array(store_path, "train_accuracy")[:])
    assert accuracy == pytest.approx((masks & correct).sum(axis=1) / masks.sum(axis=1), abs=1e-6)
    right = np.asarray(_array(store_path, "test_correct")[:]).mean(axis=1)
    assert np.asarray(_array(store_path, "test_accuracy")[:]) == pytest.approx(right, abs=1e-6)
    assert (np.asarray(_array(store_path, "train_seconds")[:]) > 0).all()


def test_xarray_reads_every_array_by_its_dimensions(store_path: Path) -> None:
    with xarray.open_zarr(store_path, consolidated=False) as opened:
        assert dict(opened.sizes) == {"trial": 20, "train": 60, "test": 30, "block": 3}
        for name, (dtype, dimensions, shape, _) in CONTRACT.items():
            variable = opened[name]
            assert (variable.dims, variable.shape) == (dimensions, shape)
            assert variable.dtype == np.dtype(dtype), name
            assert np.array_equal(variable.values, np.asarray(_array(store_path, name)[:]))


def test_a_new_store_has_no_commit_and_no_trial(tmp_path: Path, experiment: Experiment) -> None:
    dataset = Dataset(name="arrays", class_names=("0", "1", "2"), **small_arrays())  # type: ignore[arg-type]
    store = TrialStore.create(tmp_path / "trials.zarr", experiment, dataset)
    assert np.asarray(_array(store.path, "committed")[:]).tolist() == [0, 0, 0]
    assert np.isnan(np.asarray(_array(store.path, "train_accuracy")[:])).all()
    assert store.committed_blocks() == []


def test_no_chunk_is_wider_than_the_contract_allows(tmp_path: Path) -> None:
    num_train = MAX_CHUNK_EXAMPLES + 5
    labels = np.arange(num_train) % 2
    dataset = Dataset(
        name="arrays",
        class_names=("0", "1"),
        x_train=np.zeros((num_train, 1), np.float32),
        y_train=labels,
        x_test=np.zeros((2, 1), np.float32),
        y_test=labels[:2],
    )
    experiment = small_experiment(tmp_path / "data.npz", num_trials=2, block_size=2)
    store = TrialStore.create(tmp_path / "trials.zarr", experiment, dataset)
    assert MAX_CHUNK_EXAMPLES == 65_536
    assert _array(store.path, "subset_mask").chunks == (2, 65_536)
    assert _array(store.path, "train_label").chunks == (65_536,)
    assert np.array_equal(store.labels("train"), labels)
