"""Honest selection: pairs are chosen on one half of the trials, and their influence is estimated from the other half."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import select_pairs
from feldman.estimates.intervals import proportion_difference
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import count_bits
from feldman.estimates.selection import PairSelection
from feldman.estimates.significance import QValues, pair_p_values
from feldman.studies.halves import split_halves

__all__ = ["HONEST_SCHEMA", "Shrinkage", "honest_pairs", "measure_shrinkage"]

HONEST_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("train_index", "test_index", "selected_on")),
        *((name, pa.float64()) for name in ("selected_influence", "influence", "stderr", "ci_low", "ci_high")),
        *((name, pa.float64()) for name in ("selected_memorization", "memorization")),
        *((name, pa.int64()) for name in ("train_label", "test_label")),
        *((name, pa.float64()) for name in ("p_value", "q_value")),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Shrinkage:
    """What is left of the influence of the strongest pairs when trials that did not choose them are asked.

    Attributes
    ----------
    num_pairs
        How many of the strongest pairs of each half; None for all.
    selected_influence, influence
        Mean over the pairs of both halves: where they were selected, and in the other half.
    ratio
        The second divided by the first: 1 if selection cost nothing, near 0 if it was all chance. NaN if there are no pairs.
    """

    num_pairs: int | None
    selected_influence: float
    influence: float
    ratio: float

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def honest_pairs(
    bits: TrialBits,
    labels: tuple[Integer[np.ndarray, " train"], Integer[np.ndarray, " test"]],
    selection: PairSelection,
    *,
    seed: int = 0,
) -> pa.Table:
    """Select pairs on each half of the trials, and estimate their influence from the other half.

    The largest of many noisy numbers are too large: selected by chance, they were lifted by it. The other half knows nothing of
    the selection, so its estimates are unbiased and its intervals cover. Its q-values are over the pairs that one half selected.

    Parameters
    ----------
    bits
        Of all trials.
    labels
        Of training and test examples.
    selection
        Which pairs each half selects, by its own influence and memorization.
    seed
        Of the split.

    Returns
    -------
    pyarrow.Table
        `HONEST_SCHEMA`, the strongest pairs first. ``selected_on`` is the half, 0 or 1, that selected a pair; the columns
        ``selected_...`` are its estimates, all others those of the other half. A pair that both halves select has two rows.

    Raises
    ------
    QueryError
        If there are too few trials, or targets are training examples.
    """
    if selection.targets != "test":
        raise QueryError("pairs are selected honestly for test examples alone; leave out --targets train")
    halves = split_halves(bits, bits.num_trials // 2, seed=seed)
    parts = [_selected_on(half, halves[half], halves[1 - half], labels, selection) for half in range(len(halves))]
    order = [("selected_influence", "descending"), ("train_index", "ascending"), ("test_index", "ascending")]
    return pa.concat_tables(parts).sort_by([*order, ("selected_on", "ascending")])


def _selected_on(
    number: int,
    chosen_by: TrialBits,
    reported_by: TrialBits,
    labels: tuple[Integer[np.ndarray, " train"], Integer[np.ndarray, " test"]],
    selection: PairSelection,
) -> pa.Table:
    memorization = [estimate_memorization(half).memorization for half in (chosen_by, reported_by)]
    pairs = select_pairs(chosen_by, memorization[0], selection, labels)
    train, test = pairs.train_index, pairs.target_index
    num_in, totals = (count_bits(words, words) for words in (reported_by.subset_mask, reported_by.test_correct))
    joint, num, right = (
        count_bits(reported_by.subset_mask[train], reported_by.test_correct[test]),
        num_in[train],
        totals[test],
    )
    found = proportion_difference(joint, num, right - joint, reported_by.num_trials - num)
    p_value = pair_p_values(joint, num, right, num_trials=reported_by.num_trials)
    columns = [
        train,
        test,
        np.full(len(train), number),
        pairs.influence,
        *found,
        memorization[0][train],
        memorization[1][train],
    ]
    columns += [labels[0][train], labels[1][test], p_value, QValues.of(p_value, len(p_value))(p_value)]
    return pa.table(dict(zip(HONEST_SCHEMA.names, columns, strict=True)), schema=HONEST_SCHEMA)


def measure_shrinkage(table: pa.Table, tops: tuple[int, ...] = (10, 30, 100, 300, 1000)) -> list[Shrinkage]:
    """Say what is left of the strongest pairs of each half: of tops of several lengths that both halves fill, and of all.

    Parameters
    ----------
    table
        As `honest_pairs` returns it.
    tops
        How many pairs of each half.
    """
    half, selected, honest = (table[name].to_numpy() for name in ("selected_on", "selected_influence", "influence"))
    of_half = [np.flatnonzero((half == number) & ~np.isnan(honest)) for number in (0, 1)]  # the strongest first
    fullest = [top for top in tops if top < min(map(len, of_half))]
    rows = []
    for top in (*fullest, None):
        chosen = np.concatenate([places[:top] for places in of_half])
        means = [float(values[chosen].mean()) if len(chosen) else float("nan") for values in (selected, honest)]
        ratio = means[1] / means[0] if len(chosen) and means[0] else float("nan")
        rows.append(Shrinkage(num_pairs=top, selected_influence=means[0], influence=means[1], ratio=ratio))
    return rows
