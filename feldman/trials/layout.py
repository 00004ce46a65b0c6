"""How a trial store looks on disk: the contract that other programs read. Zarr v3, no pickles, no object arrays."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Integer
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.array_spec import ArrayConfigParams

from feldman import __version__
from feldman.data.dataset import Dataset
from feldman.experiment import Experiment, OutputsSection
from feldman.learners.outputs import label_type

__all__ = [
    "BIT_ARRAYS",
    "BLOCK_ARRAYS",
    "FORMAT",
    "FORMAT_VERSION",
    "TRIAL_ARRAYS",
    "create_arrays",
    "created_with",
    "dataset_attributes",
    "has_own_codecs",
    "open_array",
    "output_arrays",
    "store_attributes",
]

FORMAT = "feldman-trials"
FORMAT_VERSION = 1
MAX_CHUNK_EXAMPLES = 65536

_ZSTD_LEVEL = 2
"""Higher ones look for repetitions that random subsets do not have. Measured beside level 5: stores of CIFAR-100's shape are 0.8%
larger and encoded in half of the time, those of the digits 22% smaller, for there level 5 makes subsets larger than they were."""

BIT_ARRAYS = ("subset_mask", "train_correct", "test_correct")
TRIAL_ARRAYS = ("trial_seed", "train_accuracy", "test_accuracy", "train_seconds")
BLOCK_ARRAYS = (*BIT_ARRAYS, *TRIAL_ARRAYS)
"""The arrays that a block has a part in; the first three are the truth that estimates count."""

_OUTPUT_ARRAYS = {
    "margins": ("train_margin", "test_margin"),
    "predictions": ("train_prediction", "test_prediction"),
}
"""[trial, example]; a store has those that ``[outputs]`` of its experiment asks for, written by the rules of the bits."""

_WRITE_ALL: ArrayConfigParams = {
    "write_empty_chunks": True
}  # so that a committed block whose chunk is gone can be told from an all-False one


def output_arrays(outputs: OutputsSection) -> tuple[str, ...]:
    """Return the arrays that a store has beside `BLOCK_ARRAYS`."""
    return tuple(array for name in outputs.names for array in _OUTPUT_ARRAYS[name])


def open_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Open one array, to be written with every chunk.

    Raises
    ------
    KeyError
        If it is not there.
    """
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array.with_config(_WRITE_ALL)


def has_own_codecs(array: zarr.Array[Any]) -> bool:
    """Tell whether chunks are encoded as `create_arrays` does: another tool may have written an array its own way."""
    codecs = getattr(array.metadata, "codecs", ())
    return [type(codec) for codec in codecs] == [BytesCodec, BloscCodec, Crc32cCodec]


def create_arrays(
    group: zarr.Group,
    experiment: Experiment,
    y_train: Integer[np.ndarray, " train"],
    y_test: Integer[np.ndarray, " test"],
    num_classes: int,
) -> None:
    """Make all arrays of a store; write the labels."""
    subsets = experiment.subsets
    lengths = {
        "trial": subsets.num_trials,
        "block": subsets.num_blocks,
        "train": len(y_train),
        "test": len(y_test),
    }
    chunks = {"trial": subsets.block_size, "block": 1}
    arrays: list[tuple[str, tuple[str, ...], str, float | bool]] = [
        ("subset_mask", ("trial", "train"), "bool", False),
        ("train_correct", ("trial", "train"), "bool", False),
        ("test_correct", ("trial", "test"), "bool", False),
        ("train_label", ("train",), "int64", 0),
        ("test_label", ("test",), "int64", 0),
        ("trial_seed", ("trial",), "int64", 0),
        ("train_accuracy", ("trial",), "float32", float("nan")),
        ("test_accuracy", ("trial",), "float32", float("nan")),
        ("train_seconds", ("trial",), "float32", float("nan")),
        ("committed", ("block",), "uint8", 0),
    ]
    predicted_type = label_type(num_classes).name
    for name in output_arrays(experiment.outputs):
        axis, kind = name.split("_")
        dtype, fill_value = ("float16", float("nan")) if kind == "margin" else (predicted_type, 0)
        arrays.append((name, ("trial", axis), dtype, fill_value))
    for name, dimensions, dtype, fill_value in arrays:
        bits = dtype == "bool"
        blosc = BloscCodec(
            cname="zstd",
            clevel=_ZSTD_LEVEL,
            shuffle="bitshuffle" if bits else "shuffle",
            typesize=np.dtype(dtype).itemsize,
        )
        group.create_array(
            name,
            shape=tuple(lengths[axis] for axis in dimensions),
            chunks=tuple(chunks.get(axis, min(lengths[axis], MAX_CHUNK_EXAMPLES)) for axis in dimensions),
            dtype=dtype,
            fill_value=fill_value,
            compressors=[Crc32cCodec()] if name == "committed" else [blosc, Crc32cCodec()],
            dimension_names=dimensions,
            config=_WRITE_ALL,
        )
    open_array(group, "train_label")[:] = y_train
    open_array(group, "test_label")[:] = y_test


def store_attributes(experiment: Experiment, dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the group; ``dataset`` as `dataset_attributes` makes it."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "experiment": experiment.model_dump(mode="json"),
        "fingerprint": experiment.fingerprint,
        "dataset": dataset,
        "created_with": created_with(),
    }


def dataset_attributes(dataset: Dataset) -> dict[str, Any]:
    """Return what a store tells of its data set; of random labels, which they are and what they were; of features, of what."""
    random = dataset.random_labels
    told = {} if random is None else {name: values.tolist() for name, values in vars(random).items()}
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "num_train": dataset.num_train,
        "num_test": dataset.num_test,
        "class_names": list(dataset.class_names),
        **({"random_labels": told} if told else {}),
        **({"source": asdict(dataset.source)} if dataset.source else {}),
    }


def created_with() -> dict[str, Any]:
    """Say which software makes a store or features. Installed versions are read from metadata: nothing heavy is imported."""
    names = ("ray", "torch", "numpy", "zarr", "scikit-learn")
    versions = {"feldman": __version__, "python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "git": _git_commit()}


def _git_commit() -> str | None:
    try:
        # Only if this very file is tracked: an installed package may lie inside a repository of the user's.
        subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True, timeout=5, check=True,
        )  # fmt: skip
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
