"""The bits that estimates count: one word for 64 trials, one row an example; packed in memory, or read from a store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from feldman.estimates.kernel import LANES, WORDS_AT_ONCE
from feldman.estimates.packing import WORD_BITS, gather_bits, pack_rows

__all__ = ["TrialBits", "in_lanes", "no_words", "pack_trials", "take_trials", "unpack_trials"]


@dataclass(frozen=True, kw_only=True)
class TrialBits:
    """Subsets and correctness of trials, packed.

    Bit k of an example's row (bit ``k % 64`` of word ``k // 64``) belongs to the k-th of these trials; bits beyond the last
    trial are 0.

    Attributes
    ----------
    num_trials
        How many trials.
    subset_mask, train_correct
        uint64 [train, word].
    test_correct
        uint64 [test, word].
    """

    num_trials: int
    subset_mask: UInt64[np.ndarray, "train word"]
    train_correct: UInt64[np.ndarray, "train word"]
    test_correct: UInt64[np.ndarray, "test word"]


def pack_trials(
    subset_mask: Bool[np.ndarray, "trial train"],
    train_correct: Bool[np.ndarray, "trial train"],
    test_correct: Bool[np.ndarray, "trial test"],
) -> TrialBits:
    """Pack trials that are in memory."""
    packed = []
    for rows in (subset_mask, train_correct, test_correct):
        words = no_words(rows.shape[1], len(rows))
        pack_rows(rows.view(np.uint8), 0, words)
        packed.append(words)
    return TrialBits(
        num_trials=len(subset_mask), subset_mask=packed[0], train_correct=packed[1], test_correct=packed[2]
    )


def unpack_trials(words: UInt64[np.ndarray, "example word"], num_trials: int) -> Bool[np.ndarray, "trial example"]:
    """Return the bits of trials as they were before packing."""
    return np.unpackbits(words.view(np.uint8), axis=1, count=num_trials, bitorder="little").T.astype(bool)


def take_trials(bits: TrialBits, trials: Int64[np.ndarray, " chosen"]) -> TrialBits:
    """Return the bits of some trials alone, in the order in which they are named: what a run of just these would have left.

    Parameters
    ----------
    bits
        Of all trials.
    trials
        Which, 0 .. num_trials - 1.
    """
    taken = []
    for words in (bits.subset_mask, bits.train_correct, bits.test_correct):
        gathered = no_words(len(words), len(trials))
        gather_bits(words, trials, gathered)
        taken.append(gathered)
    return TrialBits(num_trials=len(trials), subset_mask=taken[0], train_correct=taken[1], test_correct=taken[2])


def no_words(num_examples: int, num_trials: int) -> UInt64[np.ndarray, "example word"]:
    """Return words without a bit, as many as the kernel takes for so many trials."""
    num_words = -(-num_trials // (WORD_BITS * WORDS_AT_ONCE)) * WORDS_AT_ONCE
    return np.zeros((num_examples, num_words), np.uint64)


def in_lanes(words: UInt64[np.ndarray, "example word"]) -> UInt64[np.ndarray, "tile word lane"]:
    """Lay examples side by side for the kernel: as many a tile as it has lanes, word after word; missing ones are 0."""
    num_tiles = -(-len(words) // LANES)
    lanes = np.zeros((num_tiles, words.shape[1], LANES), np.uint64)
    for tile in range(num_tiles):
        examples = words[tile * LANES : (tile + 1) * LANES]
        lanes[tile, :, : len(examples)] = examples.T
    return lanes
