"""One session of work on a run's trials: mend the store, let it grow, train what is pending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from feldman.data.dataset import Dataset
from feldman.experiment import Experiment
from feldman.trials.authentication import UNPROTECTED, uses_tokens
from feldman.trials.calibration import decide, decided_experiment, prepare_calibration_task
from feldman.trials.design import Design
from feldman.trials.events import Detail, EventLog
from feldman.trials.executor import BlockOutcome, Prepare
from feldman.trials.integrity import find_damage
from feldman.trials.launch import Launch, made_executor
from feldman.trials.loop import LoopOptions, LoopReport, run_blocks
from feldman.trials.ranges import continued
from feldman.trials.rundir import RunPaths
from feldman.trials.signals import stop_on_signals
from feldman.trials.stopping import StoppingRecord, StoppingRule, Watch, settled_stopping
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, prepare_block_task

__all__ = ["Progress", "ProgressCallback", "pending_blocks", "prepared_store", "stopping_of", "train_pending"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage of a job is.

    Attributes
    ----------
    stage
        ``"checking"``, ``"starting"``, ``"training"``, ``"stopping"``, ``"waiting"``, ``"merging"``, ``"reading trials"``,
        ``"estimating influence"`` or ``"preparing"``; of exchange ``"importing"``, ``"exporting"``, ``"reading matrices"``,
        ``"writing matrices"`` or ``"comparing matrices"``; of features ``"training the network"`` or ``"computing features"``.
    done, total
        In trials; while reading, chunks of examples; while estimating, training examples; or classes, or images, or steps. 0 of 0
        where a stage has no length.
    mean_test_accuracy
        Over the trials committed in this session.
    note
        One sentence for the user, or nothing.
    """

    stage: str
    done: int = 0
    total: int = 0
    mean_test_accuracy: float | None = None
    note: str = ""


ProgressCallback = Callable[[Progress], None]


def pending_blocks(store: TrialStore) -> list[int]:
    """Return the blocks that this run has still to train, ascending: not committed, and of its range."""
    return sorted(set(store.experiment.trained_blocks) - set(store.committed_blocks()))


def prepared_store(
    paths: RunPaths,
    experiment: Experiment,
    dataset: Dataset,
    events: EventLog,
    tell: ProgressCallback,
    *,
    until: StoppingRule | None = None,
    grows: bool = False,
    design: Design | None = None,
) -> TrialStore:
    """Make the store, or open it, mend it and let it grow to the experiment's number of trials.

    Blocks that no longer are what was written, or not what the plan says, become pending. What ``until`` and ``grows`` mean,
    `settled_stopping` says; ``design`` is needed to make the store of a designed study.

    Raises
    ------
    StoreMismatchError
        If the store holds another experiment.
    InputError
        If its range of trials does not fit the experiment's; see `continued`.
    StorageError
        If the storage refuses.
    """
    if not paths.has_store:
        experiment, stopping = settled_stopping(None, None, experiment, until)
        store = TrialStore.create(paths.store, experiment, dataset, stopping, design)
        events.write(
            "run_created",
            {
                "fingerprint": experiment.fingerprint,
                "num_trials": experiment.subsets.num_trials,
                "trials": _bounds(experiment.trained_trials),
            },
        )
        if stopping is not None:
            _write_rule(stopping, events)
        return store
    store = TrialStore.open(paths.store)
    store.check_experiment(experiment, dataset.fingerprint)  # now that nobody else can change it
    experiment, stopping = stopping_of(store, experiment, until, grows)
    experiment = continued(store.experiment, experiment, paths.root)
    if stopping != store.stopping:
        # Before the run grows: a kill between the two leaves a rule that still has its limit before it.
        store.record_stopping(stopping)
        _write_rule(stopping, events)
    store.fit_arrays()
    for name in store.restore_labels(dataset):
        events.write("labels_restored", {"array": name})
    _withdraw_damaged(store, events, tell)
    before, trained = store.experiment.subsets.num_trials, store.experiment.trained_trials
    if experiment.subsets.num_trials > before:
        store.grow(experiment.subsets.num_trials, experiment.execution.trials)
        events.write("run_grown", {"from": before, "to": experiment.subsets.num_trials})
    store.record_circumstances(experiment)
    if experiment.execution.trials is not None and experiment.trained_trials != trained:
        events.write("range_grown", {"from": _bounds(trained), "to": _bounds(experiment.trained_trials)})
    return store


