"""What memorization looks like where there is nothing else: examples with random labels beside all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.intervals import wilson_interval

__all__ = ["QUANTILES", "LabelGroup", "NullReport", "ThresholdPower", "random_label_null"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class LabelGroup:
    """The memorization of some training examples.

    Attributes
    ----------
    labels
        ``"random"`` or ``"own"``.
    num_examples, num_undefined
        How many, and how many of them were in all trials or in none.
    mean, quantiles
        Over those that are defined; quantiles at `QUANTILES`. NaN if none is.
    """

    labels: str
    num_examples: int
    num_undefined: int
    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ThresholdPower:
    """What a threshold of memorization finds.

    Attributes
    ----------
    min_memorization
        The threshold, inclusive.
    num_random_found, power, power_low, power_high
        How many of the examples with random labels reach it, their share of those that are defined, and its 95% interval
        (Wilson).
    num_own_found, share_own_found
        How many of all other examples reach it, and their share.
    """

    min_memorization: float
    num_random_found: int
    power: float
    power_low: float
    power_high: float
    num_own_found: int
    share_own_found: float


@dataclass(frozen=True, kw_only=True)
class NullReport:
    """Both groups, and what thresholds find in them."""

    groups: tuple[LabelGroup, LabelGroup]
    thresholds: tuple[ThresholdPower, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as an object for ``--json``."""
        return {"quantiles_at": QUANTILES, **asdict(self)}


def random_label_null(table: pa.Table, thresholds: Sequence[float]) -> NullReport:
    """Compare the memorization of examples with random labels with that of the others.

    Nothing but memory predicts a random label: a learner that fits its subset memorizes all of them, and the share that a
    threshold finds is its power. The other examples that reach it are as memorized as those.

    Parameters
    ----------
    table
        Memorization, as `feldman.results.run.Run.memorization` returns it.
    thresholds
        Of memorization.

    Raises
    ------
    QueryError
        If no label of the run is random.
    """
    if "original_label" not in table.column_names:
        raise QueryError(
            "this run has no random labels; set dataset.random_labels, as in --set dataset.random_labels=100, for a run of "
            "its own"
        )
    values = table["memorization"].to_numpy()
    random = table["label"].to_numpy() != table["original_label"].to_numpy()
    groups = _group("random", values[random]), _group("own", values[~random])
    return NullReport(
        groups=groups,
        thresholds=tuple(_power(values[random], values[~random], threshold) for threshold in sorted(set(thresholds))),
    )


def _group(labels: str, values: NDArray[np.float64]) -> LabelGroup:
    defined = values[~np.isnan(values)]
    quantiles = np.quantile(defined, QUANTILES) if len(defined) else np.full(len(QUANTILES), np.nan)
    return LabelGroup(
        labels=labels,
        num_examples=len(values),
        num_undefined=len(values) - len(defined),
        mean=float(defined.mean()) if len(defined) else float("nan"),
        quantiles=tuple(quantiles.tolist()),
    )


def _power(random: NDArray[np.float64], own: NDArray[np.float64], threshold: float) -> ThresholdPower:
    found = int((random >= threshold).sum()), int((own >= threshold).sum())
    sizes = int((~np.isnan(random)).sum()), int((~np.isnan(own)).sum())
    shares = [count / size if size else float("nan") for count, size in zip(found, sizes, strict=True)]
    low, high = wilson_interval(np.array([shares[0]]), np.array([sizes[0]], np.float64))
    return ThresholdPower(
        min_memorization=threshold,
        num_random_found=found[0],
        power=shares[0],
        power_low=float(low[0]),
        power_high=float(high[0]),
        num_own_found=found[1],
        share_own_found=shares[1],
    )
