"""Progress on standard error: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

if TYPE_CHECKING:
    from feldman.trials.session import Progress

__all__ = ["ProgressDisplay"]

_PLAIN_LINE_SECONDS = 5.0
_RECENT_REPORTS = 6
_RECENT_SECONDS = 20.0
_UNITS = {
    "training": "trials",
    "checking": "trials",
    "merging": "trials",
    "reading trials": "chunks",
    "estimating influence": "examples",
    "importing": "trials",
    "exporting": "trials",
    "reading matrices": "classes",
    "writing matrices": "classes",
    "comparing matrices": "classes",
    "preparing": "images",
    "comparing halves": "splits",
    "comparing runs": "resamples and splits",
    "counting in halves": "examples",
    "counting in subsets": "examples",
    "fitting datamodels": "fits",
    "looking for duplicates": "examples",
    "training the network": "steps",
    "computing features": "examples",
}


class ProgressDisplay:
    """Shows how far a job is. A context manager; call it with each `Progress`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._stage_started = 0.0
        self._last_line = 0.0
        self._recent: deque[tuple[float, int]] = deque()

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            columns: list[ProgressColumn] = [
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                _FactsColumn(),
            ]
            self._bar = RichProgress(*columns, console=self._console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show one report."""
        if progress.note:
            self._console.print(progress.note, markup=False, soft_wrap=True)
        if progress.stage != self._stage:
            self._stage, self._stage_started = progress.stage, time.monotonic()
            self._recent.clear()
            self._last_line = time.monotonic() if progress.stage != "training" else 0.0
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(progress.stage, total=progress.total or None)
        facts = self._facts(progress)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress.done, total=progress.total or None, facts=facts)
        elif progress.total and self._line_is_due(progress):
            self._last_line = time.monotonic()
            print(f"{progress.stage}: {facts}", file=sys.stderr, flush=True)

    def _line_is_due(self, progress: Progress) -> bool:
        now = time.monotonic()
        ended = progress.done == progress.total and now - self._stage_started > _PLAIN_LINE_SECONDS
        return ended or now - self._last_line >= _PLAIN_LINE_SECONDS

    def _facts(self, progress: Progress) -> str:
        if not progress.total:
            return ""
        parts = [f"{progress.done:,}/{progress.total:,} {_UNITS.get(progress.stage, '')}"]
        rate = self._rate(progress.done)
        if rate > 0:
            parts.append(f"{rate:,.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min")
            if progress.done < progress.total:
                parts.append(f"{_duration((progress.total - progress.done) / rate)} left")
        if progress.mean_test_accuracy is not None:
            parts.append(f"test accuracy {100 * progress.mean_test_accuracy:.2f}%")
        return ", ".join(parts)

    def _rate(self, done: int) -> float:
        """Return how much is done a second, lately: the first reports of a stage include its warming up."""
        now = time.monotonic()
        self._recent.append((now, done))
        while len(self._recent) > _RECENT_REPORTS and now - self._recent[0][0] > _RECENT_SECONDS:
            self._recent.popleft()
        then, done_then = self._recent[0]
        return (done - done_then) / (now - then) if now > then else 0.0


class _FactsColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("facts", "")))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}min" if hours else f"{minutes}min {seconds:02d}s" if minutes else f"{seconds}s"
