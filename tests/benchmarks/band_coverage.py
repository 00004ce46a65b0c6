"""How often bands of J and D hold what they are bands of: many pairs of runs of two learners whose rates are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, pack_trials
from feldman.estimates.selection import PairSelection
from feldman.studies.curves import ConsistencyCurve, consistency_curves, estimate_run
from feldman.studies.resampling import FEWEST, Bands, Resampling, consistency_bands
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
    learners: TwoLearners, num_trials: int, *, num_truth: int, num_repeats: int, plan: Resampling
) -> list[dict[str, float | str]]:
    """Measure coverage: the expectation of J and D from many pairs of runs, then bands from other pairs.

    Returns
    -------
    list
        A row for each estimate, figure and threshold: what is expected, its true spread, how many the two select on average,
        the mean half width of a band in units of the spread times 1.96, and how often the band, where there is one, holds the
        expectation.
    """
    truth = [_curves(learners, num_trials, seed, plan) for seed in range(num_truth)]
    found = []
    for seed in range(num_truth, num_truth + num_repeats):
        bits = _pair(learners, num_trials, seed)
        curves = _curves(learners, num_trials, seed, plan)
        found.append((curves, consistency_bands(bits, curves, plan)))
    rows: list[dict[str, float | str]] = []
    for estimate in ("memorization", "influence"):
        for place, threshold in enumerate(getattr(plan, estimate)):
            for figure in FIGURES:
                expected, spread = _moments([curves[estimate] for curves in truth], figure, place)
                mine = [(curves[estimate], bands[estimate]) for curves, bands in found]
                rows.append(
                    {
                        "estimate": estimate,
                        "figure": figure,
                        "threshold": float(threshold),
                        "expected": expected,
                        "spread": spread,
                        "num_either": float(np.mean([curves[estimate].num_either[place] for curves in truth])),
                        **_cover(mine, figure, place, expected, spread),
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


def _moments(curves: list[ConsistencyCurve], figure: str, place: int) -> tuple[float, float]:
    values = np.array([getattr(curve, figure)[place] for curve in curves])
    values = values[~np.isnan(values)]
    return float(values.mean()), float(values.std(ddof=1))


def _pair(learners: TwoLearners, num_trials: int, seed: int) -> tuple[TrialBits, TrialBits]:
    return learners.trials(0, num_trials, seed), learners.trials(1, num_trials, seed)


def _curves(learners: TwoLearners, num_trials: int, seed: int, plan: Resampling) -> dict[str, ConsistencyCurve]:
    selection = PairSelection(min_influence=float(plan.influence[0]), min_memorization=plan.min_memorization)
    first, second = (estimate_run(bits, selection) for bits in _pair(learners, num_trials, seed))
    return consistency_curves(first, second, (plan.memorization,) * 2, (plan.influence,) * 2)
