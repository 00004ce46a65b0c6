"""Training with torch: one model after the other, or all models of a block at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from feldman.data.dataset import Dataset
from feldman.experiment import ExecutionSection, OutputsSection, TrainingSection
from feldman.learner_sections import ImageLearner
from feldman.learners.descent import evaluated, finished
from feldman.learners.device_data import DeviceData, training_device
from feldman.learners.images import check_image_learner
from feldman.learners.looped import looped_training
from feldman.learners.protocol import Correctness, Learner
from feldman.learners.stacked_mlp import stacked_training
from feldman.learners.torch_models import TorchSection

__all__ = ["torch_learner"]

_EVALUATION_EXAMPLES = 512
"""Examples that one model is evaluated on at once. 4,096 small images take 3 times as long: their activations leave the cache."""

_EVALUATION_ROWS = 8192
"""Rows (trials x examples) that a stack of models is evaluated on at once."""


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
    # One block, cpus_per_block threads, whatever the machine: the order of float additions, and so the bits, depend on it.
    torch.set_num_threads(execution.cpus_per_block)
    torch.backends.cudnn.deterministic = True
    data = DeviceData.of(dataset, training_device(execution))
    stacked = not isinstance(section, ImageLearner) and section.vectorize is not False

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        subsets = [torch.from_numpy(np.flatnonzero(mask)).to(data.device) for mask in masks]
        numbers = [int(seed) for seed in seeds]
        if stacked:
            models = finished(stacked_training(section, training, data, subsets, numbers))
            return evaluated(models, data, numbers, max(1, _EVALUATION_ROWS // len(numbers)), outputs)
        rows = []
        for subset, seed in zip(subsets, numbers, strict=True):
            model = finished(looped_training(section, training, data, subset, seed))
            rows.append(evaluated(model, data, [seed], _EVALUATION_EXAMPLES, outputs))
        return _joined(rows)

    return learner


def _joined(rows: Sequence[Correctness]) -> Correctness:
    """Put the results of single trials together."""

    def column(name: str) -> Any:
        parts = [getattr(row, name) for row in rows]
        return None if parts[0] is None else np.concatenate(parts)

    return Correctness(**{name: column(name) for name in Correctness._fields if name != "num_unconverged"})
