"""Estimates against the textbook formula in float64, and intervals against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep

from feldman.estimates.influence import estimate_influence
from feldman.estimates.intervals import (
    agresti_caffo_interval,
    newcombe_interval,
    proportion_difference,
    wald_interval,
)
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import pack_rows
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials


@given(any_trials())
@settings(deadline=None)
def test_memorization_is_the_textbook_formula_and_nan_where_a_group_is_empty(trials: Trials) -> None:
    found = estimate_memorization(trials.packed())
    expected = oracle.memorization(trials.subset_mask, trials.train_correct)
    np.testing.assert_allclose(found.memorization, expected, atol=1e-12, equal_nan=True)
    empty = trials.subset_mask.all(axis=0) | ~trials.subset_mask.any(axis=0)
    for values in (found.memorization, found.stderr, found.ci_low, found.ci_high):
        np.testing.assert_array_equal(np.isnan(values), empty)
    np.testing.assert_array_equal(found.num_in + found.num_out, len(trials.subset_mask))
    np.testing.assert_array_equal(found.correct_in + found.correct_out, trials.train_correct.sum(axis=0))


@given(any_trials())
@settings(deadline=None)
def test_influence_is_the_textbook_formula_and_nan_where_a_group_is_empty(trials: Trials) -> None:
    found = estimate_influence(trials.packed(), trials.every_example)
    expected = oracle.influence(trials.subset_mask, trials.test_correct)
    np.testing.assert_allclose(found.value, expected, atol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(np.isnan(found.stderr), np.isnan(expected))


@given(any_trials(), st.integers(0, 2**32))
@settings(deadline=None)
def test_the_order_of_trials_does_not_matter(trials: Trials, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(trials.subset_mask))
    bits, shuffled = trials.packed(), Trials(*(rows[order] for rows in trials)).packed()
    every = trials.every_example
    np.testing.assert_array_equal(estimate_influence(bits, every).value, estimate_influence(shuffled, every).value)
    np.testing.assert_array_equal(
        estimate_memorization(bits).memorization, estimate_memorization(shuffled).memorization
    )


@given(st.lists(st.integers(1, 150), min_size=1, max_size=5), st.sampled_from([1, 5, 511, 512, 700]))
@settings(deadline=None, max_examples=40)
def test_packing_block_by_block_is_packing_at_once(sizes: list[int], num_examples: int) -> None:
    rng = np.random.default_rng(len(sizes))
    rows = rng.random((sum(sizes), num_examples)) < 0.5
    num_words = -(-len(rows) // 64)
    words = np.zeros((num_examples, num_words), np.uint64)
    start = 0
    for size in sizes:
        pack_rows(rows[start : start + size].view(np.uint8), start, words)
        start += size
    padded = np.zeros((num_examples, num_words * 64), bool)
    padded[:, : len(rows)] = rows.T
    np.testing.assert_array_equal(np.packbits(padded, axis=1, bitorder="little").view("<u8"), words)


METHODS = {"newcomb": newcombe_interval, "wald": wald_interval, "agresti-caffo": agresti_caffo_interval}


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
@settings(deadline=None, max_examples=100)
def test_intervals_are_those_of_statsmodels(method: str, num_in: int, num_out: int, data: st.DataObject) -> None:
    counts = data.draw(st.integers(0, num_in)), num_in, data.draw(st.integers(0, num_out)), num_out
    low, high = METHODS[method](*(np.array([n]) for n in counts))
    expected = confint_proportions_2indep(*counts, method=method, compare="diff")
    np.testing.assert_allclose([low[0], high[0]], expected, atol=1e-12)


@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
@settings(deadline=None, max_examples=200)
def test_an_estimates_interval_holds_it_and_lies_within_minus_one_and_one(
    num_in: int, num_out: int, data: st.DataObject
) -> None:
    counts = data.draw(st.integers(0, num_in)), num_in, data.draw(st.integers(0, num_out)), num_out
    found = proportion_difference(*(np.array([n]) for n in counts))
    assert -1 - 1e-12 <= found.ci_low[0] <= found.value[0] + 1e-12
    assert found.value[0] - 1e-12 <= found.ci_high[0] <= 1 + 1e-12


def test_intervals_of_an_empty_group_are_undefined_by_every_method() -> None:
    for counts in ((0, 0, 3, 5), (3, 5, 0, 0), (0, 0, 0, 0)):
        for method in METHODS.values():
            assert np.isnan(method(*(np.array([n]) for n in counts))).all()


def test_the_standard_error_is_that_of_repeated_estimates() -> None:
    rng = np.random.default_rng(1)
    for p, q in ((0.5, 0.5), (0.9, 0.3), (0.99, 0.95)):
        correct_in, correct_out = rng.binomial(700, p, 20_000), rng.binomial(300, q, 20_000)
        found = proportion_difference(correct_in, np.array(700), correct_out, np.array(300))
        assert found.stderr.mean() == pytest.approx(found.value.std(), rel=0.03)


def test_the_worst_standard_error_is_the_published_one() -> None:
    for num_trials, expected in ((250, 0.069), (2000, 0.0244), (4000, 0.0173)):
        counts = [np.array([share * num_trials]) for share in (0.35, 0.7, 0.15, 0.3)]
        assert proportion_difference(*counts).stderr[0] == pytest.approx(expected, abs=5e-4)
