"""What a removal study removes, and how its accuracies become a table."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.errors import ExperimentError, QueryError
from feldman.studies.removal import REMOVAL_SCHEMA, RemovalPlan, removal_design, removal_table

MEMORIZATION = np.array([0.9, 0.5, 0.3, 0.1, -0.1, np.nan, 0.6, 0.2])
INFLUENTIAL = np.array([1, 0, 1, 0, 0, 0, 1, 0], bool)


def test_a_level_removes_what_reaches_its_threshold_and_nothing_that_is_undefined() -> None:
    design = removal_design(RemovalPlan(thresholds=(0.5, 0.1)), MEMORIZATION, INFLUENTIAL, 10)
    assert [(level.threshold, level.removed) for level in design.levels] == [
        (None, "nothing"),
        (0.1, "memorized"),
        (0.5, "memorized"),
    ]
    assert design.kept(0).all()
    assert np.flatnonzero(~design.kept(1)).tolist() == [0, 1, 2, 3, 6, 7]
    assert np.flatnonzero(~design.kept(2)).tolist() == [0, 1, 6]
    assert [(arm.level, arm.draw) for arm in design.arms] == [
        (0, "removal"),
        (1, "removal"),
        (1, "random"),
        (2, "removal"),
        (2, "random"),
    ]


def test_by_influence_the_memorized_fall_into_those_with_a_pair_and_those_without() -> None:
    plan = RemovalPlan(thresholds=(0.1, 0.3), by_influence=True, by_class=True)
    design = removal_design(plan, MEMORIZATION, INFLUENTIAL, 10)
    removed = {
        (level.removed, level.threshold): np.flatnonzero(~design.kept(number)).tolist()
        for number, level in enumerate(design.levels)
    }
    assert removed[("influential", 0.3)] == [0, 2, 6]
    assert removed[("uninfluential", 0.3)] == [1]
    assert ("influential", 0.1) not in removed  # pairs are not sought there
    assert sum(arm.draw == "class" for arm in design.arms) == len(design.levels) - 1


def test_a_threshold_that_nothing_reaches_has_no_arm_and_if_none_is_reached_it_is_refused() -> None:
    design = removal_design(RemovalPlan(thresholds=(0.5, 0.95)), MEMORIZATION, INFLUENTIAL, 10)
    assert [level.threshold for level in design.levels] == [None, 0.5]
    with pytest.raises(QueryError, match=r"no training example has memorization >= 0\.95.*the largest is 0\.900"):
        removal_design(RemovalPlan(thresholds=(0.95,)), MEMORIZATION, INFLUENTIAL, 10)
    with pytest.raises(ExperimentError, match=r"leaves no training example"):
        removal_design(RemovalPlan(thresholds=(0.1,)), np.full(4, 0.5), np.zeros(4, bool), 10)


@given(st.integers(1, 60), st.integers(1, 60))
def test_blocks_are_whole_runs_of_repeats_and_no_larger_than_those_of_the_run(repeats: int, block_size: int) -> None:
    design = removal_design(RemovalPlan(thresholds=(0.5,), repeats=repeats), MEMORIZATION, INFLUENTIAL, block_size)
    assert design.repeats_together <= block_size
    assert design.num_trials(repeats) == len(design.arms) * repeats


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"thresholds": ()}, "one or more"),
        ({"thresholds": (-1.0,)}, "lie above -1 and are at most 1"),
        ({"thresholds": (1.5,)}, "lie above -1 and are at most 1"),
        ({"thresholds": (float("nan"),)}, "lie above -1 and are at most 1"),
        ({"thresholds": (0.5, 0.5)}, "each threshold is named once"),
        ({"repeats": 0}, "trained once or more; found 0 repeats"),
    ],
)
def test_a_plan_that_measures_nothing_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        RemovalPlan(**options)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_the_table_is_what_scipy_says_of_the_accuracies(repeats: int, seed: int, by_class: bool) -> None:
    plan = RemovalPlan(thresholds=(0.3, 0.5), repeats=repeats, by_class=by_class)
    design = removal_design(plan, MEMORIZATION, INFLUENTIAL, repeats)
    rng = np.random.default_rng(seed)
    order = rng.permutation(design.num_trials(repeats)).tolist()
    accuracy = rng.uniform(size=len(order))
    by_arm = np.full((len(design.arms), repeats), np.nan)
    for trial, value in zip(order, accuracy, strict=True):
        by_arm[design.arm_and_repeat(trial)] = value
    table = removal_table(design, order, accuracy)
    assert table.schema == REMOVAL_SCHEMA
    rows = table.to_pylist()
    assert rows[0]["removal_accuracy"] == pytest.approx(by_arm[0].mean())
    assert rows[0]["random_accuracy"] is None
    for number, row in enumerate(rows[1:]):
        arms = by_arm[1:].reshape(2, -1, repeats)[number]
        for series, values in zip(("removal", "random", "class"), arms, strict=False):
            assert row[f"{series}_accuracy"] == pytest.approx(values.mean())
            assert row[f"{series}_std"] == pytest.approx(values.std(ddof=1))
        interval = scipy.stats.ttest_rel(arms[1], arms[0]).confidence_interval(0.95)
        assert row["less_than_random"] == pytest.approx((arms[1] - arms[0]).mean())
        assert (row["ci_low_random"], row["ci_high_random"]) == pytest.approx(tuple(interval))
        assert (row["class_repeats"], row["less_than_class"] is None) == (repeats * by_class, not by_class)
        assert row["num_kept"] + row["num_removed"] == 8
        assert row["share_kept"] == row["num_kept"] / 8


def test_what_has_not_been_trained_is_null_and_one_repeat_has_no_spread() -> None:
    design = removal_design(RemovalPlan(thresholds=(0.5,), repeats=2), MEMORIZATION, INFLUENTIAL, 1)
    rows = removal_table(design, [0, 1], np.array([0.5, 0.4])).to_pylist()
    assert (rows[1]["removal_accuracy"], rows[1]["removal_std"], rows[1]["random_accuracy"]) == (0.4, None, None)
    assert rows[1]["less_than_random"] is None
    rows = removal_table(design, [1, 2], np.array([0.4, 0.6])).to_pylist()
    assert (rows[0]["removal_repeats"], rows[0]["removal_accuracy"]) == (0, None)
    assert rows[1]["less_than_random"] == pytest.approx(0.2)
    assert rows[1]["ci_low_random"] is None
    unpaired = removal_table(design, [1, 5], np.array([0.4, 0.6])).to_pylist()  # repeats 0 and 1
    assert unpaired[1]["less_than_random"] is None
