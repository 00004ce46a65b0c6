"""Train one network after the other: any model."""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from feldman.experiment import TrainingSection
from feldman.learners.augmentation import Augmenter
from feldman.learners.checkpoints import Checkpoints, State, trial_name
from feldman.learners.compiled import Forward, plain_forward
from feldman.learners.descent import Descent, TrainingSteps, shuffles
from feldman.learners.device_data import DeviceData
from feldman.learners.models.layers import has_batch_norm
from feldman.learners.recipe import batches_of, learning_rate_at
from feldman.learners.torch_models import TorchSection, build_module, seeded

__all__ = ["NetworkSteps", "looped_training", "network_training", "products_of"]

NetworkSteps = Generator[int, None, nn.Module]
"""A training under way, as `TrainingSteps`, that returns the network itself."""


def looped_training(
    section: TorchSection,
    training: TrainingSection,
    data: DeviceData,
    subset: Int64[Tensor, " example"],
    seed: int,
    *,
    forward: Forward = plain_forward,
    checkpoints: Checkpoints | None = None,
) -> TrainingSteps:
    """Train one model on one subset, step by step; see `network_training`."""
    module = yield from network_training(
        section, training, data, subset, seed, forward=forward, checkpoints=checkpoints
    )
    products = products_of(training, data.device)

    def logits_of(x: Tensor) -> Tensor:
        with products:
            logits: Tensor = module(data.scaled(x))
        return logits.to(torch.float32)[None]

    return logits_of


def products_of(training: TrainingSection, device: torch.device) -> torch.autocast:
    """Return the context in which matrix products have the recipe's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=training.precision == "bfloat16")


def network_training(
    section: TorchSection,
    training: TrainingSection,
    data: DeviceData,
    subset: Int64[Tensor, " example"],
    seed: int,
    *,
    forward: Forward = plain_forward,
    checkpoints: Checkpoints | None = None,
) -> NetworkSteps:
    """Train one network on one subset, step by step; return it, to be evaluated.

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
    checkpoints
        Where to keep the training's state after some epochs, and to go on from, to the same bits.
    """
    products = products_of(training, data.device)
    with seeded(seed):
        module = build_module(section, data.example_shape, data.num_classes).to(data.device)
        augment = Augmenter(training, seed)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        descent = Descent(parameters, training)
        batches = batches_of(len(subset), training.batch_size, has_batch_norm(module))
        num_steps = training.epochs * len(batches)
        state = _State(module, descent, augment.generators, data.device)
        trial = trial_name(seed, subset.cpu().numpy()) if checkpoints else ""
        num_done = state.restore(checkpoints.load(trial)) if checkpoints else 0
        orders = shuffles(seed, subset, training.epochs)
        for epoch, order in islice(enumerate(orders), num_done, None):  # the orders before are drawn, and left
            for number, batch in enumerate(batches):
                rows = order[batch]
                with products:
                    logits = forward(module, augment(data.scaled(data.x_train[rows])))
                loss = cross_entropy(logits.to(torch.float32), data.y_train[rows])
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                step = epoch * len(batches) + number
                descent.step(gradients, learning_rate_at(training, step, num_steps))
                yield step + 1
            if checkpoints and (epoch + 1) % checkpoints.every_epochs == 0:
                checkpoints.save(trial, state.arrays(epoch + 1))
    return module.eval()


class _State:
    """All that a training changes: parameters, buffers, velocities, and the generators that were drawn from."""

    def __init__(
        self, module: nn.Module, descent: Descent, generators: list[torch.Generator], device: torch.device
    ) -> None:
        self._tensors = dict(module.state_dict(keep_vars=True)) | descent.state()
        self._generators, self._device = generators, device

    def arrays(self, num_epochs: int) -> State:
        """Return the state after so many epochs."""
        tensors = {f"tensor.{name}": tensor.detach().cpu() for name, tensor in self._tensors.items()}
        tensors |= {f"generator.{name}": state for name, state in self._random_states().items()}
        return {name: tensor.numpy() for name, tensor in tensors.items()} | {"epochs": torch.tensor(num_epochs).numpy()}

    def restore(self, state: State | None) -> int:
        """Put a state in place; return after how many epochs it was kept. What does not fit is as good as none."""
        expected = self.arrays(0)
        if state is None or {name: (array.shape, array.dtype) for name, array in state.items()} != {
            name: (array.shape, array.dtype) for name, array in expected.items()
        }:
            return 0
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(torch.from_numpy(state[f"tensor.{name}"]))
        torch.set_rng_state(torch.from_numpy(state["generator.global"]))
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(state["generator.cuda"]), self._device)
        for number, generator in enumerate(self._generators):
            generator.set_state(torch.from_numpy(state[f"generator.{number}"]))
        return int(state["epochs"])

    def _random_states(self) -> dict[str, Tensor]:
        states = {"global": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states | {str(number): generator.get_state() for number, generator in enumerate(self._generators)}
