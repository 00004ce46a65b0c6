"""``--set section.key=value``: read as TOML, applied to the document, validated like a file. And relative paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feldman.errors import ExperimentError
from feldman.experiment_files import load_experiment
from feldman.learner_sections import CnnLearner, CustomLearner


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.epochs=5", "training", "epochs", 5),
        (" training . epochs =5", "training", "epochs", 5),
        ("training.learning_rate=1e-3", "training", "learning_rate", 1e-3),
        ("training.learning_rate=1", "training", "learning_rate", 1.0),
        ("training.nesterov=true", "training", "nesterov", True),
        ("training.schedule=cosine", "training", "schedule", "cosine"),
        ('training.schedule="cosine"', "training", "schedule", "cosine"),
        ("learner.hidden=[8, 9]", "learner", "hidden", [8, 9]),
        ("learner.hidden=[]", "learner", "hidden", []),
        ("dataset.num_train=100", "dataset", "num_train", 100),
        ("execution.num_workers=3", "execution", "num_workers", 3),
    ],
)
def test_an_override_changes_one_field_and_nothing_else(override: str, section: str, key: str, value: Any) -> None:
    plain, changed = load_experiment("digits"), load_experiment("digits", [override])
    assert getattr(getattr(changed, section), key) == value
    assert changed == plain.replace(section, {key: value})


def test_the_last_of_several_overrides_of_a_field_holds() -> None:
    assert load_experiment("digits", ["training.epochs=5", "training.epochs=6"]).training.epochs == 6


def test_an_equals_sign_belongs_to_the_value_after_the_first() -> None:
    experiment = load_experiment("digits", ["dataset.name=a:b", "dataset.parameters.query=x=1"])
    assert experiment.dataset.parameters == {"query": "x=1"}


def test_another_learner_starts_from_its_own_defaults() -> None:
    assert load_experiment("digits", ["learner.name=cnn"]).learner == CnnLearner()
    assert load_experiment("digits", ["learner.name=a:b", "learner.parameters.k=2"]).learner == CustomLearner(
        name="a:b", parameters={"k": 2}
    )


def test_the_same_learner_named_again_keeps_its_fields() -> None:
    assert load_experiment("digits", ["learner.hidden=[7]", "learner.name=mlp"]) == load_experiment(
        "digits", ["learner.hidden=[7]"]
    )


@pytest.mark.parametrize(
    "override", ["", "=", "epochs=5", "training.epochs", "training.=5", ".epochs=5", "training..a=1"]
)
def test_an_override_without_section_key_and_value_is_told_how_it_must_look(override: str) -> None:
    with pytest.raises(ExperimentError, match=r"--set takes section\.key=value \(as in training\.epochs=5\), found '"):
        load_experiment("digits", [override])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(ExperimentError, match="'epochs' is a value, not a section"):
        load_experiment("digits", ["training.epochs.x=5"])


def test_an_unknown_key_in_an_override_is_refused_with_the_closest_valid_one() -> None:
    with pytest.raises(ExperimentError, match=r"training\.epoch: is not a key \(did you mean 'epochs'\?\)"):
        load_experiment("digits", ["training.epoch=5"])


def test_the_closest_preset_is_named_where_there_is_none_of_that_name() -> None:
    with pytest.raises(ExperimentError, match=r"'digit' is neither a preset nor a file \(did you mean 'digits'\?\)"):
        load_experiment("digit")


def test_relative_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    file = Path("here/x.toml")
    file.write_text('[dataset]\nname = "arrays"\npath = "data.npz"\nroot = "/absolute"\n')
    dataset = load_experiment(file).dataset
    assert (dataset.path, dataset.root) == (str(tmp_path / "here" / "data.npz"), "/absolute")


def test_relative_paths_of_an_override_are_taken_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_experiment("digits", ["dataset.path=data.npz"]).dataset.path == str(tmp_path / "data.npz")
