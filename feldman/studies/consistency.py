"""How far two estimates of one thing agree: the paper's Jaccard similarities and average differences, and rank correlation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits
from feldman.estimates.packing import count_bits, count_listed
from feldman.estimates.tiles import rate_difference
from feldman.exchange.agreement import spearman

__all__ = ["Consistency", "PairSet", "influence_consistency", "influence_of_pairs", "memorization_consistency"]


@dataclass(frozen=True, kw_only=True)
class Consistency:
    r"""How far two estimates agree on what is large.

    Each side selects, with its own estimates :math:`v, v'`, the examples or pairs I and I' whose value reaches a threshold.

    .. math:: J = \frac{|I \cap I'|}{|I \cup I'|}, \quad D = \operatorname{mean}_{I \cup I'} |v - v'|

    V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), section 3.3.

    Attributes
    ----------
    num_first, num_second, num_both
        Size of I, of I', and of what is in both.
    jaccard
        J; NaN if both are empty.
    mean_difference
        D, over those that both sides define; NaN if there are none.
    spearman
        Rank correlation of what was chosen without looking at its values: memorization of all examples, influence of the
        sampled pairs. (Over selected pairs it would be negative: one that chance lifted on one side is low on the other.)
    """

    num_first: int
    num_second: int
    num_both: int
    jaccard: float
    mean_difference: float
    spearman: float

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Some train/test pairs.

    Attributes
    ----------
    train, test
        int64 [pair].
    """

    train: Int64[np.ndarray, " pair"]
    test: Int64[np.ndarray, " pair"]

    def keys(self, num_test: int) -> Int64[np.ndarray, " pair"]:
        """Return a number a pair, of so many test examples."""
        keys: NDArray[np.int64] = self.train * num_test + self.test
        return keys


def memorization_consistency(
    first: Float64[np.ndarray, " train"], second: Float64[np.ndarray, " train"], threshold: float
) -> Consistency:
    """Compare two estimates of memorization: J_mem and D_mem. Undefined values reach no threshold and are not compared."""
    selected = first >= threshold, second >= threshold
    either, defined = selected[0] | selected[1], ~(np.isnan(first) | np.isnan(second))
    num_both = int((selected[0] & selected[1]).sum())
    return Consistency(
        num_first=int(selected[0].sum()),
        num_second=int(selected[1].sum()),
        num_both=num_both,
        jaccard=_share(num_both, int(either.sum())),
        mean_difference=_mean(np.abs(first - second)[either & defined]),
        spearman=_rank_correlation(first[defined], second[defined]),
    )


def influence_consistency(
    selected: tuple[PairSet, PairSet],
    bits: tuple[TrialBits, TrialBits],
    sampled: PairSet,
    shuffled: Int64[np.ndarray, " train"] | None = None,
) -> Consistency:
    """Compare two estimates of influence on the pairs that either selects: J_infl and D_infl.

    Parameters
    ----------
    selected
        What each side selects by its own influence and memorization.
    bits
        The trials of each side.
    sampled
        Pairs for the rank correlation, chosen by chance.
    shuffled
        Which training example of the first side each of the second is compared with. By default itself; another order gives what
        chance would.
    """
    num_train, num_test = (len(words) for words in (bits[0].subset_mask, bits[0].test_correct))
    order = np.arange(num_train) if shuffled is None else shuffled
    renamed = PairSet(train=order[selected[1].train], test=selected[1].test)
    keys = selected[0].keys(num_test), renamed.keys(num_test)
    either = np.union1d(*keys)
    back = np.argsort(order)

    def both_sides(pairs: PairSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        renamed = PairSet(train=back[pairs.train], test=pairs.test)
        first, second = influence_of_pairs(bits[0], pairs), influence_of_pairs(bits[1], renamed)
        defined = ~(np.isnan(first) | np.isnan(second))
        return first[defined], second[defined]

    first, second = both_sides(PairSet(train=either // num_test, test=either % num_test))
    num_both = len(keys[0]) + len(keys[1]) - len(either)
    return Consistency(
        num_first=len(keys[0]),
        num_second=len(keys[1]),
        num_both=num_both,
        jaccard=_share(num_both, len(either)),
        mean_difference=_mean(np.abs(first - second)),
        spearman=_rank_correlation(*both_sides(sampled)),
    )


def influence_of_pairs(bits: TrialBits, pairs: PairSet) -> Float64[np.ndarray, " pair"]:
    """Estimate the influence of some pairs; NaN where the training example was in all trials or in none."""
    num_in, totals = (count_bits(words, words) for words in (bits.subset_mask, bits.test_correct))
    joint = count_listed(bits.subset_mask, bits.test_correct, pairs.train, pairs.test)
    return rate_difference(
        joint, num_in[pairs.train].astype(np.float64), totals[pairs.test].astype(np.float64), bits.num_trials
    )


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Spearman's; differences of rates that are equal but for rounding, as 2/3 - 1/3 and 1 - 2/3, are ties."""
    return spearman(np.round(first, 12), np.round(second, 12))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
