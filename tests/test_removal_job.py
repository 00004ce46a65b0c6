"""A removal study from end to end: what it costs where rare examples are needed, and that it is a run as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import feldman
from feldman.errors import InputError, QueryError, StoreMismatchError, TrialsFailedError
from feldman.experiment import Experiment
from feldman.removal_job import removal, removal_result
from feldman.studies.removal import RemovalPlan
from feldman.trials.store import TrialStore
from tests.runs import assert_same_arrays, event_names

PLAN = RemovalPlan(thresholds=(0.5,), repeats=8)


def long_tail(noise: bool) -> dict[str, np.ndarray]:
    """Four clusters, two of each class, of 30 examples; and 24 rare examples.

    Needed: each rare one lies far from all others, and near it a test example. Noise: each lies inside a cluster, close to a test
    example, with the other label.
    """
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [0, 40], [40, 0], [40, 40]], float)
    label_of = np.array([0, 1, 1, 0])
    common = np.arange(120) % 4
    x, y = centres[common] + rng.normal(size=(120, 2)), label_of[common]
    x_test, y_test = centres[common[:96]] + rng.normal(size=(96, 2)), label_of[common[:96]]
    if noise:
        rare, rare_label = x_test[:24] + 0.001, 1 - y_test[:24]
        near, near_label = np.empty((0, 2)), np.empty(0, int)
    else:
        rare = np.stack([1000 + 100 * np.arange(24.0), np.zeros(24)], axis=1)
        rare_label = np.arange(24) % 2  # its neighbours, to the left and right, are of the other class
        near, near_label = rare + 1, rare_label
    return {
        "x_train": np.concatenate([x, rare]).astype(np.float32),
        "y_train": np.concatenate([y, rare_label]).astype(np.int64),
        "x_test": np.concatenate([x_test, near]).astype(np.float32),
        "y_test": np.concatenate([y_test, near_label]).astype(np.int64),
    }


def trained(folder: Path, noise: bool = False) -> Path:
    """Estimate with 1-nearest-neighbour, which forgets nothing that it has seen."""
    folder.mkdir()
    np.savez(folder / "data.npz", allow_pickle=False, **long_tail(noise))
    experiment = Experiment.model_validate(
        {
            "dataset": {"name": "arrays", "path": str(folder / "data.npz")},
            "learner": {"name": "tests.learners:nearest_neighbour"},
            "subsets": {"num_trials": 60, "block_size": 4, "seed": 1},
            "execution": {"executor": "in-process"},
        }
    )
    feldman.run(experiment, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def needed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the data set whose rare examples are needed; not to be written to."""
    return trained(tmp_path_factory.mktemp("removal") / "needed")


def test_removing_rare_examples_that_are_needed_costs_more_than_removing_as_many_at_random(
    needed: Path, tmp_path: Path
) -> None:
    found = removal(needed, tmp_path / "study", RemovalPlan(thresholds=(0.5,), repeats=8, by_class=True))
    nothing, memorized = found.table.to_pylist()
    assert nothing["removal_accuracy"] == 1.0
    assert memorized["num_removed"] >= 20
    assert memorized["removal_accuracy"] < 0.9
    for series in ("random", "class"):
        assert memorized[f"ci_low_{series}"] > 0.05
        assert memorized[f"less_than_{series}"] == pytest.approx(
            memorized[f"{series}_accuracy"] - memorized["removal_accuracy"]
        )


def test_removing_memorized_label_noise_helps(tmp_path: Path) -> None:
    found = removal(trained(tmp_path / "noise", noise=True), tmp_path / "study", PLAN)
    nothing, memorized = found.table.to_pylist()
    assert memorized["num_removed"] >= 24
    assert memorized["removal_accuracy"] > nothing["removal_accuracy"] + 0.2
    assert memorized["ci_high_random"] < -0.1


