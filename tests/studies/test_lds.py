"""The score is SciPy's rank correlation, rises with trials on an additive truth, and is nothing by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits, pack_trials, unpack_trials
from feldman.studies import lds
from feldman.studies.lds import LDS_SCHEMA, LdsPlan, column_spearman, default_train_sizes, measure_lds
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials


def additive_trials(num_trials: int, noise: float = 0.5) -> TrialBits:
    """Test examples whose chance to be right is a sum over a few members of the subset."""
    rng = np.random.default_rng(0)
    mask = rng.random((num_trials, 40)) < 0.7
    effects = np.where(rng.random((40, 25)) < 0.15, rng.normal(0, 1, (40, 25)), 0.0)
    signal = mask @ effects
    test = signal + noise * rng.normal(size=signal.shape) > np.median(signal, axis=0)
    return pack_trials(mask, mask, test)


@given(any_trials())
@settings(deadline=None, max_examples=30)
def test_unpacking_undoes_packing(trials: Trials) -> None:
    bits = trials.packed()
    np.testing.assert_array_equal(unpack_trials(bits.subset_mask, bits.num_trials), trials.subset_mask)
    np.testing.assert_array_equal(unpack_trials(bits.test_correct, bits.num_trials), trials.test_correct)


@given(st.integers(3, 40), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_the_correlation_of_columns_is_scipys_and_nan_where_one_is_constant(num: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 4, (2, num, 3)).astype(np.float64)
    first[:, 0] = 1.0
    found = column_spearman(first, second)
    assert np.isnan(found[0])
    for column in (1, 2):
        if len(set(first[:, column])) > 1 and len(set(second[:, column])) > 1:
            assert found[column] == pytest.approx(spearmanr(first[:, column], second[:, column]).statistic)


@given(any_trials())
@settings(deadline=None, max_examples=30)
def test_the_difference_of_means_predicts_by_sums_of_influences(trials: Trials) -> None:
    predict = lds._fit_difference(trials.subset_mask, trials.test_correct)
    influence = np.nan_to_num(oracle.influence(trials.subset_mask, trials.test_correct))
    subsets = trials.subset_mask.astype(np.float64)
    np.testing.assert_allclose(predict(subsets), subsets @ influence, atol=1e-9)


def test_the_score_rises_with_trials_on_an_additive_truth_and_is_nothing_by_chance() -> None:
    plan = LdsPlan(sizes=(30, 100, 400), num_held_out=150, num_test=20, estimators=("difference", "ridge", "lasso"))
    done: list[tuple[int, int]] = []
    bits = additive_trials(550)
    table = measure_lds(bits, plan, lambda *counts: done.append(counts))
    assert table.schema == LDS_SCHEMA
    assert done == [(k, 9) for k in range(1, 10)]
    for estimator in plan.estimators:
        rows = [row for row in table.to_pylist() if row["estimator"] == estimator]
        scores = [row["lds"] for row in rows]
        assert scores == sorted(scores)
        assert scores[-1] > 0.6
        assert abs(rows[-1]["lds_chance"]) < 0.1
        assert rows[-1]["num_test"] == 20
        assert 0 < rows[-1]["stderr"] < 0.1
    assert measure_lds(bits, plan).equals(table)


def test_a_prediction_that_is_the_same_for_all_subsets_scores_nothing() -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((60, 10)) < 0.7
    mask[:, :] = mask[:1]  # every example in all trials, or in none: nothing is known of any
    table = measure_lds(
        pack_trials(mask, mask, rng.random((60, 5)) < 0.5),
        LdsPlan(sizes=(30,), num_held_out=30, estimators=("difference",)),
    )
    assert table["lds"].to_pylist() == [0.0]
    assert table["num_test"].to_pylist() == [5]


def test_test_examples_that_all_trials_agree_about_are_not_drawn() -> None:
    bits = additive_trials(60)
    same = pack_trials(np.eye(60, dtype=bool), np.eye(60, dtype=bool), np.ones((60, 4), bool))
    with pytest.raises(QueryError, match="all trials agree about every test example"):
        measure_lds(same, LdsPlan(sizes=(30,), num_held_out=30))
    with pytest.raises(
        QueryError, match="of 60 trials 30 are held out: estimates can be made from 30 at most; found 31"
    ):
        measure_lds(bits, LdsPlan(sizes=(31,), num_held_out=30))


@pytest.mark.parametrize("wrong", [{"sizes": (19,)}, {"num_held_out": 19}, {"num_test": 0}, {"sizes": ()}])
def test_a_plan_that_scores_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(QueryError, match="a score takes 20 trials to estimate from, 20 held out and a test example"):
        LdsPlan(**{"sizes": (50,), "num_held_out": 50, **wrong})  # type: ignore[arg-type]


def test_default_sizes_halve_while_there_are_50_trials() -> None:
    assert default_train_sizes(480) == (60, 120, 240, 480)
    assert default_train_sizes(32) == (32,)
