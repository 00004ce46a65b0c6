"""Training with torch: one model after the other, or all models of a block at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from feldman.data.dataset import Dataset
from feldman.experiment import ExecutionSection, OutputsSection, TrainingSection
from feldman.learner_sections import ImageLearner
from feldman.learners.descent import TrainingSteps, evaluated, finished
from feldman.learners.device_data import DeviceData, training_device
from feldman.learners.images import check_image_learner
from feldman.learners.looped import looped_training
from feldman.learners.protocol import Correctness, Learner
from feldman.learners.stacked_mlp import stacked_training
from feldman.learners.torch_models import TorchSection

__all__ = ["data_on_device", "torch_learner", "trainings"]

_LOOPED_EXAMPLES = 512
"""Examples that one model is evaluated on at once. 4,096 small images take 3 times as long: their activations leave the cache."""

_STACKED_EXAMPLES = 192
"""The same for a stack. Not fewer for a larger one: products of other sizes may round otherwise."""


def torch_learner(
    section: TorchSection,
    training: TrainingSection,
    execution: ExecutionSection,
    dataset: Dataset,
    outputs: OutputsSection,
) -> Learner:
    """Make the `Learner` for a built-in model.

    Raises
    ------
    LearnerError
        If the model cannot take the inputs, or the device is not there.
    """
    if isinstance(section, ImageLearner):
        check_image_learner(section, training, dataset.example_shape, dataset.num_classes)
    data = data_on_device(execution, dataset)

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        steps, num_stacked = trainings(section, training, data, masks, seeds)
        examples_at_once = _STACKED_EXAMPLES if _is_stacked(section) else _LOOPED_EXAMPLES
        parts = []
        for k, one in enumerate(steps):
            trained = [int(seed) for seed in seeds[k * num_stacked : (k + 1) * num_stacked]]
            parts.append(evaluated(finished(one), data, trained, examples_at_once, outputs))
        return _joined(parts)

    return learner


def _joined(parts: Sequence[Correctness]) -> Correctness:
    """Put the results of some trials together."""

    def column(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else np.concatenate(columns)

    return Correctness(**{name: column(name) for name in Correctness._fields if name != "num_unconverged"})


def _is_stacked(section: TorchSection) -> bool:
    return getattr(section, "vectorize", False) is not False


def data_on_device(execution: ExecutionSection, dataset: Dataset) -> DeviceData:
    """Set torch up for one block at a time in this process; return the data set where it is trained on."""
    # One block, cpus_per_block threads, whatever the machine: the order of float additions, and so the bits, depend on it.
    torch.set_num_threads(execution.cpus_per_block)
    torch.backends.cudnn.deterministic = True
    return DeviceData.of(dataset, training_device(execution))


def trainings(
    section: TorchSection,
    training: TrainingSection,
    data: DeviceData,
    masks: Bool[np.ndarray, "trial train"],
    seeds: Int64[np.ndarray, " trial"],
) -> tuple[Iterator[TrainingSteps], int]:
    """Begin to train some trials.

    Returns
    -------
    steps
        Trainings, each begun when it is asked for its first step; together they train all trials in their order.
    num_stacked
        How many trials each of them trains.
    """
    subsets = [torch.from_numpy(np.flatnonzero(mask)).to(data.device) for mask in masks]
    numbers = [int(seed) for seed in seeds]
    if not _is_stacked(section):
        one_by_one = zip(subsets, numbers, strict=True)
        return (looped_training(section, training, data, subset, seed) for subset, seed in one_by_one), 1
    return iter([stacked_training(section, training, data, subsets, numbers)]), len(numbers)
