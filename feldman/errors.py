"""The errors a user can meet, and the exit code each one means.

Every message says what was expected, what was found and what to do. The commands print the message alone; a traceback
would mean a defect of feldman.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable

__all__ = [
    "ComparisonError",
    "CorruptStoreError",
    "DatasetError",
    "ExchangeError",
    "ExperimentError",
    "FeldmanError",
    "InputError",
    "InterruptedRunError",
    "JobFailedError",
    "LearnerError",
    "QueryError",
    "RunDirectoryError",
    "StorageError",
    "StoreBusyError",
    "StoreMismatchError",
    "TrialsFailedError",
    "command",
    "listed",
    "suggestion",
]


class FeldmanError(Exception):
    """Anything that stops a command. Exit code 1: it failed while working."""

    exit_code = 1


class InputError(FeldmanError):
    """Bad input, found before anything was written. Exit code 2."""

    exit_code = 2


class ExperimentError(InputError):
    """An experiment file, preset name or override that does not describe an experiment."""


class DatasetError(InputError):
    """Data that cannot be learned from: missing, truncated, of the wrong shape, with labels out of range."""


class LearnerError(InputError):
    """A learner that cannot be found, or does not fit the data set."""


class RunDirectoryError(InputError):
    """A path that is not a run, or that cannot become one."""


class StoreMismatchError(InputError):
    """A run directory that holds another experiment, or another format of store."""


class QueryError(InputError):
    """A question that the tables of a run cannot answer."""


class ExchangeError(InputError):
    """A file of others that cannot be read or does not hold what it should; a place where nothing can be written."""


class ComparisonError(FeldmanError):
    """Two results that say nothing about each other: they are not of the same examples in the same order."""


class StoreBusyError(FeldmanError):
    """Another process is writing to the run."""


class CorruptStoreError(FeldmanError):
    """Committed blocks that can no longer be read, or whose bits are not what the plan says."""


class StorageError(FeldmanError):
    """The storage refused a write (disk full, permissions, a vanished folder)."""


class TrialsFailedError(FeldmanError):
    """Some blocks failed as often as they may; the others are committed."""


class InterruptedRunError(FeldmanError):
    """A signal stopped the run; committed blocks are safe. Exit code 130, as shells have it."""

    exit_code = 130


class JobFailedError(FeldmanError):
    """A submitted job failed. Exit code: that of ``feldman run`` in the job, or 1.

    Parameters
    ----------
    message
        What is known of it.
    exit_code
        The job's; None if it never came to one.
    """

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        known = (InputError.exit_code, InterruptedRunError.exit_code)
        self.exit_code = exit_code if exit_code in known else FeldmanError.exit_code


def command(*words: object) -> str:
    """Return a feldman command as it can be typed: ``feldman resume 'my runs/a'``."""
    return shlex.join(["feldman", *map(str, words)])


def listed(names: Iterable[str]) -> str:
    """Join names for a message: ``a, b, c``."""
    return ", ".join(names)


def suggestion(found: str, valid: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest valid name, or nothing."""
    close = difflib.get_close_matches(found, list(valid), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
