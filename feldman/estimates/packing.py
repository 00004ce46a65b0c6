"""Bits in words: 64 trials a word, one row an example. The compiled functions that pack and count them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8, UInt64
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "WORD_BITS",
    "add_weights",
    "compiled",
    "count_bits",
    "count_listed",
    "count_trials",
    "gather_bits",
    "pack_rows",
    "popcount",
]

WORD_BITS = 64


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, for threads without Python's lock; its code is kept on disk.

    Where no folder for it can be written (a read-only package, no home), it is compiled anew by every process.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)


def _popcount(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    """Tell Numba to use the instruction, on whole vectors where the processor has it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)]), arguments)

    return types.uint64(types.uint64), codegen


popcount: Any = intrinsic(_popcount)
"""The processor's own count of a word's bits, inside compiled functions."""


@compiled
def pack_rows(rows: UInt8[np.ndarray, "trial example"], start: int, words: UInt64[np.ndarray, "example word"]) -> None:
    """Set the bits of some trials: bit ``start + k`` of example j from ``rows[k, j]``, 0 or 1.

    Eight trials are put into a byte first, many examples a vector; then bytes into words.
    """
    columns = 512  # their bytes stay in the first-level cache
    planes = np.empty((8, columns), np.uint8)
    num_rows, num_examples = rows.shape
    for low in range(0, num_examples, columns):
        width = min(columns, num_examples - low)
        row = 0
        while row < num_rows:
            bit, word = (start + row) % WORD_BITS, (start + row) // WORD_BITS
            stop = min(num_rows, row + WORD_BITS - bit)
            planes[:] = 0
            for k in range(row, stop):
                place = bit + k - row
                plane, shift = planes[place >> 3], np.uint8(place & 7)
                source = rows[k, low : low + width]
                for j in range(width):
                    plane[j] |= np.uint8(source[j] << shift)
            for j in range(width):
                value = np.uint64(0)
                for byte in range(8):
                    value |= np.uint64(planes[byte, j]) << np.uint64(8 * byte)
                words[low + j, word] |= value
            row = stop


@compiled
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


@compiled
def count_listed(
    first: UInt64[np.ndarray, "example word"],
    second: UInt64[np.ndarray, "other word"],
    first_index: Int64[np.ndarray, " pair"],
    second_index: Int64[np.ndarray, " pair"],
) -> Int64[np.ndarray, " pair"]:
    """Count the trials that are in both sets of each listed pair; no words are copied."""
    counts = np.zeros(first_index.shape[0], np.int64)
    for pair in range(first_index.shape[0]):
        a, b = first[first_index[pair]], second[second_index[pair]]
        total = np.uint64(0)
        for word in range(first.shape[1]):
            total += popcount(a[word] & b[word])
        counts[pair] = total
    return counts


@compiled
def gather_bits(
    words: UInt64[np.ndarray, "example word"],
    trials: Int64[np.ndarray, " chosen"],
    gathered: UInt64[np.ndarray, "example some"],
) -> None:
    """Set bit k of each example's row of ``gathered``, all 0 before, from the bit of the k-th chosen trial.

    A word is put together in a register: that takes a third of the time of setting its bits in memory.
    """
    num_words = -(-trials.shape[0] // WORD_BITS)
    for example in range(words.shape[0]):
        row = words[example]
        for word in range(num_words):
            value = np.uint64(0)
            for bit in range(min(WORD_BITS, trials.shape[0] - WORD_BITS * word)):
                trial = trials[WORD_BITS * word + bit]
                value |= ((row[trial >> 6] >> np.uint64(trial & 63)) & np.uint64(1)) << np.uint64(bit)
            gathered[example, word] = value


@compiled
def count_trials(words: UInt64[np.ndarray, "example word"], num_trials: int) -> Int64[np.ndarray, " trial"]:
    """Count the examples that each trial has its bit set for."""
    counts = np.zeros(num_trials, np.int64)
    for example in range(words.shape[0]):
        for trial in range(num_trials):
            counts[trial] += np.int64((words[example, trial >> 6] >> np.uint64(trial & 63)) & np.uint64(1))
    return counts


@compiled
def add_weights(
    words: UInt64[np.ndarray, "example word"], weights: Int64[np.ndarray, " trial"]
) -> Int64[np.ndarray, " example"]:
    """Add up, for each example, the weights of the trials whose bit it has."""
    sums = np.zeros(words.shape[0], np.int64)
    for example in range(words.shape[0]):
        for trial in range(weights.shape[0]):
            sums[example] += weights[trial] * np.int64(
                (words[example, trial >> 6] >> np.uint64(trial & 63)) & np.uint64(1)
            )
    return sums
