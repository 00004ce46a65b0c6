from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from feldman.errors import ExperimentError
from feldman.trials.plan import subset_masks, subset_size, trial_seeds, whole_set_seed

FALSE_ALARM_RATE = 1e-4
"""Of each chi-square test below, had its seeds been drawn anew; they are fixed, so that a test either holds or does not."""

seeds = st.integers(0, 2**63 - 1)
trial_numbers = st.integers(0, 10_000_000)
ratios = st.floats(0.05, 0.95)
sizes = st.integers(20, 300)


@given(seeds, trial_numbers, sizes, ratios)
def test_every_subset_holds_round_of_ratio_times_n_examples(seed: int, trial: int, n: int, ratio: float) -> None:
    masks = subset_masks(seed, range(trial, trial + 3), n, ratio)
    assert masks.shape == (3, n)
    assert masks.dtype == np.bool_
    assert (masks.sum(axis=1) == round(ratio * n)).all()


@given(seeds, trial_numbers, st.lists(st.integers(0, 40), min_size=1, max_size=6), sizes)
def test_a_trial_is_a_function_of_seed_and_trial_whatever_is_drawn_with_it(
    seed: int, first: int, offsets: list[int], n: int
) -> None:
    together = range(first, first + 41)
    masks, drawn_seeds = subset_masks(seed, together, n, 0.7), trial_seeds(seed, together)
    for offset in offsets:
        alone = range(first + offset, first + offset + 1)
        assert np.array_equal(subset_masks(seed, alone, n, 0.7)[0], masks[offset])
        assert trial_seeds(seed, alone)[0] == drawn_seeds[offset]


@given(seeds, trial_numbers, st.integers(1, 40))
def test_the_order_and_step_of_trials_do_not_matter(seed: int, first: int, step: int) -> None:
    forward = range(first, first + 5 * step, step)
    backward = forward[::-1]
    assert np.array_equal(subset_masks(seed, backward, 50, 0.7), subset_masks(seed, forward, 50, 0.7)[::-1])
    assert np.array_equal(trial_seeds(seed, backward), trial_seeds(seed, forward)[::-1])


@given(seeds, trial_numbers)
def test_drawing_a_plan_leaves_the_global_generator_alone(seed: int, trial: int) -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002 - the law is about it
    subset_masks(seed, range(trial, trial + 2), 30, 0.5)
    trial_seeds(seed, range(trial, trial + 2))
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert np.array_equal(before["state"]["key"], after["state"]["key"])
    assert before["state"]["pos"] == after["state"]["pos"]


@given(seeds, trial_numbers)
def test_another_seed_or_another_trial_gives_another_subset_and_seed(seed: int, trial: int) -> None:
    one = range(trial, trial + 1)
    other_seed = seed ^ 1
    assert not np.array_equal(subset_masks(seed, one, 300, 0.7), subset_masks(other_seed, one, 300, 0.7))
    two = subset_masks(seed, range(trial, trial + 2), 300, 0.7)
    assert not np.array_equal(two[0], two[1])
    assert trial_seeds(seed, one)[0] != trial_seeds(other_seed, one)[0]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_trial_seeds_are_distinct_and_not_negative(seed: int) -> None:
    drawn = trial_seeds(seed, range(20_000))
    assert drawn.dtype == np.int64
    assert drawn.min() >= 0
    assert len(np.unique(drawn)) == len(drawn)


def test_trial_seeds_of_neighbouring_experiments_are_distinct() -> None:
    drawn = np.concatenate([trial_seeds(seed, range(2_000)) for seed in range(10)])
    assert len(np.unique(drawn)) == len(drawn)


def test_every_example_is_included_equally_often() -> None:
    n, trials, ratio = 200, 4_000, 0.7
    included = subset_masks(11, range(trials), n, ratio).sum(axis=0)
    # Inclusions of one trial are a simple random sample of fixed size: the covariance of the counts is trials p (1 - p) (I - J/n)
    # n / (n - 1), so this sum is chi-square with n - 1 degrees of freedom.
    p = round(ratio * n) / n
    statistic = ((included - trials * p) ** 2).sum() * (n - 1) / (n * trials * p * (1 - p))
    low, high = stats.chi2.ppf([FALSE_ALARM_RATE / 2, 1 - FALSE_ALARM_RATE / 2], n - 1)
    assert low < statistic < high


def test_every_pair_of_examples_is_included_together_equally_often() -> None:
    # Subsets of 2 of 12: the pair is the subset, so the 66 counts are multinomial and Pearson's statistic is exact.
    n, trials = 12, 20_000
    masks = subset_masks(12, range(trials), n, 2 / n).astype(np.int64)
    together = (masks.T @ masks)[np.triu_indices(n, 1)]
    assert together.sum() == trials
    assert stats.chisquare(together).pvalue > FALSE_ALARM_RATE


