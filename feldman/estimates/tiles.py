"""Tiles: the unit in which pairs are counted, on threads or on a cluster. A tile is some training examples, with all targets.

A tile's result is a pure function of its inputs and its number. It says of each pair four integers, from which its estimate
follows: training example, target, trials that had the one and got the other right, trials that had the one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, Integer, UInt64
from numpy.typing import NDArray

from feldman.estimates.bits import in_lanes
from feldman.estimates.kernel import LANES, SEGMENT_ROWS
from feldman.estimates.packing import count_bits
from feldman.estimates.selection import PairSelection

__all__ = [
    "TargetLanes",
    "TileInputs",
    "TileResult",
    "best_pairs",
    "pair_influence",
    "rate_difference",
    "segments_of",
    "target_lanes",
    "tile_result",
]

_MAX_TILE_ROWS = 16_384
_TILE_BYTES = 2**29
"""What the pairs of a tile may take where many are selected."""

_MANY_PASS = 0.05
"""Influence is noise of about this size at 2,000 trials: lower thresholds let a good part of all pairs pass."""

_TILES_A_WORKER = 8
"""So many at least, where there are enough examples: the last worker ends soon after the first."""


@dataclass(frozen=True, kw_only=True)
class TargetLanes:
    """The examples whose predictions are influenced, as the kernel takes them.

    Attributes
    ----------
    words
        uint64 [tile, word, lane]: which trials got each right.
    target
        int64 [tile * lane]: which example lies in a lane; -1 for none.
    totals
        float64 [tile, lane]: trials that got it right; NaN for none.
    label_tiles
        int64 [label, 2]: first tile and end of the tiles with the examples of a label; None where labels do not matter.
    """

    words: UInt64[np.ndarray, "tile word lane"]
    target: Int64[np.ndarray, " padded_target"]
    totals: Float64[np.ndarray, "tile lane"]
    label_tiles: Int64[np.ndarray, "label 2"] | None

    @property
    def by_target(self) -> Float64[np.ndarray, " target"]:
        """Return the totals in the order of targets."""
        filled = self.target >= 0
        totals = np.empty(int(filled.sum()))
        totals[self.target[filled]] = self.totals.ravel()[filled]
        return totals


def target_lanes(
    correct: UInt64[np.ndarray, "target word"], labels: Integer[np.ndarray, " target"] | None = None
) -> TargetLanes:
    """Lay targets side by side; with labels, each class in tiles of its own."""
    if labels is None:
        order, label_tiles = np.arange(len(correct)), None
    else:
        num_labels = int(labels.max(initial=-1)) + 1
        sizes = -(-np.bincount(labels, minlength=num_labels) // LANES)
        ends = np.cumsum(sizes)
        label_tiles = np.stack([ends - sizes, ends], axis=1)
        order = np.full(int(sizes.sum()) * LANES, -1)
        for label, first in enumerate(label_tiles[:, 0]):
            members = np.flatnonzero(labels == label)
            order[first * LANES : first * LANES + len(members)] = members
    padded = np.full(-(-len(order) // LANES) * LANES, -1)
    padded[: len(order)] = order
    words = np.where((padded >= 0)[:, None], correct[padded], np.uint64(0)) if labels is not None else correct
    totals = np.where(padded >= 0, count_bits(correct, correct)[padded].astype(np.float64), np.nan)
    return TargetLanes(words=in_lanes(words), target=padded, totals=totals.reshape(-1, LANES), label_tiles=label_tiles)


@dataclass(frozen=True, kw_only=True)
class TileInputs:
    """What a worker needs to count any tile. Arrays may be shared, read-only.

    Attributes
    ----------
    num_trials
        How many trials.
    selection
        Which pairs are kept.
    targets
        The examples whose predictions are influenced.
    train_index
        int64 [row]: which training examples, ascending.
    masks
        uint64 [row, word]: which trials had them.
    num_in
        int64 [row]: how many trials that are.
    row_label
        int64 [row].
    own_lane
        int64 [row]: the lane in which an example lies itself, where targets are training examples; else -1.
    asked
        float64 [padded_target]: influence that the top of each target is known to ask for, from tiles of other inputs.
    tile_rows
        Training examples a tile.
    """

    num_trials: int
    selection: PairSelection
    targets: TargetLanes
    train_index: Int64[np.ndarray, " row"]
    masks: UInt64[np.ndarray, "row word"]
    num_in: Int64[np.ndarray, " row"]
    row_label: Int64[np.ndarray, " row"]
    own_lane: Int64[np.ndarray, " row"]
    asked: Float64[np.ndarray, " padded_target"]
    tile_rows: int

    @classmethod
    def balanced(
        cls,
        *,
        num_trials: int,
        selection: PairSelection,
        targets: TargetLanes,
        train_index: Int64[np.ndarray, " row"],
        masks: UInt64[np.ndarray, "row word"],
        row_label: Integer[np.ndarray, " row"],
        num_workers: int,
        asked: Float64[np.ndarray, " target"] | None = None,
    ) -> TileInputs:
        """Cut the rows into tiles that keep so many workers busy. ``asked`` is in the order of targets; by default nothing is."""
        rows = -(-len(train_index) // (_TILES_A_WORKER * num_workers * SEGMENT_ROWS)) * SEGMENT_ROWS
        most = _MAX_TILE_ROWS
        if selection.top_per_target is not None:  # a tile's tops of targets: 16 bytes an entry
            most = min(most, _TILE_BYTES // (16 * len(targets.target)))
        elif selection.top_per_train is None and selection.min_influence < _MANY_PASS:
            most = min(most, _TILE_BYTES // (64 * len(targets.target)))
        return cls(
            num_trials=num_trials,
            selection=selection,
            targets=targets,
            train_index=train_index,
            masks=masks,
            num_in=count_bits(masks, masks),
            row_label=row_label.astype(np.int64),
            own_lane=_own_lanes(targets, train_index, selection),
            asked=np.full(len(targets.target), -np.inf)
            if asked is None
            else np.where(targets.target >= 0, asked[targets.target], np.inf),
            tile_rows=max(min(rows, most // SEGMENT_ROWS * SEGMENT_ROWS), SEGMENT_ROWS),
        )

    @property
    def num_tiles(self) -> int:
        """How many tiles there are."""
        return -(-len(self.train_index) // self.tile_rows)

    def pairs_of(
        self, rows: Integer[np.ndarray, " pair"], lanes: Integer[np.ndarray, " pair"], counts: NDArray[np.integer]
    ) -> Int32[np.ndarray, "pair 4"]:
        """Return pairs of rows and lanes with their counts as a tile's result has them."""
        columns = [self.train_index[rows], self.targets.target[lanes], counts, self.num_in[rows]]
        return np.stack(columns, axis=1).astype(np.int32)

    def rows_of(self, tile: int) -> range:
        """Return which rows a tile has."""
        return range(tile * self.tile_rows, min((tile + 1) * self.tile_rows, len(self.train_index)))


