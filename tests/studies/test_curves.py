"""J and D against the threshold are those of Python's own sets, at every threshold at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.errors import QueryError
from feldman.estimates.high_influence import count_high, high_influence
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.studies.curves import ConsistencyCurve, consistency_curves, estimate_run, memorization_curve
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials

values = st.one_of(st.just(math.nan), st.sampled_from([0.0007, 0.2507, 0.5003]), st.floats(-1, 1))
grids = st.lists(st.sampled_from([-1.0, -0.2003, 0.0007, 0.1003, 0.2507, 0.5003, 1.0]), min_size=1, unique=True).map(
    sorted
)
"""Which no difference of two rates equals but for the ends: rounding decides nothing."""


def by_sets(values: tuple[dict[Any, float], dict[Any, float]], chosen: tuple[set[Any], set[Any]]) -> tuple[float, ...]:
    """Sizes, J and D, as the paper writes them."""
    either, both = chosen[0] | chosen[1], chosen[0] & chosen[1]
    gaps = [abs(values[0][i] - values[1][i]) for i in either if not math.isnan(values[0][i] - values[1][i])]
    return (
        *(len(each) for each in (*chosen, both)),
        len(both) / len(either) if either else math.nan,
        sum(gaps) / len(gaps) if gaps else math.nan,
    )


def at(curve: ConsistencyCurve, place: int) -> tuple[float, ...]:
    names = ("num_first", "num_second", "num_both", "jaccard", "mean_difference")
    return tuple(float(getattr(curve, name)[place]) for name in names)


@given(st.lists(st.tuples(values, values), max_size=30), grids, grids)
def test_memorization_is_compared_as_the_papers_sets_are_at_every_threshold(
    pairs: list[tuple[float, float]], first: list[float], second: list[float]
) -> None:
    levels = first[: len(second)], second[: len(first)]
    sides = tuple(np.array([pair[k] for pair in pairs], np.float64) for k in (0, 1))
    curve = memorization_curve(sides[0], sides[1], (np.array(levels[0]), np.array(levels[1])))
    known = dict(enumerate(sides[0])), dict(enumerate(sides[1]))
    for place, thresholds in enumerate(zip(*levels, strict=True)):
        chosen = tuple({i for i, v in side.items() if v >= t} for side, t in zip(known, thresholds, strict=True))
        assert at(curve, place) == pytest.approx(by_sets(known, (chosen[0], chosen[1])), nan_ok=True, abs=1e-12)


@given(any_trials(), grids, st.sampled_from([-1.0, 0.0007, 0.2507]), st.integers(1, 300))
@settings(deadline=None, max_examples=35)
def test_influence_is_compared_as_the_papers_sets_are_at_every_threshold(
    trials: Trials, grid: list[float], min_memorization: float, cut: int
) -> None:
    num = len(trials.subset_mask)
    place = cut % num
    sides = Trials(*(rows[: place + 1] for rows in trials)), Trials(*(rows[place:] for rows in trials))
    selection = PairSelection(min_influence=grid[0], min_memorization=min_memorization)
    first, second = (estimate_run(side.packed(), selection) for side in sides)
    levels = np.array(grid)
    curve = consistency_curves(first, second, (levels, levels), (levels, levels))["influence"]
    known, eligible = [], []
    for side in sides:
        dense = oracle.influence(side.subset_mask, side.test_correct)
        known.append({(int(i), int(j)): float(dense[i, j]) for i, j in np.ndindex(*dense.shape)})
        memorization = oracle.memorization(side.subset_mask, side.train_correct)
        eligible.append({i for i, value in enumerate(memorization) if value >= min_memorization})
    for k, threshold in enumerate(grid):
        chosen = [
            {pair for pair, value in known[s].items() if value >= threshold and pair[0] in eligible[s]} for s in (0, 1)
        ]
        expected = by_sets((known[0], known[1]), (chosen[0], chosen[1]))
        assert at(curve, k) == pytest.approx(expected, nan_ok=True, abs=1e-9)


@given(any_trials())
@settings(deadline=None, max_examples=20)
def test_bits_of_a_run_agree_with_themselves_wherever_anything_is_selected(trials: Trials) -> None:
    levels = np.array([0.0, 0.1, 0.3])
    estimates = estimate_run(trials.packed(), PairSelection(min_influence=0.0, min_memorization=0.0))
    for curve in consistency_curves(estimates, estimates, (levels, levels), (levels, levels)).values():
        empty = curve.num_first == 0
        assert (np.isnan(curve.jaccard) == empty).all()
        assert (np.isnan(curve.mean_difference) == empty).all()
        assert (curve.jaccard[~empty] == 1).all()
        assert (curve.mean_difference[~empty] == 0).all()


@given(any_trials(), st.sampled_from([-1.0, 0.0, 0.2]), st.sampled_from([-1.0, 0.1]))
@settings(deadline=None, max_examples=20)
def test_pairs_without_errors_are_those_with_errors(
    trials: Trials, min_influence: float, min_memorization: float
) -> None:
    bits = trials.packed()
    memorization = estimate_memorization(bits).memorization
    selection = PairSelection(min_influence=min_influence, min_memorization=min_memorization)
    found, expected = high_influence(bits, memorization, selection), select_pairs(bits, memorization, selection)
    num_test = trials.test_correct.shape[1]
    np.testing.assert_array_equal(found.key, expected.train_index * num_test + expected.target_index)
    np.testing.assert_array_equal(found.influence, expected.influence)
    assert count_high(bits, memorization, selection) == len(found.key)


def test_more_pairs_than_can_be_held_are_refused_before_they_are() -> None:
    rng = np.random.default_rng(0)
    bits = Trials(*(rng.random((40, size)) < 0.5 for size in (9, 9, 300))).packed()
    memorization = estimate_memorization(bits).memorization
    everything = PairSelection(min_influence=-1.0, min_memorization=-1.0)
    with pytest.raises(QueryError, match=r"40 trials select more than 100 pairs \(all that are defined\)"):
        high_influence(bits, memorization, everything, most=100)
    with pytest.raises(QueryError, match="that reach thresholds, and no other"):
        high_influence(bits, memorization, PairSelection(top_per_target=1))
