"""Split halves: how far a run agrees with itself, as a function of the number of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.studies.consistency import Consistency, PairSet, influence_consistency, memorization_consistency
from feldman.studies.halves import FEWEST_TRIALS, Halves, generator, split_halves

__all__ = ["STABILITY_SCHEMA", "StabilityPlan", "default_sizes", "measure_stability", "stability_summary"]

STABILITY_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("num_trials", "repeat")),
        *((name, pa.string()) for name in ("estimate", "compared")),
        *((name, pa.float64()) for name in ("jaccard", "mean_difference", "spearman")),
        *((name, pa.int64()) for name in ("num_first", "num_second", "num_both")),
    ]
)

_SMALLEST_DEFAULT = 25
_SAMPLED_PAIRS = 100_000
"""For the rank correlation of influence: random pairs of examples that either half finds memorized, known to 0.003."""

_SHUFFLES = 1 << 32
"""Chance draws from other numbers than the halves do."""


@dataclass(frozen=True, kw_only=True)
class StabilityPlan:
    """What is measured.

    Attributes
    ----------
    sizes
        How many trials a half has, each.
    num_repeats
        How many times trials are split anew.
    seed
        Of the splits.
    selection
        Thresholds of high influence and memorization; one class or all.
    """

    sizes: tuple[int, ...]
    num_repeats: int = 5
    seed: int = 0
    selection: PairSelection = field(default_factory=PairSelection)

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if not self.sizes or self.num_repeats < 1 or self.seed < 0:
            raise QueryError(
                "stability is measured at one size or more, repeated once or more, with a seed of 0 or more; found "
                f"{len(self.sizes)} sizes, {self.num_repeats} repeats, seed {self.seed}"
            )
        if self.selection.has_tops or self.selection.targets != "test":
            raise QueryError("stability compares pairs of training and test examples that reach thresholds, not tops")


def default_sizes(num_trials: int) -> tuple[int, ...]:
    """Return half of the trials, half of that, and so on, while there are 25; ascending."""
    sizes = [max(num_trials // 2, FEWEST_TRIALS)]
    while sizes[-1] // 2 >= _SMALLEST_DEFAULT:
        sizes.append(sizes[-1] // 2)
    return tuple(reversed(sizes))


def measure_stability(
    bits: TrialBits,
    labels: tuple[np.ndarray, np.ndarray],
    plan: StabilityPlan,
    on_split: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """Compare random halves of a run, and what chance would give.

    Parameters
    ----------
    bits
        Of all trials of the run.
    labels
        Of training and test examples.
    plan
        What to measure.
    on_split
        Told how many splits have been compared, and how many there are.

    Returns
    -------
    pyarrow.Table
        `STABILITY_SCHEMA`: for each size, repeat and ``estimate`` ("memorization", "influence") a row of the ``halves``, and
        one of ``chance``: the same comparison after the training examples of one half were shuffled; for influence, those that
        both halves find memorized.

    Raises
    ------
    QueryError
        If a size is more than half of the trials.
    """
    splits = [(size, repeat) for size in plan.sizes for repeat in range(plan.num_repeats)]
    rows = []
    for done, (size, repeat) in enumerate(splits, 1):
        halves = split_halves(bits, size, seed=plan.seed, repeat=repeat)
        for estimate, compared, found in _compare(halves, labels, plan, repeat):
            row = {"num_trials": size, "repeat": repeat, "estimate": estimate, "compared": compared}
            rows.append(row | found.as_json())
        on_split(done, len(splits))
    return pa.Table.from_pylist(rows, schema=STABILITY_SCHEMA)


def _compare(
    halves: Halves, labels: tuple[np.ndarray, np.ndarray], plan: StabilityPlan, repeat: int
) -> Iterator[tuple[str, str, Consistency]]:
    memorized = [estimate_memorization(half).memorization for half in halves]
    threshold = plan.selection.min_memorization
    random = generator(plan.seed, _SHUFFLES + repeat)
    yield "memorization", "halves", memorization_consistency(memorized[0], memorized[1], threshold)
    shuffled = random.permutation(memorized[1])
    yield "memorization", "chance", memorization_consistency(memorized[0], shuffled, threshold)
    selected = []
    for half, values in zip(halves, memorized, strict=True):
        pairs = select_pairs(half, values, plan.selection, labels)
        selected.append(PairSet(train=pairs.train_index, test=pairs.target_index))
    both = selected[0], selected[1]
    candidates = np.flatnonzero((memorized[0] >= threshold) | (memorized[1] >= threshold))
    num_sampled = _SAMPLED_PAIRS if len(candidates) else 0
    sampled = PairSet(
        train=candidates[random.integers(0, max(len(candidates), 1), num_sampled)],
        test=random.integers(0, len(labels[1]), num_sampled),
    )
    yield "influence", "halves", influence_consistency(both, halves, sampled)
    # Which test examples are easily moved, and who is memorized, both halves know: by chance is only who moves whom.
    in_both = np.flatnonzero((memorized[0] >= threshold) & (memorized[1] >= threshold))
    order = np.arange(len(labels[0]))
    order[in_both] = random.permutation(in_both)
    yield "influence", "chance", influence_consistency(both, halves, sampled, order)


def stability_summary(table: pa.Table, estimate: str, compared: str, name: str) -> Sequence[tuple[int, float, float]]:
    """Return, for each size, the mean over repeats of a column and its standard deviation (NaN of one repeat).

    Undefined values are left out; NaN if all are.
    """
    chosen = [
        (row["num_trials"], row[name])
        for row in table.to_pylist()
        if (row["estimate"], row["compared"]) == (estimate, compared)
    ]
    summary = []
    for size in sorted({size for size, _ in chosen}):
        values = np.array([value for found, value in chosen if found == size], np.float64)
        values = values[~np.isnan(values)]
        mean = float(values.mean()) if len(values) else float("nan")
        summary.append((size, mean, float(values.std(ddof=1)) if len(values) > 1 else float("nan")))
    return summary
