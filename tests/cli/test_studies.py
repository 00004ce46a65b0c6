"""The studies as commands: a table for people, one JSON document, rows in files, figures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feldman.job import run
from feldman.studies.honest import HONEST_SCHEMA
from feldman.studies.stability import STABILITY_SCHEMA
from tests.commands import Commands, snapshot
from tests.conftest import small_arrays, small_experiment


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
        (("--sizes", "many"), "--sizes lists numbers of trials, as in 50,100,200; found 'many'"),
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


def test_honest_pairs_are_filtered_as_pairs_are_and_shrinkage_is_shown(
    feldman: Commands, finished: Path, tmp_path: Path
) -> None:
    options = ("--honest", "--min-memorization", "-1", "--min-influence", "0.3")
    document = json.loads(feldman("pairs", str(finished), *options, "--all", "--json").out)
    rows = document["rows"]
    assert list(rows[0]) == HONEST_SCHEMA.names
    assert min(row["selected_influence"] for row in rows) >= 0.3 > min(row["influence"] for row in rows)
    assert document["shrinkage"][-1]["num_pairs"] is None
    assert document["shrinkage"][-1]["ratio"] < 0.9
    chosen = rows[0]["train_index"]
    for arguments, expected in (
        (("--train", str(chosen)), [row for row in rows if row["train_index"] == chosen]),
        (
            ("--where", "selected_on = 1 AND q_value < 0.5"),
            [r for r in rows if r["selected_on"] == 1 and r["q_value"] < 0.5],
        ),
        (("--same-class",), [row for row in rows if row["train_label"] == row["test_label"]]),
        (("--top", "3"), rows[:3]),
    ):
        every = () if "--top" in arguments else ("--all",)
        found = json.loads(feldman("pairs", str(finished), *options, *arguments, *every, "--json").out)["rows"]
        if "--same-class" in arguments:  # q-values are over fewer pairs
            found, expected = ([{**row, "q_value": None} for row in part] for part in (found, expected))
        assert found == expected, arguments
    answer = feldman("pairs", str(finished), *options, "--top", "2", "-o", "honest.parquet")
    assert answer.code == 0, answer.err
    assert pq.read_metadata(tmp_path / "honest.parquet").num_rows == 2
    shown = feldman("pairs", str(finished), *options, "--top", "2").out.splitlines()
    assert shown[0].startswith("the strongest pairs of each half")
    assert any(line.startswith(f"2 of {len(rows):,} pairs selected on one half (influence >= 0.3") for line in shown)
    other = json.loads(feldman("pairs", str(finished), *options, "--all", "--json", "--seed", "1").out)["rows"]
    assert other != rows


def test_honest_pairs_need_trials_and_test_examples(feldman: Commands, done: Path) -> None:
    answer = feldman("pairs", str(done), "--honest", "--targets", "train")
    assert answer.code == 2
    assert "leave out --targets train" in answer.err
    shutil.rmtree(done / "trials.zarr")
    assert feldman("pairs", str(done), "--honest").code == 2


def test_a_plan_says_trials_cost_and_the_command(feldman: Commands, finished: Path) -> None:
    answer = feldman("plan", str(finished), "--target-stderr", "0.05", "--min-memorization", "-1", "--workers", "3")
    assert answer.code == 0, answer.err
    document = json.loads(
        feldman(
            "plan", str(finished), "--target-stderr", "0.05", "--min-memorization", "-1", "--workers", "3", "--json"
        ).out
    )
    assert [need["how"] for need in document["needs"]] == ["scaled", "scaled", "bound"]
    most = max(need["num_trials"] for need in document["needs"][:2])
    assert answer.out.splitlines()[-1] == f"  to train them: feldman resume {finished} --num-trials {most}"
    cost = document["needs"][0]["cost"]
    assert (cost["num_more"], cost["num_workers"]) == (document["needs"][0]["num_trials"] - 40, 3)
    jaccard = feldman("plan", str(finished), "--target-jaccard", "0.9")
    assert jaccard.code == 0, jaccard.err
    assert "this run is too short to tell" in jaccard.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "a plan has one target: give --target-stderr or --target-jaccard"),
        (("--target-stderr", "0.1", "--target-jaccard", "0.8"), "a plan has one target"),
        (("--target-stderr", "0"), "a standard error lies between 0 and 1; found 0"),
        (("--target-jaccard", "1"), "a Jaccard similarity to be reached lies between 0 and 1; found 1"),
        (("--target-stderr", "small"), "Invalid value for '--target-stderr'"),
    ],
)
def test_plans_without_a_target_that_can_be_reached_are_refused(
    feldman: Commands, finished: Path, options: tuple[str, ...], says: str
) -> None:
    answer = feldman("plan", str(finished), *options)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err


def test_c_scores_of_several_ratios_are_one_table_hardest_first(
    feldman: Commands, finished: Path, tmp_path: Path
) -> None:
    run(small_experiment(finished.parent / "data.npz", subset_ratio=0.5), tmp_path / "half")
    document = json.loads(feldman("cscore", str(finished), "half", "--all", "--json").out)
    assert document["subset_ratios"] == [0.5, 0.7]
    rows = document["rows"]
    assert len(rows) == 60
    assert [row["cscore"] for row in rows] == sorted(row["cscore"] for row in rows)
    assert all(row["cscore"] == pytest.approx((row["rate_out_0.5"] + row["rate_out_0.7"]) / 2) for row in rows)
    shown = feldman("cscore", str(finished), "--top", "3").out.splitlines()
    assert shown[0].startswith("hardest of 60 training examples, subset ratio 0.7; decided: influence >= 0.15")
    assert len(shown) == 5


def test_c_scores_of_other_data_or_other_learners_are_refused(
    feldman: Commands, finished: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "other.npz", allow_pickle=False, **small_arrays(seed=1))
    run(small_experiment(tmp_path / "other.npz"), tmp_path / "other")
    answer = feldman("cscore", str(finished), "other")
    assert (answer.code, answer.out) == (1, "")
    assert "a C-score is of one data set; 'other' is of another one" in answer.err
    experiment = small_experiment(finished.parent / "data.npz")
    training = experiment.training.model_copy(update={"epochs": 3})
    run(experiment.model_copy(update={"training": training}), tmp_path / "longer")
    answer = feldman("cscore", str(finished), "longer")
    assert answer.code == 1
    assert "a C-score is of one learner and recipe; those of 'longer' differ" in answer.err


def test_lds_prints_a_row_a_size_and_estimator_and_draws_them(
    feldman: Commands, finished: Path, tmp_path: Path
) -> None:
    options = ("--held-out", "20", "--num-tests", "10")
    answer = feldman("lds", str(finished), *options, "--plot", "lds.png", "-o", "lds.csv")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("linear datamodeling score on 20 held-out trials of 40")
    assert (tmp_path / "lds.png").stat().st_size > 1000
    document = json.loads(feldman("lds", str(finished), *options, "--json").out)
    assert [(row["num_trials"], row["estimator"]) for row in document["rows"]] == [(20, "difference"), (20, "ridge")]
    few = feldman("lds", str(finished))
    assert (few.code, few.out) == (2, "")
    assert "a score takes 20 trials to estimate from, 20 held out and a test example; found sizes 32, 8 held" in few.err
    unknown = feldman("lds", str(finished), *options, "--estimators", "ridge,trak")
    assert (unknown.code, unknown.out) == (2, "")
    assert "estimators are difference, ridge, lasso; found 'trak'" in unknown.err


def test_duplicates_flags_pairs_and_says_what_is_left_without_them(
    feldman: Commands, done: Path, tmp_path: Path
) -> None:
    assert feldman("estimate", str(done), "--min-memorization", "-1", "--min-influence", "0.2").code == 0
    every = json.loads(feldman("duplicates", str(done), "--all", "--json").out)["rows"]
    least = sorted(row["correlation"] for row in every)[-3] - 1e-6  # the three most alike
    options = ("duplicates", str(done), "--min-correlation", str(least))
    document = json.loads(feldman(*options, "--all", "--json").out)
    rows = document["rows"]
    of_all, without = document["headlines"]
    assert of_all["num_pairs"] == len(rows) == without["num_pairs"] + 3
    assert [row["duplicate"] for row in rows] == [row["correlation"] >= least for row in rows]
    answer = feldman(*options, "--top", "3", "--list", "found.csv", "-o", "pairs.parquet")
    assert answer.code == 0, answer.err
    listed = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert len(listed) == document["num_train_test"] + document["num_train_train"]
    assert pq.read_table(tmp_path / "pairs.parquet").num_rows == 3
    shown = feldman(*options, "--top", "2").out.splitlines()
    assert shown[0].startswith(f"{document['num_train_test']:,} train/test and")
    assert any(line.startswith(f"2 of {len(rows):,} pairs (influence >= 0.2") for line in shown)


def test_duplicates_in_other_data_are_not_looked_for(feldman: Commands, done: Path, finished: Path) -> None:
    data = finished.parent / "data.npz"
    before = data.read_bytes()
    try:
        np.savez(data, allow_pickle=False, **small_arrays(seed=1))
        answer = feldman("duplicates", str(done))
    finally:
        data.write_bytes(before)
    assert (answer.code, answer.out) == (2, "")
    assert "the data set 'arrays' is not what" in answer.err
    assert "put the old data in its place" in answer.err
