"""Parts of a training recipe that are arithmetic: the learning rate of a step, and the batches of an epoch."""

from __future__ import annotations

import math

from feldman.experiment import TrainingSection

__all__ = ["batches_of", "learning_rate_at"]


def learning_rate_at(training: TrainingSection, step: int, num_steps: int) -> float:
    """Return the learning rate of one step of all.

    First it climbs linearly to ``learning_rate``, in the share ``warmup`` of all steps. Then it stays (``"constant"``), falls to
    0 in the steps that are left (``"linear"``, ``"cosine"``), or is multiplied by ``factor`` at each of ``milestones``
    (``"step"``), which are shares of all steps, so that a recipe means the same on a subset of any size.

    Parameters
    ----------
    training
        The recipe.
    step
        0 .. ``num_steps`` - 1.
    num_steps
        Steps of the whole training.
    """
    num_warmup = round(training.warmup * num_steps)
    if step < num_warmup:
        return training.learning_rate * (step + 1) / num_warmup
    if training.schedule == "step":
        passed = sum(step >= round(milestone * num_steps) for milestone in training.milestones)
        return training.learning_rate * training.factor**passed
    left, done = num_steps - num_warmup, step - num_warmup
    if training.schedule == "linear":
        return training.learning_rate * (1 - done / left)
    if training.schedule == "cosine":
        return training.learning_rate * 0.5 * (1 + math.cos(math.pi * done / left))
    return training.learning_rate


def batches_of(num_examples: int, batch_size: int, batch_norm: bool = False) -> list[slice]:
    """Return where each batch of an epoch begins and ends; the last one may be shorter.

    A last batch of one example has no variance, and batch normalisation refuses it. For such models that example joins the batch
    before: so every example of the subset counts once an epoch, which is what memorization is about.

    Parameters
    ----------
    num_examples
        Size of the subset.
    batch_size
        Examples a batch.
    batch_norm
        Whether the model has batch normalisation.
    """
    starts = list(range(0, num_examples, batch_size))
    if batch_norm and len(starts) > 1 and num_examples - starts[-1] == 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], num_examples], strict=True)]
