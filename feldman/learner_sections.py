"""The sections ``[learner]`` of an experiment, a record a kind of learner. No torch and no scikit-learn here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from feldman.errors import listed

__all__ = [
    "BUILT_IN_LEARNERS",
    "LEARNER_FORMS",
    "LEARNER_KINDS",
    "CifarResNetLearner",
    "CnnLearner",
    "CustomLearner",
    "DenseNetLearner",
    "ImageLearner",
    "InceptionLearner",
    "LearnerSection",
    "LibraryLearner",
    "LinearLearner",
    "MlpLearner",
    "Parameters",
    "ResNetLearner",
    "Section",
    "SklearnLearner",
    "learner_in_words",
]

ATTRIBUTE_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""``package.module:name``, a user's own learner or data set."""

Scalar = bool | int | float | str
Parameters = dict[str, Scalar | list[Scalar]]


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, no silent conversions (a TOML file is typed already)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LinearLearner(Section):
    """``[learner] name = "linear"``: multinomial logistic regression on the flattened input."""

    name: Literal["linear"] = "linear"
    vectorize: bool | Literal["auto"] = "auto"


class MlpLearner(Section):
    """``[learner] name = "mlp"``: fully connected layers with ReLU between them."""

    name: Literal["mlp"] = "mlp"
    hidden: list[Annotated[int, Field(ge=1, le=65536)]] = Field(default=[128], max_length=16)
    vectorize: bool | Literal["auto"] = "auto"


class CnnLearner(Section):
    """``[learner] name = "cnn"``: one 3x3 convolution, 2x2 max-pooling and ReLU a stage, then a linear layer."""

    name: Literal["cnn"] = "cnn"
    channels: list[Annotated[int, Field(ge=1, le=4096)]] = Field(default=[16, 32], min_length=1, max_length=8)
    vectorize: bool | Literal["auto"] = "auto"


class CifarResNetLearner(Section):
    """``[learner] name = "resnet20"``, 32 or 56: the residual networks for small images of He et al. 2016, section 4.2."""

    name: Literal["resnet20", "resnet32", "resnet56"]
    shortcuts: Literal["A", "B"] = Field(
        default="A", description="Where the number of channels changes: 'A' pads with zeros, 'B' projects."
    )


class ResNetLearner(Section):
    """``[learner] name = "resnet18"`` or ``"resnet50"``: torchvision's, with a stem that fits the images."""

    name: Literal["resnet18", "resnet50"]
    stem: Literal["auto", "small", "large"] = Field(
        default="auto",
        description="'small': 3x3, stride 1, no pooling; 'large': ImageNet's. 'auto': small up to 64 pixels.",
    )


class DenseNetLearner(Section):
    """``[learner] name = "densenet40"`` or ``"densenet100"``: Huang et al. 2017, for small images, in three dense blocks."""

    name: Literal["densenet40", "densenet100"]
    growth_rate: int = Field(default=12, ge=1, le=1024)
    bottleneck: bool = Field(
        default=False,
        description="DenseNet-BC: 1x1 layers before the 3x3 ones, and transitions that halve the channels.",
    )


class InceptionLearner(Section):
    """``[learner] name = "inception"``: the small Inception for images of 28 to 32 pixels."""

    name: Literal["inception"] = "inception"
    variant: Literal["feldman-zhang", "zhang"] = Field(
        default="feldman-zhang",
        description="Of the authors' released code (2020), or the one of Zhang et al. 2017 that it derives from.",
    )


class LibraryLearner(Section):
    """``[learner] name = "torchvision:NAME"`` or ``"timm:NAME"``: any image classifier of these libraries, untrained."""

    name: str = Field(description="Names are those of torchvision.models.list_models and timm.list_models.")
    parameters: Parameters = Field(default_factory=dict, description="Handed to the library's builder.")

    @field_validator("name")
    @classmethod
    def _well_formed(cls, name: str) -> str:
        if not re.fullmatch(r"(torchvision|timm):[A-Za-z_][\w.-]*", name):
            raise ValueError(f"must be 'torchvision:NAME' or 'timm:NAME', as in 'torchvision:vgg11'; found '{name}'")
        return name


