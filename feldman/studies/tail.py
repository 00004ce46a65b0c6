"""The tail of memorization: its histogram, how many examples reach a threshold, how sure that is, and how many truly do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.intervals import Z_95
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import count_bits
from feldman.studies.halves import FEWEST_TRIALS
from feldman.studies.recounts import Recounts, cell_of, num_cells, recount
from feldman.studies.true_counts import TrueCounts, correctable, no_true_counts, true_counts

__all__ = [
    "CountInterval",
    "MemorizationTail",
    "TailPlan",
    "measure_tail",
    "tail_of_estimates",
]


@dataclass(frozen=True, kw_only=True)
class TailPlan:
    """What is counted.

    Attributes
    ----------
    num_bins
        Of the histogram: equal ones on 0 .. 1.
    thresholds
        Of memorization, inclusive, ascending.
    num_resamples
        Random halves of the trials, for standard errors.
    seed
        Of the halves.
    """

    num_bins: int = 20
    thresholds: tuple[float, ...] = tuple((np.arange(1, 20) / 20).tolist())
    num_resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what counts nothing."""
        if self.num_bins < 1 or self.num_resamples < 2 or self.seed < 0:
            raise QueryError(
                "a tail is counted in 1 bin or more, in 2 halves or more, with a seed of 0 or more; found "
                f"{self.num_bins} bins, {self.num_resamples} halves, seed {self.seed}"
            )
        ascending = all(low < high for low, high in zip(self.thresholds, self.thresholds[1:], strict=False))
        if not (self.thresholds and ascending and self.thresholds[0] >= -1 and self.thresholds[-1] <= 1):
            raise QueryError(f"thresholds of memorization are ascending numbers in -1 .. 1; found {self.thresholds}")

    @property
    def bin_edges(self) -> Float64[np.ndarray, " edge"]:
        """The edges of the bins; the last bin holds 1, too."""
        return np.arange(self.num_bins + 1) / self.num_bins  # each the nearest number to its fraction, unlike linspace

    @property
    def edges(self) -> Float64[np.ndarray, " cell_edge"]:
        """The edges of the cells that examples are counted in: of the bins, and the thresholds."""
        return np.union1d(self.bin_edges, self.thresholds)


@dataclass(frozen=True, kw_only=True)
class CountInterval:
    """Counts with their standard errors and 95% intervals; NaN where not known.

    Attributes
    ----------
    count
        int64.
    stderr, ci_low, ci_high
        float64, of one shape with the counts.
    """

    count: Int64[np.ndarray, "..."]
    stderr: Float64[np.ndarray, "..."]
    ci_low: Float64[np.ndarray, "..."]
    ci_high: Float64[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True)
class MemorizationTail:
    """How memorization is distributed. Rows of counts are groups: all examples, then each class.

    Attributes
    ----------
    labels
        int64 [class]: of the classes, ascending; empty where labels are not known.
    num_examples, num_undefined, num_negative
        int64 [group]: all; those in all trials or in none; those whose estimate is below 0, which no bin holds.
    bin_edges, thresholds
        float64.
    histogram
        [group, bin].
    reaching
        [group, threshold]: examples whose estimate is at least the threshold.
    true
        Of all examples.
    """

    labels: Int64[np.ndarray, " class"]
    num_examples: Int64[np.ndarray, " group"]
    num_undefined: Int64[np.ndarray, " group"]
    num_negative: Int64[np.ndarray, " group"]
    bin_edges: Float64[np.ndarray, " edge"]
    thresholds: Float64[np.ndarray, " threshold"]
    histogram: CountInterval
    reaching: CountInterval
    true: TrueCounts


def measure_tail(
    bits: TrialBits,
    labels: NDArray[np.integer],
    plan: TailPlan,
    on_examples: Callable[[int], None] = lambda count: None,
) -> MemorizationTail:
    r"""Count the examples of every bin and threshold, and say what the counts would be in other runs of as many trials.

    The standard error is that of a count as an estimate of its expectation over such runs. It comes from random halves of the
    trials, the delete-half jackknife,

    .. math:: \widehat{\operatorname{Var}}(C_T) = \frac{h}{T - h} \operatorname{Var}(C_h), \quad h = \lfloor T / 2 \rfloor,

    J. Shao, C. F. J. Wu, "A general theory for jackknife variance estimation", The Annals of Statistics 17 (1989). Leaving out
    one trial at a time would fail: a count is not smooth in the trials. Halves are noisier than the run, so that their counts lie
    about another mean; the spread is about that mean, and the interval, of 1.96 standard errors, about the count. Trials are
    drawn whole, so that examples which are right together stay together.

    Parameters
    ----------
    bits, labels
        Of the run, and of its training examples.
    plan
        What to count. With fewer than 20 trials there are no standard errors, with fewer than 40 no true counts.
    on_examples
        Told how many more examples have been counted in halves.
    """
    memorization = estimate_memorization(bits).memorization
    if bits.num_trials < 2 * FEWEST_TRIALS:
        return tail_of_estimates(memorization, labels, plan)
    classes, group = np.unique(labels, return_inverse=True)
    edges = plan.edges
    found = recount(bits, group, edges, num_resamples=plan.num_resamples, seed=plan.seed, on_examples=on_examples)
    num_in = int(count_bits(bits.subset_mask, bits.subset_mask).mean())
    known = correctable(np.array(plan.thresholds), num_in, bits.num_trials - num_in)
    if bits.num_trials < 4 * FEWEST_TRIALS:
        known[:] = False
    return _tail(_cells(memorization, group, len(classes), edges), classes, plan, (found, known, bits.num_trials))


