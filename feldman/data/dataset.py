"""The `Dataset` record: arrays, validated when made, with a hash of their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, Shaped
from numpy.typing import NDArray

from feldman.errors import DatasetError

__all__ = ["Dataset", "DatasetSource", "RandomLabels", "Scaling", "stratified_part"]

Scaling = float | tuple[float, ...]
"""One constant for all values of an input, or one a channel (a position of the last axis)."""

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class RandomLabels:
    """Training examples whose labels were replaced on purpose.

    Attributes
    ----------
    train_index
        int64 [chosen]: which, ascending.
    original_label
        int64 [chosen]: what their labels were.
    """

    train_index: Int64[np.ndarray, " chosen"]
    original_label: Int64[np.ndarray, " chosen"]


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A data set by its name and the fingerprint of its content.

    As `Dataset.source`: whose examples these are, one by one in the same order and with the same labels, in another form.
    """

    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Inputs and labels, held out and not, with the constants that scale them.

    Attributes
    ----------
    name
        How the experiment names it.
    x_train, x_test
        Inputs, one example a row, of any further shape; images as [example, height, width, channel]. Integers or floats,
        stored as they come: learners compute ``(x - shift) * scale`` in float32.
    y_train, y_test
        Labels in ``0 .. num_classes - 1``, int64.
    class_names
        One name a class.
    shift, scale
        Declared constants of the data set, never statistics of held-out examples: each one number, or one a channel.
    random_labels
        Which labels in ``y_train`` are not the data set's own, if any.
    source
        Where the examples come from, if they are another data set's in another form, as features are. Not part of the
        content: the fingerprint is that of what is learned from.

    Raises
    ------
    DatasetError
        If shapes do not fit, a label is out of range, a class has no training example, a value is not finite, or constants
        are neither one nor one a channel.
    """

    name: str
    x_train: Shaped[np.ndarray, "train ..."]
    y_train: Integer[np.ndarray, " train"]
    x_test: Shaped[np.ndarray, "test ..."]
    y_test: Integer[np.ndarray, " test"]
    class_names: tuple[str, ...]
    shift: Scaling = 0.0
    scale: Scaling = 1.0
    random_labels: RandomLabels | None = None
    source: DatasetSource | None = None

    def __post_init__(self) -> None:
        _check_inputs(self)
        _check_labels(self)
        _check_scaling(self)
        for name in ("x_train", "y_train", "x_test", "y_test"):
            # Workers on Ray share these arrays read-only; what would fail there must fail everywhere.
            view = getattr(self, name).view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        return len(self.x_train)

    @property
    def num_test(self) -> int:
        """Number of test examples."""
        return len(self.x_test)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x_train.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: arrays with their types and shapes, class names, scaling."""
        digest = hashlib.sha256(repr((self.class_names, self.shift, self.scale)).encode())
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(repr((array.dtype.str, array.shape)).encode())
            for start in range(0, len(array), _ROWS_AT_ONCE):
                digest.update(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).data)
        return digest.hexdigest()


def _check_inputs(dataset: Dataset) -> None:
    for part, x, y in (
        ("train", dataset.x_train, dataset.y_train),
        ("test", dataset.x_test, dataset.y_test),
    ):
        if x.ndim < 2 or 0 in x.shape:
            raise DatasetError(f"x_{part} must be [example, ...] with at least one example and value; found {x.shape}")
        if x.dtype.kind not in "uif" or x.dtype.itemsize > 8:
            raise DatasetError(f"x_{part} must hold integers or floats of at most 64 bits; found dtype {x.dtype}")
        if y.ndim != 1 or len(y) != len(x):
            raise DatasetError(f"y_{part} must hold one label an example ({len(x)} of them); found shape {y.shape}")
        if x.dtype.kind == "f":
            for start in range(0, len(x), _ROWS_AT_ONCE):
                finite = np.isfinite(x[start : start + _ROWS_AT_ONCE]).reshape(
                    len(x[start : start + _ROWS_AT_ONCE]), -1
                )
                if not finite.all():
                    row = start + int(np.flatnonzero(~finite.all(axis=1))[0])
                    raise DatasetError(f"x_{part} must be finite; example {row} holds NaN or infinity")
    if dataset.x_train.shape[1:] != dataset.x_test.shape[1:]:
        raise DatasetError(
            "training and test examples must have one shape; "
            f"found {dataset.x_train.shape[1:]} in x_train and {dataset.x_test.shape[1:]} in x_test"
        )
    if dataset.num_train < 2:
        raise DatasetError("a data set needs at least 2 training examples; found 1")


def _check_labels(dataset: Dataset) -> None:
    num_classes = dataset.num_classes
    for part, y in (("train", dataset.y_train), ("test", dataset.y_test)):
        outside = np.flatnonzero((y < 0) | (y >= num_classes))
        if len(outside):
            raise DatasetError(
                f"labels must be 0 .. {num_classes - 1}; y_{part}[{outside[0]}] is {int(y[outside[0]])}"
                f" ({len(outside)} out of range)"
            )
    counts = np.bincount(dataset.y_train, minlength=num_classes)
    if (counts == 0).any():
        empty = int(np.flatnonzero(counts == 0)[0])
        raise DatasetError(
            f"every class needs a training example; class {empty} ('{dataset.class_names[empty]}') has none"
        )


def _check_scaling(dataset: Dataset) -> None:
    num_channels = dataset.example_shape[-1]
    for name in ("shift", "scale"):
        constants = getattr(dataset, name)
        if np.ndim(constants) and (not isinstance(constants, tuple) or np.shape(constants) != (num_channels,)):
            raise DatasetError(
                f"{name} must be one number, or a tuple of one a channel: {num_channels} for examples of shape "
                f"{dataset.example_shape}; found {constants}"
            )
        if not np.isfinite(constants).all():
            raise DatasetError(f"{name} must be finite; found {constants}")


def stratified_part(labels: Integer[np.ndarray, " example"], num_examples: int) -> NDArray[np.intp]:
    """Choose a fixed part of a data set that keeps its class shares.

    Each class gives its share by largest remainder, as examples evenly spaced in the order of the file. No randomness:
    the part is the same everywhere and for ever.

    Parameters
    ----------
    labels
        int [example].
    num_examples
        Size of the part.

    Returns
    -------
    ndarray of intp [num_examples]
        Positions, ascending.

    Raises
    ------
    DatasetError
        If more examples are asked for than there are.
    """
    if num_examples > len(labels):
        raise DatasetError(f"there are {len(labels)} examples to take {num_examples} from; ask for fewer, or for all")
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * (num_examples / len(labels))
    quota = np.floor(exact).astype(np.int64)
    for index in np.argsort(quota - exact, kind="stable")[: num_examples - int(quota.sum())]:
        quota[index] += 1
    chosen = [
        np.flatnonzero(labels == label)[np.arange(taken) * count // max(int(taken), 1)]
        for label, count, taken in zip(classes, counts, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def as_labels(values: Any, where: str) -> NDArray[np.int64]:
    """Return labels as int64; whole numbers in a float array are refused with the reason.

    Raises
    ------
    DatasetError
        If they are not integers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "ui":
        raise DatasetError(f"{where} must hold integer labels; found dtype {array.dtype}")
    return array.astype(np.int64)
