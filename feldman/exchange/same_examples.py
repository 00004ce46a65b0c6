"""Are two results of the same examples, in the same order? Numbers of other examples would correlate with nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64, Integer

from feldman.errors import ComparisonError
from feldman.exchange.labels import UNKNOWN_CLASS
from feldman.results.tables import TableFacts
from feldman.trials.integrity import find_small_damage, refuse_damage
from feldman.trials.store import TrialStore

__all__ = ["KnownLabels", "check_labels", "check_same_data", "check_sizes", "known_labels"]

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class KnownLabels:
    """The labels that a run knows: of all its examples, or of those that its tables tell.

    Attributes
    ----------
    index, label
        int64 [known].
    """

    index: Int64[np.ndarray, " known"]
    label: Int64[np.ndarray, " known"]


def known_labels(store: TrialStore | None, memorization: pa.Table, pairs: pa.Table) -> tuple[KnownLabels, KnownLabels]:
    """Return what a run knows of its training, and of its test labels.

    Raises
    ------
    CorruptStoreError
        If labels cannot be read.
    """
    if store is None:
        return _of_columns(memorization["train_index"], memorization["label"]), _of_columns(
            pairs["test_index"], pairs["test_label"]
        )
    if store.attributes["dataset"]["class_names"] == [UNKNOWN_CLASS]:
        nothing = np.empty(0, np.int64)
        return KnownLabels(index=nothing, label=nothing), KnownLabels(index=nothing, label=nothing)
    refuse_damage(store, find_small_damage(store))
    train, test = (store.labels(part).astype(np.int64) for part in ("train", "test"))
    return KnownLabels(index=np.arange(len(train)), label=train), KnownLabels(index=np.arange(len(test)), label=test)


def check_same_data(first: TrialStore, other: TrialStore) -> None:
    """Refuse two runs that are not of the same examples, in the same order, with the same labels.

    Their learners may have seen them in different forms: representations of a data set's images are of the examples of that data
    set, which their store names as the ``source`` of its own.

    Raises
    ------
    ComparisonError
        If the data sets that they come from have other fingerprints, or labels differ.
    CorruptStoreError
        If labels cannot be read.
    """
    for store in (first, other):
        refuse_damage(store, find_small_damage(store))
    data = [store.attributes["dataset"] for store in (first, other)]
    origins = [each.get("source") or each for each in data]
    same = origins[0]["fingerprint"] == origins[1]["fingerprint"]
    if same and all(np.array_equal(first.labels(part), other.labels(part)) for part in ("train", "test")):
        return
    told = [
        f"'{store.path.parent}' is of {_data_in_words(each, origin)}"
        for store, each, origin in zip((first, other), data, origins, strict=True)
    ]
    raise ComparisonError(
        f"runs are compared example by example, and {'the labels of these differ' if same else 'these are of other examples'}: "
        f"{told[0]}, {told[1]}; compare runs of one data set, with the same num_train, num_test and random_labels"
    )


def _data_in_words(data: dict[str, Any], origin: dict[str, Any]) -> str:
    of_source = f" made of '{origin['name']}'" if origin is not data else ""
    sizes = f"{data['num_train']:,} and {data['num_test']:,} examples"
    return f"'{data['name']}'{of_source} ({sizes}, fingerprint {str(origin['fingerprint'])[:12]})"


def check_sizes(facts: TableFacts, sizes: tuple[int, int], path: Path, *, exactly: bool) -> None:
    """Refuse a file of another number of examples; where the run does not know its own, there is nothing to compare.

    Parameters
    ----------
    facts
        What the run's tables tell.
    sizes
        Training and test examples of the file; or, if not ``exactly``, how many it needs at least.
    path
        The file.
    exactly
        Whether the file tells how many there are.

    Raises
    ------
    ComparisonError
        If the sizes differ.
    """
    for part, ours, theirs in zip(("training", "test"), (facts.num_train, facts.num_test), sizes, strict=True):
        if ours is not None and (ours != theirs if exactly else ours < theirs):
            raise ComparisonError(
                f"the run has {ours:,} {part} examples and {path} {'' if exactly else 'at least '}{theirs:,}: "
                "they are of different data sets"
            )


def check_labels(known: KnownLabels, given: Integer[np.ndarray, " example"], part: str, path: Path) -> None:
    """Refuse a file whose labels are not those of the run.

    Raises
    ------
    ComparisonError
        With how many differ, the first of them, and whether it may be the order.
    """
    inside = known.index < len(given)
    index, ours = known.index[inside], known.label[inside]
    theirs = given[index]
    differing = np.flatnonzero(ours != theirs)
    if not len(differing):
        return
    first = ", ".join(f"example {index[row]}: {ours[row]} and {theirs[row]}" for row in differing[:_SHOWN])
    reordered = np.array_equal(np.sort(ours), np.sort(theirs))
    raise ComparisonError(
        f"the labels of {len(differing):,} of {len(index):,} {part} examples differ between the run and {path} ({first}"
        f"{', ...' if len(differing) > _SHOWN else ''}); "
        + ("every class has as many in both: the order differs?" if reordered else "they are of different data sets?")
    )


def _of_columns(index: pa.ChunkedArray, label: pa.ChunkedArray) -> KnownLabels:
    known = pc.is_valid(label)
    where, first = np.unique(index.filter(known).to_numpy(), return_index=True)
    return KnownLabels(index=where, label=label.filter(known).to_numpy()[first])
