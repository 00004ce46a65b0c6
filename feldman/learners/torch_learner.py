"""Training with torch: one model after the other, or many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from feldman.data.dataset import Dataset
from feldman.experiment import ExecutionSection, OutputsSection, TrainingSection
from feldman.learner_sections import ImageLearner
from feldman.learners.checkpoints import Checkpoints, trial_name
from feldman.learners.compiled import Forward, compiled_forward, plain_forward
from feldman.learners.descent import TrainingSteps, evaluated, finished
from feldman.learners.device_data import DeviceData, training_device
from feldman.learners.images import check_image_learner
from feldman.learners.looped import looped_training
from feldman.learners.protocol import Correctness, Learner
from feldman.learners.stacked import NETWORKS_A_STACK, stacked_training
from feldman.learners.torch_models import TorchSection

__all__ = ["NETWORK_ROWS", "data_on_device", "forward_of", "torch_learner", "trainings"]

NETWORK_ROWS = 512
"""Examples x trials that networks are evaluated on at once. 4,096 take 3 times as long: small images leave the cache."""

_MLP_EXAMPLES = 192
"""Examples that a stack of MLPs is evaluated on at once. No fewer for a larger stack: products of other sizes round otherwise."""


def torch_learner(
    section: TorchSection,
    training: TrainingSection,
    execution: ExecutionSection,
    dataset: Dataset,
    outputs: OutputsSection,
    *,
    checkpoints: Checkpoints | None = None,
) -> Learner:
    """Make the `Learner` for a built-in model.

    Parameters
    ----------
    section, training, execution
        Which model, the recipe, and how it is executed; nothing is left open.
    dataset
        What trials learn from.
    outputs
        What to tell of each trial beside its bits.
    checkpoints
        Where trials under way are kept, if anywhere; those of a block that has been trained are removed.

    Raises
    ------
    LearnerError
        If the model cannot take the inputs, or the device is not there.
    """
    if isinstance(section, ImageLearner):
        check_image_learner(section, training, dataset.example_shape, dataset.num_classes)
    data = data_on_device(execution, dataset)
    forward = forward_of(section, execution, data)
    stacked = _is_stacked(section)
    at_once = NETWORK_ROWS
    if stacked:
        at_once = NETWORK_ROWS // NETWORKS_A_STACK if isinstance(section, ImageLearner) else _MLP_EXAMPLES

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        parts = [
            evaluated(finished(steps), data, trained, at_once, outputs)
            for steps, trained in trainings(
                section, training, data, masks, seeds, forward=forward, checkpoints=checkpoints
            )
        ]
        if checkpoints is not None:
            checkpoints.forget(
                [trial_name(int(seed), np.flatnonzero(mask)) for seed, mask in zip(seeds, masks, strict=True)]
            )
        return _joined(parts)

    return learner


def _joined(parts: Sequence[Correctness]) -> Correctness:
    """Put the results of some trials together."""

    def column(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else np.concatenate(columns)

    return Correctness(**{name: column(name) for name in Correctness._fields if name != "num_unconverged"})


def data_on_device(execution: ExecutionSection, dataset: Dataset) -> DeviceData:
    """Set torch up for one block at a time in this process; return the data set where it is trained on."""
    # One block, cpus_per_block threads, whatever the machine: the order of float additions, and so the bits, depend on it.
    torch.set_num_threads(execution.cpus_per_block)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # convolutions would keep 10 of 23 bits, where float32 was asked for
    return DeviceData.of(dataset, training_device(execution))


def forward_of(section: TorchSection, execution: ExecutionSection, data: DeviceData) -> Forward:
    """Return how networks that train one after the other are called; compiled once for all of them if that is asked for."""
    return compiled_forward(section, data) if execution.compile and not _is_stacked(section) else plain_forward


def trainings(
    section: TorchSection,
    training: TrainingSection,
    data: DeviceData,
    masks: Bool[np.ndarray, "trial train"],
    seeds: Int64[np.ndarray, " trial"],
    *,
    forward: Forward = plain_forward,
    checkpoints: Checkpoints | None = None,
) -> Iterator[tuple[TrainingSteps, list[int]]]:
    """Train some trials: yield trainings, begun when they are asked for their first step, and the seeds of their trials."""
    subsets = [torch.from_numpy(np.flatnonzero(mask)).to(data.device) for mask in masks]
    numbers = [int(seed) for seed in seeds]
    if not _is_stacked(section):
        for subset, seed in zip(subsets, numbers, strict=True):
            steps = looped_training(section, training, data, subset, seed, forward=forward, checkpoints=checkpoints)
            yield steps, [seed]
        return
    size = NETWORKS_A_STACK if isinstance(section, ImageLearner) else len(numbers)
    for k in range(0, len(numbers), size):
        some = numbers[k : k + size]
        yield stacked_training(section, training, data, subsets[k : k + size], some), some


def _is_stacked(section: TorchSection) -> bool:
    """Tell whether trials train side by side; ``"auto"`` has been decided, see `feldman.learners.training_path`."""
    return getattr(section, "vectorize", False) is True
