"""Runs of several learners side by side: what each memorizes, and how far they agree, threshold by threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.high_influence import count_high
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import count_trials
from feldman.estimates.selection import DEFAULT_MIN_INFLUENCE, DEFAULT_MIN_MEMORIZATION, PairSelection
from feldman.studies.curves import (
    ESTIMATES,
    ConsistencyCurve,
    RunEstimates,
    consistency_curves,
    estimate_run,
    influence_curve,
    memorization_curve,
)
from feldman.studies.halves import generator, split_halves
from feldman.studies.resampling import Bands, Resampling, consistency_bands, num_rounds

__all__ = [
    "COMPARISON_SCHEMA",
    "INFLUENCE_THRESHOLDS",
    "MEMORIZATION_THRESHOLDS",
    "ComparisonPlan",
    "RunSummary",
    "measure_comparison",
    "summarize_run",
]

MEMORIZATION_THRESHOLDS = tuple(k / 20 for k in range(1, 20))
INFLUENCE_THRESHOLDS = tuple(k / 20 for k in range(2, 13))
"""0.05 to 0.95, and 0.1 to 0.6. At 2,000 trials the noise of influence is 0.02: far below 0.1 a good part of all pairs would be
compared."""

_FIGURES = ("jaccard", "jaccard_low", "jaccard_high", "mean_difference", "mean_difference_low", "mean_difference_high")
_COUNTS = ("num_first", "num_second", "num_both")

COMPARISON_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("first", "second", "compared", "estimate")),
        *((name, pa.float64()) for name in ("threshold", *_FIGURES, *_COUNTS)),
        *((name, pa.int64()) for name in ("num_trials_first", "num_trials_second")),
    ]
)
"""Counts are means over splits, or shuffles, and so no integers."""

_SHUFFLES = 1 << 32
"""Chance draws from other numbers than the halves do."""


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """What is measured.

    Attributes
    ----------
    memorization, influence
        Thresholds, ascending.
    min_memorization
        Pairs are of training examples that the same run finds memorized so much.
    num_resamples
        How often trials are drawn for error bands; 0 for no bands.
    num_repeats
        How many splits into halves, and how many shuffles, are averaged.
    seed
        Of all that is drawn.
    """

    memorization: tuple[float, ...] = MEMORIZATION_THRESHOLDS
    influence: tuple[float, ...] = INFLUENCE_THRESHOLDS
    min_memorization: float = DEFAULT_MIN_MEMORIZATION
    num_resamples: int = 100
    num_repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        for name in ESTIMATES:
            grid = getattr(self, name)
            if not grid or list(grid) != sorted(set(grid)) or not all(-1 <= value <= 1 for value in grid):
                raise QueryError(
                    f"thresholds of {name} are one or more numbers from -1 to 1, ascending; found "
                    f"{', '.join(f'{value:g}' for value in grid) or 'none'}"
                )
        if self.num_resamples < 0 or self.num_resamples == 1 or self.num_repeats < 1 or self.seed < 0:
            raise QueryError(
                "runs are compared with no resamples or at least 2, one repeat or more, and a seed of 0 or more; found "
                f"{self.num_resamples} resamples, {self.num_repeats} repeats, seed {self.seed}"
            )

    @property
    def selection(self) -> PairSelection:
        """Of all pairs that any threshold asks for."""
        return PairSelection(min_influence=self.influence[0], min_memorization=self.min_memorization)

    @property
    def resampling(self) -> Resampling:
        """Of the error bands."""
        return Resampling(
            memorization=np.array(self.memorization, np.float64),
            influence=np.array(self.influence, np.float64),
            min_memorization=self.min_memorization,
            num_resamples=self.num_resamples,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run in a line.

    Attributes
    ----------
    run, learner, subset_ratio
        Its name, what was trained, in words, and on what share of the training set.
    num_trials
        How many trials.
    min_memorization, num_memorized
        A threshold, and how many training examples reach it.
    min_influence, num_pairs
        A threshold, and how many pairs with such a training example reach it.
    mean_test_accuracy, std_test_accuracy
        Over trials; the standard deviation is NaN of one trial.
    """

    run: str
    learner: str
    subset_ratio: float
    num_trials: int
    min_memorization: float
    num_memorized: int
    min_influence: float
    num_pairs: int
    mean_test_accuracy: float
    std_test_accuracy: float

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def summarize_run(
    run: str, learner: str, subset_ratio: float, bits: TrialBits, min_memorization: float = DEFAULT_MIN_MEMORIZATION
) -> RunSummary:
    """Count what a run memorizes, and how many pairs have the paper's high influence, 0.15."""
    memorization = estimate_memorization(bits).memorization
    selection = PairSelection(min_influence=DEFAULT_MIN_INFLUENCE, min_memorization=min_memorization)
    accuracy = count_trials(bits.test_correct, bits.num_trials) / len(bits.test_correct)
    return RunSummary(
        run=run,
        learner=learner,
        subset_ratio=subset_ratio,
        num_trials=bits.num_trials,
        min_memorization=min_memorization,
        num_memorized=int((memorization >= min_memorization).sum()),
        min_influence=selection.min_influence,
        num_pairs=count_high(bits, memorization, selection),
        mean_test_accuracy=float(accuracy.mean()),
        std_test_accuracy=float(accuracy.std(ddof=1)) if bits.num_trials > 1 else float("nan"),
    )


