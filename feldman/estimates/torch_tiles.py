"""Count tiles on a GPU: bits are unpacked on the device and multiplied as matrices of zeros and ones. Counts are exact.

The only module of this room that imports torch, and only when a device is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import UInt32, UInt64
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.packing import WORD_BITS
from feldman.estimates.tiles import TileInputs, TileResult, pair_influence, segments_of, tile_result

__all__ = ["check_device", "prepare_counting", "prepare_selecting"]

_TRIALS_AT_ONCE = 2048
"""Half precision counts to 2,048 without a gap: products of so many trials are exact, whatever their partial sums' precision."""

_ROWS_AT_ONCE = 1024
_LANE_TILES_AT_ONCE = 32
"""A product of 1,024 x 4,096 pairs: some 100 MB on the device with its influences in double precision."""


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises
    ------
    QueryError
        Saying what there is.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise QueryError(
            f"device '{device}' cannot be used ({str(error).splitlines()[0]}); this machine has "
            f"{', '.join(['cpu', *there])}"
        ) from None


def prepare_selecting(device: str, inputs: TileInputs, precision: str = "auto") -> Callable[[int], TileResult]:
    """Make the task that selects a tile's pairs; the same as `feldman.estimates.kernel_tiles` finds.

    Parameters
    ----------
    device
        A torch device.
    inputs
        What is counted.
    precision
        ``"float16"``, ``"float32"``, or ``"auto"``: half precision on a GPU. All are exact.
    """
    dtype = _count_dtype(device, precision)
    return lambda tile: _select_tile(inputs, tile, torch.device(device), dtype)


def prepare_counting(
    device: str, inputs: TileInputs, precision: str = "auto"
) -> Callable[[int], UInt32[np.ndarray, "row target"]]:
    """Make the task that counts all pairs of a tile; as `feldman.estimates.kernel_tiles.prepare_counting`."""
    dtype, targets = _count_dtype(device, precision), inputs.targets

    def count_tile(tile: int) -> UInt32[np.ndarray, "row target"]:
        rows = inputs.rows_of(tile)
        have = _unpacked(inputs.masks[rows.start : rows.stop], torch.device(device), dtype)
        parts = []
        for first in range(0, len(targets.words), _LANE_TILES_AT_ONCE):
            right = _unpacked_lanes(targets.words[first : first + _LANE_TILES_AT_ONCE], torch.device(device), dtype)
            parts.append(_joint_counts(have, right).cpu().numpy().astype(np.uint32))
        return np.concatenate(parts, axis=1)[:, targets.target >= 0]

    return count_tile


def _count_dtype(device: str, precision: str) -> torch.dtype:
    if precision == "auto":
        return torch.float32 if device == "cpu" else torch.float16
    return {"float16": torch.float16, "float32": torch.float32}[precision]


def _select_tile(inputs: TileInputs, tile: int, device: torch.device, dtype: torch.dtype) -> TileResult:
    rows, segments = segments_of(inputs, tile, _ROWS_AT_ONCE)
    parts = [np.empty((0, 4), np.int32)]
    for start, stop, first, end in segments:
        chosen = rows[start:stop]
        have = _unpacked(inputs.masks[chosen], device, dtype)
        for low in range(first, end, _LANE_TILES_AT_ONCE):
            high = min(low + _LANE_TILES_AT_ONCE, end)
            counts = _joint_counts(have, _unpacked_lanes(inputs.targets.words[low:high], device, dtype))
            row, lane = _near_selection(inputs, chosen, range(low, high), counts)
            found = counts[row, lane].cpu().numpy()
            lanes = lane.cpu().numpy() + low * inputs.targets.words.shape[2]
            parts.append(inputs.pairs_of(chosen[row.cpu().numpy()], lanes, found))
    pairs = np.concatenate(parts)
    return tile_result(pairs, pair_influence(pairs, inputs.targets.by_target, inputs.num_trials), inputs.selection)


def _near_selection(
    inputs: TileInputs, rows: NDArray[np.int64], lane_tiles: range, counts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and lanes of the pairs that pass the thresholds and may be in a top: equal ones are told apart later."""
    selection, device = inputs.selection, counts.device
    num_in = torch.tensor(inputs.num_in[rows], dtype=torch.float64, device=device)[:, None]
    totals = inputs.targets.totals[lane_tiles.start : lane_tiles.stop].ravel()
    total = torch.tensor(totals, dtype=torch.float64, device=device)
    influence = counts / num_in - (total - counts) / (inputs.num_trials - num_in)
    own = inputs.own_lane[rows] - lane_tiles.start * inputs.targets.words.shape[2]
    here = np.flatnonzero((own >= 0) & (own < counts.shape[1]))
    influence[torch.tensor(here, device=device), torch.tensor(own[here], device=device)] = torch.nan
    wanted = influence >= selection.min_influence
    if selection.has_tops:
        ranked = torch.where(wanted, influence, -torch.inf)
        near = torch.zeros_like(wanted)
        for top, axis in ((selection.top_per_train, 1), (selection.top_per_target, 0)):
            if top is not None:
                last = ranked.topk(min(top, ranked.shape[axis]), dim=axis).values.amin(dim=axis, keepdim=True)
                near |= ranked >= last
        wanted &= near
    row, lane = torch.nonzero(wanted, as_tuple=True)
    return row, lane


def _joint_counts(have: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Count trials of each row with each lane: int32 [row, lane]."""
    counts = torch.zeros((len(have), right.shape[1]), dtype=torch.int32, device=have.device)
    for start in range(0, have.shape[1], _TRIALS_AT_ONCE):
        trials = slice(start, start + _TRIALS_AT_ONCE)
        counts += (have[:, trials] @ right[trials]).to(torch.int32)
    return counts


def _unpacked(words: UInt64[np.ndarray, "row word"], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Unpack words into [row, trial] of zeros and ones."""
    return _bits_of(words, device).reshape(len(words), -1).to(dtype)


def _unpacked_lanes(
    words: UInt64[np.ndarray, "tile word lane"], device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Unpack words into [trial, lane of all tiles] of zeros and ones."""
    bits = _bits_of(words, device)  # [tile, word, lane, bit]
    return bits.permute(1, 3, 0, 2).reshape(words.shape[1] * WORD_BITS, -1).to(dtype)


def _bits_of(words: NDArray[np.uint64], device: torch.device) -> torch.Tensor:
    """Return each word's bits along a new last axis."""
    # A copy: the arrays may lie in memory that other processes share, and a tensor made from one would let itself be written.
    packed = torch.tensor(words.astype("<u8").view(np.uint8).reshape(*words.shape, 8)).to(device)
    places = torch.arange(8, dtype=torch.uint8, device=device)
    return ((packed[..., None] >> places) & 1).reshape(*words.shape, WORD_BITS)
