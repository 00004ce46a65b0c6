"""Released run folders become a store: the same bits, the same estimates, and nothing to train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import feldman as package
from feldman.errors import CorruptStoreError, DatasetError, ExchangeError, InputError
from feldman.exchange.importing import ImportOptions, import_run
from feldman.exchange.run_folders import find_runs
from feldman.trials.events import read_events
from feldman.trials.integrity import find_damage
from feldman.trials.store import TrialStore
from tests.commands import Commands
from tests.conftest import small_experiment
from tests.exchange.released import arrays_of, bits_of, random_bits, write_labels, write_released, write_run


def test_folders_written_from_a_run_give_back_its_bits_and_tables(trained: Path, tmp_path: Path) -> None:
    bits = bits_of(trained)
    labels = write_labels(tmp_path / "labels.npz", bits)
    options = ImportOptions(labels=labels, min_influence=0.05, min_memorization=0.0)
    summary = import_run(write_released(tmp_path / "0.7", bits), tmp_path / "run", options)
    assert summary.num_trials == 40
    back = bits_of(tmp_path / "run")
    for name, values in vars(bits).items():
        assert getattr(back, name).tobytes() == values.tobytes(), name
    for name in ("memorization.parquet", "influence.parquet"):
        assert (
            pq.read_table(tmp_path / "run" / name)
            .replace_schema_metadata(None)
            .equals(pq.read_table(trained / name).replace_schema_metadata(None))
        )
    ours, theirs = (TrialStore.open(path / "trials.zarr") for path in (tmp_path / "run", trained))
    assert ours.committed_blocks() == [0]
    assert set(ours.read("trial_seed", 0).tolist()) == {-1}
    assert np.isnan(ours.read("train_seconds", 0)).all()
    for name in ("train_accuracy", "test_accuracy"):
        np.testing.assert_array_equal(ours.array(name)[:], theirs.array(name)[:])
    assert [event["event"] for event in read_events(tmp_path / "run" / "events.jsonl")] == [
        "run_imported",
        "estimates_written",
    ]


def test_trials_come_in_the_order_of_their_numbers_fifty_a_block(tmp_path: Path) -> None:
    bits = random_bits(0, num_trials=101)
    import_run(write_released(tmp_path / "0.7", bits), tmp_path / "run")
    np.testing.assert_array_equal(bits_of(tmp_path / "run").masks, bits.masks)
    assert TrialStore.open(tmp_path / "run" / "trials.zarr").num_blocks == 3
    assert read_events(tmp_path / "run" / "events.jsonl")[0]["runs"] == [str(trial) for trial in range(101)]


@pytest.mark.parametrize("level", ["cifar", "cifar/0.7", "cifar/0.7/3"])
def test_a_folder_of_any_level_is_understood(tmp_path: Path, level: str) -> None:
    write_released(tmp_path / "cifar" / "0.7", random_bits(0))
    (tmp_path / "cifar" / ".cache").mkdir()
    (tmp_path / "cifar" / "logs").mkdir()
    assert len(find_runs(tmp_path / level)) == (1 if level.endswith("3") else 12)


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A run imported without labels."""
    import_run(write_released(tmp_path / "0.7", random_bits(0, num_trials=60)), tmp_path / "run")
    return tmp_path / "run"


def test_every_command_works_on_imported_trials(feldman: Commands, imported: Path) -> None:
    before = (imported / "influence.parquet").read_bytes()
    for command in ("verify", "estimate", "memorized", "pairs", "status"):
        answer = feldman(command, "run")
        assert answer.code == 0, answer.err
    assert (imported / "influence.parquet").read_bytes() == before
    assert "2 committed blocks, every chunk as it was written, subsets imported" in feldman("verify", "run").out
    status = feldman("status", "run").out
    assert f"imported from  {imported.parent / '0.7'}, on subsets of 14" in status
    assert "complete" in status
    assert "nan" not in status
    described = json.loads(feldman("status", "run", "--json").out)
    assert described["mean_train_seconds"] is None
    assert described["imported_from"] == str(imported.parent / "0.7")
    run = package.open_run(imported)
    assert run.status().complete
    assert len(run.memorization()) == 20
    assert run.influence([1, 2]).shape == (2, 10)


def test_imported_trials_are_never_trained(imported: Path, tmp_path: Path, arrays_file: Path) -> None:
    before = {path: path.read_bytes() for path in imported.rglob("*") if path.is_file()}
    refused = r"was imported from .*0\.7: its trials were trained elsewhere"
    for num_trials in (None, 100):
        with pytest.raises(InputError, match=refused):
            package.resume(imported, num_trials=num_trials)
    with pytest.raises(InputError, match=refused):
        package.run(small_experiment(arrays_file), imported)
    assert {path: path.read_bytes() for path in imported.rglob("*") if path.is_file()} == before


def test_damage_of_imported_trials_is_found_and_mended_by_importing_again(feldman: Commands, imported: Path) -> None:
    store = imported / "trials.zarr"
    chunk = store / "test_correct" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert [(found.block, found.array) for found in find_damage(TrialStore.open(store))] == [(1, "test_correct")]
    shutil.copyfile(store / "train_correct" / "c" / "0" / "0", store / "train_correct" / "c" / "1" / "0")
    answer = feldman("verify", "run")
    assert answer.code == 1
    assert f"import it again from {imported.parent / '0.7'}" in answer.err
    with pytest.raises(CorruptStoreError, match="import it again"):
        package.open_run(imported).memorization()


def test_a_chunk_of_another_block_is_told_by_its_accuracies(imported: Path) -> None:
    store = imported / "trials.zarr"
    shutil.copyfile(store / "test_accuracy" / "c" / "0", store / "test_accuracy" / "c" / "1")
    assert [found.array for found in find_damage(TrialStore.open(store))] == ["test_accuracy"]


