"""Image data sets of the Hugging Face hub, or of a folder in its form, through its library `datasets`: an optional extra."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset, as_labels
from feldman.errors import DatasetError, listed, suggestion

__all__ = ["PREFIX", "load_huggingface"]

PREFIX = "huggingface:"

_DEFAULTS = {"image": "image", "label": "label", "train": "train", "test": "test", "config": "", "revision": ""}


def load_huggingface(name: str, parameters: Mapping[str, object]) -> Dataset:
    """Load a data set of images of one size into memory: uint8 [example, height, width, channel], scaled to 0 .. 1.

    Where its files lie, whether they are downloaded and what a cache keeps is the library's own affair.

    Parameters
    ----------
    name
        As the hub has it (``"cifar100"``, ``"owner/name"``), or the path of a folder.
    parameters
        The columns ``image`` and ``label``, the splits ``train`` and ``test``, and optionally ``config`` and ``revision``.

    Raises
    ------
    DatasetError
        If the library is not there or cannot load it, or what it loads are not images of one size with a label each.
    """
    chosen = _chosen(name, parameters)
    library = _library(name)
    train, test = (_split(library, name, chosen, chosen[part]) for part in ("train", "test"))
    shape = _pixels(train[0][chosen["image"]], _place(name, chosen, "train", 0)).shape
    x_train, x_test = (_images(part, name, chosen, split, shape) for part, split in ((train, "train"), (test, "test")))
    y_train, y_test = (_labels(part, name, chosen) for part in (train, test))
    names = getattr(train.features[chosen["label"]], "names", None)
    if getattr(test.features[chosen["label"]], "names", None) != names:
        raise DatasetError(f"{PREFIX}{name}: '{chosen['train']}' and '{chosen['test']}' name other classes")
    return Dataset(
        name=f"{PREFIX}{name}",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=tuple(names) if names else tuple(str(label) for label in np.unique(y_train)),
        scale=1 / 255,
    )


def _chosen(name: str, parameters: Mapping[str, object]) -> dict[str, str]:
    for key, value in parameters.items():
        if key not in _DEFAULTS:
            raise DatasetError(
                f"dataset.parameters.{key} says nothing to {PREFIX}{name}{suggestion(key, _DEFAULTS)}; "
                f"valid keys: {listed(_DEFAULTS)}"
            )
        if not isinstance(value, str):
            raise DatasetError(f"dataset.parameters.{key} must be a text; found {value!r}")
    return {key: str(parameters.get(key, default)) for key, default in _DEFAULTS.items()}


def _library(name: str) -> Any:
    try:
        library = import_module("datasets")
    except ImportError as error:
        raise DatasetError(
            f"dataset.name = '{PREFIX}{name}' needs the library 'datasets', an extra that is not installed ({error}); "
            "install it with: pip install 'feldman[huggingface]'"
        ) from None
    if not hasattr(library, "load_dataset"):
        raise DatasetError(
            f"dataset.name = '{PREFIX}{name}' needs Hugging Face's library 'datasets'; found another module of that name, "
            f"{getattr(library, '__file__', None)}: rename it"
        )
    return library


def _split(library: Any, name: str, chosen: dict[str, str], split: str) -> Any:
    try:
        part = library.load_dataset(
            name, name=chosen["config"] or None, split=split, revision=chosen["revision"] or None
        )
    except Exception as error:  # of the hub, the network, its cache, a file's format
        raise DatasetError(
            f"{PREFIX}{name}: its split '{split}' could not be loaded ({type(error).__name__}: {error}); "
            "dataset.parameters names splits as train and test, and a configuration as config"
        ) from None
    columns = {chosen["image"], chosen["label"]}
    if not columns <= set(part.column_names):
        raise DatasetError(
            f"{PREFIX}{name} has the columns {listed(part.column_names)}; dataset.parameters must name those of images and "
            f"labels, as in {{ image = 'img', label = 'fine_label' }}; found {chosen['image']} and {chosen['label']}"
        )
    if not len(part):
        raise DatasetError(f"{PREFIX}{name}: its split '{split}' is empty")
    return part.select_columns(sorted(columns))


def _images(part: Any, name: str, chosen: dict[str, str], split: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    images = np.empty((len(part), *shape), np.uint8)
    for index, row in enumerate(part):
        where = _place(name, chosen, split, index)
        pixels = _pixels(row[chosen["image"]], where)
        if pixels.shape != shape:
            raise DatasetError(
                f"{where} has shape {pixels.shape}, the first one of '{chosen['train']}' has {shape}: trials take images of one "
                "size; save them as files in a folder a class, and use `feldman prepare`"
            )
        images[index] = pixels
    return images


def _labels(part: Any, name: str, chosen: dict[str, str]) -> NDArray[np.int64]:
    labels = np.asarray(part[chosen["label"]][:])
    where = f"{PREFIX}{name}: column '{chosen['label']}'"
    if labels.ndim != 1:
        raise DatasetError(f"{where} must hold one label an example; found shape {labels.shape}")
    return as_labels(labels, where)


def _place(name: str, chosen: dict[str, str], split: str, index: int) -> str:
    return f"{PREFIX}{name}: image {index} of '{chosen[split]}'"


def _pixels(value: object, where: str) -> NDArray[np.uint8]:
    """Return an image as [height, width, channel]: one channel where it is grey, else three."""
    from PIL import Image

    if not isinstance(value, Image.Image):
        raise DatasetError(f"{where} must be an image; found a {type(value).__name__}")
    if value.mode == "L":
        return np.asarray(value)[..., np.newaxis]
    return np.asarray(value.convert("RGB"))
