"""Marginal utility: how many test examples are decided by one training example, and by how many each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from numpy.typing import NDArray

__all__ = ["MarginalUtility", "PairGroup", "marginal_utility"]

SIGNIFICANT = 0.05
"""q-value up to which a pair counts as more than chance."""


@dataclass(frozen=True, kw_only=True)
class PairGroup:
    """Some of the pairs, and the examples in them.

    Attributes
    ----------
    which
        ``"all"``, ``"q <= 0.05"``, ``"same class"`` or ``"other class"``.
    num_pairs, num_train, num_test
        Pairs, and distinct training and test examples in them.
    num_train_in_one, num_test_in_one
        Those that stand in exactly one pair: such a test example is decided by one training example.
    most_of_a_train, most_of_a_test
        The most pairs that an example has; 0 if there are none.
    share_decided
        Test examples in a pair, of all test examples; None where it is not known how many there are.
    """

    which: str
    num_pairs: int
    num_train: int
    num_test: int
    num_train_in_one: int
    num_test_in_one: int
    most_of_a_train: int
    most_of_a_test: int
    share_decided: float | None


@dataclass(frozen=True, kw_only=True)
class MarginalUtility:
    """What high-influence pairs there are.

    Attributes
    ----------
    groups
        All pairs; those with a low q-value, where there are q-values; of one class and of two, where there are labels.
    train_examples_by_pairs, test_examples_by_pairs
        How many examples stand in k pairs, as ``(k, count)``, ascending. Examples in none are left out.
    num_memorized, num_without_pair
        Training examples that are memorized enough, and those of them that stand in no pair; None where they are not all known.
    """

    groups: tuple[PairGroup, ...]
    train_examples_by_pairs: tuple[tuple[int, int], ...]
    test_examples_by_pairs: tuple[tuple[int, int], ...]
    num_memorized: int | None
    num_without_pair: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``; how many examples stand in k pairs is among its rows."""
        return {
            "groups": [asdict(group) for group in self.groups],
            "num_memorized": self.num_memorized,
            "num_without_pair": self.num_without_pair,
        }


def marginal_utility(
    pairs: pa.Table, *, num_memorized: int | None = None, num_test: int | None = None, one_class: bool = False
) -> MarginalUtility:
    """Count pairs, and the examples in them.

    V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), section 3.2: most test examples in high-influence pairs
    stand in one pair only, so that their prediction rests on a single training example.

    Parameters
    ----------
    pairs
        High-influence pairs with the columns of ``influence.parquet``; labels and q-values may be null.
    num_memorized
        Training examples that pass the pairs' threshold of memorization; None where not known.
    num_test
        All test examples; None where not known.
    one_class
        Whether pairs of two classes were not looked for: then nothing is said of classes.
    """
    every = np.ones(pairs.num_rows, bool)
    groups: list[tuple[str, NDArray[np.bool_]]] = [("all", every)]
    if "q_value" in pairs.column_names and pairs["q_value"].null_count == 0:  # tables of earlier versions have none
        groups.append((f"q <= {SIGNIFICANT:g}", pairs["q_value"].to_numpy() <= SIGNIFICANT))
    if not one_class and pairs["train_label"].null_count == 0 and pairs["test_label"].null_count == 0:
        same = pairs["train_label"].to_numpy() == pairs["test_label"].to_numpy()
        groups += [("same class", same), ("other class", ~same)]
    train, test = (pairs[f"{part}_index"].to_numpy() for part in ("train", "test"))
    num_train = len(np.unique(train))
    return MarginalUtility(
        groups=tuple(_group(which, train[chosen], test[chosen], num_test) for which, chosen in groups),
        train_examples_by_pairs=_examples_by_pairs(train),
        test_examples_by_pairs=_examples_by_pairs(test),
        num_memorized=num_memorized,
        num_without_pair=None if num_memorized is None else num_memorized - num_train,
    )


def _group(
    which: str, train: Int64[np.ndarray, " pair"], test: Int64[np.ndarray, " pair"], num_test: int | None
) -> PairGroup:
    of_train, of_test = (np.unique(index, return_counts=True)[1] for index in (train, test))
    return PairGroup(
        which=which,
        num_pairs=len(train),
        num_train=len(of_train),
        num_test=len(of_test),
        num_train_in_one=int((of_train == 1).sum()),
        num_test_in_one=int((of_test == 1).sum()),
        most_of_a_train=int(of_train.max(initial=0)),
        most_of_a_test=int(of_test.max(initial=0)),
        share_decided=len(of_test) / num_test if num_test else None,
    )


def _examples_by_pairs(index: Int64[np.ndarray, " pair"]) -> tuple[tuple[int, int], ...]:
    num_pairs, num_examples = np.unique(np.unique(index, return_counts=True)[1], return_counts=True)
    return tuple(zip(num_pairs.tolist(), num_examples.tolist(), strict=True))
