"""The job of a removal study: memorization estimates of one run become the subsets of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feldman.errors import QueryError, RunDirectoryError, command
from feldman.estimates.selection import DEFAULT_MIN_INFLUENCE, DEFAULT_MIN_MEMORIZATION
from feldman.experiment import Experiment
from feldman.experiment_files import overridden
from feldman.job import run_design
from feldman.learners.training_path import assumed_path
from feldman.results.run import RunStatus, open_run
from feldman.results.tables import check_same_trials, read_table
from feldman.studies.removal import RemovalPlan, removal_design, removal_table
from feldman.trials.design import Design
from feldman.trials.launch import Launch
from feldman.trials.rundir import RunPaths, run_paths
from feldman.trials.session import ProgressCallback
from feldman.trials.store import TrialStore

__all__ = ["RemovalResult", "removal", "removal_result"]


@dataclass(frozen=True, kw_only=True)
class RemovalResult:
    """What has come out of a removal study so far.

    Attributes
    ----------
    status
        Of its trials.
    table
        As `feldman.studies.removal.removal_table` makes it.
    """

    status: RunStatus
    table: pa.Table

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return {**asdict(self.status), "rows": self.table.to_pylist()}


def removal(
    run: str | Path,
    path: str | Path,
    plan: RemovalPlan | None = None,
    *,
    overrides: Sequence[str] = (),
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    speculate: bool = False,
    on_progress: ProgressCallback = lambda progress: None,
) -> RemovalResult:
    """Train on what remains when memorized examples are removed, and on as many random ones; go on where it stopped.

    The study is a run of its own: the experiment of ``run`` with designed subsets in place of random ones. It is committed,
    resumed, verified and merged as any other.

    Parameters
    ----------
    run
        A run whose tables say what is memorized.
    path
        The run directory of the study.
    plan
        What is removed, and how often each removal is trained. More repeats than a study has let it grow.
    overrides
        ``"section.key=value"`` texts: fields in which its experiment differs from that of ``run``.
    address, runtime_env, speculate, on_progress
        As for `feldman.run`.

    Raises
    ------
    InputError
        If the run has no tables of its committed trials, nothing would be removed, or ``path`` holds something else.
    StoreBusyError, TrialsFailedError, InterruptedRunError
        As `feldman.run`.
    """
    plan = plan or RemovalPlan()
    store, paths = TrialStore.open(run_paths(run).store), run_paths(path)
    design = _design(run_paths(run), store, plan)
    existing = TrialStore.open(paths.store).design if paths.has_store else None
    if existing is not None:  # more repeats must not be laid out otherwise than those that are there
        design = replace(design, repeats_together=existing.repeats_together)
    launch = Launch(address=address, runtime_env=runtime_env, speculate=speculate)
    experiment = _experiment(store, design, plan, overrides)
    run_design(experiment, design, path, launch=launch, on_progress=on_progress)
    return removal_result(path)


def removal_result(path: str | Path) -> RemovalResult:
    """Say what has come out of a removal study so far.

    Raises
    ------
    RunDirectoryError
        If there is no run, or it is no removal study.
    CorruptStoreError
        If its design or an accuracy cannot be read.
    """
    opened = open_run(path)
    store = opened.store
    if store.design is None:
        raise RunDirectoryError(f"'{path}' is no removal study: its subsets are random")
    trials: list[int] = []
    accuracies: list[NDArray[np.float32]] = []
    for block in store.committed_blocks():
        trials += store.experiment.subsets.block_trials(block)
        accuracies.append(store.read("test_accuracy", block))
    test_accuracy = np.concatenate(accuracies).astype(np.float64) if accuracies else np.empty(0)
    return RemovalResult(status=opened.status(), table=removal_table(store.design, trials, test_accuracy))


def _design(source: RunPaths, store: TrialStore, plan: RemovalPlan) -> Design:
    """Design the study from the tables of a run, which must be of the trials that it has."""
    store.check_random()
    memorized, facts = read_table(source.memorization, source.root)
    digest = store.digest()
    check_same_trials(source.root, {facts.digest, digest})
    is_influential = np.zeros(store.num_train, bool)
    if plan.by_influence:
        pairs, of_pairs = read_table(source.influence, source.root)
        check_same_trials(source.root, {of_pairs.digest, digest})
        chosen = of_pairs.selection
        lacks = chosen.min_influence > DEFAULT_MIN_INFLUENCE or chosen.min_memorization > DEFAULT_MIN_MEMORIZATION
        if chosen.has_tops or chosen.same_class or lacks:
            raise QueryError(
                f"'{source.root}' lists other pairs than those of high influence ({chosen.in_words()}); make the table anew: "
                f"{command('estimate', source.root)}"
            )
        high = pairs.filter(
            pc.and_(
                pc.greater_equal(pairs["influence"], DEFAULT_MIN_INFLUENCE),
                pc.greater_equal(pairs["memorization"], DEFAULT_MIN_MEMORIZATION),
            )
        )
        is_influential[high["train_index"].to_numpy()] = True
    block_size = store.experiment.subsets.block_size
    return removal_design(plan, memorized["memorization"].to_numpy(), is_influential, block_size)


def _experiment(store: TrialStore, design: Design, plan: RemovalPlan, overrides: Sequence[str]) -> Experiment:
    """Return the experiment of the study: that of the run, with designed subsets, and the precision that its trials had."""
    trained = store.training_path or assumed_path(store.experiment)
    experiment = store.experiment.replace("outputs", {"margins": False, "predictions": False})
    if trained is not None:
        experiment = experiment.replace("training", {"precision": trained.precision})
    experiment = overridden(experiment.replace("execution", {"trials": None}), overrides, "with --set it")
    subsets = {
        "num_trials": design.num_trials(plan.repeats),
        "seed": experiment.subsets.seed,
        "block_size": design.repeats_together,
        "subset_ratio": 0.7,
        "design": design.fingerprint,
    }
    return experiment.replace("subsets", subsets)
