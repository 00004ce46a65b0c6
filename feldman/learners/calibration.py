"""Measure the ways in which an experiment could be trained, on the device that trains it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from feldman.data.dataset import Dataset
from feldman.experiment import Experiment
from feldman.learners.device_data import DeviceData
from feldman.learners.torch_learner import data_on_device, forward_of, trainings
from feldman.learners.training_path import TrainingPath, on_path

__all__ = ["seconds_per_step"]

_ROUNDS = 8
_WINDOW_SECONDS = 0.02
_BUDGET_SECONDS = 2.0
"""For each way, warm-up not counted. A single step may take longer."""


def seconds_per_step(
    experiment: Experiment,
    dataset: Dataset,
    paths: Sequence[TrainingPath],
    masks: Bool[np.ndarray, "trial train"],
    seeds: Int64[np.ndarray, " trial"],
) -> list[float]:
    """Train a few steps in every way, by turns; return the least time of a step of one trial.

    By turns and the least of several windows: what else the machine does for a moment must not decide.

    Parameters
    ----------
    experiment, dataset
        What is trained.
    paths
        The ways to try.
    masks, seeds
        Trials of a real block: a stack is as large as it will be.

    Returns
    -------
    list of float
        Seconds a step and trial, infinite where it failed, as when a stack does not fit into a GPU's memory.
    """
    data = data_on_device(experiment.execution, dataset)
    windows = [_windows(on_path(experiment, path), data, masks, seeds) for path in paths]
    best, spent = [math.inf] * len(paths), [0.0] * len(paths)
    for _ in range(_ROUNDS):
        for k, window in enumerate(windows):
            if spent[k] < _BUDGET_SECONDS:
                seconds, num_steps = next(window, (0.0, 0))
                spent[k] += seconds
                best[k] = min(best[k], seconds / num_steps) if num_steps else best[k]
    return best


def _windows(
    experiment: Experiment,
    data: DeviceData,
    masks: Bool[np.ndarray, "trial train"],
    seeds: Int64[np.ndarray, " trial"],
) -> Iterator[tuple[float, int]]:
    """Train; yield how long a few steps took, and how many steps of one trial they were."""
    learner: Any = experiment.learner
    try:
        forward = forward_of(learner, experiment.execution, data)
        under_way = trainings(learner, experiment.training, data, masks, seeds, forward=forward)
        trained_a_step = (len(trained) for steps, trained in under_way for _ in steps)
        more = next(trained_a_step)  # builds the models, and what is done once
        while more:
            started, seconds, num_steps = _clock(data.device), 0.0, 0
            while seconds < _WINDOW_SECONDS and (more := next(trained_a_step, 0)):
                num_steps += more
                seconds = _clock(data.device) - started
            if num_steps:
                yield seconds, num_steps
    except (RuntimeError, MemoryError):  # torch's own out-of-memory error is a RuntimeError
        return


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
