"""What a job leaves behind, and what it says when it could not finish."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc

from feldman.errors import command
from feldman.estimates.intervals import largest_stderr
from feldman.estimates.selection import DEFAULT_MIN_MEMORIZATION, NO_THRESHOLD
from feldman.experiment import Experiment
from feldman.results.run import RunStatus, open_run
from feldman.results.tables import count_rows, read_facts, read_table
from feldman.trials.loop import LoopReport
from feldman.trials.rundir import RunPaths
from feldman.trials.session import pending_blocks
from feldman.trials.store import TrialStore

__all__ = [
    "RunSummary",
    "StudySummary",
    "failed_message",
    "interrupted_message",
    "run_summary",
    "safe_message",
    "study_summary",
]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a finished job leaves behind."""

    status: RunStatus
    num_memorized: int
    num_pairs: int
    selection: str
    min_influence: float
    min_memorization: float
    largest_stderr: float
    seconds: float
    train_wall_seconds: float
    memorization_path: str
    influence_path: str

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """What a finished session on a study with designed subsets leaves behind: trials, and nothing estimated from them."""

    status: RunStatus
    seconds: float
    train_wall_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def study_summary(paths: RunPaths, started: float, train_wall_seconds: float) -> StudySummary:
    """Say what a session on a study, begun at a monotonic time, leaves behind."""
    return StudySummary(
        status=open_run(str(paths.root)).status(),
        seconds=time.monotonic() - started,
        train_wall_seconds=train_wall_seconds,
    )


def run_summary(paths: RunPaths, started: float, train_wall_seconds: float) -> RunSummary:
    """Say what a job, begun at a monotonic time, found."""
    memorization, _ = read_table(paths.memorization, paths.root)
    facts = read_facts(paths.influence, paths.root)
    memorized = facts.selection.min_memorization
    if memorized <= NO_THRESHOLD:  # pairs were chosen otherwise; an example that is memorized is still the paper's
        memorized = DEFAULT_MIN_MEMORIZATION
    return RunSummary(
        status=open_run(str(paths.root)).status(),
        num_memorized=pc.sum(pc.greater_equal(memorization["memorization"], memorized)).as_py() or 0,
        num_pairs=count_rows(paths.influence, paths.root),
        selection=facts.selection.in_words(),
        min_influence=facts.selection.min_influence,
        min_memorization=memorized,
        largest_stderr=largest_stderr(memorization["num_in"].to_numpy(), memorization["num_out"].to_numpy()),
        seconds=time.monotonic() - started,
        train_wall_seconds=train_wall_seconds,
        memorization_path=str(paths.memorization),
        influence_path=str(paths.influence),
    )


def interrupted_message(store: TrialStore) -> str:
    """Say that a signal stopped a job, and how to go on."""
    return f"interrupted; {safe_message(store)}"


def safe_message(store: TrialStore) -> str:
    """Say how much is committed, and how to go on."""
    trials = store.experiment.trained_trials
    safe = len(trials) - store.num_trials_in(pending_blocks(store))
    within = f" of the range {trials.start}:{trials.stop}" if store.experiment.execution.trials else ""
    go_on = command("resume", store.path.parent)
    return f"{safe:,} of {len(trials):,} trials{within} are safe. Go on with: {go_on}"


def failed_message(paths: RunPaths, report: LoopReport, num_pending: int, experiment: Experiment) -> str:
    """Say that blocks were set aside, why the first of them was, and what to do."""
    block, error = next(iter(report.set_aside.items()))
    stopped = "; none succeeded, so the others were not tried" if report.hopeless else ""
    return (
        f"{len(report.set_aside)} block(s) failed {experiment.execution.max_attempts} times each, {num_pending} are pending"
        f"{stopped}. First: block {block}: {error}. Details: {paths.events}. To try again: {command('resume', paths.root)}"
    )
