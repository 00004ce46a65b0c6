"""One entrance to all data sets: from an experiment's ``[dataset]`` to a `Dataset`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feldman.data.arrays import load_arrays
from feldman.data.cifar import CIFAR_DATASETS, load_cifar
from feldman.data.dataset import Dataset, stratified_part
from feldman.data.digits import load_digits
from feldman.data.huggingface import PREFIX, load_huggingface
from feldman.data.idx import IDX_DATASETS, load_idx_dataset
from feldman.data.image_folder import load_image_folder, read_file_names
from feldman.data.random_labels import with_random_labels
from feldman.data.svhn import load_svhn
from feldman.errors import DatasetError, listed, suggestion
from feldman.experiment import DatasetSection
from feldman.importing import import_callable

__all__ = ["BUILT_IN", "example_files", "load_dataset"]

BUILT_IN = ("digits", *IDX_DATASETS, *CIFAR_DATASETS, "svhn", "image-folder", "arrays")


def load_dataset(section: DatasetSection) -> Dataset:
    """Load what ``[dataset]`` describes, cut to ``num_train`` and ``num_test``, with ``random_labels``.

    A name of the form ``"package.module:function"`` is called with ``section.parameters`` and must return a `Dataset`;
    ``"huggingface:NAME"`` is one of the hub's.

    Raises
    ------
    DatasetError
        If the data set is unknown, not to be found, or not fit to learn from.
    """
    _check_keys(section)
    dataset = _load_whole(section)
    train = _part("num_train", section.num_train, dataset.y_train)
    test = _part("num_test", section.num_test, dataset.y_test)
    if train is not None or test is not None:
        dataset = _cut(dataset, train, test)
    if section.random_labels is None:
        return dataset
    return with_random_labels(dataset, section.random_labels, section.random_labels_seed)


def example_files(section: DatasetSection, part: str) -> list[str] | None:
    """Return which file each example of ``"train"`` or ``"test"`` was; None of data sets that do not tell.

    Raises
    ------
    DatasetError
        If more examples are asked for than there are.
    """
    if section.name != "image-folder" or section.path is None:
        return None
    files = read_file_names(section.path, part)
    size = section.num_train if part == "train" else section.num_test
    if files is None or size is None:
        return files
    whole = load_image_folder(section.path)
    labels = whole.y_train if part == "train" else whole.y_test
    if len(files) != len(labels):  # somebody changed the list: it names nothing any more
        return None
    chosen = _part(f"num_{part}", size, labels)
    return files if chosen is None else [files[index] for index in chosen]


def _cut(dataset: Dataset, train: NDArray[np.intp] | None, test: NDArray[np.intp] | None) -> Dataset:
    return replace(
        dataset,
        x_train=dataset.x_train if train is None else dataset.x_train[train],
        y_train=dataset.y_train if train is None else dataset.y_train[train],
        x_test=dataset.x_test if test is None else dataset.x_test[test],
        y_test=dataset.y_test if test is None else dataset.y_test[test],
        source=None,  # an index no longer means the same example there
    )


def _load_whole(section: DatasetSection) -> Dataset:
    name = section.name
    if name == "digits":
        return load_digits()
    if name in IDX_DATASETS:
        return load_idx_dataset(IDX_DATASETS[name], section.root)
    if name in CIFAR_DATASETS:
        return load_cifar(CIFAR_DATASETS[name], section.root, _labels(section))
    if name == "svhn":
        return load_svhn(section.root)
    if name == "image-folder":
        return load_image_folder(section.path)
    if name == "arrays":
        return load_arrays(section.path)
    if name.startswith(PREFIX):
        return load_huggingface(name.removeprefix(PREFIX), section.parameters)
    return _load_own(section)


def _labels(section: DatasetSection) -> str:
    unknown = [key for key in section.parameters if key != "labels"]
    labels = section.parameters.get("labels", "fine")
    if unknown or not isinstance(labels, str):
        raise DatasetError(
            f"dataset.parameters of {section.name} may only be labels = 'fine' or 'coarse'; found {section.parameters}"
        )
    return labels


def _load_own(section: DatasetSection) -> Dataset:
    function = import_callable(section.name, "dataset.name", DatasetError)
    try:
        made = function(**section.parameters)
    except DatasetError:
        raise
    except (Exception, SystemExit) as error:
        raise DatasetError(
            f"dataset.name = '{section.name}': calling it with dataset.parameters raised {error!r}"
        ) from error
    if not isinstance(made, Dataset):
        raise DatasetError(
            f"dataset.name = '{section.name}' must return a Dataset; it returned a {type(made).__name__}"
        )
    return made


def _check_keys(section: DatasetSection) -> None:
    """Refuse a name of no data set, and keys that this one would not look at: who set one expects it to matter."""
    if section.name not in BUILT_IN and ":" not in section.name:
        raise DatasetError(
            f"there is no data set '{section.name}'{suggestion(section.name, BUILT_IN)}; "
            f"choose one of {listed(BUILT_IN)}, '{PREFIX}NAME', or your own as 'package.module:function'"
        )
    used = {
        "root": section.name in (*IDX_DATASETS, *CIFAR_DATASETS, "svhn"),
        "path": section.name in ("arrays", "image-folder"),
        "parameters": section.name == "cifar100" or ":" in section.name,
    }
    for key, matters in used.items():
        if getattr(section, key) and not matters:
            raise DatasetError(f"dataset.{key} says nothing to the data set '{section.name}'; take it out")


def _part(key: str, size: int | None, labels: NDArray[np.integer]) -> NDArray[np.intp] | None:
    if size is None or size == len(labels):
        return None
    if size > len(labels):
        raise DatasetError(f"dataset.{key} = {size}, but there are only {len(labels)} examples")
    return stratified_part(labels, size)
