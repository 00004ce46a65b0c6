"""Join the trials of several runs of one experiment into one store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from feldman.errors import InputError, RunDirectoryError, StoreMismatchError, command
from feldman.experiment import Experiment
from feldman.learners.training_path import assumed_path
from feldman.trials.design_storage import write_design
from feldman.trials.integrity import find_small_damage, read_checked, refuse_damage
from feldman.trials.layout import BIT_ARRAYS, BLOCK_ARRAYS, create_arrays, output_arrays, store_attributes
from feldman.trials.store import TrialStore, built_group

__all__ = ["MergeReport", "check_sources", "merge_stores", "merged_experiment"]

_SHOWN_TRIALS = 10

Rows = dict[str, NDArray[Any]]
"""Some trials of every array of a block, by its name."""


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """What came of a merge.

    Attributes
    ----------
    num_read, num_taken
        How many committed trials each source holds, and how many were taken from it, in the order given.
    num_shared
        How many of them another source holds, too, with equal bits.
    num_left_out
        Trials of short last blocks that do not fill a block of the merged store.
    outputs_left_out
        Which of ``"margins"`` and ``"predictions"`` some sources record and others do not.
    """

    num_read: tuple[int, ...]
    num_taken: tuple[int, ...]
    num_shared: int
    num_left_out: int
    outputs_left_out: tuple[str, ...]


def check_sources(sources: Sequence[TrialStore]) -> None:
    """Refuse stores that cannot be merged, as far as that can be told without reading a trial.

    Raises
    ------
    InputError
        If there are fewer than two, one is given twice, was imported, or has no committed trial.
    StoreMismatchError
        If they are not of one experiment and data set; the fields that differ are listed.
    CorruptStoreError
        If labels or commit markers are damaged.
    """
    if len(sources) < 2:
        raise InputError(f"a merge takes two runs or more; found {len(sources)}")
    first, seen = sources[0], set[str]()
    for source in sources:
        run = source.path.parent
        place = str(source.path.resolve() if isinstance(source.path, Path) else source.path)
        if place in seen:
            raise InputError(f"'{run}' is given twice; give each run once")
        seen.add(place)
        if (
            source.imported_from is not None
        ):  # the trials of two imports have the same numbers, and no seed to tell them by
            raise RunDirectoryError(
                f"'{run}' was imported from {source.imported_from}: its trials are not of a plan that others continue; "
                "import all run folders together instead"
            )
        places = (f"in '{first.path.parent}'", f"in '{run}'")
        fields = first.differences(source.experiment, source.attributes["dataset"]["fingerprint"], places)
        if fields:
            raise StoreMismatchError(
                f"'{first.path.parent}' and '{run}' are runs of different experiments; only runs of one can be merged. "
                "What differs:\n  " + "\n  ".join(fields)
            )
        _check_precision(first, source)
        refuse_damage(source, find_small_damage(source))
        if not source.committed_blocks():
            raise RunDirectoryError(
                f"'{run}' has no committed trials to merge; leave it out, or train some: `{command('resume', run)}`"
            )


def _check_precision(first: TrialStore, source: TrialStore) -> None:
    """Refuse runs whose measurements came out otherwise: products of another precision are another learner.

    Vectorised and looped training differ in the order of float additions alone, as two sorts of hardware do.
    """
    paths = [store.training_path or assumed_path(store.experiment) for store in (first, source)]
    precisions = [path.precision for path in paths if path is not None]
    if len(set(precisions)) > 1:
        raise StoreMismatchError(
            f"training.precision = 'auto' came out as '{precisions[0]}' in '{first.path.parent}' and as '{precisions[1]}' in "
            f"'{source.path.parent}', and only runs of one precision can be merged; where ranges are trained on several "
            "machines, set training.precision to one of them"
        )


def merged_experiment(sources: Sequence[TrialStore]) -> Experiment:
    """Return the experiment of the merged store.

    Its plan is as long as the longest. Its blocks are as large as the greatest common divisor of all block sizes: so every whole
    block of a source is made of whole merged blocks. It records what every source does. Where the data set lies and how trials
    are executed is the first one's word, but for the range of trials.
    """
    plans = [source.experiment.subsets for source in sources]
    subsets = {
        "num_trials": max(plan.num_trials for plan in plans),
        "block_size": math.gcd(*(plan.block_size for plan in plans)),
    }
    recorded = [set(source.experiment.outputs.names) for source in sources]
    outputs = {name: name in set.intersection(*recorded) for name in set.union(*recorded)}
    merged = sources[0].experiment.replace("subsets", subsets).replace("execution", {"trials": None})
    return merged.replace("outputs", outputs)


def merge_stores(
    sources: Sequence[TrialStore], path: Path, on_trials: Callable[[int, int], None] = lambda done, total: None
) -> MergeReport:
    """Write a new store with the committed trials of several; it is there whole or not at all.

    Every committed block is compared with its checksums and every trial with the plan. At most one block of each source is in
    memory. Where several sources hold a trial, the first that holds all of a merged block gives it.

    Parameters
    ----------
    sources
        Open stores that `check_sources` has let pass.
    path
        The Zarr group to make.
    on_trials
        Told how many trials of the sources have been read, and how many there are.

    Raises
    ------
    CorruptStoreError
        If a committed block of a source is damaged.
    StoreMismatchError
        If sources hold other bits or predictions of the same trials.
    StorageError
        If the storage refuses.
    """
    experiment, first = merged_experiment(sources), sources[0]
    readers = [_Reader(source, (*BLOCK_ARRAYS, *output_arrays(experiment.outputs))) for source in sources]
    total = sum(reader.num_trials for reader in readers)
    tally = _Tally(taken=[0] * len(sources))
    with built_group(path) as building:
        attributes = store_attributes(experiment, first.attributes["dataset"])
        group = zarr.create_group(building, zarr_format=3, attributes=attributes)
        num_classes = len(first.attributes["dataset"]["class_names"])
        create_arrays(group, experiment, first.labels("train"), first.labels("test"), num_classes)
        if first.design is not None:
            write_design(group, first.design)
        merged = TrialStore.open(building)
        if first.training_path is not None:
            merged.record_training_path(first.training_path)
        for block in range(merged.num_blocks):
            _merge_block(merged, block, readers, tally)
            on_trials(sum(reader.num_read for reader in readers), total)
        _refuse_conflicts(sources, tally.conflicts)
    return MergeReport(
        num_read=tuple(reader.num_read for reader in readers),
        num_taken=tuple(tally.taken),
        num_shared=tally.shared,
        num_left_out=tally.left_out,
        outputs_left_out=_outputs_left_out(sources, experiment),
    )


def _outputs_left_out(sources: Sequence[TrialStore], merged: Experiment) -> tuple[str, ...]:
    recorded = {name for source in sources for name in source.experiment.outputs.names}
    return tuple(sorted(recorded - set(merged.outputs.names)))


@dataclass(kw_only=True)
class _Tally:
    """What has come of a merge so far; ``conflicts`` are the trials of which two sources hold other bits."""

    taken: list[int]
    shared: int = 0
    left_out: int = 0
    conflicts: dict[tuple[int, int], list[int]] = field(default_factory=dict)


class _Reader:
    """Reads a source's committed blocks, each once and checked, and keeps the last one; ask for trials in ascending order.

    ``names`` are the arrays that are carried over.
    """

    def __init__(self, store: TrialStore, names: tuple[str, ...]) -> None:
        self._names = names
        self._store, self._committed = store, set(store.committed_blocks())  # a source may go on meanwhile
        self._block: int | None = None
        self._arrays: Rows = {}
        self.num_trials, self.num_read = store.num_trials_in(sorted(self._committed)), 0

    def rows(self, trials: range) -> Rows:
        """Return what the source holds of the trials of a merged block: all, their beginning, or nothing (no arrays)."""
        subsets = self._store.experiment.subsets
        block = trials.start // subsets.block_size
        if block not in self._committed or trials.start >= subsets.num_trials:
            return {}
        held = subsets.block_trials(block)
        if block != self._block:
            self._arrays = {}  # let go of the block before, first
            self._arrays, damage = read_checked(self._store, block)
            refuse_damage(self._store, damage)
            self._block = block
            self.num_read += len(held)
        rows = slice(trials.start - held.start, trials.stop - held.start)
        return {name: self._arrays[name][rows] for name in self._names}


def _merge_block(merged: TrialStore, block: int, readers: Sequence[_Reader], tally: _Tally) -> None:
    """Commit a merged block if a source holds all of it; compare what sources hold of it with each other."""
    trials = merged.experiment.subsets.block_trials(block)
    parts = {number: rows for number, reader in enumerate(readers) if (rows := reader.rows(trials))}
    if not parts:
        return
    lengths = {number: len(rows["trial_seed"]) for number, rows in parts.items()}
    giver = max(lengths, key=lambda number: lengths[number])  # the first of the longest
    for other in parts.keys() - {giver}:
        differing = _differing(parts[giver], parts[other])
        if differing:
            pair = (min(giver, other), max(giver, other))
            tally.conflicts.setdefault(pair, []).extend(trials.start + row for row in differing)
    if lengths[giver] < len(trials):  # the tail of a short last block; those of other sources begin where it does
        tally.left_out += lengths[giver]
        return
    tally.taken[giver] += len(trials)
    tally.shared += max((lengths[other] for other in parts.keys() - {giver}), default=0)
    merged.commit_arrays(block, parts[giver])


def _differing(rows: Rows, other: Rows) -> list[int]:
    """Return in which of their common trials two sources have other bits or predictions.

    Margins are not compared: floats are rounded otherwise in blocks of another size.
    """
    common = min(len(rows["trial_seed"]), len(other["trial_seed"]))
    differs = np.zeros(common, bool)
    for name in rows.keys() & {*BIT_ARRAYS, "train_prediction", "test_prediction"}:
        differs |= (rows[name][:common] != other[name][:common]).any(axis=1)
    found: list[int] = np.flatnonzero(differs).tolist()
    return found


def _refuse_conflicts(sources: Sequence[TrialStore], conflicts: dict[tuple[int, int], list[int]]) -> None:
    if not conflicts:
        return
    (one, other), trials = next(iter(sorted(conflicts.items())))
    shown = ", ".join(map(str, trials[:_SHOWN_TRIALS])) + (", ..." if len(trials) > _SHOWN_TRIALS else "")
    raise StoreMismatchError(
        f"'{sources[one].path.parent}' and '{sources[other].path.parent}' hold other bits of the same trials "
        f"({len(trials)}: {shown}): they were trained on other hardware, with other software or by another version of the "
        "learner, and which to count cannot be told; leave one of the two out"
    )
