"""From an experiment's ``[learner]`` to a `Learner` on one data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.errors import LearnerError
from feldman.experiment import Experiment, OutputsSection
from feldman.importing import import_callable
from feldman.learner_sections import CustomLearner, ImageLearner, SklearnLearner
from feldman.learners.checkpoints import Checkpoints
from feldman.learners.images import check_image_learner
from feldman.learners.outputs import margins_agree, predictions_agree, stored_margins
from feldman.learners.protocol import Correctness, Learner
from feldman.learners.training_path import assumed_path, on_path, possible_paths

__all__ = ["check_learner", "load_learner"]


def load_learner(experiment: Experiment, dataset: Dataset) -> Learner:
    """Make the learner of an experiment; done once a worker. What it leaves open is taken as `assumed_path` says.

    Raises
    ------
    LearnerError
        If it cannot be imported, does not fit the data set, or cannot tell the outputs that are asked for.
    """
    decided = on_path(experiment, assumed_path(experiment))
    learner = decided.learner
    if isinstance(learner, CustomLearner):
        return _custom(learner, dataset, decided.outputs)
    if isinstance(learner, SklearnLearner):
        from feldman.learners.sklearn_learner import sklearn_learner

        return sklearn_learner(learner, decided.execution, dataset, decided.outputs)
    from feldman.learners.torch_learner import torch_learner

    return torch_learner(
        learner, decided.training, decided.execution, dataset, decided.outputs, checkpoints=_checkpoints(decided)
    )


def check_learner(experiment: Experiment, dataset: Dataset) -> None:
    """Find out before anything is written whether `load_learner` can work.

    Imports torch only to ask for a GPU or to build a named model.

    Raises
    ------
    LearnerError
        As `load_learner`.
    """
    _check_checkpoints(experiment)
    if isinstance(experiment.learner, CustomLearner):
        _custom(experiment.learner, dataset, experiment.outputs)
        return
    if isinstance(experiment.learner, SklearnLearner):
        from feldman.learners.sklearn_learner import check_sklearn_learner

        check_sklearn_learner(experiment.learner, experiment.outputs)
        return
    if isinstance(experiment.learner, ImageLearner):
        check_image_learner(experiment.learner, experiment.training, dataset.example_shape, dataset.num_classes)
    if experiment.execution.device not in ("auto", "cpu") and experiment.execution.executor == "in-process":
        from feldman.learners.device_data import training_device

        training_device(experiment.execution)


def _checkpoints(decided: Experiment) -> Checkpoints | None:
    """Return where trials are kept while they train: a folder for this experiment, data set apart, and precision alone."""
    execution = decided.execution
    if execution.checkpoint_path is None:
        return None
    folder = Path(execution.checkpoint_path) / f"{decided.fingerprint[:16]}-{decided.training.precision}"
    return Checkpoints(folder=folder, every_epochs=execution.checkpoint_epochs)


def _check_checkpoints(experiment: Experiment) -> None:
    """Refuse checkpoints that nothing would write.

    Raises
    ------
    LearnerError
        If trials are not trained one after the other by torch.
    """
    if experiment.execution.checkpoint_path is None:
        return
    if any(path.vectorize for path in possible_paths(experiment)) or not possible_paths(experiment):
        told = "set learner.vectorize = false, or" if possible_paths(experiment) else "such a learner keeps none:"
        raise LearnerError(
            "execution.checkpoint_path keeps trials that are trained one after the other; "
            f"'{experiment.learner.name}' may not be: {told} take checkpoint_path out"
        )


def _custom(section: CustomLearner, dataset: Dataset, outputs: OutputsSection) -> Learner:
    function: Callable[..., Any] = import_callable(section.name, "learner.name", LearnerError)

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        found = function(dataset, masks, seeds, dict(section.parameters))
        correct = _checked(found, section.name, (len(masks), dataset.num_train), (len(masks), dataset.num_test))
        recorded: dict[str, Any] = _checked_outputs(found, correct, section.name, dataset, outputs)
        return correct._replace(**recorded)

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


def _checked_outputs(
    found: Any, correct: Correctness, name: str, dataset: Dataset, outputs: OutputsSection
) -> dict[str, NDArray[Any]]:
    """Hold what a user's learner says beside its bits against them; only what is asked for is looked at."""
    checked = {}
    for part, bits, labels in (("train", correct.train, dataset.y_train), ("test", correct.test, dataset.y_test)):
        if outputs.margins:
            checked[f"{part}_margin"] = _checked_margins(
                _returned(found, f"{part}_margin", name, bits, "f"), name, part, bits
            )
        if outputs.predictions:
            key = f"{part}_prediction"
            prediction = _returned(found, key, name, bits, "iu")
            inside = ((prediction >= 0) & (prediction < dataset.num_classes)).all()
            if not inside or not predictions_agree(prediction.astype(np.int64), bits, labels):
                raise LearnerError(
                    f"learner '{name}' returned a {key} that is not of its bits: expected labels 0 .. "
                    f"{dataset.num_classes - 1}, the example's own just where '{part}' says that it is right"
                )
            checked[key] = prediction
    return checked


def _checked_margins(given: NDArray[Any], name: str, part: str, bits: NDArray[np.bool_]) -> NDArray[np.float16]:
    margin = stored_margins(given)
    if not margins_agree(margin, bits):
        raise LearnerError(
            f"learner '{name}' returned a {part}_margin that is not of its bits: expected numbers, none positive where '{part}' "
            "says wrong and none negative where it says right"
        )
    return margin


def _returned(found: Any, key: str, name: str, bits: NDArray[np.bool_], kinds: str) -> NDArray[Any]:
    """Take an output that was asked for out of what a learner returned."""
    what = "floats" if kinds == "f" else "integers"
    values = getattr(found, key, None)
    if values is None:
        kind = "margins" if kinds == "f" else "predictions"
        raise LearnerError(
            f"outputs.{kind} is asked for, and learner '{name}' returned no {key}: return feldman.learners.protocol.Correctness"
            f"(train, test, ..., {key}=...) with {what} {bits.shape}, or set outputs.{kind} = false in a new run"
        )
    array = np.asarray(values)
    if array.shape != bits.shape or array.dtype.kind not in kinds:
        raise LearnerError(
            f"learner '{name}' returned a {key} of {array.dtype} {array.shape}; expected {what} {bits.shape}"
        )
    return array
