"""From a pilot run: how many trials a wanted precision needs, and what they will cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.studies.stability import stability_summary

__all__ = ["Cost", "Need", "cost_of", "jaccard_needs", "stderr_needs"]

QUANTILE = 0.95
"""The share of examples, or of pairs, whose standard error is to reach the target."""

_STEEPEST, _FLATTEST = -0.5, -0.05
"""Exponents of 1 - J against trials that are believed: in the long run it falls as the noise does, with their root."""

_FARTHEST = 10
"""So many times the pilot's halves a line is continued, and no farther: it would be no plan."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """How many trials one target needs.

    Attributes
    ----------
    what
        What is to reach the target, in words.
    now
        Its value in the pilot; NaN if there is nothing to measure.
    num_trials
        How many trials a run needs, in all; None if the pilot cannot tell.
    low, high
        The range over repeats of the splits; None where there is none, or no end of it.
    how
        ``"measured"``: the pilot reaches it. ``"scaled"``: errors fall with the root of the number of trials.
        ``"extrapolated"``: from the pilot's own rise of agreement. ``"bound"``: whatever the learner. ``"unknown"``: the pilot is
        too short to tell.
    """

    what: str
    now: float
    num_trials: int | None
    low: int | None = None
    high: int | None = None
    how: str

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What it takes to train the trials that a run lacks.

    Attributes
    ----------
    num_trials
        That the run will have; of these ``num_more`` are still to be trained.
    trial_seconds
        Of one trial, a mean of the pilot; NaN where not known, and then so are the others.
    core_hours, gpu_hours
        In all.
    num_workers, wall_hours
        On so many workers: whole blocks, one after the other.
    """

    num_trials: int
    num_more: int
    trial_seconds: float
    core_hours: float
    gpu_hours: float
    num_workers: int
    wall_hours: float

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def stderr_needs(
    bits: TrialBits,
    labels: tuple[NDArray[Any], NDArray[Any]],
    selection: PairSelection,
    *,
    target: float,
    subset_ratio: float,
) -> list[Need]:
    r"""Say how many trials it takes until standard errors are at most ``target``.

    An error falls with the root of the number of trials: of T trials with error s, :math:`T s^2 / \sigma^2` are needed for
    :math:`\sigma`. Of memorization and of the selected pairs that is asked of 95 in 100; besides stands what the worst estimate
    needs, that of two rates of 0.5: :math:`(1/r + 1/(1-r)) / (4 \sigma^2)` with subset ratio r, of an example that is in as many
    trials as the average one.

    Parameters
    ----------
    bits, labels
        The pilot.
    selection
        Which pairs matter.
    target
        The standard error.
    subset_ratio
        Of the run.

    Raises
    ------
    QueryError
        If the target is no error that an estimate could have.
    """
    if not 0 < target < 1:
        raise QueryError(f"a standard error lies between 0 and 1; found {target:g}")
    memorization = estimate_memorization(bits)
    pairs = select_pairs(bits, memorization.memorization, selection, labels)
    needs = []
    for what, errors in (
        ("memorization, 95% of the examples", memorization.stderr),
        (f"influence, 95% of the {len(pairs.stderr):,} selected pairs", pairs.stderr),
    ):
        errors = errors[~np.isnan(errors)]
        now = float(np.quantile(errors, QUANTILE)) if len(errors) else float("nan")
        num = math.ceil(bits.num_trials * (now / target) ** 2) if len(errors) else None
        reached = num is not None and num <= bits.num_trials
        needs.append(Need(what=what, now=now, num_trials=num, how=_how(num, "measured" if reached else "scaled")))
    both = 0.25 * (1 / subset_ratio + 1 / (1 - subset_ratio))
    bound = Need(
        what="any estimate, at its worst",
        now=math.sqrt(both / bits.num_trials),
        num_trials=math.ceil(both / target**2),
        how="bound",
    )
    return [*needs, bound]


