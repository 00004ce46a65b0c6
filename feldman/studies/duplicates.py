"""Near-duplicates: training and test examples that are one image, or nearly so, and what is left of the figures without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.studies.consistency import PairSet

__all__ = [
    "DUPLICATES_SCHEMA",
    "Headline",
    "Inputs",
    "find_duplicates",
    "flag_pairs",
    "headlines",
]

DUPLICATES_SCHEMA = pa.schema(
    [
        ("train_index", pa.int64()),
        ("other", pa.string()),
        ("other_index", pa.int64()),
        ("correlation", pa.float64()),
        ("identical", pa.bool_()),
        ("same_label", pa.bool_()),
    ]
)

_SEARCH_MARGIN = 1e-4
"""The index computes in float32: it is asked for a little more, which is then compared in float64."""

_QUERIES_AT_ONCE = 1024
_PAIRS_AT_ONCE = 1 << 14
_MOST_PAIRS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Examples as they are compared.

    Attributes
    ----------
    vectors
        float32 [example, value]: of mean 0 and length 1, so that products are correlations; 0 of an input without contrast.
    digests
        bytes [example]: equal where inputs are.
    labels
        int64 [example].
    """

    vectors: Float32[np.ndarray, "example value"]
    digests: Shaped[np.ndarray, " example"]
    labels: Int64[np.ndarray, " example"]

    @classmethod
    def of(cls, x: Shaped[np.ndarray, "example ..."], labels: NDArray[Any]) -> Inputs:
        """Take the inputs of a data set."""
        digests = np.array([blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in x], "V16")
        vectors = np.array(x, np.float32).reshape(len(x), -1)
        vectors -= vectors.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return cls(vectors=vectors, digests=digests, labels=labels.astype(np.int64))


