"""What removing memorized examples costs: the study's design, and what came out of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from scipy.special import stdtrit

from feldman.errors import QueryError
from feldman.estimates.selection import DEFAULT_MIN_MEMORIZATION
from feldman.trials.design import Arm, Design, Draw, Level, Removed

__all__ = ["DEFAULT_THRESHOLDS", "REMOVAL_SCHEMA", "RemovalPlan", "removal_design", "removal_table"]

DEFAULT_THRESHOLDS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_SERIES = ("removal", "random", "class")

REMOVAL_SCHEMA = pa.schema(
    [
        pa.field("removed", pa.string()),
        pa.field("threshold", pa.float64()),
        *(pa.field(name, pa.int64()) for name in ("num_removed", "num_kept")),
        pa.field("share_kept", pa.float64()),
        *(
            pa.field(f"{series}_{name}", kind)
            for series in _SERIES
            for name, kind in (("repeats", pa.int64()), ("accuracy", pa.float64()), ("std", pa.float64()))
        ),
        *(
            pa.field(f"{name}_{series}", pa.float64())
            for series in _SERIES[1:]
            for name in ("less_than", "ci_low", "ci_high")
        ),
    ]
)
"""One row for each way of removing, by threshold; the first has nothing removed. ``removal_...`` are test accuracies after the
removal, ``random_...`` and ``class_...`` on as many random examples, null where not not trained. ``less_than_random`` is the
accuracy that the removal costs beyond that of fewer examples, with its 95% interval; see `removal_table`."""


@dataclass(frozen=True, kw_only=True)
class RemovalPlan:
    """What is removed, and how often each removal is trained.

    Attributes
    ----------
    thresholds
        Of memorization, inclusive: examples that reach one are removed.
    repeats
        Trials of each arm.
    by_class
        Whether to compare with as many examples of each class, too.
    by_influence
        Whether to remove, too, only those of them that stand in a pair of high influence, and only those that do not.
    """

    thresholds: tuple[float, ...] = DEFAULT_THRESHOLDS
    repeats: int = 20
    by_class: bool = False
    by_influence: bool = False

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if not self.thresholds or any(not -1 < one <= 1 for one in self.thresholds):
            raise QueryError(
                f"thresholds of memorization lie above -1 and are at most 1, one or more; found {list(self.thresholds)}"
            )
        if len(set(self.thresholds)) < len(self.thresholds):
            raise QueryError(f"each threshold is named once; found {list(self.thresholds)}")
        if self.repeats < 1:
            raise QueryError(f"each removal is trained once or more; found {self.repeats} repeats")


def removal_design(
    plan: RemovalPlan,
    memorization: Float64[np.ndarray, " train"],
    is_influential: Bool[np.ndarray, " train"],
    block_size: int,
) -> Design:
    """Design the study: the whole training set, and for each threshold the removal and as many random examples.

    A threshold that no example reaches is left out: its arms would be those of the whole set. What is undefined reaches none.

    Parameters
    ----------
    plan
        What is asked for.
    memorization
        Estimates.
    is_influential
        Which training examples stand in a pair of high influence.
    block_size
        The most trials that a block may have.

    Raises
    ------
    QueryError
        If no example reaches any threshold.
    ExperimentError
        If a removal leaves nothing.
    """
    levels, kept = [Level(threshold=None, removed="nothing")], [np.ones(len(memorization), bool)]
    which: dict[Removed, NDArray[np.bool_]] = {"memorized": np.ones_like(is_influential)}
    if plan.by_influence:
        which |= {"influential": is_influential, "uninfluential": ~is_influential}
    for removed, among in which.items():
        for threshold in sorted(plan.thresholds):
            gone = (memorization >= threshold) & among
            # Pairs of high influence are sought among examples memorized so much: below, none is known to have or to lack one.
            if gone.any() and (removed == "memorized" or threshold >= DEFAULT_MIN_MEMORIZATION):
                levels.append(Level(threshold=threshold, removed=removed))
                kept.append(~gone)
    if len(levels) == 1:
        raise QueryError(
            f"no training example has memorization >= {min(plan.thresholds):g}, so nothing would be removed; the largest is "
            f"{np.nanmax(memorization, initial=-1):.3f}"
        )
    draws: tuple[Draw, ...] = ("removal", "random", "class") if plan.by_class else ("removal", "random")
    arms = [Arm(level=0, draw="removal")]
    arms += [Arm(level=level, draw=draw) for level in range(1, len(levels)) for draw in draws]
    together = max(size for size in range(1, min(block_size, plan.repeats) + 1) if plan.repeats % size == 0)
    return Design.of(levels, arms, np.array(kept), together)


def removal_table(design: Design, trials: Sequence[int], test_accuracy: Float64[np.ndarray, " trial"]) -> pa.Table:
    r"""Say what each removal costs.

    With accuracies :math:`a_r` after the removal and :math:`b_r` after that of as many random examples, in repeats r = 1 ... R
    that share their seeds, the cost beyond that of fewer examples is :math:`\bar d` of :math:`d_r = b_r - a_r`, with the interval
    :math:`\bar d \pm t_{0.975, R - 1} s_d / \sqrt R`. The memorization estimates, and so which examples are removed, are taken as
    given: it is the uncertainty of training, not of the choice. V. Feldman, C. Zhang (2020), figure 2.

    Parameters
    ----------
    design
        The arms.
    trials
        Which trials have been trained.
    test_accuracy
        Of each.

    Returns
    -------
    pyarrow.Table
        `REMOVAL_SCHEMA`; what has not been trained is null, and of a single repeat standard deviations and intervals are.
    """
    found: dict[tuple[int, str], dict[int, float]] = {}
    for trial, accuracy in zip(trials, test_accuracy, strict=True):
        arm, repeat = design.arm_and_repeat(trial)
        chosen = design.arms[arm]
        found.setdefault((chosen.level, chosen.draw), {})[repeat] = float(accuracy)
    rows = []
    for number, level in enumerate(design.levels):
        num_kept = int(design.kept(number).sum())
        row: dict[str, object] = {
            "removed": level.removed,
            "threshold": level.threshold,
            "num_removed": design.num_train - num_kept,
            "num_kept": num_kept,
            "share_kept": num_kept / design.num_train,
        }
        removal = found.get((number, "removal"), {})
        for series in _SERIES:
            accuracies = found.get((number, series), {})
            mean, deviation, _ = _summary(np.array(list(accuracies.values())))
            row |= {f"{series}_repeats": len(accuracies), f"{series}_accuracy": mean, f"{series}_std": deviation}
            if series != "removal":
                both = sorted(removal.keys() & accuracies.keys())
                cost, _, half = _summary(np.array([accuracies[repeat] - removal[repeat] for repeat in both]))
                ends = (None, None) if cost is None or half is None else (cost - half, cost + half)
                row |= dict(
                    zip((f"{name}_{series}" for name in ("less_than", "ci_low", "ci_high")), (cost, *ends), strict=True)
                )
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=REMOVAL_SCHEMA)


def _summary(values: NDArray[np.float64]) -> tuple[float | None, float | None, float | None]:
    """Return mean, standard deviation, and half the length of the mean's 95% interval; None where there are too few."""
    if not len(values):
        return None, None, None
    mean = float(values.mean())
    if len(values) == 1:
        return mean, None, None
    deviation = float(values.std(ddof=1))
    return mean, deviation, float(stdtrit(len(values) - 1, 0.975)) * deviation / len(values) ** 0.5
