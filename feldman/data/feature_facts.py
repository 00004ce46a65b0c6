"""What is recorded beside features (``features.json``): of which examples, by which network, and what their content was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from feldman.data.dataset import DatasetSource
from feldman.errors import DatasetError
from feldman.learner_sections import Section

__all__ = ["FEATURES", "FeatureFacts", "read_facts"]

FEATURES = "features.json"
"""Beside the arrays; written last."""


class FeatureFacts(Section):
    """A folder of features, in words.

    Attributes
    ----------
    source
        The data set whose examples these are, in its order.
    dataset
        What the network learned from: the source, or features of it.
    experiment, experiment_fingerprint
        Whose network and recipe it is.
    seed
        As it was given.
    precision
        Of the network's matrix products.
    layer, num_features
        The name of the last layer in the network, and how many numbers an example it gets.
    train_accuracy, test_accuracy
        Of the network.
    fingerprint
        Of the features' own content.
    created_with
        Versions.
    """

    format: Literal["feldman-features"]
    format_version: Literal[1]
    source: DatasetSource
    dataset: DatasetSource
    experiment: dict[str, Any]
    experiment_fingerprint: str
    seed: int
    precision: Literal["float32", "bfloat16"]
    layer: str
    num_features: int = Field(ge=1)
    train_accuracy: float = Field(ge=0, le=1)
    test_accuracy: float = Field(ge=0, le=1)
    fingerprint: str
    created_with: dict[str, Any]


def read_facts(folder: Path) -> FeatureFacts | None:
    """Read what is recorded in a folder; None if nothing is.

    Raises
    ------
    DatasetError
        If it cannot be read, or is not what `feldman features` writes.
    """
    path = folder / FEATURES
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return FeatureFacts.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DatasetError(
            f"{path} is not what this version of `feldman features` writes ({f'{where}: ' if where else ''}{first['msg']}); put "
            "it back as it was, or remove it to take the arrays as they are, as a data set without a source"
        ) from None
