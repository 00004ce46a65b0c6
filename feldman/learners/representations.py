"""What the last, linear layer of a network gets: one network, trained on every training example, is shown all examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn
from torch.nn.functional import linear

from feldman.data.dataset import Dataset
from feldman.errors import FeldmanError, LearnerError, listed
from feldman.experiment import Experiment, TrainingSection
from feldman.learner_sections import BUILT_IN_LEARNERS, CustomLearner, LinearLearner, MlpLearner, SklearnLearner
from feldman.learners.checkpoints import Checkpoints
from feldman.learners.device_data import DeviceData
from feldman.learners.looped import NetworkSteps, network_training, products_of
from feldman.learners.models.layers import has_batch_norm
from feldman.learners.recipe import batches_of
from feldman.learners.torch_learner import NETWORK_ROWS, data_on_device, forward_of
from feldman.learners.torch_models import TorchSection, build_module, seeded

__all__ = ["Representations", "Tell", "trained_representations"]

Tell = Callable[[str, int, int], None]
"""Told a stage, how much is done, of how much: ``"training the network"`` in steps, ``"computing features"`` in examples."""

_TOLERANCE = 1e-4
"""Of the largest logit: the same product of the same numbers, but a library may round it otherwise."""


@dataclass(frozen=True, kw_only=True)
class Representations:
    """What the last layer of one trained network gets, and that layer: logits are ``train @ weight.T + bias``.

    Attributes
    ----------
    train, test
        float32 [example, feature], in the order of the data set; without augmentation, in evaluation mode.
    weight, bias
        float32 [class, feature] and [class]: the last layer.
    layer
        Its name in the network.
    train_accuracy, test_accuracy
        Of the network, which has learned from all training examples.
    """

    train: Float32[np.ndarray, "train feature"]
    test: Float32[np.ndarray, "test feature"]
    weight: Float32[np.ndarray, "class feature"]
    bias: Float32[np.ndarray, " class"]
    layer: str
    train_accuracy: float
    test_accuracy: float


def trained_representations(
    experiment: Experiment,
    dataset: Dataset,
    seed: int,
    *,
    checkpoints: Checkpoints | None = None,
    tell: Tell = lambda stage, done, total: None,
) -> Representations:
    """Train an experiment's network once, on all training examples, and return what its last layer gets.

    Parameters
    ----------
    experiment
        Network, recipe and how it is executed. Nothing is left open, and it trains alone: ``vectorize`` is false, or not there.
    dataset
        What it learns from, and what is shown to it then.
    seed
        The only source of randomness, as a trial's.
    checkpoints
        Where the training is kept on its way, if anywhere; the caller forgets it.
    tell
        Told how far it is.

    Raises
    ------
    LearnerError
        If the learner is no network, or none whose logits are those of a linear layer.
    FeldmanError
        If training diverges.
    """
    section, training = _network(experiment), experiment.training
    data = data_on_device(experiment.execution, dataset)
    with seeded(seed):
        untrained = build_module(section, data.example_shape, data.num_classes).to(data.device).eval()
    layer_name = _last_layer(untrained, data.scaled(data.x_train[:2]), section.name)
    num_steps = training.epochs * len(batches_of(dataset.num_train, training.batch_size, has_batch_norm(untrained)))
    steps = network_training(
        section,
        training,
        data,
        torch.arange(dataset.num_train, device=data.device),
        seed,
        forward=forward_of(section, experiment.execution, data),
        checkpoints=checkpoints,
    )
    module = _finished(steps, lambda done: tell("training the network", done, num_steps))
    frozen = _Frozen(module=module, layer=_linear(module, layer_name), training=training, data=data)
    num_shown = dataset.num_train + dataset.num_test

    def tell_shown(done: int) -> None:
        tell("computing features", done, num_shown)

    train, train_accuracy = _shown(frozen, data.x_train, data.y_train, tell_shown)
    test, test_accuracy = _shown(frozen, data.x_test, data.y_test, lambda done: tell_shown(dataset.num_train + done))
    parameters = frozen.layer.state_dict()
    weight = parameters["weight"].to(torch.float32)
    return Representations(
        train=train,
        test=test,
        weight=weight.cpu().numpy(),
        bias=parameters.get("bias", weight.new_zeros(len(weight))).to(torch.float32).cpu().numpy(),
        layer=layer_name,
        train_accuracy=train_accuracy,
        test_accuracy=test_accuracy,
    )


def _network(experiment: Experiment) -> TorchSection:
    """Return the learner, if it has a representation that is not its input."""
    learner = experiment.learner
    others = listed(name for name in BUILT_IN_LEARNERS if name not in ("linear", "mlp"))
    networks = f"choose a network: mlp, {others}, torchvision:NAME or timm:NAME"
    if isinstance(learner, CustomLearner | SklearnLearner):
        raise LearnerError(
            f"features are what the last layer of a network gets, and feldman sees no layers of the learner '{learner.name}'; "
            f"{networks}"
        )
    if isinstance(learner, LinearLearner) or (isinstance(learner, MlpLearner) and not learner.hidden):
        found = "" if isinstance(learner, LinearLearner) else " with hidden = []"
        raise LearnerError(
            f"the learner '{learner.name}'{found} is a linear layer alone: what it gets is the input itself, and there are no "
            f"features to compute; {networks}"
        )
    return learner


@dataclass(frozen=True, kw_only=True)
class _Frozen:
    """A trained network, its last layer, and how it is shown examples."""

    module: nn.Module
    layer: nn.Linear
    training: TrainingSection
    data: DeviceData


def _finished(steps: NetworkSteps, tell: Callable[[int], None]) -> nn.Module:
    while True:
        try:
            tell(next(steps))
        except StopIteration as end:
            module: nn.Module = end.value
            return module


def _last_layer(module: nn.Module, x: Float[Tensor, "..."], learner: str) -> str:
    """Return the name of the linear layer whose output is what a network says; shown two examples, before it is trained."""
    called: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: called.append(name))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    with torch.inference_mode():
        module(x)
        for hook in hooks:
            hook.remove()
        for name in called[-1:]:
            layer = _linear(module, name)
            if _gives_logits(layer, *_seen(module, layer, x)):
                return name
    raise LearnerError(
        f"the logits of the learner '{learner}' are not those of a linear layer (torch.nn.Linear of [example, feature]), so "
        "there is no last layer to take off; choose another network, as resnet20 or torchvision:resnet18"
    )


def _linear(module: nn.Module, name: str) -> nn.Linear:
    layer = module.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name} is a {type(layer).__name__}")
    return layer


def _seen(
    module: nn.Module, layer: nn.Linear, x: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "example class"]]:
    """Return what a layer gets when the network is shown examples, and what the network says of them."""
    given: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0]))
    try:
        logits: Tensor = module(x)
    finally:
        hook.remove()
    return given[-1], logits


def _gives_logits(layer: nn.Linear, given: Float[Tensor, "..."], logits: Float[Tensor, "example class"]) -> bool:
    """Tell whether a network's logits are that layer's output, computed once more from what it got."""
    if given.ndim != 2 or logits.shape != (len(given), layer.out_features):
        return False
    found, expected = (one.to(torch.float32) for one in (linear(given, layer.weight, layer.bias), logits))
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _shown(
    frozen: _Frozen, x: Shaped[Tensor, "..."], y: Int64[Tensor, " example"], tell: Callable[[int], None]
) -> tuple[Float32[np.ndarray, "example feature"], float]:
    """Show examples to a trained network; return what its last layer gets, and the network's accuracy."""
    products = products_of(frozen.training, frozen.data.device)
    features, num_right = np.empty((len(x), frozen.layer.in_features), np.float32), 0
    for start in range(0, len(x), NETWORK_ROWS):
        rows = slice(start, start + NETWORK_ROWS)
        with torch.inference_mode(), products:
            given, logits = _seen(frozen.module, frozen.layer, frozen.data.scaled(x[rows]))
            if not bool(torch.isfinite(logits).all()):
                raise FeldmanError("training diverged (logits are not finite); lower training.learning_rate")
            if not _gives_logits(frozen.layer, given, logits):
                raise FeldmanError(
                    "trained, the network's logits are not what its last layer gives for what it gets, so there is no last layer "
                    "to take off; choose another network, as resnet20 or torchvision:resnet18"
                )
        features[rows] = given.to(torch.float32).cpu().numpy()
        num_right += int((logits.argmax(dim=1) == y[rows]).sum())
        tell(start + len(logits))
    return features, num_right / len(x)
