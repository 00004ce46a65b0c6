"""A trial that goes on from a checkpoint has the bits, and the margins, of one that was left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from feldman.data.dataset import Dataset
from feldman.data.load import load_dataset
from feldman.errors import LearnerError
from feldman.experiment import DatasetSection, Experiment
from feldman.learners.checkpoints import Checkpoints
from feldman.learners.load import check_learner, load_learner
from feldman.learners.protocol import Correctness
from feldman.trials.plan import subset_masks, trial_seeds

STEP = "feldman.learners.looped.cross_entropy"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetSection(name="digits", num_train=200, num_test=60))


def experiment(path: Path | None, learner: dict[str, Any], **training: Any) -> Experiment:
    recipe = {"epochs": 4, "batch_size": 32, "learning_rate": 0.05, "schedule": "cosine", **training}
    execution = {} if path is None else {"checkpoint_path": str(path)}
    return Experiment.model_validate(
        {
            "dataset": {"name": "digits"},
            "learner": learner,
            "training": recipe,
            "outputs": {"margins": True},
            "execution": execution,
        }
    )


def train(one: Experiment, dataset: Dataset, num_trials: int = 2) -> Correctness:
    trials = range(num_trials)
    return load_learner(one, dataset)(subset_masks(3, trials, dataset.num_train, 0.7), trial_seeds(3, trials))


@pytest.fixture
def step_limit(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts steps of training; a negative ``left`` never runs out, 0 left kills the trial."""
    steps = {"left": -1, "done": 0}
    original = torch.nn.functional.cross_entropy

    def counted(*arguments: Any) -> Any:
        if steps["left"] == 0:
            raise KeyboardInterrupt
        steps["left"] -= 1
        steps["done"] += 1
        return original(*arguments)

    monkeypatch.setattr(STEP, counted)
    return steps


LEARNERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"name": "cnn", "channels": [4], "vectorize": False},
        {"augment": ["crop", "flip", "cutout"], "crop_padding": 1, "cutout_size": 3},
    ),
    ({"name": "torchvision:squeezenet1_1"}, {"epochs": 2, "learning_rate": 0.01}),  # dropout
    ({"name": "resnet20"}, {"epochs": 2, "momentum": 0.0, "precision": "bfloat16"}),  # batch normalisation
    ({"name": "mlp", "hidden": [8], "vectorize": False}, {"weight_decay": 0.01, "nesterov": True}),
]


@pytest.mark.parametrize(("learner", "training"), LEARNERS, ids=lambda part: part.get("name", ""))
def test_a_trial_that_was_cut_off_goes_on_to_the_same_bits_and_repeats_at_most_an_epoch(
    digits: Dataset, tmp_path: Path, step_limit: dict[str, int], learner: dict[str, Any], training: dict[str, Any]
) -> None:
    if "squeezenet" in learner["name"]:
        digits = enlarged(digits)
    straight = train(experiment(None, learner, **training), digits)
    whole = step_limit["done"]
    cut = experiment(tmp_path / "kept", learner, **training)
    step_limit.update(left=whole - 2, done=0)
    with pytest.raises(KeyboardInterrupt):
        train(cut, digits)
    step_limit.update(left=-1, done=0)
    gone_on = train(cut, digits)
    steps_an_epoch = whole // 2 // cut.training.epochs
    assert step_limit["done"] <= steps_an_epoch
    for name in ("train", "test", "train_margin", "test_margin"):
        np.testing.assert_array_equal(getattr(gone_on, name), getattr(straight, name))
    assert not (tmp_path / "kept").exists() or not list((tmp_path / "kept").rglob("*.npz"))


def enlarged(dataset: Dataset) -> Dataset:
    """Images of 32 pixels, few of them: what a network of photographs takes."""
    large: dict[str, Any] = {
        name: np.repeat(np.repeat(getattr(dataset, name), 4, axis=1), 4, axis=2)[:60] for name in ("x_train", "x_test")
    }
    return Dataset(
        name="arrays", class_names=dataset.class_names, shift=dataset.shift, scale=dataset.scale,
        y_train=dataset.y_train[:60], y_test=dataset.y_test[:60], **large,
    )  # fmt: skip


@pytest.mark.parametrize("harm", ["cut", "flipped", "other"])
def test_a_checkpoint_that_cannot_be_read_costs_time_and_no_bit(
    digits: Dataset, tmp_path: Path, step_limit: dict[str, int], harm: str
) -> None:
    learner, training = LEARNERS[0]
    straight = train(experiment(None, learner, **training), digits, 1)
    cut = experiment(tmp_path, learner, **training)
    step_limit.update(left=step_limit["done"] - 1)
    with pytest.raises(KeyboardInterrupt):
        train(cut, digits, 1)
    (kept,) = tmp_path.rglob("*.npz")
    content = kept.read_bytes()
    if harm == "cut":
        kept.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        kept.write_bytes(content[:2000] + bytes([content[2000] ^ 255]) + content[2001:])
    else:
        Checkpoints(folder=kept.parent, every_epochs=1).save(kept.stem, {"epochs": np.array(3)})
    step_limit.update(left=-1)
    np.testing.assert_array_equal(train(cut, digits, 1).train_margin, straight.train_margin)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(folder=tmp_path / "kept", every_epochs=1)
    checkpoints.save("7", {"epochs": np.array(1)})

    def refuse(descriptor: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="no space left"):
            checkpoints.save("7", {"epochs": np.array(2)})
    state = checkpoints.load("7")
    assert state is not None
    assert int(state["epochs"]) == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["7.npz"]
    checkpoints.forget(["7", "8"])
    assert not (tmp_path / "kept").exists()
    assert checkpoints.load("7") is None


def test_trials_that_share_a_seed_and_learn_from_other_examples_do_not_share_a_checkpoint(
    digits: Dataset, tmp_path: Path, step_limit: dict[str, int]
) -> None:
    learner, training = LEARNERS[0]
    masks, seeds = subset_masks(3, range(2), digits.num_train, 0.7), np.array([5, 5])
    straight = load_learner(experiment(None, learner, **training), digits)(masks, seeds)
    kept = load_learner(experiment(tmp_path, learner, **training), digits)
    step_limit.update(left=step_limit["done"] // 2 - 1)
    with pytest.raises(KeyboardInterrupt):
        kept(masks[:1], seeds[:1])
    step_limit.update(left=-1)
    np.testing.assert_array_equal(kept(masks[1:], seeds[1:]).train_margin, straight.train_margin[1:])  # type: ignore[index]


@pytest.mark.parametrize(
    "learner",
    [
        {"name": "mlp"},
        {"name": "cnn"},
        {"name": "linear", "vectorize": True},
        {"name": "sklearn:tree.DecisionTreeClassifier"},
        {"name": "tests.learners:nearest_centroid"},
    ],
    ids=lambda learner: learner["name"],
)
def test_checkpoints_that_nothing_would_write_are_refused_before_anything_is_written(
    digits: Dataset, learner: dict[str, Any]
) -> None:
    with pytest.raises(LearnerError, match=r"checkpoint_path keeps trials that are trained one after the other"):
        check_learner(experiment(Path("kept"), learner), digits)
