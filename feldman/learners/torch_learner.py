"""Training with torch: one model after the other, or all models of a block at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from feldman.data.dataset import Dataset, Scaling
from feldman.errors import LearnerError
from feldman.experiment import ExecutionSection, TrainingSection
from feldman.learner_sections import ImageLearner
from feldman.learners.augmentation import augmenter
from feldman.learners.images import check_image_learner
from feldman.learners.models.layers import has_batch_norm
from feldman.learners.protocol import Correctness, Learner
from feldman.learners.recipe import batches_of, learning_rate_at
from feldman.learners.stacked_mlp import StackedMlp
from feldman.learners.torch_models import TorchSection, build_module, seeded

__all__ = ["torch_learner", "training_device"]

_EVALUATION_EXAMPLES = 512
"""Examples that one model is evaluated on at once. 4,096 small images take 3 times as long: their activations leave the cache."""

_EVALUATION_ROWS = 8192
"""Rows (trials x examples) that a stack of models is evaluated on at once."""

_SHUFFLE_STREAM = 0x5DEECE66D
"""Tells the generator of the shuffles from that of the initial weights, which starts at the trial's seed itself."""


def torch_learner(
    section: TorchSection, training: TrainingSection, execution: ExecutionSection, dataset: Dataset
) -> Learner:
    """Make the `Learner` for a built-in model.

    Raises
    ------
    LearnerError
        If the model cannot take the inputs, or the device is not there.
    """
    if isinstance(section, ImageLearner):
        check_image_learner(section, training, dataset.example_shape, dataset.num_classes)
    # One block, cpus_per_block threads, whatever the machine: the order of float additions, and so the bits, depend on it.
    torch.set_num_threads(execution.cpus_per_block)
    torch.backends.cudnn.deterministic = True
    data = _DeviceData.of(dataset, training_device(execution))
    stacked = not isinstance(section, ImageLearner) and section.vectorize is not False
    train = _train_stacked if stacked else _train_looped

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        subsets = [torch.from_numpy(np.flatnonzero(mask)).to(data.device) for mask in masks]
        return train(section, training, data, subsets, [int(seed) for seed in seeds])

    return learner


@dataclass(frozen=True, kw_only=True)
class _DeviceData:
    """A data set where the models are. On a CPU its tensors are views of arrays that all workers share: never written to."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    shift: float | Tensor
    scale: float | Tensor
    example_shape: tuple[int, ...]
    num_classes: int
    device: torch.device

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device) -> _DeviceData:
        return cls(
            x_train=_shared_tensor(dataset.x_train).to(device),
            y_train=_shared_tensor(dataset.y_train).to(device),
            x_test=_shared_tensor(dataset.x_test).to(device),
            y_test=_shared_tensor(dataset.y_test).to(device),
            shift=_constants(dataset.shift, device),
            scale=_constants(dataset.scale, device),
            example_shape=dataset.example_shape,
            num_classes=dataset.num_classes,
            device=device,
        )

    def scaled(self, x: Tensor) -> Tensor:
        """Return ``(x - shift) * scale`` in float32. ``x`` is a gather or a slice; the result is always a new tensor."""
        scaled = x.to(torch.float32, copy=True)
        # Channels are last, also where an input was flattened: constants of one a channel broadcast over this view.
        scaled.unflatten(-1, (-1, self.example_shape[-1])).sub_(self.shift).mul_(self.scale)
        return scaled


def _constants(scaling: Scaling, device: torch.device) -> float | Tensor:
    return torch.tensor(scaling, dtype=torch.float32, device=device) if isinstance(scaling, tuple) else scaling


def _shared_tensor(array: NDArray[np.generic]) -> Tensor:
    """View an array as a tensor without a copy; types that torch lacks are widened first."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    with warnings.catch_warnings():
        # Arrays from an object store or a memory map are read-only, which torch cannot express. Nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def training_device(execution: ExecutionSection) -> torch.device:
    """Return the device that ``execution.device`` means here: ``"auto"`` is a GPU if a block takes one and there is one.

    Raises
    ------
    LearnerError
        If the device is not there.
    """
    if execution.device == "auto":
        return torch.device("cuda" if execution.gpus_per_block > 0 and torch.cuda.is_available() else "cpu")
    device = torch.device(execution.device)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, True):
        raise LearnerError(
            f"execution.device = '{execution.device}', but torch sees no such device here; use 'auto' or 'cpu'"
        )
    return device


def _shuffles(seed: int, subset: Tensor, epochs: int) -> Iterator[Tensor]:
    """Yield the order of examples for each epoch; drawn on the CPU, so that it is one on every device."""
    generator = torch.Generator().manual_seed(seed ^ _SHUFFLE_STREAM)
    for _ in range(epochs):
        yield subset[torch.randperm(len(subset), generator=generator).to(subset.device)]


