"""Vectorised and looped training are one learner: a permutation test on the distribution of estimates.

Under the hypothesis that both ways draw their bits from one distribution, which trial was trained in which way says nothing: the
observed distance is then as likely to be the largest of a thousand as any of those of random assignments. So a failure is a
false alarm with probability 1/1000, whatever the learner and the number of trials.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from jaxtyping import Bool

from feldman.data.dataset import Dataset
from feldman.data.load import load_dataset
from feldman.experiment import DatasetSection, Experiment
from feldman.learners.load import load_learner
from feldman.trials.plan import subset_masks, trial_seeds

NUM_TRIALS = 120
NUM_ASSIGNMENTS = 999


def bits_of(dataset: Dataset, learner: dict[str, Any], training: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """Train trials of a seed; return their subsets and which training examples they get right."""
    experiment = Experiment.model_validate({"dataset": {"name": "digits"}, "learner": learner, "training": training})
    masks = subset_masks(seed, range(NUM_TRIALS), dataset.num_train, 0.7)
    return masks, load_learner(experiment, dataset)(masks, trial_seeds(seed, range(NUM_TRIALS))).train


def rank_of_distance(
    masks: Bool[np.ndarray, "trial train"], correct: Bool[np.ndarray, "trial train"], first: Bool[np.ndarray, " trial"]
) -> int:
    """Among random assignments of trials to two ways, how many have memorizations and accuracies as far apart as this one."""
    rng = np.random.default_rng(0)
    assignments = np.array([first, *(rng.permutation(first) for _ in range(NUM_ASSIGNMENTS))]).astype(np.float64)
    held, right, both = masks.astype(np.float64), correct.astype(np.float64), (masks & correct).astype(np.float64)

    def scores(weights: Any) -> tuple[Any, Any]:
        num_in, correct_in = weights @ held, weights @ both
        correct_out = weights @ right - correct_in
        return correct_in / num_in, correct_out / (weights.sum(1, keepdims=True) - num_in)

    (in_first, out_first), (in_second, out_second) = scores(assignments), scores(1 - assignments)
    distance = ((in_first - in_second) ** 2).sum(1) + ((out_first - out_second) ** 2).sum(1)
    distance += 100 * ((in_first - in_second).mean(1) ** 2 + (out_first - out_second).mean(1) ** 2)
    return int((distance[1:] >= distance[0]).sum())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetSection(name="digits", num_train=300, num_test=100))


def compared(dataset: Dataset, ways: list[tuple[dict[str, Any], dict[str, Any]]]) -> int:
    """Rank of the distance between two ways, whose trials have other subsets and seeds."""
    results = [bits_of(dataset, *way, seed) for seed, way in enumerate(ways)]
    masks, correct = (np.concatenate(parts) for parts in zip(*results, strict=True))
    return rank_of_distance(masks, correct, np.arange(2 * NUM_TRIALS) < NUM_TRIALS)


RECIPE = {"epochs": 12, "batch_size": 32, "learning_rate": 0.1}


@pytest.mark.parametrize(
    "learner",
    [{"name": "linear"}, {"name": "mlp", "hidden": [24]}],
    ids=lambda learner: learner["name"],
)
def test_vectorised_and_looped_trials_come_from_one_distribution(digits: Dataset, learner: dict[str, Any]) -> None:
    ways = [({**learner, "vectorize": vectorize}, RECIPE) for vectorize in (True, False)]
    assert compared(digits, ways) > 0  # of 999: the observed distance is the largest in 1 of 1,000 cases by chance


def test_the_comparison_notices_a_learner_that_is_a_little_worse(digits: Dataset) -> None:
    learner = {"name": "mlp", "hidden": [24], "vectorize": True}
    assert compared(digits, [(learner, RECIPE), (learner, {**RECIPE, "epochs": 6})]) == 0
