"""From counts of all pairs of a tile to what is kept of them: influences, or the selected pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from feldman.estimates.tiles import TileInputs, TileResult, rate_difference, tile_result

__all__ = ["influence_of_counts", "select_from_counts"]


def influence_of_counts(
    counts: Integer[np.ndarray, "row target"],
    num_in: Int64[np.ndarray, " row"],
    totals: Float64[np.ndarray, " target"],
    num_trials: int,
) -> Float64[np.ndarray, "row target"]:
    """Return the influence of each row on each target; NaN for rows that were in all trials or in none."""
    return rate_difference(counts, num_in[:, None].astype(np.float64), totals, num_trials)


def select_from_counts(
    inputs: TileInputs,
    tile: int,
    counts: Integer[np.ndarray, "row target"],
    influence: Float64[np.ndarray, "row target"],
    eligible: Bool[np.ndarray, "row target"] | Bool[np.ndarray, "row 1"],
) -> TileResult:
    """Select the pairs of a tile whose pairs are counted; the same pairs as `feldman.estimates.kernel_tiles` finds.

    Parameters
    ----------
    inputs, tile
        Which tile.
    counts, influence
        [row, target] of the tile's rows.
    eligible
        Which pairs may be selected at all.
    """
    selection, rows = inputs.selection, np.array(inputs.rows_of(tile), np.int64)
    wanted = (influence >= selection.min_influence) & eligible
    if selection.has_tops:
        ranked, near = np.where(wanted, influence, -np.inf), np.zeros_like(wanted)
        for top, axis in ((selection.top_per_train, 1), (selection.top_per_target, 0)):
            if top is not None:
                place = ranked.shape[axis] - min(top, ranked.shape[axis])
                near |= ranked >= np.partition(ranked, place, axis=axis).take([place], axis=axis)
        wanted &= near
    row, target = np.nonzero(wanted)
    columns = [inputs.train_index[rows[row]], target, counts[row, target], inputs.num_in[rows[row]]]
    return tile_result(np.stack(columns, axis=1).astype(np.int32), influence[row, target], selection)
