"""Train one network after the other: any model."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from feldman.experiment import TrainingSection
from feldman.learners.augmentation import augmenter
from feldman.learners.compiled import Forward, plain_forward
from feldman.learners.descent import Descent, TrainingSteps, shuffles
from feldman.learners.device_data import DeviceData
from feldman.learners.models.layers import has_batch_norm
from feldman.learners.recipe import batches_of, learning_rate_at
from feldman.learners.torch_models import TorchSection, build_module, seeded

__all__ = ["looped_training"]


def looped_training(
    section: TorchSection,
    training: TrainingSection,
    data: DeviceData,
    subset: Int64[Tensor, " example"],
    seed: int,
    *,
    forward: Forward = plain_forward,
) -> TrainingSteps:
    """Train one model on one subset, step by step.

    Parameters
    ----------
    section, training
        Which model, and the recipe.
    data
        What it learns from.
    subset
        Indices of the training examples, on the data's device.
    seed
        The trial's.
    forward
        How the network is called in training; trained, it is called plainly.
    """
    products = torch.autocast(data.device.type, dtype=torch.bfloat16, enabled=training.precision == "bfloat16")
    with seeded(seed):
        module = build_module(section, data.example_shape, data.num_classes).to(data.device)
        augment = augmenter(training, seed)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        descent = Descent(parameters, training)
        batches = batches_of(len(subset), training.batch_size, has_batch_norm(module))
        num_steps, step = training.epochs * len(batches), 0
        for order in shuffles(seed, subset, training.epochs):
            for batch in batches:
                rows = order[batch]
                with products:
                    logits = forward(module, augment(data.scaled(data.x_train[rows])))
                loss = cross_entropy(logits.to(torch.float32), data.y_train[rows])
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                descent.step(gradients, learning_rate_at(training, step, num_steps))
                step += 1
                yield
    module.eval()

    def logits_of(x: Tensor) -> Tensor:
        with products:
            logits: Tensor = module(data.scaled(x))
        return logits.to(torch.float32)[None]

    return logits_of
