"""From the section of an image learner to an untrained module, and whether that module can be trained on these images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from feldman.errors import LearnerError
from feldman.experiment import TrainingSection
from feldman.learner_sections import (
    CifarResNetLearner,
    DenseNetLearner,
    InceptionLearner,
    LibraryLearner,
    ResNetLearner,
)
from feldman.learners.models.densenet import densenet
from feldman.learners.models.inception import small_inception
from feldman.learners.models.layers import ChannelsFirst, has_batch_norm
from feldman.learners.models.library import library_model
from feldman.learners.models.resnet import cifar_resnet, resnet

__all__ = ["NamedModel", "check_model", "image_model"]

NamedModel = CifarResNetLearner | ResNetLearner | DenseNetLearner | InceptionLearner | LibraryLearner


def image_model(section: NamedModel, image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build an untrained model for images [example, height, width(, channel)].

    Raises
    ------
    LearnerError
        If a library has no such model or refuses its parameters.
    """
    # channels_last, as the views that ChannelsFirst makes: no copy of a batch, and the faster convolutions
    return nn.Sequential(ChannelsFirst(), _classifier(section, image_shape, num_classes)).to(
        memory_format=torch.channels_last
    )


def _classifier(section: NamedModel, image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    channels_in = image_shape[2] if len(image_shape) == 3 else 1
    if isinstance(section, CifarResNetLearner):
        depth = int(section.name.removeprefix("resnet"))
        return cifar_resnet(depth, section.shortcuts, channels_in, num_classes)
    if isinstance(section, ResNetLearner):
        return resnet(section.name, section.stem, image_shape, num_classes)
    if isinstance(section, DenseNetLearner):
        depth = int(section.name.removeprefix("densenet"))
        return densenet(depth, section.growth_rate, section.bottleneck, channels_in, num_classes)
    if isinstance(section, InceptionLearner):
        return small_inception(section.variant, channels_in, num_classes)
    return library_model(section.name, section.parameters, channels_in, num_classes)


def check_model(section: NamedModel, training: TrainingSection, image_shape: tuple[int, ...], num_classes: int) -> None:
    """Find out whether a model can be built and trained on such images: it is shown two, black ones, on the CPU.

    Raises
    ------
    LearnerError
        If it cannot be built, or does not take them, or returns anything but logits; or if it has batch normalisation and
        batches are of one example.
    """
    with torch.random.fork_rng(devices=[]):
        model = image_model(section, image_shape, num_classes)
        try:
            with torch.no_grad():
                found = model(torch.zeros(2, *image_shape))
        except Exception as error:  # whatever a layer raises for a shape that it does not take
            size = "x".join(map(str, image_shape))
            raise LearnerError(f"the learner '{section.name}' does not take images of {size} ({error})") from error
    if not isinstance(found, Tensor) or found.shape != (2, num_classes):
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise LearnerError(
            f"the learner '{section.name}' must return logits [example, class] while it trains; it returned a "
            f"{type(found).__name__}{shape}. If it has auxiliary outputs, set aux_logits = false under [learner.parameters]"
        )
    if training.batch_size == 1 and has_batch_norm(model):
        raise LearnerError(
            f"the learner '{section.name}' has batch normalisation, which needs batches of at least 2 examples; "
            "found training.batch_size = 1"
        )
