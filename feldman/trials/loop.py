"""The one run loop: hand out blocks, commit what comes back, hand out again what failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from feldman.trials.executor import BlockOutcome, Executor

__all__ = ["LoopReport", "run_blocks"]

_POLL_SECONDS = 0.5
"""How often the loop looks whether it should stop."""

_HOPELESS_BLOCKS = 3
"""So many blocks set aside, and not one trained: the fault lies in the learner, and trying all the others would not help."""


@dataclass(kw_only=True)
class LoopReport:
    """How a loop ended.

    Attributes
    ----------
    committed
        Blocks trained and committed, in the order of their arrival.
    set_aside
        The last error of each block that failed as often as it may.
    stopped
        Whether it ended before all blocks had been tried.
    hopeless
        Whether that was because none succeeded.
    enough
        Whether it ended because nothing more was wanted.
    """

    committed: list[int] = field(default_factory=list)
    set_aside: dict[int, str] = field(default_factory=dict)
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
    on_failure: Callable[[int, int, str], bool | None] = lambda block, attempt, error: None,
    grace_polls: int = 20,
    retry_first: bool = False,
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
        Told each failed attempt: block, attempt (from 1), error. It may return true, too.
    grace_polls
        After a stop, for how many polls of half a second to wait for blocks in flight.
    retry_first
        Hand out a failed block again before all others, for results that are needed in order; by default after them.
    """
    report = LoopReport()
    waiting = deque(blocks)
    attempts: dict[int, int] = {}
    in_flight: set[int] = set()
    arrived: deque[BlockOutcome] = deque()

    def collect(timeout_seconds: float) -> None:
        for outcome in executor.wait(timeout_seconds):
            in_flight.discard(outcome.block)
            if outcome.error is None:
                arrived.append(outcome)
            else:
                fail(outcome.block, outcome.error)

    def fail(block: int, error: str) -> None:
        attempts[block] = attempt = attempts.get(block, 0) + 1
        report.enough |= on_failure(block, attempt, error) is True
        if attempt < max_attempts:
            waiting.insert(0 if retry_first else len(waiting), block)
        else:
            report.set_aside[block] = error

    def commit_next() -> None:
        outcome = arrived.popleft()
        report.enough |= commit(outcome.block, outcome.result) is True
        report.committed.append(outcome.block)

    while (waiting or in_flight or arrived) and not (report.stopped or report.enough):
        collect(0.0 if arrived else _POLL_SECONDS)
        report.hopeless = not (report.committed or arrived) and len(report.set_aside) >= _HOPELESS_BLOCKS
        report.stopped = report.hopeless or should_stop()
        # Before the commit, and one commit a turn: no worker waits for more than the one that is going on. Where commits are
        # slower than training, workers wait after all, so that results do not pile up.
        while waiting and executor.num_free > 0 and len(arrived) <= executor.num_workers and not report.stopped:
            block = waiting.popleft()
            in_flight.add(block)
            executor.submit(block)
        if arrived:
            commit_next()
    while (arrived or (in_flight and grace_polls > 0)) and not report.enough:
        if arrived:
            commit_next()
        else:
            collect(_POLL_SECONDS)
            grace_polls -= 1
    return report