def jaccard_needs(table: pa.Table, *, target: float) -> list[Need]:
    """Say how many trials each of two runs needs until they agree on a share ``target`` of what either selects.

    A size at which the pilot's halves agree so much is the answer. Beyond the pilot, log(1 - J) is continued along a line through
    its measured sizes, no steeper than the noise falls, up to ten times the largest of them. Where agreement does not rise
    with trials, as where most selected pairs are chance, nothing is said.

    Parameters
    ----------
    table
        As `feldman.studies.stability.measure_stability` returns it.
    target
        The Jaccard similarity.

    Raises
    ------
    QueryError
        If the target is no similarity that is short of perfect.
    """
    if not 0 < target < 1:
        raise QueryError(f"a Jaccard similarity to be reached lies between 0 and 1; found {target:g}")
    needs = []
    for estimate in ("memorization", "influence"):
        summary = [(size, mean) for size, mean, _ in stability_summary(table, estimate, "halves", "jaccard")]
        now = summary[-1][1]
        enough = [size for size, mean in summary if mean >= target]
        what = f"J of {estimate}, two such runs"
        if enough:
            needs.append(Need(what=what, now=now, num_trials=enough[0], how="measured"))
            continue
        rises = len(summary) > 1 and summary[-1][1] > summary[-2][1]
        num = _continued(summary, target) if rises else None
        each = [_continued(points, target) for points in _repeats(table, estimate)]
        told = [found for found in each if found is not None]
        needs.append(
            Need(
                what=what,
                now=now,
                num_trials=num,
                low=min(told) if told and num is not None else None,
                high=max(told) if num is not None and len(told) == len(each) else None,
                how=_how(num, "extrapolated"),
            )
        )
    return needs


def cost_of(
    num_trials: int,
    *,
    num_trained: int,
    trial_seconds: float,
    block_size: int,
    per_block: tuple[int, float],
    num_workers: int,
) -> Cost:
    """Reckon what the trials cost that a run lacks.

    Parameters
    ----------
    num_trials, num_trained
        That the run needs, and has.
    trial_seconds
        Of one trial; NaN if not known.
    block_size
        Trials that are trained together by one worker.
    per_block
        Cores and GPUs that a worker has.
    num_workers
        How many train at the same time.
    """
    num_more = max(num_trials - num_trained, 0)
    hours = num_more * trial_seconds / 3600
    rounds = math.ceil(math.ceil(num_more / block_size) / num_workers)
    return Cost(
        num_trials=max(num_trials, num_trained),
        num_more=num_more,
        trial_seconds=trial_seconds,
        core_hours=hours * per_block[0],
        gpu_hours=hours * per_block[1],
        num_workers=num_workers,
        wall_hours=rounds * block_size * trial_seconds / 3600,
    )


def _how(num_trials: int | None, known: str) -> str:
    return "unknown" if num_trials is None else known


def _continued(points: list[tuple[int, float]], target: float) -> int | None:
    """Continue log(1 - J) along a line; None where it does not fall."""
    points = [(size, jaccard) for size, jaccard in points if 0 < jaccard < 1]
    if len(points) < 2:
        return None
    sizes, missing = (np.log(values) for values in np.array([(size, 1 - jaccard) for size, jaccard in points]).T)
    slope = float(np.polyfit(sizes, missing, 1)[0])
    if slope > _FLATTEST:
        return None
    farther = (math.log(1 - target) - missing[-1]) / max(slope, _STEEPEST)
    return None if farther > math.log(_FARTHEST) else math.ceil(math.exp(sizes[-1] + farther))


def _repeats(table: pa.Table, estimate: str) -> list[list[tuple[int, float]]]:
    """Return sizes and J of the halves, a list for each repeat."""
    rows = [row for row in table.to_pylist() if (row["estimate"], row["compared"]) == (estimate, "halves")]
    numbers = sorted({row["repeat"] for row in rows})
    return [[(row["num_trials"], row["jaccard"]) for row in rows if row["repeat"] == number] for number in numbers]
