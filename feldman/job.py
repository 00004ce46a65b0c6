"""The main job, one straight path: experiment, data set, blocks, store, estimates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

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
from feldman.estimates.intervals import largest_stderr
from feldman.estimates.selection import DEFAULT_MIN_MEMORIZATION, NO_THRESHOLD
from feldman.experiment import MAX_TRIALS, Experiment
from feldman.experiment_files import load_experiment
from feldman.learners.load import check_learner
from feldman.results.refresh import refresh_tables
from feldman.results.run import RunStatus, open_run
from feldman.results.tables import count_rows, read_facts, read_table
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

__all__ = ["Progress", "RunSummary", "StoppingRule", "resume", "run"]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What was asked for, checked; ``grows``: by a number of trials, to let the run grow."""

    experiment: Experiment
    dataset: Dataset
    launch: Launch
    until: StoppingRule | None
    grows: bool = False


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
    dataset = _checked_dataset(experiment, launch)
    if paths.has_store:
        store = TrialStore.open(paths.store)
        store.check_trainable()
        store.check_experiment(experiment, dataset.fingerprint)
        experiment = continued(store.experiment, stopping_of(store, experiment, until, False)[0], paths.root)
    else:
        paths.check_new()
        experiment = planned(settled_stopping(None, None, experiment, until)[0])
    asked = _Asked(experiment=experiment, dataset=dataset, launch=launch, until=until)
    return _work(paths, asked, on_progress)


def resume(
    path: str | Path,
    *,
    num_trials: int | None = None,
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    speculate: bool = False,
    until: StoppingRule | None = None,
    on_progress: ProgressCallback = lambda progress: None,
) -> RunSummary:
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
        set is not what it was.
    """
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
    grows = num_trials is not None
    experiment = stopping_of(store, experiment, until, grows)[0]
    dataset = _checked_dataset(experiment, launch)
    store.check_experiment(experiment, dataset.fingerprint)
    asked = _Asked(experiment=experiment, dataset=dataset, launch=launch, until=until, grows=grows)
    return _work(paths, asked, on_progress)


def _checked_dataset(experiment: Experiment, launch: Launch) -> Dataset:
    """Load the data set, and find out whether trials on it can be planned, learned and executed."""
    check_execution(experiment, launch)
    dataset = load_dataset(experiment.dataset)
    if launch.address and experiment.execution.shared_files:
        check_shareable(dataset)
    subset_size(experiment.subsets.subset_ratio, dataset.num_train)
    check_learner(experiment, dataset)
    return dataset


def _work(paths: RunPaths, asked: _Asked, tell: ProgressCallback) -> RunSummary:
    """Do the work of `run` and `resume`; an interrupt at any moment says how to go on."""
    try:
        waiting = lambda note: tell(Progress(stage="waiting", note=note))  # noqa: E731
        with writer_lock(paths, waiting) as held, closing(EventLog(held.events)) as events:
            return _train_and_estimate(held, asked, events, tell)
    except KeyboardInterrupt:
        message = f"interrupted; what was committed is safe. Go on with: {command('resume', paths.root)}"
        raise InterruptedRunError(message) from None


def _train_and_estimate(paths: RunPaths, asked: _Asked, events: EventLog, tell: ProgressCallback) -> RunSummary:
    started = time.monotonic()
    experiment, dataset = asked.experiment, asked.dataset
    store = prepared_store(paths, experiment, dataset, events, tell, until=asked.until, grows=asked.grows)
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
        raise FeldmanError(f"{error}. {_safe_message(store)}") from error
    train_wall_seconds = time.monotonic() - train_started
    if report.stopped and not report.hopeless:
        events.write("interrupted", {"pending_blocks": len(pending_blocks(store))})
        raise InterruptedRunError(_interrupted_message(store))
    refresh_tables(paths, store, events, tell)
    if report.set_aside:
        raise TrialsFailedError(_failed_message(paths, report, len(pending_blocks(store)), experiment))
    events.write("run_finished", {"num_trials": store.experiment.subsets.num_trials})
    return _summary(paths, time.monotonic() - started, train_wall_seconds)


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


def _summary(paths: RunPaths, seconds: float, train_wall_seconds: float) -> RunSummary:
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
        seconds=seconds,
        train_wall_seconds=train_wall_seconds,
        memorization_path=str(paths.memorization),
        influence_path=str(paths.influence),
    )


def _interrupted_message(store: TrialStore) -> str:
    return f"interrupted; {_safe_message(store)}"


def _safe_message(store: TrialStore) -> str:
    trials = store.experiment.trained_trials
    safe = len(trials) - store.num_trials_in(pending_blocks(store))
    within = f" of the range {trials.start}:{trials.stop}" if store.experiment.execution.trials else ""
    go_on = command("resume", store.path.parent)
    return f"{safe:,} of {len(trials):,} trials{within} are safe. Go on with: {go_on}"


def _failed_message(paths: RunPaths, report: LoopReport, num_pending: int, experiment: Experiment) -> str:
    block, error = next(iter(report.set_aside.items()))
    stopped = "; none succeeded, so the others were not tried" if report.hopeless else ""
    return (
        f"{len(report.set_aside)} block(s) failed {experiment.execution.max_attempts} times each, {num_pending} are pending"
        f"{stopped}. First: block {block}: {error}. Details: {paths.events}. To try again: {command('resume', paths.root)}"
    )
