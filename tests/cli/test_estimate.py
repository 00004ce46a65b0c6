"""`feldman estimate`: what each option writes and says, and what `feldman resume` keeps of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zarr

from feldman.estimates.selection import PairSelection
from feldman.results.tables import read_facts
from feldman.trials.store import TrialStore
from tests.commands import Answer, Commands

PAPERS: dict[str, Any] = {
    "min_influence": 0.15,
    "min_memorization": 0.25,
    "top_per_target": None,
    "top_per_train": None,
    "same_class": False,
    "targets": "test",
}
TOPS: dict[str, Any] = {"min_influence": -1.0, "min_memorization": -1.0}


def estimate(feldman: Commands, run: Path, *options: str) -> Answer:
    answer = feldman("estimate", str(run), *options)
    assert answer.code == 0, answer.err
    return answer


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


OPTIONS: list[tuple[Sequence[str], dict[str, Any], str]] = [
    ((), {}, "influence >= 0.15, memorization >= 0.25"),
    (("--min-influence", "0.3"), {"min_influence": 0.3}, "influence >= 0.3, memorization >= 0.25"),
    (("--min-memorization", "-1"), {"min_memorization": -1.0}, "influence >= 0.15"),
    (("--min-influence", "-1", "--min-memorization", "-1"), TOPS, "all that are defined"),
    (("--top-per-test", "2"), {**TOPS, "top_per_target": 2}, "the top 2 of each test example"),
    (("--top-per-train", "3"), {**TOPS, "top_per_train": 3}, "the top 3 of each training example"),
    (
        ("--top-per-test", "2", "--top-per-train", "1", "--min-influence", "0.1"),
        {**TOPS, "min_influence": 0.1, "top_per_target": 2, "top_per_train": 1},
        "influence >= 0.1, the top 2 of each test example and the top 1 of each training example",
    ),
    (("--same-class",), {"same_class": True}, "influence >= 0.15, memorization >= 0.25, one class"),
    (
        ("--targets", "train", "--top-per-test", "2", "--same-class"),
        {**TOPS, "targets": "train", "top_per_target": 2, "same_class": True},
        "the top 2 of each target, one class",
    ),
]

IDS = [" ".join(options) for options, _, _ in OPTIONS]


@pytest.mark.parametrize(("options", "changes", "words"), OPTIONS, ids=IDS)
def test_every_selection_is_said_in_words_in_the_document_and_in_the_table(
    feldman: Commands, done: Path, options: Sequence[str], changes: dict[str, Any], words: str
) -> None:
    said = estimate(feldman, done, *options).out.splitlines()
    document = json.loads(estimate(feldman, done, *options, "--json").out)
    selection = PAPERS | changes
    name = "influence_train.parquet" if selection["targets"] == "train" else "influence.parquet"
    assert document["selection"] == selection
    assert read_facts(done / name, done).selection == PairSelection(**selection)
    assert (document["influence_path"], document["num_pairs"]) == (str(done / name), len(rows_of(done / name)))
    assert (document["num_pairs"] > 0) == (
        selection["min_memorization"] < 0.25
    )  # few trials: nothing is memorized so much
    assert {"matrix_path", "counts_path"}.isdisjoint(document)
    assert said == [
        f"{done / 'memorization.parquet'}: 60 examples, from 40 of 40 trials",
        f"{done / name}: {document['num_pairs']:,} pairs ({words}) of {document['num_pairs_tested']:,} looked at",
    ]


def test_tops_are_at_most_so_many_pairs_of_each_example(feldman: Commands, done: Path) -> None:
    estimate(feldman, done, "--top-per-test", "2")
    assert set(Counter(row["test_index"] for row in rows_of(done / "influence.parquet")).values()) == {2}
    estimate(feldman, done, "--top-per-train", "3", "--same-class")
    rows = rows_of(done / "influence.parquet")
    assert set(Counter(row["train_index"] for row in rows).values()) == {3}
    assert all(row["train_label"] == row["test_label"] for row in rows)


def test_training_examples_as_targets_have_a_table_of_their_own(feldman: Commands, done: Path) -> None:
    before = (done / "influence.parquet").read_bytes()
    estimate(feldman, done, "--targets", "train", "--min-influence", "0.05", "--min-memorization", "0.05")
    assert (done / "influence.parquet").read_bytes() == before
    table = pq.read_table(done / "influence_train.parquet")
    assert table.schema.names == [
        "train_index", "target_index", "influence", "stderr", "ci_low", "ci_high", "memorization", "train_label",
        "target_label", "p_value", "q_value",
    ]  # fmt: skip
    rows = table.to_pylist()
    assert rows
    assert all(row["train_index"] != row["target_index"] for row in rows)
    labels = [row["label"] for row in rows_of(done / "memorization.parquet")]
    assert all(row["target_label"] == labels[row["target_index"]] for row in rows)
    kept = (done / "influence_train.parquet").read_bytes()
    estimate(feldman, done)
    assert (done / "influence_train.parquet").read_bytes() == kept


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (("--matrix", "float16"), {"matrix": "influence.zarr"}),
        (("--matrix", "float32"), {"matrix": "influence.zarr"}),
        (("--keep-counts",), {"counts": "counts.zarr"}),
        (("--matrix", "float32", "--keep-counts"), {"matrix": "influence.zarr", "counts": "counts.zarr"}),
    ],
    ids=["matrix in float16", "matrix in float32", "counts", "both"],
)
def test_what_is_written_besides_the_tables_is_named(
    feldman: Commands, done: Path, options: Sequence[str], written: dict[str, str]
) -> None:
    tables = {path: path.read_bytes() for path in done.glob("*.parquet")}
    document = json.loads(estimate(feldman, done, *options, "--json").out)
    named = {key: value for key, value in document.items() if key in ("matrix_path", "counts_path")}
    assert named == {f"{key}_path": str(done / name) for key, name in written.items()}
    assert all(Path(path).is_dir() for path in named.values())
    assert {path.name for path in done.glob("*.zarr")} == {"trials.zarr", *written.values()}
    said = estimate(feldman, done, *options).out.splitlines()
    assert said[2:] == [f"{done / name}: 60 x 30" for name in written.values()]
    assert {path: path.read_bytes() for path in tables} == tables
    if "matrix" in written:
        assert zarr.open_array(done / "influence.zarr", mode="r").dtype == options[1]


@pytest.mark.parametrize(("options", "changes", "words"), OPTIONS[:-1], ids=IDS[:-1])
def test_growth_keeps_the_selection_of_the_table(
    feldman: Commands, done: Path, options: Sequence[str], changes: dict[str, Any], words: str
) -> None:
    estimate(feldman, done, *options)
    assert feldman("resume", str(done), "--num-trials", "48").code == 0
    facts = read_facts(done / "influence.parquet", done)
    assert (facts.num_trials, facts.selection) == (48, PairSelection(**PAPERS | changes))
    grown = {path.name: path.read_bytes() for path in done.glob("*.parquet")}
    estimate(feldman, done, *options)
    assert {path.name: path.read_bytes() for path in done.glob("*.parquet")} == grown


def test_a_table_of_training_examples_as_targets_does_not_change_what_growth_keeps(
    feldman: Commands, done: Path
) -> None:
    estimate(feldman, done, "--top-per-test", "4")
    estimate(feldman, done, "--targets", "train", "--same-class")
    assert feldman("resume", str(done), "--num-trials", "48").code == 0
    facts = read_facts(done / "influence.parquet", done)
    assert (facts.num_trials, facts.selection) == (48, PairSelection(**PAPERS | TOPS | {"top_per_target": 4}))


def test_kept_counts_are_added_to_after_growth(feldman: Commands, done: Path) -> None:
    estimate(feldman, done, "--keep-counts", "--matrix", "float32")
    assert feldman("resume", str(done), "--num-trials", "56").code == 0
    estimate(feldman, done, "--keep-counts", "--matrix", "float32")
    kept = {path: path.read_bytes() for path in [*done.glob("*.parquet"), *(done / "influence.zarr").rglob("c/*/*")]}
    assert len(kept) == 3
    estimate(feldman, done, "--matrix", "float32")
    assert {path: path.read_bytes() for path in kept} == kept


def test_damaged_counts_fail_with_one_message_that_says_what_to_do(feldman: Commands, done: Path) -> None:
    estimate(feldman, done, "--keep-counts")
    next((done / "counts.zarr" / "joint" / "c").rglob("*/0")).write_bytes(b"x")
    answer = feldman("estimate", str(done), "--keep-counts")
    assert (answer.code, answer.out) == (1, "")
    message = answer.err.splitlines()[-1]
    assert message.startswith(f"feldman: {done / 'counts.zarr'} is damaged (joint: ")
    assert message.endswith("; delete it, and all blocks are read and counted anew")
    assert estimate(feldman, done).out


def test_an_unfinished_run_is_estimated_with_all_options(feldman: Commands, done: Path) -> None:
    TrialStore.open(done / "trials.zarr").withdraw_block(3)
    options = ("--matrix", "float16", "--keep-counts", "--top-per-train", "2", "--same-class")
    assert "from 32 of 40 trials" in estimate(feldman, done, *options).out
    assert zarr.open_array(done / "influence.zarr", mode="r").attrs["num_trials"] == 32


@pytest.mark.ray
def test_a_cluster_is_used_where_its_address_is_given(feldman: Commands, done: Path, ray_address: str) -> None:
    options = ("--top-per-test", "3", "--json")
    expected = estimate(feldman, done, *options).out
    tables = {path: path.read_bytes() for path in done.glob("*.parquet")}
    assert estimate(feldman, done, *options, "--address", ray_address).out == expected
    assert {path: path.read_bytes() for path in tables} == tables
