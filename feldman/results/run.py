"""A run, opened for questions: what a notebook and the query commands use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from numpy.typing import NDArray

from feldman.errors import QueryError
from feldman.estimates.selection import chosen_pairs
from feldman.experiment import Experiment
from feldman.results.queries import sorted_pairs
from feldman.results.tables import influence_table, memorization_table
from feldman.trials.plan import subset_size
from feldman.trials.reading_ahead import in_order
from feldman.trials.rundir import RunPaths, run_paths, writer_of
from feldman.trials.stopping import StoppingRecord
from feldman.trials.store import TrialStore

if TYPE_CHECKING:
    import xarray

__all__ = ["Run", "RunStatus", "open_run"]

_DENSE_VALUES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run is.

    ``trials`` are the first and the end of those that it trains, all of the plan or a range; ``complete`` says whether they are
    committed. ``outputs`` are those of ``"margins"`` and ``"predictions"`` that it records beside correctness bits. ``stopping``
    is the rule by which it ends before its plan does, if it has one. ``num_arms`` are those of a study whose subsets are designed
    (``subset_size`` is then that of no one); None of a run with random subsets.
    """

    run: str
    dataset: str
    learner: str
    fingerprint: str
    num_train: int
    num_test: int
    num_trials: int
    num_committed_trials: int
    trials: tuple[int, int]
    num_committed_in_range: int
    num_blocks: int
    num_committed_blocks: int
    block_size: int
    subset_size: int | None
    num_arms: int | None
    outputs: tuple[str, ...]
    stopping: StoppingRecord | None
    mean_train_accuracy: float | None
    mean_test_accuracy: float | None
    std_test_accuracy: float | None
    mean_train_seconds: float | None
    complete: bool
    writer: dict[str, Any] | None
    imported_from: str | None
    has_memorization: bool
    has_influence: bool

    @property
    def has_range(self) -> bool:
        """Whether it trains only some trials of its plan."""
        return self.trials != (0, self.num_trials)

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


