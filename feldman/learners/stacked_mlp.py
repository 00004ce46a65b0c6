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
        with torch.inference_mode():
            self._weights = [torch.stack([one.weight.T for one in stack]).to(device) for stack in stacks]
            self._biases = [torch.stack([one.bias[None] for one in stack]).to(device) for stack in stacks]
            self._weight_gradients = [torch.empty_like(weight) for weight in self._weights]
            self._bias_gradients = [torch.empty_like(bias) for bias in self._biases]
            self._descent = Descent([*self._weights, *self._biases], training)
        self._product_type = torch.bfloat16 if training.precision == "bfloat16" else torch.float32

    @torch.inference_mode()
    def step(
        self, x: Float[Tensor, "trial batch *example"], y: Int64[Tensor, "trial batch"], learning_rate: float
    ) -> None:
        r"""Take one step of gradient descent on the mean cross-entropy of each trial's batch.

        With logits z, labels as rows of the unit matrix e_y, activations a and B examples a batch, the gradient is
        :math:`(softmax(z) - e_y) / B` at the logits, :math:`a^T g` at a layer's weights, and where ReLU let nothing through
        it is 0.
        """
        weights, biases = self._lowered(self._weights), self._lowered(self._biases)
        activations = [x.flatten(2).to(self._product_type)]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            activations.append(torch.baddbmm(bias, activations[-1], weight).relu_())
        # Logits lie [trial, class, batch]: softmax over few classes that lie side by side takes 20 times as long.
        logits = torch.baddbmm(biases[-1].transpose(1, 2), weights[-1].transpose(1, 2), activations[-1].transpose(1, 2))
        at_logits = torch.softmax(logits, dim=1, dtype=torch.float32)
        at_logits.scatter_add_(1, y[:, None], at_logits.new_full((1, 1, 1), -1.0).expand(len(y), 1, y.shape[1]))
        at_logits /= y.shape[1]
        torch.sum(at_logits, dim=2, out=self._bias_gradients[-1].squeeze(1))
        gradient = at_logits.to(self._product_type).transpose(1, 2)
        for layer in reversed(range(len(weights))):
            self._set_gradient(self._weight_gradients[layer], activations[layer].transpose(1, 2), gradient)
            if layer:
                below = torch.bmm(gradient, weights[layer].transpose(1, 2))
                gradient = torch.ops.aten.threshold_backward(below, activations[layer], 0)
                torch.sum(gradient, dim=1, keepdim=True, dtype=torch.float32, out=self._bias_gradients[layer - 1])
        self._descent.step([*self._weight_gradients, *self._bias_gradients], learning_rate)

    def logits(self, x: Float[Tensor, "..."]) -> Float[Tensor, "trial batch classes"]:
        """Return what every trial says of the same examples."""
        hidden = x.flatten(1).to(self._product_type).expand(len(self._weights[0]), -1, -1)
        layers = list(zip(self._lowered(self._weights), self._lowered(self._biases), strict=True))
        for weight, bias in layers[:-1]:
            hidden = torch.baddbmm(bias, hidden, weight).relu_()
        weight, bias = layers[-1]
        return torch.baddbmm(bias, hidden, weight).to(torch.float32)

    def _lowered(self, parameters: list[Tensor]) -> list[Tensor]:
        return [parameter.to(self._product_type) for parameter in parameters]

    def _set_gradient(self, gradient: Tensor, left: Tensor, right: Tensor) -> None:
        if self._product_type == torch.float32:
            torch.bmm(left, right, out=gradient)
        else:
            gradient.copy_(torch.bmm(left, right))
