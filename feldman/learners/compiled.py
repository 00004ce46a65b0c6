"""Networks compiled by torch, once a worker and shape of a batch, whatever the number of trials."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from feldman.learners.device_data import DeviceData
from feldman.learners.torch_models import TorchSection, build_module, seeded

__all__ = ["Forward", "compiled_forward", "plain_forward"]

Forward = Callable[[nn.Module, Float[Tensor, "..."]], Float[Tensor, "example class"]]
"""What a network says of a batch while it trains; autograd goes through it."""


def plain_forward(module: nn.Module, x: Float[Tensor, "..."]) -> Float[Tensor, "example class"]:
    """Call the network."""
    logits: Tensor = module(x)
    return logits


def compiled_forward(section: TorchSection, data: DeviceData, backend: str = "inductor") -> Forward:
    """Make a function that runs every network of one shape through the same compiled code.

    A trial builds a network of its own, and torch would compile each of them. Here one template is compiled that gets a trial's
    parameters and buffers with each call; what batch normalisation writes into its buffers, it writes into the trial's.

    Parameters
    ----------
    section, data
        What the networks are, and what they learn from.
    backend
        A compiler of torch.
    """
    with seeded(0):
        template = build_module(section, data.example_shape, data.num_classes).to(data.device)
    # Dropout must draw what it draws uncompiled.
    options: dict[str, str | int | bool | Callable[..., object]] | None = (
        {"fallback_random": True} if backend == "inductor" else None
    )

    @torch.compile(backend=backend, options=options, dynamic=False)
    def of_state(state: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(template, state, (x,))
        return logits

    def forward(module: nn.Module, x: Float[Tensor, "..."]) -> Float[Tensor, "example class"]:
        logits: Tensor = of_state({**dict(module.named_parameters()), **dict(module.named_buffers())}, x)
        return logits

    return forward
