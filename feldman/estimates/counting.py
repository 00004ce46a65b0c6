"""Where pairs are counted: on the cores of this machine, on a GPU, or on a Ray cluster. The results are identical."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from feldman.errors import QueryError
from feldman.estimates import kernel_tiles
from feldman.estimates.tiles import TileInputs
from feldman.trials.executor import Executor, Task, ThreadExecutor, usable_cores
from feldman.trials.ray_cluster import BlockResources, check_address
from feldman.trials.ray_executor import RayExecutor

__all__ = ["Counting"]

_REMOTE_WORKERS = 32
"""Work for a cluster is cut for so many workers: how many there will be is not known before it answers."""


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Where pairs are counted.

    Attributes
    ----------
    address
        A Ray cluster's address; None for this process.
    device
        ``"cpu"``: the compiled kernel, on all cores. ``"cuda"``, ``"cuda:1"``, ...: torch on that GPU.

    Raises
    ------
    QueryError
        If the device is no such text, or is not there.
    InputError
        If no cluster answers.
    """

    address: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Find out now what cannot work."""
        if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", self.device):
            raise QueryError(f"a device is 'cpu', 'cuda' or 'cuda:N'; found '{self.device}'")
        if self.address and self.device not in ("cpu", "cuda"):
            raise QueryError(
                f"on a cluster every worker has a GPU of its own: say --device cuda; found '{self.device}'"
            )
        if self.address:
            check_address(self.address)
        elif self.device != "cpu":
            from feldman.estimates.torch_tiles import check_device

            check_device(self.device)

    @property
    def num_workers(self) -> int:
        """How many tiles can be counted at the same time, as far as is known."""
        if self.address:
            return _REMOTE_WORKERS
        return usable_cores() if self.device == "cpu" else 1

    def selecting(self, inputs: TileInputs) -> Executor:
        """Return an executor that selects the pairs of tiles."""
        if self.device == "cpu":
            return self._executor(kernel_tiles.prepare_selecting, inputs)
        from feldman.estimates import torch_tiles

        return self._executor(partial(torch_tiles.prepare_selecting, self.device), inputs)

    def counting(self, inputs: TileInputs) -> Executor:
        """Return an executor that counts all pairs of tiles."""
        if self.device == "cpu":
            return self._executor(kernel_tiles.prepare_counting, inputs)
        from feldman.estimates import torch_tiles

        return self._executor(partial(torch_tiles.prepare_counting, self.device), inputs)

    def _executor(self, prepare: Callable[[Any], Task], inputs: TileInputs) -> Executor:
        if self.address:
            resources = BlockResources(gpus=0.0 if self.device == "cpu" else 1.0)
            return RayExecutor(prepare, inputs, address=self.address, resources=resources)
        # One more than can run: it waits while results are taken in.
        return ThreadExecutor(prepare, inputs, self.num_workers + 1)
