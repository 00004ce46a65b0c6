"""The main job, one straight path: experiment, data set, blocks, store, estimates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldman.data.dataset import Dataset
from feldman.data.load import load_dataset
from feldman.data.mapped import check_shareable
from feldman.errors import (
    FeldmanError,
    InputError,
    InterruptedRunError,
    StorageError,
    StoreBusyError,
    TrialsFailedError,
    command,
)
from feldman.experiment import MAX_TRIALS, Experiment
from feldman.experiment_files import load_experiment
from feldman.job_summaries import (
    RunSummary,
    StudySummary,
    failed_message,
    interrupted_message,
    run_summary,
    safe_message,
    study_summary,
)
from feldman.learners.load import check_learner
from feldman.results.refresh import refresh_tables
from feldman.trials.design import Design
from feldman.trials.events import EventLog
from feldman.trials.launch import Launch, check_execution
from feldman.trials.loop import LoopReport
from feldman.trials.plan import subset_size
from feldman.trials.ranges import continued, planned
from feldman.trials.rundir import RunPaths, run_paths, writer_lock
from feldman.trials.session import (
    Progress,
    ProgressCallback,
    pending_blocks,
    prepared_store,
    stopping_of,
    train_pending,
)
from feldman.trials.stopping import StoppingRule, Watch, settled_stopping
from feldman.trials.store import TrialStore

__all__ = ["Progress", "RunSummary", "StoppingRule", "StudySummary", "resume", "run", "run_design"]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What was asked for, checked; ``grows``: by a number of trials, to let the run grow."""

    experiment: Experiment
    dataset: Dataset
    launch: Launch
    until: StoppingRule | None = None
    grows: bool = False
    design: Design | None = None


def run(
    experiment: Experiment | str | Path,
    path: str | Path,
    *,
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    speculate: bool = False,
    until: StoppingRule | None = None,
    on_progress: ProgressCallback = lambda progress: None,
) -> RunSummary:
    """Train the trials of an experiment and estimate; go on where an earlier job on the same path stopped.

    Parameters
    ----------
    experiment
        An `Experiment`, a preset's name or the path of a TOML file. With ``execution.trials`` only the trials of that range
        are trained; see `continued` for how it may change later.
    path
        The run directory.
    address
        A Ray cluster's address; by default Ray is started on this machine.
    runtime_env
        Ray's runtime environment of the workers (``env_vars``, ``working_dir``, ...). It may hold secrets and is written nowhere.
    speculate
        Near the end, hand blocks that take long out a second time where a worker is free; the first result counts.
    until
        When there are trials enough; the experiment's ``num_trials`` is then the most. By default the rule that the run has, if
        any; see `settled_stopping`.
    on_progress
        Told how far the job is.

    Returns
    -------
    RunSummary
        What was found and where it lies.

    Raises
    ------
    InputError
        If anything given cannot work; nothing was written then.
    StoreBusyError
        If another process writes to the run.
    TrialsFailedError
        If some blocks failed as often as they may; estimates are written from the others.
    InterruptedRunError
        If a signal stopped it.
    """
    paths, launch = run_paths(path), Launch(address=address, runtime_env=runtime_env, speculate=speculate)
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment)
    if experiment.subsets.design is not None:
        raise InputError("subsets.design is what `feldman removal RUN` sets; take it out, or use that command")
    started = time.monotonic()
    asked = _asked(paths, experiment, launch, until=until)
    return run_summary(paths, started, _work(paths, asked, on_progress))


def run_design(
    experiment: Experiment,
    design: Design,
    path: str | Path,
    *,
    launch: Launch,
    on_progress: ProgressCallback = lambda progress: None,
) -> StudySummary:
    """Train the trials of a study whose subsets are designed; go on where an earlier job on the same path stopped.

    Parameters
    ----------
    experiment
        Its ``subsets.design`` is the design's fingerprint.
    design
        Which trial learns from what.
    path
        The run directory.
    launch
        Where and how.
    on_progress
        Told how far the job is.

    Raises
    ------
    InputError, StoreBusyError, TrialsFailedError, InterruptedRunError
        As `run`.
    """
    paths, started = run_paths(path), time.monotonic()
    asked = _asked(paths, experiment, launch, design=design)
    return study_summary(paths, started, _work(paths, asked, on_progress))


