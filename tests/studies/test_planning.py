"""Plans hold: a run of the planned size has the precision, and costs what it says."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from feldman.errors import QueryError
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.studies.consistency import memorization_consistency
from feldman.studies.planning import cost_of, jaccard_needs, stderr_needs
from feldman.studies.stability import STABILITY_SCHEMA, StabilityPlan, measure_stability
from tests.benchmarks.planted import planted_learner

LABELS = np.zeros(60, np.int64), np.zeros(60, np.int64)


def test_a_run_of_the_planned_size_has_the_standard_error() -> None:
    learner = planted_learner()
    needs = stderr_needs(
        learner.trials(200, 0), LABELS, PairSelection(min_influence=0.3), target=0.03, subset_ratio=0.7
    )
    assert [need.how for need in needs] == ["scaled", "scaled", "bound"]
    planned = needs[0].num_trials or 0
    found = np.quantile(estimate_memorization(learner.trials(planned, 1)).stderr, 0.95)
    assert found == pytest.approx(0.03, rel=0.05)
    worst = estimate_memorization(learner.trials(needs[2].num_trials or 0, 1))
    assert np.nanmax(worst.stderr) < 0.03 * 1.03
    assert needs[2].num_trials == math.ceil(0.25 * (1 / 0.7 + 1 / 0.3) / 0.03**2)


def test_a_pilot_that_is_precise_enough_says_so() -> None:
    (first, _, _) = stderr_needs(
        planted_learner().trials(200, 0), LABELS, PairSelection(), target=0.2, subset_ratio=0.7
    )
    assert first.how == "measured"
    assert (first.num_trials or 0) < 200


def test_without_pairs_nothing_is_said_of_them() -> None:
    selection = PairSelection(min_influence=1.0, min_memorization=1.0)
    needs = stderr_needs(planted_learner().trials(50, 0), LABELS, selection, target=0.1, subset_ratio=0.7)
    assert (needs[1].num_trials, needs[1].how) == (None, "unknown")
    assert math.isnan(needs[1].now)


def test_two_runs_of_the_planned_size_agree_as_planned() -> None:
    learner = planted_learner(300)
    labels = np.zeros(300, np.int64), np.zeros(300, np.int64)
    plan = StabilityPlan(sizes=(25, 50, 100), num_repeats=4)
    (need, _) = jaccard_needs(measure_stability(learner.trials(200, 0), labels, plan), target=0.9)
    assert need.how == "extrapolated"
    assert need.num_trials is not None
    assert need.low is not None
    assert need.low <= need.num_trials
    found = [estimate_memorization(learner.trials(need.num_trials, seed)).memorization for seed in (1, 2)]
    assert memorization_consistency(found[0], found[1], 0.25).jaccard == pytest.approx(0.9, abs=0.04)


def halves(*jaccards: float) -> pa.Table:
    """A table of stability in which both estimates agree so much, at 50, 100, ... trials."""
    rows = [
        dict.fromkeys(STABILITY_SCHEMA.names)
        | {"num_trials": 50 * 2**place, "repeat": 0, "estimate": estimate, "compared": "halves", "jaccard": jaccard}
        for place, jaccard in enumerate(jaccards)
        for estimate in ("memorization", "influence")
    ]
    return pa.Table.from_pylist(rows, schema=STABILITY_SCHEMA)


@pytest.mark.parametrize(
    ("jaccards", "target", "expected"),
    [
        ((0.5, 0.7, 0.85), 0.6, (100, "measured")),
        ((0.6, 1 - 0.4 / 2**0.5, 0.8), 0.9, (800, "extrapolated")),  # with the root of the number of trials
        ((0.2, 0.6, 0.8), 0.9, (800, "extrapolated")),  # no faster than that, though the pilot's did
        ((0.6, 0.5, 0.4), 0.9, (None, "unknown")),  # falls
        ((0.5, 0.5, 0.5), 0.9, (None, "unknown")),
        ((0.5, 0.6, 0.55), 0.9, (None, "unknown")),
        ((0.01, 0.05, 0.1), 0.9, (None, "unknown")),  # too far away
        ((0.5,), 0.9, (None, "unknown")),
    ],
)
def test_agreement_is_continued_no_faster_than_noise_falls_and_only_where_it_rises(
    jaccards: tuple[float, ...], target: float, expected: tuple[int | None, str]
) -> None:
    for need in jaccard_needs(halves(*jaccards), target=target):
        assert (need.num_trials, need.how) == expected
        assert need.now == jaccards[-1]


def test_cost_is_of_the_trials_that_lack_and_time_of_whole_blocks() -> None:
    cost = cost_of(1000, num_trained=300, trial_seconds=36.0, block_size=50, per_block=(2, 0.5), num_workers=4)
    assert (cost.num_trials, cost.num_more, cost.num_workers) == (1000, 700, 4)
    assert (cost.core_hours, cost.gpu_hours) == (14.0, 3.5)
    assert cost.wall_hours == pytest.approx(4 * 50 * 36 / 3600)  # 14 blocks on 4 workers: 4 rounds
    none = cost_of(200, num_trained=300, trial_seconds=36.0, block_size=50, per_block=(1, 0.0), num_workers=4)
    assert (none.num_trials, none.num_more, none.wall_hours) == (300, 0, 0)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, math.nan])
def test_targets_out_of_range_are_refused(target: float) -> None:
    with pytest.raises(QueryError, match="a Jaccard similarity to be reached lies between 0 and 1; found"):
        jaccard_needs(halves(0.5, 0.6), target=target)
    with pytest.raises(QueryError, match="a standard error lies between 0 and 1; found"):
        stderr_needs(planted_learner().trials(20, 0), LABELS, PairSelection(), target=target, subset_ratio=0.7)
