"""The two kinds of file that the authors publish: pairs of high influence, and influences inside each class.

Layout after the site of V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), ``influence-memorization``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from feldman.data.npz import NpzReader, open_npz
from feldman.errors import ExchangeError, listed
from feldman.estimates.selection import PairSelection
from feldman.exchange.labels import Labels, labels_in, vector_of

__all__ = [
    "MATRIX_FILE",
    "ClassInfluence",
    "MatrixFile",
    "PairsFile",
    "SelectedPairs",
    "join_pairs",
    "open_authors_file",
    "pairs_file_name",
]

MATRIX_FILE = "infl_matrix.npz"
_PAIR_ARRAYS = ("tr_idx", "tt_idx", "infl", "mem")
_MATRIX = "infl_matrix_class"
_EXPECTED = f"{listed(_PAIR_ARRAYS)} (pairs), or tr_labels, tt_labels, tr_mem and {_MATRIX}0, ... (a matrix a class)"
_THRESHOLDS = re.compile(r"high_infl_pairs_infl(?P<influence>[^_]+)_mem(?P<memorization>.+)\.npz")
_MAX_EXAMPLES = 1 << 31
_ROUNDING = 1e-6
"""A difference of two rates lies in -1 .. 1; files in float32 may round beyond."""


@dataclass(frozen=True, kw_only=True)
class PairsFile:
    """A file of pairs, in memory: a few thousand of them.

    Attributes
    ----------
    name
        The file's.
    train_index, test_index
        int64 [pair], ordered by training, then by test example; no pair twice.
    influence, memorization
        float64 [pair].
    named_thresholds
        Influence and memorization at or above which the file holds every pair, as its name says; None if it does not say.
    """

    name: str
    train_index: Int64[np.ndarray, " pair"]
    test_index: Int64[np.ndarray, " pair"]
    influence: Float64[np.ndarray, " pair"]
    memorization: Float64[np.ndarray, " pair"]
    named_thresholds: tuple[float, float] | None

    def thresholds(self) -> tuple[float, float]:
        """Return the smallest influence and memorization that the file can hold: as named, else the smallest in it."""
        if self.named_thresholds is not None or not len(self.train_index):
            return self.named_thresholds or (-1.0, -1.0)
        return float(self.influence.min()), float(self.memorization.min())


@dataclass(frozen=True, kw_only=True)
class SelectedPairs:
    """Pairs with their influence.

    Attributes
    ----------
    train_index, test_index
        int64 [pair].
    influence
        float64 [pair].
    """

    train_index: Int64[np.ndarray, " pair"]
    test_index: Int64[np.ndarray, " pair"]
    influence: Float64[np.ndarray, " pair"]


@dataclass(frozen=True, kw_only=True)
class ClassInfluence:
    """The influences of one class's training examples on its test examples.

    Attributes
    ----------
    label
        The class.
    train_index, test_index
        int64 [chosen], int64 [target]: the class's examples.
    influence
        float64 [chosen, target]; NaN where undefined.
    """

    label: int
    train_index: Int64[np.ndarray, " chosen"]
    test_index: Int64[np.ndarray, " target"]
    influence: Float64[np.ndarray, "chosen target"]

    def selected(self, memorization: Float64[np.ndarray, " train"], selection: PairSelection) -> SelectedPairs:
        """Return the pairs that pass the thresholds; ``memorization`` is that of all training examples."""
        memorized = memorization[self.train_index] >= selection.min_memorization
        row, column = np.nonzero((self.influence >= selection.min_influence) & memorized[:, None])
        return SelectedPairs(
            train_index=self.train_index[row],
            test_index=self.test_index[column],
            influence=self.influence[row, column],
        )


class MatrixFile:
    """An open matrix file. The matrices are read one at a time: those of ImageNet take 512 MB.

    Attributes
    ----------
    name
        The file's.
    labels
        Of all examples.
    memorization
        float64 [train]; NaN where undefined.
    num_classes
        How many matrices there are.
    """

    def __init__(self, path: Path, npz: NpzReader, class_names: Path | None) -> None:
        self.name = path.name
        self._path, self._npz = path, npz
        self.labels: Labels = labels_in(npz, path, class_names)
        self.memorization = _rates(vector_of(npz, "tr_mem", "f", path), "tr_mem", path, undefined=True)
        if len(self.memorization) != len(self.labels.train):
            raise ExchangeError(
                f"{path}: tr_mem has {len(self.memorization)} values for the {len(self.labels.train)} examples of tr_labels"
            )
        suffixes = [name.removeprefix(_MATRIX) for name in npz.names if name.startswith(_MATRIX)]
        strange = [suffix for suffix in suffixes if not suffix.isdecimal()]
        if strange:
            raise ExchangeError(f"{path}: {_MATRIX}{strange[0]} should end in the number of a class")
        self._labels = sorted(map(int, suffixes))
        lacking = sorted(set(self.labels.train.tolist()) & set(self.labels.test.tolist()) - set(self._labels))
        if lacking:  # its pairs would count as pairs without influence
            raise ExchangeError(f"{path} lacks the matrices of {len(lacking)} classes, {_MATRIX}{lacking[0]} first")
        self.num_classes = len(self._labels)

    def classes(self) -> Iterator[ClassInfluence]:
        """Read class after class.

        Raises
        ------
        ExchangeError
            If an array is damaged, or its examples are not those of the class.
        """
        for label in self._labels:
            names = [f"{_MATRIX}{label}", f"tr_classidx_{label}", f"tt_classidx_{label}"]
            missing = [name for name in names if name not in self._npz.names]
            if missing:
                raise ExchangeError(f"{self._path} lacks {listed(missing)}, and holds {names[0]}")
            train = _class_examples(self._npz, names[1], self.labels.train, label, self._path)
            test = _class_examples(self._npz, names[2], self.labels.test, label, self._path)
            matrix = self._npz.read(names[0])
            if matrix.shape != (len(train), len(test)) or matrix.dtype.kind != "f":
                raise ExchangeError(
                    f"{self._path}: {names[0]} must be floats [{len(train)}, {len(test)}], as long as {names[1]} and "
                    f"{names[2]}; found {matrix.dtype} {matrix.shape}"
                )
            influence = _rates(matrix, names[0], self._path, undefined=True)
            yield ClassInfluence(label=label, train_index=train, test_index=test, influence=influence)


@contextmanager
def open_authors_file(path: Path, class_names: Path | None = None) -> Iterator[PairsFile | MatrixFile]:
    """Open a file of either kind; ``class_names`` is a text file with one name a line, for a matrix file.

    Raises
    ------
    ExchangeError
        If it is neither, cannot be read, or holds what no estimate can be.
    """
    with open_npz(path, _EXPECTED, ExchangeError) as npz:
        if set(_PAIR_ARRAYS) <= set(npz.names):
            yield _pairs_file(npz, path)
        elif "tr_mem" in npz.names and any(name.startswith(_MATRIX) for name in npz.names):
            yield MatrixFile(path, npz, class_names)
        elif "subsample_idx" in npz.names:
            raise ExchangeError(f"{path} is the file of one released run; give the folder that holds it, or its runs")
        else:
            found = listed(sorted(npz.names)[:10]) or "nothing"
            raise ExchangeError(f"{path} is no file of the authors: expected {_EXPECTED}; found {found}")


def join_pairs(parts: Sequence[SelectedPairs]) -> SelectedPairs:
    """Join the pairs of several classes, ordered by training, then by test example."""
    train, test = (np.concatenate([getattr(part, name) for part in parts]) for name in ("train_index", "test_index"))
    influence = np.concatenate([part.influence for part in parts])
    order = np.lexsort((test, train))
    return SelectedPairs(train_index=train[order], test_index=test[order], influence=influence[order])


def pairs_file_name(min_influence: float, min_memorization: float) -> str:
    """Return the name that says what is in a file of pairs, as in ``high_infl_pairs_infl0.15_mem0.25.npz``."""
    influence, memorization = (
        np.format_float_positional(value, trim="-") for value in (min_influence, min_memorization)
    )
    return f"high_infl_pairs_infl{influence}_mem{memorization}.npz"


def _pairs_file(npz: NpzReader, path: Path) -> PairsFile:
    train, test = (vector_of(npz, name, "iu", path).astype(np.int64) for name in _PAIR_ARRAYS[:2])
    influence, memorization = (
        _rates(vector_of(npz, name, "f", path), name, path, undefined=False) for name in _PAIR_ARRAYS[2:]
    )
    lengths = {len(values) for values in (train, test, influence, memorization)}
    if len(lengths) > 1:
        raise ExchangeError(
            f"{path}: {listed(_PAIR_ARRAYS)} must be of one length; found {listed(map(str, sorted(lengths)))}"
        )
    for name, index in (("tr_idx", train), ("tt_idx", test)):
        outside = index[(index < 0) | (index >= _MAX_EXAMPLES)]
        if len(outside):
            raise ExchangeError(f"{path}: {name} must hold indices of examples, from 0; found {outside[0]}")
    order = np.lexsort((test, train))
    train, test, influence, memorization = train[order], test[order], influence[order], memorization[order]
    twice = np.flatnonzero((np.diff(train) == 0) & (np.diff(test) == 0))
    if len(twice):
        raise ExchangeError(
            f"{path} holds the pair of training example {train[twice[0]]} and test example {test[twice[0]]} twice"
        )
    other = np.flatnonzero((np.diff(train) == 0) & (np.diff(memorization) != 0))
    if len(other):
        values = memorization[other[0] : other[0] + 2]
        raise ExchangeError(
            f"{path} gives training example {train[other[0]]} two values of mem: {values[0]:g} and {values[1]:g}"
        )
    return PairsFile(
        name=path.name,
        train_index=train,
        test_index=test,
        influence=influence,
        memorization=memorization,
        named_thresholds=_named_thresholds(path, influence, memorization),
    )


def _named_thresholds(
    path: Path, influence: NDArray[np.float64], memorization: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Read the thresholds off the file's name, unless it is another name or its pairs belie it."""
    found = _THRESHOLDS.search(path.name)
    try:
        named = (float(found["influence"]), float(found["memorization"])) if found else None
    except ValueError:
        return None
    belied = named and ((influence < named[0]).any() or (memorization < named[1]).any())
    return None if belied or (named and not all(-1 <= value <= 1 for value in named)) else named


