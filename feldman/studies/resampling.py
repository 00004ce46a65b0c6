"""Error bands of J and D: the trials of two runs are drawn again, and sets are kept as large as they were.

As many trials, drawn from a run's with replacement, have noise twice: their estimates scatter about those of the run, which
scatter about the truth. Where chance alone lifts most of what reaches a threshold, as it does pairs, many times more reach it
then. So percentiles of J in the resamples are a band of another, lower J, and even its spread is that of other sets, down to a
quarter of the true one (`make bench-coverage`). A jackknife that leaves out groups of trials has less noise, and overstates the
spread twice, because what passes a threshold jumps. Therefore each run's threshold is raised, in all of its resamples alike, to
where they select on average as many as the run does, and the spread of J and D there is their standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, take_trials
from feldman.estimates.high_influence import MOST_PAIRS, scan_high
from feldman.estimates.intervals import adjusted_stderr
from feldman.estimates.memorization import count_memorization, estimate_memorization, memorization_from_counts
from feldman.estimates.packing import count_bits
from feldman.estimates.selection import PairSelection
from feldman.studies.curves import ESTIMATES, ConsistencyCurve, Levels, consistency_curves, estimate_run
from feldman.studies.halves import generator

__all__ = ["Bands", "Resampling", "consistency_bands", "draw_trials", "num_rounds", "shared_subsets"]

FEWEST = 10
"""Of what either run selects: with fewer, a standard error from resamples says too little."""

_LEVELLING = 20
"""Resamples from which raised thresholds are found: a mean size takes fewer than a spread does."""

_BINS = 20_000
"""Of values -1 .. 1: a set is met to a few per cent of its size also where it grows fastest."""

_Z = 1.96
_FAR = 6

_RESAMPLES = 2 << 32
"""Resamples draw from other numbers than halves and shuffles do."""

_Pair = tuple[TrialBits, TrialBits]


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How trials are drawn again, and where that is looked at.

    Attributes
    ----------
    memorization, influence
        Thresholds, ascending: float64 [threshold], [level].
    min_memorization
        Of the training examples of pairs.
    num_resamples
        How often both runs are drawn.
    seed
        Of the draws.
    """

    memorization: Float64[np.ndarray, " threshold"]
    influence: Float64[np.ndarray, " level"]
    min_memorization: float
    num_resamples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Bands of a curve; NaN where the two runs together select fewer than 10.

    Attributes
    ----------
    jaccard, mean_difference
        float64 [threshold, 2]: low and high.
    """

    jaccard: Float64[np.ndarray, "threshold 2"]
    mean_difference: Float64[np.ndarray, "threshold 2"]


def num_rounds(num_resamples: int) -> int:
    """Return how often trials are drawn for so many resamples, those for the thresholds among them."""
    return num_resamples + min(num_resamples, _LEVELLING)


def consistency_bands(
    bits: _Pair,
    curves: dict[str, ConsistencyCurve],
    plan: Resampling,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Bands]:
    """Return bands about the curves of two runs: 1.96 standard errors to each side, cut off at what J and D can be.

    A band is one of the expectation of J, or of D, at a threshold, over runs of as many trials as these: of what another pair of
    runs gives on average, noise included, and not of what endless runs would. Learners, data and thresholds are fixed,
    subsets and all chance in training are drawn anew. It holds for one threshold; a whole curve leaves its band more often.
    Trials of the two runs that have the same subset are drawn together; the expectation is then over runs that share subsets so.

    Parameters
    ----------
    bits
        The trials of both runs.
    curves
        What was found, for each of `ESTIMATES`, at the thresholds of ``plan``.
    plan
        What is drawn.
    on_round
        Called after each of `num_rounds`.
    """
    shared, found = shared_subsets(*bits), []
    bits = _what_matters(bits, plan)
    with ThreadPoolExecutor(len(bits)) as threads:  # taking trials is as much work as counting pairs

        def resample(repeat: int) -> _Pair:
            random = generator(plan.seed, _RESAMPLES + repeat)
            drawn = draw_trials(random, (bits[0].num_trials, bits[1].num_trials), shared)
            first, second = threads.map(take_trials, bits, drawn)
            return first, second

        levels = _levels_of_equal_size(resample, curves, plan, on_round)
        selections = [
            PairSelection(min_influence=min(float(level[0]), 1.0), min_memorization=plan.min_memorization)
            for level in levels["influence"]
        ]
        for repeat in range(plan.num_resamples):
            first, second = (
                estimate_run(drawn, selection, 2 * MOST_PAIRS)
                for drawn, selection in zip(resample(repeat), selections, strict=True)
            )
            found.append(consistency_curves(first, second, levels["memorization"], levels["influence"]))
            on_round()
    return {name: _bands(curves[name], [curve[name] for curve in found]) for name in ESTIMATES}


def _what_matters(bits: _Pair, plan: Resampling) -> _Pair:
    """Leave out the examples that reach no threshold in any resample: most, where most are always right.

    Training examples whose memorization lies 6 standard errors below the lowest threshold, in both runs; and test examples that
    all trials get right, or none: their influence is 0, also in a resample.
    """
    lowest = min(float(plan.memorization[0]), plan.min_memorization)
    train, test = np.zeros(len(bits[0].subset_mask), bool), np.zeros(len(bits[0].test_correct), bool)
    for run in bits:
        counts = count_memorization(run)
        num_out, correct_out = run.num_trials - counts.num_in, counts.correct - counts.correct_in
        stderr = adjusted_stderr(counts.correct_in, counts.num_in, correct_out, num_out)
        train |= memorization_from_counts(counts, run.num_trials).memorization + _FAR * stderr >= lowest
        right = count_bits(run.test_correct, run.test_correct)
        test |= (right > 0) & (right < run.num_trials)
    if plan.influence[0] <= 0 or not test.any():
        test[:] = True
    first, second = (
        replace(
            run,
            subset_mask=run.subset_mask[train],
            train_correct=run.train_correct[train],
            test_correct=run.test_correct[test],
        )
        for run in bits
    )
    return first, second


def shared_subsets(first: TrialBits, second: TrialBits) -> Bool[np.ndarray, " trial"]:
    """Tell which trials of two runs, number by number, learned from the same subset, as those of one seed do; bool [trial]."""
    num_words = min(first.subset_mask.shape[1], second.subset_mask.shape[1])
    differing = np.bitwise_or.reduce(first.subset_mask[:, :num_words] ^ second.subset_mask[:, :num_words], axis=0)
    bits = np.unpackbits(differing.view(np.uint8), bitorder="little")
    same: NDArray[np.bool_] = bits[: min(first.num_trials, second.num_trials)] == 0
    return same


def draw_trials(
    random: np.random.Generator, num_trials: tuple[int, int], shared: Bool[np.ndarray, " trial"]
) -> tuple[Int64[np.ndarray, " first"], Int64[np.ndarray, " second"]]:
    """Draw as many trials as each of two runs has, with replacement; those that are shared for both at once."""
    common = np.flatnonzero(shared)
    together = random.choice(common, len(common)) if len(common) else common
    drawn = []
    for num in num_trials:
        alone = np.setdiff1d(np.arange(num), common)
        drawn.append(np.concatenate([together, random.choice(alone, len(alone)) if len(alone) else alone]))
    return drawn[0], drawn[1]


def _levels_of_equal_size(
    resample: Callable[[int], _Pair],
    curves: dict[str, ConsistencyCurve],
    plan: Resampling,
    on_round: Callable[[], None],
) -> dict[str, Levels]:
    """Find where the resamples of each run select on average as many as the run does at each threshold."""
    num_draws = min(plan.num_resamples, _LEVELLING)
    counts = {name: [np.zeros(_BINS + 1, np.int64) for _ in range(2)] for name in ESTIMATES}
    selection = PairSelection(min_influence=float(plan.influence[0]), min_memorization=plan.min_memorization)
    for repeat in range(num_draws):
        for side, drawn in enumerate(resample(repeat)):
            memorization = estimate_memorization(drawn).memorization
            _count_values(memorization, counts["memorization"][side])
            of_pairs = partial(_count_pairs, counts["influence"][side])
            scan_high(drawn, memorization, selection, of_pairs)
        on_round()
    levels = {}
    for name, curve in curves.items():
        sizes = curve.num_first, curve.num_second
        first, second = (_level_of_size(num_draws * sizes[side], counts[name][side]) for side in (0, 1))
        levels[name] = first, second
    # Nothing was counted below the lowest threshold of influence, to which a level may fall where chance plays no part.
    first, second = (np.maximum(level, plan.influence[0]) for level in levels["influence"])
    return {**levels, "influence": (first, second)}


def _count_pairs(
    counts: NDArray[np.int64],
    key: Int64[np.ndarray, " pair"],  # noqa: ARG001
    influence: Float64[np.ndarray, " pair"],
) -> None:
    _count_values(influence, counts)


def _count_values(values: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
    defined = values[~np.isnan(values)]
    counts += np.bincount(((defined + 1) * (_BINS / 2)).astype(np.int64), minlength=len(counts))


def _level_of_size(sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the lowest edge of a bin above which there are no more than so many values."""
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)
    edge = np.searchsorted(-above, -sizes).astype(np.float64)
    return edge * (2 / _BINS) - 1


def _bands(curve: ConsistencyCurve, resampled: list[ConsistencyCurve]) -> Bands:
    def band(name: str, highest: float) -> NDArray[np.float64]:
        drawn = np.array([getattr(each, name) for each in resampled]).reshape(len(resampled), len(curve.jaccard))
        spread = np.full(len(curve.jaccard), np.nan)
        for place in np.flatnonzero((curve.num_either >= FEWEST) & ((~np.isnan(drawn)).sum(axis=0) > 1)):
            values = drawn[:, place]
            spread[place] = values[~np.isnan(values)].std(ddof=1)
        value = getattr(curve, name)
        ends: NDArray[np.float64] = np.clip(np.stack([value - _Z * spread, value + _Z * spread], axis=1), 0, highest)
        return ends

    return Bands(jaccard=band("jaccard", 1.0), mean_difference=band("mean_difference", 2.0))
