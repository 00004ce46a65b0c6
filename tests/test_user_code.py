"""A user's own learner may do anything: leave, print, write into what it was given, change between two sessions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from feldman import open_run, resume, run
from feldman.errors import TrialsFailedError
from feldman.estimates.selection import PairSelection
from feldman.experiment import Experiment
from feldman.experiment_files import experiment_to_toml
from feldman.job import RunSummary
from feldman.results.estimation import write_estimates
from feldman.trials.rundir import run_paths
from tests.conftest import Cli, small_experiment


def with_learner(path: Path, name: str, **parameters: str) -> Experiment:
    return small_experiment(path, num_trials=20).replace(
        "learner", {"name": f"tests.learners:{name}", "parameters": parameters}
    )


def test_a_learner_that_leaves_is_a_learner_that_fails(tmp_path: Path, arrays_file: Path) -> None:
    with pytest.raises(TrialsFailedError, match=r"failed 3 times each.* SystemExit: 0"):
        run(with_learner(arrays_file, "leaving"), tmp_path / "run")


def test_on_ray_too_a_learner_that_leaves_is_a_learner_that_fails(
    tmp_path: Path, arrays_file: Path, ray_address: str
) -> None:
    experiment = with_learner(arrays_file, "leaving").replace("execution", {"executor": "ray"})
    with pytest.raises(TrialsFailedError, match=r"failed 3 times each.* SystemExit: 0"):
        run(experiment, tmp_path / "run", address=ray_address)


@pytest.mark.parametrize("target", ["x_train", "masks", "seeds"])
def test_a_learner_cannot_write_into_what_it_was_given(tmp_path: Path, arrays_file: Path, target: str) -> None:
    with pytest.raises(TrialsFailedError, match="read-only"):
        run(with_learner(arrays_file, "meddling", target=target), tmp_path / "run")


def test_what_a_learner_prints_does_not_get_between_a_script_and_its_json(
    tmp_path: Path, arrays_file: Path, cli: Cli
) -> None:
    (tmp_path / "e.toml").write_text(experiment_to_toml(with_learner(arrays_file, "printing")))
    answer = cli("run", "e.toml", "-o", "run", "--json")
    assert json.loads(answer.stdout)["status"]["complete"]
    assert "training 8 models" in answer.stderr


def test_tables_are_made_anew_when_a_block_came_back_with_other_bits(
    tmp_path: Path, arrays_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(with_learner(arrays_file, "changing"), tmp_path / "run")
    before = pq.read_table(tmp_path / "run" / "memorization.parquet")
    (tmp_path / "run" / "trials.zarr" / "train_correct" / "c" / "1" / "0").unlink()
    monkeypatch.setenv("FELDMAN_TEST_CHANGED", "1")
    resume(tmp_path / "run")
    after = pq.read_table(tmp_path / "run" / "memorization.parquet")
    assert not after["correct_in"].equals(before["correct_in"])
    assert after["correct_in"].equals(open_run(tmp_path / "run").memorization()["correct_in"])


def test_growing_keeps_the_bits_of_old_trials_even_if_the_learner_has_changed(
    tmp_path: Path, arrays_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(with_learner(arrays_file, "changing"), tmp_path / "run")  # 20 trials in blocks of 8: the last has 4
    group = zarr.open_group(tmp_path / "run" / "trials.zarr", mode="r")
    names = ("subset_mask", "train_correct", "test_correct", "trial_seed", "test_accuracy")
    before = {name: np.asarray(group[name][:]) for name in names}  # type: ignore[index]
    monkeypatch.setenv("FELDMAN_TEST_CHANGED", "1")
    resume(tmp_path / "run", num_trials=30)
    for name in names:
        np.testing.assert_array_equal(np.asarray(group[name][:20]), before[name])  # type: ignore[index]


def test_an_open_run_and_an_estimate_see_what_has_been_committed_since(tmp_path: Path, arrays_file: Path) -> None:
    run(with_learner(arrays_file, "nearest_centroid"), tmp_path / "run")
    opened, paths = open_run(tmp_path / "run"), run_paths(tmp_path / "run")
    resume(tmp_path / "run", num_trials=40)
    assert opened.memorization()["num_in"][0].as_py() + opened.memorization()["num_out"][0].as_py() == 40
    assert write_estimates(paths, selection=PairSelection()).facts.num_trials == 40


def test_thresholds_that_were_chosen_are_kept_when_the_run_grows(tmp_path: Path, arrays_file: Path) -> None:
    run(with_learner(arrays_file, "nearest_centroid"), tmp_path / "run")
    write_estimates(run_paths(tmp_path / "run"), selection=PairSelection(min_influence=0.05, min_memorization=0.1))
    summary = resume(tmp_path / "run", num_trials=40)
    assert isinstance(summary, RunSummary)
    assert summary.min_influence == 0.05


def test_a_data_file_that_moved_is_found_again_after_one_run_with_its_new_place(
    tmp_path: Path, arrays_file: Path
) -> None:
    run(with_learner(arrays_file, "nearest_centroid"), tmp_path / "run")
    moved = arrays_file.rename(tmp_path / "moved.npz")
    run(with_learner(moved, "nearest_centroid"), tmp_path / "run")
    assert resume(tmp_path / "run", num_trials=40).status.complete


def test_class_names_may_hold_anything_that_a_terminal_could_mistake(tmp_path: Path, cli: Cli) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    x = rng.normal(size=(30, 4))
    np.savez(
        tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y, class_names=np.array(["[/b]", "[red]çat", "\\"])
    )
    (tmp_path / "e.toml").write_text(experiment_to_toml(small_experiment(tmp_path / "d.npz", num_trials=16)))
    assert cli("run", "e.toml", "-o", "my runs/ü").returncode == 0
    shown = cli("memorized", "my runs/ü")
    assert shown.returncode == 0, shown.stderr
    assert "[/b]" in shown.stdout
    assert "[red]çat" in shown.stdout
    plain = cli("memorized", "my runs/ü", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert plain.returncode == 0, plain.stderr
    assert "\\xe7at" in plain.stdout
    assert "feldman memorized 'my runs/ü'" in cli("run", "e.toml", "-o", "my runs/ü").stdout
