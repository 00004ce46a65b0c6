"""Do many small things, some ahead of the one that is handed out: an object store answers after 30 ms, but many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from feldman.trials.locations import Location

__all__ = ["in_order", "num_requests"]

_REQUESTS = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def num_requests(location: Location) -> int:
    """Return how many things are asked of a place at once: a file system is fastest one by one."""
    return 1 if isinstance(location, Path) else _REQUESTS


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item], num_threads: int) -> Iterator[_Result]:
    """Yield ``work(item)`` for each item, in their order.

    Parameters
    ----------
    work
        Called in threads, unless there is one of them: then here, when its result is asked for.
    items, num_threads
        So many are worked on at once.
    """
    if num_threads == 1:
        yield from map(work, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(num_threads) as threads:
        working = deque[Future[_Result]](threads.submit(work, item) for item in islice(waiting, num_threads))
        while working:
            result = working.popleft().result()
            working.extend(threads.submit(work, item) for item in islice(waiting, 1))
            yield result
