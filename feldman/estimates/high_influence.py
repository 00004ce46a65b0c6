"""Pairs above a threshold with their influence alone: for studies that select again and again, and need no errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import run_tiles, tile_inputs
from feldman.estimates.kernel_tiles import prepare_selecting
from feldman.estimates.selection import PairSelection
from feldman.estimates.tiles import TileResult, pair_influence
from feldman.trials.executor import Executor, InProcessExecutor, ThreadExecutor, usable_cores

__all__ = ["MOST_PAIRS", "HighInfluence", "count_high", "high_influence", "scan_high"]

MOST_PAIRS = 5_000_000
"""So many are held at once: with what is computed of them, half a gigabyte."""


@dataclass(frozen=True, kw_only=True)
class HighInfluence:
    """Pairs of training and test examples that one set of trials selects.

    Attributes
    ----------
    key
        int64 [pair], ascending: training example times the number of test examples, plus test example.
    influence
        float64 [pair].
    """

    key: Int64[np.ndarray, " pair"]
    influence: Float64[np.ndarray, " pair"]


def high_influence(
    bits: TrialBits, memorization: Float64[np.ndarray, " train"], selection: PairSelection, most: int = MOST_PAIRS
) -> HighInfluence:
    """Select pairs by thresholds, on all cores.

    Parameters
    ----------
    bits, memorization
        Of the trials.
    selection
        Thresholds, and nothing else.
    most
        How many pairs may be held.

    Raises
    ------
    QueryError
        If there are more; found before they are held.
    """
    keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    values: list[NDArray[np.float64]] = [np.empty(0)]
    num_found = 0

    def take(key: Int64[np.ndarray, " pair"], influence: Float64[np.ndarray, " pair"]) -> None:
        nonlocal num_found
        num_found += len(key)
        if num_found > most:
            raise QueryError(
                f"{bits.num_trials:,} trials select more than {most:,} pairs ({selection.in_words()}), too many to be "
                "compared; give higher thresholds, as with --influence-thresholds"
            )
        keys.append(key)
        values.append(influence)

    scan_high(bits, memorization, selection, take)
    return HighInfluence(key=np.concatenate(keys), influence=np.concatenate(values))


def count_high(bits: TrialBits, memorization: Float64[np.ndarray, " train"], selection: PairSelection) -> int:
    """Count the pairs that reach thresholds; none is held."""
    found = 0

    def take(key: Int64[np.ndarray, " pair"], influence: Float64[np.ndarray, " pair"]) -> None:  # noqa: ARG001
        nonlocal found
        found += len(key)

    scan_high(bits, memorization, selection, take)
    return found


def scan_high(
    bits: TrialBits,
    memorization: Float64[np.ndarray, " train"],
    selection: PairSelection,
    take: Callable[[Int64[np.ndarray, " pair"], Float64[np.ndarray, " pair"]], None],
) -> None:
    """Select pairs by thresholds, on all cores, and hand on keys and influences, a tile at a time, in the order of pairs.

    Raises
    ------
    QueryError
        If the selection is of more than thresholds, or of training examples as targets.
    """
    if selection.has_tops or selection.same_class or selection.targets != "test":
        raise QueryError("high influence is that of training on test examples that reach thresholds, and no other")
    inputs = tile_inputs(bits, memorization, selection)
    totals, num_test = inputs.targets.by_target, len(bits.test_correct)

    def hand_on(tile: int, result: TileResult) -> None:  # noqa: ARG001
        train, test = result.chosen[:, 0].astype(np.int64), result.chosen[:, 1]
        take(train * num_test + test, pair_influence(result.chosen, totals, bits.num_trials))

    executor: Executor = InProcessExecutor(prepare_selecting, inputs)  # threads would take longer to start than a tile
    if inputs.num_tiles > 1:
        executor = ThreadExecutor(prepare_selecting, inputs, usable_cores() + 1)
    with executor:
        run_tiles(inputs, executor, hand_on)
