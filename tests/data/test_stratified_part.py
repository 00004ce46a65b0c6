"""A fixed part of a data set that keeps its class shares, as laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from feldman.data.dataset import stratified_part
from feldman.data.load import load_dataset
from feldman.errors import DatasetError
from feldman.experiment import DatasetSection


@st.composite
def labels_and_sizes(draw: st.DrawFn) -> tuple[NDArray[np.int64], int]:
    labels = draw(st.lists(st.integers(0, 6), min_size=1, max_size=120))
    return np.array(labels, dtype=np.int64), draw(st.integers(1, len(labels)))


@given(labels_and_sizes())
def test_a_part_has_exactly_the_size_asked_for(case: tuple[NDArray[np.int64], int]) -> None:
    labels, size = case
    assert len(stratified_part(labels, size)) == size


@given(labels_and_sizes())
def test_positions_are_distinct_ascending_and_in_range(case: tuple[NDArray[np.int64], int]) -> None:
    labels, size = case
    part = stratified_part(labels, size)
    assert (np.diff(part) > 0).all()
    assert part[0] >= 0
    assert part[-1] < len(labels)


@given(labels_and_sizes())
def test_every_class_gives_its_exact_share_to_within_one(case: tuple[NDArray[np.int64], int]) -> None:
    labels, size = case
    part = stratified_part(labels, size)
    for label in np.unique(labels):
        exact = (labels == label).sum() * size / len(labels)
        taken = (labels[part] == label).sum()
        assert np.floor(exact) <= taken <= np.ceil(exact)


@given(labels_and_sizes())
def test_the_part_depends_on_nothing_but_labels_and_size(case: tuple[NDArray[np.int64], int]) -> None:
    labels, size = case
    np.testing.assert_array_equal(stratified_part(labels, size), stratified_part(labels.copy(), size))


@given(labels_and_sizes())
def test_a_part_of_the_whole_size_is_the_whole(case: tuple[NDArray[np.int64], int]) -> None:
    labels, _ = case
    np.testing.assert_array_equal(stratified_part(labels, len(labels)), np.arange(len(labels)))


def test_examples_of_a_class_are_taken_evenly_from_the_whole_file() -> None:
    np.testing.assert_array_equal(stratified_part(np.zeros(100, dtype=np.int64), 5), [0, 20, 40, 60, 80])


def test_a_part_larger_than_the_whole_is_refused() -> None:
    with pytest.raises(DatasetError, match="there are 3 examples to take 4 from"):
        stratified_part(np.array([0, 1, 1]), 4)


def test_num_train_and_num_test_take_the_stratified_part_of_each() -> None:
    whole = load_dataset(DatasetSection(name="digits"))
    part = load_dataset(DatasetSection(name="digits", num_train=100, num_test=50))
    train, test = stratified_part(whole.y_train, 100), stratified_part(whole.y_test, 50)
    np.testing.assert_array_equal(part.x_train, whole.x_train[train])
    np.testing.assert_array_equal(part.y_train, whole.y_train[train])
    np.testing.assert_array_equal(part.x_test, whole.x_test[test])
    np.testing.assert_array_equal(part.y_test, whole.y_test[test])
    assert (part.shift, part.scale, part.class_names) == (whole.shift, whole.scale, whole.class_names)


@pytest.mark.parametrize(("key", "size", "there"), [("num_train", 1438, 1437), ("num_test", 361, 360)])
def test_more_examples_than_there_are_is_refused_with_how_many_there_are(key: str, size: int, there: int) -> None:
    section = DatasetSection.model_validate({"name": "digits", key: size})
    with pytest.raises(DatasetError, match=f"dataset.{key} = {size}, but there are only {there} examples"):
        load_dataset(section)


def test_all_examples_by_number_are_the_data_set_itself() -> None:
    whole = load_dataset(DatasetSection(name="digits"))
    by_number = load_dataset(DatasetSection(name="digits", num_train=1437, num_test=360))
    assert by_number.fingerprint == whole.fingerprint
