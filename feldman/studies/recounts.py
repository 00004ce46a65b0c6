"""Memorization in many parts of a run's trials at once, and how many examples have it: a panel of examples at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, unpack_trials
from feldman.studies.halves import generator

__all__ = ["Recounts", "cell_of", "memorization_in_parts", "num_cells", "recount", "unpacked_panels"]

_PANEL_VALUES = 1 << 22
"""Bits that are unpacked at once, of subsets and of correctness each: 16 MB as float32."""

Panel = tuple[slice, NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Recounts:
    """How many examples have a memorization in each cell, estimated from random parts of the trials.

    Attributes
    ----------
    halves
        int64 [half, class, cell]: from random halves of the trials.
    quarters
        int64 [quarter, cell]: from random quarters, all classes together.
    """

    halves: Int64[np.ndarray, "half class cell"]
    quarters: Int64[np.ndarray, "quarter cell"]


def num_cells(edges: Float64[np.ndarray, " edge"]) -> int:
    """Return how many cells so many edges make: one below the first, one from each on, and one of what is undefined."""
    return len(edges) + 2


def cell_of(memorization: Float64[np.ndarray, "..."], edges: Float64[np.ndarray, " edge"]) -> Shaped[np.ndarray, "..."]:
    """Return the cell of each value. Cell k holds what is at least edge k - 1 and below edge k; the last one what is NaN."""
    return np.where(np.isnan(memorization), len(edges) + 1, np.searchsorted(edges, memorization, side="right"))


def recount(
    bits: TrialBits,
    group: Int64[np.ndarray, " train"],
    edges: Float64[np.ndarray, " edge"],
    *,
    num_resamples: int,
    seed: int,
    on_examples: Callable[[int], None] = lambda count: None,
) -> Recounts:
    """Count the examples of every cell in random halves and quarters of the trials; the quarters are parts of the halves.

    Parameters
    ----------
    bits
        Of all trials.
    group
        The class of each training example: 0, 1, ...
    edges
        Of the cells, ascending.
    num_resamples, seed
        How many halves, and of what they are drawn.
    on_examples
        Told how many more examples have been counted.
    """
    num_groups = int(group.max(initial=-1)) + 1
    halves = np.zeros((num_resamples, num_groups, num_cells(edges)), np.int64)
    quarters = np.zeros((num_resamples, num_cells(edges)), np.int64)
    parts = np.zeros((bits.num_trials, 2 * num_resamples), np.float32)
    for repeat in range(num_resamples):
        order = generator(seed, repeat).permutation(bits.num_trials)
        parts[order[: bits.num_trials // 2], repeat] = 1
        parts[order[: bits.num_trials // 4], num_resamples + repeat] = 1
    repeats = np.arange(num_resamples)
    for examples, mask, correct in unpacked_panels(bits):
        cells = cell_of(memorization_in_parts(mask, correct, parts), edges)
        rows = repeats * num_groups + group[examples, None]
        np.add.at(halves.reshape(-1), rows * num_cells(edges) + cells[:, :num_resamples], 1)
        np.add.at(quarters.reshape(-1), repeats * num_cells(edges) + cells[:, num_resamples:], 1)
        on_examples(len(mask))
    return Recounts(halves=halves, quarters=quarters)


def unpacked_panels(bits: TrialBits) -> Iterator[Panel]:
    """Yield examples a panel at a time: which, and float32 [example, trial] of their subsets and their correctness, 0 or 1."""
    num_rows = max(1, _PANEL_VALUES // bits.num_trials)
    for start in range(0, len(bits.subset_mask), num_rows):
        examples = slice(start, min(start + num_rows, len(bits.subset_mask)))
        mask, correct = (
            unpack_trials(words[examples], bits.num_trials).T.astype(np.float32)
            for words in (bits.subset_mask, bits.train_correct)
        )
        yield examples, mask, correct


def memorization_in_parts(
    mask: Float32[np.ndarray, "train trial"],
    correct: Float32[np.ndarray, "train trial"],
    parts: Float32[np.ndarray, "trial part"],
) -> Float64[np.ndarray, "train part"]:
    """Estimate memorization from each of several parts of the trials; NaN where an example was in all of a part's or in none.

    Sums in float32 are exact here, far below 2**24, so a part that is all trials has the values of `estimate_memorization`.

    Parameters
    ----------
    mask, correct
        Which trials learned from an example, and which predict it right: 0 or 1.
    parts
        Which trials are in a part: 0 or 1.
    """
    num_in, correct_in, right = (
        (rows @ parts).astype(np.float64) for rows in (mask, np.multiply(mask, correct), correct)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = correct_in / num_in - (right - correct_in) / (parts.sum(axis=0) - num_in)
    return found
