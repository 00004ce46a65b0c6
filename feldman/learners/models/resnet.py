"""Residual networks: those of He et al. 2016 for CIFAR, and torchvision's with a stem that fits small images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import pad, relu

from feldman.learners.models.layers import conv3x3, he_initialised, pooled_classifier

__all__ = ["cifar_resnet", "resnet"]

_SMALL_PIXELS = 64
"""The larger side of images up to which the stem is the small one: ImageNet's would leave 2x2 positions of 64x64 pixels."""


class _PaddedShortcut(nn.Module):
    """He et al.'s option A: every second position, and zeros for the channels that are new. No parameters."""

    def __init__(self, num_new: int) -> None:
        super().__init__()
        self.num_new = num_new

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.num_new))


class _BasicBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, shortcuts: Literal["A", "B"]) -> None:
        super().__init__()
        stride = 1 if channels == channels_in else 2
        self.body = nn.Sequential(
            conv3x3(channels_in, channels, stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2 and shortcuts == "A":
            self.shortcut = _PaddedShortcut(channels - channels_in)
        elif stride == 2:
            projection = nn.Conv2d(channels_in, channels, 1, stride=2, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.body(x) + self.shortcut(x))


def cifar_resnet(depth: int, shortcuts: Literal["A", "B"], channels_in: int, num_classes: int) -> nn.Module:
    """Build a residual network of ``6n + 2`` layers for small images (He et al. 2016, section 4.2).

    A 3x3 convolution; three stages of n blocks of two 3x3 convolutions with 16, 32 and 64 channels, the first of the later
    stages with stride 2; the mean over positions; a linear layer.

    Parameters
    ----------
    depth
        20, 32 or 56 layers, for instance.
    shortcuts
        Where the number of channels changes: ``"A"`` pads with zeros, ``"B"`` projects.
    channels_in, num_classes
        Channels of the images, and classes.
    """
    layers: list[nn.Module] = [conv3x3(channels_in, 16), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for stage_channels in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            layers.append(_BasicBlock(channels, stage_channels, shortcuts))
            channels = stage_channels
    return he_initialised(nn.Sequential(*layers, pooled_classifier(channels, num_classes)))


def resnet(
    name: Literal["resnet18", "resnet50"],
    stem: Literal["auto", "small", "large"],
    image_shape: tuple[int, ...],
    num_classes: int,
) -> nn.Module:
    """Build torchvision's residual network with a stem for these images.

    Parameters
    ----------
    name
        ``"resnet18"`` or ``"resnet50"``. The latter has its stride in the 3x3 convolution, as torchvision has it.
    stem
        ``"large"`` is ImageNet's, a 7x7 convolution with stride 2 and a pooling; ``"small"`` is a 3x3 convolution that keeps
        the size. ``"auto"`` is small up to 64 pixels.
    image_shape
        [height, width] or [height, width, channel].
    num_classes
        Number of classes.
    """
    from torchvision import models  # here, so that workers that train MLPs need not read it

    model = models.get_model(name, num_classes=num_classes)
    channels_in = image_shape[2] if len(image_shape) == 3 else 1
    if stem == "small" or (stem == "auto" and max(image_shape[:2]) <= _SMALL_PIXELS):
        model.conv1, model.maxpool = conv3x3(channels_in, 64), nn.Identity()
        he_initialised(model.conv1)
    elif channels_in != 3:
        model.conv1 = nn.Conv2d(channels_in, 64, 7, stride=2, padding=3, bias=False)
        he_initialised(model.conv1)
    return model  # type: ignore[no-any-return]
