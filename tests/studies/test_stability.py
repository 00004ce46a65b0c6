"""Halves are disjoint runs of fewer trials; agreement rises with trials and stays above chance."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits, pack_trials, take_trials
from feldman.estimates.selection import PairSelection
from feldman.studies.halves import split_halves
from feldman.studies.stability import (
    STABILITY_SCHEMA,
    StabilityPlan,
    default_sizes,
    measure_stability,
    stability_summary,
)
from tests.benchmarks.planted import planted_learner
from tests.estimates.trials import Trials, any_trials


@given(any_trials(), st.data())
@settings(deadline=None, max_examples=60)
def test_trials_that_are_taken_are_a_run_of_these_alone(trials: Trials, data: st.DataObject) -> None:
    every = st.integers(0, len(trials.subset_mask) - 1)
    chosen = np.array(data.draw(st.lists(every, min_size=1, max_size=200)), np.int64)
    found, expected = take_trials(trials.packed(), chosen), Trials(*(rows[chosen] for rows in trials)).packed()
    assert found.num_trials == expected.num_trials
    for name in ("subset_mask", "train_correct", "test_correct"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def numbered_trials(num_trials: int) -> TrialBits:
    """Trial k has training example k alone: so a half tells which trials it is of."""
    mask = np.eye(num_trials, dtype=bool)
    return pack_trials(mask, mask, mask)


def trials_of(bits: TrialBits) -> set[int]:
    return set(np.flatnonzero(bits.subset_mask.any(axis=1)).tolist())


@given(st.integers(20, 150), st.integers(0, 9), st.integers(0, 9), st.data())
@settings(deadline=None, max_examples=40)
def test_halves_are_disjoint_and_smaller_ones_lie_in_larger_ones(
    num_trials: int, seed: int, repeat: int, data: st.DataObject
) -> None:
    bits = numbered_trials(num_trials)
    large = split_halves(bits, num_trials // 2, seed=seed, repeat=repeat)
    size = data.draw(st.integers(10, num_trials // 2))
    small = split_halves(bits, size, seed=seed, repeat=repeat)
    assert [half.num_trials for half in small] == [size, size]
    assert [len(trials_of(half)) for half in small] == [size, size]
    assert not trials_of(large.first) & trials_of(large.second)
    assert trials_of(small.first) <= trials_of(large.first)
    assert trials_of(small.second) <= trials_of(large.second)
    again = split_halves(bits, size, seed=seed, repeat=repeat)
    assert trials_of(again.first) == trials_of(small.first)


def test_another_repeat_or_seed_is_another_split() -> None:
    bits = numbered_trials(100)
    draws = {frozenset(trials_of(split_halves(bits, 50, seed=s, repeat=r).first)) for s in range(3) for r in range(3)}
    assert len(draws) == 9


@pytest.mark.parametrize(("num_trials", "size"), [(100, 51), (100, 9), (15, 7)])
def test_halves_that_there_are_not_are_refused(num_trials: int, size: int) -> None:
    expected = f"a half of {num_trials} trials has 10 to {num_trials // 2} of them; found {size}"
    with pytest.raises(QueryError, match=re.escape(expected)):
        split_halves(numbered_trials(num_trials), size, seed=0)


@pytest.mark.parametrize(
    ("num_trials", "sizes"),
    [(600, (37, 75, 150, 300)), (4000, (31, 62, 125, 250, 500, 1000, 2000)), (40, (20,)), (8, (10,))],
)
def test_default_sizes_halve_while_there_are_25_trials(num_trials: int, sizes: tuple[int, ...]) -> None:
    assert default_sizes(num_trials) == sizes


def test_agreement_rises_with_trials_and_lies_above_chance() -> None:
    bits = planted_learner().trials(800, 0)
    labels = np.zeros(60, np.int64), np.zeros(60, np.int64)
    selection = PairSelection(min_influence=0.25, min_memorization=0.25)
    done: list[tuple[int, int]] = []
    plan = StabilityPlan(sizes=(25, 100, 400), num_repeats=4, selection=selection)
    table = measure_stability(bits, labels, plan, lambda *counts: done.append(counts))
    assert table.schema == STABILITY_SCHEMA
    assert table.num_rows == 3 * 4 * 4
    assert done == [(k, 12) for k in range(1, 13)]
    for estimate in ("memorization", "influence"):
        by_size = {
            name: [mean for _, mean, _ in stability_summary(table, estimate, "halves", name)]
            for name in ("jaccard", "mean_difference", "spearman")
        }
        assert by_size["jaccard"] == sorted(by_size["jaccard"])
        assert by_size["jaccard"][-1] > 0.85
        assert by_size["mean_difference"] == sorted(by_size["mean_difference"], reverse=True)
        assert by_size["spearman"][-1] > by_size["spearman"][0]
        chance = [mean for _, mean, _ in stability_summary(table, estimate, "chance", "jaccard")]
        assert max(chance) < by_size["jaccard"][-1] - 0.3
        assert abs(stability_summary(table, estimate, "chance", "spearman")[-1][1]) < 0.3
    assert measure_stability(bits, labels, plan).equals(table)


def test_a_summary_leaves_out_what_is_undefined() -> None:
    bits = planted_learner().trials(60, 0)
    labels = np.zeros(60, np.int64), np.zeros(60, np.int64)
    selection = PairSelection(min_influence=1.0, min_memorization=1.0)
    table = measure_stability(bits, labels, StabilityPlan(sizes=(30,), num_repeats=1, selection=selection))
    assert np.isnan(stability_summary(table, "influence", "halves", "jaccard")[0][1:]).all()


@pytest.mark.parametrize("wrong", [{"sizes": ()}, {"num_repeats": 0}, {"seed": -1}])
def test_a_plan_that_measures_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(QueryError, match="stability is measured at one size or more, repeated once or more"):
        StabilityPlan(**{"sizes": (10,), **wrong})  # type: ignore[arg-type]


def test_tops_are_no_sets_that_stability_compares() -> None:
    with pytest.raises(QueryError, match="that reach thresholds, not tops"):
        StabilityPlan(sizes=(10,), selection=PairSelection(top_per_target=1))
