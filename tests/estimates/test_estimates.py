"""Estimates against the textbook formula in float64, and intervals against statsmodels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from statsmodels.stats.proportion import confint_proportions_2indep

from feldman.estimates import influence as influence_module
from feldman.estimates.bits import TrialBits, pack_trials
from feldman.estimates.influence import estimate_influence, select_pairs
from feldman.estimates.intervals import proportion_difference
from feldman.estimates.kernel import pack_rows
from feldman.estimates.memorization import estimate_memorization
from tests.estimates import oracle

Bits = NDArray[np.bool_]


class Trials(NamedTuple):
    """Bits as they are in a store: bool [trial, train], [trial, train], [trial, test]."""

    subset_mask: Bits
    train_correct: Bits
    test_correct: Bits

    def packed(self) -> TrialBits:
        return pack_trials(*self)

    @property
    def every_example(self) -> NDArray[np.intp]:
        return np.arange(self.subset_mask.shape[1])


@st.composite
def any_trials(draw: st.DrawFn) -> Trials:
    """Bits of any small shape, words and lanes full or not; examples in every trial, or in none, are likely."""
    num_trials, num_train = draw(st.integers(1, 300)), draw(st.integers(1, 9))
    num_test = draw(st.one_of(st.integers(1, 7), st.sampled_from([63, 64, 65, 127, 128, 129, 300])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random((num_trials, num_train)) < draw(st.floats(0, 1))
    for column in range(num_train):
        fixed = draw(st.sampled_from([None, None, False, True]))
        if fixed is not None:
            mask[:, column] = fixed
    correct = [rng.random((num_trials, size)) < draw(st.floats(0, 1)) for size in (num_train, num_test)]
    return Trials(mask, *correct)


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


@given(any_trials(), st.integers(1, 12), st.floats(-1, 1), st.floats(-1, 1))
@settings(deadline=None)
def test_pairs_are_those_of_the_dense_matrix_whatever_the_tile(
    trials: Trials, tile_rows: int, min_influence: float, min_memorization: float
) -> None:
    bits = trials.packed()
    memorization = estimate_memorization(bits).memorization
    dense = estimate_influence(bits, trials.every_example)
    with np.errstate(invalid="ignore"):
        kept = (dense.value >= min_influence) & (memorization >= min_memorization)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(influence_module, "_TILE_ROWS", tile_rows)
        parts = list(select_pairs(bits, memorization, min_influence=min_influence, min_memorization=min_memorization))
    for name, expected in (
        *zip(("train_index", "test_index"), np.nonzero(kept), strict=True),
        *(("influence" if name == "value" else name, values[kept]) for name, values in dense._asdict().items()),
    ):
        found = np.concatenate([np.empty(0), *(getattr(part, name) for part in parts)])
        np.testing.assert_array_equal(found, expected)


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
        pack_rows(rows[start : start + size], start, words)
        start += size
    padded = np.zeros((num_examples, num_words * 64), bool)
    padded[:, : len(rows)] = rows.T
    np.testing.assert_array_equal(np.packbits(padded, axis=1, bitorder="little").view("<u8"), words)


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
