"""Train all linear models or MLPs of a block at once: weights [trial, in, out], a dozen batched operations a step.

Gradients are written out: autograd's bookkeeping takes as long as the arithmetic of small models.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from feldman.experiment import TrainingSection

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
        The recipe; the learning rate is set for each step.
    """

    def __init__(self, modules: list[nn.Module], device: torch.device, training: TrainingSection) -> None:
        linears = [[layer for layer in module.children() if isinstance(layer, nn.Linear)] for module in modules]
        stacks = list(zip(*linears, strict=True))
        self._weights = [torch.stack([one.weight.detach().T for one in stack]).to(device) for stack in stacks]
        self._biases = [torch.stack([one.bias.detach()[None] for one in stack]).to(device) for stack in stacks]
        parameters = [*self._weights, *self._biases]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        self._optimizer = torch.optim.SGD(
            parameters,
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            nesterov=training.nesterov,
            fused=True,
        )

    def step(
        self, x: Float[Tensor, "trial batch features"], y: Int64[Tensor, "trial batch"], learning_rate: float
    ) -> None:
        r"""Take one step of gradient descent on the mean cross-entropy of each trial's batch.

        With logits z, labels as rows of the unit matrix e_y, activations a and B examples a batch, the gradient is
        :math:`(softmax(z) - e_y) / B` at the logits, :math:`a^T g` at a layer's weights, and where ReLU let nothing through
        it is 0.
        """
        activations = [x]
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            activations.append(torch.baddbmm(bias, activations[-1], weight).relu_())
        logits = torch.baddbmm(self._biases[-1], activations[-1], self._weights[-1])
        gradient = torch.softmax(logits, dim=2)
        gradient.scatter_add_(2, y[:, :, None], gradient.new_full((1, 1, 1), -1.0).expand(*y.shape, 1))
        gradient /= y.shape[1]
        for layer in reversed(range(len(self._weights))):
            weight, bias = self._weights[layer], self._biases[layer]
            torch.bmm(activations[layer].transpose(1, 2), gradient, out=weight.grad)
            torch.sum(gradient, dim=1, keepdim=True, out=bias.grad)
            if layer:
                below = torch.bmm(gradient, weight.transpose(1, 2))
                gradient = torch.ops.aten.threshold_backward(below, activations[layer], 0)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()

    def logits(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "trial batch classes"]:
        """Return what every trial says of the same examples."""
        hidden = x.expand(len(self._weights[0]), -1, -1)
        for layer, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer + 1 < len(self._weights):
                hidden.relu_()
        return hidden
