"""Which blocks are in flight, and since when: what the run loop needs to know to speculate."""

from __future__ import annotations

import time
from bisect import insort

from feldman.trials.executor import BlockOutcome

__all__ = ["Flights"]

_STRAGGLES = 1.5
"""A block that takes so many times as long as the median of those that came back is worth a second attempt."""


class Flights:
    """The blocks in flight, each as one attempt of one or two copies, of which the first result counts.

    A copy that is left when the result of another one is there is forgotten, whenever and however it ends.
    """

    def __init__(self) -> None:
        self._num_copies: dict[int, int] = {}
        self._started: dict[int, float] = {}  # in the order of handing out
        self._copied: set[int] = set()
        self._seconds: list[float] = []  # of the attempts that succeeded, ascending

    def __len__(self) -> int:
        return len(self._num_copies)

    def begin(self, block: int) -> None:
        """Note that a block has been handed out."""
        self._num_copies[block] = 1
        self._started[block] = time.monotonic()

    def add_copy(self, block: int) -> None:
        """Note that it has been handed out a second time."""
        self._num_copies[block] += 1
        self._copied.add(block)

    def end(self, outcome: BlockOutcome) -> bool:
        """Take note of how a copy ended.

        Returns
        -------
        bool
            Whether the attempt ended with it. It did not where another copy succeeded before, or is left after a failure.
        """
        block = outcome.block
        if block not in self._num_copies:
            return False
        self._num_copies[block] -= 1
        if outcome.error is not None and self._num_copies[block]:
            return False
        del self._num_copies[block]
        self._copied.discard(block)
        started = self._started.pop(block)
        if outcome.error is None:
            insort(self._seconds, time.monotonic() - started)
        return True

    def stragglers(self) -> list[int]:
        """Return the blocks that take long and have no copy yet in this attempt, the longest first."""
        if not self._seconds:
            return []
        latest_start = time.monotonic() - _STRAGGLES * self._seconds[len(self._seconds) // 2]
        return [block for block, when in self._started.items() if when <= latest_start and block not in self._copied]
