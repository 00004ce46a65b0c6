"""DenseNets for small images (Huang et al. 2017): three dense blocks, with or without bottlenecks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from feldman.learners.models.layers import conv3x3, he_initialised, pooled_classifier

__all__ = ["densenet"]


class _DenseLayer(nn.Module):
    """Adds ``growth_rate`` channels that are computed from all those there are."""

    def __init__(self, channels_in: int, growth_rate: int, bottleneck: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if bottleneck:
            layers += _normalised(channels_in, nn.Conv2d(channels_in, 4 * growth_rate, 1, bias=False))
            channels_in = 4 * growth_rate
        self.body = nn.Sequential(*layers, *_normalised(channels_in, conv3x3(channels_in, growth_rate)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


def _normalised(channels_in: int, convolution: nn.Conv2d) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels_in), nn.ReLU(), convolution]


def densenet(depth: int, growth_rate: int, bottleneck: bool, channels_in: int, num_classes: int) -> nn.Module:
    """Build a DenseNet for small images (Huang et al. 2017, sections 3 and 4.2), without dropout.

    A 3x3 convolution; three blocks of equally many layers, with a 1x1 convolution and a 2x2 mean between them; the mean over
    positions; a linear layer. Depth 100 with growth rate 12 has the 7.0M parameters of the paper's table without bottlenecks,
    and 0.8M with them.

    Parameters
    ----------
    depth
        Layers in all: 40 or 100.
    growth_rate
        Channels that a layer adds, k in the paper.
    bottleneck
        DenseNet-BC: a 1x1 convolution before each 3x3 one (two layers of the depth), transitions that halve the channels, and
        2k instead of 16 channels to begin with.
    channels_in, num_classes
        Channels of the images, and classes.
    """
    channels = 2 * growth_rate if bottleneck else 16
    layers: list[nn.Module] = [conv3x3(channels_in, channels)]
    for block in range(3):
        if block > 0:
            kept = channels // 2 if bottleneck else channels
            layers += [*_normalised(channels, nn.Conv2d(channels, kept, 1, bias=False)), nn.AvgPool2d(2)]
            channels = kept
        for _ in range((depth - 4) // (6 if bottleneck else 3)):
            layers.append(_DenseLayer(channels, growth_rate, bottleneck))
            channels += growth_rate
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), pooled_classifier(channels, num_classes)]
    return he_initialised(nn.Sequential(*layers))
