"""Experiment: what is estimated. A frozen, validated record; TOML in and out is in ``experiment_files``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from feldman.errors import suggestion
from feldman.execution_section import MAX_TRIALS, ExecutionSection
from feldman.learner_sections import (
    BUILT_IN_LEARNERS,
    LEARNER_FORMS,
    CnnLearner,
    ImageLearner,
    LearnerSection,
    MlpLearner,
    Parameters,
    Section,
)

__all__ = [
    "MAX_TRIALS",
    "DatasetSection",
    "ExecutionSection",
    "Experiment",
    "OutputsSection",
    "Precision",
    "SubsetsSection",
    "TrainingSection",
    "differing_fields",
]

Precision = Literal["float32", "bfloat16"]
Augmentation = Literal["crop", "flip", "cutout"]
AUGMENTATIONS: tuple[Augmentation, ...] = ("crop", "flip", "cutout")
"""In the order in which they are applied."""

_LATER_FIELDS = frozenset(
    {"dataset.random_labels", "dataset.random_labels_seed", "subsets.design"}
    | {
        f"training.{name}"
        for name in ("warmup", "milestones", "factor", "augment", "crop_padding", "cutout_size", "precision")
    }
)
"""Fields that came after the first stores: left out of an identity at their defaults, so that fingerprints of old remain."""


class DatasetSection(Section):
    """``[dataset]``: what trials learn from."""

    name: str = Field(
        description="A built-in data set (see `feldman.data.load.BUILT_IN`), 'huggingface:NAME' or 'package.module:function'."
    )
    root: str | None = Field(default=None, description="Folder of the files of a built-in data set.")
    path: str | None = Field(
        default=None,
        description="'arrays': an .npz file or a folder of .npy files. 'image-folder': what `feldman prepare` made.",
    )
    num_train: int | None = Field(default=None, ge=2, description="Take a fixed stratified part of this size.")
    num_test: int | None = Field(default=None, ge=1, description="Take a fixed stratified part of this size.")
    parameters: Parameters = Field(
        default_factory=dict,
        description="Handed to 'package.module:function'. 'cifar100': labels. 'huggingface:NAME': columns and splits.",
    )
    random_labels: int | None = Field(
        default=None, ge=1, description="So many training examples, drawn, get the label of another class, drawn too."
    )
    random_labels_seed: int = Field(default=0, ge=0, lt=2**63, description="Of these draws.")

    @model_validator(mode="after")
    def _seed_matters(self) -> DatasetSection:
        """Refuse a seed that would not be looked at."""
        if self.random_labels is None and self.random_labels_seed:
            raise ValueError("random_labels_seed says nothing without random_labels; take it out")
        return self


class TrainingSection(Section):
    """``[training]``: the recipe. Stochastic gradient descent with momentum on the cross-entropy."""

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, description="At the start; see `schedule`.")
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    nesterov: bool = False
    schedule: Literal["constant", "linear", "cosine", "step"] = Field(
        default="constant",
        description="How the learning rate moves, step by step: not, down to 0, or down by `factor` at each milestone.",
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="Share of all steps in which the learning rate first climbs from 0."
    )
    milestones: list[float] = Field(
        default=[], max_length=64, description="schedule = 'step': when the rate drops, as shares of all steps."
    )
    factor: float = Field(default=0.1, gt=0, lt=1, description="schedule = 'step': what the rate is multiplied by.")
    augment: list[Augmentation] = Field(
        default=[], description="Changes of the training images, each drawn anew for every example of every batch."
    )
    crop_padding: int = Field(default=4, ge=1, le=1024, description="'crop': zeros that are put around an image first.")
    cutout_size: int = Field(default=8, ge=1, le=1024, description="'cutout': side of the square that is set to 0.")
    precision: Precision | Literal["auto"] = Field(
        default="float32",
        description="Of the matrix products; weights and their updates are float32 either way. 'auto': the faster, measured.",
    )

    @field_validator("augment", mode="after")
    @classmethod
    def _augment_in_order(cls, value: list[Augmentation]) -> list[Augmentation]:
        """Sort them as they are applied: the order in a file says nothing, and must not change the fingerprint."""
        if len(set(value)) < len(value):
            raise ValueError(f"must name each augmentation once; found {value}")
        return sorted(value, key=AUGMENTATIONS.index)

    @field_validator("milestones", mode="after")
    @classmethod
    def _milestones_ascend(cls, value: list[float]) -> list[float]:
        if any(not low < high for low, high in pairwise([0.0, *value, 1.0])):
            raise ValueError(
                f"must be shares of the training, ascending between 0 and 1, as in [0.5, 0.75]; found {value}"
            )
        return value

    @model_validator(mode="after")
    def _every_field_matters(self) -> TrainingSection:
        """Refuse what would not be looked at: who set it expects it to matter."""
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = true needs momentum > 0")
        if self.schedule == "step" and not self.milestones:
            raise ValueError("schedule = 'step' needs milestones, as in [0.5, 0.75]")
        needed = {
            "milestones": ("schedule = 'step'", self.schedule == "step"),
            "factor": ("schedule = 'step'", self.schedule == "step"),
            "crop_padding": ("augment = ['crop']", "crop" in self.augment),
            "cutout_size": ("augment = ['cutout']", "cutout" in self.augment),
        }
        for key, (what, there) in needed.items():
            if not there and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} says nothing without {what}; take it out")
        return self


class SubsetsSection(Section):
    """``[subsets]``: how many trials, and on which part of the training set each one learns."""

    num_trials: int = Field(default=2000, ge=1, le=MAX_TRIALS)
    subset_ratio: float = Field(default=0.7, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    block_size: int = Field(
        default=50, ge=1, le=65536, description="Trials a block: the unit of scheduling, storage and retry."
    )
    design: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Set by `feldman removal` alone: which subsets take the place of random ones, by their fingerprint.",
    )

    @model_validator(mode="after")
    def _ratio_matters(self) -> SubsetsSection:
        """Refuse a ratio that would not be looked at."""
        if self.design is not None and self.subset_ratio != type(self).model_fields["subset_ratio"].default:
            raise ValueError("subset_ratio says nothing of designed subsets; take it out")
        return self

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the run; the last one may be shorter than ``block_size``."""
        return -(-self.num_trials // self.block_size)

    def block_trials(self, block: int) -> range:
        """Return the trials of a block."""
        return range(block * self.block_size, min((block + 1) * self.block_size, self.num_trials))


class OutputsSection(Section):
    """``[outputs]``: what is stored of each trial beside its correctness bits. Changes nothing of what is estimated.

    Decided when a run is made, as ``block_size`` is; the fingerprint leaves it out.
    """

    margins: bool = Field(
        default=False, description="The correct class's logit less the largest other one, of every example, in float16."
    )
    predictions: bool = Field(default=False, description="The label that is predicted for every example.")

    @property
    def names(self) -> tuple[str, ...]:
        """What is recorded, by its names in the section."""
        return tuple(name for name in type(self).model_fields if getattr(self, name))


class Experiment(Section):
    """A data set, a learner, a recipe and a plan of subsets: all that an estimate depends on.

    Sections and keys are those of the TOML file; each has a default except ``dataset.name``.
    """

    dataset: DatasetSection
    learner: LearnerSection = Field(default_factory=MlpLearner)
    training: TrainingSection = Field(default_factory=TrainingSection)
    subsets: SubsetsSection = Field(default_factory=SubsetsSection)
    outputs: OutputsSection = Field(default_factory=OutputsSection)
    execution: ExecutionSection = Field(default_factory=ExecutionSection)

    @field_validator("learner", mode="before")
    @classmethod
    def _learner_named(cls, value: object) -> object:
        if isinstance(value, Section):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a section, [learner]; found {value!r}")
        name = value.get("name", "mlp")
        if not isinstance(name, str):
            raise ValueError(f"name must be a text, found {name!r}; {LEARNER_FORMS}")
        if name not in BUILT_IN_LEARNERS and ":" not in name:
            raise ValueError(f"there is no learner '{name}'{suggestion(name, BUILT_IN_LEARNERS)}; {LEARNER_FORMS}")
        return {"name": "mlp", **value}

    @field_validator("training", mode="after")
    @classmethod
    def _augmentation_needs_images(cls, training: TrainingSection, info: Any) -> TrainingSection:
        learner = info.data.get("learner")  # absent if it is wrong itself
        if training.augment and learner is not None and not isinstance(learner, ImageLearner):
            raise ValueError(
                f"augment = {training.augment} needs a learner that takes images as images (cnn, resnet20, ...); "
                f"'{learner.name}' does not: set augment = []"
            )
        return training

    @property
    def trained_trials(self) -> range:
        """The trials that a run trains: ``execution.trials``, or all of the plan."""
        return range(*self.execution.trials) if self.execution.trials else range(self.subsets.num_trials)

    @property
    def trained_blocks(self) -> range:
        """The blocks of `trained_trials`."""
        trials, size = self.trained_trials, self.subsets.block_size
        return range(trials.start // size, -(-trials.stop // size))

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide what is estimated, by dotted name.

        Left out: ``execution`` and ``outputs``; where files lie (the data set's content has a hash of its own);
        ``num_trials``, which may grow; ``block_size``, which a store keeps from its creation; fields that came later, at
        their defaults.
        """
        left_out = {"dataset.root", "dataset.path", "subsets.num_trials", "subsets.block_size"}
        fields = dict(_flat(self.model_dump(mode="json", exclude={"execution", "outputs"})))
        sections = {"training": TrainingSection(), "dataset": DatasetSection(name=""), "subsets": SubsetsSection()}
        defaults = dict(_flat({name: section.model_dump(mode="json") for name, section in sections.items()}))
        left_out |= {key for key in _LATER_FIELDS if fields[key] == defaults[key]}
        if isinstance(self.learner, CnnLearner) and self.learner.vectorize == "auto":
            left_out.add("learner.vectorize")  # came later for this learner alone
        return {key: value for key, value in fields.items() if key not in left_out}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def replace(self, section: str, fields: Mapping[str, Any]) -> Experiment:
        """Return the same experiment with some fields of one section changed, validated anew."""
        document = self.model_dump()
        document[section] = {**document[section], **fields}
        return Experiment.model_validate(document)


def differing_fields(
    stored: Experiment, given: Experiment, places: tuple[str, str] = ("in the store", "given")
) -> list[str]:
    """List the fields in which two experiments estimate different things; ``places`` says where each value was found."""
    old, new = stored.identity(), given.identity()
    return [
        f"{key}: {old.get(key, '(none)')!r} {places[0]}, {new.get(key, '(none)')!r} {places[1]}"
        for key in sorted(old.keys() | new.keys())
        if json.dumps(old.get(key)) != json.dumps(new.get(key))  # true is not 1
    ]


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
