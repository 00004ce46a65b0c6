"""Estimates against the textbook formula in float64, and intervals against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statsmodels.stats.proportion import confint_proportions_2indep

from feldman.estimates import influence as influence_module
from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import estimate_influence, select_pairs
from feldman.estimates.intervals import proportion_difference
from feldman.estimates.memorization import estimate_memorization
from tests.estimates import oracle


@st.composite
def any_bits(draw: st.DrawFn) -> TrialBits:
    """Bits of any small shape; examples that are in every trial, or in none, are likely."""
    num_trials, num_train, num_test = draw(st.integers(1, 70)), draw(st.integers(1, 9)), draw(st.integers(1, 7))
    mask = draw(hnp.arrays(bool, (num_trials, num_train)))
    for column in range(num_train):
        fixed = draw(st.sampled_from([None, None, False, True]))
        if fixed is not None:
            mask[:, column] = fixed
    return TrialBits(
        subset_mask=mask,
        train_correct=draw(hnp.arrays(bool, (num_trials, num_train))),
        test_correct=draw(hnp.arrays(bool, (num_trials, num_test))),
    )


@given(any_bits())
@settings(deadline=None)
def test_memorization_is_the_textbook_formula_and_nan_where_a_group_is_empty(bits: TrialBits) -> None:
    found = estimate_memorization(bits)
    expected = oracle.memorization(bits.subset_mask, bits.train_correct)
    np.testing.assert_allclose(found.memorization, expected, atol=1e-12, equal_nan=True)
    empty = bits.subset_mask.all(axis=0) | ~bits.subset_mask.any(axis=0)
    for values in (found.memorization, found.stderr, found.ci_low, found.ci_high):
        np.testing.assert_array_equal(np.isnan(values), empty)
    np.testing.assert_array_equal(found.num_in + found.num_out, bits.num_trials)
    np.testing.assert_array_equal(found.correct_in + found.correct_out, bits.train_correct.sum(axis=0))


@given(any_bits())
@settings(deadline=None)
def test_influence_is_the_textbook_formula_and_nan_where_a_group_is_empty(bits: TrialBits) -> None:
    found = estimate_influence(bits, np.arange(bits.subset_mask.shape[1]))
    expected = oracle.influence(bits.subset_mask, bits.test_correct)
    np.testing.assert_allclose(found.value, expected, atol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(np.isnan(found.stderr), np.isnan(expected))


@given(any_bits(), st.integers(1, 200), st.floats(-1, 1), st.floats(-1, 1))
@settings(deadline=None)
def test_pairs_are_those_of_the_dense_matrix_whatever_the_tile(
    bits: TrialBits, tile_values: int, min_influence: float, min_memorization: float
) -> None:
    memorization = estimate_memorization(bits).memorization
    dense = estimate_influence(bits, np.arange(len(memorization)))
    with np.errstate(invalid="ignore"):
        kept = (dense.value >= min_influence) & (memorization >= min_memorization)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(influence_module, "_TILE_VALUES", tile_values)
        pairs = select_pairs(bits, memorization, min_influence=min_influence, min_memorization=min_memorization)
    np.testing.assert_array_equal(np.stack([pairs.train_index, pairs.test_index]), np.stack(np.nonzero(kept)))
    for name, values in dense._asdict().items():
        np.testing.assert_array_equal(getattr(pairs, "influence" if name == "value" else name), values[kept])


@given(any_bits(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_trials_does_not_matter(bits: TrialBits, random: object) -> None:
    order = np.random.default_rng(0).permutation(bits.num_trials)
    shuffled = TrialBits(
        subset_mask=bits.subset_mask[order],
        train_correct=bits.train_correct[order],
        test_correct=bits.test_correct[order],
    )
    every = np.arange(bits.subset_mask.shape[1])
    np.testing.assert_array_equal(estimate_influence(bits, every).value, estimate_influence(shuffled, every).value)
    np.testing.assert_array_equal(
        estimate_memorization(bits).memorization, estimate_memorization(shuffled).memorization
    )


@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
@settings(deadline=None, max_examples=200)
def test_intervals_are_those_of_statsmodels(num_in: int, num_out: int, data: st.DataObject) -> None:
    correct_in, correct_out = data.draw(st.integers(0, num_in)), data.draw(st.integers(0, num_out))
    found = proportion_difference(*(np.array([n]) for n in (correct_in, num_in, correct_out, num_out)))
    low, high = confint_proportions_2indep(correct_in, num_in, correct_out, num_out, method="newcomb", compare="diff")
    np.testing.assert_allclose([found.ci_low[0], found.ci_high[0]], [low, high], atol=1e-12)
    assert found.ci_low[0] <= found.value[0] + 1e-12
    assert found.value[0] <= found.ci_high[0] + 1e-12


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
