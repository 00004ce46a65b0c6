"""`feldman report`: where the page goes, what is said of it, and that a second one takes its place."""

from __future__ import annotations

import json
from pathlib import Path

from feldman.trials.store import TrialStore
from tests.commands import Commands, snapshot
from tests.pages import page_data


def test_the_page_lies_in_the_run_and_is_made_anew_when_asked_again(feldman: Commands, done: Path) -> None:
    before = snapshot(done)
    answer = feldman("report", str(done))
    assert answer.code == 0, answer.err
    page = (done / "report.html").read_text(encoding="utf-8")
    held = page_data(page)
    assert answer.out.splitlines()[0].startswith(
        f"{done / 'report.html'}: {len(page) / 1e6:.1f} MB, {len(held['train']['index'])} training and "
        f"{len(held['test']['index'])} test examples, {len(held['pairs']['train'])} pairs, "
    )
    assert (done / "report.html").as_uri() in answer.out
    assert {name: content for name, content in snapshot(done).items() if name != "report.html"} == before
    assert feldman("estimate", str(done), "--min-influence", "0.4", "--min-memorization", "-1").code == 0
    assert feldman("report", str(done), "--per-class", "1").code == 0
    assert page_data((done / "report.html").read_text()) != held
    assert feldman("memorized", str(done)).code == feldman("resume", str(done)).code == 0, "a run with a page is a run"


def test_json_is_one_document_of_what_the_page_holds(feldman: Commands, done: Path, tmp_path: Path) -> None:
    answer = feldman("report", str(done), "-o", "page.html", "--json")
    told = json.loads(answer.out)
    held = page_data((tmp_path / "page.html").read_text())
    assert told == {
        "run": str(done),
        "report": "page.html",
        "megabytes": (tmp_path / "page.html").stat().st_size / 1e6,
        "num_train": len(held["train"]["index"]),
        "num_test": len(held["test"]["index"]),
        "num_pairs": len(held["pairs"]["train"]),
        "num_pictures": len(held["train"]["index"]) + len(held["test"]["index"]),
    }
    assert not (done / "report.html").exists()
    without = json.loads(feldman("report", str(done), "-o", "page.html", "--json", "--no-pictures").out)
    assert without["num_pictures"] == 0


def test_a_data_set_of_the_users_own_is_found_in_the_current_folder(
    feldman: Commands, tmp_path: Path, arrays_file: Path
) -> None:
    (tmp_path / "mydata.py").write_text(
        "from feldman.data.arrays import load_arrays\n"
        f"def load():\n    print('loading')\n    return load_arrays({str(arrays_file)!r})\n"
    )
    (tmp_path / "mine.toml").write_text(
        '[dataset]\nname = "mydata:load"\n[learner]\nname = "tests.learners:nearest_centroid"\n'
        '[subsets]\nnum_trials = 16\n[execution]\nexecutor = "in-process"\n'
    )
    assert feldman("run", "mine.toml", "-o", "mine").code == 0
    answer = feldman("report", "mine", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["report"] == "mine/report.html", "and what it prints is no part of the document"
    assert page_data((tmp_path / "mine" / "report.html").read_text())["pictures"]["kind"] == "values"


def test_notes_are_told_where_the_page_is_made_too(feldman: Commands, done: Path) -> None:
    TrialStore.open(done / "trials.zarr").withdraw_block(4)
    answer = feldman("report", str(done))
    assert answer.code == 0, answer.err
    assert "The run is not finished: 32 of 40 trials are there." in answer.out
