"""`feldman run --trials` and `feldman merge` as commands: what they print, for people and for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from feldman.experiment_files import experiment_to_toml
from tests.commands import Commands
from tests.conftest import small_experiment
from tests.runs import assert_same_run


@pytest.fixture
def commands(feldman: Commands, tmp_path: Path, arrays_file: Path) -> Commands:
    """The commands, in a folder with an experiment of 44 trials in six blocks of 8, the last one short."""
    (tmp_path / "experiment.toml").write_text(experiment_to_toml(small_experiment(arrays_file, num_trials=44)))
    return feldman


def _run(commands: Commands, run: str, *options: str) -> str:
    answer = commands("run", "experiment.toml", "-o", run, *options)
    assert answer.code == 0, answer.err
    return answer.out


def test_a_range_is_told_in_the_summary_and_in_the_status(commands: Commands) -> None:
    said = _run(commands, "a", "--trials", "8:24")
    assert said.startswith("a: arrays, tests.learners:nearest_centroid, 16 trials (the range 8:24 of 44 planned)\n")
    assert "\n                     feldman merge a OTHER -o NEW joins it with a run of other trials\n" in said
    status = commands("status", "a").out.splitlines()
    assert status[0] == "a: complete"
    assert status[1] == "  trials         16 of 16 committed, the range 8:24 of 44 planned"
    assert status[2] == "  blocks         2 of 6 planned, 8 trials each"
    assert not any("go on with" in line for line in status)
    document = json.loads(commands("status", "a", "--json").out)
    expected = {"trials": [8, 24], "num_committed_in_range": 16, "num_trials": 44, "num_blocks": 6, "complete": True}
    assert {key: document[key] for key in expected} == expected


def test_a_whole_run_speaks_of_no_range(commands: Commands) -> None:
    said = _run(commands, "a")
    assert "range" not in said
    assert "merge" not in said
    assert "  trials         44 of 44 committed\n" in commands("status", "a").out
    document = json.loads(commands("status", "a", "--json").out)
    assert (document["trials"], document["num_committed_in_range"]) == ([0, 44], 44)


def test_the_option_is_short_for_the_field_of_the_experiment(commands: Commands, tmp_path: Path) -> None:
    _run(commands, "option", "--trials", "8:24")
    _run(commands, "set", "--set", "execution.trials=[8, 24]")
    file = tmp_path / "experiment.toml"
    file.write_text(file.read_text() + "trials = [8, 24]\n")
    _run(commands, "file")
    for other in ("set", "file"):
        assert_same_run(tmp_path / other, tmp_path / "option")


def test_a_merge_says_where_the_trials_are_from_and_what_to_do_next(commands: Commands) -> None:
    _run(commands, "a", "--trials", "0:24")
    _run(commands, "b", "--trials", "16:44")
    answer = commands("merge", "a", "b", "-o", "both")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "both: 44 of 44 trials, in blocks of 8",
        "  from a: 24 of its 24 trials",
        "  from b: 20 of its 28 trials",
        "  8 trials are in more than one run, with equal bits; each counts once",
        "  tables both/memorization.parquet, both/influence.parquet",
        "  next   feldman memorized both; feldman pairs both",
    ]
    for command in ("status", "verify", "estimate", "memorized", "pairs", "resume"):
        assert commands(command, "both").code == 0


def test_a_merge_that_leaves_trials_out_says_how_to_get_them_back(commands: Commands) -> None:
    _run(commands, "a", "--set", "subsets.num_trials=20")
    _run(commands, "b", "--trials", "32:44")
    answer = commands("merge", "a", "b", "-o", "both")
    assert answer.out.splitlines() == [
        "both: 28 of 44 trials, in blocks of 8",
        "  from a: 16 of its 20 trials",
        "  from b: 12 of its 12 trials",
        "  4 trials of a short last block do not fill a block of 8 and are left out; `feldman resume both` trains them again",
        "  tables both/memorization.parquet, both/influence.parquet",
        "  next   feldman resume both trains the others; feldman memorized both; feldman pairs both",
    ]
    assert commands("resume", "both").code == 0
    assert commands("status", "both").out.startswith("both: complete\n")


def test_a_merge_is_one_document_for_scripts(commands: Commands) -> None:
    _run(commands, "a", "--trials", "0:24")
    _run(commands, "b", "--trials", "24:44")
    answer = commands("merge", "a", "b", "--json", "-o", "both")
    document = json.loads(answer.out)
    assert list(document) == [
        "status", "sources", "num_shared_trials", "num_left_out_trials", "outputs_left_out", "seconds",
        "memorization_path", "influence_path",
    ]  # fmt: skip
    assert document["status"] == json.loads(commands("status", "both", "--json").out)
    sources = [
        (found["run"], found["num_committed_trials"], found["num_taken_trials"]) for found in document["sources"]
    ]
    assert sources == [("a", 24, 24), ("b", 20, 20)]
    assert "feldman" in document["sources"][0]["created_with"]["versions"]