@dataclass(frozen=True, kw_only=True)
class TileResult:
    """The selected pairs of a tile: int32 [pair, 4] of training example, target, joint count and in-count.

    Attributes
    ----------
    chosen
        Pairs that are selected whatever other tiles hold, ordered by training example and target.
    contenders
        Pairs in the tops of targets among this tile's pairs; which of them stay is decided when all tiles are there.
    """

    chosen: Int32[np.ndarray, "pair 4"]
    contenders: Int32[np.ndarray, "contender 4"]


def _own_lanes(
    targets: TargetLanes, train_index: NDArray[np.int64], selection: PairSelection
) -> Int64[np.ndarray, " row"]:
    if selection.targets == "test":
        return np.full(len(train_index), -1)
    lane_of = np.full(len(targets.target), -1)
    filled = np.flatnonzero(targets.target >= 0)
    lane_of[targets.target[filled]] = filled
    own: NDArray[np.int64] = lane_of[train_index]
    return own


def segments_of(
    inputs: TileInputs, tile: int, most_rows: int
) -> tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, "segment 4"]]:
    """Say which rows of a tile are counted with which tiles of targets.

    Returns
    -------
    order
        int64 [row]: the tile's rows, those of one label side by side if labels matter.
    segments
        int64 [segment, 4]: places start .. stop in ``order``, at most ``most_rows``, and tiles of targets start .. stop.
    """
    rows = np.array(inputs.rows_of(tile), np.int64)
    label_tiles = inputs.targets.label_tiles
    if label_tiles is None:
        runs = [(0, len(rows), 0, len(inputs.targets.words))]
    else:
        labels = inputs.row_label[rows]
        known = labels < len(label_tiles)  # others have no target of their class
        rows = rows[known][np.argsort(labels[known], kind="stable")]
        labels, starts = np.unique(inputs.row_label[rows], return_index=True)
        ends = [*starts[1:], len(rows)][: len(starts)]  # none, if no row is left
        runs = [(start, end, *label_tiles[label]) for label, start, end in zip(labels, starts, ends, strict=True)]
    segments = [
        (low, min(low + most_rows, stop), first, end)
        for start, stop, first, end in runs
        for low in range(start, stop, most_rows)
    ]
    return rows, np.array(segments, np.int64).reshape(-1, 4)


def pair_influence(
    pairs: Int32[np.ndarray, "pair 4"], totals: Float64[np.ndarray, " target"], num_trials: int
) -> Float64[np.ndarray, " pair"]:
    """Return the influence of pairs."""
    count, num_in = pairs[:, 2].astype(np.float64), pairs[:, 3].astype(np.float64)
    return rate_difference(count, num_in, totals[pairs[:, 1]], num_trials)


def rate_difference(
    joint: NDArray[Any], num_in: NDArray[np.float64], totals: NDArray[np.float64], num_trials: int
) -> NDArray[np.float64]:
    """Return influences, in the operations of `feldman.estimates.intervals.proportion_difference`; NaN where a group is empty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        influence: NDArray[np.float64] = joint / num_in - (totals - joint) / (num_trials - num_in)
    return influence


def best_pairs(
    pairs: Int32[np.ndarray, "pair 4"], influence: Float64[np.ndarray, " pair"], *, of_target: bool, top: int
) -> NDArray[np.bool_]:
    """Tell which pairs are among the best of their target, or of their training example; equal ones by the lower other index."""
    group, other = (pairs[:, 1], pairs[:, 0]) if of_target else (pairs[:, 0], pairs[:, 1])
    order = np.lexsort((other, -influence, group))
    sorted_group = group[order]
    starts = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    best = np.zeros(len(pairs), bool)
    best[order[rank < top]] = True
    return best


def tile_result(
    pairs: Int32[np.ndarray, "pair 4"], influence: Float64[np.ndarray, " pair"], selection: PairSelection
) -> TileResult:
    """Make a tile's result of pairs that pass the thresholds, and among which those in the tops are."""
    order, none = np.lexsort((pairs[:, 1], pairs[:, 0])), np.empty((0, 4), np.int32)
    pairs, influence = pairs[order], influence[order]
    if not selection.has_tops:
        return TileResult(chosen=pairs, contenders=none)
    of_train, of_target = (
        none if top is None else pairs[best_pairs(pairs, influence, of_target=is_target, top=top)]
        for top, is_target in ((selection.top_per_train, False), (selection.top_per_target, True))
    )
    return TileResult(chosen=of_train, contenders=of_target)