def tail_of_estimates(
    memorization: Float64[np.ndarray, " train"], labels: NDArray[np.integer] | None, plan: TailPlan
) -> MemorizationTail:
    """Count estimates alone, without their trials: there are no standard errors then.

    Parameters
    ----------
    memorization, labels
        Of training examples; None where labels are not known.
    plan
        What to count.
    """
    known = np.zeros(len(memorization), np.int64) if labels is None else labels
    classes, group = np.unique(known, return_inverse=True)
    cells = _cells(memorization, group, len(classes), plan.edges)
    return _tail(cells, classes[:0] if labels is None else classes, plan, None)


def _cells(
    memorization: NDArray[np.float64], group: NDArray[np.int64], num_groups: int, edges: NDArray[np.float64]
) -> Int64[np.ndarray, "class cell"]:
    width = num_cells(edges)
    counted = np.bincount(group * width + cell_of(memorization, edges), minlength=num_groups * width)
    return counted.reshape(num_groups, width)


def _tail(
    cells: Int64[np.ndarray, "class cell"],
    classes: NDArray[np.integer],
    plan: TailPlan,
    again: tuple[Recounts, Bool[np.ndarray, " threshold"], int] | None,
) -> MemorizationTail:
    """Add cells up to what is asked for. ``again``: counts of halves and quarters, thresholds to correct, how many trials."""
    groups = _with_all(cells) if len(classes) else cells.sum(axis=0, keepdims=True)
    defined = groups[:, :-1].sum(axis=1)
    bins, reaching = (_in_bins(groups, plan), _at_least(groups, plan.edges, plan.thresholds))
    spreads = np.full(bins.shape, np.nan), np.full(reaching.shape, np.nan)
    true = no_true_counts(len(plan.thresholds))
    if again is not None:
        recounts, known, num_trials = again
        half = num_trials // 2
        halves, scale = _with_all(recounts.halves), (half / (num_trials - half)) ** 0.5
        reached = _at_least(halves, plan.edges, plan.thresholds)
        spreads = (
            scale * _in_bins(halves, plan).std(axis=0, ddof=1),
            scale * reached.std(axis=0, ddof=1),
        )
        quarters = _at_least(recounts.quarters, plan.edges, plan.thresholds).mean(axis=0)
        counts = reaching[0].astype(np.float64), reached[:, 0].mean(axis=0), quarters
        true = true_counts(counts, spreads[1][0], known, float(defined[0]))
    return MemorizationTail(
        labels=classes.astype(np.int64),
        num_examples=groups.sum(axis=1),
        num_undefined=groups[:, -1],
        num_negative=defined - _at_least(groups, plan.edges, [0.0])[:, 0],
        bin_edges=plan.bin_edges,
        thresholds=np.array(plan.thresholds),
        histogram=_interval(bins, spreads[0], defined),
        reaching=_interval(reaching, spreads[1], defined),
        true=true,
    )


def _with_all(counts: Int64[np.ndarray, "... class cell"]) -> Int64[np.ndarray, "... group cell"]:
    return np.concatenate([counts.sum(axis=-2, keepdims=True), counts], axis=-2)


def _at_least(
    counts: Int64[np.ndarray, "... cell"], edges: NDArray[np.float64], values: Sequence[float]
) -> Int64[np.ndarray, "... value"]:
    """Return how many are at least each value, all of them edges."""
    tail = np.cumsum(counts[..., -2::-1], axis=-1)[..., ::-1]  # what is undefined reaches nothing
    found: NDArray[np.int64] = tail[..., np.searchsorted(edges, values, side="right")]
    return found


def _in_bins(counts: Int64[np.ndarray, "... cell"], plan: TailPlan) -> Int64[np.ndarray, "... bin"]:
    from_low = _at_least(counts, plan.edges, plan.bin_edges.tolist())
    from_low[..., -1] = 0  # of the edge 1, which no value exceeds: it belongs to the last bin
    counted: NDArray[np.int64] = from_low[..., :-1] - from_low[..., 1:]
    return counted


def _interval(
    counts: Int64[np.ndarray, "group value"],
    stderr: Float64[np.ndarray, "group value"],
    most: Int64[np.ndarray, " group"],
) -> CountInterval:
    return CountInterval(
        count=counts,
        stderr=stderr,
        ci_low=np.maximum(counts - Z_95 * stderr, 0.0),
        ci_high=np.minimum(counts + Z_95 * stderr, most[:, None]),
    )
