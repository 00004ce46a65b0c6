"""`feldman compare` with runs: from two learners on one data set to tables, files and a figure; and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from feldman.errors import ComparisonError
from feldman.exchange.same_examples import check_same_data
from feldman.experiment import Experiment
from feldman.job import run
from feldman.studies.comparison import COMPARISON_SCHEMA
from feldman.trials.store import TrialStore
from tests.commands import Commands, snapshot
from tests.conftest import small_arrays, small_experiment

FEW = ("--bootstrap", "4", "--repeats", "1", "--min-memorization", "-1")


def network(data: Path, learner: str, **subsets: int) -> Experiment:
    return Experiment.model_validate(
        {
            "dataset": {"name": "arrays", "path": str(data)},
            "learner": {"name": learner},
            "training": {"epochs": 3, "batch_size": 16},
            "subsets": {"num_trials": 24, "block_size": 12, **subsets},
            "execution": {"executor": "in-process"},
        }
    )


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A linear model and an MLP on one data set, on subsets of their own; not to be written to."""
    folder = tmp_path_factory.mktemp("two")
    np.savez(folder / "data.npz", allow_pickle=False, **small_arrays())
    run(network(folder / "data.npz", "linear"), folder / "linear")
    run(network(folder / "data.npz", "mlp", num_trials=36, seed=1), folder / "mlp")
    return folder / "linear", folder / "mlp"


