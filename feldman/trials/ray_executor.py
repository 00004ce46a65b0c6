"""The Ray executor: long-lived actors, one block a call. The only module of `trials` that imports Ray.

Why it looks as it does: a GPU task is a new process each time, so workers are actors; Ray's own retries of out-of-memory
failures are endless and wait for a node to be declared dead, so they are off and the run loop hands out failed blocks itself;
bare ``ray.get`` ignores signals, so every wait has a time limit.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from feldman.errors import FeldmanError, InputError
from feldman.trials.authentication import make_private_token
from feldman.trials.executor import BlockOutcome, Prepare, Task, told, usable_cores

__all__ = ["RayExecutor", "check_address"]

_ADDRESS_ADVICE = (
    "give HOST:6379 of its head, 'auto' on one of its nodes, or leave --address out to run on this machine"
)

# Read by Ray when it is imported or started. Without the first, Ray's control store listens on every network interface.
_LOCAL_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}

_CONNECT_SECONDS = 10.0
_UNITS_A_GPU = 10_000
_JOIN_RETRIES = 3
"""Preparing a worker waits while Ray restarts it; one that dies in its set-up more often than this is given up."""


def check_address(address: str) -> None:
    """Find out at once whether anybody listens at HOST:PORT: Ray itself asks for minutes before it gives up.

    Raises
    ------
    InputError
        If it is no address, or nothing listens there. ``"auto"`` is left to Ray.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise InputError(f"'{address}' is no address of a Ray cluster; {_ADDRESS_ADVICE}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise InputError(f"no Ray cluster answers at '{address}' ({error}); {_ADDRESS_ADVICE}") from None


class _UnpreparedError(Exception):
    """The worker was restarted since it was prepared."""


class _Worker:
    """The actor: makes its task when told to, then runs it on one block a call.

    It is prepared by a call, not by its constructor, so that an error arrives as what it is, and the data set as an
    argument that Ray need not keep for restarts. Errors are returned as texts: an exception of a user's own may not survive
    the way, and then nobody would learn what it said.
    """

    def __init__(self) -> None:
        self._task: Task | None = None

    def prepare(self, prepare: Prepare, shared: Any) -> str | None:
        try:
            self._task = prepare(shared)
        except (Exception, SystemExit) as error:  # a user's code may try to leave
            return told(error)
        return None

    def run(self, block: int) -> tuple[Any, str | None]:
        if self._task is None:
            raise _UnpreparedError
        try:
            return self._task(block), None
        except (Exception, SystemExit) as error:
            return None, told(error)


class RayExecutor:
    """Runs blocks on a Ray cluster.

    Parameters
    ----------
    prepare
        Makes the task from what is shared; called once in every worker.
    shared
        Put once into Ray's object store; workers read its arrays without a copy, read-only.
    address
        A cluster's address (``"auto"``, ``"ray://..."`` excepted), or None to start one on this machine, on loopback.
    num_workers
        How many actors; by default as many as the cores (and GPUs) allow.
    cpus_per_block, gpus_per_block
        What one actor takes. GPUs may be fractional.

    Raises
    ------
    FeldmanError
        If no cluster answers at the address, or it cannot hold a single worker.
    """

    def __init__(
        self,
        prepare: Prepare,
        shared: Any,
        *,
        address: str | None = None,
        num_workers: int | None = None,
        cpus_per_block: int = 1,
        gpus_per_block: float = 0.0,
    ) -> None:
        self._ray = _start_ray(address, num_workers, cpus_per_block, gpus_per_block)
        try:
            fitting = _fitting_workers(self._ray, cpus_per_block, gpus_per_block)
            self.num_workers = num_workers or fitting  # more than fit now may fit later: clusters grow
            actor = self._ray.remote(
                num_cpus=cpus_per_block, num_gpus=gpus_per_block, max_restarts=-1, max_task_retries=0
            )(_Worker)
            workers = [actor.remote() for _ in range(self.num_workers)]
            self._prepare_arguments = (prepare, self._ray.put(shared))
        except BaseException:
            self._ray.shutdown()
            raise
        self._idle: deque[Any] = deque()
        self._joining: dict[Any, Any] = {}
        self._running: dict[Any, tuple[int, Any]] = {}
        self._has_had_workers = False
        for worker in workers:
            self._ask_to_join(worker)

    @property
    def num_free(self) -> int:
        """One block a worker, once it is there."""
        return len(self._idle)

    def submit(self, block: int) -> None:
        """Give a block to an idle worker."""
        worker = self._idle.popleft()
        self._running[worker.run.remote(block)] = (block, worker)

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        """Collect what ended within the time.

        Raises
        ------
        FeldmanError
            If no worker is left.
        """
        references = [*self._running, *self._joining]
        ready, _ = self._ray.wait(references, num_returns=1, timeout=timeout_seconds)
        if ready:  # whatever else is there already comes along
            ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ready:
            if reference in self._joining:
                self._join(reference)
        return [self._collect(reference) for reference in ready if reference in self._running]

    def change_task(self, prepare: Prepare) -> None:
        """Have every worker make another task from what they share."""
        self._prepare_arguments = (prepare, self._prepare_arguments[1])
        workers = [
            *self._idle,
            *self._joining.values(),
        ]  # a worker does what it is asked in order: the later task stays
        self._idle.clear()
        self._joining.clear()
        for worker in workers:
            self._ask_to_join(worker)

    def _ask_to_join(self, worker: Any) -> None:
        prepared = worker.prepare.options(max_task_retries=_JOIN_RETRIES).remote(*self._prepare_arguments)
        self._joining[prepared] = worker

    def _join(self, reference: Any) -> None:
        worker = self._joining.pop(reference)
        try:
            problem = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            problem = _first_line(error)
        if problem is None:
            self._idle.append(worker)
            self._has_had_workers = True
            return
        # Its set-up raised, or it died in it again and again. The others go on; without any, there is nothing to wait for.
        self._ray.kill(worker)
        if not (self._idle or self._joining or self._running):
            what = "all workers were lost" if self._has_had_workers else "no worker could be set up"
            raise FeldmanError(f"{what}: {problem}")

    def _collect(self, reference: Any) -> BlockOutcome:
        block, worker = self._running.pop(reference)
        try:
            result, error = self._ray.get(reference)
        except self._ray.exceptions.RayError as lost:
            # The worker was lost, and Ray restarts it. It gets a block again once it has joined, so that the way
            # back is not paid for with the attempts of the blocks that are left.
            self._ask_to_join(worker)
            return BlockOutcome(block=block, error=_first_line(lost))
        self._idle.append(worker)
        return BlockOutcome(block=block, result=result, error=error)

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        lost_or_running = (worker for _, worker in self._running.values())
        for worker in [*self._idle, *self._joining.values(), *lost_or_running]:
            self._ray.kill(worker)
        self._ray.shutdown()


def _first_line(error: Any) -> str:
    """Return Ray's error without the traceback that follows."""
    cause = getattr(error, "cause", None) or error
    line = next((line for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {line}"


def _start_ray(address: str | None, num_workers: int | None, cpus_per_block: int, gpus_per_block: float) -> Any:
    environment = _QUIET_ENVIRONMENT if address else {**_QUIET_ENVIRONMENT, **_LOCAL_ENVIRONMENT}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    import ray

    # Its warnings tell how Ray was set up, which is decided here; what goes wrong arrives as an exception.
    logging.getLogger("ray").setLevel(logging.ERROR)

    if ray.is_initialized():
        raise InputError("Ray is already in use in this process; call ray.shutdown() first, or run in another process")
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    if address:
        check_address(address)
        try:
            ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise FeldmanError(
                f"no Ray cluster answers at '{address}' ({error}); {_ADDRESS_ADVICE}. One that asks for a token answers only "
                "with RAY_AUTH_MODE=token and the token in ~/.ray/auth_token or the file that RAY_AUTH_TOKEN_PATH names"
            ) from None
        return ray
    cores = num_workers * cpus_per_block if num_workers else max(usable_cores(), cpus_per_block)
    make_private_token()  # Ray asks for it by default, and would write it for all to read
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            num_gpus=None if gpus_per_block else 0,
            include_dashboard=False,
            **quiet,
        )
    except Exception as error:
        raise FeldmanError(f"Ray did not start on this machine: {error}") from error
    return ray


def _fitting_workers(ray: Any, cpus_per_block: int, gpus_per_block: float) -> int:
    resources = ray.cluster_resources()
    fitting = resources.get("CPU", 0) // cpus_per_block
    if gpus_per_block:
        # In Ray's own units, whole numbers: 1 // 0.1 is 9.
        units, units_a_block = (round(gpus * _UNITS_A_GPU) for gpus in (resources.get("GPU", 0), gpus_per_block))
        fitting = min(fitting, units // units_a_block)
    if fitting < 1:
        raise FeldmanError(
            f"a block takes {cpus_per_block} CPUs and {gpus_per_block:g} GPUs (execution.cpus_per_block, gpus_per_block), but "
            f"the cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
        )
    return int(fitting)