def test_co_inclusion_at_the_usual_ratio_is_that_of_sampling_without_replacement() -> None:
    n, trials = 60, 6_000
    size = subset_size(0.7, n)
    masks = subset_masks(13, range(trials), n, 0.7).astype(np.int64)
    together = (masks.T @ masks)[np.triu_indices(n, 1)]
    p = size * (size - 1) / (n * (n - 1))
    z = (together - trials * p) / np.sqrt(trials * p * (1 - p))
    # 1,770 pairs, each a z of its own: the largest by Bonferroni.
    assert np.abs(z).max() < stats.norm.isf(FALSE_ALARM_RATE / 2 / len(z))


def test_every_subset_of_a_small_set_is_equally_likely() -> None:
    masks = subset_masks(14, range(21_000), 7, 3 / 7)
    codes, counts = np.unique(np.packbits(masks, axis=1), return_counts=True)
    assert len(codes) == 35  # all choices of 3 of 7
    assert stats.chisquare(counts).pvalue > FALSE_ALARM_RATE


def test_neighbouring_trials_and_seeds_overlap_as_independent_subsets_do() -> None:
    n, count = 40, 4_000
    size = subset_size(0.7, n)
    trials = subset_masks(15, range(count + 1), n, 0.7)
    of_seeds = np.concatenate([subset_masks(seed, range(1), n, 0.7) for seed in range(count + 1)])
    for masks in (trials, of_seeds):
        overlap = (masks[:-1] & masks[1:]).sum(axis=1)
        values = np.arange(2 * size - n, size + 1)
        expected = count * stats.hypergeom.pmf(values, n, size, size)
        likely = expected >= 5
        observed = np.array([(overlap == value).sum() for value in values])
        cells = np.append(observed[likely], observed[~likely].sum())
        expected_cells = np.append(expected[likely], expected[~likely].sum())
        assert stats.chisquare(cells, expected_cells * (count / expected_cells.sum())).pvalue > FALSE_ALARM_RATE


def test_a_trials_subset_tells_nothing_of_its_seed() -> None:
    trials = range(20_000)
    masks, drawn = subset_masks(16, trials, 20, 0.5), trial_seeds(16, trials)
    for bit in (0, 31, 62):
        table = np.array(
            [[((drawn >> bit & 1 == side) & (masks[:, 0] == had)).sum() for had in (0, 1)] for side in (0, 1)]
        )
        assert stats.chi2_contingency(table, correction=False).pvalue > FALSE_ALARM_RATE


GOLDEN_SEEDS = {
    (0, 0): 3_156_079_128_285_547_363,
    (0, 1): 1_255_101_200_711_109_571,
    (7, 1999): 1_041_923_342_068_217_930,
    (2**63 - 1, 123_456): 60_397_798_274_116_629,
}
GOLDEN_SUBSETS = {
    (0, 0): "111111001101110011011110111010",
    (0, 1): "001111011001111111010111011110",
    (7, 1999): "001010111010111110110111111110",
    (2**63 - 1, 123_456): "111010110111011101011100101111",
}
GOLDEN_PLAN = "56fa2c374e617ae7c49b96cc33f62fdda094116bd94476668d7d75dc55c963f9"


@pytest.mark.parametrize(("seed", "trial"), GOLDEN_SEEDS)
def test_no_library_can_change_a_plan_silently(seed: int, trial: int) -> None:
    assert int(trial_seeds(seed, range(trial, trial + 1))[0]) == GOLDEN_SEEDS[seed, trial]
    mask = subset_masks(seed, range(trial, trial + 1), 30, 0.7)[0]
    assert "".join(map(str, mask.astype(int))) == GOLDEN_SUBSETS[seed, trial]


def test_no_library_can_change_the_plan_of_the_demo_silently() -> None:
    masks = subset_masks(0, range(2000), 1437, 0.7)
    assert hashlib.sha256(np.packbits(masks, axis=1).tobytes()).hexdigest() == GOLDEN_PLAN


@pytest.mark.parametrize(("ratio", "num_train"), [(0.001, 100), (0.999, 100), (0.5, 1), (0.1, 4)])
def test_a_subset_of_nothing_or_of_everything_is_refused(ratio: float, num_train: int) -> None:
    with pytest.raises(ExperimentError, match="at least one example and leave at least one out"):
        subset_masks(0, range(1), num_train, ratio)


def test_more_examples_than_the_plan_can_tell_apart_are_refused() -> None:
    assert subset_size(0.5, 1 << 24) == 1 << 23
    with pytest.raises(ExperimentError, match=r"at most 16777216 training examples"):
        subset_size(0.5, (1 << 24) + 1)


def test_the_seed_of_the_whole_training_set_is_fixed_for_ever_and_of_no_trial() -> None:
    assert whole_set_seed(0) == 8007737062876837281
    seeds_of_all = {whole_set_seed(seed) for seed in range(50)}
    assert len(seeds_of_all) == 50
    assert not seeds_of_all & {int(one) for seed in range(50) for one in trial_seeds(seed, range(100))}
