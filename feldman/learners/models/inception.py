"""The small Inception for images of 28 to 32 pixels, in the two forms that papers on memorization use."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from feldman.learners.models.layers import conv_bn_relu, he_initialised, pooled_classifier

__all__ = ["small_inception"]

_STAGES = (((32, 32), (32, 48)), ((112, 48), (96, 64), (80, 80), (48, 96)), ((176, 160), (176, 160)))
"""Channels of the 1x1 and of the 3x3 branch, block by block (Zhang et al. 2017, figure 3)."""

_CONVOLVED_CHANNELS = (160, 240)
"""Channels after the first and the second stage; with pooled downsampling these follow from the branches."""


class _Branches(nn.Module):
    """Branches side by side, their channels put together."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def small_inception(variant: Literal["feldman-zhang", "zhang"], channels_in: int, num_classes: int) -> nn.Module:
    """Build the small Inception.

    Parameters
    ----------
    variant
        ``"zhang"``: Zhang et al. 2017, appendix A: halves the image by a 3x3 convolution beside a 3x3 maximum, takes the mean
        over positions, and has no scale in its batch normalisation: 1,649,402 parameters for 10 classes, as in their table 1.
        ``"feldman-zhang"``: the code that Feldman & Zhang released (``SmallInception``): halves it by a 3x3 convolution to
        160 and 240 channels, and takes the maximum over positions: 1,895,786.
    channels_in, num_classes
        Channels of the images, and classes.

    Notes
    -----
    TensorFlow pads images of even size at the bottom and right alone where the stride is 2; here it is all around.
    """
    layers: list[nn.Module] = [conv_bn_relu(channels_in, 96, 3)]
    channels = 96
    for stage, blocks in enumerate(_STAGES):
        for narrow, wide in blocks:
            layers.append(_Branches(conv_bn_relu(channels, narrow, 1), conv_bn_relu(channels, wide, 3)))
            channels = narrow + wide
        if stage == len(_STAGES) - 1:
            break
        if variant == "zhang":
            kept = 80 if stage == 0 else 96
            layers.append(_Branches(conv_bn_relu(channels, kept, 3, stride=2), nn.MaxPool2d(3, stride=2, padding=1)))
            channels += kept
        else:
            layers.append(conv_bn_relu(channels, _CONVOLVED_CHANNELS[stage], 3, stride=2))
            channels = _CONVOLVED_CHANNELS[stage]
    if variant == "zhang":
        model = nn.Sequential(*layers, pooled_classifier(channels, num_classes))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.requires_grad_(False)
    else:
        model = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    return he_initialised(model)
