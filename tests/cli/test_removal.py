"""`feldman removal`: a study is trained, shown again, written and drawn."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feldman.studies.removal import REMOVAL_SCHEMA
from tests.commands import Commands, snapshot

OPTIONS = ("--thresholds", "0.2,0.4", "--repeats", "4")


def test_removal_trains_a_study_beside_the_run_and_shows_it_again(
    feldman: Commands, done: Path, tmp_path: Path
) -> None:
    before = snapshot(done)
    answer = feldman("removal", str(done), *OPTIONS, "--plot", "plot.svg", "-o", "rows.parquet")
    assert answer.code == 0, answer.err
    assert snapshot(done) == before
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.equals(REMOVAL_SCHEMA)
    assert [row["removed"] for row in table.to_pylist()] == ["nothing", "memorized", "memorized"]
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    study = f"{done}-removal"
    document = json.loads(feldman("removal", study, "--json").out)
    assert (document["run"], document["num_arms"], document["complete"]) == (study, 5, True)
    assert document["rows"] == table.to_pylist()
    assert feldman("removal", study, "-o", "rows.csv").code == 0
    assert len(list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))) == 3
    shown = feldman("removal", study).out.splitlines()
    assert "20 of 20 trials" in " ".join(" ".join(shown).split())
    assert [line.split()[0] for line in shown[-3:]] == ["nothing", "memorized", "memorized"]


def test_other_commands_know_a_removal_study(feldman: Commands, done: Path) -> None:
    assert feldman("removal", str(done), *OPTIONS).code == 0
    study = f"{done}-removal"
    status = feldman("status", study).out
    assert "on subsets of the 5 arms of a removal study" in status
    assert f"results        feldman removal {study}" in status
    assert feldman("verify", study).code == 0
    resumed = feldman("resume", study, "--num-trials", "40")
    assert (resumed.code, "40 trials of a removal study" in resumed.out) == (0, True)
    for command in ("estimate", "stability", "cscore", "lds"):
        answer = feldman(command, study)
        assert (answer.code, answer.out) == (2, "")
        assert "is a study of removed examples: its subsets are no random ones" in answer.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--thresholds", "many"), "--thresholds lists numbers, as in 0.1,0.5; found 'many'"),
        (("--thresholds", "2"), "thresholds of memorization lie above -1 and are at most 1"),
        (("--repeats", "0"), "Invalid value for '--repeats'"),
        (("--set", "training.epoch=3"), "training.epoch: is not a key"),
        (("--study", "done"), "holds another experiment"),
        (("--plot", "plot.gif"), "a figure is a .png, .svg or .pdf file; found 'plot.gif'"),
    ],
)
def test_removal_refuses_what_cannot_be_a_study(
    feldman: Commands, done: Path, tmp_path: Path, options: tuple[str, str], says: str
) -> None:
    before = snapshot(tmp_path)
    answer = feldman("removal", str(done), *options)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert snapshot(tmp_path) == before


def test_options_of_training_say_nothing_of_a_study_that_is_there(feldman: Commands, done: Path) -> None:
    assert feldman("removal", str(done), *OPTIONS).code == 0
    answer = feldman("removal", f"{done}-removal", "--repeats", "9", "--by-class")
    assert (answer.code, answer.out) == (2, "")
    assert "is a removal study, of which this shows the results: leave out --repeats, --by-class" in answer.err
