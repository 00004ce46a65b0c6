"""From an experiment's ``[learner]`` to a `Learner` on one data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from feldman.data.dataset import Dataset
from feldman.errors import LearnerError
from feldman.experiment import Experiment
from feldman.importing import import_callable
from feldman.learner_sections import CustomLearner, ImageLearner, SklearnLearner
from feldman.learners.images import check_image_learner
from feldman.learners.protocol import Correctness, Learner
from feldman.learners.training_path import assumed_path, on_path

__all__ = ["check_learner", "load_learner"]


def load_learner(experiment: Experiment, dataset: Dataset) -> Learner:
    """Make the learner of an experiment; done once a worker. What it leaves open is taken as `assumed_path` says.

    Raises
    ------
    LearnerError
        If it cannot be imported or does not fit the data set.
    """
    decided = on_path(experiment, assumed_path(experiment))
    learner = decided.learner
    if isinstance(learner, CustomLearner):
        return _custom(learner, dataset)
    if isinstance(learner, SklearnLearner):
        from feldman.learners.sklearn_learner import sklearn_learner

        return sklearn_learner(learner, decided.execution, dataset)
    from feldman.learners.torch_learner import torch_learner

    return torch_learner(learner, decided.training, decided.execution, dataset)


def check_learner(experiment: Experiment, dataset: Dataset) -> None:
    """Find out before anything is written whether `load_learner` can work.

    Imports torch only to ask for a GPU or to build a named model.

    Raises
    ------
    LearnerError
        As `load_learner`.
    """
    if isinstance(experiment.learner, CustomLearner):
        _custom(experiment.learner, dataset)
        return
    if isinstance(experiment.learner, SklearnLearner):
        from feldman.learners.sklearn_learner import sklearn_estimator

        sklearn_estimator(experiment.learner, seed=0, num_threads=1)
        return
    if isinstance(experiment.learner, ImageLearner):
        check_image_learner(experiment.learner, experiment.training, dataset.example_shape, dataset.num_classes)
    if experiment.execution.device not in ("auto", "cpu") and experiment.execution.executor == "in-process":
        from feldman.learners.device_data import training_device

        training_device(experiment.execution)


def _custom(section: CustomLearner, dataset: Dataset) -> Learner:
    function: Callable[..., Any] = import_callable(section.name, "learner.name", LearnerError)

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        found = function(dataset, masks, seeds, dict(section.parameters))
        return _checked(found, section.name, (len(masks), dataset.num_train), (len(masks), dataset.num_test))

    return learner


def _checked(found: Any, name: str, train_shape: tuple[int, int], test_shape: tuple[int, int]) -> Correctness:
    """Hold a user's result against the protocol: a wrong shape caught here names the culprit."""
    expected = f"expected two bool arrays, {train_shape} for train and {test_shape} for test"
    if isinstance(found, Correctness):
        found = (found.train, found.test)
    if not isinstance(found, tuple) or len(found) != 2:
        raise LearnerError(f"learner '{name}' returned a {type(found).__name__}; {expected}")
    train, test = (np.asarray(part) for part in found)
    if (train.shape, test.shape) != (train_shape, test_shape) or not train.dtype == test.dtype == np.bool_:
        raise LearnerError(
            f"learner '{name}' returned {train.dtype} {train.shape} and {test.dtype} {test.shape}; {expected}"
        )
    return Correctness(train, test)
