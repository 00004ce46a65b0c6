"""Runs of random bits and any small shape, and what plain Zarr reads of them: nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr

from feldman.data.dataset import Dataset
from feldman.experiment import Experiment
from feldman.trials.plan import subset_masks, trial_seeds
from feldman.trials.rundir import RunPaths, run_paths
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, pack_bits, subset_accuracy
from tests.estimates.test_selection import LABELS
from tests.estimates.trials import Trials

__all__ = ["TABLES", "commit_random", "copied_tables", "left_behind", "plain_bits", "random_run"]

TABLES = ("memorization.parquet", "influence.parquet")


def random_run(
    root: Path,
    *,
    num_train: int = 40,
    num_test: int = 30,
    num_trials: int = 40,
    block_size: int = 8,
    pending: Iterable[int] = (),
    subset_ratio: float = 0.7,
) -> RunPaths:
    """Write a run whose subsets are planned and whose correctness is drawn: some examples are memorized, many pairs depend."""
    dataset = Dataset(
        name="random",
        x_train=np.zeros((num_train, 1), np.uint8),
        y_train=np.resize(LABELS, num_train),
        x_test=np.zeros((num_test, 1), np.uint8),
        y_test=np.resize(LABELS, num_test),
        class_names=("0", "1", "2"),
    )
    subsets = {"num_trials": num_trials, "block_size": block_size, "subset_ratio": subset_ratio}
    experiment = Experiment.model_validate({"dataset": {"name": "arrays"}, "subsets": subsets})
    root.mkdir(parents=True)
    paths = run_paths(root)
    store = TrialStore.create(paths.store, experiment, dataset)
    for block in sorted(set(range(store.num_blocks)) - set(pending)):
        commit_random(store, block)
    return paths


def commit_random(store: TrialStore, block: int, seed: int = 0) -> None:
    """Commit a block of random bits; the same for the same seed."""
    rng, subsets = np.random.default_rng([seed, block]), store.experiment.subsets
    trials = subsets.block_trials(block)
    masks = subset_masks(subsets.seed, trials, store.num_train, subsets.subset_ratio)
    chance = np.linspace(0.0, 1.0, store.num_train)
    train = masks & (rng.random(masks.shape) < 0.95) | (rng.random(masks.shape) < chance)
    test = rng.random((len(trials), store.num_test)) < 0.5
    test[:, ::3] = masks[:, np.arange(0, store.num_test, 3) % store.num_train]
    store.commit_block(
        BlockResult(
            block=block,
            subset_mask=pack_bits(masks),
            train_correct=pack_bits(train),
            test_correct=pack_bits(test),
            trial_seed=trial_seeds(subsets.seed, trials),
            train_accuracy=subset_accuracy(masks, train),
            test_accuracy=test.mean(axis=1).astype(np.float32),
            train_seconds=np.zeros(len(trials), np.float32),
        )
    )


def plain_bits(paths: RunPaths) -> Trials:
    """The bits of the committed trials, as any reader of Zarr sees them."""
    group = zarr.open_group(paths.store, mode="r")
    arrays = {name: np.asarray(group[name][:]) for name in (*Trials._fields, "committed")}  # type: ignore[index]
    size = group["subset_mask"].chunks[0]  # type: ignore[union-attr]
    counts = np.repeat(arrays["committed"] == 1, size)[: len(arrays["subset_mask"])]
    return Trials(*(arrays[name][counts] for name in Trials._fields))


def copied_tables(paths: RunPaths) -> dict[str, bytes]:
    """The bytes of all that an estimate writes."""
    written = [*paths.root.glob("*.parquet"), *paths.matrix.rglob("*"), *paths.counts.rglob("*")]
    return {path.relative_to(paths.root).as_posix(): path.read_bytes() for path in written if path.is_file()}


def left_behind(paths: RunPaths) -> list[Path]:
    """What a write that failed has not taken away."""
    return [path for path in paths.root.rglob("*") if "partial" in path.name]
