"""`--json`: one document on standard output and nothing else there; rows have the columns of the tables."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from feldman.cli.output import print_json
from feldman.experiment_files import experiment_to_toml
from tests.commands import Answer, Commands
from tests.conftest import small_experiment

MEMORIZATION = [
    "train_index", "label", "memorization", "stderr", "ci_low", "ci_high", "num_in", "num_out", "correct_in",
    "correct_out",
]  # fmt: skip
INFLUENCE = [
    "train_index", "test_index", "influence", "stderr", "ci_low", "ci_high", "memorization", "train_label",
    "test_label", "p_value", "q_value",
]  # fmt: skip


def document(answer: Answer) -> Any:
    """The one document of an answer; NaN and Infinity are no JSON."""
    assert answer.code == 0, answer.err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(answer.out, parse_constant=refuse)


def test_the_tables_have_the_columns_of_the_contract_in_its_order(finished: Path) -> None:
    assert pq.read_schema(finished / "memorization.parquet").names == MEMORIZATION
    assert pq.read_schema(finished / "influence.parquet").names == INFLUENCE


def test_rows_of_memorized_have_the_columns_of_the_table(feldman: Commands, finished: Path) -> None:
    rows = document(feldman("memorized", str(finished), "--top", "1000", "--json"))
    assert len(rows) > 50
    assert all(list(row) == MEMORIZATION for row in rows)


def test_rows_of_pairs_have_the_columns_of_the_table(feldman: Commands, done: Path) -> None:
    document(feldman("estimate", str(done), "--min-influence", "-1", "--min-memorization", "-1", "--json"))
    rows = document(feldman("pairs", str(done), "--top", "100000", "--json"))
    assert len(rows) > 1000
    assert all(list(row) == INFLUENCE for row in rows)


def test_values_of_rows_are_those_of_the_table(feldman: Commands, finished: Path) -> None:
    rows = document(feldman("memorized", str(finished), "--top", "1000", "--json"))
    table = {row["train_index"]: row for row in pq.read_table(finished / "memorization.parquet").to_pylist()}
    for row in rows:
        assert row == {key: _null(value) for key, value in table[row["train_index"]].items()}


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def test_run_and_resume_print_one_document_and_tell_progress_elsewhere(
    feldman: Commands, tmp_path: Path, arrays_file: Path
) -> None:
    (tmp_path / "experiment.toml").write_text(experiment_to_toml(small_experiment(arrays_file)))
    ran = feldman("run", "experiment.toml", "-o", "new", "--json")
    assert "training" in ran.err
    summary = document(ran)
    assert summary["status"]["num_committed_trials"] == 40
    assert summary["memorization_path"] == "new/memorization.parquet"
    grown = document(feldman("resume", "new", "--num-trials", "48", "--json"))
    assert grown["status"]["num_committed_trials"] == grown["status"]["num_trials"] == 48
    assert list(grown) == list(summary)


def test_status_is_one_document_about_the_run(feldman: Commands, finished: Path) -> None:
    answer = feldman("status", str(finished), "--json")
    status = document(answer)
    assert answer.err == ""
    expected = {
        "run": str(finished),
        "dataset": "arrays",
        "learner": "tests.learners:nearest_centroid",
        "num_train": 60,
        "num_test": 30,
        "num_trials": 40,
        "num_committed_trials": 40,
        "num_blocks": 5,
        "num_committed_blocks": 5,
        "block_size": 8,
        "subset_size": 42,
        "complete": True,
        "writer": None,
        "has_memorization": True,
        "has_influence": True,
    }
    assert {key: status[key] for key in expected} == expected


def test_verify_is_one_document_also_where_it_finds_damage(feldman: Commands, done: Path) -> None:
    assert document(feldman("verify", str(done), "--json")) == {
        "run": str(done),
        "num_committed_blocks": 5,
        "num_damaged_blocks": 0,
        "damage": [],
    }
    shutil.rmtree(done / "trials.zarr" / "test_correct" / "c" / "2")
    answer = feldman("verify", str(done), "--json")
    found = json.loads(answer.out)
    assert answer.code == 1
    assert "is damaged (1 block: 2; first: " in answer.err
    assert found["num_damaged_blocks"] == 1
    assert [(damage["block"], damage["array"]) for damage in found["damage"]] == [(2, "test_correct")]
    assert "chunk test_correct/c/2/0 is missing" in found["damage"][0]["problem"]


def test_estimate_is_one_document_of_what_was_made_from_what(feldman: Commands, done: Path) -> None:
    made = document(feldman("estimate", str(done), "--min-influence", "0.3", "--json"))
    assert made["num_trials"] == 40
    assert made["num_pairs"] == pq.read_metadata(done / "influence.parquet").num_rows
    assert (made["selection"]["min_influence"], made["selection"]["min_memorization"]) == (0.3, 0.25)
    assert (made["memorization_path"], made["influence_path"]) == (
        str(done / "memorization.parquet"),
        str(done / "influence.parquet"),
    )


def test_undefined_numbers_are_null(feldman: Commands, tmp_path: Path, arrays_file: Path) -> None:
    experiment = small_experiment(arrays_file, num_trials=1)
    (tmp_path / "one.toml").write_text(experiment_to_toml(experiment))
    summary = document(feldman("run", "one.toml", "-o", "one", "--json"))
    assert summary["status"]["std_test_accuracy"] is None
    assert summary["num_memorized"] == 0
    assert document(feldman("memorized", "one", "--json")) == []
    assert document(feldman("pairs", "one", "--json")) == []


def test_nan_and_infinity_become_null_wherever_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [1.5, math.inf, {"c": (-math.inf, 2)}]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None, {"c": [None, 2]}]}
