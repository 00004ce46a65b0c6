"""How many test examples rest on one training example, against plain counting."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.results.tables import influence_schema
from feldman.studies.marginal_utility import marginal_utility


def table_of(pairs: list[tuple[int, int]], q_value: list[float] | None, labels: bool) -> pa.Table:
    columns = {field.name: pa.nulls(len(pairs), field.type) for field in influence_schema()}
    train, test = ([pair[side] for pair in pairs] for side in (0, 1))
    columns |= {"train_index": pa.array(train, pa.int64()), "test_index": pa.array(test, pa.int64())}
    if q_value is not None:
        columns["q_value"] = pa.array(q_value, pa.float64())
    if labels:
        columns |= {
            f"{part}_label": pa.array([i % 2 for i in index], pa.int64())
            for part, index in (("train", train), ("test", test))
        }
    return pa.table(columns, schema=influence_schema())


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_pairs_and_examples_are_counted_as_by_hand(chosen: set[tuple[int, int]], seed: int) -> None:
    pairs = sorted(chosen)
    q_value = np.random.default_rng(seed).choice([0.01, 0.05, 0.2], len(pairs)).tolist()
    found = marginal_utility(table_of(pairs, q_value, labels=True), num_memorized=9, num_test=10)
    kept = {
        "all": pairs,
        "q <= 0.05": [pair for pair, q in zip(pairs, q_value, strict=True) if q <= 0.05],
        "same class": [pair for pair in pairs if pair[0] % 2 == pair[1] % 2],
        "other class": [pair for pair in pairs if pair[0] % 2 != pair[1] % 2],
    }
    assert [group.which for group in found.groups] == list(kept)
    for group in found.groups:
        train, test = (Counter(pair[side] for pair in kept[group.which]) for side in (0, 1))
        assert group.num_pairs == len(kept[group.which])
        assert (group.num_train, group.num_test) == (len(train), len(test))
        assert group.num_train_in_one == sum(count == 1 for count in train.values())
        assert group.num_test_in_one == sum(count == 1 for count in test.values())
        assert group.most_of_a_train == max(train.values(), default=0)
        assert group.most_of_a_test == max(test.values(), default=0)
        assert group.share_decided == len(test) / 10
    tests = Counter(Counter(test for _, test in pairs).values())
    assert found.test_examples_by_pairs == tuple(sorted(tests.items()))
    assert sum(k * count for k, count in found.train_examples_by_pairs) == len(pairs)
    assert found.num_without_pair == 9 - found.groups[0].num_train


def test_what_pairs_do_not_tell_is_not_said() -> None:
    found = marginal_utility(table_of([(0, 1), (0, 2)], None, labels=False))
    assert [group.which for group in found.groups] == ["all"]
    assert (found.groups[0].share_decided, found.num_memorized, found.num_without_pair) == (None, None, None)
    one_class = marginal_utility(table_of([(0, 2)], [0.01], labels=True), one_class=True)
    assert [group.which for group in one_class.groups] == ["all", "q <= 0.05"]