def stopping_of(
    store: TrialStore, experiment: Experiment, until: StoppingRule | None, grows: bool
) -> tuple[Experiment, StoppingRecord | None]:
    """Settle how long a run that exists shall be, and by which rule it may end before; see `settled_stopping`."""
    blocks = store.committed_blocks()
    num_before = store.experiment.subsets.block_trials(blocks[-1]).stop if blocks else 0
    return settled_stopping(store.experiment, store.stopping, experiment, until, num_before=num_before, grows=grows)


def _write_rule(stopping: StoppingRecord | None, events: EventLog) -> None:
    if stopping is None:
        events.write("stopping_rule_forgotten")
        return
    told: dict[str, Detail] = {
        "rule": asdict(stopping.rule),
        "limit": stopping.limit,
        "from_trial": stopping.from_trial,
    }
    events.write("stopping_rule", told)


def train_pending(
    store: TrialStore,
    experiment: Experiment,
    dataset: Dataset,
    *,
    launch: Launch,
    events: EventLog,
    tell: ProgressCallback,
    watch: Watch | None = None,
) -> LoopReport:
    """Train and commit every block of the run's range that is pending.

    Parameters
    ----------
    store
        The store, held for writing.
    experiment, dataset
        What is trained, and how it is executed.
    launch
        Where and how.
    events, tell
        Where to write and tell what happens.
    watch
        Told of every block, and asked whether it is enough. It looks at blocks in their order, so one that failed is tried again
        first.
    """
    pending = pending_blocks(store)
    if not pending:
        return LoopReport()
    # The store's own plan: it may have grown since the experiment was read.
    experiment = experiment.model_copy(update={"subsets": store.experiment.subsets})
    decided = decided_experiment(store, experiment)
    session = _TrainingSession(store, events, tell, experiment.execution.max_attempts, watch)
    tell(Progress(stage="starting", note=_starting_note(experiment, launch.address)))
    prepare = _prepare(decided or experiment, store.design, decided is None)
    with (
        made_executor(
            experiment,
            prepare,
            dataset,
            launch,
            on_setup_failure=session.worker_failed,
            on_shortage=session.tell_waiting,
        ) as executor,
        stop_on_signals(partial(_tell_stopping, tell)) as should_stop,
    ):
        events.write(
            "training_started",
            {
                "executor": experiment.execution.executor,
                "num_workers": executor.num_workers,
                "pending_blocks": len(pending),
            },
        )
        if launch.address and not uses_tokens():
            tell(Progress(stage="starting", note=UNPROTECTED))
        if decided is None:
            tell(Progress(stage="starting", note="measuring how this learner trains fastest here"))
            decided = decide(store, experiment, executor, events, should_stop)
            executor.change_task(_prepare(decided, store.design, False))
        session.tell_training()
        options = LoopOptions(retry_first=watch is not None)
        if launch.speculate:
            options = replace(options, submit_copy=executor.submit_copy)
        report = run_blocks(
            pending,
            executor,
            session.commit,
            max_attempts=experiment.execution.max_attempts,
            should_stop=should_stop,
            on_failure=session.failed,
            options=options,
        )
    if report.speculated:
        events.write("speculated", {"blocks": list(report.speculated)})
    session.tell_unconverged()
    return report


