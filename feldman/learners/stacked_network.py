"""Train many small networks at once through `torch.func`: one call of each layer for all of them, gradients trial by trial."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy, pad

from feldman.experiment import TrainingSection
from feldman.learners.descent import Descent

__all__ = ["StackedNetwork"]

_VECTOR = 64
"""Floats in a whole number of the processor's vectors, whatever their length."""


class StackedNetwork:
    """Many networks of one shape, trained side by side. Trials do not mix: every trial gets the gradient it would get alone.

    Parameters
    ----------
    modules
        The untrained networks, one a trial; without batch normalisation and dropout.
    device
        Where to train.
    training
        The recipe; the learning rate is given with each step. bfloat16 is that of autocast, as in looped training.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device, training: TrainingSection) -> None:
        stacked, _ = stack_module_state(list(modules))
        # All parameters are views of one tensor of whole vectors: the fused update rounds what is left over after the last whole
        # vector otherwise than the rest, and that would be a trial's at one place of the stack alone.
        self._flat = _whole_vectors([parameter.detach() for parameter in stacked.values()]).to(device)
        sizes = [parameter.numel() for parameter in stacked.values()]
        views = self._flat[: sum(sizes)].split(sizes)
        self._parameters = {
            name: view.view(parameter.shape) for (name, parameter), view in zip(stacked.items(), views, strict=True)
        }
        self._network = modules[0]  # its layers alone: parameters are given with each call
        self._descent = Descent([self._flat], training)
        # No cache of lowered weights: it would be keyed by tensors that live inside one call of vmap.
        self._products = torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=training.precision == "bfloat16", cache_enabled=False
        )
        self._gradients = vmap(grad(self._loss))

    def step(
        self, x: Float[Tensor, "trial batch *example"], y: Int64[Tensor, "trial batch"], learning_rate: float
    ) -> None:
        """Take one step of gradient descent on the mean cross-entropy of each trial's batch."""
        gradients = self._gradients(self._parameters, x, y)
        self._descent.step([_whole_vectors([gradients[name] for name in self._parameters])], learning_rate)

    def logits(self, x: Float[Tensor, "..."]) -> Float[Tensor, "trial batch classes"]:
        """Return what every trial says of the same examples."""
        num_trials = len(next(iter(self._parameters.values())))
        # A copy of x a trial: for inputs in common, vmap makes one wide convolution, which rounds otherwise than in training.
        logits: Tensor = vmap(self._logits)(self._parameters, x.expand(num_trials, *x.shape))
        return logits

    def _logits(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        with self._products:
            logits: Tensor = functional_call(self._network, parameters, (x,))
        return logits.to(torch.float32)

    def _loss(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self._logits(parameters, x), y)


def _whole_vectors(parts: Sequence[Tensor]) -> Float[Tensor, " padded"]:
    flat = torch.cat([part.flatten() for part in parts])
    return pad(flat, (0, -len(flat) % _VECTOR))