def test_without_labels_there_is_one_class_and_no_matrix_to_export(feldman: Commands, imported: Path) -> None:
    assert TrialStore.open(imported / "trials.zarr").attributes["dataset"]["class_names"] == ["unknown"]
    answer = feldman("export", "run", "--format", "authors", "-o", "out")
    assert "left out  infl_matrix.npz: the labels of the run are not known" in answer.out


def test_class_names_come_along(tmp_path: Path) -> None:
    bits = random_bits(0)
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\nfly\n")
    labels = write_labels(tmp_path / "labels.npz", bits)
    with pytest.raises(DatasetError, match=r"every class needs a training example; class 3 \('fly'\) has none"):
        import_run(
            write_released(tmp_path / "0.7", bits),
            tmp_path / "run",
            ImportOptions(labels=labels, class_names=tmp_path / "names.txt"),
        )
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    import_run(tmp_path / "0.7", tmp_path / "run", ImportOptions(labels=labels, class_names=tmp_path / "names.txt"))
    names = TrialStore.open(tmp_path / "run" / "trials.zarr").attributes["dataset"]["class_names"]
    assert names == ["ant", "bee", "cow"]


def _without(name: str) -> Any:
    return lambda arrays: arrays.pop(name)


def _set(name: str, value: Any) -> Any:
    return lambda arrays: arrays.update({name: value(arrays[name]) if callable(value) else value})


def _first(value: float) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        return np.concatenate([np.array([value], array.dtype), array[1:]])

    return change


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_without("correctness_removed"), "lacks correctness_removed; it holds"),
        (_set("index_test", lambda index: index[:-1]), "correctness_test has 10 values for the 9 examples of index_test"),
        (_set("index_test", _first(10)), r"index_test must hold every example 0 \.\. 9 once; found 10"),
        (_set("index_test", lambda index: np.zeros(10, int)), r"index_test must hold every example 0 \.\. 9 once; 1 is missing"),
        (_set("index_train", _first(-1)), r"and index_removed together must hold every example 0 \.\. 19 once; found -1"),
        (_set("index_test", np.zeros((10, 1), int)), r"index_test must be a vector of integers; found int64 \(10, 1\)"),
        (_set("correctness_train", _first(0.5)), "correctness_train must hold 0 and 1 alone; found 0.5"),
        (_set("correctness_test", np.array(["yes"] * 10)), "correctness_test must be a vector of numbers; found <U3"),
        (_set("subsample_idx", lambda index: index[:-1]), "subsample_idx and index_train must hold the same examples"),
        (_set("correctness_test", np.array([{}] * 10)), "correctness_test in it holds Python objects, which are not read"),
    ],
)  # fmt: skip
def test_a_run_that_disagrees_with_itself_is_refused_by_the_name_of_its_file(
    tmp_path: Path, harm: Any, told: str
) -> None:
    bits = random_bits(0)
    write_released(tmp_path / "0.7", bits)
    arrays = arrays_of(bits, 7)
    harm(arrays)
    write_run(tmp_path / "0.7" / "7", arrays)
    with pytest.raises(ExchangeError, match=told) as caught:
        import_run(tmp_path / "0.7", tmp_path / "run")
    assert str(tmp_path / "0.7" / "7" / "aux_arrays.npz") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["0.7"]


@pytest.mark.parametrize("other", [{"num_train": 21}, {"num_test": 9}])
def test_runs_of_data_sets_of_two_sizes_are_refused(tmp_path: Path, other: dict[str, int]) -> None:
    write_released(tmp_path / "0.7", random_bits(0, num_trials=3))
    write_run(tmp_path / "0.7" / "3", arrays_of(random_bits(0, **other), 0))
    with pytest.raises(
        ExchangeError, match=r"3/aux_arrays\.npz is of subsets of .*runs that are estimated together share"
    ):
        import_run(tmp_path / "0.7", tmp_path / "run")


@pytest.mark.parametrize("size", [0, 20])
def test_a_subset_of_nothing_or_of_everything_is_refused(tmp_path: Path, size: int) -> None:
    bits = random_bits(0)
    bits.masks[0] = np.arange(20) < size
    write_run(tmp_path / "0", arrays_of(bits, 0))
    with pytest.raises(ExchangeError, match=f"index_train has {size} of 20 examples; a subset must hold at least one"):
        import_run(tmp_path / "0", tmp_path / "run")


def test_labels_of_another_data_set_are_refused(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.npz", random_bits(0, num_train=21))
    with pytest.raises(ExchangeError, match="--labels has 21 training and 10 test labels; the runs are of 20 and 10"):
        import_run(write_released(tmp_path / "0.7", random_bits(0)), tmp_path / "run", ImportOptions(labels=labels))


def test_several_ratios_are_refused_and_named(tmp_path: Path) -> None:
    for ratio in ("0.7", "0.5"):
        write_released(tmp_path / "cifar" / ratio, random_bits(0, num_trials=2))
    with pytest.raises(
        ExchangeError, match=r"holds runs of 2 subset ratios: 0\.5, 0\.7; give one of them, as in '.*0\.5'"
    ):
        import_run(tmp_path / "cifar", tmp_path / "run")


def test_run_folders_without_their_file_are_refused_and_named(tmp_path: Path) -> None:
    write_released(tmp_path / "0.7", random_bits(0))
    (tmp_path / "0.7" / "5" / "aux_arrays.npz").unlink()
    with pytest.raises(ExchangeError, match=r"1 of 12 run folders have no aux_arrays\.npz \(5\); complete them"):
        import_run(tmp_path / "0.7", tmp_path / "run")
