"""`memorized` and `pairs` against a filter written out by hand over the Parquet tables; answers from unfinished runs."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from feldman.trials.store import TrialStore
from tests.commands import Commands

Row = dict[str, Any]


@pytest.fixture
def all_pairs(feldman: Commands, done: Path) -> list[Row]:
    """The pairs table of `done`, made with all pairs that have an influence."""
    assert feldman("estimate", str(done), "--min-influence", "-1", "--min-memorization", "-1").code == 0
    rows: list[Row] = pq.read_table(done / "influence.parquet").to_pylist()
    assert len(rows) > 1000
    return rows


def strongest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-row["influence"], row["train_index"], row["test_index"]))


def asked(feldman: Commands, *arguments: str) -> list[Row]:
    answer = feldman(*arguments, "--json")
    assert answer.code == 0, answer.err
    rows: list[Row] = json.loads(answer.out)
    return rows


def test_every_combination_of_filters_of_pairs_gives_the_rows_that_satisfy_all(
    feldman: Commands, done: Path, all_pairs: list[Row]
) -> None:
    strongest = strongest_first(all_pairs)[0]
    filters: list[tuple[list[str], Any]] = [
        (["--train", str(strongest["train_index"])], lambda row: row["train_index"] == strongest["train_index"]),
        (["--test", str(strongest["test_index"])], lambda row: row["test_index"] == strongest["test_index"]),
        (["--min-influence", "0.05"], lambda row: row["influence"] >= 0.05),
        (["--min-memorization", "0.1"], lambda row: row["memorization"] >= 0.1),
        (["--same-class"], lambda row: row["train_label"] == row["test_label"]),
    ]
    for count in range(len(filters) + 1):
        for chosen in itertools.combinations(filters, count):
            arguments = [text for texts, _ in chosen for text in texts]
            expected = [row for row in strongest_first(all_pairs) if all(holds(row) for _, holds in chosen)]
            assert asked(feldman, "pairs", str(done), "--top", "100000", *arguments) == expected, arguments


@pytest.mark.parametrize("top", [1, 7, 20])
def test_top_cuts_the_strongest_pairs(feldman: Commands, done: Path, all_pairs: list[Row], top: int) -> None:
    assert asked(feldman, "pairs", str(done), "--top", str(top)) == strongest_first(all_pairs)[:top]


def test_twenty_rows_are_shown_unless_told_otherwise(feldman: Commands, done: Path, all_pairs: list[Row]) -> None:
    assert asked(feldman, "pairs", str(done)) == strongest_first(all_pairs)[:20]
    assert len(asked(feldman, "memorized", str(done))) == 20


@pytest.mark.parametrize("label", [None, 0, 1, 2])
@pytest.mark.parametrize("top", [1, 5, 1000])
def test_memorized_gives_the_most_memorized_of_a_class(
    feldman: Commands, finished: Path, label: int | None, top: int
) -> None:
    rows = pq.read_table(finished / "memorization.parquet").to_pylist()
    kept = [row for row in rows if math.isfinite(row["memorization"]) and label in (None, row["label"])]
    expected = sorted(kept, key=lambda row: (-row["memorization"], row["train_index"]))[:top]
    arguments = [] if label is None else ["--label", str(label)]
    assert asked(feldman, "memorized", str(finished), "--top", str(top), *arguments) == expected


@pytest.mark.parametrize(
    ("option", "asked_for", "kept"), [("influence", "0.1", "0.15"), ("memorization", "0.2", "0.25")]
)
def test_pairs_below_the_thresholds_of_the_table_are_refused_with_what_to_do(
    feldman: Commands, finished: Path, option: str, asked_for: str, kept: str
) -> None:
    answer = feldman("pairs", str(finished), f"--min-{option}", asked_for)
    assert (answer.code, answer.out) == (2, "")
    assert (
        f"the table holds pairs with {option} >= {kept}, not {asked_for}; make it anew: feldman estimate RUN "
        in answer.err
    )
    assert f" --min-{option} {asked_for}" in answer.err


def test_what_the_refusal_advises_makes_the_pairs_available(feldman: Commands, done: Path) -> None:
    assert feldman("estimate", str(done), "--min-influence", "0.1").code == 0
    assert all(row["influence"] >= 0.1 for row in asked(feldman, "pairs", str(done), "--min-influence", "0.1"))


def test_estimates_of_an_unfinished_run_say_from_how_many_trials(feldman: Commands, done: Path) -> None:
    TrialStore.open(done / "trials.zarr").withdraw_block(3)
    estimated = feldman("estimate", str(done))
    assert estimated.code == 0
    assert "from 32 of 40 trials" in estimated.out
    for command in ("memorized", "pairs"):
        assert "from 32 of 40 trials" in feldman(command, str(done)).out
    status = feldman("status", str(done)).out
    assert "not finished" in status
    assert "32 of 40 committed" in status
    assert f"feldman resume {done}" in status.replace("\n", " ")


def test_a_table_older_than_the_trials_is_told_of_on_standard_error(feldman: Commands, done: Path) -> None:
    store = TrialStore.open(done / "trials.zarr")
    store.withdraw_block(3)
    assert feldman("estimate", str(done)).code == 0
    store.array("committed")[3] = 1
    answer = feldman("memorized", str(done), "--json")
    assert json.loads(answer.out)
    assert f"8 trials are newer than the table; `feldman estimate {done}` counts them" in answer.err


def test_tables_for_people_name_the_classes_and_the_counts(feldman: Commands, finished: Path) -> None:
    answer = feldman("memorized", str(finished), "--top", "3")
    assert answer.code == 0
    assert "most memorized of 60 training examples, from 40 of 40 trials" in answer.out
    for heading in ("train", "class", "memorization", "95% interval", "right with it", "right without"):
        assert heading in answer.out
    assert len(answer.out.splitlines()) == 5
