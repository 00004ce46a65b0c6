"""Counts of memorized examples: plain NumPy gives the same, and their intervals cover what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtr

from feldman.errors import QueryError
from feldman.estimates.bits import take_trials
from feldman.estimates.memorization import estimate_memorization
from feldman.studies.halves import generator
from feldman.studies.recounts import cell_of, memorization_in_parts, num_cells, recount
from feldman.studies.tail import (
    TailPlan,
    measure_tail,
    tail_of_estimates,
)
from feldman.studies.true_counts import correctable, largest_stderr_at, true_counts
from tests.benchmarks.planted import expected_counts, memorizing_learner
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials

PLAN = TailPlan(num_bins=7, thresholds=(-0.5, 0.0, 0.1, 0.25, 0.5, 1.0), num_resamples=3)


def labels_of(trials: Trials) -> NDArray[np.int64]:
    return np.arange(trials.subset_mask.shape[1]) % 3 * 5


@given(any_trials())
@settings(deadline=None, max_examples=30)
def test_every_example_is_in_one_bin_or_negative_or_undefined_and_counts_fall_with_the_threshold(
    trials: Trials,
) -> None:
    tail = measure_tail(trials.packed(), labels_of(trials), PLAN)
    counted = tail.histogram.count.sum(axis=1) + tail.num_negative + tail.num_undefined
    np.testing.assert_array_equal(counted, tail.num_examples)
    assert (np.diff(tail.reaching.count, axis=1) <= 0).all()
    for counts in (tail.num_examples, tail.num_negative, tail.num_undefined, tail.histogram.count, tail.reaching.count):
        np.testing.assert_array_equal(counts[0], counts[1:].sum(axis=0))
    known = np.isfinite(tail.reaching.stderr)
    assert known.all() == known.any() == (len(trials.subset_mask) >= 20)
    low, high = tail.reaching.ci_low[known], tail.reaching.ci_high[known]
    assert ((low <= tail.reaching.count[known]) & (tail.reaching.count[known] <= high)).all()


@given(any_trials())
@settings(deadline=None, max_examples=30)
def test_counts_are_those_of_the_dense_formula_with_or_without_trials(trials: Trials) -> None:
    values, labels = oracle.memorization(trials.subset_mask, trials.train_correct), labels_of(trials)
    tail = measure_tail(trials.packed(), labels, PLAN)
    np.testing.assert_array_equal(tail.labels, np.unique(labels))
    for group, members in enumerate([values, *(values[labels == label] for label in tail.labels)]):
        defined = members[~np.isnan(members)]
        expected = np.histogram(defined[defined >= 0], bins=np.arange(8) / 7)[0]
        np.testing.assert_array_equal(tail.histogram.count[group], expected)
        np.testing.assert_array_equal(tail.reaching.count[group], [(members >= at).sum() for at in PLAN.thresholds])
        assert tail.num_negative[group] == (defined < 0).sum()
        assert tail.num_undefined[group] == len(members) - len(defined)
    alone = tail_of_estimates(values, labels, PLAN)
    np.testing.assert_array_equal(alone.histogram.count, tail.histogram.count)
    np.testing.assert_array_equal(alone.reaching.count, tail.reaching.count)
    assert np.isnan(alone.reaching.stderr).all()
    without = tail_of_estimates(values, None, PLAN)
    assert len(without.labels) == 0
    np.testing.assert_array_equal(without.reaching.count, tail.reaching.count[:1])


@given(any_trials(), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_memorization_in_parts_is_that_of_runs_of_these_trials_alone(trials: Trials, seed: int) -> None:
    num_trials = len(trials.subset_mask)
    parts = np.random.default_rng(seed).random((num_trials, 4)) < 0.6
    parts[:, 0] = True
    mask, correct = (rows.T.astype(np.float32) for rows in (trials.subset_mask, trials.train_correct))
    found = memorization_in_parts(mask, correct, parts.astype(np.float32))
    np.testing.assert_array_equal(found[:, 0], estimate_memorization(trials.packed()).memorization)
    for part in range(1, 4):
        chosen = take_trials(trials.packed(), np.flatnonzero(parts[:, part]))
        np.testing.assert_array_equal(found[:, part], estimate_memorization(chosen).memorization)


def test_recounts_are_counts_of_the_halves_and_quarters_that_the_seed_draws() -> None:
    bits, edges = memorizing_learner("spread", 50).trials(60, 0), np.array([0.0, 0.3, 0.7])
    group = np.arange(50) % 2
    found = recount(bits, group, edges, num_resamples=3, seed=4)
    for repeat in range(3):
        order = generator(4, repeat).permutation(60)
        for size, counts in ((30, found.halves[repeat]), (15, found.quarters[repeat][None])):
            values = estimate_memorization(take_trials(bits, np.sort(order[:size]))).memorization
            for row, members in zip(
                counts, [values[group == 0], values[group == 1]] if size == 30 else [values], strict=True
            ):
                expected = np.bincount(cell_of(members, edges), minlength=num_cells(edges))
                np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("kind", ["spread", "thin", "gap"])
def test_intervals_cover_the_expected_and_the_true_number_where_the_estimates_count_too_many(kind: str) -> None:
    thresholds, group, repeats = (0.1, 0.25, 0.5), np.arange(200) % 4, 40
    plan = TailPlan(thresholds=thresholds, num_resamples=40)
    learners = [memorizing_learner(kind, 200, seed) for seed in range(repeats)]
    tails = [measure_tail(learner.trials(200, seed), group, plan) for seed, learner in enumerate(learners)]
    reaching = np.array([expected_counts(learner, 200, thresholds) for learner in learners])
    expected = np.stack([reaching.sum(axis=1), *(reaching[:, group == one].sum(axis=1) for one in range(4))], axis=1)
    counts, errors, low, high = (
        np.array([getattr(tail.reaching, name) for tail in tails]) for name in ("count", "stderr", "ci_low", "ci_high")
    )
    covered = (low <= expected) & (expected <= high)
    assert 0.9 <= covered[:, 0].mean() <= 1
    assert 0.9 <= covered[:, 1:].mean() <= 1, "of classes"
    spread, claimed = (np.sqrt((values[:, 0] ** 2).mean(axis=0)) for values in (counts - expected, errors))
    assert (claimed > 0.75 * spread).all()
    assert claimed[0] < 1.4 * spread[0] or kind == "gap", "where nothing lies near, halves waver and the run does not"
    true = np.array([[(each.memorization >= at - 1e-12).sum() for at in thresholds] for each in learners])
    names = ("count", "ci_low", "ci_high")
    corrected, true_low, true_high = (np.array([getattr(tail.true, name) for tail in tails]) for name in names)
    assert np.isnan(corrected[:, 0]).all(), "0.1 is within the noise of 0"
    found = (true_low[:, 1:] <= true[:, 1:]) & (true[:, 1:] <= true_high[:, 1:])
    assert found.mean() >= 0.93
    if kind == "thin":  # of three examples that seem to reach 0.25 one does not
        assert counts[:, 0, 1].mean() > 1.4 * true[:, 1].mean()
        assert abs(corrected[:, 1].mean() / true[:, 1].mean() - 1) < 0.2


def test_the_error_of_a_corrected_count_is_that_of_examples_that_lie_at_random() -> None:
    rng, num = np.random.default_rng(0), 200
    truth = rng.uniform(-8, 8, (4000, num))  # in standard errors from the threshold
    estimate = truth + rng.normal(size=truth.shape)
    corrected = (2.0 * (estimate >= 0) - ndtr(estimate)).sum(axis=1)  # half of the trials: as much noise again
    error = np.sqrt(np.mean((corrected - (truth >= 0).sum(axis=1)) ** 2))
    of_the_count = np.sqrt((ndtr(truth) * ndtr(-truth)).sum(axis=1).mean())
    counts = np.array([100.0]), np.array([100.0]), np.array([100.0])
    found = true_counts(counts, np.array([of_the_count]), np.array([True]), 1e9)
    assert found.stderr[0] == pytest.approx(error, rel=0.05)
    assert (found.count[0], found.ci_high[0]) == pytest.approx((100, 100 + 1.96 * found.stderr[0]), rel=1e-4)


def test_a_thin_tail_of_normal_noise_is_extrapolated_exactly() -> None:
    lifted = np.exp(
        np.array([1.0, 2.0, 4.0]) * 0.5**2 / 2
    )  # by noise of half the tail's scale, in all, half, a quarter
    counts = tuple(np.array([50.0 * value, 0.0]) for value in lifted)
    found = true_counts((counts[0], counts[1], counts[2]), np.array([3.0, 0.0]), np.array([True, True]), 1000.0)
    np.testing.assert_allclose(found.count, [50, 0])
    np.testing.assert_allclose(found.ci_high, [50 + 1.96 * found.stderr[0], 0], rtol=1e-4)


def test_halves_are_drawn_by_the_seed_alone() -> None:
    bits, labels = memorizing_learner("spread", 60).trials(80, 0), np.zeros(60, np.int64)
    first, again, other = (measure_tail(bits, labels, TailPlan(num_resamples=5, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.reaching.stderr, again.reaching.stderr)
    assert not np.array_equal(first.reaching.stderr, other.reaching.stderr)
    np.testing.assert_array_equal(first.reaching.count, other.reaching.count)


def test_no_rates_with_a_given_difference_have_a_larger_standard_error() -> None:
    p, num_in, num_out = np.linspace(0, 1, 2001), 70, 30
    for memorization in (0.0, 0.1, 0.5, 0.7, 0.72, 0.95, 1.0):
        q = p - memorization
        possible = q >= 0
        errors = np.sqrt(p * (1 - p) / num_in + q * (1 - q) / num_out, where=possible, out=np.zeros_like(p))
        found = largest_stderr_at(np.array([memorization]), num_in, num_out)[0]
        assert found == pytest.approx(errors.max(), abs=1e-6)
    assert correctable(np.array([0.05, 0.1, 0.95]), 1400, 600).tolist() == [False, True, True]
    assert correctable(np.array([-0.5, 0.5, 1.0]), 7, 3).tolist() == [False, False, False]


def test_of_few_trials_nothing_is_claimed() -> None:
    learner, labels = memorizing_learner("spread", 30), np.zeros(30, np.int64)
    tails = {num: measure_tail(learner.trials(num, 0), labels, PLAN) for num in (19, 20, 39)}
    assert np.isnan(tails[19].histogram.stderr).all()
    assert np.isfinite(tails[20].histogram.stderr).all()
    assert all(np.isnan(tail.true.count).all() for tail in tails.values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_bins": 0}, "found 0 bins"),
        ({"num_resamples": 1}, "1 halves"),
        ({"seed": -1}, "seed -1"),
        ({"thresholds": ()}, "ascending numbers in -1 .. 1"),
        ({"thresholds": (0.5, 0.5)}, "ascending numbers in -1 .. 1"),
        ({"thresholds": (0.5, 1.5)}, "ascending numbers in -1 .. 1"),
    ],
)
def test_a_plan_that_counts_nothing_is_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        TailPlan(**changes)  # type: ignore[arg-type]
