"""A discrete simulation of a run: spot losses, stragglers, retries, speculation, one driver. `make scaling` calls it.

It follows the run loop (`feldman/trials/loop.py`): free workers get the next block, a lost block goes to the end of the queue,
near the end a slow block is handed out a second time and the first result wins, and one driver commits results one by one.
Nodes live for an exponentially distributed time, and another one stands in after a fixed time. Times are in hours.
`scaling_tables.py` makes the tables of the page from it.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Any

import numpy as np

SPECULATE_AFTER = 1.5
"""A block gets a second copy when it has run for so many times the median of those that are committed."""

NODE_LOST, NODE_BACK, ENDED, LOOK = range(4)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Workers, each of which trains one block at a time. A node that is lost takes all of its workers with it."""

    num_workers: int
    workers_per_node: int = 8
    losses_per_hour: float = 0.0
    replacement_hours: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Job:
    """Blocks to train. ``checkpoint_hours`` is how much work lies between two checkpoints; infinite means none."""

    num_blocks: int
    block_hours: float
    spread: float = 0.0
    """Standard deviation of the logarithm of an attempt's duration, whose median is ``block_hours``."""
    straggler_share: float = 0.0
    straggler_factor: float = 1.0
    checkpoint_hours: float = inf
    speculate: bool = False
    commit_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run went. Hours of workers, but for ``hours``, which a clock shows."""

    hours: float
    useful_hours: float
    lost_hours: float
    """Trained and thrown away: on nodes that were lost, and by the copy that came second."""
    idle_hours: float
    attempts: int
    commits: int
    driver_share: float

    @property
    def lost_share(self) -> float:
        """Share of the training that was thrown away."""
        return self.lost_hours / (self.useful_hours + self.lost_hours)


@dataclass(eq=False, frozen=True, kw_only=True)
class _Attempt:
    block: int
    worker: int
    started: float
    duration: float
    work: float
    """Share of the block that it has to do; the rest came from a checkpoint."""


def simulate(fleet: Fleet, job: Job, seed: int) -> Outcome:
    """Run a job on a fleet until its last block is committed."""
    return _Simulation(fleet, job, seed).run()


class _Simulation:
    """A clock, the events that are to come, and who does what."""

    def __init__(self, fleet: Fleet, job: Job, seed: int) -> None:
        self.fleet, self.job, self.rng = fleet, job, np.random.default_rng(seed)
        self.now = 0.0
        self.events: list[tuple[float, int, int, Any]] = []
        self.num_scheduled = 0
        self.waiting = deque(range(job.num_blocks))
        self.pending = set(self.waiting)  # without a result so far
        self.copies = [0] * job.num_blocks
        self.done = [0.0] * job.num_blocks  # share of each block that is safe in a checkpoint
        self.free = deque(range(fleet.num_workers))
        self.running: dict[int, _Attempt] = {}  # by worker
        self.alone: dict[int, _Attempt] = {}  # blocks of which one copy runs, in the order of their start
        self.durations: list[float] = []
        self.durations_sorted = False
        self.looks_at = -1.0
        self.back_at: dict[int, float] = {}
        self.useful = self.lost = self.busy = self.away = self.driver_free = 0.0
        self.attempts = self.commits = 0

    def run(self) -> Outcome:
        for node in range(ceil(self.fleet.num_workers / self.fleet.workers_per_node)):
            self.begin_life(node)
        self.hand_out()
        while self.pending:
            self.now, _, kind, what = heapq.heappop(self.events)
            if kind == ENDED:
                self.end(what)
            elif kind == NODE_LOST:
                self.lose_node(what)
            elif kind == NODE_BACK:
                self.free.extend(self.workers_of(what))
                self.begin_life(what)
            self.hand_out()
        return self.outcome()

    def outcome(self) -> Outcome:
        cut_off = sum(
            self.now - attempt.started for attempt in self.running.values()
        )  # copies that nobody needs any more
        still_away = sum(max(0.0, when - self.now) * len(self.workers_of(node)) for node, when in self.back_at.items())
        hours = max(self.now, self.driver_free)
        return Outcome(
            hours=hours,
            useful_hours=self.useful,
            lost_hours=self.lost + cut_off,
            idle_hours=self.fleet.num_workers * self.now - self.busy - cut_off - (self.away - still_away),
            attempts=self.attempts,
            commits=self.commits,
            driver_share=self.job.commit_seconds / 3600 * self.job.num_blocks / hours,
        )

    def schedule(self, when: float, kind: int, what: Any = None) -> None:
        self.num_scheduled += 1
        heapq.heappush(self.events, (when, self.num_scheduled, kind, what))

    # Handing out

    def hand_out(self) -> None:
        while self.waiting and self.free:
            self.start(self.waiting.popleft())
        while self.job.speculate and self.free and self.alone and self.durations:
            attempt = next(iter(self.alone.values()))
            due = attempt.started + SPECULATE_AFTER * self.median_duration()
            if self.now < due:
                if self.looks_at != due:
                    self.looks_at = due
                    self.schedule(due, LOOK)
                return
            self.start(attempt.block)

    def start(self, block: int) -> None:
        job = self.job
        work = 1.0 - self.done[block]
        slow = job.straggler_factor if self.rng.random() < job.straggler_share else 1.0
        duration = work * job.block_hours * slow * float(np.exp(job.spread * self.rng.standard_normal()))
        attempt = _Attempt(block=block, worker=self.free.popleft(), started=self.now, duration=duration, work=work)
        self.attempts += 1
        self.running[attempt.worker] = attempt
        self.copies[block] += 1
        if self.copies[block] == 1:
            self.alone[block] = attempt
        else:
            self.alone.pop(block, None)
        self.schedule(self.now + duration, ENDED, attempt)

    def median_duration(self) -> float:
        """Return the median of what was committed; the list is kept sorted from the first time that anybody asks."""
        if not self.durations_sorted:
            self.durations.sort()
            self.durations_sorted = True
        return self.durations[len(self.durations) // 2]

    # What happens

    def leave(self, attempt: _Attempt) -> None:
        """Take an attempt off its worker."""
        del self.running[attempt.worker]
        self.copies[attempt.block] -= 1
        self.busy += self.now - attempt.started
        if self.alone.get(attempt.block) is attempt:
            del self.alone[attempt.block]

    def end(self, attempt: _Attempt) -> None:
        if self.running.get(attempt.worker) is not attempt:  # its node was lost before
            return
        self.leave(attempt)
        self.free.append(attempt.worker)
        if attempt.block not in self.pending:  # the other copy was first
            self.lost += attempt.duration
            return
        self.pending.discard(attempt.block)
        self.useful += attempt.duration
        self.commits += 1
        if self.durations_sorted:
            insort(self.durations, attempt.duration)
        else:
            self.durations.append(attempt.duration)
        self.driver_free = max(self.driver_free, self.now) + self.job.commit_seconds / 3600

    def lose(self, attempt: _Attempt) -> None:
        self.leave(attempt)
        ran = self.now - attempt.started
        if attempt.block not in self.pending:
            self.lost += ran
            return
        # Checkpoints lie at whole steps of the block's own work, however slow the worker was.
        step = min(1.0, self.job.checkpoint_hours / self.job.block_hours)
        begun = 1.0 - attempt.work
        reached = begun + attempt.work * ran / attempt.duration
        safe = max(self.done[attempt.block], floor(reached / step + 1e-9) * step)
        kept = ran * min(1.0, (safe - self.done[attempt.block]) / max(reached - begun, 1e-12))
        self.done[attempt.block] = safe
        self.useful += kept
        self.lost += ran - kept
        if self.copies[attempt.block] == 0:
            self.waiting.append(attempt.block)
        else:  # its copy goes on alone, and may get another one
            other = next(one for one in self.running.values() if one.block == attempt.block)
            alone = {**self.alone, other.block: other}
            self.alone = dict(sorted(alone.items(), key=lambda item: item[1].started))

    def workers_of(self, node: int) -> range:
        first = node * self.fleet.workers_per_node
        return range(first, min(first + self.fleet.workers_per_node, self.fleet.num_workers))

    def begin_life(self, node: int) -> None:
        if self.fleet.losses_per_hour:
            self.schedule(self.now + self.rng.exponential(1 / self.fleet.losses_per_hour), NODE_LOST, node)

    def lose_node(self, node: int) -> None:
        for worker in self.workers_of(node):
            if worker in self.running:
                self.lose(self.running[worker])
            else:
                self.free.remove(worker)
        self.back_at[node] = self.now + self.fleet.replacement_hours
        self.away += self.fleet.replacement_hours * len(self.workers_of(node))
        self.schedule(self.back_at[node], NODE_BACK, node)
