"""How many trials of a run are committed, counted without Zarr: importing it takes longer than a whole query."""

from __future__ import annotations

import json
from dataclasses import dataclass

from feldman.trials.locations import Location
from feldman.trials.reading_ahead import in_order, num_requests

__all__ = ["TrialCount", "count_trials"]

_COMMITTED = bytes.fromhex("0152d016a0")
"""A marker that counts, as it lies on disk: the byte 1 and the CRC-32C of it. A damaged one is none, as in `TrialStore`."""


@dataclass(frozen=True, kw_only=True)
class TrialCount:
    """How many trials there are to be, and how many are committed."""

    num_trials: int
    num_committed: int


def count_trials(store: Location) -> TrialCount | None:
    """Count the trials of a store as `TrialStore` does.

    Parameters
    ----------
    store
        The Zarr group of trials.

    Returns
    -------
    TrialCount or None
        None where there is no store, or none that can be read: what else is wrong with it, `feldman status` says.
    """
    try:
        attributes = json.loads((store / "zarr.json").read_bytes())["attributes"]
        subsets = attributes["experiment"]["subsets"]
        num_trials, block_size = int(subsets["num_trials"]), int(subsets["block_size"])
        firsts = range(0, num_trials, block_size)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    chunks = store / "committed" / "c"
    markers = in_order(lambda block: _content(chunks / str(block)), range(len(firsts)), num_requests(store))
    num_committed = sum(
        min(block_size, num_trials - first)
        for first, marker in zip(firsts, markers, strict=True)
        if marker == _COMMITTED
    )
    return TrialCount(num_trials=num_trials, num_committed=num_committed)


def _content(marker: Location) -> bytes:
    try:
        return marker.read_bytes()
    except OSError:
        return b""
