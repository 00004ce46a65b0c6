"""How a learner trains, where the experiment leaves it open: vectorised or looped, and in which precision. No torch here.

What is left open (``"auto"``) is measured once, on the device that trains, and kept by the store: other products round otherwise,
and a run must not change its learner half-way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from feldman.errors import CorruptStoreError
from feldman.experiment import Experiment, Precision
from feldman.learner_sections import CustomLearner, LinearLearner, MlpLearner, SklearnLearner

__all__ = ["TrainingPath", "assumed_path", "on_path", "possible_paths"]


@dataclass(frozen=True, kw_only=True)
class TrainingPath:
    """One way to train.

    Attributes
    ----------
    vectorize
        Whether all trials of a block are trained as one.
    precision
        Of the matrix products.
    """

    vectorize: bool
    precision: Precision

    def in_words(self) -> str:
        """Say it as in ``"vectorised, bfloat16"``."""
        return f"{'vectorised' if self.vectorize else 'looped'}, {self.precision}"

    def as_json(self) -> dict[str, Any]:
        """Return the record as a store keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any) -> TrainingPath:
        """Read what a store keeps.

        Raises
        ------
        CorruptStoreError
            If it is no training path.
        """
        match found:
            case {"vectorize": bool(vectorize), "precision": "float32" | "bfloat16" as precision}:
                return cls(vectorize=vectorize, precision=precision)
        raise CorruptStoreError(
            f"the store's attribute 'training_path' should have vectorize (true or false) and precision ('float32' or "
            f"'bfloat16'); found {found!r}"
        )


def possible_paths(experiment: Experiment) -> list[TrainingPath]:
    """Return the ways that an experiment leaves open; the first is taken where nothing has been measured.

    Empty for learners that are not ours: scikit-learn's and a user's own decide for themselves.
    """
    learner, precision = experiment.learner, experiment.training.precision
    if isinstance(learner, CustomLearner | SklearnLearner):
        return []
    vectorize = getattr(learner, "vectorize", False)
    orders: Mapping[Any, tuple[bool, ...]] = {True: (True,), False: (False,), "auto": (False, True)}
    choices = orders[vectorize]
    if vectorize == "auto" and isinstance(learner, LinearLearner | MlpLearner):
        choices = (True, False)  # hardly ever slower; convolutions of many networks in one are, on a CPU
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if precision == "auto" else (precision,)
    return [TrainingPath(vectorize=one, precision=other) for other in precisions for one in choices]


def assumed_path(experiment: Experiment) -> TrainingPath | None:
    """Return the way that is taken unmeasured: by stores that were begun before it was measured, and by bare learners."""
    return next(iter(possible_paths(experiment)), None)


def on_path(experiment: Experiment, path: TrainingPath | None) -> Experiment:
    """Return the experiment with nothing left open."""
    if path is None:
        return experiment
    learner = experiment.learner
    if "vectorize" in type(learner).model_fields:
        learner = learner.model_copy(update={"vectorize": path.vectorize})
    training = experiment.training.model_copy(update={"precision": path.precision})
    return experiment.model_copy(update={"learner": learner, "training": training})
