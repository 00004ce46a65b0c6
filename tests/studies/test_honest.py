"""Honest estimates are those of the half that did not select; they are unbiased and cover where naive ones do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from feldman.errors import QueryError
from feldman.estimates.influence import estimate_influence, select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.studies.halves import split_halves
from feldman.studies.honest import HONEST_SCHEMA, honest_pairs, measure_shrinkage
from tests.benchmarks.planted import planted_learner

LABELS = np.arange(60) % 3, np.arange(60) % 3
SELECTION = PairSelection(min_influence=0.15, min_memorization=0.1)


def test_each_row_has_the_estimates_of_the_half_that_did_not_select_it() -> None:
    bits = planted_learner().trials(200, 0)
    table = honest_pairs(bits, LABELS, SELECTION, seed=3)
    halves = split_halves(bits, 100, seed=3)
    rows = {(row["train_index"], row["test_index"], row["selected_on"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    for half in (0, 1):
        memorization = [estimate_memorization(halves[k]).memorization for k in (half, 1 - half)]
        pairs = select_pairs(halves[half], memorization[0], SELECTION, LABELS)
        assert len(pairs.influence) == sum(1 for key in rows if key[2] == half) > 20
        other = estimate_influence(halves[1 - half], np.arange(60))
        for train, test, value in zip(pairs.train_index, pairs.target_index, pairs.influence, strict=True):
            row = rows[train, test, half]
            assert row["selected_influence"] == value
            for name, expected in zip(("influence", "stderr", "ci_low", "ci_high"), other, strict=True):
                assert row[name] == pytest.approx(expected[train, test], abs=1e-12)
            assert row["selected_memorization"] == memorization[0][train]
            assert row["memorization"] == memorization[1][train]
            assert (row["train_label"], row["test_label"]) == (train % 3, test % 3)
    assert table["selected_influence"].to_pylist() == sorted(table["selected_influence"].to_pylist(), reverse=True)


def test_honest_intervals_cover_the_truth_and_naive_ones_of_selected_pairs_do_not() -> None:
    learner = planted_learner()
    covered, naive, errors, naive_errors = [], [], [], []
    for seed in range(60):
        bits = learner.trials(160, seed)
        table = honest_pairs(bits, LABELS, SELECTION)
        truth = learner.influence[table["train_index"].to_numpy(), table["test_index"].to_numpy()]
        low, high, value = (table[name].to_numpy() for name in ("ci_low", "ci_high", "influence"))
        covered.append(np.mean((low <= truth) & (truth <= high)))
        errors.append(np.mean(value - truth))
        naive_errors.append(np.mean(table["selected_influence"].to_numpy() - truth))
        pairs = select_pairs(bits, estimate_memorization(bits).memorization, SELECTION, LABELS)
        truth = learner.influence[pairs.train_index, pairs.target_index]
        naive.append(np.mean((pairs.ci_low <= truth) & (truth <= pairs.ci_high)))
    noise = np.std(errors, ddof=1) / math.sqrt(len(errors))
    assert abs(np.mean(errors)) < 3 * noise
    assert np.mean(naive_errors) > 0.1
    assert 0.94 < np.mean(covered) < 0.97
    assert np.mean(naive) < 0.8


def test_shrinkage_is_the_ratio_of_means_over_the_strongest_of_each_half() -> None:
    table = honest_pairs(planted_learner().trials(200, 0), LABELS, SELECTION)
    rows = table.to_pylist()
    found = measure_shrinkage(table, tops=(10, 20, 10_000))
    assert [row.num_pairs for row in found] == [10, 20, None]
    for top, shrinkage in zip((10, 20, len(rows)), found, strict=True):
        chosen = [row for half in (0, 1) for row in [row for row in rows if row["selected_on"] == half][:top]]
        means = [float(np.mean([row[name] for row in chosen])) for name in ("selected_influence", "influence")]
        assert (shrinkage.selected_influence, shrinkage.influence) == pytest.approx(tuple(means))
        assert shrinkage.ratio == pytest.approx(means[1] / means[0])
    assert found[0].ratio > found[-1].ratio


def test_of_no_pairs_nothing_shrinks() -> None:
    selection = PairSelection(min_influence=1.0, min_memorization=1.0)
    table = honest_pairs(planted_learner().trials(40, 0), LABELS, selection)
    assert (table.num_rows, table.schema) == (0, HONEST_SCHEMA)
    (everything,) = measure_shrinkage(table)
    assert math.isnan(everything.ratio)


def test_training_examples_are_no_honest_targets() -> None:
    with pytest.raises(QueryError, match="leave out --targets train"):
        honest_pairs(planted_learner().trials(40, 0), LABELS, PairSelection(targets="train"))