@pytest.fixture
def named(two_runs: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same by short names in the folder of commands: titles of tables are not broken."""
    for path in two_runs:
        (tmp_path / path.name).symlink_to(path)
    return two_runs


def test_two_learners_are_summed_up_compared_written_and_drawn(
    feldman: Commands, named: tuple[Path, Path], tmp_path: Path
) -> None:
    two_runs, paths = named, ("linear", "mlp")
    before = snapshot(two_runs[0].parent)
    answer = feldman("compare", *paths, *FEW, "-o", "rows.parquet", "--plot", "figure.svg")
    assert answer.code == 0, answer.err
    lines = [line.rstrip() for line in answer.out.splitlines()]
    assert lines[0] == "runs on 'arrays', 60 training and 30 test examples; the first is the reference"
    assert lines[2].split()[:4] == [paths[0], "linear", "24", "0.7"]
    assert lines[3].split()[:4] == [paths[1], "mlp", "36", "0.7"]
    assert f"{paths[1]}, 36 trials, against {paths[0]}, 24; halves have 18 and 12 a side" in answer.out
    assert "on the same subsets" not in answer.out
    assert [line.split()[:2] for line in lines[-7:]] == [
        *(["memorization", threshold] for threshold in ("0.1", "0.25", "0.5", "0.75")),
        *(["influence", threshold] for threshold in ("0.15", "0.25", "0.4")),
    ]
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.names == COMPARISON_SCHEMA.names
    assert table.num_rows == (19 + 11) * 4
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")
    document = json.loads(feldman("compare", *paths, *FEW, "--json").out)
    assert document["num_shared_subsets"] == [0]
    assert (document["num_resamples"], document["num_repeats"], document["seed"]) == (4, 1, 0)
    assert [each["learner"] for each in document["runs"]] == ["linear", "mlp"]
    assert [each["num_memorized"] for each in document["runs"]] == [60, 60], "all, with -1 for a threshold"
    store = TrialStore.open(two_runs[1] / "trials.zarr")
    accuracy = np.asarray(store.array("test_accuracy")[:])
    assert document["runs"][1]["mean_test_accuracy"] == pytest.approx(accuracy.mean(), abs=1e-6)
    assert document["runs"][1]["std_test_accuracy"] == pytest.approx(accuracy.std(ddof=1), abs=1e-6)
    assert document["rows"] == [
        {name: None if value != value else value for name, value in row.items()} for row in table.to_pylist()
    ]
    assert feldman("compare", *paths, *FEW, "-o", "rows.csv").code == 0
    assert len(list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))) == table.num_rows
    assert snapshot(two_runs[0].parent) == before


def test_thresholds_are_those_that_are_listed_and_shared_subsets_are_told(
    feldman: Commands, named: tuple[Path, Path], tmp_path: Path
) -> None:
    data = named[0].parent / "data.npz"
    run(network(data, "mlp", num_trials=12), tmp_path / "short")  # the first 12 subsets
    answer = feldman("compare", "linear", "short", "--bootstrap", "0", "--repeats", "1")
    assert (answer.code, answer.out) == (2, "")
    assert "a half of 12 trials has 10 to 6 of them" in answer.err
    run(network(data, "mlp", num_trials=24), tmp_path / "same")
    grid = ("--memorization-thresholds", "0.5,0.2", "--influence-thresholds", "0.3")
    document = json.loads(feldman("compare", "linear", "same", *FEW, *grid, "--json").out)
    assert document["num_shared_subsets"] == [24]
    thresholds = {(row["estimate"], row["threshold"]) for row in document["rows"]}
    assert thresholds == {("memorization", 0.2), ("memorization", 0.5), ("influence", 0.3)}
    assert "; on the same subsets: 24" in feldman("compare", "linear", "same", *FEW, *grid).out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("linear",), 2, "two runs or more are compared, or one with a file (--with FILE); found 'linear' alone"),
        (("linear", "linear"), 2, "every run is named once; found 'linear' again, which agrees with itself"),
        (("linear", "linear/../linear"), 2, "again, which agrees with itself"),
        (("linear", "mlp", "--with", "x.npz"), 2, "--with compares one run with a file; found 2 runs: linear, mlp"),
        (
            ("linear", "--with", "x.npz", "--seed", "0", "--plot", "a.png"),
            2,
            "--seed, --plot: of runs that are compared with each other; leave it out, or leave out --with",
        ),
        (
            ("linear", "mlp", "--influence-thresholds", "0.2,x"),
            2,
            "--influence-thresholds lists numbers, as in 0.1,0.25",
        ),
        (("linear", "mlp", "--memorization-thresholds", "2"), 2, "from -1 to 1, ascending; found 2"),
        (("linear", "mlp", "--bootstrap", "1"), 2, "no resamples or at least 2"),
        (("linear", "mlp", "--plot", "a.gif"), 2, "a figure is a .png, .svg or .pdf file"),
        (("linear", "nowhere"), 2, "'nowhere' is not a run"),
        (
            ("linear", "other"),
            1,
            "these are of other examples: 'linear' is of 'arrays' (60 and 30 examples, fingerprint ",
        ),
        (("linear", "tables"), 2, "'tables' holds tables and no trials"),
        (("linear", "damaged"), 1, "train_label"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    feldman: Commands, named: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    if "other" in arguments:
        np.savez(tmp_path / "other.npz", allow_pickle=False, **small_arrays(seed=1))
        run(small_experiment(tmp_path / "other.npz"), tmp_path / "other")
    if "tables" in arguments:
        shutil.copytree(named[1], tmp_path / "tables", ignore=shutil.ignore_patterns("trials.zarr"))
    if "damaged" in arguments:
        shutil.copytree(named[1], tmp_path / "damaged")
        (tmp_path / "damaged" / "trials.zarr" / "train_label" / "c" / "0").write_bytes(b"x")
    before = snapshot(tmp_path)
    answer = feldman("compare", *arguments)
    assert (answer.code, answer.out) == (code, ""), answer
    assert says in answer.err
    assert snapshot(tmp_path) == before


@pytest.fixture
def altered(two_runs: tuple[Path, Path], tmp_path: Path) -> Callable[[dict[str, Any]], TrialStore]:
    """Return the MLP's run with other attributes of its data set."""

    def alter(changes: dict[str, Any]) -> TrialStore:
        shutil.copytree(two_runs[1], tmp_path / "altered")
        file = tmp_path / "altered" / "trials.zarr" / "zarr.json"
        document = json.loads(file.read_text())
        document["attributes"]["dataset"] |= changes
        file.write_text(json.dumps(document))
        return TrialStore.open(tmp_path / "altered" / "trials.zarr")

    return alter


def test_representations_are_of_the_examples_of_the_data_set_that_they_were_made_of(
    feldman: Commands, two_runs: tuple[Path, Path], altered: Callable[[dict[str, Any]], TrialStore]
) -> None:
    linear = TrialStore.open(two_runs[0] / "trials.zarr")
    fingerprint = linear.attributes["dataset"]["fingerprint"]
    features = altered(
        {"name": "penultimate", "fingerprint": "f" * 64, "source": {"name": "arrays", "fingerprint": fingerprint}}
    )
    check_same_data(linear, features)
    check_same_data(features, linear)
    check_same_data(features, features)
    shown = feldman("compare", "altered", str(two_runs[0]), *FEW).out.splitlines()
    assert shown[0].startswith("runs on 'arrays', 60 training")
    assert "mlp on penultimate" in shown[2]


def test_representations_of_other_data_and_other_labels_are_refused_with_both_names(
    two_runs: tuple[Path, Path], altered: Callable[[dict[str, Any]], TrialStore]
) -> None:
    linear = TrialStore.open(two_runs[0] / "trials.zarr")
    of_others = altered({"name": "penultimate", "source": {"name": "mnist", "fingerprint": "0123456789abcdef"}})
    expected = (
        r"these are of other examples: '.*linear' is of 'arrays' \(60 and 30 .*\), "
        r"'.*altered' is of 'penultimate' made of 'mnist' \(60 and 30 examples, fingerprint 0123456789ab\); compare runs of one"
    )
    with pytest.raises(ComparisonError, match=expected):
        check_same_data(linear, of_others)
    shutil.rmtree(str(of_others.path.parent))
    relabelled = altered({})
    labels = relabelled.labels("train").copy()
    labels[0] += 1
    relabelled.array("train_label")[:] = labels
    with pytest.raises(ComparisonError, match="example by example, and the labels of these differ"):
        check_same_data(linear, relabelled)
