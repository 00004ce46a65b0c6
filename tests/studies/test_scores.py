"""C-scores and totals against plain loops over the bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.errors import QueryError
from feldman.estimates.packing import add_weights, count_trials
from feldman.estimates.selection import PairSelection
from feldman.studies.scores import influence_totals, score_run, score_table
from tests.benchmarks.planted import planted_learner
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials

SELECTION = PairSelection(min_influence=0.3, min_memorization=0.2)


@given(any_trials(), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_counts_over_trials_and_weights_are_sums_over_the_bits(trials: Trials, seed: int) -> None:
    bits = trials.packed()
    weights = np.random.default_rng(seed).integers(0, 10_000, len(trials.subset_mask))
    np.testing.assert_array_equal(count_trials(bits.test_correct, bits.num_trials), trials.test_correct.sum(axis=1))
    np.testing.assert_array_equal(add_weights(bits.subset_mask, weights), weights @ trials.subset_mask)


@given(any_trials())
@settings(deadline=None, max_examples=50)
def test_the_total_influence_is_the_sum_over_all_test_examples(trials: Trials) -> None:
    expected = oracle.influence(trials.subset_mask, trials.test_correct).sum(axis=1)
    np.testing.assert_allclose(influence_totals(trials.packed()), expected, atol=1e-9, equal_nan=True)


@given(any_trials(), any_trials())
@settings(deadline=None, max_examples=40)
def test_the_c_score_is_the_mean_over_ratios_of_held_out_accuracy_and_runs_of_one_ratio_are_pooled(
    trials: Trials, more: Trials
) -> None:
    num = min(trials.subset_mask.shape[1], more.subset_mask.shape[1])
    runs = [Trials(*(rows[:, :num] for rows in each)) for each in (trials, more)]
    labels = np.zeros(num, np.int64), np.zeros(runs[0].test_correct.shape[1], np.int64)
    scores = [
        score_run(each.packed(), (labels[0], np.zeros(each.test_correct.shape[1], np.int64)), SELECTION, ratio)
        for each, ratio in zip(runs, (0.5, 0.7), strict=True)
    ]
    held_out = [~each.subset_mask for each in runs]
    right = [each.train_correct & out for each, out in zip(runs, held_out, strict=True)]
    with np.errstate(invalid="ignore"):
        rates = [r.sum(axis=0) / out.sum(axis=0) for r, out in zip(right, held_out, strict=True)]
        pooled = (right[0].sum(axis=0) + right[1].sum(axis=0)) / (held_out[0].sum(axis=0) + held_out[1].sum(axis=0))
    table = score_table(scores, labels[0])
    np.testing.assert_allclose(table["cscore"].to_numpy(), np.mean(rates, axis=0), equal_nan=True)
    np.testing.assert_allclose(table["rate_out_0.5"].to_numpy(), rates[0], equal_nan=True)
    one = score_table([scores[0], scores[0]], labels[0])
    np.testing.assert_allclose(one["cscore"].to_numpy(), rates[0], equal_nan=True)
    same = [
        score_run(each.packed(), (labels[0], np.zeros(each.test_correct.shape[1], np.int64)), SELECTION, 0.7)
        for each in runs
    ]
    np.testing.assert_allclose(score_table(same, labels[0])["cscore"].to_numpy(), pooled, equal_nan=True)


def test_scores_of_a_planted_learner_are_its_rates() -> None:
    learner = planted_learner()
    labels = np.zeros(60, np.int64), np.zeros(60, np.int64)
    bits = learner.trials(3000, 0)
    table = score_table([score_run(bits, labels, SELECTION, 0.7)], labels[0])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    np.testing.assert_allclose(columns["cscore"], learner.rate_out, atol=0.07)
    assert (np.abs(columns["cscore"] - learner.rate_out) < 4 * columns["stderr"] + 0.01).all()
    np.testing.assert_allclose(columns["rate_in"], learner.rate_in, atol=0.06)
    share = learner.memorization / learner.rate_in
    np.testing.assert_allclose(columns["fractional_memorization"], share, atol=0.1)
    decisive = learner.memorization > 0.4
    assert (columns["num_decided"][decisive] == 1).all()
    assert (columns["num_significant"][decisive] == 1).all()
    assert columns["num_decided"][learner.memorization < 0.2].sum() == 0


def test_scores_of_no_run_are_refused() -> None:
    with pytest.raises(QueryError, match="scores are of one run or more; found none"):
        score_table([], np.zeros(3, np.int64))
