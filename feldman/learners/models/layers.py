"""What the image classifiers share."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ChannelsFirst", "conv3x3", "conv_bn_relu", "has_batch_norm", "he_initialised", "pooled_classifier"]


class ChannelsFirst(nn.Module):
    """[example, height, width(, channel)] to [example, channel, height, width] in channels_last memory: a view."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the view."""
        return x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)


def conv3x3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size, without the bias that batch normalisation would take away."""
    return nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)


def conv_bn_relu(channels_in: int, channels: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution, batch normalisation and ReLU."""
    convolution = nn.Conv2d(channels_in, channels, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def pooled_classifier(channels: int, num_classes: int) -> nn.Sequential:
    """Return the global average over positions and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def he_initialised(module: nn.Module) -> nn.Module:
    """Draw the weights of all convolutions anew as He et al. 2015 do, with fan-out as torchvision has it; return the module."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module


def has_batch_norm(module: nn.Module) -> bool:
    """Tell whether a model uses statistics of the batch while it trains: it cannot take a batch of one example then."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return any(isinstance(layer, kinds) for layer in module.modules())
