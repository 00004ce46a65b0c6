"""Random labels: who gets them, what they become, and that everything else stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from feldman.data.dataset import Dataset
from feldman.data.load import load_dataset
from feldman.data.random_labels import with_random_labels
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection
from tests.conftest import small_dataset


def changed(dataset: Dataset, original: Dataset) -> list[int]:
    return np.flatnonzero(dataset.y_train != original.y_train).tolist()


@given(st.integers(1, 30), st.integers(0, 2**63 - 1))
def test_as_many_labels_as_asked_for_are_another_class_and_nothing_else_is_another(num_random: int, seed: int) -> None:
    original = small_dataset()
    dataset = with_random_labels(original, num_random, seed)
    random = dataset.random_labels
    assert random is not None
    assert changed(dataset, original) == random.train_index.tolist()
    assert len(random.train_index) == num_random
    restored = dataset.y_train.copy()
    restored[random.train_index] = random.original_label
    assert replace(dataset, y_train=restored).fingerprint == original.fingerprint != dataset.fingerprint
    more = with_random_labels(original, num_random + 5, seed)
    assert set(changed(dataset, original)) < set(changed(more, original))
    assert (more.y_train[random.train_index] == dataset.y_train[random.train_index]).all()


def test_every_example_and_every_other_class_is_as_likely_and_a_seed_is_pinned() -> None:
    original = small_dataset()
    drawn = [with_random_labels(original, 20, seed) for seed in range(300)]
    who = np.bincount(np.concatenate([changed(dataset, original) for dataset in drawn]), minlength=60)
    assert chisquare(who).pvalue > 1e-3
    shifts = np.concatenate([(dataset.y_train - original.y_train) % 3 for dataset in drawn])
    assert chisquare(np.bincount(shifts, minlength=3)[1:]).pvalue > 1e-3
    assert changed(with_random_labels(original, 5, 0), original) == [24, 27, 33, 44, 50]


def test_a_part_is_cut_before_its_labels_are_replaced() -> None:
    section = DatasetSection(name="digits", num_train=100, random_labels=10, random_labels_seed=3)
    dataset, whole = load_dataset(section), load_dataset(DatasetSection(name="digits", num_train=100))
    assert dataset.num_train == 100
    assert len(changed(dataset, whole)) == 10


def test_labels_that_cannot_be_replaced_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"dataset\.random_labels = 61, but there are only 60"):
        with_random_labels(small_dataset(), 61, 0)
    alone = replace(small_dataset(), class_names=("0",), y_train=np.zeros(60, np.int64), y_test=np.zeros(30, np.int64))
    with pytest.raises(DatasetError, match="needs another class"):
        with_random_labels(alone, 1, 0)
