"""Several runs side by side: rows are those of the pairwise studies, and what measures nothing is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from feldman.errors import QueryError
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.learner_sections import CnnLearner, CustomLearner, LinearLearner, MlpLearner, learner_in_words
from feldman.studies.comparison import (
    COMPARISON_SCHEMA,
    INFLUENCE_THRESHOLDS,
    MEMORIZATION_THRESHOLDS,
    ComparisonPlan,
    measure_comparison,
    summarize_run,
)
from feldman.studies.consistency import PairSet, influence_consistency, memorization_consistency
from feldman.studies.resampling import num_rounds
from feldman.studies.stability import StabilityPlan, measure_stability, stability_summary
from tests.benchmarks.band_coverage import two_learners

LEARNERS = two_learners(80)
RUNS = [("a", LEARNERS.trials(0, 150, 0)), ("b", LEARNERS.trials(1, 150, 0)), ("c", LEARNERS.trials(0, 100, 1))]
PLAN = ComparisonPlan(
    memorization=(0.1, 0.25, 0.5), influence=(0.15, 0.3), num_resamples=4, num_repeats=3, min_memorization=0.25
)


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str, str, str, float], dict[str, Any]]:
    done: list[tuple[int, int]] = []
    table = measure_comparison(RUNS, PLAN, lambda *counts: done.append(counts))
    total = 3 * 3 + 2 * (1 + num_rounds(4))
    assert done == [(k, total) for k in range(1, total + 1)]
    assert table.schema == COMPARISON_SCHEMA
    found = {
        (row["compared"], row["first"], row["second"], row["estimate"], row["threshold"]): row
        for row in table.to_pylist()
    }
    assert len(found) == table.num_rows == 5 * (2 + 2 + 3)
    return found


@pytest.mark.parametrize("other", [1, 2])
def test_runs_are_compared_with_the_first_as_two_runs_are(rows: dict[Any, dict[str, Any]], other: int) -> None:
    (first, bits), (second, other_bits) = RUNS[0], RUNS[other]
    sides = bits, other_bits
    values = [estimate_memorization(side).memorization for side in sides]
    nothing = PairSet(train=np.empty(0, np.int64), test=np.empty(0, np.int64))
    for estimate in ("memorization", "influence"):
        for threshold in getattr(PLAN, estimate):
            row = rows["runs", first, second, estimate, threshold]
            if estimate == "memorization":
                expected = memorization_consistency(values[0], values[1], threshold)
            else:
                selection = PairSelection(min_influence=threshold)
                found = [select_pairs(side, value, selection) for side, value in zip(sides, values, strict=True)]
                sets = [PairSet(train=pairs.train_index, test=pairs.target_index) for pairs in found]
                expected = influence_consistency((sets[0], sets[1]), sides, nothing)
            for name in ("num_first", "num_second", "num_both", "jaccard", "mean_difference"):
                assert row[name] == pytest.approx(getattr(expected, name), nan_ok=True), (estimate, threshold, name)
            assert (row["num_trials_first"], row["num_trials_second"]) == (150, other_bits.num_trials)
            if row["num_first"] + row["num_second"] - row["num_both"] >= 10:
                assert row["jaccard_low"] <= row["jaccard"] <= row["jaccard_high"]
                assert row["mean_difference_low"] < row["mean_difference"] < row["mean_difference_high"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_halves_and_the_chance_beside_them_are_those_of_stability(rows: dict[Any, dict[str, Any]], which: int) -> None:
    name, bits = RUNS[which]
    labels = np.zeros(80, np.int64), np.zeros(80, np.int64)
    size = bits.num_trials // 2
    plan = StabilityPlan(sizes=(size,), num_repeats=3, selection=PairSelection(min_influence=0.15))
    stability = measure_stability(bits, labels, plan)
    for estimate, threshold in (("memorization", 0.25), ("influence", 0.15)):
        row = rows["halves", name, name, estimate, threshold]
        for figure in ("jaccard", "mean_difference", "num_both"):
            ((_, expected, _),) = stability_summary(stability, estimate, "halves", figure)
            assert row[figure] == pytest.approx(expected)
        assert (row["num_trials_first"], row["num_trials_second"]) == (size, size)
        assert np.isnan(row["jaccard_low"])


def test_chance_lies_far_below_what_one_learner_gives(rows: dict[Any, dict[str, Any]]) -> None:
    for estimate, threshold in (("memorization", 0.25), ("influence", 0.3)):
        runs, chance = (rows[compared, "a", "c", estimate, threshold] for compared in ("runs", "chance"))
        assert chance["jaccard"] < runs["jaccard"] / 2
        assert chance["mean_difference"] > runs["mean_difference"]
        assert chance["num_first"] == runs["num_first"], "shuffling selects nothing else"
        assert chance["num_second"] == runs["num_second"]


def test_other_runs_beside_it_change_no_comparison(rows: dict[Any, dict[str, Any]]) -> None:
    alone = measure_comparison([RUNS[0], RUNS[2]], PLAN).to_pylist()
    for row in alone:
        key = row["compared"], row["first"], row["second"], row["estimate"], row["threshold"]
        assert repr(row) == repr(rows[key])


def test_without_resamples_there_are_no_bands() -> None:
    plan = ComparisonPlan(memorization=(0.25,), influence=(0.2,), num_resamples=0, num_repeats=1)
    table = measure_comparison(RUNS[:2], plan)
    assert np.isnan(table["jaccard_low"].to_numpy()).all()
    assert not np.isnan(table["jaccard"].to_numpy()).any()


def test_a_summary_counts_what_the_tables_would_hold() -> None:
    bits = RUNS[0][1]
    summary = summarize_run("runs/a", "cnn", 0.7, bits, 0.3)
    values = estimate_memorization(bits).memorization
    pairs = select_pairs(bits, values, PairSelection(min_influence=0.15, min_memorization=0.3))
    assert (summary.num_memorized, summary.num_pairs) == ((values >= 0.3).sum(), len(pairs.influence))
    assert (summary.min_memorization, summary.min_influence, summary.num_trials) == (0.3, 0.15, 150)
    right = np.unpackbits(bits.test_correct.view(np.uint8), axis=1, bitorder="little")[:, :150].mean(axis=0)
    assert summary.mean_test_accuracy == pytest.approx(right.mean())
    assert summary.std_test_accuracy == pytest.approx(right.std(ddof=1))


def test_default_thresholds_are_decimal_numbers() -> None:
    assert tuple(float(f"{k * 0.05:.2f}") for k in range(1, 20)) == MEMORIZATION_THRESHOLDS
    assert tuple(float(f"{k * 0.05:.2f}") for k in range(2, 13)) == INFLUENCE_THRESHOLDS


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (LinearLearner(vectorize=True), "linear"),
        (MlpLearner(hidden=[512, 256]), "mlp (hidden = [512, 256])"),
        (CnnLearner(), "cnn"),
        (CustomLearner(name="mine:learn", parameters={"depth": 3}), "mine:learn (depth = 3)"),
    ],
)
def test_a_learner_in_words_is_its_name_and_what_is_no_default(section: Any, words: str) -> None:
    assert learner_in_words(section) == words


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"memorization": ()},
            "thresholds of memorization are one or more numbers from -1 to 1, ascending; found none",
        ),
        (
            {"influence": (0.2, 0.1)},
            "thresholds of influence are one or more numbers from -1 to 1, ascending; found 0.2",
        ),
        ({"influence": (0.1, float("nan"))}, "thresholds of influence are one or more"),
        ({"num_resamples": 1}, "no resamples or at least 2, one repeat or more, and a seed of 0 or more; found 1"),
        ({"num_repeats": 0}, "0 repeats"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_a_plan_that_measures_nothing_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryError, match=re.escape(says)):
        ComparisonPlan(**wrong)


@pytest.mark.parametrize("runs", [RUNS[:1], [RUNS[0], RUNS[0]]])
def test_a_run_alone_or_twice_is_no_comparison(runs: list[Any]) -> None:
    with pytest.raises(QueryError, match="a comparison is of two runs or more, each named once; found a"):
        measure_comparison(runs, PLAN)
