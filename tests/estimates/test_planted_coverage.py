"""The benchmark of a truth known exactly, in small: estimates are unbiased, intervals cover, chance is not significant."""

from __future__ import annotations

import numpy as np
import pytest

from feldman.estimates.influence import estimate_influence
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.significance import pair_p_values
from tests.benchmarks.coverage import INTERVALS, exact_coverage, exact_size
from tests.benchmarks.planted import planted_learner

REPEATS, NUM_TRIALS = 200, 100


def test_over_repeated_estimations_the_bias_is_noise_and_95_percent_intervals_cover() -> None:
    learner = planted_learner(30)
    errors, covered = [], []
    for seed in range(REPEATS):
        bits = learner.trials(NUM_TRIALS, seed)
        found, pairs = estimate_memorization(bits), estimate_influence(bits, np.arange(30))
        truths = learner.memorization, learner.influence
        values = found.memorization - truths[0], pairs.value - truths[1]
        errors.append([float(each.mean()) for each in values])
        inside = (found.ci_low <= truths[0]) & (truths[0] <= found.ci_high)
        covered.append([inside.mean(), ((pairs.ci_low <= truths[1]) & (truths[1] <= pairs.ci_high)).mean()])
    mean, noise = np.mean(errors, axis=0), np.std(errors, axis=0, ddof=1) / np.sqrt(REPEATS)
    assert (np.abs(mean) < 3 * noise).all()
    assert ((np.mean(covered, axis=0) > 0.94) & (np.mean(covered, axis=0) < 0.97)).all()


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.98, 0.5), (0.998, 0.02), (0.998, 0.998)])
def test_newcombes_interval_covers_at_least_94_times_in_100_where_walds_may_not(rates: tuple[float, float]) -> None:
    assert exact_coverage(INTERVALS["Newcombe"], rates, 50)[0] > 0.94
    assert exact_coverage(INTERVALS["Wald"], (0.998, 0.02), 50)[0] < 0.4


@pytest.mark.parametrize("rate", [0.5, 0.95])
@pytest.mark.parametrize("level", [1e-2, 1e-6])
def test_without_influence_a_p_value_is_below_a_level_no_more_often_than_the_level(rate: float, level: float) -> None:
    assert exact_size(pair_p_values, rate, 250, level) <= level
