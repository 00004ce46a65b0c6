"""Read the bits of a store: chunks are decoded and compared with the plan in threads, while those before them are packed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import UInt64
from numpy.typing import NDArray

from feldman.errors import RunDirectoryError, command
from feldman.estimates.bits import TrialBits, no_words
from feldman.estimates.packing import pack_rows
from feldman.estimates.selection import Targets
from feldman.trials.executor import usable_cores
from feldman.trials.integrity import Damage, find_small_damage, refuse_damage
from feldman.trials.layout import TRIAL_ARRAYS
from feldman.trials.store import TrialStore

__all__ = ["BitReader", "read_bits"]

_PANEL_BYTES = 32 * 2**20
"""Packed bits of training examples held at once, whatever the size of the training set; a column of chunks at least."""

_AHEAD = 2
"""Blocks, for each thread, that are read and decoded while those before them are packed."""

_Read = tuple[int, dict[str, NDArray[Any]], list[Damage]]


class BitReader:
    """Reads the bits of committed blocks, a panel of training examples at a time.

    Every chunk is compared with its checksum, the first subset and the seeds of every block with the plan, and, once all panels
    have been read, accuracies with the bits: a chunk that belongs to another block has a valid checksum too.

    Parameters
    ----------
    store
        The store.
    blocks
        Which committed blocks; by default all.
    on_chunks
        Told how many more chunks of examples have been read.

    Attributes
    ----------
    blocks
        Those blocks.
    num_trials
        Trials in them.

    Raises
    ------
    RunDirectoryError
        If no block is committed yet, or subsets were designed.
    CorruptStoreError
        If labels or a marker are damaged.
    """

    def __init__(
        self,
        store: TrialStore,
        blocks: list[int] | None = None,
        on_chunks: Callable[[int], None] = lambda count: None,
    ) -> None:
        store.check_random()
        refuse_damage(store, find_small_damage(store))
        self._store, self._on_chunks = store, on_chunks
        self._num_threads = max(usable_cores(), store.num_requests)
        self._threads = ThreadPoolExecutor(self._num_threads)  # end with the reader
        self.blocks = store.committed_blocks() if blocks is None else blocks
        if not store.committed_blocks():
            raise RunDirectoryError(
                f"'{store.path.parent}' has no committed trials yet; let it run on, or "
                f"`{command('resume', store.path.parent)}`"
            )
        self._starts: dict[int, int] = {}
        self.num_trials = 0
        for block in self.blocks:
            self._starts[block] = self.num_trials
            self.num_trials += len(store.experiment.subsets.block_trials(block))
        self._width = store.array("subset_mask").chunks[1]
        self._num_columns = -(-store.num_train // self._width)
        self._num_test_columns = -(-store.num_test // store.array("test_correct").chunks[1])
        self._planned: dict[int, NDArray[np.uint8]] = {}
        self._right = {name: np.zeros(self.num_trials, np.int64) for name in ("train", "test")}
        self._num_in = np.zeros(self.num_trials, np.int64)

    def num_chunks(self, targets: Targets = "test") -> int:
        """Return how many chunks of examples are read for pairs with these targets."""
        passes = 2 if targets == "train" else 1
        return len(self.blocks) * (passes * self._num_columns + self._num_test_columns)

    def panels(self, whole: bool = False) -> list[range]:
        """Return runs of training examples to be read together; all at once if ``whole``."""
        bytes_a_column = 2 * self._width * no_words(1, self.num_trials).nbytes
        columns = self._num_columns if whole else max(1, _PANEL_BYTES // max(bytes_a_column, 1))
        step, total = columns * self._width, self._store.num_train
        return [range(start, min(start + step, total)) for start in range(0, total, step)]

    def read_test(self) -> UInt64[np.ndarray, "test word"]:
        """Read which trials got each test example right.

        Raises
        ------
        CorruptStoreError
            If a chunk is damaged.
        """
        words = no_words(self._store.num_test, self.num_trials)
        for block, correct in self._read_all("test_correct", self._num_test_columns):
            self._pack(correct, block, words)
            self._right["test"][self._rows(block)] += _count_right(correct)
        return words

    def read_train_correct(self) -> UInt64[np.ndarray, "train word"]:
        """Read which trials got each training example right, of all training examples at once.

        Raises
        ------
        CorruptStoreError
            If a chunk is damaged.
        """
        words = no_words(self._store.num_train, self.num_trials)
        for block, correct in self._read_all("train_correct", self._num_columns):
            self._pack(correct, block, words)
        return words

    def _read_all(self, name: str, num_columns: int) -> Iterator[tuple[int, NDArray[Any]]]:
        def read(block: int) -> _Read:
            try:
                return block, {name: self._store.read(name, block)}, []
            except ValueError as error:
                return block, {}, [Damage(block=block, array=name, problem=str(error))]

        damage = []
        for block, arrays, found in self._ahead(read):
            damage += found
            if not found:
                yield block, arrays[name]
            self._on_chunks(num_columns)
        refuse_damage(self._store, damage)

    def read_train(self, panel: range) -> tuple[UInt64[np.ndarray, "panel word"], UInt64[np.ndarray, "panel word"]]:
        """Read the subsets and which trials got each training example right, of one of `panels`.

        Raises
        ------
        CorruptStoreError
            If a chunk is damaged, or no subset of the plan.
        """
        mask, correct = (no_words(len(panel), self.num_trials) for _ in range(2))
        columns = range(panel.start // self._width, -(-panel.stop // self._width))
        damage = []
        for column in columns:
            low = column * self._width - panel.start
            part = slice(low, low + self._width)
            for block, arrays, found in self._ahead(partial(self._read_column, column)):
                damage += found
                if not found:
                    self._pack(arrays["subset_mask"], block, mask[part])
                    self._pack(arrays["train_correct"], block, correct[part])
                    self._num_in[self._rows(block)] += arrays["num_in"]
                    self._right["train"][self._rows(block)] += arrays["num_right"]
                self._on_chunks(1)
        refuse_damage(self._store, damage)
        return mask, correct

    def finish(self) -> None:
        """Compare what is recorded of each trial with what was read of it, once all of it was.

        Raises
        ------
        CorruptStoreError
            If seeds are not those of the plan, or accuracies not those of the bits.
        """
        damage, subsets, plan = [], self._store.experiment.subsets, self._store.plan
        for block in self.blocks:
            rows = self._rows(block)
            expected = {
                "train_accuracy": (_share(self._right["train"][rows], self._num_in[rows]), "its bits"),
                "test_accuracy": (_share(self._right["test"][rows], self._store.num_test), "its bits"),
            }
            if plan is not None:
                expected["trial_seed"] = (plan.seeds(subsets.block_trials(block)), "the plan of the seed")
            for name in TRIAL_ARRAYS:
                try:
                    recorded = self._store.read(name, block)
                except ValueError as error:
                    damage.append(Damage(block=block, array=name, problem=str(error)))
                    continue
                if name in expected and not np.array_equal(recorded, expected[name][0]):
                    problem = f"{name} of block {block} differs from {expected[name][1]}"
                    damage.append(Damage(block=block, array=name, problem=problem))
        refuse_damage(self._store, damage)

    def _ahead(self, read: Callable[[int], _Read]) -> Iterator[_Read]:
        """Read the blocks in threads, some ahead of the one that is handed out; in their order."""
        waiting = iter(self.blocks)
        reading = deque[Future[_Read]](
            self._threads.submit(read, block) for block in islice(waiting, _AHEAD * self._num_threads)
        )
        while reading:
            result = reading.popleft().result()
            reading.extend(self._threads.submit(read, block) for block in islice(waiting, 1))
            yield result

    def _rows(self, block: int) -> slice:
        start = self._starts[block]
        return slice(start, start + len(self._store.experiment.subsets.block_trials(block)))

    def _pack(self, bits: NDArray[Any], block: int, words: NDArray[np.uint64]) -> None:
        pack_rows(bits.view(np.uint8), self._starts[block], words)

    def _read_column(self, column: int, block: int) -> _Read:
        """Read a block's chunks of one column; compare its first subset with the plan."""
        arrays, damage = {}, []
        for name in ("subset_mask", "train_correct"):
            try:
                arrays[name] = self._store.read(name, block, column)
            except ValueError as error:
                damage.append(Damage(block=block, array=name, problem=str(error)))
        if damage:
            return block, arrays, damage
        mask = arrays["subset_mask"]
        low = column * self._width
        planned = self._first_subset(block)
        if planned is not None and not np.array_equal(mask[0], planned[low : low + mask.shape[1]]):
            problem = f"subset_mask of block {block} differs from the plan of the seed"
            damage.append(Damage(block=block, array="subset_mask", problem=problem))
        arrays["num_in"] = _count_right(mask)
        arrays["num_right"] = _count_right(mask & arrays["train_correct"])
        return block, arrays, damage

    def _first_subset(self, block: int) -> NDArray[np.bool_] | None:
        """Draw the subset of a block's first trial, if there is a plan; kept packed, for the other columns."""
        plan = self._store.plan
        if plan is None:
            return None
        if block not in self._planned:
            drawn = plan.masks(self._store.experiment.subsets.block_trials(block)[:1])
            self._planned[block] = np.packbits(drawn[0])
        return np.unpackbits(self._planned[block], count=self._store.num_train).view(bool)


