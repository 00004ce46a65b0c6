from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman import job
from feldman.errors import TrialsFailedError
from feldman.trials.events import EventLog, read_events
from tests.conftest import small_arrays, small_experiment

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
details = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=8), st.one_of(st.none(), st.booleans(), st.integers(), texts), max_size=4
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def _write(path: Path, *events: str) -> None:
    log = EventLog(path)
    for event in events:
        log.write(event)
    log.close()


def _names(path: Path) -> list[str]:
    return [event["event"] for event in read_events(path)]


@given(st.lists(st.tuples(texts, details), max_size=6))
def test_what_is_written_is_read_back_one_line_an_event(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, dict[str, str | int | bool | None]]]
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    log = EventLog(path)
    for name, detail in events:
        log.write(name, {**detail})
    log.close()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == len(events)
    found = read_events(path)
    for (name, detail), record in zip(events, found, strict=True):
        now = datetime.now(UTC)
        assert now - timedelta(minutes=5) < datetime.fromisoformat(record.pop("time")) <= now + timedelta(seconds=1)
        assert record.pop("event") == name
        assert record == detail


def test_a_log_is_only_ever_appended_to(path: Path) -> None:
    _write(path, "first")
    before = path.read_bytes()
    _write(path, "second")
    assert path.read_bytes().startswith(before)
    assert _names(path) == ["first", "second"]


def test_a_line_cut_short_anywhere_costs_that_line_only(path: Path) -> None:
    _write(path, "first", "second")
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        assert _names(path) == (["first", "second"] if length == len(whole) - 1 else ["first"])
        _write(path, "third")
        assert _names(path)[0] == "first"
        assert _names(path)[-1] == "third", f"the line after the one cut at {length} is whole"
        assert len(_names(path)) == (3 if length == len(whole) - 1 else 2)


@pytest.mark.parametrize("rubbish", [b"\x00\xff\xfe", b"[1, 2]", b"3", b'"text"', b"{", b""])
def test_lines_that_are_no_events_are_passed_over(path: Path, rubbish: bytes) -> None:
    _write(path, "first")
    with path.open("ab") as file:
        file.write(rubbish + b"\n")
    _write(path, "second")
    assert _names(path) == ["first", "second"]


def test_no_file_means_no_events(path: Path) -> None:
    assert read_events(path) == []


def test_each_event_is_one_write_so_that_a_kill_cuts_one_line_at_most(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    real = os.write

    def noted(descriptor: int, content: bytes) -> int:
        writes.append(content)
        return real(descriptor, content)

    log = EventLog(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", noted)
        log.write("event", {"number": 3})
    log.close()
    assert len(writes) == 1
    assert writes[0].endswith(b"\n")
    assert json.loads(writes[0])["number"] == 3


def test_the_events_of_a_run_tell_its_story(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", allow_pickle=False, **small_arrays())
    run = tmp_path / "run"
    job.run(small_experiment(tmp_path / "data.npz", num_trials=20), run)
    job.resume(run, num_trials=30)
    events = read_events(run / "events.jsonl")
    story = [event["event"] for event in events]
    assert story == [
        "run_created",
        "training_started",
        *["block_committed"] * 3,
        "estimates_written",
        "run_finished",
        "run_grown",
        "training_started",
        *["block_committed"] * 2,
        "estimates_written",
        "run_finished",
    ]
    assert [event["block"] for event in events if event["event"] == "block_committed"] == [0, 1, 2, 2, 3]
    assert [(event["from"], event["to"]) for event in events if event["event"] == "run_grown"] == [(20, 30)]


def test_failures_are_told_with_their_attempt_and_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", allow_pickle=False, **small_arrays())
    experiment = small_experiment(tmp_path / "data.npz", num_trials=8)
    failing = experiment.model_validate({**experiment.model_dump(), "learner": {"name": "tests.learners:failing"}})
    with pytest.raises(TrialsFailedError, match="this learner always fails"):
        job.run(failing, tmp_path / "run")
    failed = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "block_failed"]
    assert [(event["block"], event["attempt"]) for event in failed] == [(0, 1), (0, 2), (0, 3)]
    assert {event["error"] for event in failed} == {"RuntimeError: this learner always fails"}
