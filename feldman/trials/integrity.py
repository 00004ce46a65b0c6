"""Is what the store says still true? Damaged chunks, and bits that are not those of the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.errors import CorruptStoreError, command
from feldman.learners.outputs import margins_agree, predictions_agree
from feldman.trials.reading_ahead import in_order
from feldman.trials.store import TrialStore
from feldman.trials.task import subset_accuracy

__all__ = ["Damage", "damage_in_words", "find_damage", "find_small_damage", "read_checked", "refuse_damage"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is wrong with a committed block, or, where ``block`` is None, with the labels."""

    block: int | None
    array: str
    problem: str

    def as_json(self) -> dict[str, str | int | None]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def find_damage(store: TrialStore, on_trials: Callable[[int, int], None] = lambda done, total: None) -> list[Damage]:
    """Look at the labels, the markers and every committed block; see `read_checked`.

    Parameters
    ----------
    store
        An open store.
    on_trials
        Told after each block how many trials have been looked at, and how many there are, for a progress bar.

    Returns
    -------
    list of Damage
        Empty if all is well.
    """
    damage, blocks, done = find_small_damage(store), store.committed_blocks(), 0
    total = store.num_trials_in(blocks)
    looked_at = in_order(lambda block: read_checked(store, block)[1], blocks, store.num_requests)
    for block, found in zip(blocks, looked_at, strict=True):
        damage += found
        done += len(store.experiment.subsets.block_trials(block))
        on_trials(done, total)
    return damage


def find_small_damage(store: TrialStore) -> list[Damage]:
    """Look at what is not a block's own: labels and commit markers."""
    damage = []
    for part in ("train", "test"):
        try:
            store.labels(part)
        except (ValueError, RuntimeError) as error:
            damage.append(Damage(block=None, array=f"{part}_label", problem=f"{part}_label: {error}"))
    for block in store.unreadable_markers():
        problem = f"the marker of block {block} cannot be decoded"
        damage.append(Damage(block=block, array="committed", problem=problem))
    return damage


def read_checked(
    store: TrialStore, block: int, *, every_trial: bool = True
) -> tuple[dict[str, NDArray[Any]], list[Damage]]:
    """Read all arrays of a block, its checksums compared; compare it with the plan and with itself.

    Subsets and seeds are drawn again from (seed, trial), unless they were imported, accuracies recomputed from the bits, and
    margins and predictions held against them: a chunk that belongs to another block has a valid checksum too.

    Parameters
    ----------
    store, block
        Which block.
    every_trial
        Draw the subset of every trial, or of the block's first alone: enough to tell a chunk from another block's, for a
        fiftieth of the time.

    Returns
    -------
    arrays
        By name; incomplete if any could not be read.
    damage
        What is wrong; empty if all is well.
    """
    damage, arrays = [], {}
    for name in store.block_arrays:
        try:
            arrays[name] = store.read(name, block)
        except ValueError as error:
            damage.append(Damage(block=block, array=name, problem=str(error)))
    return arrays, damage or _differences(store, block, arrays, every_trial)


def refuse_damage(store: TrialStore, damage: list[Damage]) -> None:
    """Raise if there is damage: no estimate is made from bits that are in doubt.

    Raises
    ------
    CorruptStoreError
        Naming the first blocks, and how to mend them.
    """
    if damage:
        mending = f"`{command('resume', store.path.parent)}` mends it, and trains damaged blocks again"
        if store.imported_from is not None:
            mending = f"import it again from {store.imported_from}"
        raise CorruptStoreError(
            f"{store.path} is damaged ({damage_in_words(damage)}; first: {damage[0].problem}); {mending}"
        )


def damage_in_words(damage: list[Damage]) -> str:
    """Say how much is damaged: ``"2 blocks: 3, 17"``, ``"labels"``."""
    blocks = sorted({found.block for found in damage if found.block is not None})
    parts = ["labels"] if any(found.block is None for found in damage) else []
    if blocks:
        shown = ", ".join(map(str, blocks[:10])) + (", ..." if len(blocks) > 10 else "")
        parts.append(f"{len(blocks)} block{'s' if len(blocks) > 1 else ''}: {shown}")
    return " and ".join(parts)


def _differences(store: TrialStore, block: int, arrays: dict[str, NDArray[Any]], every_trial: bool) -> list[Damage]:
    trials, plan = store.experiment.subsets.block_trials(block), store.plan
    masks = arrays["subset_mask"]
    expected: dict[str, tuple[NDArray[Any], str]] = {}
    if plan is not None:
        drawn = trials if every_trial else trials[:1]
        planned = masks.copy()
        planned[: len(drawn)] = plan.masks(drawn)
        expected["subset_mask"] = (planned, "the plan of the seed")
        expected["trial_seed"] = (plan.seeds(trials), "the plan of the seed")
    expected["train_accuracy"] = (subset_accuracy(masks, arrays["train_correct"]), "its bits")
    expected["test_accuracy"] = (arrays["test_correct"].mean(axis=1).astype(np.float32), "its bits")
    differing = {
        name: source for name, (values, source) in expected.items() if not np.array_equal(arrays[name], values)
    }
    differing |= dict.fromkeys(_disagreeing_outputs(store, arrays), "its bits")
    return [
        Damage(block=block, array=name, problem=f"{name} of block {block} differs from {source}")
        for name, source in differing.items()
    ]


def _disagreeing_outputs(store: TrialStore, arrays: dict[str, NDArray[Any]]) -> list[str]:
    """Return the margins and predictions that are not of these bits."""
    found = []
    for part in ("train", "test"):
        correct = arrays[f"{part}_correct"]
        margin, prediction = (arrays.get(f"{part}_{kind}") for kind in ("margin", "prediction"))
        if margin is not None and not margins_agree(margin, correct):
            found.append(f"{part}_margin")
        if prediction is not None:
            try:
                labels = store.labels(part)
            except (ValueError, RuntimeError):  # told by find_small_damage, and of no block
                continue
            if not predictions_agree(prediction, correct, labels):
                found.append(f"{part}_prediction")
    return found
