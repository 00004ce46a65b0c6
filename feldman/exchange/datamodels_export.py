"""From a run to the arrays that datamodels tools read: which examples each trial learned from, and what it got right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from feldman.errors import RunDirectoryError
from feldman.exchange.authors_export import ExportSummary
from feldman.exchange.folders import built_folder
from feldman.trials.integrity import find_small_damage, read_checked, refuse_damage
from feldman.trials.rundir import RunPaths
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.store import TrialStore

__all__ = ["export_datamodels"]

_FILES = {
    "masks": "subset_mask",
    "correctness": "test_correct",
    "train_correctness": "train_correct",
    "margins": "test_margin",
    "train_margins": "train_margin",
    "predictions": "test_prediction",
    "train_predictions": "train_prediction",
}
"""Name of a file, and the array of the store that it holds."""

_README = """Trials of {run}, for datamodels and other tools that regress outputs on training subsets.

One row a trial, in one order in all files; {num_trials} trials, {num_train} training and {num_test} test examples.

  masks.npy              bool [trial, train]   True where the trial learned from the example
  correctness.npy        bool [trial, test]    True where it predicts the test example right
  train_correctness.npy  bool [trial, train]   True where it predicts the training example right
{recorded}  _completed.npy         bool [trial]          True: only finished trials are here
  trial_index.npy        int64 [trial]         number of the trial in the run

All are plain .npy files, without pickles: np.load(path, mmap_mode="r") or np.lib.format.open_memmap(path, mode="r").

Datamodels (MadryLab/datamodels): the folder is a data_dir; datamodels.regression.write_dataset with
  --cfg.data_dir THIS_FOLDER --cfg.out_dir THIS_FOLDER --cfg.x_name masks --cfg.y_name correctness
writes what its regression reads; targets are turned into float32 there.

Linear datamodeling score (LDS; TRAK, dattri, quanda): the score of an attribution matrix tau [train, test] is, for each test
example j, the Spearman correlation over trials of masks @ tau[:, j] with correctness[:, j] (or margins[:, j]).
"""

_RECORDED = {
    "margins": """\
  margins.npy            float16 [trial, test]   logit of the correct class less the largest other one, to +-65504
  train_margins.npy      float16 [trial, train]  the same of the training examples
""",
    "predictions": """\
  predictions.npy        unsigned [trial, test]  the label that it predicts
  train_predictions.npy  unsigned [trial, train] the same of the training examples
""",
}
"""Lines of files that are there only where the run records them."""


def export_datamodels(paths: RunPaths, folder: Path, tell: ProgressCallback = lambda progress: None) -> ExportSummary:
    """Write the committed trials as ``.npy`` files, a block at a time.

    Parameters
    ----------
    paths
        The run.
    folder
        New or empty; it appears whole or not at all.
    tell
        Told how far it is.

    Raises
    ------
    RunDirectoryError
        If there are no trials.
    CorruptStoreError
        If a committed block is damaged.
    ExchangeError, StorageError
        If nothing can be written there.
    """
    store = TrialStore.open(paths.store)
    refuse_damage(store, find_small_damage(store))
    blocks = store.committed_blocks()
    if not blocks:
        raise RunDirectoryError(f"'{paths.root}' has no committed trials yet; let it run on")
    num_trials = store.num_trials_in(blocks)
    with built_folder(folder) as building:
        arrays = _open_arrays(building, store, num_trials)
        done = 0
        for block in blocks:
            found, damage = read_checked(store, block, every_trial=False)
            refuse_damage(store, damage)
            num_rows = len(store.experiment.subsets.block_trials(block))
            for name, array in arrays.items():
                array[done : done + num_rows] = found[_FILES[name]]
            done += num_rows
            tell(Progress(stage="exporting", done=done, total=num_trials))
        for array in arrays.values():
            array.flush()
        trial_index = np.concatenate([np.array(store.experiment.subsets.block_trials(block)) for block in blocks])
        np.save(building / "trial_index.npy", trial_index, allow_pickle=False)
        np.save(building / "_completed.npy", np.ones(num_trials, bool), allow_pickle=False)
        recorded = "".join(_RECORDED[name] for name in store.experiment.outputs.names)
        facts = {
            "run": str(paths.root),
            "num_trials": num_trials,
            "num_train": store.num_train,
            "num_test": store.num_test,
        }
        facts["recorded"] = recorded
        (building / "README.txt").write_text(_README.format_map(facts), encoding="utf-8")
        files = tuple(sorted(path.name for path in building.iterdir()))
    return ExportSummary(run=str(paths.root), folder=str(folder), files=files, num_trials=num_trials, left_out=None)


def _open_arrays(building: Path, store: TrialStore, num_trials: int) -> dict[str, np.memmap[Any, Any]]:
    """Make the files that the store has arrays for, at their full length."""
    arrays = {}
    for name, source in _FILES.items():
        if source in store.block_arrays:
            path, stored = building / f"{name}.npy", store.array(source)
            arrays[name] = np.lib.format.open_memmap(
                path, mode="w+", dtype=stored.dtype, shape=(num_trials, stored.shape[1])
            )
            with path.open(
                "r+b"
            ) as file:  # a full disk is found here, as an error: a page of a map would kill the process
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return arrays
