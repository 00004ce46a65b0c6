"""Stop on SIGINT or SIGTERM: the handler sets a flag, the run loop looks at it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(on_first: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a signal has asked to stop.

    The first signal only sets the flag and calls ``on_first`` with the signal's name; a second one raises `KeyboardInterrupt`.
    Enter it after Ray has started, which sets a SIGTERM handler of its own. Outside the main thread, where Python allows no
    handlers, it never asks to stop.

    Parameters
    ----------
    on_first
        Called in the handler; should do little.
    """
    received: list[str] = []

    def handler(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)
        on_first(received[0])

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