class Run:
    """A run directory, open for reading. It may still be written by another process; every call sees what is committed then.

    Attributes
    ----------
    paths
        Where its files lie.
    """

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        TrialStore.open(paths.store)

    @property
    def store(self) -> TrialStore:
        """The trial store as it is now: the run may have grown."""
        return TrialStore.open(self.paths.store)

    @property
    def experiment(self) -> Experiment:
        """What is estimated."""
        return self.store.experiment

    def status(self) -> RunStatus:
        """Say how far the run is."""
        store = self.store
        blocks, subsets = store.committed_blocks(), store.experiment.subsets
        trained, in_range = store.experiment.trained_trials, set(blocks) & set(store.experiment.trained_blocks)
        recorded = {
            name: _mean_std(store, name, blocks) for name in ("train_accuracy", "test_accuracy", "train_seconds")
        }
        return RunStatus(
            run=str(self.paths.root),
            dataset=store.attributes["dataset"]["name"],
            learner=store.experiment.learner.name,
            fingerprint=store.attributes["fingerprint"],
            num_train=store.num_train,
            num_test=store.num_test,
            num_trials=subsets.num_trials,
            num_committed_trials=store.num_trials_in(blocks),
            trials=(trained.start, trained.stop),
            num_committed_in_range=store.num_trials_in(sorted(in_range)),
            num_blocks=store.num_blocks,
            num_committed_blocks=len(blocks),
            block_size=subsets.block_size,
            subset_size=None if store.design else subset_size(subsets.subset_ratio, store.num_train),
            num_arms=len(store.design.arms) if store.design else None,
            outputs=store.experiment.outputs.names,
            stopping=store.stopping,
            mean_train_accuracy=recorded["train_accuracy"][0],
            mean_test_accuracy=recorded["test_accuracy"][0],
            std_test_accuracy=recorded["test_accuracy"][1],
            mean_train_seconds=recorded["train_seconds"][0],
            complete=len(in_range) == len(store.experiment.trained_blocks),
            writer=writer_of(self.paths),
            imported_from=store.imported_from,
            has_memorization=self.paths.memorization.exists(),
            has_influence=self.paths.influence.exists(),
        )

    def memorization(self) -> pa.Table:
        """Estimate memorization from the trials committed now.

        Returns
        -------
        pyarrow.Table
            One row a training example, with the columns of ``memorization.parquet``.
        """
        from feldman.estimates.memorization import estimate_memorization
        from feldman.estimates.reading import read_bits

        store = self.store
        found = estimate_memorization(read_bits(store))
        return memorization_table(found, store.labels("train"), original=store.original_train_labels())

    def influence(self, train: Sequence[int]) -> Float64[np.ndarray, "chosen test"]:
        """Estimate the influence of some training examples on every test example, from the trials committed now.

        Parameters
        ----------
        train
            Indices of training examples.

        Returns
        -------
        ndarray of float64 [chosen, test]
            NaN where an example was in all trials or in none.

        Raises
        ------
        QueryError
            If an index is out of range, or the result would take gigabytes.
        """
        from feldman.estimates.influence import estimate_influence
        from feldman.estimates.reading import read_bits

        store, given = self.store, np.asarray(train)
        if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
            raise QueryError(f"expected a list of indices of training examples; found {given.dtype} {given.shape}")
        index = given.astype(np.int64)
        outside = index[(index < 0) | (index >= store.num_train)]
        if len(outside):
            raise QueryError(f"training examples are 0 .. {store.num_train - 1}; found {outside[0]}")
        if len(index) * store.num_test > _DENSE_VALUES:
            raise QueryError(
                f"{len(index)} x {store.num_test} influence values do not fit; ask for fewer, or use pairs()"
            )
        return estimate_influence(read_bits(store), index).value

    def pairs(
        self,
        *,
        top: int | None = None,
        min_influence: float | None = None,
        min_memorization: float | None = None,
        top_per_test: int | None = None,
        top_per_train: int | None = None,
        same_class: bool = False,
    ) -> pa.Table:
        """Select train/test pairs from the trials committed now, most influential first.

        Parameters
        ----------
        top
            How many rows at the most.
        min_influence, min_memorization
            Thresholds, inclusive; by default 0.15 and 0.25, or none if a top is asked for.
        top_per_test, top_per_train
            Keep so many pairs of each test, or training, example; with both, a pair in either is kept.
        same_class
            Only pairs of one class.

        Returns
        -------
        pyarrow.Table
            With the columns of ``influence.parquet``.
        """
        from feldman.estimates.influence import select_pairs
        from feldman.estimates.memorization import estimate_memorization
        from feldman.estimates.reading import read_bits
        from feldman.estimates.significance import QValues, num_pairs_tested

        if top is not None and top < 1:
            raise QueryError(f"top is how many rows, at least 1; found {top}")
        selection = chosen_pairs(
            min_influence=min_influence,
            min_memorization=min_memorization,
            top_per_target=top_per_test,
            top_per_train=top_per_train,
            same_class=same_class,
        )
        store = self.store
        bits = read_bits(store)
        memorization = estimate_memorization(bits).memorization
        labels = store.labels("train"), store.labels("test")
        pairs = select_pairs(bits, memorization, selection, labels)
        tested = num_pairs_tested(selection, labels[0][memorization >= selection.min_memorization], labels[1])
        q_value = QValues.of(pairs.p_value, tested)(pairs.p_value)
        return sorted_pairs(influence_table(pairs, memorization, *labels, q_value=q_value)).slice(0, top)

    def to_xarray(self) -> xarray.Dataset:
        """Open the store with xarray, lazily: variables by their names, dimensions ``trial``, ``train``, ``test``, ``block``.

        Trials that are still pending are there too, as False: while ``committed`` is 0 for a block, its trials do not count.
        """
        import xarray

        from feldman.trials.object_zarr import zarr_place

        opened: xarray.Dataset = xarray.open_zarr(zarr_place(self.paths.store), consolidated=False)
        return opened


def open_run(path: str | Path) -> Run:
    """Open a run for reading: a path, or a URL of an object store.

    Raises
    ------
    RunDirectoryError
        If there is no run, or it is damaged beyond reading.
    StoreMismatchError
        If its format is newer than this version.
    """
    return Run(run_paths(path))


def _mean_std(store: TrialStore, name: str, blocks: list[int]) -> tuple[float | None, float | None]:

    def read(block: int) -> NDArray[Any] | None:
        try:
            return store.read(name, block)
        except ValueError:  # `verify` tells of damage; a status is no place to fail
            return None

    parts = [values for values in in_order(read, blocks, store.num_requests) if values is not None]
    if not parts:
        return None, None
    values = np.concatenate(parts).astype(np.float64)
    if np.isnan(values).all():  # of imported trials not everything is known
        return None, None
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
