"""What a learner is: the one thing that training has to give to the rest of the house."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float16, Int64, Integer

__all__ = ["Correctness", "Learner"]


class Correctness(NamedTuple):
    """Which examples each trial of a block gets right.

    Attributes
    ----------
    train
        bool [trial, train]: all training examples, those of the subset and those left out of it.
    test
        bool [trial, test].
    num_unconverged
        In how many trials an iterative learner stopped before it had converged, if it can tell.
    train_margin, test_margin
        float16 [trial, train] and [trial, test], if the experiment records margins; see `feldman.learners.outputs.margins`.
    train_prediction, test_prediction
        Labels, integers of the same shapes, if the experiment records predictions.
    """

    train: Bool[np.ndarray, "trial train"]
    test: Bool[np.ndarray, "trial test"]
    num_unconverged: int = 0
    train_margin: Float16[np.ndarray, "trial train"] | None = None
    test_margin: Float16[np.ndarray, "trial test"] | None = None
    train_prediction: Integer[np.ndarray, "trial train"] | None = None
    test_prediction: Integer[np.ndarray, "trial test"] | None = None


@runtime_checkable
class Learner(Protocol):
    """Trains a block of trials on one data set.

    A trial's bits must depend on its own mask and seed only: not on the other trials of the block, on earlier blocks, or on
    a global generator. Then a resumed run equals an uninterrupted one.
    """

    def __call__(self, masks: Bool[np.ndarray, "trial train"], seeds: Int64[np.ndarray, " trial"]) -> Correctness:
        """Train one model a trial on the examples of its mask; say which examples each gets right.

        Parameters
        ----------
        masks
            bool [trial, train]: True where the trial learns from the example. Every row has the same sum.
        seeds
            int64 [trial]: the only source of randomness of each trial.
        """
        ...