def _rates(values: NDArray[np.generic], name: str, path: Path, *, undefined: bool) -> NDArray[np.float64]:
    """Return differences of two rates as float64; NaN only where it may stand for undefined."""
    rates: NDArray[np.float64] = values.astype(np.float64)
    wrong = ~(np.abs(rates) <= 1 + _ROUNDING)
    if undefined:
        wrong &= ~np.isnan(rates)
    if wrong.any():
        raise ExchangeError(f"{path}: {name} must be differences of two rates, -1 .. 1; found {rates[wrong].flat[0]}")
    return rates


def _class_examples(npz: NpzReader, name: str, labels: NDArray[np.int64], label: int, path: Path) -> NDArray[np.int64]:
    index = vector_of(npz, name, "iu", path).astype(np.int64)
    outside = index[(index < 0) | (index >= len(labels))]
    if len(outside):
        raise ExchangeError(f"{path}: {name} must hold indices 0 .. {len(labels) - 1}; found {outside[0]}")
    others = index[labels[index] != label]
    if len(others):
        raise ExchangeError(
            f"{path}: {name} must hold examples of class {label}; found {others[0]}, which is of class {labels[others[0]]}"
        )
    num_distinct, num_examples = len(np.unique(index)), int((labels == label).sum())
    if not len(index) == num_distinct == num_examples:
        raise ExchangeError(
            f"{path}: {name} must hold each of the {num_examples} examples of class {label} once; "
            f"found {len(index)}, {num_distinct} of them distinct"
        )
    return index
