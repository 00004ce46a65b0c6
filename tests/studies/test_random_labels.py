"""The null of random labels: on planted tables its figures are known, and a learner that remembers has full power."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import feldman as package
from feldman.errors import QueryError
from feldman.results.tables import MEMORIZATION_SCHEMA, ORIGINAL_LABEL
from feldman.studies.random_labels import QUANTILES, random_label_null
from feldman.trials.store import TrialStore
from tests.commands import Commands
from tests.conftest import small_arrays, small_experiment
from tests.runs import assert_same_run

VALUES = st.lists(st.one_of(st.floats(-1, 1), st.just(float("nan"))), max_size=30)


def table_of(random: list[float], own: list[float]) -> pa.Table:
    values, num = [*random, *own], len(random) + len(own)
    columns = {"label": [1] * num, "original_label": [0] * len(random) + [1] * len(own)}
    return pa.table({**columns, "memorization": pa.array(values, pa.float64())})


@given(VALUES, VALUES, st.floats(-1, 1))
@settings(deadline=None, max_examples=50)
def test_the_report_counts_what_is_there(random: list[float], own: list[float], threshold: float) -> None:
    report = random_label_null(table_of(random, own), [threshold, threshold])
    (power,) = report.thresholds
    for group, values in zip(report.groups, (random, own), strict=True):
        defined = [value for value in values if value == value]
        assert (group.num_examples, group.num_undefined) == (len(values), len(values) - len(defined))
        if defined:
            assert group.mean == pytest.approx(sum(defined) / len(defined))
            assert list(group.quantiles) == sorted(group.quantiles)
            assert group.quantiles[QUANTILES.index(0.5)] == pytest.approx(float(np.median(defined)))
    assert power.num_random_found == sum(value >= threshold for value in random)
    assert power.num_own_found == sum(value >= threshold for value in own)
    if any(value == value for value in random):
        assert power.power_low - 1e-9 <= power.power <= power.power_high + 1e-9


def test_a_run_without_random_labels_has_no_null() -> None:
    with pytest.raises(QueryError, match=r"set dataset\.random_labels"):
        random_label_null(table_of([0.5], []).drop_columns(["original_label"]), [0.25])


@pytest.fixture
def random_run(tmp_path: Path) -> Path:
    """A run of nearest neighbours, which remember every label, with 6 random ones of 60."""
    np.savez(tmp_path / "data.npz", allow_pickle=False, **small_arrays())
    experiment = small_experiment(tmp_path / "data.npz").model_dump()
    experiment["dataset"] |= {"random_labels": 6, "random_labels_seed": 5}
    experiment["learner"] = {"name": "sklearn:neighbors.KNeighborsClassifier", "parameters": {"n_neighbors": 1}}
    package.run(package.Experiment.model_validate(experiment), tmp_path / "run")
    return tmp_path / "run"


def test_random_labels_are_told_by_store_tables_queries_and_report(
    random_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feldman = Commands(tmp_path, capsys)
    table = package.open_run(random_run).memorization()
    assert table.schema == MEMORIZATION_SCHEMA.append(ORIGINAL_LABEL)
    random = table["label"].to_numpy() != table["original_label"].to_numpy()
    told = TrialStore.open(random_run / "trials.zarr").attributes["dataset"]["random_labels"]
    assert told["train_index"] == np.flatnonzero(random).tolist()
    assert random.sum() == 6

    rows = json.loads(feldman("memorized", str(random_run), "--where", "label <> original_label", "--json").out)
    assert sorted(row["train_index"] for row in rows) == told["train_index"]
    assert "(random, was " in feldman("memorized", str(random_run), "--top", "1").out

    report = json.loads(feldman("null", str(random_run), "--min-memorization", "0.4", "--json").out)
    found = {row["min_memorization"]: row for row in report["thresholds"]}
    # An example with a random label is right with it, and without it where a neighbour happens to be of that class.
    assert (found[0.25]["num_random_found"], found[0.25]["power"]) == (6, 1.0)
    assert found[0.4]["share_own_found"] < 0.5
    assert report["groups"][0]["quantiles"][2] > report["groups"][1]["quantiles"][2]
    answer = feldman("null", str(random_run))
    assert answer.code == 0, answer.err
    assert "memorization, 40 trials" in answer.out

    merged = tmp_path / "merged"
    package.merge([random_run, shutil.copytree(random_run, tmp_path / "copy")], merged)
    assert_same_run(merged, random_run)
