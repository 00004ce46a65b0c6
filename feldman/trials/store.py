"""The trial store: a Zarr group of correctness bits with a commit marker a block. One process writes; anyone reads."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from jaxtyping import Integer
from numpy.typing import NDArray

from feldman import __version__
from feldman.data.dataset import Dataset
from feldman.errors import CorruptStoreError, FeldmanError, RunDirectoryError, StoreMismatchError, command, listed
from feldman.experiment import Experiment, differing_fields
from feldman.experiment_files import experiment_from_document
from feldman.learners.training_path import TrainingPath
from feldman.trials.chunk_writing import write_rows
from feldman.trials.chunks import read_chunk
from feldman.trials.design import Design, DesignedPlan
from feldman.trials.design_storage import read_design, write_design
from feldman.trials.layout import (
    BIT_ARRAYS,
    BLOCK_ARRAYS,
    FORMAT,
    FORMAT_VERSION,
    create_arrays,
    dataset_attributes,
    has_own_codecs,
    open_array,
    output_arrays,
    store_attributes,
)
from feldman.trials.locations import Location
from feldman.trials.object_zarr import built_object_group, zarr_place
from feldman.trials.plan import Plan, RandomPlan
from feldman.trials.reading_ahead import in_order, num_requests
from feldman.trials.stopping import StoppingRecord
from feldman.trials.storage import storage_errors
from feldman.trials.task import BlockResult, unpack_bits

__all__ = ["TrialStore", "built_group"]


class TrialStore:
    """An open trial store.

    Use `create`, or `open`; then `commit_block` in the one process that holds the run's lock, and the reading methods
    anywhere, also while it is written.

    Attributes
    ----------
    path
        The Zarr group.
    experiment
        What is estimated, as the store has it.
    block_arrays
        The arrays that a block has a part in: those of every store, and those that its experiment records beside.
    """

    def __init__(self, path: Location, group: zarr.Group, experiment: Experiment) -> None:
        self.path = path
        self.experiment = experiment
        self._group = group
        self._kept: dict[int, dict[str, NDArray[Any]]] = {}
        self._design: Design | None = None
        self._train_labels: NDArray[Any] | None = None
        self.block_arrays = (*BLOCK_ARRAYS, *output_arrays(experiment.outputs))
        self._arrays = {
            name: open_array(group, name) for name in (*self.block_arrays, "committed", "train_label", "test_label")
        }

    @classmethod
    def create(
        cls,
        path: Location,
        experiment: Experiment,
        dataset: Dataset,
        stopping: StoppingRecord | None = None,
        design: Design | None = None,
    ) -> TrialStore:
        """Make an empty store; it is there whole or not at all. ``design`` is that of ``subsets.design``.

        Raises
        ------
        StorageError
            If the storage refuses.
        """
        with built_group(path) if isinstance(path, Path) else built_object_group(path) as building:
            attributes = store_attributes(experiment, dataset_attributes(dataset))
            if stopping is not None:
                attributes["stopping"] = stopping.as_json()
            group = zarr.create_group(building, zarr_format=3, attributes=attributes)
            create_arrays(group, experiment, dataset.y_train, dataset.y_test, dataset.num_classes)
            if design is not None:
                write_design(group, design)
        return cls.open(path)

    @classmethod
    def open(cls, path: Location) -> TrialStore:
        """Open a store.

        Raises
        ------
        RunDirectoryError
            If there is none, it is another kind of Zarr group, or its metadata cannot be read.
        StoreMismatchError
            If its format is newer than this version of feldman.
        """
        if not (path / "zarr.json").exists():
            if (path.parent / "memorization.parquet").exists():
                raise RunDirectoryError(
                    f"'{path.parent}' holds tables and no trials (it has no {path.name}): its estimates were imported, or "
                    "its trials taken away; memorized, pairs, status and compare --with work on it"
                )
            raise RunDirectoryError(
                f"'{path.parent}' is not a run: it has no {path.name}; start one with `feldman run`"
            )
        try:
            writable = not isinstance(path, Path) or os.access(path, os.W_OK)
            group = zarr.open_group(zarr_place(path), mode="r+" if writable else "r", zarr_format=3)
            attributes = group.attrs.asdict()
        except FeldmanError:
            raise
        except OSError as error:
            raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}") from None
        except Exception as error:
            raise RunDirectoryError(f"{path} is not a readable Zarr group: {error}") from None
        if attributes.get("format") != FORMAT:
            raise RunDirectoryError(
                f"{path} is a Zarr group of another program (its 'format' is {attributes.get('format')!r}, "
                f"expected '{FORMAT}'); choose another run directory"
            )
        if attributes.get("format_version") != FORMAT_VERSION:
            raise StoreMismatchError(
                f"{path} has format version {attributes.get('format_version')}; feldman {__version__} reads version "
                f"{FORMAT_VERSION}: upgrade feldman, or use the version that wrote it ({attributes.get('created_with')})"
            )
        lacking = [name for name in ("experiment", "dataset") if not isinstance(attributes.get(name), dict)]
        if lacking:
            raise RunDirectoryError(f"{path} is damaged: its attributes lack {listed(lacking)}")
        experiment = experiment_from_document(
            cast("dict[str, Any]", attributes["experiment"]), f"the experiment in {path}"
        )
        try:
            return cls(path, group, experiment)
        except FeldmanError:
            raise
        except KeyError as error:
            raise RunDirectoryError(f"{path} is damaged: its array {error} is missing or unreadable") from None
        except Exception as error:
            raise RunDirectoryError(f"{path} is damaged: the metadata of an array cannot be read: {error}") from None

    # What is in it

    @property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes: format, experiment, fingerprint, data set, versions."""
        return self._group.attrs.asdict()

    @property
    def imported_from(self) -> str | None:
        """Where released runs were imported from: their subsets are not of our plan, and there is nothing to train. Else None."""
        return str(self.attributes.get("imported_from")) if self.attributes.get("subset_plan") == "imported" else None

    @property
    def design(self) -> Design | None:
        """The subsets that trials learn from, of a study that removes examples. Else None: subsets are random.

        Raises
        ------
        CorruptStoreError
            If it cannot be read.
        """
        fingerprint = self.experiment.subsets.design
        if fingerprint is not None and self._design is None:
            self._design = read_design(self._group, self.path, fingerprint)
        return self._design

    @property
    def plan(self) -> Plan | None:
        """Which examples each trial learns from, and its seed. None of imported trials: they follow from no seed.

        Raises
        ------
        CorruptStoreError
            If a design cannot be read, or the labels that it needs.
        """
        if self.imported_from is not None:
            return None
        subsets, design = self.experiment.subsets, self.design
        if design is None:
            return RandomPlan(seed=subsets.seed, subset_ratio=subsets.subset_ratio, num_train=self.num_train)
        if self._train_labels is None:
            try:
                self._train_labels = self.labels("train")
            except (ValueError, RuntimeError) as error:
                raise CorruptStoreError(
                    f"{self.path} is damaged: {error}; `{command('resume', self.path.parent)}` mends it"
                ) from None
        return DesignedPlan(seed=subsets.seed, design=design, labels=self._train_labels)

    @property
    def training_path(self) -> TrainingPath | None:
        """How trials are trained, where the experiment left it open and it has been measured. Else None.

        Raises
        ------
        CorruptStoreError
            If it cannot be read.
        """
        found = self.attributes.get("training_path")
        return None if found is None else TrainingPath.from_json(found)

    @property
    def stopping(self) -> StoppingRecord | None:
        """The rule by which the run ends before its plan does, and what it has looked at. None without.

        Raises
        ------
        CorruptStoreError
            If it cannot be read.
        """
        found = self.attributes.get("stopping")
        return None if found is None else StoppingRecord.from_json(found)

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        return self._arrays["train_label"].shape[0]

    @property
    def num_test(self) -> int:
        """Number of test examples."""
        return self._arrays["test_label"].shape[0]

    @property
    def num_blocks(self) -> int:
        """Number of blocks, committed or not."""
        return self.experiment.subsets.num_blocks

    def labels(self, part: str) -> Integer[np.ndarray, " example"]:
        """Return the labels of ``"train"`` or ``"test"``.

        Raises
        ------
        ValueError
            If a chunk is missing or does not decode to what was written.
        """
        array = self._arrays[f"{part}_label"]
        for chunk in range(-(-array.shape[0] // array.chunks[0])):
            self._require_chunk(f"{part}_label", (chunk,))
        return np.asarray(array[:])

    def original_train_labels(self) -> Integer[np.ndarray, " train"] | None:
        """Return the labels of the training examples before some were replaced by random ones; None where none was.

        Raises
        ------
        ValueError
            If a chunk is missing or does not decode to what was written.
        """
        random = self.attributes["dataset"].get("random_labels")
        if random is None:
            return None
        labels = self.labels("train").copy()
        labels[random["train_index"]] = random["original_label"]
        return labels

    def array(self, name: str) -> zarr.Array[Any]:
        """Return one of the Zarr arrays."""
        return self._arrays[name]

    def is_committed(self, block: int) -> bool:
        """Tell whether a block counts. A marker that cannot be read is no marker: its block is trained again."""
        return self._marker(block) == 1

    def committed_blocks(self) -> list[int]:
        """Return the blocks that count, ascending."""
        return [block for block, marker in enumerate(self._markers()) if marker == 1]

    def unreadable_markers(self) -> list[int]:
        """Return the blocks whose marker is there and cannot be read: whether they count is not known."""
        return [block for block, marker in enumerate(self._markers()) if marker is None]

    def _markers(self) -> list[int | None]:
        """Return each block's marker, None where it cannot be read; all at once unless one of them is damaged."""
        array = self._arrays["committed"]
        try:
            return [int(marker) for marker in np.asarray(array[: self.num_blocks])]
        except ValueError:
            return [self._marker(block) for block in range(self.num_blocks)]

    def _marker(self, block: int) -> int | None:
        try:
            return int(np.asarray(self._arrays["committed"][block]))
        except ValueError:
            return None

    @property
    def num_requests(self) -> int:
        """How many things are read or written at once where the store lies."""
        return num_requests(self.path)

    def num_trials_in(self, blocks: list[int]) -> int:
        """Return how many trials some blocks hold."""
        return sum(len(self.experiment.subsets.block_trials(block)) for block in blocks)

    def read(self, name: str, block: int, columns: int | None = None) -> NDArray[Any]:
        """Read one block of an array, its checksums compared.

        Parameters
        ----------
        name, block
            What to read.
        columns
            Of an array of bits, only this chunk of examples; by default all.

        Returns
        -------
        ndarray [trial] or [trial, example]
            Read-only.

        Raises
        ------
        ValueError
            If a chunk is missing or does not decode to what was written; the text says which.
        """
        array = self._arrays[name]
        num_trials = len(self.experiment.subsets.block_trials(block))
        if array.ndim == 1:
            return self._chunk(name, (block,))[:num_trials]
        chunks = range(-(-array.shape[1] // array.chunks[1])) if columns is None else [columns]
        width = array.chunks[1]
        parts = [self._chunk(name, (block, k))[:num_trials, : array.shape[1] - k * width] for k in chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _chunk(self, name: str, index: tuple[int, ...]) -> NDArray[Any]:
        array = self._arrays[name]
        key = array.metadata.encode_chunk_key(index)
        try:
            if has_own_codecs(array):
                return read_chunk(self.path / name / key, array.chunks, array.dtype)
            self._require_chunk(name, index)
            low = [position * size for position, size in zip(index, array.chunks, strict=True)]
            return np.asarray(array[tuple(slice(k, k + size) for k, size in zip(low, array.chunks, strict=True))])
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"chunk {name}/{key} {error}") from None

    def _require_chunk(self, name: str, index: tuple[int, ...]) -> None:
        key = self._arrays[name].metadata.encode_chunk_key(index)  # a chunk that is not there would read as fill values
        if not (self.path / name / key).is_file():
            raise ValueError(f"chunk {name}/{key} is missing")

    def digest(self, blocks: list[int] | None = None) -> str:
        """Return a hash of some blocks, by default the committed ones, and how accurate their trials are.

        Trials whose bits differ have, but for a freak of chance, other accuracies: a table that was made from others can be told
        without reading every bit.

        Raises
        ------
        ValueError
            If an accuracy cannot be read.
        """
        blocks = self.committed_blocks() if blocks is None else blocks
        total = hashlib.sha256(repr(blocks).encode())
        for name in ("train_accuracy", "test_accuracy"):
            for values in in_order(partial(self.read, name), blocks, self.num_requests):
                total.update(values.tobytes())
        return total.hexdigest()

    # Writing: for the process that holds the lock

    def commit_block(self, result: BlockResult) -> None:
        """Unpack a trained block and commit it; see `commit_arrays`."""
        arrays = {name: getattr(result, name) for name in self.block_arrays}
        for name in BIT_ARRAYS:
            arrays[name] = unpack_bits(arrays[name], self._arrays[name].shape[1])
        for name, values in self._kept.pop(result.block, {}).items():  # trials that this block had before the run grew
            arrays[name] = np.concatenate([values, arrays[name][len(values) :]])
        self.commit_arrays(result.block, arrays)

    def commit_arrays(self, block: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a block's arrays, then its marker. Once committed, a block never changes.

        Raises
        ------
        StorageError
            If the storage refuses. The block is then pending, and the store as good as before.
        """
        if self.is_committed(block):
            raise FeldmanError(f"block {block} is committed already; this is a defect of feldman, please report it")
        trials = self.experiment.subsets.block_trials(block)
        with storage_errors(self.path):
            write = lambda name: write_rows(self._arrays[name], trials.start, arrays[name])  # noqa: E731
            list(in_order(write, self.block_arrays, self.num_requests))
            write_rows(self._arrays["committed"], block, np.ones(1, np.uint8))

    def withdraw_block(self, block: int) -> None:
        """Make a block pending again: its chunks were damaged, or it has to grow."""
        with storage_errors(self.path):
            self._arrays["committed"][block] = 0

    def grow(self, num_trials: int, trials: tuple[int, int] | None) -> None:
        """Make room for more trials; those that are committed stay. ``trials`` is the range that is trained from now on.

        A last block that was shorter than ``block_size`` becomes pending: trained again, now whole, it has the same bits for the
        trials it had; and should its learner or hardware have changed, those trials are kept as they were. A kill at any
        moment leaves the old length and range, with at most that block to train again.
        """
        subsets = self.experiment.subsets
        if num_trials < subsets.num_trials:
            raise ValueError(f"a store only grows: it has {subsets.num_trials} trials, {num_trials} asked for")
        last = subsets.num_blocks - 1
        if num_trials > subsets.num_trials and len(subsets.block_trials(last)) < subsets.block_size:
            if self.is_committed(last):
                self._kept[last] = {name: self.read(name, last) for name in self.block_arrays}
            self.withdraw_block(last)
        grown = self.experiment.replace("subsets", {"num_trials": num_trials})
        self.experiment = grown.replace("execution", {"trials": trials})
        self.fit_arrays()
        self._record_experiment()

    def record_circumstances(self, experiment: Experiment) -> None:
        """Remember where the data set's files lie and how trials are executed, if that has changed, for the next resume."""
        update = {"dataset": experiment.dataset, "execution": experiment.execution}
        if any(getattr(self.experiment, section) != given for section, given in update.items()):
            self.experiment = self.experiment.model_copy(update=update)
            self._record_experiment()

    def mark_imported(self, source: str) -> None:
        """Remember that the trials came from ``source``, with subsets that no seed tells."""
        with storage_errors(self.path):
            self._group.update_attributes({"subset_plan": "imported", "imported_from": source})

    def record_training_path(self, path: TrainingPath) -> None:
        """Remember how trials are trained, for the next resume."""
        with storage_errors(self.path):
            self._group.update_attributes({"training_path": path.as_json()})

    def record_stopping(self, record: StoppingRecord | None) -> None:
        """Remember a stopping rule and what it looked at.

        Once it is met, the plan ends with the last look and blocks beyond are taken out, so that what arrived early changes
        nothing. Rule and plan are written together; a kill after that leaves arrays too long, which `fit_arrays` mends.
        """
        attributes: dict[str, Any] = {"stopping": None if record is None else record.as_json()}
        if record is not None and record.outcome == "met" and record.looked_at < self.experiment.subsets.num_trials:
            self.experiment = self.experiment.replace("subsets", {"num_trials": record.looked_at})
            attributes["experiment"] = self.experiment.model_dump(mode="json")
        with storage_errors(self.path):
            self._group.update_attributes(attributes)
        self.fit_arrays()

    def check_trainable(self) -> None:
        """Refuse to train trials of a store that was imported.

        Raises
        ------
        RunDirectoryError
            If it was.
        """
        if self.imported_from is not None:
            raise RunDirectoryError(
                f"'{self.path.parent}' was imported from {self.imported_from}: its trials were trained elsewhere, and there is "
                "nothing to train; to add trials, import all of them into a new run"
            )

    def check_random(self) -> None:
        """Refuse to estimate from subsets that were designed: examples are not in them by chance.

        Raises
        ------
        RunDirectoryError
            If they were.
        """
        if self.experiment.subsets.design is not None:
            raise RunDirectoryError(
                f"'{self.path.parent}' is a study of removed examples: its subsets are no random ones, and nothing can be "
                f"estimated from them; `{command('removal', self.path.parent)}` shows what came out"
            )

    def _record_experiment(self) -> None:
        with storage_errors(self.path):
            self._group.update_attributes({"experiment": self.experiment.model_dump(mode="json")})

    def fit_arrays(self) -> None:
        """Give every array the length that the experiment says: a kill while growing leaves some longer than others."""
        with storage_errors(self.path):
            for name in (*self.block_arrays, "committed"):
                array = self._arrays[name]
                length = self.num_blocks if name == "committed" else self.experiment.subsets.num_trials
                if array.shape[0] != length:
                    array.resize((length, *array.shape[1:]))

    def restore_labels(self, dataset: Dataset) -> list[str]:
        """Write the labels again where they cannot be read or are not the data set's; say which."""
        restored = []
        for name, labels in (("train_label", dataset.y_train), ("test_label", dataset.y_test)):
            try:
                same = np.array_equal(self.labels(name.removesuffix("_label")), labels)
            except (ValueError, RuntimeError):
                same = False
            if not same:
                with storage_errors(self.path):
                    self._arrays[name][:] = labels
                restored.append(name)
        return restored

    def differences(
        self, experiment: Experiment, dataset_fingerprint: str, places: tuple[str, str] = ("in the store", "given")
    ) -> list[str]:
        """List the fields in which another experiment estimates something else; ``places`` says where each was found."""
        fields = differing_fields(self.experiment, experiment, places)
        stored = self.attributes["dataset"]["fingerprint"]
        if not fields and stored != dataset_fingerprint:
            found = f"{stored[:12]} {places[0]}, {dataset_fingerprint[:12]} {places[1]}"
            fields = [f"content of the data set: {found}"]
        return fields

    def check_experiment(self, experiment: Experiment, dataset_fingerprint: str) -> None:
        """Refuse to add trials of another experiment, or trials of which something else is recorded.

        Raises
        ------
        StoreMismatchError
            With the fields that differ.
        """
        fields = self.differences(experiment, dataset_fingerprint)
        if fields:
            raise StoreMismatchError(
                f"'{self.path.parent}' holds another experiment; choose another run directory. What differs:\n  "
                + "\n  ".join(fields)
            )
        if self.experiment.outputs != experiment.outputs:
            found, asked = (
                listed(outputs.names) or "no outputs" for outputs in (self.experiment.outputs, experiment.outputs)
            )
            flags = [
                f"outputs.{name}={str(value).lower()}" for name, value in self.experiment.outputs.model_dump().items()
            ]
            raise StoreMismatchError(
                f"'{self.path.parent}' records {found} and the experiment asks for {asked}: what is recorded is decided when "
                f"a run is made. To go on with it, set {' and '.join(flags)}, or use "
                f"`{command('resume', self.path.parent)}`; to record something else, choose another run directory"
            )


@contextmanager
def built_group(path: Path) -> Iterator[Path]:
    """Yield a partial name to build a store under; it gets its own name in the end, and is removed if anything goes wrong.

    Raises
    ------
    StorageError
        If the storage refuses.
    """
    building = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with storage_errors(path):
        for left_behind in path.parent.glob(f"{path.name}.*.partial"):  # by a kill in this very place
            shutil.rmtree(left_behind)
        try:
            yield building
            building.rename(path)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
