"""The accuracy that memorized examples carry, against plain least squares and against a truth that adds up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.api import OLS

from feldman.studies.carried import carried_accuracy, fold_slope
from tests.benchmarks.planted import additive_trials, memorizing_learner
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials


@given(st.integers(0, 999), st.integers(20, 60))
@settings(deadline=None, max_examples=30)
def test_the_slope_is_that_of_least_squares_with_an_intercept_a_fold(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    fold = np.arange(num) % 5
    x, y = rng.integers(0, 9, num).astype(np.float64), rng.normal(size=num) + fold
    slope, stderr, freedom = fold_slope(x, y, fold)
    fitted = OLS(y, np.column_stack([x, fold[:, None] == np.arange(5)])).fit()
    assert (slope, stderr, freedom) == pytest.approx((fitted.params[0], fitted.bse[0], fitted.df_resid))


@given(any_trials())
@settings(deadline=None, max_examples=25)
def test_each_fold_counts_the_examples_that_the_others_find_memorized(trials: Trials) -> None:
    rows = carried_accuracy(trials.packed(), (0.1, 0.4))
    num_trials, num_train = trials.subset_mask.shape
    if num_trials < 20:
        assert rows == []
        return
    accuracy, fold = trials.test_correct.mean(axis=1), np.arange(num_trials) % 5
    values = oracle.memorization(trials.subset_mask, trials.train_correct)
    totals = oracle.influence(trials.subset_mask, trials.test_correct).mean(axis=1)
    for row in rows:
        counts = np.zeros(num_trials)
        for k in range(5):
            others = oracle.memorization(trials.subset_mask[fold != k], trials.train_correct[fold != k])
            counts[fold == k] = trials.subset_mask[fold == k][:, others >= row.min_memorization].sum(axis=1)
        slope, stderr, _ = fold_slope(counts, accuracy, fold)
        memorized = values >= row.min_memorization
        num = int(memorized.sum())
        share = (num_train - num) / max(num_train - 1, 1)
        assert row.num_memorized == num
        expected = [num * slope, num * stderr, share * num * slope, share * num * stderr]
        found = [row.carried, row.stderr, row.below_random, row.below_random_stderr]
        np.testing.assert_allclose(found, expected, atol=1e-9)
        np.testing.assert_allclose(row.influence_sum, totals[memorized].sum(), atol=1e-9)


def test_intervals_cover_what_memorized_examples_truly_add_and_plain_sums_of_influences_are_too_high() -> None:
    z, shares, lifted = [], [], []
    for seed in range(60):
        bits, effect = additive_trials(200, 150, seed)
        (row,) = carried_accuracy(bits, (0.25,))
        memorized = np.array(
            oracle_memorized(bits.subset_mask, bits.train_correct, bits.num_trials, row.min_memorization)
        )
        truth = row.num_memorized * (effect[memorized].mean() - effect[~memorized].mean())
        z.append((row.carried - truth) / row.stderr)
        shares.append(row.ci_low <= truth <= row.ci_high)
        lifted.append((row.influence_sum - row.below_random) / row.below_random_stderr)
    assert abs(np.mean(z)) < 0.35, "three of its standard errors"
    assert 0.8 < np.std(z) < 1.25
    assert np.mean(shares) >= 0.88
    assert np.mean(lifted) > 0.25


def oracle_memorized(subsets: np.ndarray, correct: np.ndarray, num_trials: int, threshold: float) -> np.ndarray:
    rows = (
        np.unpackbits(words.view(np.uint8), axis=1, count=num_trials, bitorder="little") for words in (subsets, correct)
    )
    mask, right = (bits.T.astype(bool) for bits in rows)
    return oracle.memorization(mask, right) >= threshold


def test_where_all_examples_or_none_are_memorized_nothing_can_be_compared() -> None:
    every, none = carried_accuracy(memorizing_learner("gap", 40).trials(60, 0), (-1.0, 1.0))
    assert (every.num_memorized, none.num_memorized) == (40, 0)
    assert np.isnan([every.carried, every.stderr, every.ci_low, none.carried, none.below_random]).all()
    assert none.influence_sum == 0
