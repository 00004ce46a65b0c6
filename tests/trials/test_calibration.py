"""How to train is measured once, and the store keeps it: a run never changes its learner half-way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feldman
from feldman.errors import CorruptStoreError, StoreMismatchError
from feldman.experiment import Experiment
from feldman.learners.calibration import seconds_per_step
from feldman.learners.training_path import TrainingPath, assumed_path, on_path, possible_paths
from feldman.merge_job import merge
from feldman.trials.calibration import chosen
from feldman.trials.events import read_events
from feldman.trials.plan import subset_masks, trial_seeds
from feldman.trials.store import TrialStore
from tests.conftest import small_arrays, small_dataset
from tests.runs import run_files

MEASURED = "feldman.learners.calibration.seconds_per_step"
STACKED, LOOPED = (TrainingPath(vectorize=vectorize, precision="float32") for vectorize in (True, False))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """An MLP on 60 points whose two ways of training give other bits in some trials."""
    np.savez(tmp_path / "data.npz", **small_arrays())  # type: ignore[arg-type]
    return experiment_on(tmp_path / "data.npz", {})


def experiment_on(path: Path, training: dict[str, Any], **learner: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "dataset": {"name": "arrays", "path": str(path)},
            "learner": {"name": "mlp", "hidden": [16], **learner},
            "training": {"epochs": 6, "batch_size": 16, "learning_rate": 0.3, **training},
            "subsets": {"num_trials": 12, "block_size": 4},
            "execution": {"executor": "in-process"},
        }
    )


def favouring(path: TrainingPath) -> Any:
    """Return a measurement that comes out for one way."""

    def measured(experiment: Experiment, dataset: Any, paths: Sequence[TrainingPath], *block: Any) -> list[float]:
        return [1.0 if one == path else 9.0 for one in paths]

    return measured


@given(st.lists(st.one_of(st.floats(1e-9, 1e3), st.just(math.inf)), min_size=1, max_size=4))
def test_the_fastest_way_is_taken_unless_the_first_is_about_as_fast(seconds: list[float]) -> None:
    paths = possible_paths(experiment_on(Path("data.npz"), {"precision": "auto"}))[: len(seconds)]
    path = chosen(paths, seconds)
    best, taken = min(seconds), seconds[paths.index(path)]
    assert taken == best or (path == paths[0] and taken <= 1.15 * best)
    if seconds[0] <= 1.15 * best:
        assert path == paths[0]


@pytest.mark.parametrize(
    ("learner", "precision", "expected"),
    [
        ({"name": "mlp"}, "float32", [(True, "float32"), (False, "float32")]),
        ({"name": "linear", "vectorize": False}, "auto", [(False, "float32"), (False, "bfloat16")]),
        ({"name": "mlp", "vectorize": True}, "bfloat16", [(True, "bfloat16")]),
        ({"name": "resnet20"}, "float32", [(False, "float32")]),
        ({"name": "sklearn:tree.DecisionTreeClassifier"}, "auto", []),
        ({"name": "tests.learners:nearest_centroid"}, "auto", []),
    ],
    ids=str,
)
def test_only_what_an_experiment_leaves_open_is_tried(
    learner: dict[str, Any], precision: str, expected: list[tuple[bool, str]]
) -> None:
    experiment = Experiment.model_validate(
        {"dataset": {"name": "digits"}, "learner": learner, "training": {"precision": precision}}
    )
    paths = possible_paths(experiment)
    assert [(path.vectorize, path.precision) for path in paths] == expected
    for path in paths:
        assert possible_paths(on_path(experiment, path)) == [path]
    assert assumed_path(experiment) == (paths[0] if paths else None)


def test_a_run_takes_the_measured_way_and_keeps_it_when_it_grows(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (STACKED, LOOPED):
        name = f"vectorize-{path.vectorize}"
        explicit = experiment.replace("learner", {"vectorize": path.vectorize})
        feldman.run(explicit.replace("subsets", {"num_trials": 20}), tmp_path / f"{name}-explicit")
        monkeypatch.setattr(MEASURED, favouring(path))
        feldman.run(experiment, tmp_path / name)
        assert TrialStore.open(tmp_path / name / "trials.zarr").training_path == path
        monkeypatch.setattr(MEASURED, favouring(LOOPED if path == STACKED else STACKED))
        feldman.resume(tmp_path / name, num_trials=20)
        (event,) = (event for event in read_events(tmp_path / name / "events.jsonl") if event["event"] == "calibrated")
        assert (event["vectorize"], event["precision"]) == (path.vectorize, path.precision)
        grown, straight = run_files(tmp_path / name), run_files(tmp_path / f"{name}-explicit")
        bits = [file for file in straight if "correct/c/" in file]
        assert bits
        assert {file: grown[file] for file in bits} == {file: straight[file] for file in bits}


def test_a_store_with_trials_and_no_decision_stays_with_how_they_were_trained(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MEASURED, favouring(STACKED))
    feldman.run(experiment, tmp_path / "run")
    store = TrialStore.open(tmp_path / "run" / "trials.zarr")
    del store._group.attrs["training_path"]  # as a version before decisions were kept wrote it
    monkeypatch.setattr(MEASURED, favouring(LOOPED))
    feldman.resume(tmp_path / "run", num_trials=20)
    assert TrialStore.open(tmp_path / "run" / "trials.zarr").training_path is None
    feldman.run(
        experiment.replace("subsets", {"num_trials": 20}).replace("learner", {"vectorize": True}), tmp_path / "stacked"
    )
    grown, straight = run_files(tmp_path / "run"), run_files(tmp_path / "stacked")
    assert all(grown[file] == straight[file] for file in straight if "correct/c/" in file)


def test_a_measurement_that_fails_stops_no_run(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> list[float]:
        raise MemoryError("no memory left")

    monkeypatch.setattr(MEASURED, fails)
    assert feldman.run(experiment, tmp_path / "run").status.num_committed_trials == 12
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    (failed,) = (event for event in events if event["event"] == "calibration_failed")
    assert failed["error"] == "MemoryError: no memory left"
    assert TrialStore.open(tmp_path / "run" / "trials.zarr").training_path is None


def test_what_fails_while_it_is_tried_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*arguments: Any) -> Iterator[None]:
        if arguments:
            raise RuntimeError("out of memory")
        yield

    monkeypatch.setattr("feldman.learners.torch_learner.stacked_training", out_of_memory)
    experiment = experiment_on(tmp_path / "data.npz", {"precision": "auto", "epochs": 40})
    paths = possible_paths(experiment)
    seconds = seconds_per_step(
        experiment, small_dataset(), paths, subset_masks(0, range(4), 60, 0.7), trial_seeds(0, range(4))
    )
    assert [math.isinf(one) for one in seconds] == [path.vectorize for path in paths]
    assert not chosen(paths, seconds).vectorize


def test_measuring_trains_every_way_and_leaves_the_shared_arrays_alone(tmp_path: Path) -> None:
    dataset = small_dataset()
    before = dataset.x_train.copy()
    experiment = experiment_on(tmp_path / "data.npz", {"precision": "auto", "epochs": 40})
    seconds = seconds_per_step(
        experiment, dataset, possible_paths(experiment), subset_masks(0, range(4), 60, 0.7), trial_seeds(0, range(4))
    )
    assert len(seconds) == 4
    assert all(0 < one < 60 for one in seconds)
    np.testing.assert_array_equal(dataset.x_train, before)


def test_runs_whose_precision_came_out_otherwise_are_not_merged(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment.replace("training", {"precision": "auto"})
    for name, trials, precision in (
        ("low", (0, 4), "bfloat16"),
        ("high", (4, 8), "float32"),
        ("more", (8, 12), "bfloat16"),
    ):
        path = TrainingPath(vectorize=True, precision=precision)  # type: ignore[arg-type]
        monkeypatch.setattr(MEASURED, favouring(path))
        feldman.run(experiment.replace("execution", {"trials": trials}), tmp_path / name)
    with pytest.raises(StoreMismatchError, match=r"came out as 'bfloat16' in .*low' and as 'float32' in .*high'"):
        merge([tmp_path / "low", tmp_path / "high"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge([tmp_path / "low", tmp_path / "more"], tmp_path / "merged")
    taken = TrialStore.open(tmp_path / "merged" / "trials.zarr").training_path
    assert taken == TrainingPath(vectorize=True, precision="bfloat16")


@pytest.mark.parametrize(
    "found", [{}, {"vectorize": 1, "precision": "float32"}, {"vectorize": True, "precision": "float8"}, 7]
)
def test_a_decision_that_cannot_be_read_is_damage(found: Any) -> None:
    with pytest.raises(CorruptStoreError, match="'training_path' should have"):
        TrainingPath.from_json(found)
