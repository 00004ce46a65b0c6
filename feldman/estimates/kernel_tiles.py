"""Count tiles with the compiled kernel."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import numpy as np
from jaxtyping import Float64, UInt32

from feldman.estimates.kernel import SEGMENT_ROWS, joint_counts, select_counts
from feldman.estimates.tiles import TileInputs, TileResult, segments_of

__all__ = ["prepare_counting", "prepare_selecting"]

_FOUND_ROWS = 1 << 20
"""Pairs that the kernel finds in one call: 12 MB a thread."""


_TOPS_BYTES = 2**28


def prepare_selecting(inputs: TileInputs) -> Callable[[int], TileResult]:
    """Make the task that selects a tile's pairs.

    The task remembers the tops of targets over all tiles it has counted. A tile's contenders that are in none are left out: they
    could not stay, and looking at them would take longer than counting.
    """
    tops = _Tops(inputs)
    return lambda tile: _select_tile(inputs, tile, tops)


def prepare_counting(inputs: TileInputs) -> Callable[[int], UInt32[np.ndarray, "row target"]]:
    """Make the task that counts all pairs of a tile, targets in their own order; for targets that are not laid by class."""

    def count_tile(tile: int) -> UInt32[np.ndarray, "row target"]:
        rows = inputs.rows_of(tile)
        counts = np.empty((len(rows), len(inputs.targets.target)), np.uint32)
        joint_counts(inputs.masks[rows.start : rows.stop], inputs.targets.words, counts)
        return counts[:, inputs.targets.target >= 0]

    return count_tile


class _Tops:
    """The influence that the top of each target asks for, after the tiles counted so far in this process.

    Attributes
    ----------
    asked
        float64 [padded_target]: a bound from below on the last influence of the finished top.
    """

    def __init__(self, inputs: TileInputs) -> None:
        self.asked = inputs.asked
        top = inputs.selection.top_per_target or 0
        # A top that these rows do not fill asks for nothing yet; a very long one is not worth the memory.
        worth_it = top <= len(inputs.train_index) and top * inputs.asked.nbytes <= _TOPS_BYTES
        self._best = np.full((len(inputs.asked), top if worth_it else 0), -np.inf)
        self._merged: set[int] = set()
        self._lock = Lock()

    def merge(self, tile: int, influence: Float64[np.ndarray, "padded_target best"]) -> None:
        """Take in the best of a tile, once: a tile may be counted again if its result was lost on the way."""
        top = self._best.shape[1]
        with self._lock:
            if top and tile not in self._merged:
                self._merged.add(tile)
                both = np.concatenate([self._best, influence], axis=1)
                self._best = np.partition(both, -top, axis=1)[:, -top:]
                self.asked = np.maximum(self.asked, self._best.min(axis=1))


def _select_tile(inputs: TileInputs, tile: int, tops: _Tops) -> TileResult:
    selection, targets = inputs.selection, inputs.targets
    rows, segments = segments_of(inputs, tile, SEGMENT_ROWS)
    masks, num_in = np.ascontiguousarray(inputs.masks[rows]), inputs.num_in[rows].astype(np.float64)
    num_out, padded = inputs.num_trials - num_in, len(targets.target)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / (1 / num_in + 1 / num_out)
        bounds = np.stack([scale, scale / num_out], axis=1)
    bounds[(num_in == 0) | (num_out == 0)] = np.nan
    row_top, lane_top = min(selection.top_per_train or 0, padded), min(selection.top_per_target or 0, len(rows))
    row_tops = np.empty((SEGMENT_ROWS, row_top)), np.empty((SEGMENT_ROWS, row_top, 2), np.int32)
    lane_entries = np.full((padded, lane_top, 2), -1, np.int32)
    # Just below, because a pair of equal influence and lower index comes first.
    lane_tops = np.full((padded, lane_top), -np.inf), lane_entries, np.nextafter(tops.asked, -np.inf)
    found = np.empty((max(_FOUND_ROWS, SEGMENT_ROWS * row_top), 3), np.int32)
    position, parts = np.array([0, -1]), [np.empty((0, 3), np.int32)]
    while position[0] < len(segments):
        num_found = select_counts(
            masks, targets.words, segments, position, np.stack([num_in, num_out], axis=1), bounds, inputs.own_lane[rows],
            targets.totals, selection.min_influence, row_tops, lane_tops, found,
        )  # fmt: skip
        parts.append(found[:num_found].copy())
    tops.merge(tile, lane_tops[0])
    row, lane, count = np.concatenate(parts).T
    chosen = inputs.pairs_of(rows[row], lane, count)
    lane, place = np.nonzero(lane_entries[:, :, 0] >= 0)
    row, count = lane_entries[lane, place].T
    return TileResult(
        chosen=chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))], contenders=inputs.pairs_of(rows[row], lane, count)
    )
