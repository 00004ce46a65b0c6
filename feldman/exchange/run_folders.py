"""The run folders that the authors release: ``<ratio>/<run>/aux_arrays.npz``, one trained model each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from feldman.data.npz import NpzReader, open_npz
from feldman.errors import ExchangeError, listed
from feldman.exchange.labels import vector_of

__all__ = ["AUX_FILE", "ReleasedTrial", "find_runs", "read_run"]

AUX_FILE = "aux_arrays.npz"
_SPLITS = ("train", "removed", "test")
_ARRAYS = (*(f"{kind}_{split}" for kind in ("correctness", "index") for split in _SPLITS), "subsample_idx")


@dataclass(frozen=True, kw_only=True)
class ReleasedTrial:
    """What one released model learned from and gets right, in the order of the data set.

    Attributes
    ----------
    subset_mask, train_correct
        bool [train].
    test_correct
        bool [test].
    """

    subset_mask: Bool[np.ndarray, " train"]
    train_correct: Bool[np.ndarray, " train"]
    test_correct: Bool[np.ndarray, " test"]


def find_runs(folder: Path) -> list[Path]:
    """Find the run folders in a run, a ratio, or an experiment of one ratio; in the order of their numbers.

    Raises
    ------
    ExchangeError
        If there are none, some lack their file, or they are of several ratios, whose estimates would be of different things.
    """
    try:
        if (folder / AUX_FILE).is_file():
            return [folder]
        runs = _runs_of_ratio(folder)
        if runs:
            return runs
        ratios = {inner: found for inner in _folders(folder) if (found := _runs_of_ratio(inner))}
    except OSError as error:
        raise ExchangeError(f"cannot look into '{folder}': {error.strerror or error}") from None
    if not ratios:
        raise ExchangeError(
            f"'{folder}' holds no released runs: expected RATIO/RUN/{AUX_FILE}, and one of these three levels given"
        )
    if len(ratios) > 1:
        raise ExchangeError(
            f"'{folder}' holds runs of {len(ratios)} subset ratios: {listed(ratio.name for ratio in ratios)}; "
            f"give one of them, as in '{next(iter(ratios))}'"
        )
    return next(iter(ratios.values()))


def read_run(folder: Path) -> ReleasedTrial:
    """Read one run, and check that its arrays agree.

    Raises
    ------
    ExchangeError
        Naming the file and the array that is wrong.
    """
    path = folder / AUX_FILE
    with open_npz(path, listed(_ARRAYS), ExchangeError) as npz:
        missing = [name for name in _ARRAYS if name not in npz.names]
        if missing:
            raise ExchangeError(
                f"{path} lacks {listed(missing)}; it holds {listed(sorted(npz.names)[:10]) or 'nothing'}"
            )
        index = {split: vector_of(npz, f"index_{split}", "iu", path).astype(np.int64) for split in _SPLITS}
        correct = {split: _correctness(npz, split, len(index[split]), path) for split in _SPLITS}
        subsample = vector_of(npz, "subsample_idx", "iu", path).astype(np.int64)
    learned = np.concatenate([index["train"], index["removed"]])
    _check_permutation(learned, "index_train and index_removed together", path)
    _check_permutation(index["test"], "index_test", path)
    num_train, num_test = len(learned), len(index["test"])
    if not 0 < len(index["train"]) < num_train:
        raise ExchangeError(
            f"{path}: index_train has {len(index['train'])} of {num_train} examples; a subset must hold at least one and "
            "leave at least one out"
        )
    if not np.array_equal(np.sort(subsample), np.sort(index["train"])):
        raise ExchangeError(f"{path}: subsample_idx and index_train must hold the same examples; they differ")
    subset_mask, train_correct = np.zeros(num_train, bool), np.zeros(num_train, bool)
    test_correct = np.zeros(num_test, bool)
    subset_mask[index["train"]] = True
    train_correct[learned] = np.concatenate([correct["train"], correct["removed"]])
    test_correct[index["test"]] = correct["test"]
    return ReleasedTrial(subset_mask=subset_mask, train_correct=train_correct, test_correct=test_correct)


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, ordered by the numbers in their names; hidden ones are nobody's run."""
    inner = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(inner, key=lambda entry: _in_numeric_order(entry.name))


def _in_numeric_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _runs_of_ratio(folder: Path) -> list[Path]:
    inner = _folders(folder)
    runs = [entry for entry in inner if (entry / AUX_FILE).is_file()]
    lacking = [entry.name for entry in inner if entry not in runs]
    if runs and lacking:
        raise ExchangeError(
            f"'{folder}': {len(lacking)} of {len(inner)} run folders have no {AUX_FILE} ({listed(lacking[:5])}"
            f"{', ...' if len(lacking) > 5 else ''}); complete them, or move them away"
        )
    return runs


def _correctness(npz: NpzReader, split: str, length: int, path: Path) -> NDArray[np.bool_]:
    name = f"correctness_{split}"
    values = vector_of(npz, name, "biuf", path)
    if len(values) != length:
        raise ExchangeError(f"{path}: {name} has {len(values)} values for the {length} examples of index_{split}")
    other = values[(values != 0) & (values != 1)]
    if len(other):
        raise ExchangeError(f"{path}: {name} must hold 0 and 1 alone; found {other[0]}")
    return values.astype(bool)


def _check_permutation(index: NDArray[np.int64], name: str, path: Path) -> None:
    outside = index[(index < 0) | (index >= len(index))]
    if not len(index) or len(outside):
        raise ExchangeError(
            f"{path}: {name} must hold every example 0 .. {len(index) - 1} once; found {outside[0] if len(outside) else 'none'}"
        )
    seen = np.zeros(len(index), bool)
    seen[index] = True
    if not seen.all():
        raise ExchangeError(
            f"{path}: {name} must hold every example 0 .. {len(index) - 1} once; {int(np.argmin(seen))} is missing"
        )
