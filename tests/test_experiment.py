"""The experiment: TOML in and out, the fingerprint, overrides, and what a bad file is told."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from feldman.errors import ExperimentError
from feldman.experiment import (
    DatasetSection,
    ExecutionSection,
    Experiment,
    OutputsSection,
    SubsetsSection,
    TrainingSection,
    differing_fields,
)
from feldman.experiment_files import (
    experiment_from_document,
    experiment_to_toml,
    load_experiment,
    preset_names,
    preset_text,
)
from feldman.learner_sections import (
    CifarResNetLearner,
    CnnLearner,
    CustomLearner,
    DenseNetLearner,
    InceptionLearner,
    LibraryLearner,
    LinearLearner,
    MlpLearner,
    ResNetLearner,
    SklearnLearner,
)
from tests.strategies import documents

BASE: dict[str, Any] = {
    "dataset": {"name": "a:b", "root": "r", "path": "p", "num_train": 10, "num_test": 5, "parameters": {"k": 1}},
    "learner": {"name": "mlp", "hidden": [8], "vectorize": "auto"},
    "training": {
        "epochs": 3, "batch_size": 4, "learning_rate": 0.5, "momentum": 0.5, "weight_decay": 0.1, "nesterov": False,
        "schedule": "constant",
    },
    "subsets": {"num_trials": 7, "subset_ratio": 0.5, "seed": 1, "block_size": 2},
    "execution": {
        "executor": "ray", "num_workers": 1, "cpus_per_block": 1, "gpus_per_block": 0.0, "device": "cpu",
        "max_attempts": 3,
    },
}  # fmt: skip

DECISIVE: dict[str, Any] = {
    "dataset.name": "a:c",
    "dataset.num_train": 11,
    "dataset.num_test": 6,
    "dataset.parameters": {"k": 2},
    "dataset.random_labels": 3,
    "learner.name": "linear",
    "learner.hidden": [8, 8],
    "learner.vectorize": False,
    "training.epochs": 4,
    "training.batch_size": 5,
    "training.learning_rate": 0.25,
    "training.momentum": 0.25,
    "training.weight_decay": 0.2,
    "training.nesterov": True,
    "training.schedule": "cosine",
    "training.warmup": 0.5,
    "training.precision": "bfloat16",
    "subsets.subset_ratio": 0.25,
    "subsets.seed": 2,
}
"""Another value of each field that decides what is estimated."""

WITH_ANOTHER: dict[str, dict[str, Any]] = {
    "dataset.random_labels_seed": {"random_labels": 3, "random_labels_seed": 1},
    "training.milestones": {"schedule": "step", "milestones": [0.25], "factor": 0.5},
    "training.factor": {"schedule": "step", "milestones": [0.5], "factor": 0.25},
    "training.augment": {"augment": ["crop"]},
    "training.crop_padding": {"augment": ["crop", "cutout"], "crop_padding": 2},
    "training.cutout_size": {"augment": ["crop", "cutout"], "cutout_size": 2},
}
"""The same, of fields that say something beside another one only."""

BESIDE: dict[str, Any] = {"schedule": "step", "milestones": [0.5], "factor": 0.5}

INDIFFERENT: dict[str, Any] = {
    "dataset.root": "elsewhere",
    "dataset.path": "elsewhere",
    "subsets.num_trials": 8,
    "subsets.block_size": 3,
    "outputs.margins": True,
    "outputs.predictions": True,
    "execution.executor": "in-process",
    "execution.num_workers": 2,
    "execution.cpus_per_block": 2,
    "execution.gpus_per_block": 0.5,
    "execution.memory_per_block": "4 GiB",
    "execution.resources": {"spot": 1},
    "execution.shared_files": True,
    "execution.device": "cuda",
    "execution.compile": True,
    "execution.checkpoint_path": "kept",
    "execution.checkpoint_epochs": 5,
    "execution.max_attempts": 4,
    "execution.trials": [2, 4],
}


BESIDE_FIELDS: dict[str, dict[str, Any]] = {"execution.checkpoint_epochs": {"checkpoint_path": "kept"}}
"""What an indifferent field needs beside it."""


def changed(key: str, value: Any) -> Experiment:
    section, field = key.split(".")
    document = {**BASE, section: {**BASE.get(section, {}), **BESIDE_FIELDS.get(key, {}), field: value}}
    if key == "learner.name":
        document["learner"] = {"name": value}
    return Experiment.model_validate(document)


def refusal(document: dict[str, Any]) -> str:
    with pytest.raises(ExperimentError) as caught:
        experiment_from_document(document, "x.toml")
    return str(caught.value)


@given(documents)
def test_an_experiment_written_as_toml_reads_back_equal(document: dict[str, Any]) -> None:
    experiment = Experiment.model_validate(document)
    read = Experiment.model_validate(tomllib.loads(experiment_to_toml(experiment)))
    assert read == experiment
    assert read.fingerprint == experiment.fingerprint
    assert experiment_to_toml(read) == experiment_to_toml(experiment)


@given(documents)
def test_an_experiment_written_as_json_reads_back_equal(document: dict[str, Any]) -> None:
    experiment = Experiment.model_validate(document)
    assert Experiment.model_validate(experiment.model_dump(mode="json")) == experiment


@pytest.mark.parametrize("key", DECISIVE)
def test_the_fingerprint_changes_with_every_field_that_decides_the_estimate(key: str) -> None:
    base, other = Experiment.model_validate(BASE), changed(key, DECISIVE[key])
    assert other.fingerprint != base.fingerprint
    assert any(line.startswith(key) for line in differing_fields(base, other))


@pytest.mark.parametrize("key", WITH_ANOTHER)
def test_the_fingerprint_changes_with_what_belongs_to_a_schedule_an_augmentation_or_random_labels(key: str) -> None:
    fields, section = WITH_ANOTHER[key], key.partition(".")[0]
    beside = (
        BESIDE
        if "schedule" in fields
        else {"augment": ["crop", "cutout"] if "augment" in fields and len(fields) > 1 else []}
    )
    dataset = {**BASE["dataset"], **({"random_labels": 3} if section == "dataset" else {})}
    base = Experiment.model_validate({**BASE, "dataset": dataset, "learner": {"name": "cnn"}, "training": beside})
    other = base.replace(section, fields)
    assert [line.partition(":")[0] for line in differing_fields(base, other)] == [key]
    assert other.fingerprint != base.fingerprint


@pytest.mark.parametrize("key", INDIFFERENT)
def test_the_fingerprint_ignores_how_and_how_long_and_from_where_it_is_executed(key: str) -> None:
    base, other = Experiment.model_validate(BASE), changed(key, INDIFFERENT[key])
    assert other != base
    assert other.fingerprint == base.fingerprint
    assert differing_fields(base, other) == []


def test_every_field_either_decides_the_fingerprint_or_is_left_out_on_purpose() -> None:
    sections: dict[str, type[BaseModel]] = {
        "dataset": DatasetSection,
        "learner": MlpLearner,
        "training": TrainingSection,
        "subsets": SubsetsSection,
        "outputs": OutputsSection,
        "execution": ExecutionSection,
    }
    assert set(sections) == set(Experiment.model_fields)
    fields = {f"{name}.{field}" for name, section in sections.items() for field in section.model_fields}
    apart = {"subsets.design"}  # decides, and goes with no other ratio: see tests/trials/test_design.py
    assert fields == set(DECISIVE) | set(INDIFFERENT) | set(WITH_ANOTHER) | apart
    assert not set(DECISIVE) & set(INDIFFERENT)


def test_checkpoints_are_said_to_be_somewhere() -> None:
    assert "checkpoint_epochs says nothing without checkpoint_path" in refusal(
        {**BASE, "execution": {"checkpoint_epochs": 5}}
    )


def test_fields_that_came_later_leave_older_fingerprints_as_they_were() -> None:
    defaults = TrainingSection().model_dump(mode="json")
    later = {"warmup", "milestones", "factor", "augment", "crop_padding", "cutout_size", "precision"}
    experiment = Experiment.model_validate(
        {**BASE, "training": {**BASE["training"], **{key: defaults[key] for key in later}}}
    )
    assert experiment.fingerprint == PINNED
    assert not {f"training.{key}" for key in later} & set(experiment.identity())
    assert not {key for key in experiment.identity() if "random_labels" in key}


def test_an_experiment_written_before_outputs_were_records_none_and_is_the_same_one() -> None:
    experiment = Experiment.model_validate(BASE)
    assert experiment.outputs.names == ()
    assert experiment.replace("outputs", {"margins": True, "predictions": True}).fingerprint == PINNED


@pytest.mark.parametrize(("name", "fields"), [("cnn", {"name", "channels"}), ("mlp", {"name", "hidden", "vectorize"})])
def test_vectorize_came_later_for_networks_and_is_left_out_where_nothing_is_said(name: str, fields: set[str]) -> None:
    left_open = Experiment.model_validate({**BASE, "learner": {"name": name}})
    assert {key.partition(".")[2] for key in left_open.identity() if key.startswith("learner.")} == fields
    for vectorize in (True, False):
        decided = left_open.replace("learner", {"vectorize": vectorize})
        assert len(differing_fields(left_open, decided)) == 1
        assert decided.fingerprint != left_open.fingerprint


def test_the_order_in_which_augmentations_are_named_says_nothing() -> None:
    named = [
        {**BASE, "learner": {"name": "cnn"}, "training": {"augment": order}}
        for order in (["flip", "crop"], ["crop", "flip"])
    ]
    first, second = (Experiment.model_validate(document) for document in named)
    assert first == second
    assert first.training.augment == ["crop", "flip"]


def test_both_spellings_of_a_scikit_learn_class_are_one_experiment() -> None:
    names = ["sklearn:linear_model.LogisticRegression", "sklearn:sklearn.linear_model.LogisticRegression"]
    first, second = (Experiment.model_validate({**BASE, "learner": {"name": name}}) for name in names)
    assert first.learner.name == second.learner.name == names[0]
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("name", ["linear", "mlp", "sklearn:dummy.DummyClassifier", "a:b"])
def test_augmentation_is_refused_for_learners_that_take_no_images(name: str) -> None:
    message = refusal({**BASE, "learner": {"name": name}, "training": {"augment": ["flip"]}})
    assert message.splitlines()[1:] == [
        "  training: augment = ['flip'] needs a learner that takes images as images (cnn, resnet20, ...); "
        f"'{name}' does not: set augment = []"
    ]


def test_the_fingerprint_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert Experiment.model_validate(BASE).fingerprint == PINNED


def test_the_fingerprint_of_a_network_is_what_it_was_before_networks_could_be_vectorised() -> None:
    experiment = Experiment.model_validate({**BASE, "learner": {"name": "cnn", "channels": [4, 8]}})
    assert experiment.fingerprint == "3c7b722e2442147882ea5977738f30aef3f03161ffd59ef12e56b0dca917795b"


PINNED = "4f2fff6fe1016b5d949ff185d48838c895f3c03182569e2b1c8eac53e34e7690"


def test_only_the_name_of_the_data_set_has_no_default() -> None:
    experiment = Experiment.model_validate({"dataset": {"name": "digits"}})
    assert experiment.learner == MlpLearner(name="mlp", hidden=[128])
    assert (experiment.subsets.num_trials, experiment.subsets.subset_ratio) == (2000, 0.7)
    assert "dataset: is missing" in refusal({})
    assert "dataset.name: is missing" in refusal({"dataset": {}})


def test_an_experiment_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Experiment.model_validate(BASE).dataset, "name", "other")  # noqa: B010 - mypy refuses it, too


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_writes_back_equal(name: str) -> None:
    experiment = load_experiment(name)
    assert Experiment.model_validate(tomllib.loads(experiment_to_toml(experiment))) == experiment
    assert experiment.subsets.subset_ratio == 0.7


def test_the_presets_are_those_that_the_documentation_names() -> None:
    recipes = {"mnist-mlp", "cifar10-resnet20", "imagenet-resnet50"}
    recipes |= {f"cifar100-{name}" for name in ("resnet50", "resnet18", "densenet100", "inception")}
    assert {"digits", "fashion-mnist"} | recipes <= set(preset_names())


@pytest.mark.parametrize(
    "name", [name for name in preset_names() if "-resnet" in name or "cifar100-" in name or "-mlp" in name]
)
def test_a_preset_of_a_paper_says_what_is_certain_what_is_chosen_and_what_it_costs(name: str) -> None:
    text = preset_text(name)
    assert "(reckoned)" in text.splitlines()[0]
    for word in ("# Certain, from", "Chosen by us", "# Cost: ", "assumed"):
        assert word in text, word


@pytest.mark.parametrize(
    ("name", "num_trials", "batch_size", "learning_rate", "epochs"),
    [
        ("mnist-mlp", 2000, 128, 0.1, 10),
        ("cifar100-resnet50", 4000, 512, 0.4, 160),
        ("cifar100-inception", 4000, 512, 0.4, 160),
        ("imagenet-resnet50", 2000, 896, 0.7, 100),
        ("cifar10-resnet20", 2000, 128, 0.1, 234),
    ],
)
def test_the_presets_of_papers_have_their_recipes(
    name: str, num_trials: int, batch_size: int, learning_rate: float, epochs: int
) -> None:
    experiment = load_experiment(name)
    training = experiment.training
    assert experiment.subsets.num_trials == num_trials
    assert (training.batch_size, training.learning_rate, training.epochs) == (batch_size, learning_rate, epochs)
    assert training.momentum == 0.9


def sections_and_keys() -> Iterator[tuple[str, str, type[BaseModel]]]:
    models: dict[str, type[BaseModel]] = {
        "dataset": DatasetSection,
        "training": TrainingSection,
        "subsets": SubsetsSection,
        "outputs": OutputsSection,
        "execution": ExecutionSection,
    }
    for section, model in models.items():
        for key in model.model_fields:
            yield section, key, model


@pytest.mark.parametrize(("section", "key", "model"), list(sections_and_keys()))
def test_unknown_key_is_refused_with_the_closest_valid_one(section: str, key: str, model: type[BaseModel]) -> None:
    typo = key + "x"
    message = refusal({**BASE, section: {**BASE.get(section, {}), typo: 1}})
    assert f"{section}.{typo}: is not a key (did you mean '{key}'?)" in message
    assert f"valid keys: {', '.join(model.model_fields)}" in message


@pytest.mark.parametrize(
    ("name", "typo", "key", "model"),
    [
        ("linear", "vectorise", "vectorize", LinearLearner),
        ("mlp", "hiden", "hidden", MlpLearner),
        ("cnn", "channel", "channels", CnnLearner),
        ("resnet20", "shortcut", "shortcuts", CifarResNetLearner),
        ("resnet50", "stemm", "stem", ResNetLearner),
        ("densenet100", "growth", "growth_rate", DenseNetLearner),
        ("inception", "varient", "variant", InceptionLearner),
        ("torchvision:vgg11", "parameter", "parameters", LibraryLearner),
        ("timm:vgg11", "parameter", "parameters", LibraryLearner),
        ("sklearn:svm.SVC", "parameter", "parameters", SklearnLearner),
        ("my.module:learner", "parameter", "parameters", CustomLearner),
    ],
)
def test_unknown_key_of_a_learner_is_refused_with_those_of_that_very_learner(
    name: str, typo: str, key: str, model: type[BaseModel]
) -> None:
    message = refusal({**BASE, "learner": {"name": name, typo: 1}})
    assert f"learner.{typo}: is not a key (did you mean '{key}'?)" in message
    assert f"valid keys: {', '.join(model.model_fields)}" in message


@pytest.mark.parametrize("word", ["linear", "mlp", "cnn", "custom", "bool"])
def test_an_unknown_key_is_named_also_where_it_is_called_like_a_learner(word: str) -> None:
    assert f"  {word}: is not a key" in refusal({**BASE, word: {}})
    assert f"  training.{word}: is not a key" in refusal({**BASE, "training": {word: 1}})
    assert f"  learner.{word}: is not a key" in refusal({**BASE, "learner": {"name": "mlp", word: 1}})


def test_unknown_section_is_refused_with_the_closest_valid_one() -> None:
    message = refusal({**BASE, "trainings": {}})
    assert "trainings: is not a key (did you mean 'training'?)" in message
    assert "valid keys: dataset, learner, training, subsets, outputs, execution" in message


@pytest.mark.parametrize(
    ("section", "key", "value", "told"),
    [
        ("training", "epochs", 0, "must be greater than or equal to 1; found 0"),
        ("training", "epochs", 2.0, "must be a valid integer; found 2.0"),
        ("training", "epochs", "2", "must be a valid integer; found '2'"),
        ("training", "epochs", True, "must be a valid integer; found True"),
        ("training", "learning_rate", 0, "must be greater than 0; found 0"),
        ("training", "learning_rate", float("inf"), "must be a finite number; found inf"),
        ("training", "learning_rate", float("nan"), "must be"),
        ("training", "momentum", 1.0, "must be less than 1; found 1.0"),
        ("training", "nesterov", 1, "must be a valid boolean; found 1"),
        ("training", "schedule", "steps", "must be 'constant', 'linear', 'cosine' or 'step'; found 'steps'"),
        ("training", "warmup", 1.0, "must be less than 1; found 1.0"),
        (
            "training",
            "milestones",
            [0.75, 0.5],
            "must be shares of the training, ascending between 0 and 1, as in [0.5, 0.75]",
        ),
        ("training", "milestones", [32000], "found [32000.0]"),
        ("training", "factor", 1, "must be less than 1; found 1"),
        ("training", "augment", ["crop", "crop"], "must name each augmentation once; found ['crop', 'crop']"),
        ("subsets", "num_trials", -1, "must be greater than or equal to 1; found -1"),
        ("subsets", "num_trials", 10**9, "must be less than or equal to 10000000; found 1000000000"),
        ("subsets", "subset_ratio", 1, "must be less than 1; found 1"),
        ("subsets", "subset_ratio", [0.5], "must be a valid number; found [0.5]"),
        ("subsets", "seed", 2**63, "must be less than"),
        ("subsets", "block_size", 65537, "must be less than or equal to 65536; found 65537"),
        ("execution", "executor", "dask", "must be 'ray' or 'in-process'; found 'dask'"),
        ("execution", "device", "gpu", "found 'gpu'"),
        ("execution", "gpus_per_block", 1.5, "must be whole, or a share of one GPU in steps of 0.0001; found 1.5"),
        ("execution", "gpus_per_block", 1e-05, "must be whole, or a share of one GPU in steps of 0.0001; found 1e-05"),
        (
            "execution",
            "trials",
            [4, 4],
            "must be [A, B], the trials A to B - 1, with 0 <= A < B <= 10000000; found [4, 4]",
        ),
        (
            "execution",
            "memory_per_block",
            "4",
            "must be a number with a unit (KB, MB, GB, TB, KiB, MiB, GiB, TiB), as in '4 GiB'",
        ),
        ("execution", "memory_per_block", "-4 GiB", "found '-4 GiB'"),
        ("execution", "memory_per_block", "0.0 GiB", "found '0.0 GiB'"),
        ("execution", "memory_per_block", 4, "found 4"),
        ("execution", "resources", {"GPU": 1}, "'GPU' has a field of its own: gpus_per_block"),
        ("execution", "resources", {"memory": 1}, "'memory' has a field of its own: memory_per_block"),
        ("execution", "resources", {"spot": 0}, "as in {spot = 1}; found 'spot' = 0"),
        ("execution", "resources", {"spot": 1.5}, "up to 1 or whole"),
        ("execution", "trials", [-1, 4], "found [-1, 4]"),
        ("execution", "trials", [0, 10**9], "found [0, 1000000000]"),
        ("execution", "trials", [0, 4, 8], "found [0, 4, 8]"),
        ("execution", "trials", [0, 4.0], "found [0, 4.0]"),
        ("execution", "trials", [False, True], "found [False, True]"),
        ("execution", "trials", "0:4", "found '0:4'"),
        ("dataset", "name", 3, "must be a valid string; found 3"),
        ("dataset", "num_train", 1, "must be greater than or equal to 2; found 1"),
    ],
)
def test_a_bad_value_is_named_with_what_was_found_and_what_is_allowed(
    section: str, key: str, value: Any, told: str
) -> None:
    message = refusal({**BASE, section: {**BASE[section], key: value}})
    assert message.startswith("x.toml does not describe an experiment:\n  ")
    assert f"  {section}.{key}: " in message
    assert told in message
    assert "pydantic" not in message


def test_a_bad_entry_of_a_list_is_named_by_its_place() -> None:
    assert "learner.hidden.1: must be greater than or equal to 1; found 0" in refusal(
        {**BASE, "learner": {"name": "mlp", "hidden": [8, 0]}}
    )


def test_a_wrong_vectorize_is_told_of_once_for_each_kind_it_may_be() -> None:
    message = refusal({**BASE, "learner": {"name": "mlp", "vectorize": "yes"}})
    assert all(line.startswith("  learner.vectorize: must be ") for line in message.splitlines()[1:])


@pytest.mark.parametrize("value", [3, [], "digits", True])
def test_a_section_that_is_a_value_is_refused_by_its_name(value: Any) -> None:
    for section in BASE:
        message = refusal({**BASE, section: value})
        assert f"  {section}: " in message
        assert "discriminator" not in message
        assert repr(value) in message


def test_a_parameter_that_no_function_could_be_given_is_named_once() -> None:
    message = refusal({**BASE, "learner": {"name": "a:b", "parameters": {"k": {"deep": 1}}}})
    assert message.splitlines()[1:] == [
        "  learner.parameters.k: must be true or false, a number, a text, or a list of these; found {'deep': 1}"
    ]


@pytest.mark.parametrize("name", [3, ["mlp"], True, "", ":", "a:", "a b:c", "mlp:"])
def test_a_learner_whose_name_is_no_name_is_refused(name: Any) -> None:
    message = refusal({**BASE, "learner": {"name": name}})
    assert "  learner" in message
    assert "discriminator" not in message


def test_an_unknown_learner_is_refused_with_the_closest_and_all_valid_ones() -> None:
    message = refusal({**BASE, "learner": {"name": "linar"}})
    assert (
        "there is no learner 'linar' (did you mean 'linear'?); choose one of linear, mlp, cnn, resnet18, resnet20, "
        in message
    )
    assert message.endswith(
        "inception, torchvision:NAME, timm:NAME, sklearn:MODULE.CLASS, or your own as 'package.module:name'"
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torchvision:", "must be 'torchvision:NAME' or 'timm:NAME', as in 'torchvision:vgg11'; found 'torchvision:'"),
        ("timm:a b", "found 'timm:a b'"),
        (
            "sklearn:RandomForestClassifier",
            "must be 'sklearn:MODULE.CLASS', as in 'sklearn:ensemble.RandomForestClassifier'",
        ),
        ("sklearn:ensemble._forest.ForestClassifier", "must be 'sklearn:MODULE.CLASS'"),
    ],
)
def test_a_library_s_learner_must_be_named_in_its_form(name: str, told: str) -> None:
    message = refusal({**BASE, "learner": {"name": name}})
    assert "  learner.name: must be " in message
    assert told in message


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    message = refusal({"dataset": {}, "training": {"epochs": 0}, "subset": {}})
    assert len(message.splitlines()) == 4


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"schedule": "step"}, "schedule = 'step' needs milestones, as in [0.5, 0.75]"),
        ({"milestones": [0.5]}, "milestones says nothing without schedule = 'step'; take it out"),
        ({"schedule": "linear", "factor": 0.2}, "factor says nothing without schedule = 'step'"),
        ({"crop_padding": 2}, "crop_padding says nothing without augment = ['crop']"),
        ({"augment": ["flip"], "cutout_size": 4}, "cutout_size says nothing without augment = ['cutout']"),
    ],
)
def test_a_field_that_nothing_would_look_at_is_refused(training: dict[str, Any], told: str) -> None:
    assert f"  training: {told}" in refusal({**BASE, "learner": {"name": "cnn"}, "training": training})


def test_nesterov_without_momentum_is_refused() -> None:
    assert "nesterov = true needs momentum > 0" in refusal({**BASE, "training": {"nesterov": True, "momentum": 0.0}})
