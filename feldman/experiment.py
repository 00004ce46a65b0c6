"""Experiment: what is estimated. A frozen, validated record; TOML in and out is in ``experiment_files``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from feldman.errors import listed, suggestion

__all__ = [
    "MAX_TRIALS",
    "CnnLearner",
    "CustomLearner",
    "DatasetSection",
    "ExecutionSection",
    "Experiment",
    "LinearLearner",
    "MlpLearner",
    "SubsetsSection",
    "TrainingSection",
    "differing_fields",
]

ATTRIBUTE_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""``package.module:name``, a user's own learner or data set."""

MAX_TRIALS = 10_000_000

Scalar = bool | int | float | str
Parameters = dict[str, Scalar | list[Scalar]]


class _Section(BaseModel):
    """What all sections share: frozen, no unknown keys, no silent conversions (a TOML file is typed already)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DatasetSection(_Section):
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


class LinearLearner(_Section):
    """``[learner] name = "linear"``: multinomial logistic regression on the flattened input."""

    name: Literal["linear"] = "linear"
    vectorize: bool | Literal["auto"] = "auto"


class MlpLearner(_Section):
    """``[learner] name = "mlp"``: fully connected layers with ReLU between them."""

    name: Literal["mlp"] = "mlp"
    hidden: list[Annotated[int, Field(ge=1, le=65536)]] = Field(default=[128], max_length=16)
    vectorize: bool | Literal["auto"] = "auto"


class CnnLearner(_Section):
    """``[learner] name = "cnn"``: one 3x3 convolution, 2x2 max-pooling and ReLU a stage, then a linear layer."""

    name: Literal["cnn"] = "cnn"
    channels: list[Annotated[int, Field(ge=1, le=4096)]] = Field(default=[16, 32], min_length=1, max_length=8)


class CustomLearner(_Section):
    """``[learner] name = "package.module:name"``: a user's own, see `feldman.learners.protocol.Learner`."""

    name: str = Field(pattern=ATTRIBUTE_PATTERN)
    parameters: Parameters = Field(default_factory=dict)


BUILT_IN_LEARNERS: Mapping[str, type[_Section]] = {"linear": LinearLearner, "mlp": MlpLearner, "cnn": CnnLearner}


def _learner_tag(value: object) -> str | None:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    if isinstance(name, str) and name in BUILT_IN_LEARNERS:
        return name
    return "custom" if isinstance(name, str) and ":" in name else None


LearnerSection = Annotated[
    Annotated[LinearLearner, Tag("linear")]
    | Annotated[MlpLearner, Tag("mlp")]
    | Annotated[CnnLearner, Tag("cnn")]
    | Annotated[CustomLearner, Tag("custom")],
    Discriminator(_learner_tag),
]


class TrainingSection(_Section):
    """``[training]``: the recipe. Stochastic gradient descent with momentum on the cross-entropy."""

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, description="At the start; see `schedule`.")
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    nesterov: bool = False
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="How the learning rate moves, step by step: not, or down to 0."
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> TrainingSection:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = true needs momentum > 0")
        return self


class SubsetsSection(_Section):
    """``[subsets]``: how many trials, and on which part of the training set each one learns."""

    num_trials: int = Field(default=2000, ge=1, le=MAX_TRIALS)
    subset_ratio: float = Field(default=0.7, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    block_size: int = Field(
        default=50, ge=1, le=65536, description="Trials a block: the unit of scheduling, storage and retry."
    )

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the run; the last one may be shorter than ``block_size``."""
        return -(-self.num_trials // self.block_size)

    def block_trials(self, block: int) -> range:
        """Return the trials of a block."""
        return range(block * self.block_size, min((block + 1) * self.block_size, self.num_trials))


class ExecutionSection(_Section):
    """``[execution]``: how it is executed. Changes nothing of what is estimated, so the fingerprint leaves it out.

    Executor, number of workers and attempts change no bit.
    Threads (``cpus_per_block``) and hardware round floats in other orders.
    """

    executor: Literal["ray", "in-process"] = "ray"
    num_workers: int | None = Field(default=None, ge=1, le=100_000, description="Default: as many as the cores allow.")
    cpus_per_block: int = Field(default=1, ge=1, le=1024)
    gpus_per_block: float = Field(default=0.0, ge=0, le=1024)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    max_attempts: int = Field(default=3, ge=1, le=100, description="A block that fails this often is set aside.")
    trials: tuple[int, int] | None = Field(
        default=None, description="[A, B]: train trials A to B - 1 alone, whole blocks of the plan. Default: all."
    )

    @field_validator("trials", mode="before")
    @classmethod
    def _first_and_end(cls, value: object) -> object:
        if value is None:
            return None
        if isinstance(value, list | tuple) and len(value) == 2 and all(type(bound) is int for bound in value):
            first, end = value
            if 0 <= first < end <= MAX_TRIALS:
                return first, end
        raise ValueError(f"must be [A, B], the trials A to B - 1, with 0 <= A < B <= {MAX_TRIALS}; found {value!r}")


class Experiment(_Section):
    """A data set, a learner, a recipe and a plan of subsets: all that an estimate depends on.

    Sections and keys are those of the TOML file; each has a default except ``dataset.name``.
    """

    dataset: DatasetSection
    learner: LearnerSection = Field(default_factory=MlpLearner)
    training: TrainingSection = Field(default_factory=TrainingSection)
    subsets: SubsetsSection = Field(default_factory=SubsetsSection)
    execution: ExecutionSection = Field(default_factory=ExecutionSection)

    @field_validator("learner", mode="before")
    @classmethod
    def _learner_named(cls, value: object) -> object:
        if isinstance(value, _Section):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a section, [learner]; found {value!r}")
        name = value.get("name", "mlp")
        choices = f"choose one of {listed(BUILT_IN_LEARNERS)}, or your own as 'package.module:name'"
        if not isinstance(name, str):
            raise ValueError(f"name must be a text, found {name!r}; {choices}")
        if name not in BUILT_IN_LEARNERS and ":" not in name:
            raise ValueError(f"there is no learner '{name}'{suggestion(name, BUILT_IN_LEARNERS)}; {choices}")
        return {"name": "mlp", **value}

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

        Left out: ``execution``; where files lie (the data set's content has a hash of its own); ``num_trials``, which
        may grow; ``block_size``, which a store keeps from its creation.
        """
        left_out = {"dataset.root", "dataset.path", "subsets.num_trials", "subsets.block_size"}
        document = self.model_dump(mode="json", exclude={"execution"})
        return {key: value for key, value in _flat(document) if key not in left_out}

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
