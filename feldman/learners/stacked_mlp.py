"""Train all linear models or MLPs of a block at once: weights [trial, in, out], a dozen batched operations a step.

Gradients are written out: autograd's bookkeeping takes as long as the arithmetic of small models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from feldman.experiment import TrainingSection
from feldman.learners.descent import Descent

__all__ = ["StackedMlp"]

_VECTOR = 64
"""Floats in a whole number of the processor's vectors, whatever their length."""


class StackedMlp:
    """Many MLPs of one shape, trained side by side. Trials do not mix: every trial gets the gradient it would get alone.

    Parameters
    ----------
    modules
        The untrained models, one a trial, as `feldman.learners.torch_models.build_module` makes them.
    device
        Where to train.
    training
        The recipe; the learning rate is given with each step. Its precision is that of the matrix products: bfloat16 has a range
        as wide as float32, so nothing needs to be scaled; weights, sums over batches, softmax and updates are float32 either way.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device, training: TrainingSection) -> None:
        linears = [[layer for layer in module.children() if isinstance(layer, nn.Linear)] for module in modules]
        stacks = list(zip(*linears, strict=True))
        self._product_type = torch.bfloat16 if training.precision == "bfloat16" else torch.float32
        with torch.inference_mode():
            parts = [torch.stack([one.weight.T for one in stack]) for stack in stacks]
            parts += [torch.stack([one.bias[None] for one in stack]) for stack in stacks]
            self._shapes = [part.shape for part in parts]
            self._num_weights = sum(shape.numel() for shape in self._shapes[: len(stacks)])
            # All parameters lie in one tensor, so that lowering, raising and updating are one operation each.
            self._parameters = _padded(torch.cat([part.flatten() for part in parts])).to(device)
            self._gradients = torch.zeros_like(self._parameters)
            # Where products are lowered, so are their results.
            self._products = self._gradients.to(self._product_type)
            self._descent = Descent([self._parameters], training)

    @torch.inference_mode()
    def step(
        self, x: Float[Tensor, "trial batch *example"], y: Int64[Tensor, "trial batch"], learning_rate: float
    ) -> None:
        r"""Take one step of gradient descent on the mean cross-entropy of each trial's batch.

        With logits z, labels as rows of the unit matrix e_y, activations a and B examples a batch, the gradient is
        :math:`(softmax(z) - e_y) / B` at the logits, :math:`a^T g` at a layer's weights, and where ReLU let nothing through
        it is 0.
        """
        weights, biases = self._layers(self._parameters.to(self._product_type))
        weight_gradients, _ = self._layers(self._products)
        _, bias_gradients = self._layers(self._gradients)
        activations = [x.flatten(2).to(self._product_type)]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            activations.append(torch.baddbmm(bias, activations[-1], weight).relu_())
        # Logits lie [trial, class, batch]: softmax over few classes that lie side by side takes 20 times as long.
        logits = torch.baddbmm(biases[-1].transpose(1, 2), weights[-1].transpose(1, 2), activations[-1].transpose(1, 2))
        at_logits = torch.softmax(logits, dim=1, dtype=torch.float32)
        at_logits.scatter_add_(1, y[:, None], at_logits.new_full((1, 1, 1), -1.0).expand(len(y), 1, y.shape[1]))
        at_logits /= y.shape[1]
        torch.sum(at_logits, dim=2, out=bias_gradients[-1].squeeze(1))
        gradient = at_logits.to(self._product_type).transpose(1, 2)
        for layer in reversed(range(len(weights))):
            torch.bmm(activations[layer].transpose(1, 2), gradient, out=weight_gradients[layer])
            if layer:
                below = torch.bmm(gradient, weights[layer].transpose(1, 2))
                gradient = torch.ops.aten.threshold_backward(below, activations[layer], 0)
                torch.sum(gradient, dim=1, keepdim=True, dtype=torch.float32, out=bias_gradients[layer - 1])
        if self._products.dtype != self._gradients.dtype:
            self._gradients[: self._num_weights].copy_(self._products[: self._num_weights])
        self._descent.step([self._gradients], learning_rate)

    def logits(self, x: Float[Tensor, "..."]) -> Float[Tensor, "trial batch classes"]:
        """Return what every trial says of the same examples."""
        weights, biases = self._layers(self._parameters.to(self._product_type))
        # Whole vectors of examples: what is left over would be rounded one way in a stack of 2 and another way in one of 30.
        whole = nn.functional.pad(x.flatten(1).to(self._product_type), (0, 0, 0, -len(x) % _VECTOR))
        hidden = whole.expand(len(weights[0]), -1, -1)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            hidden = torch.baddbmm(bias, hidden, weight).relu_()
        return torch.baddbmm(biases[-1], hidden, weights[-1])[:, : len(x)].to(torch.float32)

    def _layers(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """View the weights [trial, in, out] and biases [trial, 1, out] of all layers in a tensor that holds them all."""
        views, start = [], 0
        for shape in self._shapes:
            views.append(flat[start : start + shape.numel()].view(shape))
            start += shape.numel()
        return views[: len(views) // 2], views[len(views) // 2 :]


def _padded(flat: Float[Tensor, " parameter"]) -> Float[Tensor, " padded"]:
    """Add zeros up to a whole number of vectors.

    The fused update rounds what is left over after the last whole vector otherwise than the rest, and what is left over would
    depend on the number of trials.
    """
    return nn.functional.pad(flat, (0, -len(flat) % _VECTOR))
