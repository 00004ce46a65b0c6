"""Learners whose truth is known exactly: memorization and influence in closed form, or no influence at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, pack_trials
from feldman.trials.plan import subset_masks, subset_size

__all__ = ["Planted", "planted_learner", "quality_trials", "tail_learner"]

RATIO = 0.7


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A lookup learner: an example is right with one rate if its key was learned, with another one if not.

    The key of training example i is i itself, that of test example j is training example j.

    Attributes
    ----------
    rate_in, rate_out
        float64 [example]: of a training example and of the test example with its number.
    """

    rate_in: NDArray[np.float64]
    rate_out: NDArray[np.float64]

    @property
    def memorization(self) -> NDArray[np.float64]:
        return self.rate_in - self.rate_out

    @property
    def influence(self) -> NDArray[np.float64]:
        """[train, test]: a subset has a fixed size, so whoever is in it takes a little from everybody else's chance to be."""
        num = len(self.rate_in)
        others = -self.memorization / (num - 1)
        return np.where(np.eye(num, dtype=bool), self.memorization, others)

    def trials(self, num_trials: int, seed: int) -> TrialBits:
        """Train: subsets as a run plans them, bits drawn."""
        masks = subset_masks(seed, range(num_trials), len(self.rate_in), RATIO)
        rng = np.random.default_rng([seed, num_trials])
        rate = np.where(masks, self.rate_in, self.rate_out)
        return pack_trials(masks, rng.random(masks.shape) < rate, rng.random(masks.shape) < rate)


def planted_learner(num_examples: int = 60) -> Planted:
    """Rates from certainly wrong to certainly right, with and without the example; memorization between 0 and 1."""
    rng = np.random.default_rng(0)
    rate_in = np.concatenate([np.linspace(0.5, 1.0, num_examples - 4), [0.5, 0.99, 0.999, 1.0]])
    return Planted(rate_in=rate_in, rate_out=rate_in * rng.permutation(np.linspace(0.0, 1.0, num_examples)))


def tail_learner(num_examples: int = 120, num_memorized: int = 4) -> Planted:
    """All but a few examples are nearly always right; these few, which come first, without themselves one time in five."""
    memorized = np.arange(num_examples) < num_memorized
    return Planted(rate_in=np.where(memorized, 0.95, 0.98), rate_out=np.where(memorized, 0.2, 0.97))


def quality_trials(
    num_trials: int, num_examples: int, num_dependent: int, seed: int
) -> tuple[TrialBits, NDArray[np.bool_]]:
    """Trials of which some are better than others at everything, so that examples are right together.

    The first test examples depend on the training example of their number, the others on none.

    Returns
    -------
    bits, dependent
        And bool [train, test].
    """
    masks = subset_masks(seed, range(num_trials), num_examples, RATIO)
    rng = np.random.default_rng([seed, 1])
    quality = rng.normal(size=(num_trials, 1))
    ease = rng.normal(0, 2, num_examples)
    train = masks | (rng.random(masks.shape) < 1 / (1 + np.exp(-ease - quality)))
    dependent = np.diag(np.arange(num_examples) < num_dependent)
    gain = np.where(dependent.diagonal(), 2.5, 0.0)
    test = rng.random(masks.shape) < 1 / (1 + np.exp(-rng.normal(0, 2, num_examples) - quality - gain * masks))
    assert subset_size(RATIO, num_examples) == masks[0].sum()
    return pack_trials(masks, train, test), dependent
