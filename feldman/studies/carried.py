"""The test accuracy that memorized examples carry: trials that happened to learn from more of them beside those with fewer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy.typing import NDArray
from scipy.special import stdtrit

from feldman.estimates.bits import TrialBits
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import count_trials
from feldman.studies.halves import FEWEST_TRIALS
from feldman.studies.recounts import memorization_in_parts, unpacked_panels
from feldman.studies.scores import influence_totals

__all__ = ["CarriedAccuracy", "carried_accuracy", "fold_slope"]

_NUM_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class CarriedAccuracy:
    """What the examples that reach a threshold of memorization do for test accuracy, if effects add up. Shares of the test set.

    Attributes
    ----------
    min_memorization, num_memorized
        The threshold, and how many examples reach it by all trials.
    carried, stderr, ci_low, ci_high
        Test accuracy that they carry beyond what as many unmemorized examples do; 95% interval. NaN where all examples are
        memorized, or none.
    below_random, below_random_stderr
        What is lost without them beyond what is lost without as many random examples: how far the curve of their removal lies
        below that of random removal.
    influence_sum
        Sum of their influences on all test examples, divided by the number of these, as tables have it. It estimates
        ``below_random``, too, but too high: the noise that lifted examples over the threshold lifted their influences.
    """

    min_memorization: float
    num_memorized: int
    carried: float
    stderr: float
    ci_low: float
    ci_high: float
    below_random: float
    below_random_stderr: float
    influence_sum: float


def carried_accuracy(
    bits: TrialBits, thresholds: Sequence[float], on_examples: Callable[[int], None] = lambda count: None
) -> list[CarriedAccuracy]:
    r"""Regress the test accuracy of trials on how many memorized examples they learned from.

    Let every training example add its own :math:`\theta_i` to the accuracy of a trial that has it, and let :math:`x_k` of the N
    memorized examples M be in trial k's subset. As subsets have a fixed size, a memorized example more is an unmemorized one (U)
    less, and the expected accuracy is :math:`c + x_k (\bar\theta_M - \bar\theta_U)`. The slope times N is what they carry; its
    standard error is that of least squares, for trials are independent. By the same model the influence of an example on all
    test examples is :math:`\frac{n}{n - 1} (\theta_i - \bar\theta)`, and the sum over M

    .. math:: \sum_{i \in M} infl_i = N \frac{n - N}{n - 1} (\bar\theta_M - \bar\theta_U),

    which is, but for the factor :math:`n / (n - 1)`, the accuracy lost without M less that lost without N random examples. It is
    the subset ratio of the run at which this holds; whether it holds for all N at once, only training without them tells.

    Trials that are better at everything are so at what they learned from, too; an example that good trials happened to have looks
    memorized and influential, and a regression on the trials that chose M comes out too high: on planted truths by up to a
    standard error. Therefore trials are cut into 5 folds: the other four choose M, and slopes are within folds, pooled.

    Parameters
    ----------
    bits
        Of all trials.
    thresholds
        Of memorization, inclusive.
    on_examples
        Told how many more training examples have been looked at.

    Returns
    -------
    list of CarriedAccuracy
        One a threshold; none of fewer than 20 trials.
    """
    if bits.num_trials < 2 * FEWEST_TRIALS:
        return []
    fold = np.arange(bits.num_trials) % _NUM_FOLDS
    others = (fold[:, None] != np.arange(_NUM_FOLDS)).astype(np.float32)
    num_learned = np.zeros((len(thresholds), bits.num_trials))
    for _, mask, correct in unpacked_panels(bits):
        memorization = memorization_in_parts(mask, correct, others)
        num_learned += _num_learned(mask, memorization[None] >= np.reshape(thresholds, (-1, 1, 1)), fold)
        on_examples(len(mask))
    num_train, num_test = len(bits.subset_mask), len(bits.test_correct)
    accuracy = count_trials(bits.test_correct, bits.num_trials) / num_test
    found, totals = estimate_memorization(bits).memorization, influence_totals(bits) / num_test
    rows = []
    for place, threshold in enumerate(thresholds):
        memorized = found >= threshold
        num = int(memorized.sum())
        slope, stderr, freedom = fold_slope(num_learned[place], accuracy, fold)
        carried, error = num * slope, num * stderr
        reach = float(stdtrit(freedom, 0.975)) * error
        share = (num_train - num) / max(num_train - 1, 1)
        rows.append(
            CarriedAccuracy(
                min_memorization=threshold,
                num_memorized=num,
                carried=carried,
                stderr=error,
                ci_low=carried - reach,
                ci_high=carried + reach,
                below_random=share * carried,
                below_random_stderr=share * error,
                influence_sum=float(totals[memorized].sum()),
            )
        )
    return rows


def fold_slope(
    x: Float64[np.ndarray, " trial"], y: Float64[np.ndarray, " trial"], fold: Int64[np.ndarray, " trial"]
) -> tuple[float, float, int]:
    """Fit one slope and an intercept a fold by least squares.

    Returns
    -------
    slope, stderr, degrees of freedom
        The first two NaN where x does not vary within folds.
    """
    sizes = np.bincount(fold)
    x, y = (values - (np.bincount(fold, values) / sizes)[fold] for values in (x, y))
    spread, freedom = float(x @ x), len(x) - len(sizes) - 1
    if spread < 1e-9:  # of whole numbers: else it is 0.5 at least
        return float("nan"), float("nan"), freedom
    slope = float(x @ y) / spread
    residual = y - slope * x
    return slope, float(np.sqrt(residual @ residual / freedom / spread)), freedom


def _num_learned(
    mask: Float32[np.ndarray, "train trial"],
    memorized: Bool[np.ndarray, "threshold train fold"],
    fold: Int64[np.ndarray, " trial"],
) -> Float32[np.ndarray, "threshold trial"]:
    """Count, for each trial, the examples in its subset that the other folds find memorized."""
    num_thresholds, num_train, num_folds = memorized.shape
    chosen = (
        memorized.transpose(0, 2, 1).reshape(-1, num_train).astype(np.float32)
    )  # one product reads the subsets once
    counts = (chosen @ mask).reshape(num_thresholds, num_folds, -1)
    picked: NDArray[np.float32] = counts[:, fold, np.arange(len(fold))]
    return picked
