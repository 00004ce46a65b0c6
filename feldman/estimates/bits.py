"""The bits that estimates count, read from a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer

from feldman.errors import RunDirectoryError
from feldman.trials.integrity import find_small_damage, read_checked, refuse_damage
from feldman.trials.store import TrialStore

__all__ = ["TrialBits", "read_bits"]


@dataclass(frozen=True, kw_only=True)
class TrialBits:
    """Subsets and correctness of the trials that are committed.

    Attributes
    ----------
    subset_mask, train_correct
        bool [trial, train].
    test_correct
        bool [trial, test].
    """

    subset_mask: Bool[np.ndarray, "trial train"]
    train_correct: Bool[np.ndarray, "trial train"]
    test_correct: Bool[np.ndarray, "trial test"]

    @property
    def num_trials(self) -> int:
        """Number of trials that estimates are made from."""
        return len(self.subset_mask)


def read_bits(store: TrialStore, on_block: Callable[[int], None] = lambda block: None) -> TrialBits:
    """Read the bits of all committed blocks: 1 byte a bit, num_trials x (2 num_train + num_test) bytes in all.

    Every block is compared with its checksums and the plan on the way.

    Raises
    ------
    RunDirectoryError
        If no block is committed yet.
    CorruptStoreError
        If any committed block is damaged; none is left out silently.
    """
    blocks = store.committed_blocks()
    if not blocks:
        raise RunDirectoryError(
            f"'{store.path.parent}' has no committed trials yet; let it run on, or `feldman resume {store.path.parent}`"
        )
    num_trials = store.num_trials_in(blocks)
    widths = {"subset_mask": store.num_train, "train_correct": store.num_train, "test_correct": store.num_test}
    bits = {name: np.empty((num_trials, width), dtype=bool) for name, width in widths.items()}
    damage, row = find_small_damage(store), 0
    for block in blocks:
        arrays, found = read_checked(store, block)
        damage += found
        stop = row + len(store.experiment.subsets.block_trials(block))
        if not found:
            for name, array in bits.items():
                array[row:stop] = arrays[name]
        row = stop
        on_block(block)
    refuse_damage(store, damage)
    return TrialBits(**bits)


def labels_of(store: TrialStore) -> tuple[Integer[np.ndarray, " train"], Integer[np.ndarray, " test"]]:
    """Return the labels of training and test examples.

    Raises
    ------
    CorruptStoreError
        If they cannot be read.
    """
    refuse_damage(store, find_small_damage(store))
    return store.labels("train"), store.labels("test")
