"""Trial stores of any shape, for benchmarks: subsets as planned, correctness drawn so that there is something to find.

A third of the training examples is memorized to some degree, and some test examples depend on one training example each, of their
class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feldman.data.dataset import Dataset
from feldman.experiment import Experiment
from feldman.trials.plan import subset_masks, trial_seeds
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, pack_bits, subset_accuracy

__all__ = ["CIFAR100", "IMAGENET", "Shape", "make_store"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a store is."""

    num_train: int
    num_test: int
    num_trials: int
    num_classes: int = 100
    num_dependent: int = 1000
    block_size: int = 50

    @property
    def num_pairs(self) -> int:
        return self.num_train * self.num_test


CIFAR100 = Shape(num_train=50_000, num_test=10_000, num_trials=4_000)
IMAGENET = Shape(num_train=1_281_167, num_test=50_000, num_trials=2_000, num_classes=1_000)


def make_store(run: Path, shape: Shape) -> TrialStore:
    """Write a complete run through the store's own door."""
    rng = np.random.default_rng(0)
    dataset = Dataset(
        name="synthetic",
        x_train=np.zeros((shape.num_train, 1), np.uint8),
        y_train=np.arange(shape.num_train) % shape.num_classes,
        x_test=np.zeros((shape.num_test, 1), np.uint8),
        y_test=np.arange(shape.num_test) % shape.num_classes,
        class_names=tuple(map(str, range(shape.num_classes))),
    )
    subsets = {"num_trials": shape.num_trials, "block_size": shape.block_size}
    experiment = Experiment.model_validate({"dataset": {"name": "arrays"}, "subsets": subsets})
    run.mkdir(parents=True)
    store = TrialStore.create(run / "trials.zarr", experiment, dataset)
    memorized = rng.random(shape.num_train) < 0.36
    chance_out = np.where(memorized, rng.random(shape.num_train) * 0.7, 0.97).astype(np.float32)
    chance_test = rng.beta(2, 0.7, shape.num_test).astype(np.float32)
    dependent = np.arange(min(shape.num_dependent, shape.num_test))
    # The training example that a test example depends on: memorized, of its class.
    low = np.flatnonzero(chance_out < 0.5)
    by_class = [low[dataset.y_train[low] == label] for label in range(shape.num_classes)]
    tail = np.array([by_class[j % shape.num_classes][j // shape.num_classes] for j in dependent])
    for block in range(store.num_blocks):
        trials = experiment.subsets.block_trials(block)
        masks = subset_masks(0, trials, shape.num_train, 0.7)
        train = masks | (rng.random(masks.shape, np.float32) < chance_out)
        test = rng.random((len(trials), shape.num_test), np.float32) < chance_test
        test[:, dependent] = rng.random((len(trials), len(dependent))) < 0.3 + 0.5 * masks[:, tail]
        store.commit_block(
            BlockResult(
                block=block,
                subset_mask=pack_bits(masks),
                train_correct=pack_bits(train),
                test_correct=pack_bits(test),
                trial_seed=trial_seeds(0, trials),
                train_accuracy=subset_accuracy(masks, train),
                test_accuracy=test.mean(axis=1).astype(np.float32),
                train_seconds=np.zeros(len(trials), np.float32),
            )
        )
    return store
