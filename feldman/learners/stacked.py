"""Train many models of one shape side by side: the steps that stacks of MLPs and of networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

from feldman.experiment import TrainingSection
from feldman.learner_sections import ImageLearner
from feldman.learners.augmentation import Augmenter
from feldman.learners.descent import TrainingSteps, shuffles
from feldman.learners.device_data import DeviceData
from feldman.learners.recipe import batches_of, learning_rate_at
from feldman.learners.stacked_mlp import StackedMlp
from feldman.learners.stacked_network import StackedNetwork
from feldman.learners.torch_models import TorchSection, build_module, seeded

__all__ = ["NETWORKS_A_STACK", "stacked_training"]

NETWORKS_A_STACK = 10
"""A stack of networks is always as large, the last one of a block filled up with copies that nobody asks: how a convolution of
many networks rounds depends on their number (on a CPU: one or several), and must not depend on a trial's company. It also
bounds memory: activations of 10 trials, not of a block."""

_Item = TypeVar("_Item")


def stacked_training(
    section: TorchSection,
    training: TrainingSection,
    data: DeviceData,
    subsets: Sequence[Int64[Tensor, " example"]],
    seeds: Sequence[int],
) -> TrainingSteps:
    """Train the models of some trials at once: the same steps as `looped_training`, trial by trial.

    Parameters
    ----------
    section, training
        Which model, and the recipe. A network must have neither batch normalisation nor dropout.
    data
        What they learn from.
    subsets
        Indices of the training examples of each trial, all equally many, on the data's device.
    seeds
        The trials'; of networks at most `NETWORKS_A_STACK`.
    """
    num_trials, images = len(seeds), isinstance(section, ImageLearner)
    if images:
        subsets, seeds = _filled_up(subsets), _filled_up(seeds)
    modules = []
    for seed in seeds:
        with seeded(seed):
            modules.append(build_module(section, data.example_shape, data.num_classes))
    augment = Augmenter(training, *seeds)
    epochs = [shuffles(seed, subset, training.epochs) for seed, subset in zip(seeds, subsets, strict=True)]
    batches = batches_of(len(subsets[0]), training.batch_size)
    num_steps, step = training.epochs * len(batches), 0
    stack = (StackedNetwork if images else StackedMlp)(modules, data.device, training)
    for orders in zip(*epochs, strict=True):
        order = torch.stack(orders)
        for part in batches:
            batch = order[:, part]
            x = augment(data.scaled(data.x_train.index_select(0, batch.flatten()))).unflatten(0, batch.shape)
            y = data.y_train.index_select(0, batch.flatten()).view(batch.shape)
            stack.step(x, y, learning_rate_at(training, step, num_steps))
            step += 1
            yield step
    return lambda x: stack.logits(data.scaled(x))[:num_trials]


def _filled_up(items: Sequence[_Item]) -> Sequence[_Item]:
    return [*items, *[items[-1]] * (NETWORKS_A_STACK - len(items))]