def _descend(
    module: nn.Module, training: TrainingSection, batches: list[slice], loss: Callable[[int, slice], Tensor]
) -> None:
    """Run stochastic gradient descent; ``loss(epoch, batch)`` is that of the examples of a batch, in the epoch's order."""
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
        fused=True,
    )
    num_steps = training.epochs * len(batches)
    for epoch in range(training.epochs):
        for index, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = learning_rate_at(training, epoch * len(batches) + index, num_steps)
            optimizer.zero_grad()
            loss(epoch, batch).backward()
            optimizer.step()


def _train_looped(
    section: TorchSection, training: TrainingSection, data: _DeviceData, subsets: list[Tensor], seeds: list[int]
) -> Correctness:
    """Train one model after the other. Any model."""
    rows = [_train_one(section, training, data, subset, seed) for subset, seed in zip(subsets, seeds, strict=True)]
    return Correctness(np.stack([row.train for row in rows]), np.stack([row.test for row in rows]))


def _train_one(
    section: TorchSection, training: TrainingSection, data: _DeviceData, subset: Tensor, seed: int
) -> Correctness:
    with seeded(seed):
        module = build_module(section, data.example_shape, data.num_classes).to(data.device)
        shuffles = _shuffles(seed, subset, training.epochs)
        augment = augmenter(training, seed)
        order = subset

        def loss(epoch: int, batch: slice) -> Tensor:  # noqa: ARG001
            nonlocal order
            if batch.start == 0:
                order = next(shuffles)
            rows = order[batch]
            with _products_in(training, data.device):
                logits = module(augment(data.scaled(data.x_train[rows])))
            return cross_entropy(logits.to(torch.float32), data.y_train[rows])

        _descend(module, training, batches_of(len(subset), training.batch_size, has_batch_norm(module)), loss)

    def correct(x: Tensor, y: Tensor) -> NDArray[np.bool_]:
        parts = [
            _argmax(module(data.scaled(x[start : start + _EVALUATION_EXAMPLES])), [seed])
            for start in range(0, len(x), _EVALUATION_EXAMPLES)
        ]
        return np.asarray((torch.cat(parts) == y).cpu())

    with torch.inference_mode(), _products_in(training, data.device):
        module.eval()
        return Correctness(correct(data.x_train, data.y_train), correct(data.x_test, data.y_test))


def _products_in(training: TrainingSection, device: torch.device) -> torch.autocast:
    """Return the context in which matrix products and convolutions have the recipe's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=training.precision == "bfloat16")


def _train_stacked(
    section: TorchSection, training: TrainingSection, data: _DeviceData, subsets: list[Tensor], seeds: list[int]
) -> Correctness:
    """Train all models of a block at once. Linear models and MLPs; the same steps as `_train_looped`, trial by trial."""
    modules = []
    for seed in seeds:
        with seeded(seed):
            modules.append(build_module(section, data.example_shape, data.num_classes))
    x_train, x_test = data.x_train.flatten(1), data.x_test.flatten(1)
    shuffles = [_shuffles(seed, subset, training.epochs) for seed, subset in zip(seeds, subsets, strict=True)]
    batches = batches_of(len(subsets[0]), training.batch_size)
    num_steps, step_number = training.epochs * len(batches), 0
    with torch.inference_mode():
        stack = StackedMlp(modules, data.device, training)
        for orders in zip(*shuffles, strict=True):
            order = torch.stack(orders)
            for part in batches:
                batch = order[:, part]
                x = data.scaled(x_train.index_select(0, batch.flatten())).unflatten(0, batch.shape)
                y = data.y_train.index_select(0, batch.flatten()).view(batch.shape)
                stack.step(x, y, learning_rate_at(training, step_number, num_steps))
                step_number += 1

    def correct(x: Tensor, y: Tensor) -> NDArray[np.bool_]:
        step = max(1, _EVALUATION_ROWS // len(seeds))
        parts = [_argmax(stack.logits(data.scaled(x[start : start + step])), seeds) for start in range(0, len(x), step)]
        return np.asarray((torch.cat(parts, dim=1) == y).cpu())

    with torch.inference_mode():
        return Correctness(correct(x_train, data.y_train), correct(x_test, data.y_test))


def _argmax(logits: Tensor, seeds: list[int]) -> Tensor:
    """Return the predicted class; refuse a model that diverged, whose argmax would pass for a prediction."""
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError(
            f"training diverged (logits are not finite) in a trial among seeds {seeds[0]} .. {seeds[-1]}; "
            "lower training.learning_rate"
        )
    return logits.argmax(dim=-1)
