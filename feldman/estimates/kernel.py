"""The kernel: how many trials had a training example and got a test example right, for whole tiles of pairs.

One AND, one population count and one addition per 64 trials and pair, all on vectors. Test examples lie side by side (one a lane,
word after word), so that a count ends in its lane and nothing is ever summed across a vector; four training examples share each
load of test words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt32, UInt64
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "LANES",
    "WORDS_AT_ONCE",
    "WORD_BITS",
    "count_bits",
    "joint_counts",
    "pack_rows",
    "popcount",
    "select_counts",
]

WORD_BITS = 64
LANES = 128
"""Test examples side by side: sixteen AVX-512 vectors. Fewer lose speed to the loop's overhead."""

ROWS_AT_ONCE = 4
WORDS_AT_ONCE = 4
"""Each load of test words serves four training examples, each load and store of a sum four words (the word axis is padded
with zeros to a multiple). With two training examples a load and 64 lanes, measured speed is two thirds of this."""


def _popcount(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    """Tell Numba to use the instruction, on whole vectors where the processor has it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)]), arguments)

    return types.uint64(types.uint64), codegen


popcount: Any = intrinsic(_popcount)
"""The processor's own count of a word's bits, inside compiled functions."""


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def select_counts(
    rows: UInt64[np.ndarray, "row word"],
    tests: UInt64[np.ndarray, "tile word lane"],
    bounds: Float64[np.ndarray, "row 2"],
    totals: Float64[np.ndarray, "tile lane"],
    found: Int64[np.ndarray, "capacity 3"],
) -> int:
    """Find the pairs whose count reaches ``bounds[row, 0] + bounds[row, 1] * totals[test]``.

    Parameters
    ----------
    rows, tests
        As for `joint_counts`.
    bounds
        float64 [row, 2]; NaN selects nothing.
    totals
        float64 [tile, lane]: trials that got each test example right.
    found
        int64 [capacity, 3], overwritten with row, test and count; capacity at least rows x tests.

    Returns
    -------
    int
        How many were found.
    """
    sums = np.zeros((ROWS_AT_ONCE, LANES), np.uint64)
    num_found = 0
    for tile in range(tests.shape[0]):
        for first in range(0, rows.shape[0], ROWS_AT_ONCE):
            for row in range(_count_rows(rows, first, tests[tile], sums)):
                base, slope = bounds[first + row, 0], bounds[first + row, 1]
                hits = 0
                for lane in range(LANES):
                    hits += np.float64(sums[row, lane]) >= base + slope * totals[tile, lane]
                if hits == 0:
                    continue
                for lane in range(LANES):
                    if np.float64(sums[row, lane]) >= base + slope * totals[tile, lane]:
                        found[num_found, 0] = first + row
                        found[num_found, 1] = tile * LANES + lane
                        found[num_found, 2] = sums[row, lane]
                        num_found += 1
    return num_found


@njit(nogil=True, cache=True)
def pack_rows(rows: Bool[np.ndarray, "trial example"], start: int, words: UInt64[np.ndarray, "example word"]) -> None:
    """Set the bits of some trials: bit ``start + k`` of example j from ``rows[k, j]``."""
    columns = 512  # their sums stay in the first-level cache
    sums = np.empty(columns, np.uint64)
    num_rows, num_examples = rows.shape
    for low in range(0, num_examples, columns):
        width = min(columns, num_examples - low)
        row = 0
        while row < num_rows:
            bit, word = (start + row) % WORD_BITS, (start + row) // WORD_BITS
            stop = min(num_rows, row + WORD_BITS - bit)
            sums[:width] = 0
            for k in range(row, stop):
                shift = np.uint64(bit + k - row)
                for j in range(width):
                    sums[j] |= np.uint64(rows[k, low + j]) << shift
            for j in range(width):
                words[low + j, word] |= sums[j]
            row = stop


@njit(nogil=True, cache=True)
def count_bits(
    first: UInt64[np.ndarray, "example word"], second: UInt64[np.ndarray, "example word"]
) -> Int64[np.ndarray, " example"]:
    """Count the trials that are in both of two sets, example by example."""
    counts = np.zeros(first.shape[0], np.int64)
    for example in range(first.shape[0]):
        total = np.uint64(0)
        for word in range(first.shape[1]):
            total += popcount(first[example, word] & second[example, word])
        counts[example] = total
    return counts
