"""The other job: runs of one experiment, trained apart, become one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feldman.errors import InputError, InterruptedRunError, RunDirectoryError, command
from feldman.results.refresh import refresh_tables
from feldman.results.run import RunStatus, open_run
from feldman.trials.events import EventLog
from feldman.trials.locations import local_path
from feldman.trials.merge import MergeReport, check_sources, merge_stores
from feldman.trials.rundir import RunPaths, new_run_lock, run_paths
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.store import TrialStore

__all__ = ["MergeSummary", "MergedSource", "merge"]


@dataclass(frozen=True, kw_only=True)
class MergedSource:
    """A run that was merged: how many trials it had committed, and how many of the merged run are its."""

    run: str
    num_committed_trials: int
    num_taken_trials: int
    created_with: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MergeSummary:
    """What a merge leaves behind.

    Attributes
    ----------
    status
        Of the merged run.
    sources
        Where its trials are from. A trial that several runs hold is counted for one of them.
    num_shared_trials
        Trials that more than one run holds, with equal bits.
    num_left_out_trials
        Trials of short last blocks that do not fill a block of the merged run.
    outputs_left_out
        Which of ``"margins"`` and ``"predictions"`` some runs record and others do not.
    """

    status: RunStatus
    sources: tuple[MergedSource, ...]
    num_shared_trials: int
    num_left_out_trials: int
    outputs_left_out: tuple[str, ...]
    seconds: float
    memorization_path: str
    influence_path: str

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def merge(
    runs: Sequence[str | Path],
    path: str | Path,
    *,
    on_progress: ProgressCallback = lambda progress: None,
) -> MergeSummary:
    """Join the committed trials of two or more runs of one experiment into a new run, and estimate.

    The bits, seeds, accuracies and times of trials are carried over as they are; the runs are only read. Whatever the new run
    lacks, `feldman.resume` trains.

    Parameters
    ----------
    runs
        The run directories. Their blocks may be of different sizes.
    path
        The new run directory.
    on_progress
        Told how far the job is.

    Returns
    -------
    MergeSummary
        Where the trials are from.

    Raises
    ------
    InputError
        If the runs are fewer than two, not of one experiment, without trials, or hold other bits of the same trials; or the new
        run exists. Nothing was written then.
    CorruptStoreError
        If a committed block of a run is damaged. Nothing was written then.
    StoreBusyError
        If another process writes to the new run.
    InterruptedRunError
        If a signal stopped it.
    """
    started = time.monotonic()
    if isinstance(runs, str | Path):
        raise InputError(f"a merge takes a list of runs; found '{runs}'")
    sources = [TrialStore.open(run_paths(run).store) for run in runs]
    paths = run_paths(path)
    store = local_path(paths.store, "merge makes runs")
    _check_new(paths)
    check_sources(sources)
    try:
        with new_run_lock(paths):
            _check_new(paths)  # now that nobody else can make it
            report = merge_stores(
                sources, store, lambda done, total: on_progress(Progress(stage="merging", done=done, total=total))
            )
            merged = _merged_sources(sources, report)
            with closing(EventLog(paths.events)) as events:
                events.write(
                    "run_merged",
                    {
                        "sources": [asdict(source) for source in merged],
                        "num_trials": sum(report.num_taken),
                        "num_shared": report.num_shared,
                        "num_left_out": report.num_left_out,
                        "outputs_left_out": list(report.outputs_left_out),
                    },
                )
                if sources[0].design is None:
                    refresh_tables(paths, TrialStore.open(paths.store), events, on_progress)
    except KeyboardInterrupt:
        raise InterruptedRunError(_interrupted_message(paths)) from None
    return MergeSummary(
        status=open_run(str(paths.root)).status(),
        sources=merged,
        num_shared_trials=report.num_shared,
        num_left_out_trials=report.num_left_out,
        outputs_left_out=report.outputs_left_out,
        seconds=time.monotonic() - started,
        memorization_path=str(paths.memorization),
        influence_path=str(paths.influence),
    )


def _check_new(paths: RunPaths) -> None:
    if paths.has_store:
        finish = command("resume", paths.root)
        raise RunDirectoryError(
            f"'{paths.root}' is a run already, and a merge makes a new one: choose another run directory (`{finish}` goes on "
            "with that one)"
        )
    paths.check_new()


def _merged_sources(sources: Sequence[TrialStore], report: MergeReport) -> tuple[MergedSource, ...]:
    return tuple(
        MergedSource(
            run=str(source.path.parent),
            num_committed_trials=num_read,
            num_taken_trials=num_taken,
            created_with=source.attributes.get("created_with", {}),
        )
        for source, num_read, num_taken in zip(sources, report.num_read, report.num_taken, strict=True)
    )


def _interrupted_message(paths: RunPaths) -> str:
    if paths.has_store:
        return f"interrupted; all trials are merged. Make the tables with: {command('estimate', paths.root)}"
    return "interrupted; nothing was written. The same command begins anew"
