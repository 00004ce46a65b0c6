"""The bits that estimates count: one word for 64 trials, one row an example."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt64
from numpy.typing import NDArray

from feldman.errors import RunDirectoryError, command
from feldman.estimates.kernel import LANES, WORD_BITS, WORDS_AT_ONCE, pack_rows
from feldman.trials.integrity import Damage, find_small_damage, read_checked, refuse_damage
from feldman.trials.store import TrialStore

__all__ = ["TrialBits", "in_lanes", "pack_trials", "read_bits"]

_BLOCKS_AHEAD = 2
"""Blocks that are read and decoded while the one before them is packed."""


@dataclass(frozen=True, kw_only=True)
class TrialBits:
    """Subsets and correctness of the trials that are committed, packed.

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
        words = _no_words(rows.shape[1], len(rows))
        pack_rows(rows, 0, words)
        packed.append(words)
    return TrialBits(
        num_trials=len(subset_mask), subset_mask=packed[0], train_correct=packed[1], test_correct=packed[2]
    )


def read_bits(store: TrialStore, on_block: Callable[[int], None] = lambda block: None) -> TrialBits:
    """Read the bits of all committed blocks, a block at a time: (2 num_train + num_test) x num_trials / 8 bytes in all.

    Labels are looked at, and every block is compared with its checksums and the plan, on the way.

    Raises
    ------
    RunDirectoryError
        If no block is committed yet.
    CorruptStoreError
        If any committed block is damaged; none is left out silently.
    """
    damage, blocks, trial = find_small_damage(store), store.committed_blocks(), 0
    if not blocks:
        refuse_damage(store, damage)
        raise RunDirectoryError(
            f"'{store.path.parent}' has no committed trials yet; let it run on, or `{command('resume', store.path.parent)}`"
        )
    num_trials = store.num_trials_in(blocks)
    sizes = {"subset_mask": store.num_train, "train_correct": store.num_train, "test_correct": store.num_test}
    words = {name: _no_words(size, num_trials) for name, size in sizes.items()}
    with ThreadPoolExecutor(_BLOCKS_AHEAD) as threads:
        reading = deque[Future[tuple[dict[str, NDArray[Any]], list[Damage]]]]()
        for position, block in enumerate(blocks):
            while len(reading) <= _BLOCKS_AHEAD and position + len(reading) < len(blocks):
                ahead = blocks[position + len(reading)]
                reading.append(threads.submit(read_checked, store, ahead, every_trial=False))
            arrays, found = reading.popleft().result()
            damage += found
            if not found:
                for name, packed in words.items():
                    pack_rows(arrays[name], trial, packed)
            trial += len(store.experiment.subsets.block_trials(block))
            on_block(block)
    refuse_damage(store, damage)
    return TrialBits(num_trials=num_trials, **words)


def in_lanes(words: UInt64[np.ndarray, "example word"]) -> UInt64[np.ndarray, "tile word lane"]:
    """Lay examples side by side for the kernel: as many a tile as it has lanes, word after word; missing ones are 0."""
    num_tiles = -(-len(words) // LANES)
    padded = np.zeros((num_tiles * LANES, words.shape[1]), np.uint64)
    padded[: len(words)] = words
    return np.ascontiguousarray(padded.reshape(num_tiles, LANES, words.shape[1]).transpose(0, 2, 1))


def _no_words(num_examples: int, num_trials: int) -> NDArray[np.uint64]:
    num_words = -(-num_trials // (WORD_BITS * WORDS_AT_ONCE)) * WORDS_AT_ONCE
    return np.zeros((num_examples, num_words), np.uint64)
