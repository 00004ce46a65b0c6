"""J and D of two runs against the threshold: pairs are selected once, and every threshold is a filter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits
from feldman.estimates.high_influence import MOST_PAIRS, HighInfluence, high_influence
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.studies.consistency import PairSet, influence_of_pairs

__all__ = [
    "ESTIMATES",
    "ConsistencyCurve",
    "Levels",
    "RunEstimates",
    "consistency_curves",
    "estimate_run",
    "influence_curve",
    "memorization_curve",
]

ESTIMATES = ("memorization", "influence")
"""What is compared; the keys of curves."""

Levels = tuple[Float64[np.ndarray, " _"], Float64[np.ndarray, " _"]]
"""Ascending thresholds of the first and of the second run, as many; those of one place belong together. Usually they agree."""


@dataclass(frozen=True, kw_only=True)
class ConsistencyCurve:
    r"""How far two estimates agree on what is large, for each threshold.

    Each side selects, with its own estimates :math:`v, v'`, the examples or pairs I and I' whose value reaches a threshold.

    .. math:: J = \frac{|I \cap I'|}{|I \cup I'|}, \quad D = \operatorname{mean}_{I \cup I'} |v - v'|

    V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), section 3.3. As `Consistency`, but for the rank
    correlation, which knows no threshold.

    Attributes
    ----------
    num_first, num_second, num_both
        int64 [threshold]: size of I, of I', and of what is in both.
    jaccard
        float64 [threshold]: J; NaN if both are empty.
    mean_difference
        float64 [threshold]: D, over those that both sides define; NaN if there are none.
    """

    num_first: Int64[np.ndarray, " threshold"]
    num_second: Int64[np.ndarray, " threshold"]
    num_both: Int64[np.ndarray, " threshold"]
    jaccard: Float64[np.ndarray, " threshold"]
    mean_difference: Float64[np.ndarray, " threshold"]

    @property
    def num_either(self) -> Int64[np.ndarray, " threshold"]:
        """Size of what is in I or in I'."""
        either: NDArray[np.int64] = self.num_first + self.num_second - self.num_both
        return either


@dataclass(frozen=True, kw_only=True)
class RunEstimates:
    """What a run, or a part of its trials, estimates.

    Attributes
    ----------
    bits
        Its trials.
    memorization
        float64 [train].
    pairs
        Those with high influence.
    """

    bits: TrialBits
    memorization: Float64[np.ndarray, " train"]
    pairs: HighInfluence


def estimate_run(bits: TrialBits, selection: PairSelection, most_pairs: int = MOST_PAIRS) -> RunEstimates:
    """Estimate what curves are made of; see `high_influence`.

    Raises
    ------
    QueryError
        If more than ``most_pairs`` pairs reach the thresholds.
    """
    memorization = estimate_memorization(bits).memorization
    pairs = high_influence(bits, memorization, selection, most_pairs)
    return RunEstimates(bits=bits, memorization=memorization, pairs=pairs)


def consistency_curves(
    first: RunEstimates, second: RunEstimates, memorization: Levels, influence: Levels
) -> dict[str, ConsistencyCurve]:
    """Compare two runs at thresholds of memorization and of influence; a curve for each of `ESTIMATES`."""
    return {
        "memorization": memorization_curve(first.memorization, second.memorization, memorization),
        "influence": influence_curve((first.pairs, second.pairs), (first.bits, second.bits), influence),
    }


def memorization_curve(
    first: Float64[np.ndarray, " train"], second: Float64[np.ndarray, " train"], thresholds: Levels
) -> ConsistencyCurve:
    """Compare two estimates of memorization: J_mem and D_mem. Undefined values reach no threshold and are not compared."""
    reached = [
        np.where(np.isnan(values), 0, np.searchsorted(levels, values, side="right"))
        for values, levels in zip((first, second), thresholds, strict=True)
    ]
    return _curve((reached[0], reached[1]), np.abs(first - second), len(thresholds[0]))


def influence_curve(
    selected: tuple[HighInfluence, HighInfluence],
    bits: tuple[TrialBits, TrialBits],
    thresholds: Levels,
    shuffled: Int64[np.ndarray, " train"] | None = None,
) -> ConsistencyCurve:
    """Compare two estimates of influence on the pairs that either selects: J_infl and D_infl.

    Parameters
    ----------
    selected
        What each side selects by its own influence, at its lowest threshold or below, and by its own memorization.
    bits
        The trials of each side: an influence that one side alone selected is estimated from those of the other.
    thresholds
        Of influence.
    shuffled
        Which training example of the first side each of the second is compared with. By default itself; another order gives what
        chance would.
    """
    num_train, num_test = (len(words) for words in (bits[0].subset_mask, bits[0].test_correct))
    order = np.arange(num_train) if shuffled is None else shuffled
    back = np.argsort(order)
    keys = selected[0].key, order[selected[1].key // num_test] * num_test + selected[1].key % num_test
    either = np.union1d(*keys)
    train, test = either // num_test, either % num_test
    values, reached = [], []
    for side, own in enumerate((train, back[train])):
        place = np.searchsorted(either, keys[side])
        level, value = np.zeros(len(either), np.int64), np.empty(len(either))
        level[place] = np.searchsorted(thresholds[side], selected[side].influence, side="right")
        value[place] = selected[side].influence
        others = np.ones(len(either), bool)
        others[place] = False
        value[others] = influence_of_pairs(bits[side], PairSet(train=own[others], test=test[others]))
        values.append(value)
        reached.append(level)
    return _curve((reached[0], reached[1]), np.abs(values[0] - values[1]), len(thresholds[0]))


def _curve(
    reached: tuple[NDArray[np.int64], NDArray[np.int64]], gap: NDArray[np.float64], num_thresholds: int
) -> ConsistencyCurve:
    """Count, for each threshold, what reached it: ``reached`` says how many of its side's thresholds each thing does."""
    in_either, in_both = np.maximum(*reached), np.minimum(*reached)
    either, both = (_from_above(level, num_thresholds) for level in (in_either, in_both))
    defined = ~np.isnan(gap)
    compared = _from_above(in_either[defined], num_thresholds)
    total = _from_above(in_either[defined], num_thresholds, gap[defined])
    first, second = (_from_above(level, num_thresholds) for level in reached)
    with np.errstate(invalid="ignore"):
        return ConsistencyCurve(
            num_first=first.astype(np.int64),
            num_second=second.astype(np.int64),
            num_both=both.astype(np.int64),
            jaccard=both / either,
            mean_difference=total / compared,
        )


def _from_above(
    level: NDArray[np.int64], num_thresholds: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Add up, for each threshold, the things that reach it or a higher one."""
    sums = np.bincount(level, weights, minlength=num_thresholds + 1).astype(np.float64)
    total: NDArray[np.float64] = np.cumsum(sums[:0:-1])[::-1]
    return total
