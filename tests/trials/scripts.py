"""Tasks that fail as a script says: what the executors' contract is tested with. Importable by Ray's workers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.trials.executor import Task
from feldman.trials.plan import trial_seeds
from tests.learners import Bits, nearest_centroid

__all__ = [
    "Script",
    "fails_in_one_block",
    "logged_centroid",
    "paced_centroid",
    "prepare_scripted",
    "prepare_squares",
]


class Script:
    """A folder that tells the task what to do with each block, and where it writes down what it did.

    Actions, one an attempt, in order; after the last, and without any, an attempt succeeds:

    * ``fail``: raise; ``fail-oddly``: raise an exception that cannot be sent to another process
    * ``die``: SIGKILL to the worker, in mid-block
    * ``wait``: until `open_gate`
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, actions: Mapping[int, Sequence[str]] | None = None) -> None:
        """Begin a new script: the folder forgets the one before."""
        for path in self.folder.iterdir():
            path.unlink()
        (self.folder / "script.json").write_text(
            json.dumps({str(key): list(value) for key, value in (actions or {}).items()})
        )

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def num_calls(self, block: int) -> int:
        return len(self.pids(block))

    def num_running(self) -> int:
        return len(list(self.folder.glob("*.running")))

    def pids(self, block: int) -> list[int]:
        """The worker's process of each attempt."""
        path = self.folder / f"{block}.calls"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def prepare_scripted(shared: Any) -> Task:
    """Make the task; ``shared`` is the script's folder."""
    return partial(_scripted, Path(shared))


def _scripted(folder: Path, block: int) -> dict[str, Any]:
    calls = folder / f"{block}.calls"
    with calls.open("a") as file:
        file.write(f"{os.getpid()}\n")
    attempt = len(calls.read_text().splitlines())
    actions = json.loads((folder / "script.json").read_text()).get(str(block), [])
    if attempt <= len(actions):
        _act(actions[attempt - 1], folder, block)
    return {"block": block, "bits": np.random.default_rng(block).integers(0, 256, 1000, dtype=np.uint8)}


def _act(action: str, folder: Path, block: int) -> None:
    if action == "fail":
        raise ScriptedError(f"block {block} fails as scripted")
    if action == "fail-oddly":
        raise UnsendableError(block, "fails as scripted")
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "wait":
        running = folder / f"{block}.running"
        running.touch()
        deadline = time.monotonic() + 60
        while not (folder / "gate").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        running.unlink()


class ScriptedError(Exception):
    """What a block that fails raises."""


class UnsendableError(Exception):
    """Its constructor takes what its text does not tell, so it cannot be made again in another process."""

    def __init__(self, block: int, what: str) -> None:
        super().__init__(f"block {block} {what}")


def logged_centroid(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Add a line to the file ``log``, then sleep and learn: what is killed in its sleep has been counted."""
    with Path(str(parameters["log"])).open("a") as file:
        file.write(f"{os.getpid()} {len(masks)}\n")
    return nearest_centroid(dataset, masks, seeds, {"sleep_seconds": parameters["sleep_seconds"]})


def paced_centroid(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """Add the time, the process and the first trial's seed to the file ``log``, and sleep as long as the file ``pace`` says."""
    with Path(str(parameters["log"])).open("a") as file:
        file.write(f"{time.time()} {os.getpid()} {seeds[0]}\n")
    return nearest_centroid(dataset, masks, seeds, {"sleep_seconds": float(Path(str(parameters["pace"])).read_text())})


def fails_in_one_block(
    dataset: Dataset, masks: Bits, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Bits, Bits]:
    """A learner that fails in the first block of an experiment with seed 7, always."""
    if seeds[0] == trial_seeds(7, range(1))[0]:
        raise ScriptedError("the first block fails as scripted")
    return logged_centroid(dataset, masks, seeds, parameters)


def prepare_squares(shared: Any) -> Task:
    """Make a task without a script."""
    return _square


def _square(block: int) -> int:
    return block**2
