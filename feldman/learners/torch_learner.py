"""Training with torch: one model after the other, or all models of a block at once."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int64

from feldman.data.dataset import Dataset
from feldman.experiment import ExecutionSection, TrainingSection
from feldman.learner_sections import ImageLearner
from feldman.learners.compiled import compiled_forward, plain_forward
from feldman.learners.descent import evaluated, finished
from feldman.learners.device_data import DeviceData, training_device
from feldman.learners.images import check_image_learner
from feldman.learners.looped import looped_training
from feldman.learners.protocol import Correctness, Learner
from feldman.learners.stacked import NETWORKS_A_STACK, stacked_training
from feldman.learners.torch_models import TorchSection

__all__ = ["torch_learner"]

_EVALUATION_EXAMPLES = 512
"""Examples x trials that networks are evaluated on at once. 4,096 take 3 times as long: small images leave the cache."""

_EVALUATION_ROWS = 8192
"""Examples x trials that a stack of MLPs is evaluated on at once."""


def torch_learner(
    section: TorchSection, training: TrainingSection, execution: ExecutionSection, dataset: Dataset
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
    stacked, images = _vectorized(section), isinstance(section, ImageLearner)
    forward = compiled_forward(section, data) if execution.compile and not stacked else plain_forward

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        subsets = [torch.from_numpy(np.flatnonzero(mask)).to(data.device) for mask in masks]
        numbers = [int(seed) for seed in seeds]
        size = (NETWORKS_A_STACK if images else len(numbers)) if stacked else 1
        rows = _EVALUATION_ROWS if stacked and not images else _EVALUATION_EXAMPLES
        parts = []
        for k in range(0, len(numbers), size):
            some = numbers[k : k + size]
            if stacked:
                steps = stacked_training(section, training, data, subsets[k : k + size], some)
            else:
                steps = looped_training(section, training, data, subsets[k], some[0], forward=forward)
            parts.append(evaluated(finished(steps), data, some, max(1, rows // size)))
        return Correctness(
            np.concatenate([part.train for part in parts]), np.concatenate([part.test for part in parts])
        )

    return learner


def _vectorized(section: TorchSection) -> bool:
    """Tell whether trials train side by side. ``"auto"``: MLPs do; convolutions of many networks in one are slow on a CPU."""
    vectorize = getattr(section, "vectorize", False)
    return not isinstance(section, ImageLearner) if vectorize == "auto" else bool(vectorize)
