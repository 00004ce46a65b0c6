"""Which examples a page shows and how they are counted, against plain Python."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman.errors import QueryError
from feldman.report.histogram import BIN_WIDTH, bin_of, count_memorization
from feldman.report.selection import PageLimits, most_memorized_of_each, typical_of_each

values = st.one_of(st.sampled_from([0.0, 0.25, 0.3, 1.0, math.nan]), st.floats(-1, 1, allow_nan=False))
examples = st.lists(st.tuples(st.integers(0, 3), values, st.sampled_from([math.nan, 0.5, 1.0])), max_size=40)
Example = tuple[int, float, float]


def columns(rows: list[Example]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, value, right = ([row[k] for row in rows] for k in range(3))
    return np.array(label, np.int64), np.array(value, np.float64), np.array(right, np.float64)


@given(examples, st.integers(1, 5))
def test_the_most_memorized_of_each_class_at_most_half_of_it_come_by_rank_then_by_class(
    rows: list[Example], most: int
) -> None:
    label, value, _ = columns(rows)
    chosen = most_memorized_of_each(label, value, most)
    ranked = []
    for each in range(4):
        own = [k for k, row in enumerate(rows) if row[0] == each and not math.isnan(row[1])]
        own.sort(key=lambda k: (-rows[k][1], k))
        ranked += [(rank, each, k) for rank, k in enumerate(own[: min(most, -(-len(own) // 2))])]
    assert chosen.tolist() == [k for _, _, k in sorted(ranked)]


@given(examples, st.integers(1, 5))
def test_typical_ones_are_right_without_being_learned_and_none_is_among_the_memorized(
    rows: list[Example], most: int
) -> None:
    label, value, right = columns(rows)
    memorized = most_memorized_of_each(label, value, most)
    chosen = typical_of_each(label, value, right, most, memorized)
    assert not set(chosen) & set(memorized)
    for each in range(4):
        own = [k for k, row in enumerate(rows) if row[0] == each and not math.isnan(row[1]) and k not in memorized]
        own.sort(key=lambda k: (-(-1 if math.isnan(rows[k][2]) else rows[k][2]), abs(rows[k][1]), k))
        assert [k for k in chosen if rows[k][0] == each] == own[:most]


@given(examples)
def test_every_example_is_counted_once_in_the_bin_that_holds_it(rows: list[Example]) -> None:
    label, value, _ = columns(rows)
    counted = count_memorization(label, value, 4)
    assert counted.total == len(rows)
    undefined = Counter(row[0] for row in rows if math.isnan(row[1]))
    assert counted.undefined.tolist() == [undefined[each] for each in range(4)]
    defined = ~np.isnan(value)
    bins = bin_of(value[defined])
    low = bins * BIN_WIDTH
    assert (value[defined] >= low - 1e-6).all()
    assert ((value[defined] < low + BIN_WIDTH) | (value[defined] == 1)).all()
    expected = Counter(zip(label[defined].tolist(), (bins - counted.first).tolist(), strict=True))
    found = {(each, place): n for (each, place), n in np.ndenumerate(counted.counts) if n}
    assert found == expected
    assert counted.first + counted.counts.shape[1] == 20


@pytest.mark.parametrize("multiple", range(-20, 20))
def test_a_multiple_of_the_width_begins_its_bin(multiple: int) -> None:
    assert bin_of(np.array([multiple * BIN_WIDTH, multiple / 20, round(multiple * 0.05, 2)])).tolist() == [multiple] * 3


def test_limits_follow_the_number_of_classes_unless_they_are_asked_for() -> None:
    limits = PageLimits()
    assert [limits.memorized_per_class(num) for num in (0, 1, 10, 100, 1000)] == [24, 24, 24, 12, 3]
    assert [limits.typical_per_class(num) for num in (10, 100, 1000)] == [12, 6, 2]
    assert PageLimits(per_class=7).memorized_per_class(1000) == 7
    for name, value in (("per_class", 0), ("top_pairs", 0), ("thumbnail", 0), ("max_megabytes", 0.0)):
        with pytest.raises(QueryError, match=name):
            PageLimits(**{name: value})  # type: ignore[arg-type]
