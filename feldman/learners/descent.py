"""What all training with torch shares: a training under way, its shuffles, its descent, and what its models say in the end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float16, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.sgd import sgd

from feldman.experiment import OutputsSection, TrainingSection
from feldman.learners.device_data import DeviceData
from feldman.learners.outputs import LARGEST_MARGIN
from feldman.learners.protocol import Correctness

__all__ = ["Descent", "Logits", "TrainingSteps", "evaluated", "finished", "logit_margins", "shuffles"]

Logits = Callable[[Shaped[Tensor, "..."]], Float[Tensor, "trial example class"]]
"""Trained models: from examples as the data set has them to what each model says of them."""

TrainingSteps = Generator[int, None, Logits]
"""A training under way, of one trial or of a stack: it stops after every step of descent, tells how many have been taken, and
returns what has been trained."""

_SHUFFLE_STREAM = 0x5DEECE66D
"""Tells the generator of the shuffles from that of the initial weights, which starts at the trial's seed itself."""


def shuffles(seed: int, subset: Int64[Tensor, " example"], epochs: int) -> Iterator[Int64[Tensor, " example"]]:
    """Yield the order of examples for each epoch; drawn on the CPU, so that it is one on every device."""
    generator = torch.Generator().manual_seed(seed ^ _SHUFFLE_STREAM)
    for _ in range(epochs):
        yield subset[torch.randperm(len(subset), generator=generator).to(subset.device)]


class Descent:
    """Stochastic gradient descent with momentum, as the recipe says; the learning rate is given with each step.

    Through the functional form of `torch.optim.SGD`: making an optimizer imports torch's compiler, 0.9 s a worker.
    """

    def __init__(self, parameters: Sequence[Tensor], training: TrainingSection) -> None:
        self._parameters, self._training = parameters, training
        # Starting from zero velocity, the first step is the gradient itself, as in torch.
        self._velocities = [torch.zeros_like(one) if training.momentum else None for one in parameters]

    def state(self) -> dict[str, Tensor]:
        """Return what it changes beside the parameters, by name."""
        return {f"velocity {k}": one for k, one in enumerate(self._velocities) if one is not None}

    def step(self, gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        """Move all parameters that have a gradient."""
        moving = [k for k, gradient in enumerate(gradients) if gradient is not None]
        with torch.no_grad():
            sgd(
                [self._parameters[k] for k in moving],
                [gradient for gradient in gradients if gradient is not None],
                [self._velocities[k] for k in moving],
                fused=True,
                lr=learning_rate,
                momentum=self._training.momentum,
                weight_decay=self._training.weight_decay,
                nesterov=self._training.nesterov,
                dampening=0.0,
                maximize=False,
            )


def finished(steps: TrainingSteps) -> Logits:
    """Train to the end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            logits: Logits = end.value
            return logits


def evaluated(
    logits: Logits, data: DeviceData, seeds: Sequence[int], examples_at_once: int, outputs: OutputsSection
) -> Correctness:
    """Say which examples trained models get right, and what else is recorded of them.

    Parameters
    ----------
    logits
        What the models of some trials say.
    data
        All its training and test examples are shown to them.
    seeds
        Those of the trials, for the error.
    examples_at_once
        How many examples are shown at once.
    outputs
        What is recorded beside.

    Raises
    ------
    FloatingPointError
        If a model has diverged: the argmax of what is not finite would pass for a prediction.
    """

    def answers(x: Tensor, y: Tensor) -> dict[str, NDArray[Any]]:
        parts = []
        for start in range(0, len(x), examples_at_once):
            shown = slice(start, start + examples_at_once)
            parts.append(_answers(_finite(logits(x[shown]), seeds), y[shown], outputs))
        return {name: torch.cat([part[name] for part in parts], dim=1).cpu().numpy() for name in parts[0]}

    with torch.inference_mode():
        train, test = answers(data.x_train, data.y_train), answers(data.x_test, data.y_test)
    return Correctness(
        train["correct"],
        test["correct"],
        train_margin=train.get("margin"),
        test_margin=test.get("margin"),
        train_prediction=train.get("prediction"),
        test_prediction=test.get("prediction"),
    )


def logit_margins(
    logits: Float[Tensor, "trial example class"], labels: Int64[Tensor, " example"]
) -> Float16[Tensor, "trial example"]:
    """Return what `feldman.learners.outputs.margins` does, of finite logits, on their device."""
    chosen = labels[:, None].expand(*logits.shape[:2], 1)
    others = logits.scatter(2, chosen, -torch.inf).amax(dim=2)
    margin = logits.gather(2, chosen)[:, :, 0] - others
    return margin.clamp(-LARGEST_MARGIN, LARGEST_MARGIN).to(torch.float16) + 0.0  # no negative zero


def _answers(
    logits: Float[Tensor, "trial example class"], labels: Int64[Tensor, " example"], outputs: OutputsSection
) -> dict[str, Tensor]:
    predicted = logits.argmax(dim=2)
    found = {"correct": predicted == labels}
    if outputs.margins:
        found["margin"] = logit_margins(logits, labels)
    if outputs.predictions:
        found["prediction"] = predicted
    return found


def _finite(logits: Float[Tensor, "trial example class"], seeds: Sequence[int]) -> Float[Tensor, "trial example class"]:
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError(
            f"training diverged (logits are not finite) in a trial among seeds {seeds[0]} .. {seeds[-1]}; "
            "lower training.learning_rate"
        )
    return logits
