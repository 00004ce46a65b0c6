"""The studies as commands: a table for people, one JSON document, rows in files, figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feldman.studies.stability import STABILITY_SCHEMA
from tests.commands import Commands, snapshot


def test_stability_prints_a_row_a_size_and_writes_its_rows_and_a_figure(
    feldman: Commands, finished: Path, tmp_path: Path
) -> None:
    before = snapshot(finished)
    options = ("--sizes", "20,10", "--repeats", "2", "--min-memorization", "0")
    answer = feldman("stability", str(finished), *options, "-o", "rows.parquet", "--plot", "plot.svg")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("halves of 40 trials, 2 random splits (influence >= 0.15, memorization >= 0):")
    assert [line.split()[0] for line in lines[-2:]] == ["10", "20"]
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.names == STABILITY_SCHEMA.names
    assert table.num_rows == 2 * 2 * 4
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    document = json.loads(feldman("stability", str(finished), *options, "--json").out)
    assert (document["num_trials"], document["seed"], document["min_memorization"]) == (40, 0, 0.0)
    assert document["rows"] == [
        {name: None if value != value else value for name, value in row.items()} for row in table.to_pylist()
    ]
    assert feldman("stability", str(finished), *options, "-o", "rows.csv").code == 0
    assert len(list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))) == 16
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--sizes", "21"), "a half of 40 trials has 10 to 20 of them; found 21"),
        (("--sizes", "many"), "--sizes is how many trials each half has, as in 50,100,200; found 'many'"),
        (("--plot", "plot.gif"), "a figure is a .png, .svg or .pdf file; found 'plot.gif'"),
        (("--plot", "none/plot.png"), "'none' is no folder to write 'plot.png' into"),
        (("--repeats", "0"), "Invalid value for '--repeats'"),
    ],
)
def test_stability_refuses_what_measures_nothing(
    feldman: Commands, finished: Path, options: tuple[str, str], says: str
) -> None:
    answer = feldman("stability", str(finished), *options)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
