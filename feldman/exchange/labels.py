"""Labels and class names that come in files of their own: most of what the authors publish does not tell them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from feldman.data.npz import NpzReader, open_npz
from feldman.errors import ExchangeError, listed

__all__ = ["UNKNOWN_CLASS", "Labels", "labels_in", "load_labels", "vector_of"]

UNKNOWN_CLASS = "unknown"
"""The one class of a data set whose labels nobody told."""

TRAIN_LABELS, TEST_LABELS = "tr_labels", "tt_labels"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of all examples, and what the classes are called.

    Attributes
    ----------
    train, test
        int64 [train], int64 [test], from 0.
    class_names
        One name a class.
    """

    train: Int64[np.ndarray, " train"]
    test: Int64[np.ndarray, " test"]
    class_names: tuple[str, ...]


def load_labels(path: Path, class_names: Path | None) -> Labels:
    """Read labels from an ``.npz`` file with ``tr_labels`` and ``tt_labels``, as the authors' matrix files are.

    Raises
    ------
    ExchangeError
        If they are not there, are no labels, or the names do not fit them.
    """
    with open_npz(path, f"{TRAIN_LABELS}, {TEST_LABELS}", ExchangeError) as npz:
        return labels_in(npz, path, class_names)


def labels_in(npz: NpzReader, path: Path, class_names: Path | None) -> Labels:
    """Read the labels of an open file, as `load_labels`."""
    missing = [name for name in (TRAIN_LABELS, TEST_LABELS) if name not in npz.names]
    if missing:
        raise ExchangeError(f"{path} lacks {listed(missing)}; it holds {listed(sorted(npz.names)[:10]) or 'nothing'}")
    train, test = (vector_of(npz, name, "iu", path).astype(np.int64) for name in (TRAIN_LABELS, TEST_LABELS))
    for name, labels in ((TRAIN_LABELS, train), (TEST_LABELS, test)):
        if not len(labels) or labels.min() < 0 or labels.max() >= len(train):  # every class has a training example
            raise ExchangeError(
                f"{path}: {name} must hold labels from 0, fewer classes than training examples; "
                f"found {f'{labels.min()} .. {labels.max()}' if len(labels) else 'none'}"
            )
    num_classes = int(max(train.max(), test.max())) + 1
    return Labels(train=train, test=test, class_names=_class_names(class_names, num_classes))


def vector_of(npz: NpzReader, name: str, kinds: str, path: Path) -> NDArray[np.generic]:
    """Read a vector whose type is of some NumPy kinds: ``"iu"`` integers, ``"f"`` floats, ``"b"`` truth values.

    Raises
    ------
    ExchangeError
        If it is anything else.
    """
    array = npz.read(name)
    if array.ndim != 1 or array.dtype.kind not in kinds:
        wanted = "integers" if kinds == "iu" else "numbers"
        raise ExchangeError(f"{path}: {name} must be a vector of {wanted}; found {array.dtype} {array.shape}")
    return array


def _class_names(path: Path | None, num_classes: int) -> tuple[str, ...]:
    if path is None:
        return tuple(map(str, range(num_classes)))
    try:
        names = path.read_text(encoding="utf-8").rstrip().splitlines()
    except UnicodeDecodeError:
        raise ExchangeError(f"{path} is not a text file in UTF-8; expected one class name a line") from None
    except OSError as error:
        raise ExchangeError(f"cannot read {path}: {error.strerror or error}") from None
    if len(names) < num_classes or not all(name.strip() for name in names):
        raise ExchangeError(
            f"{path} must name every class, one a line, label 0 first: {num_classes} of them; found {len(names)} lines"
            f"{'' if all(name.strip() for name in names) else ', some of them empty'}"
        )
    return tuple(name.strip() for name in names)
