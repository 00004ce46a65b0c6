"""What queries write, where, and what they show of tables that know little."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from feldman.results.tables import MEMORIZATION_SCHEMA, TableFacts, influence_schema
from tests.commands import Commands
from tests.tables import Row, large_pairs, pair_facts, write_memorization, write_pairs


def rows_in(file: Path) -> list[Row]:
    if file.suffix == ".json":
        rows: list[Row] = json.loads(file.read_text())
        return rows
    if file.suffix == ".csv":
        return list(pa_csv.read_csv(file).to_pylist())
    return list(pq.read_table(file).to_pylist())


@pytest.mark.parametrize("command", ["memorized", "pairs"])
@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_a_file_holds_what_json_prints_and_nothing_else_is_left_there(
    feldman: Commands, finished: Path, tmp_path: Path, command: str, suffix: str
) -> None:
    expected = json.loads(feldman(command, str(finished), "--all", "--json").out)
    answer = feldman(command, str(finished), "--all", "-o", f"rows.{suffix}")
    assert (answer.code, answer.out) == (0, "")
    assert f"rows.{suffix}: " in answer.err
    assert [path.name for path in tmp_path.iterdir()] == [f"rows.{suffix}"]
    assert rows_in(tmp_path / f"rows.{suffix}") == expected


def test_a_format_is_said_once(feldman: Commands, finished: Path, tmp_path: Path) -> None:
    answer = feldman("pairs", str(finished), "--format", "csv", "-o", "rows.json")
    assert (answer.code, answer.err) == (2, "feldman: 'rows.json' tells json, and --format says csv; say one of them\n")
    assert feldman("pairs", str(finished), "--format", "csv", "-o", "rows").code == 0
    assert (tmp_path / "rows").read_text().splitlines()[0] == ",".join(influence_schema().names)
    assert feldman("pairs", str(finished), "--format", "table", "-o", "rows.txt").code == 0
    assert (tmp_path / "rows.txt").read_text() == feldman("pairs", str(finished)).out


def test_standard_output_takes_every_format(feldman: Commands, finished: Path) -> None:
    expected = json.loads(feldman("pairs", str(finished), "--json").out)
    assert json.loads(feldman("pairs", str(finished), "--format", "json").out) == expected
    lines = feldman("pairs", str(finished), "--format", "csv").out
    assert list(pa_csv.read_csv(BytesIO(lines.encode())).to_pylist()) == expected


def test_parquet_goes_into_a_pipe(finished: Path) -> None:
    import subprocess
    import sys

    from tests.conftest import cli_environment

    command = [sys.executable, "-c", "from feldman.cli.app import main; main()", "memorized", str(finished)]
    done = subprocess.run([*command, "--format", "parquet"], env=cli_environment(), capture_output=True, check=True)
    assert pq.read_table(BytesIO(done.stdout)).schema.equals(MEMORIZATION_SCHEMA)


def test_all_is_every_row(feldman: Commands, finished: Path) -> None:
    rows = json.loads(feldman("memorized", str(finished), "--all", "--json").out)
    assert len(rows) == pq.read_metadata(finished / "memorization.parquet").num_rows == 60


@pytest.mark.parametrize("command", ["memorized", "pairs"])
def test_the_help_of_where_names_every_column(feldman: Commands, command: str) -> None:
    words = set(feldman(command, "--help").out.replace(",", " ").replace(".", " ").replace(";", " ").split())
    schema = (
        MEMORIZATION_SCHEMA.names
        if command == "memorized"
        else [*influence_schema().names, *influence_schema("train").names]
    )
    assert set(schema) <= words


def test_pairs_of_training_examples_are_asked_by_target(feldman: Commands, tmp_path: Path) -> None:
    names = influence_schema("train").names
    table = large_pairs(60, 60, 900).rename_columns(names)
    facts = pair_facts("train", num_train=60, num_test=30, class_names=tuple(map(str, range(100))))
    write_pairs(tmp_path / "run" / "influence_train.parquet", table, facts)
    expected = [row for row in table.to_pylist() if row["target_index"] == 45]
    for option in ("--test", "--target"):
        answer = feldman("pairs", "run", "--targets", "train", option, "45", "--all", "--json")
        found = json.loads(answer.out)
        assert sorted(found, key=lambda row: row["train_index"]) == expected
        assert list(found[0]) == names
    shown = feldman("pairs", "run", "--targets", "train", "--top", "3").out
    assert "target class" in shown
    assert (
        "--test is an example's index, 0 .. 59; found 60"
        in feldman("pairs", "run", "--targets", "train", "--test", "60").err
    )


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A run directory with tables from a file that told indices and values alone, and no trials."""
    facts = TableFacts(source="infl.npz", selection=pair_facts().selection)
    unknown: Row = dict.fromkeys([*MEMORIZATION_SCHEMA.names, *influence_schema().names])
    known: Any = {"train_index": 3, "memorization": 0.5, "test_index": 7, "influence": 0.25}
    row = unknown | known
    write_memorization(
        tmp_path / "run" / "memorization.parquet", [{n: row[n] for n in MEMORIZATION_SCHEMA.names}], facts
    )
    write_pairs(tmp_path / "run" / "influence.parquet", [{n: row[n] for n in influence_schema().names}], facts)
    return tmp_path / "run"


def test_what_an_imported_table_does_not_know_is_a_dash(feldman: Commands, imported: Path) -> None:
    memorized, pairs = feldman("memorized", str(imported)), feldman("pairs", str(imported))
    assert (memorized.code, memorized.err) == (pairs.code, pairs.err) == (0, "")
    assert memorized.out.splitlines()[0].strip() == "most memorized of 1 training examples, from infl.npz"
    assert memorized.out.splitlines()[-1].split() == ["3", "-", "0.500", "-", "-", "-"]
    assert pairs.out.splitlines()[0].strip() == "1 of 1 pairs (all that are defined), from infl.npz"
    assert pairs.out.splitlines()[-1].split() == ["3", "7", "0.250", "-", "-", "0.500", "-", "-"]


def test_indices_of_an_imported_table_are_bounded_by_nothing_but_zero(feldman: Commands, imported: Path) -> None:
    assert (
        json.loads(feldman("pairs", str(imported), "--train", "3", "--test", "7", "--json").out)[0]["influence"] == 0.25
    )
    assert json.loads(feldman("pairs", str(imported), "--train", str(10**30), "--json").out) == []
    assert json.loads(feldman("memorized", str(imported), "--label", "12", "--json").out) == []
    assert "0 or more; found 1" in feldman("pairs", str(imported), "--train", str(10**47)).err
    assert "--train is an example's index, 0 or more; found -1" in feldman("pairs", str(imported), "--train", "-1").err


def test_without_trials_a_missing_table_is_said_to_be_missing(feldman: Commands, imported: Path) -> None:
    (imported / "influence.parquet").unlink()
    answer = feldman("pairs", str(imported))
    assert answer.code == 2
    assert (
        f"'{imported}' has no influence.parquet, and no trials to make it from; it holds memorization.parquet"
        in answer.err
    )


def test_tables_answer_also_where_the_trials_are_gone(feldman: Commands, done: Path) -> None:
    before = feldman("pairs", str(done), "--json")
    shutil.rmtree(done / "trials.zarr")
    after = feldman("pairs", str(done), "--json")
    assert (after.code, after.out, after.err) == (0, before.out, "")
    assert "), from 40 trials" in feldman("pairs", str(done)).out