def resume(
    path: str | Path,
    *,
    num_trials: int | None = None,
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    speculate: bool = False,
    until: StoppingRule | None = None,
    on_progress: ProgressCallback = lambda progress: None,
) -> RunSummary | StudySummary:
    """Finish a run, or let it grow: train blocks that are pending, damaged, or new.

    Parameters
    ----------
    path
        The run directory.
    num_trials
        How many trials it shall have; by default those that it was started with. The end of its range, if it has one, moves
        with the end of the plan. A rule that the run had is then forgotten, unless ``until`` gives one.
    address, runtime_env, speculate, until, on_progress
        As for `run`.

    Raises
    ------
    InputError
        If there is no run, fewer trials are asked for than it has, or more though its range ends before its plan, or its data
        set is not what it was; or a rule is given to a study whose subsets are designed.
    """
    started = time.monotonic()
    paths, launch = run_paths(path), Launch(address=address, runtime_env=runtime_env, speculate=speculate)
    store = TrialStore.open(paths.store)
    store.check_trainable()
    experiment = store.experiment
    if num_trials is not None:
        if num_trials < experiment.subsets.num_trials:
            raise InputError(
                f"'{paths.root}' has {experiment.subsets.num_trials} trials and only grows; found --num-trials {num_trials}"
            )
        if num_trials > MAX_TRIALS:
            raise InputError(f"a run has at most {MAX_TRIALS} trials; found --num-trials {num_trials}")
        grown = experiment.replace("subsets", {"num_trials": num_trials}).replace("execution", {"trials": None})
        experiment = continued(experiment, grown, paths.root)
    if store.design is not None and until is not None:
        raise InputError(f"'{paths.root}' is a study of removed examples: a rule about estimates says nothing of it")
    grows = num_trials is not None
    experiment = stopping_of(store, experiment, until, grows)[0]
    dataset = _checked_dataset(experiment, launch)
    store.check_experiment(experiment, dataset.fingerprint)
    asked = _Asked(experiment=experiment, dataset=dataset, launch=launch, until=until, grows=grows, design=store.design)
    train_wall_seconds = _work(paths, asked, on_progress)
    return (run_summary if store.design is None else study_summary)(paths, started, train_wall_seconds)


def _asked(
    paths: RunPaths,
    experiment: Experiment,
    launch: Launch,
    *,
    until: StoppingRule | None = None,
    design: Design | None = None,
) -> _Asked:
    """Check an experiment that begins a run, or goes on with one."""
    dataset = _checked_dataset(experiment, launch)
    if paths.has_store:
        store = TrialStore.open(paths.store)
        store.check_trainable()
        store.check_experiment(experiment, dataset.fingerprint)
        experiment = continued(store.experiment, stopping_of(store, experiment, until, False)[0], paths.root)
    else:
        paths.check_new()
        experiment = planned(settled_stopping(None, None, experiment, until)[0])
    return _Asked(experiment=experiment, dataset=dataset, launch=launch, until=until, design=design)


def _checked_dataset(experiment: Experiment, launch: Launch) -> Dataset:
    """Load the data set, and find out whether trials on it can be planned, learned and executed."""
    check_execution(experiment, launch)
    dataset = load_dataset(experiment.dataset)
    if launch.address and experiment.execution.shared_files:
        check_shareable(dataset)
    subset_size(experiment.subsets.subset_ratio, dataset.num_train)
    check_learner(experiment, dataset)
    return dataset


def _work(paths: RunPaths, asked: _Asked, tell: ProgressCallback) -> float:
    """Do the work of a job; an interrupt at any moment says how to go on. Return the seconds of training."""
    try:
        waiting = lambda note: tell(Progress(stage="waiting", note=note))  # noqa: E731
        with writer_lock(paths, waiting) as held, closing(EventLog(held.events)) as events:
            return _train_and_estimate(held, asked, events, tell)
    except KeyboardInterrupt:
        message = f"interrupted; what was committed is safe. Go on with: {command('resume', paths.root)}"
        raise InterruptedRunError(message) from None


def _train_and_estimate(paths: RunPaths, asked: _Asked, events: EventLog, tell: ProgressCallback) -> float:
    experiment, dataset = asked.experiment, asked.dataset
    store = prepared_store(
        paths, experiment, dataset, events, tell, until=asked.until, grows=asked.grows, design=asked.design
    )
    train_started = time.monotonic()
    try:
        watch = _watch(store, events, tell)
        report = train_pending(store, experiment, dataset, launch=asked.launch, events=events, tell=tell, watch=watch)
    except KeyboardInterrupt:
        report = LoopReport(stopped=True)
    except (StorageError, StoreBusyError):  # they say what to do
        raise
    except FeldmanError as error:
        events.write("training_failed", {"error": str(error)})
        # Not an InputError even if it was one: the run is there now.
        raise FeldmanError(f"{error}. {safe_message(store)}") from error
    train_wall_seconds = time.monotonic() - train_started
    if report.stopped and not report.hopeless:
        events.write("interrupted", {"pending_blocks": len(pending_blocks(store))})
        raise InterruptedRunError(interrupted_message(store))
    if store.design is None:
        refresh_tables(paths, store, events, tell)
    if report.set_aside:
        raise TrialsFailedError(failed_message(paths, report, len(pending_blocks(store)), experiment))
    events.write("run_finished", {"num_trials": store.experiment.subsets.num_trials})
    return train_wall_seconds


def _watch(store: TrialStore, events: EventLog, tell: ProgressCallback) -> Watch | None:
    """Return what looks at the run while it is trained, if it has a rule still to be met; it has looked at what is there."""
    record = store.stopping
    if record is None or record.outcome is not None:
        return None
    # Imported here: compiled code that other runs need not wait for before they train.
    from feldman.studies.stopping import StoppingWatch

    watch = StoppingWatch(store, record, events, tell)
    watch.start()
    return watch
