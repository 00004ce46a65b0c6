"""The kernel: how many trials had a training example and got a test example right, for whole tiles of pairs.

One AND, one population count and one addition per 64 trials and pair, all on vectors. Test examples lie side by side (one a lane,
word after word), so that a count ends in its lane and nothing is ever summed across a vector; four training examples share each
load of test words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt32, UInt64

from feldman.estimates.packing import compiled, popcount

__all__ = ["LANES", "SEGMENT_ROWS", "WORDS_AT_ONCE", "joint_counts", "select_counts"]

LANES = 128
"""Test examples side by side: sixteen AVX-512 vectors. Fewer lose speed to the loop's overhead."""

SEGMENT_ROWS = 64
"""Training examples that share a pass over the tests: with 4,000 trials their words fill the second-level cache no more than one
tile of tests does."""

SLACK = 1e-9
"""Pairs this close below a bound are looked at too; the exact comparison is made on their influence."""

ROWS_AT_ONCE = 4
WORDS_AT_ONCE = 4
"""Each load of test words serves four training examples, each load and store of a sum four words (the word axis is padded
with zeros to a multiple). With two training examples a load and 64 lanes, measured speed is two thirds of this."""


@compiled
def _count_rows(rows: Any, first: Any, tests: Any, sums: Any) -> Any:
    """Count four rows from ``first`` on (the last one again where there are fewer); return how many of them are new."""
    last = rows.shape[0] - 1
    a, b, c, d = rows[first], rows[min(first + 1, last)], rows[min(first + 2, last)], rows[min(first + 3, last)]
    for row in range(ROWS_AT_ONCE):
        for lane in range(LANES):
            sums[row, lane] = 0
    for word in range(0, tests.shape[0], WORDS_AT_ONCE):
        a0, a1, a2, a3 = a[word], a[word + 1], a[word + 2], a[word + 3]
        b0, b1, b2, b3 = b[word], b[word + 1], b[word + 2], b[word + 3]
        c0, c1, c2, c3 = c[word], c[word + 1], c[word + 2], c[word + 3]
        d0, d1, d2, d3 = d[word], d[word + 1], d[word + 2], d[word + 3]
        for lane in range(LANES):
            t0, t1 = tests[word, lane], tests[word + 1, lane]
            t2, t3 = tests[word + 2, lane], tests[word + 3, lane]
            sums[0, lane] += popcount(a0 & t0) + popcount(a1 & t1) + popcount(a2 & t2) + popcount(a3 & t3)
            sums[1, lane] += popcount(b0 & t0) + popcount(b1 & t1) + popcount(b2 & t2) + popcount(b3 & t3)
            sums[2, lane] += popcount(c0 & t0) + popcount(c1 & t1) + popcount(c2 & t2) + popcount(c3 & t3)
            sums[3, lane] += popcount(d0 & t0) + popcount(d1 & t1) + popcount(d2 & t2) + popcount(d3 & t3)
    return min(ROWS_AT_ONCE, last + 1 - first)


@compiled
def joint_counts(
    rows: UInt64[np.ndarray, "row word"],
    tests: UInt64[np.ndarray, "tile word lane"],
    counts: UInt32[np.ndarray, "row padded_test"],
) -> None:
    """Count the trials of each pair into ``counts``.

    Parameters
    ----------
    rows
        uint64 [row, word]: which trials had each training example.
    tests
        uint64 [tile, word, lane]: which trials got each test example right.
    counts
        uint32 [row, tile * lane], overwritten.
    """
    sums = np.zeros((ROWS_AT_ONCE, LANES), np.uint64)
    for tile in range(tests.shape[0]):
        for first in range(0, rows.shape[0], ROWS_AT_ONCE):
            for row in range(_count_rows(rows, first, tests[tile], sums)):
                for lane in range(LANES):
                    counts[first + row, tile * LANES + lane] = sums[row, lane]