def find_duplicates(
    train: Inputs,
    test: Inputs,
    min_correlation: float,
    on_examples: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """List pairs of a training example and a test, or another training, example that are identical or correlate.

    Parameters
    ----------
    train, test
        The data set.
    min_correlation
        Of pixels, each image less its mean, over their lengths: 1 for images that differ in brightness and contrast alone.
    on_examples
        Told how many examples' neighbours have been looked up, and how many there are.

    Returns
    -------
    pyarrow.Table
        `DUPLICATES_SCHEMA`, by the ``other`` set ("test", then "train", where each pair stands once), then by indices.

    Raises
    ------
    QueryError
        If the correlation is not above 0, or so low that tens of millions of pairs have it.
    """
    if not 0 < min_correlation <= 1:
        raise QueryError(f"a correlation of near-duplicates is above 0 and at most 1; found {min_correlation:g}")
    total, parts = len(test.vectors) + len(train.vectors), []
    done, num_pairs = 0, 0
    for other, queries in (("test", test), ("train", train)):
        found = []
        for first, near in _neighbours(train, queries, min_correlation):
            if other == "train":
                near = PairSet(train=near.train[near.train < near.test], test=near.test[near.train < near.test])
            found.append(near)
            done, num_pairs = done + first, num_pairs + len(near.train)
            on_examples(done, total)
            if num_pairs > _MOST_PAIRS:
                raise QueryError(
                    f"more than {_MOST_PAIRS:,} pairs correlate by {min_correlation:g}: raise --min-correlation"
                )
        parts.append(_rows(train, queries, other, _joined(found), min_correlation))
    return pa.concat_tables(parts)


def flag_pairs(pairs: pa.Table, train: Inputs, test: Inputs, min_correlation: float) -> pa.Table:
    """Join to a table of pairs how alike their two examples are: ``correlation``, ``identical``, ``duplicate``.

    Parameters
    ----------
    pairs
        With ``train_index`` and ``test_index``.
    train, test
        The data set.
    min_correlation
        From which on a pair is a near-duplicate.
    """
    named = PairSet(train=pairs["train_index"].to_numpy(), test=pairs["test_index"].to_numpy())
    correlation, identical = _likeness(train, test, named)
    duplicate = identical | (correlation >= min_correlation)
    for name, values in (("correlation", correlation), ("identical", identical), ("duplicate", duplicate)):
        pairs = pairs.append_column(name, pa.array(values))
    return pairs


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The figures of a run, of all its pairs or without some.

    Attributes
    ----------
    which
        In words.
    num_memorized
        Training examples with at least the memorization that the table of pairs asks for.
    num_pairs, num_significant, num_tests
        Pairs of the table, those with a q-value of at most 0.05, and test examples that have a pair.
    mean_influence, largest_influence
        Of the pairs; NaN if there are none.
    """

    which: str
    num_memorized: int
    num_pairs: int
    num_significant: int
    num_tests: int
    mean_influence: float
    largest_influence: float

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def headlines(
    flagged: pa.Table, duplicates: pa.Table, memorization: NDArray[np.float64], min_memorization: float
) -> tuple[Headline, Headline]:
    """Return the figures with and without near-duplicates.

    Without them: pairs that are none, and memorized examples without a near-duplicate in the test set. (One with a
    near-duplicate in the training set is hardly memorized, as that one stands in for it.)

    Parameters
    ----------
    flagged
        The table of pairs, as `flag_pairs` returns it.
    duplicates
        As `find_duplicates` returns it.
    memorization
        float64 [train].
    min_memorization
        From which on an example counts as memorized.
    """
    rows = duplicates.to_pydict()
    in_test = {index for index, other in zip(rows["train_index"], rows["other"], strict=True) if other == "test"}
    memorized = np.flatnonzero(memorization >= min_memorization)
    influence, q_value, duplicate, test = (
        flagged[name].to_numpy() for name in ("influence", "q_value", "duplicate", "test_index")
    )
    every = np.ones(len(influence), bool)
    alone = [index for index in memorized.tolist() if index not in in_test]
    found = []
    for which, kept, num in (("all", every, len(memorized)), ("without near-duplicates", ~duplicate, len(alone))):
        values = influence[kept]
        found.append(
            Headline(
                which=which,
                num_memorized=num,
                num_pairs=len(values),
                num_significant=int((q_value[kept] <= 0.05).sum()),
                num_tests=len(np.unique(test[kept])),
                mean_influence=float(values.mean()) if len(values) else float("nan"),
                largest_influence=float(values.max()) if len(values) else float("nan"),
            )
        )
    return found[0], found[1]


def _neighbours(train: Inputs, queries: Inputs, min_correlation: float) -> Iterator[tuple[int, PairSet]]:
    """Yield how many more queries were looked up, and the candidates among the training examples: correlated or identical."""
    import faiss

    index = faiss.IndexFlatIP(train.vectors.shape[1])
    index.add(train.vectors)
    order = np.argsort(train.digests)
    ordered = train.digests[order]
    for start in range(0, len(queries.vectors), _QUERIES_AT_ONCE):
        part = queries.vectors[start : start + _QUERIES_AT_ONCE]
        limits, _, near = index.range_search(part, min_correlation - _SEARCH_MARGIN)
        num_near = (limits[1:] - limits[:-1]).astype(np.int64)
        query = start + np.repeat(np.arange(len(part)), num_near)
        digests = queries.digests[start : start + _QUERIES_AT_ONCE]
        low, high = (np.searchsorted(ordered, digests, side=side) for side in ("left", "right"))
        same = np.concatenate([np.empty(0, np.int64), *(order[a:b] for a, b in zip(low, high, strict=True))])
        both = np.unique(
            np.stack(
                [
                    np.concatenate([near.astype(np.int64), same]),
                    np.concatenate([query, start + np.repeat(np.arange(len(part)), high - low)]),
                ]
            ),
            axis=1,
        )
        yield len(part), PairSet(train=both[0], test=both[1])


def _rows(train: Inputs, other: Inputs, name: str, near: PairSet, min_correlation: float) -> pa.Table:
    correlation, identical = _likeness(train, other, near)
    kept = np.flatnonzero(identical | (correlation >= min_correlation))
    kept = kept[np.lexsort((near.test[kept], near.train[kept]))]
    columns = [
        near.train[kept],
        np.full(len(kept), name, dtype=object),
        near.test[kept],
        correlation[kept],
        identical[kept],
        train.labels[near.train[kept]] == other.labels[near.test[kept]],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, DUPLICATES_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=DUPLICATES_SCHEMA)


def _likeness(
    train: Inputs, other: Inputs, pairs: PairSet
) -> tuple[Float64[np.ndarray, " pair"], Bool[np.ndarray, " pair"]]:
    correlation = np.empty(len(pairs.train))
    for start in range(0, len(correlation), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        both = train.vectors[pairs.train[part]], other.vectors[pairs.test[part]]
        correlation[part] = np.einsum("ij,ij->i", *both, dtype=np.float64)
    return correlation, train.digests[pairs.train] == other.digests[pairs.test]


def _joined(parts: list[PairSet]) -> PairSet:
    empty = np.empty(0, np.int64)
    return PairSet(
        train=np.concatenate([empty, *(part.train for part in parts)]),
        test=np.concatenate([empty, *(part.test for part in parts)]),
    )
