"""One entrance to all data sets: from an experiment's ``[dataset]`` to a `Dataset`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feldman.data.arrays import load_arrays
from feldman.data.dataset import Dataset, stratified_part
from feldman.data.digits import load_digits
from feldman.data.idx import IDX_DATASETS, load_idx_dataset
from feldman.errors import DatasetError, listed, suggestion
from feldman.experiment import DatasetSection
from feldman.importing import import_callable

__all__ = ["BUILT_IN", "load_dataset"]

BUILT_IN = ("digits", *IDX_DATASETS, "arrays")


def load_dataset(section: DatasetSection) -> Dataset:
    """Load what ``[dataset]`` describes, cut to ``num_train`` and ``num_test``.

    A name of the form ``"package.module:function"`` is called with ``section.parameters`` and must return a `Dataset`.

    Raises
    ------
    DatasetError
        If the data set is unknown, not to be found, or not fit to learn from.
    """
    _check_keys(section)
    dataset = _load_whole(section)
    train = _part("num_train", section.num_train, dataset.y_train)
    test = _part("num_test", section.num_test, dataset.y_test)
    if train is None and test is None:
        return dataset
    return replace(
        dataset,
        x_train=dataset.x_train if train is None else dataset.x_train[train],
        y_train=dataset.y_train if train is None else dataset.y_train[train],
        x_test=dataset.x_test if test is None else dataset.x_test[test],
        y_test=dataset.y_test if test is None else dataset.y_test[test],
    )


def _load_whole(section: DatasetSection) -> Dataset:
    if section.name == "digits":
        return load_digits()
    if section.name in IDX_DATASETS:
        return load_idx_dataset(IDX_DATASETS[section.name], section.root)
    if section.name == "arrays":
        return load_arrays(section.path)
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
            f"choose one of {listed(BUILT_IN)}, or your own as 'package.module:function'"
        )
    used = {
        "root": section.name in IDX_DATASETS,
        "path": section.name == "arrays",
        "parameters": ":" in section.name,
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