def test_a_study_that_was_stopped_resumes_to_the_same_bytes(needed: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    removal(needed, whole, PLAN)
    stop = tmp_path / "stop"
    stop.touch()
    failing = ("learner.name=tests.learners:nearest_neighbour", f"learner.parameters.fails_while={stop}")
    with pytest.raises(TrialsFailedError):
        removal(needed, tmp_path / "cut", PLAN, overrides=failing)
    stop.unlink()
    assert removal_result(tmp_path / "cut").status.num_committed_trials == 0
    summary = feldman.resume(tmp_path / "cut")
    assert summary.status.complete
    assert summary.status.num_arms == 3
    straight = tmp_path / "straight"
    removal(needed, straight, PLAN, overrides=failing)
    assert_same_arrays(tmp_path / "cut", straight)
    assert removal_result(whole).table.equals(removal_result(straight).table)
    assert "estimates_written" not in event_names(whole)
    assert not list(whole.glob("*.parquet"))


def test_more_repeats_let_a_study_grow_and_old_trials_keep_their_bits(needed: Path, tmp_path: Path) -> None:
    few = removal(needed, tmp_path / "study", RemovalPlan(thresholds=(0.5,), repeats=4))
    before = TrialStore.open(tmp_path / "study" / "trials.zarr").read("test_correct", 1)
    more = removal(needed, tmp_path / "study", RemovalPlan(thresholds=(0.5,), repeats=9))
    assert [row["removal_repeats"] for row in few.table.to_pylist()] == [4, 4]
    assert [row["removal_repeats"] for row in more.table.to_pylist()] == [12, 12]  # whole blocks of 4
    np.testing.assert_array_equal(TrialStore.open(tmp_path / "study" / "trials.zarr").read("test_correct", 1), before)


def test_parts_of_a_study_are_merged_to_the_bytes_of_one(needed: Path, tmp_path: Path) -> None:
    removal(needed, tmp_path / "whole", PLAN)
    for part, trials in (("first", "[0, 12]"), ("second", "[12, 24]")):
        removal(needed, tmp_path / part, PLAN, overrides=[f"execution.trials={trials}"])
    feldman.merge([tmp_path / "first", tmp_path / "second"], tmp_path / "merged")
    assert_same_arrays(tmp_path / "merged", tmp_path / "whole")
    assert removal_result(tmp_path / "merged").table.equals(removal_result(tmp_path / "whole").table)


def test_the_study_of_other_thresholds_or_of_another_learner_is_another_run(needed: Path, tmp_path: Path) -> None:
    removal(needed, tmp_path / "study", PLAN)
    with pytest.raises(StoreMismatchError, match=r"subsets\.design"):
        removal(needed, tmp_path / "study", RemovalPlan(thresholds=(0.6,), repeats=8))
    with pytest.raises(StoreMismatchError, match=r"learner\.name"):
        removal(needed, tmp_path / "study", PLAN, overrides=["learner.name=tests.learners:nearest_centroid"])


def test_what_cannot_be_a_study_is_refused_before_anything_is_written(needed: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    with pytest.raises(InputError, match=r"is no removal study: its subsets are random"):
        removal_result(needed)
    with pytest.raises(InputError, match=r"holds another experiment"):
        removal(needed, needed, PLAN)
    assert not study.exists()
    removal(needed, study, PLAN)
    with pytest.raises(InputError, match=r"a study of removed examples: its subsets are no random ones"):
        removal(study, tmp_path / "next", PLAN)
    with pytest.raises(InputError, match=r"a rule about estimates says nothing of it"):
        feldman.resume(study, until=feldman.StoppingRule(stderr=0.1))
    experiment = TrialStore.open(study / "trials.zarr").experiment
    with pytest.raises(InputError, match=r"subsets\.design is what `feldman removal RUN` sets"):
        feldman.run(experiment, tmp_path / "next")


def test_tables_of_other_trials_are_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "own")
    tables = {path: path.read_bytes() for path in run.glob("*.parquet")}
    feldman.resume(run, num_trials=80)
    for path, content in tables.items():
        path.write_bytes(content)
    with pytest.raises(QueryError, match=r"are of other trials than those that are committed; make them anew"):
        removal(run, tmp_path / "study", PLAN)
