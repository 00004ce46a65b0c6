"""Is what the store says still true? Damaged chunks, and bits that are not those of the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from feldman.errors import CorruptStoreError
from feldman.trials.layout import BLOCK_ARRAYS
from feldman.trials.plan import subset_masks, trial_seeds
from feldman.trials.store import TrialStore
from feldman.trials.task import subset_accuracy

__all__ = ["Damage", "find_damage", "refuse_damage"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is wrong with a committed block."""

    block: int
    array: str
    problem: str

    def as_json(self) -> dict[str, str | int]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def find_damage(
    store: TrialStore,
    *,
    against_plan: bool = True,
    on_block: Callable[[int], None] = lambda block: None,
) -> list[Damage]:
    """Read every committed block, compare its checksums, and compare it with the plan.

    Parameters
    ----------
    store
        An open store.
    against_plan
        Also draw each subset and seed again from (seed, trial), and recompute the accuracies from the bits.
    on_block
        Told each block that has been looked at, for a progress bar.

    Returns
    -------
    list of Damage
        Empty if all is well.
    """
    damage = [
        Damage(block=block, array="committed", problem=f"the marker of block {block} cannot be decoded")
        for block in store.unreadable_markers()
    ]
    for block in store.committed_blocks():
        damage += _block_damage(store, block, against_plan)
        on_block(block)
    return damage


def refuse_damage(store: TrialStore, damage: list[Damage]) -> None:
    """Raise if there is damage: no estimate is made from bits that are in doubt.

    Raises
    ------
    CorruptStoreError
        Naming the first blocks, and how to mend them.
    """
    if damage:
        blocks = sorted({found.block for found in damage})
        shown = ", ".join(map(str, blocks[:10])) + (", ..." if len(blocks) > 10 else "")
        raise CorruptStoreError(
            f"{len(blocks)} committed block(s) of {store.path} are damaged (blocks {shown}; first: {damage[0].problem}); "
            f"`feldman resume {store.path.parent}` trains them again"
        )


def _block_damage(store: TrialStore, block: int, against_plan: bool) -> list[Damage]:
    damage, arrays = [], {}
    for name in BLOCK_ARRAYS:
        try:
            arrays[name] = store.read(name, block)
        except ValueError as error:
            damage.append(Damage(block=block, array=name, problem=str(error)))
    if damage or not against_plan:
        return damage
    subsets = store.experiment.subsets
    trials = subsets.block_trials(block)
    masks = arrays["subset_mask"]
    expected = {
        "subset_mask": (
            subset_masks(subsets.seed, trials, store.num_train, subsets.subset_ratio),
            "the plan of the seed",
        ),
        "trial_seed": (trial_seeds(subsets.seed, trials), "the plan of the seed"),
        "train_accuracy": (subset_accuracy(masks, arrays["train_correct"]), "its bits"),
        "test_accuracy": (arrays["test_correct"].mean(axis=1).astype(np.float32), "its bits"),
    }
    return [
        Damage(block=block, array=name, problem=f"{name} of block {block} differs from {source}")
        for name, (values, source) in expected.items()
        if not np.array_equal(arrays[name], values)
    ]