class SklearnLearner(Section):
    """``[learner] name = "sklearn:MODULE.CLASS"``: any classifier of scikit-learn, on flattened and scaled inputs."""

    name: str = Field(description="As in 'sklearn:ensemble.RandomForestClassifier'.")
    parameters: Parameters = Field(default_factory=dict, description="Handed to the class.")

    @field_validator("name")
    @classmethod
    def _canonical(cls, name: str) -> str:
        """Give both spellings, with and without the package, one name, and so one fingerprint."""
        path = name.removeprefix("sklearn:").removeprefix("sklearn.")
        if not re.fullmatch(r"([A-Za-z]\w*\.)+[A-Za-z]\w*", path):
            raise ValueError(
                f"must be 'sklearn:MODULE.CLASS', as in 'sklearn:ensemble.RandomForestClassifier'; found '{name}'"
            )
        return f"sklearn:{path}"


class CustomLearner(Section):
    """``[learner] name = "package.module:name"``: a user's own, see `feldman.learners.protocol.Learner`."""

    name: str = Field(pattern=ATTRIBUTE_PATTERN)
    parameters: Parameters = Field(default_factory=dict)


ImageLearner = CnnLearner | CifarResNetLearner | ResNetLearner | DenseNetLearner | InceptionLearner | LibraryLearner
"""What takes images as images; the others flatten them."""

BUILT_IN_LEARNERS = (
    "linear", "mlp", "cnn", "resnet18", "resnet20", "resnet32", "resnet50", "resnet56", "densenet40", "densenet100",
    "inception",
)  # fmt: skip

LEARNER_FORMS = (
    f"choose one of {listed(BUILT_IN_LEARNERS)}, torchvision:NAME, timm:NAME, sklearn:MODULE.CLASS, "
    "or your own as 'package.module:name'"
)

LEARNER_KINDS: Mapping[str, type[Section]] = MappingProxyType(
    {
        "linear": LinearLearner,
        "mlp": MlpLearner,
        "cnn": CnnLearner,
        "cifar-resnet": CifarResNetLearner,
        "resnet": ResNetLearner,
        "densenet": DenseNetLearner,
        "inception": InceptionLearner,
        "library": LibraryLearner,
        "sklearn": SklearnLearner,
        "custom": CustomLearner,
    }
)
"""The record of each kind of learner."""

_KINDS_OF_NAMES = {
    "resnet20": "cifar-resnet",
    "resnet32": "cifar-resnet",
    "resnet56": "cifar-resnet",
    "resnet18": "resnet",
    "resnet50": "resnet",
    "densenet40": "densenet",
    "densenet100": "densenet",
}
_KINDS_OF_PREFIXES = {"torchvision": "library", "timm": "library", "sklearn": "sklearn"}


def _learner_kind(value: object) -> str | None:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    if not isinstance(name, str):
        return None
    if name in BUILT_IN_LEARNERS:
        return _KINDS_OF_NAMES.get(name, name)
    prefix, colon, _ = name.partition(":")
    return _KINDS_OF_PREFIXES.get(prefix, "custom") if colon else None


LearnerSection = Annotated[
    Annotated[LinearLearner, Tag("linear")]
    | Annotated[MlpLearner, Tag("mlp")]
    | Annotated[CnnLearner, Tag("cnn")]
    | Annotated[CifarResNetLearner, Tag("cifar-resnet")]
    | Annotated[ResNetLearner, Tag("resnet")]
    | Annotated[DenseNetLearner, Tag("densenet")]
    | Annotated[InceptionLearner, Tag("inception")]
    | Annotated[LibraryLearner, Tag("library")]
    | Annotated[SklearnLearner, Tag("sklearn")]
    | Annotated[CustomLearner, Tag("custom")],
    Discriminator(_learner_kind),
]


def learner_in_words(section: LearnerSection) -> str:
    """Return a learner's name, with the options that are not the defaults: ``cnn (channels = [8, 16])``.

    How its models are trained together, ``vectorize``, is no part of what it is.
    """
    options = section.model_dump(exclude_defaults=True, exclude={"name", "vectorize"})
    parameters = options.pop("parameters", {})
    told = ", ".join(f"{name} = {value}" for name, value in {**options, **parameters}.items())
    return f"{section.name}{f' ({told})' if told else ''}"
