"""Image classifiers of torchvision and of timm, untrained, by the names that these libraries give them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from torch import nn

from feldman.errors import LearnerError, suggestion
from feldman.learner_sections import Parameters
from feldman.learners.models.layers import he_initialised

__all__ = ["library_model"]

_NOT_TAKEN = {
    "weights": "a trained model has seen what a trial must not learn from",
    "weights_backbone": "a trained model has seen what a trial must not learn from",
    "pretrained": "a trained model has seen what a trial must not learn from",
    "checkpoint_path": "a trained model has seen what a trial must not learn from",
    "num_classes": "the data set decides it",
    "in_chans": "the data set decides it",
}


def library_model(name: str, parameters: Parameters, channels_in: int, num_classes: int) -> nn.Module:
    """Build ``"torchvision:NAME"`` or ``"timm:NAME"``.

    timm builds for any number of channels. torchvision builds for three: for another number its first convolution is replaced by
    one that takes them, with weights as He et al. 2015 draw them.

    Parameters
    ----------
    name
        As the experiment has it.
    parameters
        Handed to the library's builder.
    channels_in, num_classes
        Channels of the images, and classes.

    Raises
    ------
    LearnerError
        If there is no such model, the library is not installed, or its builder refuses the parameters.
    """
    for key, reason in _NOT_TAKEN.items():
        if key in parameters:
            raise LearnerError(f"learner.parameters.{key} is not taken ({reason}); take it out")
    library, _, model_name = name.partition(":")
    arguments: dict[str, Any] = {"num_classes": num_classes, **parameters}
    if library == "timm":
        timm = _imported_timm(name)
        _check_name(name, model_name, timm.list_models(), "timm.list_models()")
        # A tag names trained weights; the model is that of the name before it.
        return _built(name, timm.create_model, model_name, {"pretrained": False, "in_chans": channels_in, **arguments})
    from torchvision import models  # here, so that workers that train MLPs need not read it

    _check_name(name, model_name, models.list_models(module=models), "torchvision.models.list_models()")
    model = _built(name, models.get_model, model_name, arguments)
    if channels_in != 3:
        _take_channels(model, channels_in)
    return model


def _imported_timm(name: str) -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise LearnerError(
            f"learner.name = '{name}' needs the package timm ({error}); install it: pip install 'feldman[timm]'"
        ) from None


def _check_name(name: str, model_name: str, known: list[str], listing: str) -> None:
    if model_name.partition(".")[0] not in known:
        raise LearnerError(
            f"learner.name = '{name}': there is no classifier '{model_name}'{suggestion(model_name, known)}; "
            f"{listing} tells the {len(known)} there are"
        )


def _built(name: str, builder: Any, model_name: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        return builder(model_name, **arguments)  # type: ignore[no-any-return]
    except Exception as error:  # whatever the library raises for parameters that it does not take
        raise LearnerError(
            f"learner.name = '{name}': its builder refused learner.parameters ({type(error).__name__}: {error})"
        ) from error


def _take_channels(model: nn.Module, channels_in: int) -> None:
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent, _, attribute = path.rpartition(".")
            first = nn.Conv2d(
                channels_in,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                stride=layer.stride,  # type: ignore[arg-type]
                padding=layer.padding,  # type: ignore[arg-type]
                bias=layer.bias is not None,
            )
            setattr(model.get_submodule(parent), attribute, he_initialised(first))
            return
