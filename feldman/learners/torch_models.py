"""The models that trials train, as torch modules, and as stacks of many MLPs in one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from feldman.learner_sections import CnnLearner, ImageLearner, LinearLearner, MlpLearner
from feldman.learners.models.build import image_model
from feldman.learners.models.layers import ChannelsFirst

__all__ = ["StackedMlp", "build_module", "seeded"]

TorchSection = LinearLearner | MlpLearner | ImageLearner


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's global CPU generator as if it were seeded; leave it as it was.

    Modules (and dropout) can draw from nowhere else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_module(section: TorchSection, example_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build an untrained model for inputs [example, *example_shape]; linear, MLP and CNN with PyTorch's own initialisation."""
    if isinstance(section, CnnLearner):
        return _cnn(section.channels, example_shape, num_classes)
    if not isinstance(section, LinearLearner | MlpLearner):
        return image_model(section, example_shape, num_classes)
    hidden = section.hidden if isinstance(section, MlpLearner) else []
    widths = [math.prod(example_shape), *hidden, num_classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _cnn(channels: list[int], example_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    height, width, *rest = example_shape
    layers: list[nn.Module] = [ChannelsFirst()]
    channels_in = rest[0] if rest else 1
    for channels_out in channels:
        # Pooling first: ReLU and maximum commute, and ReLU then has a quarter of the values to look at.
        layers += [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        channels_in, height, width = channels_out, height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(channels_in * height * width, num_classes)]
    # channels_last: 1.4 to 1.5 times the speed of contiguous tensors on a CPU (measured, 28x28 images, 16 and 32 channels)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


class StackedMlp(nn.Module):
    """Many MLPs of one shape as one: weights [trial, in, out], one batched matrix product a layer.

    Trials do not mix: the gradient of a sum of per-trial losses is each trial's own.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        linears = [[layer for layer in module.children() if isinstance(layer, nn.Linear)] for module in modules]
        stacks = list(zip(*linears, strict=True))
        self.weights = nn.ParameterList(torch.stack([one.weight.detach().T for one in stack]) for stack in stacks)
        self.biases = nn.ParameterList(torch.stack([one.bias.detach()[None] for one in stack]) for stack in stacks)

    def forward(self, x: Float[Tensor, "#trial batch features"]) -> Float[Tensor, "trial batch classes"]:
        """Return logits of every trial for its own batch, or for one batch shared by all (first axis 1)."""
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.expand(len(weight), -1, -1), weight)
            if layer < last:
                x = x.relu_()
        return x
