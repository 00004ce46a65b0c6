"""From the authors' released run folders to a trial store: every estimate, query and comparison then works on them."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from feldman.data.dataset import Dataset
from feldman.errors import ExchangeError
from feldman.estimates.selection import PairSelection
from feldman.exchange.labels import UNKNOWN_CLASS, Labels
from feldman.exchange.run_folders import AUX_FILE, ReleasedTrial, read_run
from feldman.experiment import DatasetSection, Experiment, SubsetsSection
from feldman.learner_sections import CustomLearner
from feldman.results.estimation import write_estimates
from feldman.results.tables import TableFacts
from feldman.trials.events import EventLog
from feldman.trials.rundir import RunPaths
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, pack_bits, subset_accuracy

__all__ = ["import_trials"]

_BLOCK_SIZE = 50
_UNKNOWN_SEED = -1


def import_trials(
    paths: RunPaths,
    source: Path,
    runs: list[Path],
    labels: Labels | None,
    *,
    selection: PairSelection,
    tell: ProgressCallback,
) -> TableFacts:
    """Write the store and the tables of released runs, one block of them in memory.

    Parameters
    ----------
    paths
        The run that is made; its folder is held for writing.
    source
        The folder that was given, to be remembered.
    runs
        The folders of the runs, one trial each.
    labels
        Of all examples; None puts all into one class, "unknown".
    selection
        Which pairs are kept.
    tell
        Told how far it is.

    Raises
    ------
    ExchangeError
        If a file is damaged, disagrees with itself, or is of a data set of another size than the first.
    """
    first = read_run(runs[0])
    dataset = _dataset(first, labels)
    experiment = _experiment(first, len(runs))
    store = TrialStore.create(paths.store, experiment, dataset)
    store.mark_imported(str(source.absolute()))
    remaining = iter(runs)
    for block in range(store.num_blocks):
        trials = experiment.subsets.block_trials(block)
        released = [_read_alike(folder, runs[0], first) for folder in islice(remaining, len(trials))]
        store.commit_block(_block_result(block, released))
        tell(Progress(stage="importing", done=trials.stop, total=len(runs)))
    with closing(EventLog(paths.events)) as events:
        events.write(
            "run_imported",
            {"source": str(source.absolute()), "num_trials": len(runs), "runs": [folder.name for folder in runs]},
        )
        facts = write_estimates(paths, selection=selection, tell=tell).facts
        events.write("estimates_written", {"num_trials": len(runs)})
    return facts


def _dataset(first: ReleasedTrial, labels: Labels | None) -> Dataset:
    num_train, num_test = len(first.subset_mask), len(first.test_correct)
    if labels is None:
        labels = Labels(
            train=np.zeros(num_train, np.int64), test=np.zeros(num_test, np.int64), class_names=(UNKNOWN_CLASS,)
        )
    if (len(labels.train), len(labels.test)) != (num_train, num_test):
        raise ExchangeError(
            f"--labels has {len(labels.train)} training and {len(labels.test)} test labels; the runs are of {num_train} and "
            f"{num_test} examples"
        )
    return Dataset(
        name="imported",
        x_train=np.zeros((num_train, 1), np.uint8),  # what trials learned from is not in these files
        y_train=labels.train,
        x_test=np.zeros((num_test, 1), np.uint8),
        y_test=labels.test,
        class_names=labels.class_names,
    )


def _experiment(first: ReleasedTrial, num_trials: int) -> Experiment:
    """Describe what was estimated, as far as it is known. The names load nothing: there is nothing to train."""
    return Experiment(
        dataset=DatasetSection(name="imported"),
        learner=CustomLearner(name="imported:unknown"),
        subsets=SubsetsSection(
            num_trials=num_trials,
            subset_ratio=float(first.subset_mask.mean()),
            block_size=min(_BLOCK_SIZE, num_trials),
        ),
    )


def _read_alike(folder: Path, first_folder: Path, first: ReleasedTrial) -> ReleasedTrial:
    """Read a run that must be of the same data set as the first, and learn from as many examples."""
    run = read_run(folder)
    sizes = [
        (f"subsets of {each.subset_mask.sum()} of {len(each.subset_mask)} training examples and {len(each.test_correct)} "
         "test examples")
        for each in (run, first)
    ]  # fmt: skip
    if sizes[0] != sizes[1]:
        raise ExchangeError(
            f"{folder / AUX_FILE} is of {sizes[0]}, {first_folder / AUX_FILE} of {sizes[1]}; runs that are estimated together "
            "share a data set and a subset ratio"
        )
    return run


def _block_result(block: int, released: list[ReleasedTrial]) -> BlockResult:
    masks = np.stack([run.subset_mask for run in released])
    train_correct = np.stack([run.train_correct for run in released])
    test_correct = np.stack([run.test_correct for run in released])
    return BlockResult(
        block=block,
        subset_mask=pack_bits(masks),
        train_correct=pack_bits(train_correct),
        test_correct=pack_bits(test_correct),
        trial_seed=np.full(len(released), _UNKNOWN_SEED, np.int64),
        train_accuracy=subset_accuracy(masks, train_correct),
        test_accuracy=test_correct.mean(axis=1).astype(np.float32),
        train_seconds=np.full(len(released), np.nan, np.float32),
    )
