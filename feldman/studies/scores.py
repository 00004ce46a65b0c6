"""More scores of training examples from the same bits: C-scores, rates, what an example does for the whole test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import add_weights, count_trials
from feldman.estimates.selection import PairSelection
from feldman.estimates.significance import QValues, num_pairs_tested

__all__ = ["RunScores", "influence_totals", "score_run", "score_table"]

SIGNIFICANT = 0.05
"""q-value up to which a test example counts as decided beyond chance."""


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """Scores of all training examples from one run; NaN where an example was in all trials or in none.

    Attributes
    ----------
    subset_ratio
        Of the run.
    num_out, correct_out
        int64 [train]: trials without the example, and those of them that are right.
    rate_in, rate_out
        float64 [train]: share of trials that are right, of those with and of those without the example.
    memorization
        float64 [train]: their difference.
    influence_total
        float64 [train]: the sum of the example's influences on all test examples: how many more of them a model gets right.
    num_decided, num_significant
        int64 [train]: test examples on which it has high influence, and those of them whose q-value is at most 0.05.
    """

    subset_ratio: float
    num_out: Int64[np.ndarray, " train"]
    correct_out: Int64[np.ndarray, " train"]
    rate_in: Float64[np.ndarray, " train"]
    rate_out: Float64[np.ndarray, " train"]
    memorization: Float64[np.ndarray, " train"]
    influence_total: Float64[np.ndarray, " train"]
    num_decided: Int64[np.ndarray, " train"]
    num_significant: Int64[np.ndarray, " train"]


def score_run(
    bits: TrialBits, labels: tuple[NDArray[Any], NDArray[Any]], selection: PairSelection, subset_ratio: float
) -> RunScores:
    """Score the training examples of a run.

    Parameters
    ----------
    bits, labels
        Of the run.
    selection
        What high influence is.
    subset_ratio
        Of the run.
    """
    found = estimate_memorization(bits)
    pairs = select_pairs(bits, found.memorization, selection, labels)
    tested = num_pairs_tested(selection, labels[0][found.memorization >= selection.min_memorization], labels[1])
    significant = QValues.of(pairs.p_value, tested)(pairs.p_value) <= SIGNIFICANT
    num_train = len(labels[0])
    with np.errstate(invalid="ignore"):
        rate_in, rate_out = found.correct_in / found.num_in, found.correct_out / found.num_out
    return RunScores(
        subset_ratio=subset_ratio,
        num_out=found.num_out,
        correct_out=found.correct_out,
        rate_in=rate_in,
        rate_out=rate_out,
        memorization=found.memorization,
        influence_total=influence_totals(bits),
        num_decided=np.bincount(pairs.train_index, minlength=num_train),
        num_significant=np.bincount(pairs.train_index[significant], minlength=num_train),
    )


def influence_totals(bits: TrialBits) -> Float64[np.ndarray, " train"]:
    r"""Return the sum of each training example's influences on all test examples; NaN where undefined.

    With :math:`r_k` test examples that trial k gets right it is :math:`\sum_j infl_{ij} = \bar r_{in} - \bar r_{out}`: no pair is
    counted.
    """
    right = count_trials(bits.test_correct, bits.num_trials)
    num_in = add_weights(bits.subset_mask, np.ones(bits.num_trials, np.int64))
    right_in = add_weights(bits.subset_mask, right)
    with np.errstate(divide="ignore", invalid="ignore"):
        totals: NDArray[np.float64] = right_in / num_in - (right.sum() - right_in) / (bits.num_trials - num_in)
    return totals


def score_table(runs: list[RunScores], labels: NDArray[Any]) -> pa.Table:
    r"""Put the scores of runs of one learner together; each subset ratio counts once.

    The C-score is the expected accuracy on an example that was not learned from, over subsets of growing size,

    .. math:: C_i = \operatorname{mean}_r \Pr_k[h_k(x_i) = y_i \mid i \notin I_k, |I_k| = r n],

    Z. Jiang, C. Zhang, K. Talwar, M. C. Mozer, "Characterizing Structural Regularities of Labeled Data in Overparameterized
    Models" (2021). Trials of runs with the same ratio are pooled.

    Parameters
    ----------
    runs
        One or more, of the same training examples.
    labels
        Of the training examples.

    Returns
    -------
    pyarrow.Table
        One row a training example: ``train_index``, ``label``, ``cscore`` and its ``stderr``; ``rate_in``, ``rate_out``,
        ``memorization``, ``fractional_memorization`` (the share of ``rate_in`` that is memorization), ``influence_total``,
        ``num_decided``, ``num_significant``, all means over runs; then ``rate_out_R`` for each subset ratio R.

    Raises
    ------
    QueryError
        If there is no run.
    """
    if not runs:
        raise QueryError("scores are of one run or more; found none")
    ratios = sorted({run.subset_ratio for run in runs})
    num_out, correct_out = (
        np.stack([_sum([getattr(run, name) for run in runs if run.subset_ratio == ratio]) for ratio in ratios])
        for name in ("num_out", "correct_out")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = correct_out / num_out
        stderr = np.sqrt((rates * (1 - rates) / num_out).sum(axis=0)) / len(ratios)
    names = ("rate_in", "rate_out", "memorization", "influence_total", "num_decided", "num_significant")
    means = {name: np.mean([getattr(run, name) for run in runs], axis=0, dtype=np.float64) for name in names}
    with np.errstate(divide="ignore", invalid="ignore"):
        fractional = np.where(means["rate_in"] > 0, means["memorization"] / means["rate_in"], np.nan)
    columns = {
        "train_index": np.arange(len(labels)),
        "label": labels.astype(np.int64),
        "cscore": rates.mean(axis=0),
        "stderr": stderr,
        **{name: means[name] for name in names[:3]},
        "fractional_memorization": fractional,
        **{name: means[name] for name in names[3:]},
        **{f"rate_out_{ratio:g}": rates[place] for place, ratio in enumerate(ratios)},
    }
    return pa.table(columns)


def _sum(counts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum(counts, axis=0)
    return total
