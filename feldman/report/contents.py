"""What of a run stands on a page: from its tables to the document, all but the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from numpy.typing import NDArray

from feldman.errors import CorruptStoreError
from feldman.report.document import UNKNOWN, Examples, PagePairs, TrainColumns, floats, ints
from feldman.report.selection import PageLimits, most_memorized_of_each, typical_of_each
from feldman.results.sandbox import TableView
from feldman.results.strongest import num_pairs_of, strongest_pairs

__all__ = ["Classes", "Contents", "MemorizationColumns", "choose_contents"]

_PAIR_COLUMNS = {"influence": "influence", "low": "ci_low", "high": "ci_high", "q_value": "q_value"}
_NOT_TOLD = "class not told"
_COUNTS = ("num_in", "num_out", "correct_in", "correct_out")


@dataclass(frozen=True, kw_only=True)
class MemorizationColumns:
    """A run's table of memorization as arrays.

    Attributes
    ----------
    index, label
        int64 [example]: which, ascending, and of which class.
    columns
        Estimates and counts; none is typical yet.
    """

    index: Int64[np.ndarray, " example"]
    label: Int64[np.ndarray, " example"]
    columns: TrainColumns

    @classmethod
    def of(cls, table: pa.Table) -> MemorizationColumns:
        """Take the table. Labels are `UNKNOWN` where it does not tell."""
        original = "original_label" in table.column_names
        columns = TrainColumns(
            memorization=floats(table["memorization"]),
            low=floats(table["ci_low"]),
            high=floats(table["ci_high"]),
            counts=np.stack([ints(table[name]) for name in _COUNTS]),
            typical=np.zeros(table.num_rows, bool),
            original_label=ints(table["original_label"]) if original else None,
        )
        return cls(index=ints(table["train_index"]), label=ints(table["label"]), columns=columns)

    def right_without(self) -> NDArray[np.float64]:
        """Return the share of the trials without an example that got it right; NaN where not known, or there was none."""
        num_out, correct_out = (counts.astype(np.float64) for counts in self.columns.counts[[1, 3]])
        known = (num_out > 0) & (correct_out >= 0)
        share = np.full(len(num_out), np.nan)
        share[known] = correct_out[known] / num_out[known]
        return share


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The examples and pairs of a page.

    Attributes
    ----------
    train, columns, test, pairs
        As in the document.
    picture_order
        int64 [2, example]: every example once, the most important first: 0 and a position among the training examples, or 1 and
        one among the test examples.
    """

    train: Examples
    columns: TrainColumns
    test: Examples
    pairs: PagePairs
    picture_order: Int64[np.ndarray, "2 example"]


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a page: names for all labels there are, and one more for examples whose label is not told.

    Attributes
    ----------
    names
        By label.
    unknown
        The label that stands for one that is not told; None where all are.
    """

    names: tuple[str, ...]
    unknown: int | None

    @classmethod
    def of(cls, names: tuple[str, ...], largest: int, some_unknown: bool) -> Classes:
        """Complete the names of a data set, which imported tables may lack, up to the largest label."""
        complete = (*names, *(str(label) for label in range(len(names), largest + 1)))
        if not some_unknown:
            return cls(names=complete, unknown=None)
        return cls(names=(*complete, _NOT_TOLD), unknown=len(complete))

    def label(self, told: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return labels, those that are not told replaced."""
        return told if self.unknown is None else np.where(told == UNKNOWN, self.unknown, told)


def choose_contents(
    memorization: MemorizationColumns, view: TableView, limits: PageLimits, classes: Classes
) -> Contents:
    """Choose what a page shows.

    Of each class the most memorized training examples and typical ones; the strongest pairs of all, of these memorized examples,
    and of the test examples that stand in one; and every example of a pair.

    Parameters
    ----------
    memorization
        All training examples.
    view
        The table of pairs.
    limits
        How many of each.
    classes
        Of all labels.

    Raises
    ------
    CorruptStoreError
        If a pair is of a training example that the table of memorization lacks.
    """
    value, label = memorization.columns.memorization, classes.label(memorization.label)
    num_classes = len(classes.names)
    memorized = most_memorized_of_each(label, value, limits.memorized_per_class(num_classes))
    typical = typical_of_each(
        label, value, memorization.right_without(), limits.typical_per_class(num_classes), memorized
    )
    found = strongest_pairs(
        view, top=limits.top_pairs, per_example=limits.pairs_per_example, train_index=memorization.index[memorized]
    )
    in_pairs = _places(ints(found["train_index"]), memorization.index)
    places = np.unique(np.concatenate([memorized, typical, in_pairs]))
    test_index, first = np.unique(ints(found["test_index"]), return_index=True)
    pairs = PagePairs(
        train=np.searchsorted(places, in_pairs),
        test=np.searchsorted(test_index, ints(found["test_index"])),
        **{name: floats(found[column]) for name, column in _PAIR_COLUMNS.items()},
    )
    gallery = np.searchsorted(places, np.concatenate([memorized, typical]))
    return Contents(
        train=Examples(
            index=memorization.index[places],
            label=label[places],
            num_pairs=num_pairs_of(view, "train_index", memorization.index[places]),
        ),
        columns=memorization.columns.part(places, typical),
        test=Examples(
            index=test_index,
            label=classes.label(ints(found["test_label"])[first]),
            num_pairs=num_pairs_of(view, "test_index", test_index),
        ),
        pairs=pairs,
        picture_order=_picture_order(gallery, pairs),
    )


def _places(train_index: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the rows of training examples in the table of memorization."""
    places = np.searchsorted(known, train_index)
    missing = places >= len(known)
    missing[~missing] = known[places[~missing]] != train_index[~missing]
    if missing.any():
        raise CorruptStoreError(
            f"influence.parquet has pairs of training example {train_index[missing][0]}, which memorization.parquet lacks; "
            "make both anew: `feldman estimate RUN`"
        )
    return places


def _picture_order(gallery: NDArray[np.intp], pairs: PagePairs) -> NDArray[np.int64]:
    """Put the gallery first, in its order, then the two examples of each pair."""
    part = np.concatenate([np.zeros(len(gallery), np.int64), np.tile([0, 1], len(pairs.train))])
    row = np.concatenate([gallery, np.stack([pairs.train, pairs.test], axis=1).ravel()])
    order = np.stack([part, row])
    _, first = np.unique(order, axis=1, return_index=True)
    return order[:, np.sort(first)]
