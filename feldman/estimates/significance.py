"""How likely chance alone is: a p-value a pair, and q-values over all pairs that were looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer
from scipy.special import gammaln

from feldman.estimates.hypergeometric import two_sided_tails
from feldman.estimates.selection import PairSelection

__all__ = ["QValues", "num_pairs_tested", "pair_p_values"]


def pair_p_values(
    joint: Int64[np.ndarray, " pair"],
    num_in: Int64[np.ndarray, " pair"],
    totals: Int64[np.ndarray, " pair"],
    *,
    num_trials: int,
) -> Float64[np.ndarray, " pair"]:
    r"""Test of each pair whether its influence is 0: Fisher's exact test, two-sided (twice the smaller tail, at most 1).

    If a target does not depend on a training example, which of the trials had the example says nothing about which got the target
    right: given both numbers, the count of trials that did both is hypergeometric, whatever the rates are. So the p-value is
    valid at any size, :math:`\Pr[p \le u] \le u`. The pooled z test is not: among :math:`10^8` pairs those count whose p-value
    is near :math:`10^{-8}`, and so small a one it gives up to 3.4 times too often where rates are near 0 or 1
    (``analysis/coverage``).

    R. A. Fisher, "The logic of inductive inference", Journal of the Royal Statistical Society 98 (1935).

    Parameters
    ----------
    joint
        Trials that had the training example and got the target right.
    num_in, totals
        Trials that had the one; trials that got the other right.
    num_trials
        All trials.

    Returns
    -------
    ndarray of float64 [pair]
        NaN where the example was in all trials or in none.
    """
    p_values: Float64[np.ndarray, " pair"] = two_sided_tails(
        joint, num_in, totals, num_trials, gammaln(np.arange(num_trials + 1) + 1.0)
    )
    return p_values


@dataclass(frozen=True, kw_only=True)
class QValues:
    r"""Benjamini and Hochberg's q-values of pairs that were kept of the many that were looked at.

    Of m pairs looked at, those that were not kept count as p = 1. As a p-value that is sometimes replaced by 1 is still valid,
    this is the Benjamini-Hochberg procedure on m valid p-values: of the kept pairs with :math:`q \le \alpha` an expected share
    of at most :math:`\alpha` has no influence. With :math:`p_{(k)}` the k-th smallest of the kept ones,

    .. math:: q_{(k)} = \min_{l \ge k} m p_{(l)} / l.

    It is never below the q-value that all m p-values together would give, and equal to it where every pair with a smaller p-value
    was kept. That the share holds rests, as always, on tests that are independent or positively dependent.

    Y. Benjamini, Y. Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical Society B 57 (1995).

    Attributes
    ----------
    p_value, q_value
        float64 [kept]: ascending, and the q-value of each.
    """

    p_value: Float64[np.ndarray, " kept"]
    q_value: Float64[np.ndarray, " kept"]

    @classmethod
    def of(cls, p_value: Float64[np.ndarray, " kept"], num_tested: int) -> QValues:
        """Rank the p-values of all pairs that were kept of ``num_tested``; undefined ones are left out."""
        ranked = np.sort(p_value[~np.isnan(p_value)])
        steps = num_tested * ranked / np.arange(1, len(ranked) + 1)
        return cls(p_value=ranked, q_value=np.minimum.accumulate(np.minimum(steps, 1)[::-1])[::-1])

    def __call__(self, p_value: Float64[np.ndarray, " pair"]) -> Float64[np.ndarray, " pair"]:
        """Return the q-values of some of the pairs; NaN where the p-value is."""
        found = np.full(len(p_value), np.nan)
        defined = ~np.isnan(p_value)
        # The last of equal p-values: its step is the lowest of theirs.
        found[defined] = self.q_value[np.searchsorted(self.p_value, p_value[defined], side="right") - 1]
        return found


def num_pairs_tested(
    selection: PairSelection,
    candidate_label: Integer[np.ndarray, " candidate"],
    target_label: Integer[np.ndarray, " target"],
) -> int:
    """Return how many pairs an estimate looks at: of training examples that are memorized enough, with all targets.

    Parameters
    ----------
    selection
        With ``same_class`` only pairs of one class are looked at; with training examples as targets none with itself.
    candidate_label, target_label
        Labels of the training examples that pass the threshold of memorization, and of all targets.
    """
    if selection.same_class:
        num_labels = 1 + max(int(labels.max(initial=-1)) for labels in (candidate_label, target_label))
        counts = [np.bincount(labels, minlength=num_labels) for labels in (candidate_label, target_label)]
        num_pairs = int(counts[0] @ counts[1])
    else:
        num_pairs = len(candidate_label) * len(target_label)
    return num_pairs - (len(candidate_label) if selection.targets == "train" else 0)
