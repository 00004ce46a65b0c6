"""Learners whose truth is known exactly: memorization and influence in closed form, or no influence at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, pack_trials
from feldman.trials.plan import subset_masks, subset_size

__all__ = [
    "Planted",
    "additive_trials",
    "expected_counts",
    "memorizing_learner",
    "planted_learner",
    "quality_trials",
    "tail_learner",
]

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


def memorizing_learner(kind: str, num_examples: int = 400, seed: int = 5) -> Planted:
    """Learners with a distribution of memorization each, for counts of examples that reach a threshold.

    ``"spread"``: half of all examples hardly, the others evenly from 0 to 1, some wholly, as deep networks on CIFAR-100.
    ``"thin"``: an exponential tail of scale 0.06, all right at a rate of 0.9 with themselves: noise is as wide as the tail.
    ``"wavering"``: the same of scale 0.1 where all rates are near 0.5. ``"gap"``: nine in ten not at all, the others 0.6.
    """
    rng = np.random.default_rng(seed)
    if kind == "spread":
        group = np.arange(num_examples) % 10
        spread = np.where(group < 9, rng.random(num_examples), 1 - 0.03 * rng.random(num_examples))
        memorization = np.where(group < 5, np.minimum(rng.exponential(0.02, num_examples), 0.2), spread)
        rate_in = np.maximum(memorization, 1 - rng.exponential(0.005, num_examples))
    elif kind == "thin":
        memorization = np.minimum(rng.exponential(0.06, num_examples), 0.9)
        rate_in = np.full(num_examples, 0.9)
    elif kind == "wavering":
        memorization = np.minimum(rng.exponential(0.1, num_examples), 0.7)
        rate_in = 0.5 + 0.7 * memorization
    else:
        memorization = np.where(np.arange(num_examples) % 10 == 0, 0.6, 0.0)
        rate_in = np.where(memorization > 0, 0.8, 0.7)
    return Planted(rate_in=rate_in, rate_out=np.maximum(rate_in - memorization, 0.0))


def expected_counts(learner: Planted, num_trials: int, thresholds: tuple[float, ...]) -> NDArray[np.float64]:
    """How often each example reaches each threshold in runs of so many trials: [train, threshold], of 300 drawn runs."""
    rng, num_runs = np.random.default_rng(0), 300
    num_in = rng.binomial(num_trials, RATIO, (num_runs, len(learner.rate_in)))
    correct_in, correct_out = rng.binomial(num_in, learner.rate_in), rng.binomial(num_trials - num_in, learner.rate_out)
    memorization = correct_in / num_in - correct_out / (num_trials - num_in)
    return np.stack([(memorization >= at).mean(axis=0) for at in thresholds], axis=1)


def additive_trials(num_trials: int, num_examples: int, seed: int) -> tuple[TrialBits, NDArray[np.float64]]:
    """Trials of which some are better than others at everything, where each training example adds something to test accuracy.

    Every test example is right at one rate, to which the training examples of a subset add: those with high memorization more.

    Returns
    -------
    bits, effect
        And float64 [train]: what an example adds to the expected share of right test examples.
    """
    fixed = np.random.default_rng(3)
    memorization = np.where(
        fixed.random(num_examples) < 0.6, fixed.exponential(0.05, num_examples), fixed.random(num_examples)
    )
    rate_in = np.full(num_examples, 0.95)
    rate_out = np.clip(rate_in - memorization, 0.03, 0.95)
    effect = (0.1 * memorization + 0.02 * fixed.normal(size=num_examples)) / num_examples
    masks = subset_masks(seed, range(num_trials), num_examples, RATIO)
    rng = np.random.default_rng([seed, 2])
    quality = rng.uniform(-1, 1, size=(num_trials, 1))
    rate = np.clip(np.where(masks, rate_in, rate_out) + 0.3 * quality, 0, 1)
    right = np.broadcast_to(0.6 + masks @ effect[:, None] + 0.12 * quality, (num_trials, num_examples))
    return pack_trials(masks, rng.random(masks.shape) < rate, rng.random(right.shape) < right), effect
