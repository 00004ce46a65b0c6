"""J, D and rank correlation against Python's own sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from feldman.estimates.bits import TrialBits
from feldman.studies.consistency import (
    PairSet,
    influence_consistency,
    influence_of_pairs,
    memorization_consistency,
)
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials

values = st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.25, 0.5]), st.floats(-1, 1))


def by_sets(first: dict[int, float], second: dict[int, float], threshold: float) -> tuple[float, float]:
    """J and D, as the paper writes them."""
    chosen = {i for i, value in first.items() if value >= threshold}
    other = {i for i, value in second.items() if value >= threshold}
    either = chosen | other
    gaps = [abs(first[i] - second[i]) for i in either if not math.isnan(first[i] - second[i])]
    jaccard = len(chosen & other) / len(either) if either else math.nan
    return jaccard, sum(gaps) / len(gaps) if gaps else math.nan


@given(st.lists(st.tuples(values, values), max_size=30), st.sampled_from([-1.0, 0.0, 0.25, 1.0]))
def test_memorization_is_compared_as_the_papers_sets_are(pairs: list[tuple[float, float]], threshold: float) -> None:
    first, second = (np.array([pair[k] for pair in pairs], np.float64) for k in (0, 1))
    found = memorization_consistency(first, second, threshold)
    expected = by_sets(dict(enumerate(first)), dict(enumerate(second)), threshold)
    assert (found.jaccard, found.mean_difference) == pytest.approx(expected, nan_ok=True)


def test_empty_sets_are_nan_and_one_empty_set_is_not() -> None:
    low, high = np.zeros(3), np.array([0.0, 0.5, 0.9])
    nothing = memorization_consistency(low, low, 0.25)
    assert (nothing.num_first, nothing.num_second, nothing.num_both) == (0, 0, 0)
    assert math.isnan(nothing.jaccard)
    assert math.isnan(nothing.mean_difference)
    one = memorization_consistency(low, high, 0.25)
    assert (one.num_first, one.num_second, one.jaccard, one.mean_difference) == (0, 2, 0.0, 0.7)
    assert math.isnan(one.spearman), "a constant has no ranks"


def selected(trials: Trials, threshold: float) -> PairSet:
    train, test = np.nonzero(oracle.influence(trials.subset_mask, trials.test_correct) >= threshold)
    return PairSet(train=train.astype(np.int64), test=test.astype(np.int64))


def every_pair(trials: Trials) -> PairSet:
    train, test = np.indices((trials.subset_mask.shape[1], trials.test_correct.shape[1]))
    return PairSet(train=train.ravel(), test=test.ravel())


@given(any_trials(), st.sampled_from([-1.0, 0.0, 0.1, 0.4]), st.integers(0, 99), st.booleans())
@settings(deadline=None, max_examples=50)
def test_influence_is_compared_as_the_papers_sets_are_also_after_shuffling(
    trials: Trials, threshold: float, seed: int, shuffled: bool
) -> None:
    rng = np.random.default_rng(seed)
    half = max(len(trials.subset_mask) // 2, 1)
    sides = Trials(*(rows[:half] for rows in trials)), Trials(*(rows[half - 1 :] for rows in trials))
    dense = [oracle.influence(side.subset_mask, side.test_correct) for side in sides]
    num_train = len(dense[0])
    order = rng.permutation(num_train) if shuffled else np.arange(num_train)
    renamed = np.empty_like(dense[1])
    renamed[order] = dense[1]
    found = influence_consistency(
        (selected(sides[0], threshold), selected(sides[1], threshold)),
        (sides[0].packed(), sides[1].packed()),
        every_pair(trials),
        order if shuffled else None,
    )
    expected = by_sets(dict(enumerate(dense[0].ravel())), dict(enumerate(renamed.ravel())), threshold)
    assert (found.jaccard, found.mean_difference) == pytest.approx(expected, nan_ok=True, abs=1e-12)
    first, second = dense[0].ravel(), renamed.ravel()
    defined = ~np.isnan(first + second)
    first, second = (np.round(side[defined], 12) for side in (first, second))
    if len(np.unique(first)) > 1 and len(np.unique(second)) > 1:
        assert found.spearman == pytest.approx(spearmanr(first, second).statistic, abs=1e-9)


@given(any_trials())
@settings(deadline=None, max_examples=50)
def test_the_influence_of_listed_pairs_is_the_textbook_formula(trials: Trials) -> None:
    bits: TrialBits = trials.packed()
    expected = oracle.influence(trials.subset_mask, trials.test_correct)
    found = influence_of_pairs(bits, every_pair(trials)).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-12, equal_nan=True)


def test_an_estimate_agrees_with_itself() -> None:
    values = np.linspace(0, 1, 9)
    found = memorization_consistency(values, values, 0.25)
    assert (found.jaccard, found.mean_difference, found.spearman) == (1.0, 0.0, 1.0)