def measure_comparison(
    runs: Sequence[tuple[str, TrialBits]],
    plan: ComparisonPlan,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """Compare every run with the first, each with itself, and with what chance would give.

    Parameters
    ----------
    runs
        Names, all different, and trials: two runs or more, of the same examples in the same order.
    plan
        What is measured.
    on_step
        Told how many resamples, splits and comparisons there have been, and how many there are.

    Returns
    -------
    pyarrow.Table
        `COMPARISON_SCHEMA`, a row for each threshold of: ``"runs"``, the first run (``first``) and another (``second``), with the
        band that `consistency_bands` describes; ``"chance"``, the same after the training examples of the other were shuffled
        (for influence, those that both find memorized); ``"halves"``, random halves of the trials of one run, which is first and
        second. Halves have half the trials, and so agree less than two whole runs of one learner would: ``num_trials_first`` and
        ``num_trials_second`` say how many each side has.

    Raises
    ------
    QueryError
        If there are fewer than two runs or too many pairs, or a run has too few trials for halves.
    """
    if len(runs) < 2 or len({name for name, _ in runs}) < len(runs):
        raise QueryError(
            f"a comparison is of two runs or more, each named once; found {', '.join(n for n, _ in runs) or 'none'}"
        )
    total = len(runs) * plan.num_repeats + (len(runs) - 1) * (1 + num_rounds(plan.num_resamples))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        on_step(done, total)

    found = [(name, estimate_run(bits, plan.selection)) for name, bits in runs]
    rows: list[dict[str, Any]] = []
    for first, second in ((found[0], other) for other in found[1:]):
        rows += _compare(first, second, plan, step)
    for name, bits in runs:
        rows += _halves(name, bits, plan, step)
    return pa.Table.from_pylist(rows, schema=COMPARISON_SCHEMA)


def _compare(
    first: tuple[str, RunEstimates], second: tuple[str, RunEstimates], plan: ComparisonPlan, step: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    sides = first[1], second[1]
    memorization, influence = (np.array(grid, np.float64) for grid in (plan.memorization, plan.influence))
    names = {
        "first": first[0],
        "second": second[0],
        "num_trials_first": sides[0].bits.num_trials,
        "num_trials_second": sides[1].bits.num_trials,
    }
    curves = consistency_curves(*sides, (memorization, memorization), (influence, influence))
    bands = {}
    if plan.num_resamples:
        bands = consistency_bands((sides[0].bits, sides[1].bits), curves, plan.resampling, step)
    for name, curve in curves.items():
        yield from _rows({**names, "compared": "runs", "estimate": name}, plan, [curve], bands.get(name))
    chance = [_shuffled(sides, plan, repeat) for repeat in range(plan.num_repeats)]
    step()
    for name in ESTIMATES:
        yield from _rows({**names, "compared": "chance", "estimate": name}, plan, [curve[name] for curve in chance])


def _shuffled(
    sides: tuple[RunEstimates, RunEstimates], plan: ComparisonPlan, repeat: int
) -> dict[str, ConsistencyCurve]:
    """Compare after the training examples of the second run were shuffled; pairs after those that both find memorized were.

    Which test examples are easily moved, and who is memorized, both know: by chance is only who moves whom.
    """
    random = generator(plan.seed, _SHUFFLES + repeat)
    memorization, influence = (np.array(grid, np.float64) for grid in (plan.memorization, plan.influence))
    values = sides[0].memorization, sides[1].memorization
    in_both = np.flatnonzero((values[0] >= plan.min_memorization) & (values[1] >= plan.min_memorization))
    order = np.arange(len(values[0]))
    order[in_both] = random.permutation(in_both)
    pairs, bits = (sides[0].pairs, sides[1].pairs), (sides[0].bits, sides[1].bits)
    return {
        "memorization": memorization_curve(values[0], random.permutation(values[1]), (memorization, memorization)),
        "influence": influence_curve(pairs, bits, (influence, influence), order),
    }


def _halves(name: str, bits: TrialBits, plan: ComparisonPlan, step: Callable[[], None]) -> Iterator[dict[str, Any]]:
    memorization, influence = (np.array(grid, np.float64) for grid in (plan.memorization, plan.influence))
    num_each, found = bits.num_trials // 2, []
    for repeat in range(plan.num_repeats):
        halves = split_halves(bits, num_each, seed=plan.seed, repeat=repeat)
        first, second = (estimate_run(half, plan.selection) for half in halves)
        found.append(consistency_curves(first, second, (memorization, memorization), (influence, influence)))
        step()
    names = {"first": name, "second": name, "num_trials_first": num_each, "num_trials_second": num_each}
    for estimate in ESTIMATES:
        yield from _rows(
            {**names, "compared": "halves", "estimate": estimate}, plan, [curve[estimate] for curve in found]
        )


def _rows(
    names: dict[str, Any], plan: ComparisonPlan, curves: list[ConsistencyCurve], bands: Bands | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row a threshold: means over curves, each over those that define it."""
    means = {
        name: _mean_of([getattr(curve, name) for curve in curves]) for name in ("jaccard", "mean_difference", *_COUNTS)
    }
    for place, threshold in enumerate(getattr(plan, names["estimate"])):
        row = {**names, "threshold": threshold, **{name: float(mean[place]) for name, mean in means.items()}}
        for figure in ("jaccard", "mean_difference"):
            ends = (np.nan, np.nan) if bands is None else getattr(bands, figure)[place]
            row |= {f"{figure}_low": float(ends[0]), f"{figure}_high": float(ends[1])}
        yield row


def _mean_of(values: list[NDArray[Any]]) -> Float64[np.ndarray, " threshold"]:
    stacked = np.array(values, np.float64)
    defined = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(defined, stacked, 0).sum(axis=0) / defined.sum(axis=0)
    return mean
