"""Near-duplicates against all correlations in float64; figures without them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.studies import duplicates
from feldman.studies.duplicates import DUPLICATES_SCHEMA, Inputs, find_duplicates, flag_pairs, headlines

Found = set[tuple[str, int, int]]


def images(num_train: int, num_test: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Noise, some of it copied, brightened, or with a few pixels changed; and images without contrast."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 200, (num_train + num_test, 6, 6), np.uint8)
    for _ in range(num_train + num_test):
        source, place = rng.integers(0, len(x), 2)
        x[place] = x[source]
        match rng.integers(0, 4):
            case 0:
                x[place] += 50
            case 1:
                x[place, 0, :2] = 0
            case 2:
                x[place] = 7
    return x[:num_train], x[num_train:]


def expected(x_train: NDArray[np.uint8], x_test: NDArray[np.uint8], least: float) -> Found:
    found: Found = set()
    for name, others in (("test", x_test), ("train", x_train)):
        for i, a in enumerate(x_train):
            for j, b in enumerate(others):
                if name == "train" and i >= j:
                    continue
                varies = a.std() > 0 and b.std() > 0
                correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1] if varies else 0.0
                if np.array_equal(a, b) or correlation >= least - 1e-6:
                    found.add((name, i, j))
    return found


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 99), st.sampled_from([0.5, 0.9, 0.97]))
@settings(deadline=None, max_examples=30)
def test_near_duplicates_are_those_of_all_correlations_and_identical_images(
    num_train: int, num_test: int, seed: int, least: float
) -> None:
    x_train, x_test = images(num_train, num_test, seed)
    y_train, y_test = np.arange(num_train) % 3, np.arange(num_test) % 3
    found = find_duplicates(Inputs.of(x_train, y_train), Inputs.of(x_test, y_test), least)
    assert found.schema == DUPLICATES_SCHEMA
    rows = found.to_pylist()
    assert {(row["other"], row["train_index"], row["other_index"]) for row in rows} == expected(x_train, x_test, least)
    for row in rows:
        other, label = (x_test, y_test) if row["other"] == "test" else (x_train, y_train)
        same = np.array_equal(x_train[row["train_index"]], other[row["other_index"]])
        assert row["identical"] == same
        assert row["same_label"] == (y_train[row["train_index"]] == label[row["other_index"]])
        assert row["correlation"] >= least - 1e-6 or same


def test_more_examples_than_are_looked_up_at_once_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    x_train, x_test = images(40, 30, 3)
    inputs = Inputs.of(x_train, np.zeros(40)), Inputs.of(x_test, np.zeros(30))
    whole = find_duplicates(*inputs, 0.9)
    monkeypatch.setattr(duplicates, "_QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 5)
    done: list[tuple[int, int]] = []
    assert find_duplicates(*inputs, 0.9, lambda *counts: done.append(counts)).equals(whole)
    assert done[-1] == (70, 70)


def test_flags_are_joined_to_pairs_and_figures_leave_flagged_ones_out() -> None:
    rng = np.random.default_rng(0)
    x_train, x_test = rng.integers(0, 255, (5, 4, 4), np.uint8), rng.integers(0, 255, (4, 4, 4), np.uint8)
    x_test[1] = x_train[2]
    x_test[3] = x_train[0] // 2
    train, test = Inputs.of(x_train, np.zeros(5)), Inputs.of(x_test, np.zeros(4))
    pairs = pa.table(
        {
            "train_index": [0, 2, 4, 4],
            "test_index": [3, 1, 0, 2],
            "influence": [0.6, 0.5, 0.4, 0.2],
            "q_value": [0.0, 0.01, 0.04, 0.3],
        }
    )
    flagged = flag_pairs(pairs, train, test, 0.97)
    assert flagged["duplicate"].to_pylist() == [True, True, False, False]
    assert flagged["identical"].to_pylist() == [False, True, False, False]
    assert flagged["correlation"].to_pylist()[1] == pytest.approx(1)
    found = find_duplicates(train, test, 0.97)
    everything, without = headlines(flagged, found, np.array([0.9, np.nan, 0.3, 0.1, 0.5]), 0.25)
    assert (everything.num_memorized, without.num_memorized) == (3, 1)
    assert (everything.num_pairs, without.num_pairs) == (4, 2)
    assert (everything.num_significant, without.num_significant) == (3, 1)
    assert (everything.num_tests, without.num_tests) == (4, 2)
    assert (everything.largest_influence, without.largest_influence) == (0.6, 0.4)
    assert without.mean_influence == pytest.approx(0.3)


@pytest.mark.parametrize("least", [0.0, -0.5, 1.5])
def test_correlations_out_of_range_are_refused(least: float) -> None:
    inputs = Inputs.of(np.ones((3, 4)), np.zeros(3))
    with pytest.raises(QueryError, match="a correlation of near-duplicates is above 0 and at most 1; found"):
        find_duplicates(inputs, inputs, least)


def test_a_correlation_that_nearly_all_pairs_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 20)
    inputs = Inputs.of(np.tile(np.arange(4), (10, 1)), np.zeros(10))
    with pytest.raises(QueryError, match=r"more than 20 pairs correlate by 0.9: raise --min-correlation"):
        find_duplicates(inputs, inputs, 0.9)
