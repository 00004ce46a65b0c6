"""What an executor is, and those that run in this process.

An executor runs a task on block indices, somewhere. It knows nothing of stores, retries or experiments: the run loop hands out
blocks, and again those that failed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "BlockOutcome",
    "Executor",
    "InProcessExecutor",
    "Prepare",
    "ReusableExecutor",
    "Task",
    "ThreadExecutor",
    "told",
    "usable_cores",
]

Task = Callable[[int], Any]
"""From a block's index to its result."""

Prepare = Callable[[Any], Task]
"""Makes a task from what all workers share."""


@dataclass(frozen=True, kw_only=True)
class BlockOutcome:
    """How one attempt at a block ended: with a result, or with an error.

    Attributes
    ----------
    block
        Which one.
    result
        What the task returned.
    error
        What it raised, or how its worker was lost.
    node
        The node of the cluster that it ran on; None in this process.
    lost
        Whether the worker was lost, by the fault of its node or of the task.
    """

    block: int
    result: Any = None
    error: str | None = None
    node: str | None = None
    lost: bool = False


@runtime_checkable
class Executor(Protocol):
    """Runs a task on blocks. Close it when done; it is a context manager."""

    @property
    def num_workers(self) -> int:
        """How many blocks can be trained at the same time."""
        ...

    @property
    def num_free(self) -> int:
        """How many more blocks `submit` takes now."""
        ...

    def submit(self, block: int) -> None:
        """Start an attempt at a block. Never blocks."""
        ...

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        """Return attempts that ended, each exactly once; nothing if none did within the time."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exc_info: object) -> None: ...


@runtime_checkable
class ReusableExecutor(Executor, Protocol):
    """An executor whose workers can be given another task, and stay."""

    def change_task(self, prepare: Prepare) -> None:
        """Have every worker make another task from what they share. Nothing may be in flight."""
        ...

    def submit_copy(self, block: int) -> bool:
        """Start a second attempt at a block in flight, where nothing that holds up the first one can be in its way.

        Returns
        -------
        bool
            False if there is no such place, or none is free.
        """
        ...

    def __enter__(self) -> ReusableExecutor: ...


class InProcessExecutor:
    """Runs blocks one after the other in this process: for debugging, and as the oracle of the others.

    Parameters
    ----------
    prepare
        Makes the task from what is shared; called once, at the start.
    shared
        What it is made from.
    """

    num_workers = 1

    def __init__(self, prepare: Prepare, shared: Any) -> None:
        self._shared = shared
        self._task = prepare(shared)
        self._waiting: deque[int] = deque()

    @property
    def num_free(self) -> int:
        """One block at a time."""
        return 1 - len(self._waiting)

    def submit(self, block: int) -> None:
        """Queue a block; `wait` trains it."""
        self._waiting.append(block)

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:  # noqa: ARG002 - a block takes the time it takes
        """Train the queued block."""
        if not self._waiting:
            return []
        block = self._waiting.popleft()
        try:
            return [BlockOutcome(block=block, result=self._task(block))]
        except (Exception, SystemExit) as error:  # a user's code may try to leave
            return [BlockOutcome(block=block, error=told(error))]

    def change_task(self, prepare: Prepare) -> None:
        """Make another task."""
        self._task = prepare(self._shared)

    def submit_copy(self, block: int) -> bool:  # noqa: ARG002 - a copy would hold up what it is a copy of
        """There is no other place."""
        return False

    def __enter__(self) -> InProcessExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()


class ThreadExecutor:
    """Runs blocks in threads of this process: for tasks that leave Python's lock alone, as compiled functions do.

    Parameters
    ----------
    prepare
        Makes the task, which all threads call, from what is shared; called once, at the start.
    shared
        What it is made from.
    num_workers
        How many threads.
    """

    def __init__(self, prepare: Prepare, shared: Any, num_workers: int) -> None:
        self.num_workers = num_workers
        self._shared = shared
        self._task = prepare(shared)
        self._threads = ThreadPoolExecutor(num_workers)
        self._running: dict[Future[Any], int] = {}

    @property
    def num_free(self) -> int:
        """One block a thread."""
        return self.num_workers - len(self._running)

    def submit(self, block: int) -> None:
        """Queue a block."""
        self._running[self._threads.submit(self._attempt, block)] = block

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        """Collect what ended within the time."""
        ended = wait(self._running, timeout_seconds, FIRST_COMPLETED).done
        for future in ended:
            del self._running[future]
        return [future.result() for future in ended]

    def _attempt(self, block: int) -> BlockOutcome:
        try:
            return BlockOutcome(block=block, result=self._task(block))
        except (Exception, SystemExit) as error:
            return BlockOutcome(block=block, error=told(error))

    def change_task(self, prepare: Prepare) -> None:
        """Make another task."""
        self._task = prepare(self._shared)

    def submit_copy(self, block: int) -> bool:  # noqa: ARG002 - a copy would hold up what it is a copy of
        """There is no other place."""
        return False

    def __enter__(self) -> ThreadExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.shutdown(cancel_futures=True)


def told(error: BaseException) -> str:
    """Return an error as an outcome carries it: ``ValueError: what it says``."""
    return f"{type(error).__name__}: {error}"


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
