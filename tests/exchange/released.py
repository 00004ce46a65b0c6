"""Released run folders as the authors lay them out, written by tests: random bits, or those of a run of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

__all__ = ["Bits", "bits_of", "random_bits", "write_labels", "write_pairs", "write_released", "write_run"]


@dataclass(frozen=True, kw_only=True)
class Bits:
    """What trials learned from and got right, with the labels of a data set."""

    masks: NDArray[np.bool_]
    train_correct: NDArray[np.bool_]
    test_correct: NDArray[np.bool_]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]


def random_bits(
    seed: int, *, num_trials: int = 12, num_train: int = 20, num_test: int = 10, num_classes: int = 3
) -> Bits:
    """Bits of trials that memorize: right on what they learned from, and on tests more often with some examples."""
    rng = np.random.default_rng(seed)
    size = max(1, min(num_train - 1, round(0.7 * num_train)))
    masks = np.zeros((num_trials, num_train), bool)
    for mask in masks:
        mask[rng.choice(num_train, size, replace=False)] = True
    helped_by = rng.integers(0, num_train, num_test)
    return Bits(
        masks=masks,
        train_correct=masks | (rng.random(masks.shape) < 0.4),
        test_correct=masks[:, helped_by] ^ (rng.random((num_trials, num_test)) < 0.2),
        train_labels=np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num_train - num_classes)]),
        test_labels=rng.integers(0, num_classes, num_test),
    )


def bits_of(run: Path) -> Bits:
    """Read a run's bits with plain Zarr."""
    group = zarr.open_group(run / "trials.zarr", mode="r")
    names = ("subset_mask", "train_correct", "test_correct", "train_label", "test_label")
    masks, train_correct, test_correct, train_labels, test_labels = (np.asarray(group[name][:]) for name in names)  # type: ignore[index]
    return Bits(
        masks=masks,
        train_correct=train_correct,
        test_correct=test_correct,
        train_labels=train_labels,
        test_labels=test_labels,
    )


def write_released(folder: Path, bits: Bits, *, shuffled: bool = True) -> Path:
    """Write one folder a trial, its examples in an order of their own; return ``folder``, a ratio."""
    for trial in range(len(bits.masks)):
        arrays = arrays_of(bits, trial, np.random.default_rng(trial) if shuffled else None)
        write_run(folder / str(trial), arrays)
    return folder


def write_run(folder: Path, arrays: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "aux_arrays.npz", **arrays)


def arrays_of(bits: Bits, trial: int, rng: np.random.Generator | None = None) -> dict[str, Any]:
    mask = bits.masks[trial]
    index = {
        "train": np.flatnonzero(mask),
        "removed": np.flatnonzero(~mask),
        "test": np.arange(bits.test_correct.shape[1]),
    }
    if rng is not None:
        index = {split: rng.permutation(values) for split, values in index.items()}
    correct = {
        "train": bits.train_correct[trial],
        "removed": bits.train_correct[trial],
        "test": bits.test_correct[trial],
    }
    return {
        **{f"index_{split}": values for split, values in index.items()},
        **{f"correctness_{split}": correct[split][values].astype(np.float32) for split, values in index.items()},
        "subsample_idx": np.flatnonzero(mask),
    }


def write_labels(path: Path, bits: Bits) -> Path:
    np.savez(path, tr_labels=bits.train_labels, tt_labels=bits.test_labels)
    return path


def write_pairs(path: Path, **changes: Any) -> Path:
    """Write a small file of pairs; an array that is None is left out."""
    arrays = {
        "tr_idx": np.array([7, 3, 7]),
        "tt_idx": np.array([4, 9, 1]),
        "infl": np.array([0.5, 0.25, 0.2]),
        "mem": np.array([0.75, 0.5, 0.75]),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path
