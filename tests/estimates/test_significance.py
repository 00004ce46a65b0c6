"""p-values against SciPy's Fisher test, q-values against statsmodels, and what they must hold under chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom
from statsmodels.stats.multitest import multipletests

from feldman.estimates.selection import PairSelection
from feldman.estimates.significance import QValues, num_pairs_tested, pair_p_values


def p_value_of(joint: int, num_in: int, right: int, num_trials: int) -> float:
    return float(pair_p_values(np.array([joint]), np.array([num_in]), np.array([right]), num_trials=num_trials)[0])


@given(st.integers(1, 3000), st.data())
@settings(deadline=None, max_examples=200)
def test_p_values_are_twice_the_smaller_hypergeometric_tail(num_trials: int, data: st.DataObject) -> None:
    num_in, right = data.draw(st.integers(0, num_trials)), data.draw(st.integers(0, num_trials))
    joint = data.draw(st.integers(max(0, num_in + right - num_trials), min(num_in, right)))
    found = p_value_of(joint, num_in, right, num_trials)
    if num_in in (0, num_trials):
        assert np.isnan(found)
        return
    known = hypergeom(num_trials, right, num_in)
    assert found == pytest.approx(min(1.0, 2 * min(known.sf(joint - 1), known.cdf(joint))), rel=1e-8)


def test_p_values_keep_their_digits_where_they_are_tiny() -> None:
    found = p_value_of(500, 700, 500, 1000)
    exact = hypergeom(1000, 500, 700).pmf(500)  # all that got it right had the example: the tail is one term
    assert found == pytest.approx(2 * exact, rel=1e-9)
    assert 0 < found < 1e-80


@given(st.integers(2, 300), st.data())
@settings(deadline=None, max_examples=60)
def test_under_chance_a_p_value_is_as_small_as_u_at_most_with_probability_u(
    num_trials: int, data: st.DataObject
) -> None:
    num_in, right = data.draw(st.integers(1, num_trials - 1)), data.draw(st.integers(0, num_trials))
    counts = np.arange(max(0, num_in + right - num_trials), min(num_in, right) + 1)
    p_values = pair_p_values(counts, np.full_like(counts, num_in), np.full_like(counts, right), num_trials=num_trials)
    mass = hypergeom(num_trials, right, num_in).pmf(counts)
    for u in p_values:
        assert mass[p_values <= u].sum() <= u * (1 + 1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 60))
@settings(deadline=None)
def test_q_values_of_all_pairs_are_those_of_statsmodels(values: list[float], repeated: int) -> None:
    p_value = np.array(values + values[:repeated])  # some of them equal
    expected = multipletests(p_value, method="fdr_bh")[1]
    np.testing.assert_allclose(QValues.of(p_value, len(p_value))(p_value), expected, rtol=1e-12, atol=1e-300)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.data())
@settings(deadline=None)
def test_q_values_of_kept_pairs_are_never_below_those_of_all_and_equal_if_the_smallest_were_kept(
    values: list[float], data: st.DataObject
) -> None:
    p_value = np.sort(np.array(values))
    whole = QValues.of(p_value, len(p_value))(p_value)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    found = QValues.of(p_value[kept], len(p_value))(p_value[kept])
    assert (found >= whole[kept] * (1 - 1e-12) - 1e-300).all()
    with_ones = multipletests(np.where(kept, p_value, 1.0), method="fdr_bh")[1][kept]
    np.testing.assert_allclose(found, with_ones, rtol=1e-12, atol=1e-300)


def test_an_undefined_p_value_has_an_undefined_q_value_and_takes_no_rank() -> None:
    p_value = np.array([0.01, np.nan, 0.02])
    np.testing.assert_allclose(QValues.of(p_value, 10)(p_value), [0.1, np.nan, 0.1])
    assert len(QValues.of(np.empty(0), 5)(np.empty(0))) == 0


@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 4), max_size=12), st.booleans())
def test_pairs_tested_are_counted_as_a_double_loop_counts_them(first: list[int], second: list[int], same: bool) -> None:
    selection = PairSelection(same_class=same)
    expected = sum(1 for a in first for b in second if not same or a == b)
    assert num_pairs_tested(selection, np.array(first, int), np.array(second, int)) == expected


def test_no_example_is_tested_for_its_influence_on_itself() -> None:
    labels = np.array([0, 1, 1, 2])
    assert num_pairs_tested(PairSelection(targets="train"), labels[1:3], labels) == 2 * 3
    assert num_pairs_tested(PairSelection(targets="train", same_class=True), labels[1:3], labels) == 2
