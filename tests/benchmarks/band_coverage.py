"""How often bands of J and D hold what they are bands of: many pairs of runs of two learners whose rates are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, pack_trials, take_trials
from feldman.estimates.selection import PairSelection
from feldman.studies.curves import ConsistencyCurve, consistency_curves, estimate_run
from feldman.studies.halves import generator
from feldman.studies.resampling import FEWEST, Bands, Resampling, consistency_bands, draw_trials, shared_subsets
from feldman.trials.plan import subset_size
from tests.benchmarks.planted import RATIO

__all__ = ["TwoLearners", "measured_coverage", "two_learners"]

FIGURES = ("jaccard", "mean_difference")


@dataclass(frozen=True, kw_only=True)
class TwoLearners:
    """Two learners of one data set, the second memorizing a little more or less of each example.

    A training example is right with ``rate_in`` or ``rate_out``. A test example depends on the training example of its number,
    by ``gain``, and on none if that is 0; its ``base`` is how often it is right otherwise. Trials differ in quality, so that
    test examples are right together.

    Attributes
    ----------
    rate_in, rate_out, gain
        float64 [learner, example].
    base
        float64 [example].
    """

    rate_in: NDArray[np.float64]
    rate_out: NDArray[np.float64]
    gain: NDArray[np.float64]
    base: NDArray[np.float64]

    def trials(self, learner: int, num_trials: int, seed: int) -> TrialBits:
        """Train one of them."""
        random = np.random.default_rng([seed, learner])
        places = random.random((num_trials, len(self.base))).argsort(axis=1)
        masks = places < subset_size(RATIO, len(self.base))
        quality = random.normal(0, 0.05, (num_trials, 1))
        train = random.random(masks.shape) < np.where(masks, self.rate_in[learner], self.rate_out[learner])
        wavering = np.where((self.base > 0.1) & (self.base < 0.9), quality, 0)
        test = random.random(masks.shape) < self.base + wavering + self.gain[learner] * masks
        return pack_trials(masks, train, test)


def two_learners(num_examples: int = 100, share_wavering: float = 0.3, spread: float = 0.1) -> TwoLearners:
    """A third of the examples memorized to any degree, of which half decide a test example; others waver, or are always right."""
    random = np.random.default_rng(0)
    memorized = random.random(num_examples) < 0.35
    memorization = np.where(memorized, random.uniform(0.1, 0.95, num_examples), 0.02)
    gain = np.where(memorized & (random.random(num_examples) < 0.5), random.uniform(0.1, 0.6, num_examples), 0)
    base = np.where(random.random(num_examples) < share_wavering, random.uniform(0.3, 0.7, num_examples), 0.97)
    shift = random.normal(0, spread, (2, num_examples)) * memorized
    both = np.clip(np.stack([memorization, memorization + shift[0]]), 0, 0.98)
    gains = np.where(gain > 0, np.clip(np.stack([gain, gain + shift[1]]), 0, 0.6), 0)
    return TwoLearners(
        rate_in=np.full((2, num_examples), 0.98),
        rate_out=0.98 - both,
        gain=gains,
        base=np.where(gain > 0, random.uniform(0.2, 0.38, num_examples), base),
    )


def measured_coverage(
    learners: TwoLearners, num_trials: int, *, num_truth: int, num_repeats: int, plan: Resampling, beside: bool = False
) -> list[dict[str, float | str]]:
    """Measure coverage: the expectation of J and D from many pairs of runs, then bands from other pairs.

    Parameters
    ----------
    learners, num_trials
        Whose runs, and how long.
    num_truth, num_repeats
        Pairs of runs for the expectation, and for bands.
    plan
        Of the bands.
    beside
        Measure what else could be done with resamples, too: 1.96 standard deviations of J at the threshold itself
        (``plain_...``), and percentiles.

    Returns
    -------
    list
        A row for each estimate, figure and threshold: what is expected, its true spread, how many the two select on average,
        the mean half width of a band in units of the spread times 1.96, and how often the band, where there is one, holds the
        expectation.
    """
    truth = [_curves(_pair(learners, num_trials, seed), plan) for seed in range(num_truth)]
    found = []
    for seed in range(num_truth, num_truth + num_repeats):
        bits = _pair(learners, num_trials, seed)
        curves = _curves(bits, plan)
        drawn = [_curves(each, plan) for each in _resamples(bits, plan)] if beside else []
        found.append((curves, consistency_bands(bits, curves, plan), drawn))
    rows: list[dict[str, float | str]] = []
    for estimate in ("memorization", "influence"):
        for place, threshold in enumerate(getattr(plan, estimate)):
            for figure in FIGURES:
                expected, spread = _moments([curves[estimate] for curves in truth], figure, place)
                about = [(curves[estimate], bands[estimate]) for curves, bands, _ in found]
                others = [[curve[estimate] for curve in drawn] for _, _, drawn in found]
                rows.append(
                    {
                        "estimate": estimate,
                        "figure": figure,
                        "threshold": float(threshold),
                        "expected": expected,
                        "spread": spread,
                        "num_either": float(np.mean([curves[estimate].num_either[place] for curves in truth])),
                        **_cover(about, figure, place, expected, spread),
                        **(_cover_beside(about, others, figure, place, expected, spread) if beside else {}),
                    }
                )
    return rows


def _cover(
    found: list[tuple[ConsistencyCurve, Bands]], figure: str, place: int, expected: float, spread: float
) -> dict[str, float | str]:
    ends = np.array([getattr(bands, figure)[place] for _, bands in found])
    values = np.array([getattr(curve, figure)[place] for curve, _ in found])
    given = ~np.isnan(ends[:, 0])
    assert (given == [curve.num_either[place] >= FEWEST for curve, _ in found]).all()
    if not given.any():
        return {"num_bands": 0, "width": float("nan"), "covered": float("nan")}
    inside = (ends[given, 0] <= expected) & (expected <= ends[given, 1])
    half = np.maximum(ends[given, 1] - values[given], values[given] - ends[given, 0])  # one side may be cut off
    return {
        "num_bands": int(given.sum()),
        "width": float(half.mean() / (1.96 * spread)) if spread else float("nan"),
        "covered": float(inside.mean()),
    }


def _cover_beside(
    found: list[tuple[ConsistencyCurve, Bands]],
    resampled: list[list[ConsistencyCurve]],
    figure: str,
    place: int,
    expected: float,
    spread: float,
) -> dict[str, float]:
    given = [number for number, (curve, _) in enumerate(found) if curve.num_either[place] >= FEWEST]
    values = np.array([getattr(found[number][0], figure)[place] for number in given])
    drawn = np.array([[getattr(curve, figure)[place] for curve in resampled[number]] for number in given])
    if not given:
        return dict.fromkeys(("plain_width", "plain_covered", "percentiles_covered"), float("nan"))
    errors, (low, high) = np.nanstd(drawn, axis=1, ddof=1), np.nanquantile(drawn, [0.025, 0.975], axis=1)
    return {
        "plain_width": float(errors.mean() / spread),
        "plain_covered": float((np.abs(values - expected) <= 1.96 * errors).mean()),
        "percentiles_covered": float(((low <= expected) & (expected <= high)).mean()),
    }


def _resamples(bits: tuple[TrialBits, TrialBits], plan: Resampling) -> Iterator[tuple[TrialBits, TrialBits]]:
    for repeat in range(plan.num_resamples):
        trials = draw_trials(generator(1, repeat), (bits[0].num_trials, bits[1].num_trials), shared_subsets(*bits))
        yield take_trials(bits[0], trials[0]), take_trials(bits[1], trials[1])


def _moments(curves: list[ConsistencyCurve], figure: str, place: int) -> tuple[float, float]:
    values = np.array([getattr(curve, figure)[place] for curve in curves])
    values = values[~np.isnan(values)]
    return float(values.mean()), float(values.std(ddof=1))


def _pair(learners: TwoLearners, num_trials: int, seed: int) -> tuple[TrialBits, TrialBits]:
    return learners.trials(0, num_trials, seed), learners.trials(1, num_trials, seed)


def _curves(bits: tuple[TrialBits, TrialBits], plan: Resampling) -> dict[str, ConsistencyCurve]:
    selection = PairSelection(min_influence=float(plan.influence[0]), min_memorization=plan.min_memorization)
    first, second = (estimate_run(run, selection) for run in bits)
    return consistency_curves(first, second, (plan.memorization,) * 2, (plan.influence,) * 2)
