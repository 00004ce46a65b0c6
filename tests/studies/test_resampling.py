"""Bands of J and D: what is drawn together, that they cover a known truth, and where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.estimates.bits import TrialBits, pack_trials
from feldman.estimates.selection import PairSelection
from feldman.studies.curves import consistency_curves, estimate_run
from feldman.studies.resampling import (
    Bands,
    Resampling,
    consistency_bands,
    draw_trials,
    num_rounds,
    shared_subsets,
)
from tests.benchmarks.band_coverage import measured_coverage, two_learners

GRID = np.array([0.1, 0.25, 0.5])


def plan(num_resamples: int, influence: np.ndarray = GRID, seed: int = 0) -> Resampling:
    return Resampling(
        memorization=GRID, influence=influence, min_memorization=0.25, num_resamples=num_resamples, seed=seed
    )


def bands_of(first: TrialBits, second: TrialBits, drawn: Resampling) -> dict[str, Bands]:
    selection = PairSelection(min_influence=float(drawn.influence[0]), min_memorization=drawn.min_memorization)
    sides = estimate_run(first, selection), estimate_run(second, selection)
    curves = consistency_curves(*sides, (drawn.memorization,) * 2, (drawn.influence,) * 2)
    rounds: list[int] = []
    found = consistency_bands((first, second), curves, drawn, lambda: rounds.append(1))
    assert len(rounds) == num_rounds(drawn.num_resamples)
    return found


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.data())
@settings(deadline=None)
def test_trials_of_one_subset_are_drawn_together_and_the_others_by_themselves(
    num_first: int, num_second: int, seed: int, data: st.DataObject
) -> None:
    num = min(num_first, num_second)
    shared = np.array(data.draw(st.lists(st.booleans(), min_size=num, max_size=num)), bool)
    first, second = draw_trials(np.random.default_rng(seed), (num_first, num_second), shared)
    assert (len(first), len(second)) == (num_first, num_second)
    common = np.flatnonzero(shared)
    assert first[: len(common)].tolist() == second[: len(common)].tolist()
    assert set(first[: len(common)].tolist()) <= set(common.tolist())
    assert not set(first[len(common) :].tolist()) & set(common.tolist())
    assert not set(second[len(common) :].tolist()) & set(common.tolist())
    assert max(first) < num_first
    assert max(second) < num_second


@pytest.mark.parametrize(("num_first", "num_second"), [(70, 130), (300, 64), (64, 64)])
def test_trials_with_one_subset_are_found_number_by_number(num_first: int, num_second: int) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((num, 50)) < 0.7 for num in (num_first, num_second)]
    same = rng.random(min(num_first, num_second)) < 0.5
    masks[1][: len(same)][same] = masks[0][: len(same)][same]
    first, second = (pack_trials(mask, mask, mask) for mask in masks)
    np.testing.assert_array_equal(shared_subsets(first, second), same)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Leave out the checks of annotations, which take three times as long as thousands of small estimates."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_bands_cover_what_runs_of_two_known_learners_give_on_average() -> None:
    """The bands are of the expectation at this number of trials, also where most selected pairs are chance."""
    rows = measured_coverage(
        two_learners(80), 200, num_truth=100, num_repeats=25, plan=plan(20, np.array([0.12, 0.16]))
    )
    given = [row for row in rows if row["num_bands"] == 25]
    assert len(given) >= 10
    for figure, least in (("jaccard", 0.88), ("mean_difference", 0.9)):
        covered = [float(row["covered"]) for row in given if row["figure"] == figure]
        assert np.mean(covered) >= least, (figure, covered)
    widths = [float(row["width"]) for row in given if row["figure"] == "jaccard"]
    assert 0.75 < min(widths) <= max(widths) < 1.5, "standard errors of J are the spread over runs"


def test_a_run_beside_itself_agrees_in_every_resample() -> None:
    bits = two_learners().trials(0, 200, 0)
    for bands in bands_of(bits, bits, plan(10)).values():
        defined = ~np.isnan(bands.jaccard[:, 0])
        assert defined.any()
        assert (bands.jaccard[defined] == 1).all()
        assert (bands.mean_difference[defined] == 0).all()


def test_bands_are_a_function_of_the_seed_and_lie_within_what_j_and_d_can_be() -> None:
    learners = two_learners()
    runs = learners.trials(0, 150, 0), learners.trials(1, 100, 0)
    first, again, other = (bands_of(*runs, plan(10, seed=seed)) for seed in (0, 0, 1))
    for name, bands in first.items():
        np.testing.assert_array_equal(bands.jaccard, again[name].jaccard)
        assert not np.array_equal(bands.jaccard, other[name].jaccard, equal_nan=True)
        for ends, highest in ((bands.jaccard, 1), (bands.mean_difference, 2)):
            defined = ends[~np.isnan(ends)]
            assert defined.min() >= 0
            assert defined.max() <= highest


def test_a_threshold_that_selects_fewer_than_ten_has_no_band() -> None:
    learners = two_learners()
    runs = learners.trials(0, 200, 0), learners.trials(1, 200, 0)
    bands = bands_of(*runs, plan(10, np.array([0.12, 0.95])))["influence"]
    assert not np.isnan(bands.jaccard[0]).any()
    assert np.isnan(bands.jaccard[1]).all()
    assert np.isnan(bands.mean_difference[1]).all()


@pytest.mark.parametrize("lowest", [0.12, -0.1])
def test_leaving_out_what_reaches_no_threshold_changes_no_band(monkeypatch: pytest.MonkeyPatch, lowest: float) -> None:
    """A third of the examples is always right, and some test examples are."""
    learners = two_learners(60)
    runs = []
    for number in (0, 1):
        bits = learners.trials(number, 150, 0)
        always = np.arange(60) % 3 == 0
        ones = pack_trials(*(np.ones((150, 60), bool),) * 3).test_correct
        runs.append(
            replace(
                bits,
                train_correct=np.where(always[:, None], ones, bits.train_correct),
                test_correct=np.where(always[:, None], ones, bits.test_correct),
            )
        )
    drawn = plan(5, np.array([lowest, 0.2]))
    found = bands_of(runs[0], runs[1], drawn)
    monkeypatch.setattr("feldman.studies.resampling._what_matters", lambda bits, plan: bits)
    expected = bands_of(runs[0], runs[1], drawn)
    for name, bands in found.items():
        np.testing.assert_array_equal(bands.jaccard, expected[name].jaccard)
        np.testing.assert_array_equal(bands.mean_difference, expected[name].mean_difference)


def test_runs_that_are_always_right_have_no_bands() -> None:
    right = np.ones((40, 7), bool)
    masks = np.random.default_rng(0).random((2, 40, 7)) < 0.7
    first, second = (pack_trials(mask, right, right) for mask in masks)
    for bands in bands_of(first, second, plan(3)).values():
        assert np.isnan(bands.jaccard).all()
        assert np.isnan(bands.mean_difference).all()
