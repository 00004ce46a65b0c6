"""Decide once, by measurement where trials are trained, what an experiment leaves open; the store keeps the decision."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

from feldman.data.dataset import Dataset
from feldman.data.mapped import MappedDataset
from feldman.experiment import Experiment
from feldman.learners.training_path import TrainingPath, assumed_path, on_path, possible_paths
from feldman.trials.design import Design, made_plan
from feldman.trials.events import EventLog
from feldman.trials.executor import Executor
from feldman.trials.loop import run_blocks
from feldman.trials.store import TrialStore

__all__ = ["chosen", "decide", "decided_experiment", "prepare_calibration_task"]

_CLEARLY_FASTER = 1.15
"""Ways that are about as fast come out in either order, by chance: then the first is taken, so that equal runs choose alike."""


def prepare_calibration_task(
    experiment: Experiment,
    import_paths: tuple[str, ...],
    shared: Dataset | MappedDataset,
    *,
    design: Design | None = None,
) -> Callable[[int], list[float]]:
    """Make the task that tries, with the trials of a block, every way that an experiment leaves open.

    The parameters are those of `feldman.trials.task.prepare_block_task`.
    """
    sys.path.extend(path for path in import_paths if path not in sys.path)
    dataset = shared.open() if isinstance(shared, MappedDataset) else shared
    subsets = experiment.subsets
    plan = made_plan(subsets, dataset.y_train, design)

    def calibrate(block: int) -> list[float]:
        from feldman.learners.calibration import seconds_per_step

        trials = subsets.block_trials(block)
        return seconds_per_step(experiment, dataset, possible_paths(experiment), plan.masks(trials), plan.seeds(trials))

    return calibrate


def decided_experiment(store: TrialStore, experiment: Experiment) -> Experiment | None:
    """Return an experiment with nothing left open, or None if it has to be measured first.

    A store with trials and no decision was begun before decisions were kept, or lost its measurement: it stays with what its
    trials were trained by.
    """
    if store.training_path is not None:
        return on_path(experiment, store.training_path)
    if len(possible_paths(experiment)) < 2 or store.committed_blocks():
        return on_path(experiment, assumed_path(experiment))
    return None


def decide(
    store: TrialStore, experiment: Experiment, executor: Executor, events: EventLog, should_stop: Callable[[], bool]
) -> Experiment:
    """Measure on a worker what is left open, and have the store keep what follows.

    Parameters
    ----------
    store
        Held for writing.
    experiment
        What is trained.
    executor
        Its task is that of `prepare_calibration_task`.
    events
        Where to write what was measured.
    should_stop
        As for `run_blocks`.

    Returns
    -------
    Experiment
        With nothing left open. If nothing could be measured, as `assumed_path` says, and the store keeps nothing.
    """
    paths = possible_paths(experiment)
    measured: dict[int, list[float]] = {}
    report = run_blocks(
        [experiment.trained_blocks[0]],
        executor,
        measured.__setitem__,
        max_attempts=experiment.execution.max_attempts,
        should_stop=should_stop,
    )
    if not measured:
        events.write("calibration_failed", {"error": next(iter(report.set_aside.values()), "stopped")})
        return on_path(experiment, assumed_path(experiment))
    (seconds,) = measured.values()
    path = chosen(paths, seconds)
    store.record_training_path(path)
    figures = [
        {**one.as_json(), "milliseconds_per_step": round(1e3 * time, 6) if math.isfinite(time) else None}
        for one, time in zip(paths, seconds, strict=True)
    ]
    events.write("calibrated", {**path.as_json(), "measured": figures})
    return on_path(experiment, path)


def chosen(paths: Sequence[TrainingPath], seconds_per_step: Sequence[float]) -> TrainingPath:
    """Take the fastest way, or the first if none is clearly faster.

    Parameters
    ----------
    paths
        As `possible_paths` has them.
    seconds_per_step
        Of each; infinite where it failed.
    """
    best = min(range(len(paths)), key=lambda k: seconds_per_step[k])
    return paths[0 if seconds_per_step[0] <= _CLEARLY_FASTER * seconds_per_step[best] else best]
