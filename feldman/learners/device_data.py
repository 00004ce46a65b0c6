"""A data set where models are trained: gathered by index, scaled on the way, never written to."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from numpy.typing import NDArray
from torch import Tensor

from feldman.data.dataset import Dataset, Scaling
from feldman.errors import LearnerError
from feldman.experiment import ExecutionSection

__all__ = ["DeviceData", "training_device"]


@dataclass(frozen=True, kw_only=True)
class DeviceData:
    """A data set on a device. On a CPU its tensors are views of arrays that all workers share: never written to.

    Attributes
    ----------
    x_train, x_test
        [example, *example_shape], as the data set has them.
    y_train, y_test
        Labels [example].
    shift, scale
        What models see is ``(x - shift) * scale``.
    example_shape, num_classes
        Of the data set.
    device
        Where the tensors are.
    """

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
    def of(cls, dataset: Dataset, device: torch.device) -> DeviceData:
        """Move a data set to a device; on the CPU nothing is copied."""
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

    def scaled(self, x: Shaped[Tensor, "..."]) -> Float32[Tensor, "..."]:
        """Return ``(x - shift) * scale`` in float32. ``x`` is a gather or a slice; the result is always a new tensor."""
        scaled = x.to(torch.float32, copy=True)
        constants = (self.shift, self.scale)
        if not any(isinstance(one, Tensor) for one in constants) and constants == (0.0, 1.0):
            return scaled  # two passes over a batch less: a fifth of a linear trial's time on 1,568 features
        # Channels are last, also where an input was flattened: constants of one a channel broadcast over this view.
        scaled.unflatten(-1, (-1, self.example_shape[-1])).sub_(self.shift).mul_(self.scale)
        return scaled


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
