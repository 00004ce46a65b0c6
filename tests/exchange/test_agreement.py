"""Correlations and distances against SciPy and against formulas written out, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of
from numpy.typing import NDArray
from scipy import stats

from feldman.exchange.agreement import NUM_BINS, RunningAgreement, agreement, histogram_distances, spearman

lengths = st.shared(st.integers(2, 60), key="length")
rates = lengths.flatmap(lambda n: array_of(np.float64, n, elements=st.integers(-1000, 1000).map(lambda k: k / 1000)))


@given(first=rates, second=rates)
def test_correlations_are_scipys(first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
    found = agreement(first, second)
    assert found.num_compared == len(first)
    assert found.mean_absolute_difference == pytest.approx(math.fsum(abs(first - second)) / len(first), abs=1e-15)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(spearman(first, second))
        assert math.isnan(found.pearson)
        return
    assert found.pearson == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-9)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


@given(first=rates, second=rates, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_parts_give_what_the_whole_gives(
    first: NDArray[np.float64], second: NDArray[np.float64], cuts: list[int]
) -> None:
    running, whole = RunningAgreement(), agreement(first, second)
    for a, b in zip(np.split(first, sorted(cuts)), np.split(second, sorted(cuts)), strict=True):
        running.add(a, b)
    found = running.result()
    assert found.num_compared == whole.num_compared
    assert found.mean_absolute_difference == pytest.approx(whole.mean_absolute_difference, abs=1e-14)
    if np.ptp(first) and np.ptp(second):
        assert found.pearson == pytest.approx(whole.pearson, abs=1e-9)


def test_a_correlation_far_from_zero_does_not_cancel() -> None:
    rng = np.random.default_rng(0)
    first = 1e6 + rng.normal(size=10_000)
    second = first + rng.normal(size=10_000)
    running = RunningAgreement()
    for part in range(100):
        running.add(first[part::100], second[part::100])
    assert running.result().pearson == pytest.approx(stats.pearsonr(first - 1e6, second - 1e6).statistic, abs=1e-6)


def test_undefined_values_are_left_out_and_nothing_to_compare_is_undefined() -> None:
    nan = math.nan
    found = agreement(np.array([0.0, nan, 1.0, 0.5]), np.array([0.25, 0.5, 1.0, nan]))
    assert (found.num_compared, found.mean_absolute_difference, found.pearson) == (2, 0.125, 1.0)
    nothing = agreement(np.array([nan]), np.array([0.5]))
    assert nothing.num_compared == 0
    assert math.isnan(nothing.pearson)
    assert math.isnan(nothing.mean_absolute_difference)
    assert math.isnan(histogram_distances(np.empty(0), np.empty(0))[0])


@given(first=rates, second=rates)
def test_histogram_distances_are_those_of_bins_counted_by_hand(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> None:
    shares = []
    for values in (first, second):
        bins = [0] * NUM_BINS
        for value in values:
            bins[min(max(math.floor(value * NUM_BINS), 0), NUM_BINS - 1)] += 1
        shares.append([count / len(values) for count in bins])
    total_variation = sum(abs(p - q) for p, q in zip(*shares, strict=True)) / 2
    centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    earth = stats.wasserstein_distance(centres, centres, *shares)
    assert histogram_distances(first, second) == pytest.approx((total_variation, earth), abs=1e-12)


def test_the_distances_reach_one_where_everything_is_elsewhere() -> None:
    found = histogram_distances(np.zeros(5), np.ones(3))
    assert found == pytest.approx((1.0, (NUM_BINS - 1) / NUM_BINS))
