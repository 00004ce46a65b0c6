"""Progress: a bar on a real terminal, plain lines elsewhere, never on standard output."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pexpect
import pytest

from feldman.cli.progress import ProgressDisplay
from feldman.experiment_files import experiment_to_toml
from feldman.trials.session import Progress
from tests.conftest import Cli, cli_environment, small_experiment

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def slow_experiment(tmp_path: Path, arrays_file: Path) -> str:
    """240 trials in 30 blocks of a twentieth of a second: long enough for the bar to be drawn many times."""
    experiment = small_experiment(arrays_file, num_trials=240)
    text = experiment_to_toml(experiment.replace("learner", {"parameters": {"sleep_seconds": 0.05}}))
    (tmp_path / "slow.toml").write_text(text)
    return "slow.toml"


def test_a_terminal_shows_a_bar_with_trials_rate_time_left_and_accuracy(tmp_path: Path, slow_experiment: str) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-c", "from feldman.cli.app import main; main()", "run", slow_experiment, "-o", "new"],
        cwd=str(tmp_path),
        env=cli_environment() | {"TERM": "xterm-256color", "COLUMNS": "160"},
        encoding="utf-8",
        dimensions=(24, 160),
        timeout=120,
    )
    shown = ANSI.sub("", child.read())
    child.close()
    assert child.exitstatus == 0, shown
    bar = r"training ━*\S*\s*━* (\d+)/240 trials, [\d,.]+/(?:s|min), \d+s left, test accuracy \d+\.\d\d%"
    counts = [int(count) for count in re.findall(bar, shown)]
    assert len(counts) > 3
    assert counts == sorted(counts)
    assert "new: arrays, tests.learners:nearest_centroid, 240 trials" in shown


def test_elsewhere_plain_lines_go_to_standard_error_and_only_the_summary_to_standard_output(
    cli: Cli, slow_experiment: str
) -> None:
    done = cli("run", slow_experiment, "-o", "new")
    assert done.returncode == 0
    assert "\x1b" not in done.stderr + done.stdout
    assert re.search(r"^training: \d+/240 trials", done.stderr, re.MULTILINE)
    assert "training:" not in done.stdout
    assert done.stdout.startswith("new: arrays, tests.learners:nearest_centroid, 240 trials\n")
    for told in ("test accuracy", "memorized", "influential pairs", "time", "tables", "next"):
        assert f"\n  {told} " in done.stdout


def test_a_plain_line_counts_only_the_trials_of_this_session_for_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("feldman.cli.progress.time.monotonic", lambda: now)
    with ProgressDisplay() as display:
        display(Progress(stage="training", done=1000, total=4000))
        assert capsys.readouterr().err == "training: 1,000/4,000 trials\n"
        now = 110.0
        display(Progress(stage="training", done=1900, total=4000, mean_test_accuracy=0.5))
    expected = "training: 1,900/4,000 trials, 90.0/s, 23s left, test accuracy 50.00%\n"
    assert capsys.readouterr().err == expected


def test_a_note_is_told_once_as_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        display(Progress(stage="starting", note="starting Ray on this machine [really]"))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "starting Ray on this machine [really]\n")
