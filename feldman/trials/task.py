"""The task: train one block. The same function in every executor, a pure function of (experiment, block)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64, Integer, UInt8
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.data.mapped import MappedDataset
from feldman.experiment import Experiment, OutputsSection
from feldman.learners.load import load_learner
from feldman.learners.outputs import label_type
from feldman.learners.protocol import Correctness
from feldman.trials.design import Design, made_plan
from feldman.trials.layout import output_arrays

__all__ = ["BlockResult", "pack_bits", "prepare_block_task", "unpack_bits"]


@dataclass(frozen=True, kw_only=True)
class BlockResult:
    """What a worker sends back: bits packed along the example axis, a record a trial, and how many did not converge.

    Margins and predictions are there if the experiment records them.
    """

    block: int
    subset_mask: UInt8[np.ndarray, "trial packed_train"]
    train_correct: UInt8[np.ndarray, "trial packed_train"]
    test_correct: UInt8[np.ndarray, "trial packed_test"]
    trial_seed: Int64[np.ndarray, " trial"]
    train_accuracy: Float32[np.ndarray, " trial"]
    test_accuracy: Float32[np.ndarray, " trial"]
    train_seconds: Float32[np.ndarray, " trial"]
    num_unconverged: int = 0
    train_margin: Float16[np.ndarray, "trial train"] | None = None
    test_margin: Float16[np.ndarray, "trial test"] | None = None
    train_prediction: Integer[np.ndarray, "trial train"] | None = None
    test_prediction: Integer[np.ndarray, "trial test"] | None = None


def prepare_block_task(
    experiment: Experiment,
    import_paths: tuple[str, ...],
    shared: Dataset | MappedDataset,
    *,
    design: Design | None = None,
) -> Callable[[int], BlockResult]:
    """Make the task of an experiment; done once a worker.

    Parameters
    ----------
    experiment
        What is estimated.
    import_paths
        Folders to add to the module search path, for a user's own learner.
    shared
        What the trials learn from; its arrays may be read-only and shared with other processes, or files still to be mapped.
    design
        The subsets that trials learn from, in place of random ones.

    Returns
    -------
    callable
        From a block's index to its result.

    Raises
    ------
    DatasetError
        If a file to be mapped is no longer what it was.
    LearnerError
        As `feldman.learners.load.load_learner`.
    """
    sys.path.extend(path for path in import_paths if path not in sys.path)
    dataset = shared.open() if isinstance(shared, MappedDataset) else shared
    learner = load_learner(experiment, dataset)
    subsets = experiment.subsets
    plan = made_plan(subsets, dataset.y_train, design)

    def train_block(block: int) -> BlockResult:
        trials = subsets.block_trials(block)
        masks, seeds = plan.masks(trials), plan.seeds(trials)
        masks.setflags(write=False)  # what a learner is given is what is stored
        seeds.setflags(write=False)
        started = time.perf_counter()
        correct = learner(masks, seeds)
        seconds = (time.perf_counter() - started) / len(trials)
        return BlockResult(
            block=block,
            subset_mask=pack_bits(masks),
            train_correct=pack_bits(correct.train),
            test_correct=pack_bits(correct.test),
            trial_seed=seeds,
            train_accuracy=subset_accuracy(masks, correct.train),
            test_accuracy=correct.test.mean(axis=1).astype(np.float32),
            train_seconds=np.full(len(trials), seconds, np.float32),
            num_unconverged=correct.num_unconverged,
            **_recorded(correct, experiment.outputs, dataset.num_classes),
        )

    return train_block


def _recorded(correct: Correctness, outputs: OutputsSection, num_classes: int) -> dict[str, Any]:
    """Return the margins and predictions that are asked for, labels in as few bytes as the store keeps them."""
    found = {name: getattr(correct, name) for name in output_arrays(outputs)}
    return {
        name: values.astype(label_type(num_classes)) if name.endswith("_prediction") else values
        for name, values in found.items()
    }


def subset_accuracy(
    masks: Bool[np.ndarray, "trial train"], correct: Bool[np.ndarray, "trial train"]
) -> Float32[np.ndarray, " trial"]:
    """Return each trial's accuracy on the examples that it learned from."""
    accuracy: NDArray[np.float32] = ((masks & correct).sum(axis=1) / masks.sum(axis=1)).astype(np.float32)
    return accuracy


def pack_bits(bits: Bool[np.ndarray, "trial example"]) -> UInt8[np.ndarray, "trial packed"]:
    """Pack eight examples a byte: a block's bits travel as a few hundred kilobytes."""
    return np.packbits(bits, axis=1)


def unpack_bits(packed: UInt8[np.ndarray, "trial packed"], num_examples: int) -> Bool[np.ndarray, "trial example"]:
    """Undo `pack_bits`."""
    return np.unpackbits(packed, axis=1, count=num_examples).view(bool)