class _TrainingSession:
    """Commits results, and keeps the counts that progress needs."""

    def __init__(
        self, store: TrialStore, events: EventLog, tell: ProgressCallback, max_attempts: int, watch: Watch | None
    ) -> None:
        self._store, self._events, self._tell, self._max_attempts = store, events, tell, max_attempts
        self._watch = watch
        self._total = len(store.experiment.trained_trials)
        self._done = self._total - store.num_trials_in(pending_blocks(store))
        self._accuracy_sum, self._num_trained, self._num_unconverged = 0.0, 0, 0

    def commit(self, block: int, result: BlockResult) -> bool:
        """Commit a block, and tell whether a rule says that no more are wanted."""
        self._store.commit_block(result)
        self._done += len(result.test_accuracy)
        self._num_trained += len(result.test_accuracy)
        self._num_unconverged += result.num_unconverged
        self._accuracy_sum += float(result.test_accuracy.sum())
        self._events.write(
            "block_committed",
            {
                "block": block,
                "mean_test_accuracy": round(float(result.test_accuracy.mean()), 6),
                "seconds": round(float(result.train_seconds.sum()), 3),
            },
        )
        if self._watch is not None:
            self._watch.committed(block)
        self.tell_training()
        return self._watch is not None and self._watch.enough

    def failed(self, outcome: BlockOutcome, attempt: int) -> bool:
        """Tell of it, and whether a rule now waits in vain: for a block that is set aside."""
        told: dict[str, Detail] = {"block": outcome.block, "attempt": attempt, "error": outcome.error}
        self._events.write("block_failed", told if outcome.node is None else {**told, "node": outcome.node})
        self.tell_training(
            f"block {outcome.block} failed (attempt {attempt} of {self._max_attempts}"
            f"{f', on {outcome.node}' if outcome.node else ''}): {outcome.error}"
        )
        return self._watch is not None and attempt == self._max_attempts

    def worker_failed(self, node: str, problem: str) -> None:
        """Say that a node does not help: the others go on, and nobody would notice."""
        self._events.write("worker_failed", {"node": node, "error": problem})
        self.tell_training(f"a worker could not be set up on {node}, and others go on: {problem}")

    def tell_waiting(self, shortage: str) -> None:
        self._events.write("waiting_for_nodes", {"shortage": shortage})
        self._tell(Progress(stage="starting", note=f"waiting for nodes: {shortage}"))

    def tell_unconverged(self) -> None:
        """Say once, with their number, what a library would have printed for every trial."""
        if self._num_unconverged:
            self._events.write("not_converged", {"trials": self._num_unconverged, "trained": self._num_trained})
            self.tell_training(
                f"{self._num_unconverged:,} of {self._num_trained:,} trials stopped before they had converged; "
                "their bits count as they are. More iterations (max_iter under [learner.parameters]) may help"
            )

    def tell_training(self, note: str = "") -> None:
        mean = self._accuracy_sum / self._num_trained if self._num_trained else None
        self._tell(Progress(stage="training", done=self._done, total=self._total, mean_test_accuracy=mean, note=note))


def _bounds(trials: range) -> list[int]:
    return [trials.start, trials.stop]


def _withdraw_damaged(store: TrialStore, events: EventLog, tell: ProgressCallback) -> None:
    total = store.num_trials_in(store.committed_blocks())
    damaged: dict[int, str] = {}
    for found in find_damage(store, lambda done, total: tell(Progress(stage="checking", done=done, total=total))):
        if found.block is not None:  # labels have been restored
            damaged.setdefault(found.block, found.problem)
    for block, problem in damaged.items():
        store.withdraw_block(block)
        events.write("block_withdrawn", {"block": block, "problem": problem})
    if damaged:
        first = next(iter(damaged.values()))
        note = f"{len(damaged)} damaged block(s) will be trained again ({first})"
        tell(Progress(stage="checking", done=total, total=total, note=note))


def _prepare(experiment: Experiment, design: Design | None, calibrating: bool) -> Prepare:
    # Workers import a user's own learner from where the driver was started.
    import_paths = (str(Path.cwd()),)
    task = prepare_calibration_task if calibrating else prepare_block_task
    return partial(task, experiment, import_paths, design=design)


def _starting_note(experiment: Experiment, address: str | None) -> str:
    if experiment.execution.executor == "in-process":
        return "training in this process"
    return f"connecting to Ray at {address}" if address else "starting Ray on this machine"


def _tell_stopping(tell: ProgressCallback, signal_name: str) -> None:
    tell(Progress(stage="stopping", note=f"{signal_name}: finishing the blocks in flight; once more to leave at once"))
