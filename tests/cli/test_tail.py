"""`feldman tail`: tables for people, one JSON document, rows in files, a figure; of runs, and of imported tables."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from feldman.results.run import open_run
from feldman.studies.tail_report import TAIL_SCHEMA
from tests.commands import Commands, snapshot
from tests.exchange.released import write_pairs

PUBLISHED = (
    Path(os.environ.get("FELDMAN_REFERENCE", "/work/shared/reference"))
    / "cifar100_high_infl_pairs_infl0.15_mem0.25.npz"
)
OPTIONS = ("--min-memorization", "0", "--min-influence", "0.2", "--resamples", "20")


def values(document: dict[str, Any], measure: str, label: int | None = None) -> dict[float | None, float]:
    """The values of one measure, by what they are at."""
    return {row["at"]: row["value"] for row in document["rows"] if (row["measure"], row["label"]) == (measure, label)}


def test_a_tail_is_told_written_and_drawn_and_the_run_stays_as_it_is(
    feldman: Commands, finished: Path, tmp_path: Path
) -> None:
    before = snapshot(finished)
    answer = feldman("tail", str(finished), *OPTIONS, "-o", "rows.parquet", "--plot", "plot.svg")
    assert answer.code == 0, answer.err
    titles = [line.strip() for line in answer.out.splitlines() if not line.startswith(" ")]
    assert titles[0] == "memorization, 40 trials"
    assert "3 of 3 classes, most memorized (>= 0) first" in titles
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.equals(TAIL_SCHEMA)
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    document = json.loads(feldman("tail", str(finished), *OPTIONS, "--json").out)
    assert document["rows"] == table.to_pylist()
    assert (document["num_trials"], document["num_train"], document["num_test"]) == (40, 60, 30)
    assert (document["min_influence"], document["min_memorization"], document["not_known"]) == (0.2, 0, [])
    assert feldman("tail", str(finished), *OPTIONS, "-o", "rows.csv").code == 0
    assert len(list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))) == table.num_rows
    assert snapshot(finished) == before


def test_its_numbers_are_those_of_the_tables(feldman: Commands, finished: Path) -> None:
    document = json.loads(feldman("tail", str(finished), *OPTIONS, "--bins", "4", "--json").out)
    run = open_run(finished)
    memorization = run.memorization()["memorization"].to_numpy()
    counts = values(document, "memorized")
    assert counts == {at: (memorization >= at).sum() for at in counts}
    assert {0, 0.05, 0.25, 0.95} <= set(counts)
    bins = np.histogram(memorization[memorization >= 0], bins=4, range=(0, 1))[0]
    assert list(values(document, "histogram").items()) == list(zip((0, 0.25, 0.5, 0.75), bins, strict=True))
    assert values(document, "negative")[None] == (memorization < 0).sum()
    for label in range(3):
        own = memorization[np.arange(60) % 3 == label]
        assert values(document, "memorized", label)[0.1] == (own >= 0.1).sum()
    pairs = run.pairs(min_influence=0.2, min_memorization=0.0)
    every, likely, *of_classes = document["pairs"]["groups"]
    tests, times = np.unique(pairs["test_index"].to_numpy(), return_counts=True)
    assert every["num_pairs"] == pairs.num_rows == sum(group["num_pairs"] for group in of_classes) > 0
    assert (every["num_test"], every["num_test_in_one"]) == (len(tests), (times == 1).sum())
    assert every["share_decided"] == len(tests) / 30
    assert likely["num_pairs"] == (pairs["q_value"].to_numpy() <= 0.05).sum()
    assert document["pairs"]["num_memorized"] == (memorization >= 0).sum()
    assert document["pairs"]["num_without_pair"] == document["pairs"]["num_memorized"] - every["num_train"]
    same = json.loads(feldman("tail", str(finished), *OPTIONS, "--same-class", "--json").out)
    assert same["pairs"]["groups"][0] == {**of_classes[0], "which": "all"}
    assert len(same["pairs"]["groups"]) == 2


def test_a_run_exported_and_imported_has_the_same_tail_but_for_what_only_trials_tell(
    feldman: Commands, done: Path, tmp_path: Path
) -> None:
    assert feldman("estimate", str(done), *OPTIONS[:4]).code == 0
    of_trials = json.loads(feldman("tail", str(done), *OPTIONS, "--json").out)
    same_class = json.loads(feldman("tail", str(done), *OPTIONS, "--same-class", "--json").out)
    exported = feldman("export", str(done), "--format", "authors", "-o", "files")
    assert exported.code == 0, exported.err
    (pairs_file,) = (tmp_path / "files").glob("high_infl_pairs*.npz")
    assert feldman("import", str(pairs_file), "-o", "pairs").code == 0
    matrix = str(tmp_path / "files" / "infl_matrix.npz")
    assert feldman("import", matrix, "-o", "matrix", *OPTIONS[:4]).code == 0
    of_pairs = json.loads(feldman("tail", "pairs", "--json").out)
    names = ("num_pairs", "num_train", "num_test", "num_test_in_one", "most_of_a_train")
    assert [of_pairs["pairs"]["groups"][0][name] for name in names] == [
        of_trials["pairs"]["groups"][0][name] for name in names
    ]
    for measure in ("train_examples_in_pairs", "test_examples_in_pairs"):
        assert values(of_pairs, measure) == values(of_trials, measure)
    assert {row["measure"] for row in of_pairs["rows"]} == {"train_examples_in_pairs", "test_examples_in_pairs"}
    assert len(of_pairs["not_known"]) == 5
    of_matrix = json.loads(feldman("tail", "matrix", "--json").out)
    for measure in ("examples", "undefined", "negative", "histogram", "memorized"):
        for label in (None, 0, 1, 2):
            assert values(of_matrix, measure, label) == values(of_trials, measure, label)
    assert {row["stderr"] for row in of_matrix["rows"]} == {None}
    assert (of_matrix["num_trials"], of_matrix["resamples"]) == (None, None)
    (group,) = of_matrix["pairs"]["groups"]
    assert group["num_pairs"] == same_class["pairs"]["groups"][0]["num_pairs"]
    assert of_matrix["pairs"]["num_without_pair"] == same_class["pairs"]["num_without_pair"]
    shown = feldman("tail", "matrix", "--plot", "matrix.pdf")
    assert shown.code == 0, shown.err
    assert "not known: pairs of two classes: infl_matrix.npz has those of one class" in shown.out
    assert (tmp_path / "matrix.pdf").stat().st_size > 1000


@pytest.mark.skipif(
    not PUBLISHED.exists(), reason=f"the authors' file is not at {PUBLISHED}; FELDMAN_REFERENCE names its folder"
)
def test_of_the_published_pairs_it_tells_the_numbers_of_their_authors(feldman: Commands) -> None:
    assert feldman("import", str(PUBLISHED), "-o", "published").code == 0
    document = json.loads(feldman("tail", "published", "--json").out)
    (group,) = document["pairs"]["groups"]
    found = [group[name] for name in ("num_pairs", "num_train", "num_test", "num_test_in_one")]
    assert found == [1015, 964, 888, 774]
    assert values(document, "test_examples_in_pairs") == {1: 774, 2: 101, 3: 13}
    fewer = json.loads(feldman("tail", "published", "--min-influence", "0.3", "--json").out)
    assert fewer["pairs"]["groups"][0]["num_pairs"] == 209


def test_pairs_of_one_class_are_not_told_without_labels(feldman: Commands, tmp_path: Path) -> None:
    write_pairs(tmp_path / "mine.npz")
    assert feldman("import", "mine.npz", "-o", "mine").code == 0
    answer = feldman("tail", "mine", "--same-class")
    assert (answer.code, answer.out) == (2, "")
    assert "which pairs are of one class is not known: mine.npz has no labels; import it with --labels" in answer.err


def test_tables_answer_without_their_trials(feldman: Commands, done: Path) -> None:
    shutil.rmtree(done / "trials.zarr")
    document = json.loads(feldman("tail", str(done), "--json").out)
    assert [text.split(":")[0] for text in document["not_known"]] == [
        "errors of the counts, how many examples are truly memorized, and the accuracy that they carry"
    ]
    assert values(document, "examples") == {None: 60}


def test_classes_are_shown_to_a_number(feldman: Commands, finished: Path) -> None:
    shown = feldman("tail", str(finished), "--top", "1", "--resamples", "2")
    assert "1 of 3 classes, most memorized (>= 0.25) first" in shown.out
