"""The Ray executor: long-lived actors that come and go with the cluster, one block a call.

Why it looks as it does: a GPU task is a new process each time, so workers are actors; Ray's own retries of out-of-memory
failures are endless and wait for a node to be declared dead, so they are off and the run loop hands out failed blocks itself;
bare ``ray.get`` ignores signals, so every wait has a time limit.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feldman.errors import FeldmanError
from feldman.trials.executor import BlockOutcome, Prepare, Task, told
from feldman.trials.ray_cluster import BlockResources, alive_nodes, start_ray, this_node

__all__ = ["RayExecutor"]

_JOIN_RETRIES = 3
"""Preparing a worker waits while Ray restarts it; one that dies in its set-up more often than this is given up."""

_LOOK_SECONDS = 3.0
"""How often the executor looks whether nodes have joined. A look takes half a millisecond."""

_ORPHANED_SECONDS = 0.25
"""How often a worker looks whether its node is still there."""


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
        # Ray's own look, every second or two, would let a lost block wait: the driver learns of a dead node by its workers' end.
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

    def prepare(self, prepare: Prepare, shared: Any) -> tuple[tuple[str, str], str | None]:
        try:
            self._task = prepare(shared)
        except (Exception, SystemExit) as error:  # a user's code may try to leave
            return this_node(), told(error)
        return this_node(), None

    def run(self, block: int) -> tuple[Any, str | None]:
        if self._task is None:
            raise _UnpreparedError
        try:
            return self._task(block), None
        except (Exception, SystemExit) as error:
            return None, told(error)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHANED_SECONDS)
    os._exit(1)


@dataclass(frozen=True, kw_only=True)
class _Seat:
    """A worker that has joined, and the node that it was on then."""

    worker: Any
    node_id: str
    node: str


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
        How many actors; those for which there is no room wait for nodes. By default as many as the cluster has room for, also
        when it grows.
    resources
        What one actor takes.
    runtime_env
        Ray's runtime environment of the workers.
    on_setup_failure
        Told the node and the error of a worker that could not be set up, while others go on.

    Raises
    ------
    InputError
        If nothing listens at the address, or this process uses Ray already.
    FeldmanError
        If no cluster answers at the address, or it cannot hold a single worker and ``num_workers`` does not say to wait.
    """

    def __init__(
        self,
        prepare: Prepare,
        shared: Any,
        *,
        address: str | None = None,
        num_workers: int | None = None,
        resources: BlockResources | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        on_setup_failure: Callable[[str, str], None] = lambda node, problem: None,
    ) -> None:
        self._asked, self._resources, self._on_setup_failure = (
            num_workers,
            resources or BlockResources(),
            on_setup_failure,
        )
        self._ray = start_ray(address, num_workers, self._resources, runtime_env)
        self._idle: dict[Any, _Seat] = {}  # by worker, in the order in which they became idle
        self._joining: dict[Any, Any] = {}
        self._running: dict[Any, tuple[int, _Seat]] = {}
        self._failed_on: dict[int, set[str]] = {}
        self._failed_setups: Counter[str | None] = Counter()  # by node; of those that died in it the node is not known
        self._has_had_workers = False
        try:
            fitting = self._num_fitting()
            self.shortage = "" if fitting else self._shortage()
            if not fitting and not (num_workers and address):
                raise FeldmanError(self.shortage)
            self._prepare_arguments = (prepare, self._ray.put(shared))
            self._hire(num_workers or fitting)
        except BaseException:
            self._ray.shutdown()
            raise
        self._looked = time.monotonic()

    @property
    def num_workers(self) -> int:
        """The number of actors, with those that wait for a node."""
        return len(self._idle) + len(self._joining) + len(self._running)

    @property
    def num_free(self) -> int:
        """One block a worker, once it is there."""
        return len(self._idle)

    def submit(self, block: int) -> None:
        """Give a block to an idle worker; after a failure to one on another node, if there is one."""
        failed_on = self._failed_on.get(block, ())
        seats = self._idle.values()
        self._hand(block, next((seat for seat in seats if seat.node_id not in failed_on), None) or next(iter(seats)))

    def submit_copy(self, block: int) -> bool:
        """Give a block that is in flight to a second worker, on another node: what holds it up may be the node's.

        Returns
        -------
        bool
            False if no such worker is free. Where all workers are on one node, any will do.
        """
        occupied = {seat.node_id for other, seat in self._running.values() if other == block}
        all_nodes = {seat.node_id for seat in [*self._idle.values(), *(seat for _, seat in self._running.values())]}
        avoided = occupied if all_nodes > occupied else set[str]()
        seat = next((seat for seat in self._idle.values() if seat.node_id not in avoided), None)
        if seat is not None:
            self._hand(block, seat)
        return seat is not None

    def _hand(self, block: int, seat: _Seat) -> None:
        del self._idle[seat.worker]
        self._running[seat.worker.run.remote(block)] = (block, seat)

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        """Collect what ended within the time.

        Raises
        ------
        FeldmanError
            If no worker is left.
        """
        if self._asked is None and time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._hire(self._num_fitting() - self.num_workers)
            self._looked = time.monotonic()
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
        # A worker does what it is asked in order: the later task stays.
        workers = [*self._idle, *self._joining.values()]
        self._idle.clear()
        self._joining.clear()
        for worker in workers:
            self._ask_to_join(worker)

    def _num_fitting(self) -> int:
        """Return how many workers the cluster has room for, less the places where one could not be set up."""
        nodes = alive_nodes(self._ray)
        places = (max(0, node.num_fitting(self._resources) - self._failed_setups[node.id]) for node in nodes)
        return max(0, sum(places) - self._failed_setups[None])

    def _shortage(self) -> str:
        return (
            f"a block takes {self._resources.in_words()}, but no node has so much: the cluster has "
            f"{self._resources.found_in_words(alive_nodes(self._ray))} together; with execution.num_workers a run on a cluster "
            "waits for nodes"
        )

    def _hire(self, number: int) -> None:
        if number <= 0:
            return
        options = self._resources.options() | {"max_restarts": -1, "max_task_retries": 0}
        avoided = [node_id for node_id in self._failed_setups if node_id is not None]
        if avoided:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(avoided)})"}
        actor = self._ray.remote(**options)(_Worker)
        for _ in range(number):
            self._ask_to_join(actor.remote())

    def _ask_to_join(self, worker: Any) -> None:
        prepared = worker.prepare.options(max_task_retries=_JOIN_RETRIES).remote(*self._prepare_arguments)
        self._joining[prepared] = worker

    def _join(self, reference: Any) -> None:
        worker = self._joining.pop(reference)
        try:
            (node_id, node), problem = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            node_id, node, problem = None, "a node that is gone", _first_line(error)
        if problem is None:
            self._idle[worker] = _Seat(worker=worker, node_id=node_id, node=node)
            self._has_had_workers = True
            return
        # Its set-up raised, or it died in it again and again. The others go on; without any, there is nothing to wait for.
        self._failed_setups[node_id] += 1
        self._ray.kill(worker)
        if not self.num_workers:
            what = "all workers were lost" if self._has_had_workers else "no worker could be set up"
            raise FeldmanError(f"{what}: {problem}")
        self._on_setup_failure(node, problem)

    def _collect(self, reference: Any) -> BlockOutcome:
        block, seat = self._running.pop(reference)
        try:
            result, error = self._ray.get(reference)
        except self._ray.exceptions.RayError as lost:
            # The worker was lost, and Ray restarts it. It gets a block again once it has joined, so that the way
            # back is not paid for with the attempts of the blocks that are left.
            self._ask_to_join(seat.worker)
            self._failed_on.setdefault(block, set()).add(seat.node_id)
            return BlockOutcome(block=block, error=_first_line(lost), node=seat.node, lost=True)
        self._idle[seat.worker] = seat
        if error is None:
            self._failed_on.pop(block, None)
        else:
            self._failed_on.setdefault(block, set()).add(seat.node_id)
        return BlockOutcome(block=block, result=result, error=error, node=seat.node)

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in [*self._idle, *self._joining.values(), *(seat.worker for _, seat in self._running.values())]:
            self._ray.kill(worker)
        self._ray.shutdown()


def _first_line(error: Any) -> str:
    """Return Ray's error without the traceback that follows."""
    cause = getattr(error, "cause", None) or error
    line = next((line for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {line}"
