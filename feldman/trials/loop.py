"""The one run loop: hand out blocks, commit what comes back, hand out again what failed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from feldman.trials.executor import BlockOutcome, Executor
from feldman.trials.flights import Flights

__all__ = ["LoopOptions", "LoopReport", "run_blocks"]

_POLL_SECONDS = 0.5
"""How often the loop looks whether it should stop."""

_HOPELESS_BLOCKS = 3
"""So many blocks set aside, and not one trained: the fault lies in the learner, and trying all the others would not help."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How a loop may differ from the usual one.

    Attributes
    ----------
    grace_polls
        After a stop, for how many polls of half a second to wait for blocks in flight.
    retry_first
        Hand out a failed block again before all others, for results that are needed in order; by default after them.
    submit_copy
        The executor's, to speculate: once no block waits, those that take long are handed out a second time where a worker is
        free, and the first result counts. By default none is.
    """

    grace_polls: int = 20
    retry_first: bool = False
    submit_copy: Callable[[int], bool] = lambda block: False


_USUAL = LoopOptions()


@dataclass(kw_only=True)
class LoopReport:
    """How a loop ended.

    Attributes
    ----------
    committed
        Blocks trained and committed, in the order of their arrival.
    set_aside
        The last error of each block that failed as often as it may.
    speculated
        Blocks that were handed out a second time because they took long.
    stopped
        Whether it ended before all blocks had been tried.
    hopeless
        Whether that was because none succeeded.
    enough
        Whether it ended because nothing more was wanted.
    """

    committed: list[int] = field(default_factory=list)
    set_aside: dict[int, str] = field(default_factory=dict)
    speculated: list[int] = field(default_factory=list)
    stopped: bool = False
    hopeless: bool = False
    enough: bool = False


def run_blocks(
    blocks: Iterable[int],
    executor: Executor,
    commit: Callable[[int, Any], bool | None],
    *,
    max_attempts: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_failure: Callable[[BlockOutcome, int], bool | None] = lambda outcome, attempt: None,
    options: LoopOptions = _USUAL,
) -> LoopReport:
    """Run blocks until each is committed or set aside.

    Parameters
    ----------
    blocks
        Which blocks, in the order of handing out.
    executor
        Where they run.
    commit
        Called in this thread with each block and its result. What it raises ends the loop. If it returns true nothing more is
        wanted, also not what is in flight.
    max_attempts
        A block that fails so often is set aside and the others go on.
    should_stop
        Asked between polls; once true, nothing more is handed out.
    on_failure
        Told each failed attempt: its outcome, and the how many-th it was (from 1). It may return true, too.
    options
        See `LoopOptions`.
    """
    report = LoopReport()
    work = _Work(executor, report, max_attempts, on_failure, options, deque(blocks))
    while (work.waiting or work.in_flight or work.arrived) and not (report.stopped or report.enough):
        work.collect(0.0 if work.arrived else _POLL_SECONDS)
        report.hopeless = not (report.committed or work.arrived) and len(report.set_aside) >= _HOPELESS_BLOCKS
        report.stopped = report.hopeless or should_stop()
        if not report.stopped:
            work.hand_out()
        if work.arrived:
            work.commit_next(commit)
    grace_polls = options.grace_polls
    while (work.arrived or (work.in_flight and grace_polls > 0)) and not report.enough:
        if work.arrived:
            work.commit_next(commit)
        else:
            work.collect(_POLL_SECONDS)
            grace_polls -= 1
    return report


@dataclass
class _Work:
    """What a loop has at hand: blocks that wait, those in flight, and results that wait for their commit."""

    executor: Executor
    report: LoopReport
    max_attempts: int
    on_failure: Callable[[BlockOutcome, int], bool | None]
    options: LoopOptions
    waiting: deque[int]
    in_flight: Flights = field(default_factory=Flights)
    arrived: deque[BlockOutcome] = field(default_factory=deque)
    attempts: Counter[int] = field(default_factory=Counter)

    def collect(self, timeout_seconds: float) -> None:
        for outcome in self.executor.wait(timeout_seconds):
            if not self.in_flight.end(outcome):
                continue  # another copy counts
            if outcome.error is None:
                self.arrived.append(outcome)
            else:
                self._fail(outcome, outcome.error)

    def _fail(self, outcome: BlockOutcome, error: str) -> None:
        self.attempts[outcome.block] += 1
        self.report.enough |= self.on_failure(outcome, self.attempts[outcome.block]) is True
        if self.attempts[outcome.block] >= self.max_attempts:
            self.report.set_aside[outcome.block] = error
        elif self.options.retry_first or outcome.lost:  # nothing speaks against a block that was lost with its node
            self.waiting.appendleft(outcome.block)
        else:
            self.waiting.append(outcome.block)

    def hand_out(self) -> None:
        # Before the commit, and one commit a turn: no worker waits for more than the one that is going on. Where commits are
        # slower than training, workers wait after all, so that results do not pile up.
        while self.waiting and self.executor.num_free > 0 and len(self.arrived) <= self.executor.num_workers:
            block = self.waiting.popleft()
            self.in_flight.begin(block)
            self.executor.submit(block)
        if self.waiting or not self.executor.num_free:
            return
        for block in self.in_flight.stragglers()[: self.executor.num_free]:
            if self.options.submit_copy(block):
                self.in_flight.add_copy(block)
                self.report.speculated.append(block)

    def commit_next(self, commit: Callable[[int, Any], bool | None]) -> None:
        outcome = self.arrived.popleft()
        self.report.enough |= commit(outcome.block, outcome.result) is True
        self.report.committed.append(outcome.block)