def read_bits(
    store: TrialStore,
    on_chunks: Callable[[int, int], None] = lambda done, total: None,
    *,
    blocks: list[int] | None = None,
) -> TrialBits:
    """Read the bits of committed blocks: (2 num_train + num_test) x num_trials / 8 bytes.

    Parameters
    ----------
    store
        The store.
    on_chunks
        Told how many chunks of examples have been read, and how many there are.
    blocks
        Which committed blocks; by default all.

    Raises
    ------
    RunDirectoryError
        If no block is committed yet.
    CorruptStoreError
        If any of these blocks is damaged; none is left out silently.
    """
    done, total = 0, 0

    def count(chunks: int) -> None:
        nonlocal done
        done += chunks
        on_chunks(done, total)

    reader = BitReader(store, blocks, count)
    total = reader.num_chunks()
    test_correct = reader.read_test()
    mask, train_correct = reader.read_train(range(store.num_train))
    reader.finish()
    return TrialBits(
        num_trials=reader.num_trials, subset_mask=mask, train_correct=train_correct, test_correct=test_correct
    )


def _count_right(bits: NDArray[Any]) -> NDArray[np.int64]:
    """Count each trial's examples. Row by row: NumPy counts a run of booleans ten times as fast as an axis of them."""
    return np.array([np.count_nonzero(row) for row in bits], np.int64)


def _share(right: NDArray[np.int64], of: NDArray[np.int64] | int) -> NDArray[np.float32]:
    share: NDArray[np.float32] = (right / of).astype(np.float32)
    return share
