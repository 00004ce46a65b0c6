"""Any classifier of scikit-learn as a learner: ``name = "sklearn:ensemble.RandomForestClassifier"``."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from feldman.data.dataset import Dataset
from feldman.errors import LearnerError, listed, suggestion
from feldman.experiment import ExecutionSection, OutputsSection
from feldman.learner_sections import SklearnLearner
from feldman.learners.outputs import margins
from feldman.learners.protocol import Correctness, Learner

__all__ = ["check_sklearn_learner", "sklearn_estimator", "sklearn_learner"]

_OURS = {
    "random_state": "each trial's comes from its seed: with one for all, trials would be alike",
    "n_jobs": "it is execution.cpus_per_block",
}

_SEED_BITS = 0xFFFFFFFF
"""scikit-learn's seeds have 32 bits: the lower ones of a trial's."""


def sklearn_learner(
    section: SklearnLearner, execution: ExecutionSection, dataset: Dataset, outputs: OutputsSection
) -> Learner:
    """Make the `Learner` for a classifier of scikit-learn.

    A worker holds the inputs flattened and scaled, in float32. A class that a subset lacks is never predicted; a subset of
    one class is predicted as that class.

    Margins are those of log `predict_proba` where the classifier has it, else of `decision_function`. Where these contradict
    `predict`, as a support vector machine's votes may, the margin is 0.

    Raises
    ------
    LearnerError
        As `check_sklearn_learner`.
    """
    check_sklearn_learner(section, outputs)
    inputs = {"train": _scaled(dataset.x_train, dataset), "test": _scaled(dataset.x_test, dataset)}
    labels = {"train": dataset.y_train, "test": dataset.y_test}
    told: set[tuple[type[Warning], str]] = set()

    def learner(masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        shapes = {part: (len(masks), len(y)) for part, y in labels.items()}
        correct = {part: np.empty(shape, np.bool_) for part, shape in shapes.items()}
        predictions = {part: np.empty(shape, np.int64) for part, shape in shapes.items() if outputs.predictions}
        margin = {part: np.empty(shape, np.float16) for part, shape in shapes.items() if outputs.margins}
        num_unconverged = 0
        # Also the threads that have no n_jobs: linear algebra, and boosting.
        with threadpool_limits(limits=execution.cpus_per_block):
            for trial, (mask, seed) in enumerate(zip(masks, seeds, strict=True)):
                with _recorded(told) as unconverged:
                    estimator = sklearn_estimator(section, seed=int(seed), num_threads=execution.cpus_per_block)
                    model = _fitted(estimator, inputs["train"][mask], dataset.y_train[mask])
                    for part, x in inputs.items():
                        predicted = model.predict(x)
                        correct[part][trial] = predicted == labels[part]
                        if outputs.predictions:
                            predictions[part][trial] = predicted
                        if outputs.margins:
                            found = margins(_scores(model, x, dataset.num_classes), labels[part])
                            margin[part][trial] = np.where((found > 0) == correct[part][trial], found, 0)
                num_unconverged += bool(unconverged)
        return Correctness(
            correct["train"],
            correct["test"],
            num_unconverged,
            train_margin=margin.get("train"),
            test_margin=margin.get("test"),
            train_prediction=predictions.get("train"),
            test_prediction=predictions.get("test"),
        )

    return learner


def check_sklearn_learner(section: SklearnLearner, outputs: OutputsSection) -> None:
    """Find out whether a classifier can be made, and tell what is to be recorded.

    Raises
    ------
    LearnerError
        As `sklearn_estimator`; or if margins are asked for, and there is nothing to take them from.
    """
    estimator = sklearn_estimator(section, seed=0, num_threads=1)
    if not outputs.margins or hasattr(estimator, "predict_proba"):
        return
    if not hasattr(estimator, "decision_function"):
        raise LearnerError(
            f"outputs.margins = true needs a classifier with predict_proba or decision_function; '{section.name}', as its "
            "parameters are, has neither: set outputs.margins = false, or choose another"
        )
    if getattr(estimator, "decision_function_shape", "ovr") != "ovr":
        raise LearnerError(
            "outputs.margins = true needs one decision value a class; set learner.parameters.decision_function_shape = 'ovr'"
        )


class _OneClass:
    """What is learned from examples of one class: most classifiers refuse them."""

    def __init__(self, label: int) -> None:
        self.classes_ = np.array([label])

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.full(len(x), self.classes_[0])

    def predict_proba(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.ones((len(x), 1))


def _fitted(estimator: Any, x: NDArray[np.float32], y: NDArray[np.int64]) -> Any:
    if (y == y[0]).all():
        return _OneClass(int(y[0]))
    estimator.fit(x, y)
    return estimator


def _scores(model: Any, x: NDArray[np.float32], num_classes: int) -> Float64[np.ndarray, "example classes"]:
    """Return a number an example and class whose differences are margins; -inf for classes that the model has not seen."""
    if hasattr(model, "predict_proba"):
        with np.errstate(divide="ignore"):  # a class that cannot be: -inf
            found = np.log(np.asarray(model.predict_proba(x), np.float64))
    else:
        found = np.asarray(model.decision_function(x), np.float64)
        if found.ndim == 1:  # of two classes one value, for the second
            found = np.stack([np.zeros_like(found), found], axis=1)
    scores = np.full((len(x), num_classes), -np.inf)
    scores[:, model.classes_] = found
    return scores


def sklearn_estimator(section: SklearnLearner, seed: int, num_threads: int) -> Any:
    """Make an untrained estimator.

    Parameters
    ----------
    section
        Its class and parameters.
    seed
        Becomes its ``random_state``, if it has one.
    num_threads
        Becomes its ``n_jobs``, if it has one.

    Raises
    ------
    LearnerError
        If there is no such classifier, or it does not take the parameters.
    """
    kind = _estimator_class(section.name)
    names = [name for name in inspect.signature(kind).parameters if name not in _OURS]
    for key in section.parameters:
        if key in _OURS:
            raise LearnerError(f"learner.parameters.{key} is not taken ({_OURS[key]}); take it out")
        if key not in names:
            raise LearnerError(
                f"learner.parameters.{key} is no parameter of '{section.name}'{suggestion(key, names)}; "
                f"it takes {listed(names) or 'none'}"
            )
    arguments: dict[str, Any] = dict(section.parameters)
    signature = inspect.signature(kind).parameters
    if "random_state" in signature:
        arguments["random_state"] = seed & _SEED_BITS
    if "n_jobs" in signature and num_threads > 1:  # its default, None, is one; some classes warn of any other value
        arguments["n_jobs"] = num_threads
    try:
        estimator = kind(**arguments)
        if hasattr(estimator, "_validate_params"):
            estimator._validate_params()  # what fit would do first; there is no public way to ask before
    except (TypeError, ValueError) as error:
        raise LearnerError(f"learner.name = '{section.name}' does not take learner.parameters: {error}") from None
    return estimator


def _estimator_class(name: str) -> type:
    path, _, class_name = name.removeprefix("sklearn:").rpartition(".")
    example = "as in 'sklearn:ensemble.RandomForestClassifier'"
    try:
        module = importlib.import_module(f"sklearn.{path}")
    except ImportError as error:
        raise LearnerError(
            f"learner.name = '{name}': scikit-learn has no module '{path}' ({error}); give module and class, {example}"
        ) from None
    found = getattr(module, class_name, None)
    if not _is_classifier(found):
        classifiers = sorted(key for key, value in vars(module).items() if _is_classifier(value) and "Mixin" not in key)
        raise LearnerError(
            f"learner.name = '{name}': sklearn.{path} has no classifier '{class_name}'"
            f"{suggestion(class_name, classifiers)}; it has {listed(classifiers) or 'none'}"
        )
    return found


def _is_classifier(value: object) -> TypeGuard[type]:
    return isinstance(value, type) and issubclass(value, ClassifierMixin)


def _scaled(x: Shaped[np.ndarray, "example ..."], dataset: Dataset) -> Float32[np.ndarray, "example features"]:
    shift, scale = (np.asarray(constants, np.float32) for constants in (dataset.shift, dataset.scale))
    scaled: NDArray[np.float32] = (x.astype(np.float32) - shift) * scale
    return scaled.reshape(len(x), -1)


@contextmanager
def _recorded(told: set[tuple[type[Warning], str]]) -> Iterator[list[Warning]]:
    """Catch the warnings of one trial: those of convergence into the list; others are told once a worker, not once a trial."""
    unconverged: list[Warning] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield unconverged
    for warning in caught:
        message = warning.message
        if isinstance(message, ConvergenceWarning):
            unconverged.append(message)
        elif isinstance(message, Warning) and (kind := (type(message), str(message))) not in told:
            told.add(kind)
            warnings.warn(message, stacklevel=2)