@compiled
def select_counts(
    rows: UInt64[np.ndarray, "row word"],
    tests: UInt64[np.ndarray, "tile word lane"],
    segments: Int64[np.ndarray, "segment 4"],
    position: Int64[np.ndarray, " 2"],
    groups: Float64[np.ndarray, "row 2"],
    bounds: Float64[np.ndarray, "row 2"],
    own_lane: Int64[np.ndarray, " row"],
    totals: Float64[np.ndarray, "tile lane"],
    min_influence: float,
    row_tops: tuple[Float64[np.ndarray, "slot top"], Int32[np.ndarray, "slot top 2"]],
    lane_tops: tuple[
        Float64[np.ndarray, "padded_test top"],
        Int32[np.ndarray, "padded_test top 2"],
        Float64[np.ndarray, " padded_test"],
    ],
    found: Int32[np.ndarray, "capacity 3"],
) -> int:
    """Count pairs, and keep those that are selected: influence is computed where a count may reach what is asked, nowhere else.

    With n and m trials that had and had not the training example, c of the n right and t right in all, influence is
    c / n - (t - c) / m, in the same operations as `feldman.estimates.intervals.proportion_difference`: bounds are exact.

    Parameters
    ----------
    rows, tests
        As for `joint_counts`.
    segments
        int64 [segment, 4]: rows start .. stop (at most `SEGMENT_ROWS`) are counted with tiles start .. stop.
    position
        int64 [2], updated: the segment and tile to go on with. Done when the segment is past the last.
    groups
        float64 [row, 2]: n and m.
    bounds
        float64 [row, 2]: s = 1 / (1/n + 1/m) and s / m: influence reaches v where c >= s v + (s / m) t. NaN selects nothing.
    own_lane
        int64 [row]: a lane that is the example itself, which makes no pair; -1 for none.
    totals
        float64 [tile, lane]: t; NaN for a lane without a test example.
    min_influence
        Threshold, inclusive.
    row_tops
        Best influences of the rows of a segment, and their lanes and counts. No top is asked for where its length is 0.
    lane_tops
        The same of each lane, with rows and counts, and what a pair must exceed to enter; they live through all calls, and begin
        as -inf, -1 and any bound from below on what the top will hold in the end.
    found
        int32 [capacity, 3], overwritten with row, lane and count: pairs at the threshold where no top is asked for, and the tops
        of rows. Within a row lanes ascend, or influence descends if tops are asked for. Capacity is at least `SEGMENT_ROWS` x
        `LANES`, and `SEGMENT_ROWS` x the length of a row's top.

    Returns
    -------
    int
        How many were found; call again, with the same position, until done.
    """
    sums = np.zeros((ROWS_AT_ONCE, LANES), np.uint64)
    row_values, row_entries = row_tops
    lane_last = lane_tops[2]
    row_top, lane_top, num_found = row_values.shape[1], lane_tops[0].shape[1], 0
    while position[0] < segments.shape[0]:
        first, last, first_tile, tiles_end = segments[position[0]]
        if position[1] < 0:
            position[1] = first_tile
            row_values[:] = -np.inf
            row_entries[:] = -1
        while position[1] < tiles_end:
            if num_found + (last - first) * LANES > found.shape[0]:
                return num_found
            tile = position[1]
            for start in range(first, last, ROWS_AT_ONCE):
                for offset in range(_count_rows(rows[:last], start, tests[tile], sums)):
                    row = start + offset
                    scale, slope = bounds[row]
                    # What a row's and what a lane's top asks for; with both, the lower one.
                    asked = row_values[row - first, row_top - 1] if row_top else (np.inf if lane_top else -np.inf)
                    base = scale * (max(asked, min_influence) - SLACK)
                    hits = 0
                    for lane in range(LANES):
                        bound = base
                        if lane_top:
                            of_lane = max(lane_last[tile * LANES + lane], min_influence)
                            bound = min(base, scale * (of_lane - SLACK))
                        hits += np.float64(sums[offset, lane]) >= bound + slope * totals[tile, lane]
                    if hits:
                        corner = (row, row - first, tile * LANES, own_lane[row] - tile * LANES)
                        limits = (min_influence, scale, slope, base)
                        num_found = _keep_selected(
                            sums[offset],
                            totals[tile],
                            groups[row],
                            corner,
                            limits,
                            row_tops,
                            lane_tops,
                            found,
                            num_found,
                        )
            position[1] += 1
        if num_found + (last - first) * row_top > found.shape[0]:
            return num_found
        num_found = _hand_out(row_entries[: last - first], first, found, num_found)
        position[0] += 1
        position[1] = -1
    return num_found


@compiled
def _keep_selected(
    sums: Any,
    totals: Any,
    group: Any,
    corner: Any,
    limits: Any,
    row_tops: Any,
    lane_tops: Any,
    found: Any,
    num_found: Any,
) -> Any:
    """Compute the influences of one row with one tile, exactly, and keep the selected ones; return how many are found by then."""
    row_values, row_entries = row_tops
    lane_values, lane_entries, lane_last = lane_tops
    row_top, lane_top = row_values.shape[1], lane_values.shape[1]
    row, slot, first_lane, own_lane = corner
    min_influence, scale, slope, base = limits
    n, m = group
    for lane in range(LANES):
        count, number = np.float64(sums[lane]), first_lane + lane
        bound = min(base, scale * (max(lane_last[number], min_influence) - SLACK)) if lane_top else base
        if not count >= bound + slope * totals[lane]:  # most of them: no division
            continue
        influence = count / n - (totals[lane] - count) / m
        if not influence >= min_influence or lane == own_lane:
            continue
        if row_top and influence > row_values[slot, row_top - 1]:
            _insert(row_values[slot], row_entries[slot], influence, number, sums[lane])
        if lane_top and influence > lane_last[number]:
            _insert(lane_values[number], lane_entries[number], influence, row, sums[lane])
            lane_last[number] = max(lane_last[number], lane_values[number, lane_top - 1])
        if row_top == 0 and lane_top == 0:
            found[num_found, 0], found[num_found, 1], found[num_found, 2] = row, number, sums[lane]
            num_found += 1
    return num_found


@compiled
def _hand_out(row_entries: Any, first: Any, found: Any, num_found: Any) -> Any:
    """Write down the tops of rows, where they are filled; return how many are found by then."""
    for slot in range(row_entries.shape[0]):
        for place in range(row_entries.shape[1]):
            if row_entries[slot, place, 0] >= 0:
                found[num_found, 0] = first + slot
                found[num_found, 1], found[num_found, 2] = row_entries[slot, place, 0], row_entries[slot, place, 1]
                num_found += 1
    return num_found


@compiled
def _insert(values: Any, entries: Any, value: Any, number: Any, count: Any) -> None:
    """Put a pair into a top, best first, if it is better than the last one there; of equal ones the first stays before."""
    place = values.shape[0]
    while place > 0 and value > values[place - 1]:
        place -= 1
    for later in range(values.shape[0] - 1, place, -1):
        values[later] = values[later - 1]
        entries[later, 0], entries[later, 1] = entries[later - 1, 0], entries[later - 1, 1]
    if place < values.shape[0]:
        values[place] = value
        entries[place, 0], entries[place, 1] = number, count
