from __future__ import annotations

import signal
from pathlib import Path

import pytest

from feldman.trials.signals import stop_on_signals
from tests.runs import (
    Ended,
    FeldmanProcess,
    assert_same_run,
    calls_of,
    event_names,
    finish,
    wait_until,
    write_experiment,
)


def _started(folder: Path, *options: str, sleep_seconds: float, num_trials: int = 40) -> FeldmanProcess:
    experiment = write_experiment(folder, sleep_seconds=sleep_seconds, num_trials=num_trials)
    return FeldmanProcess(folder, "run", experiment, "-o", "run", *options)


def _training(process: FeldmanProcess, folder: Path) -> bool:
    return "block_committed" in event_names(folder / "run") or not process.running


def _holds_together(ended: Ended, folder: Path) -> None:
    """An interrupted run says how to go on, and going on ends as if nothing had happened."""
    assert ended.code == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    committed = event_names(folder / "run").count("block_committed")
    message = ended.stderr.splitlines()[-1]
    assert message == f"feldman: interrupted; {8 * committed} of 40 trials are safe. Go on with: feldman resume run"
    assert event_names(folder / "run")[-1] == "interrupted"
    finish(folder / "experiment.toml", folder / "run")
    assert event_names(folder / "run").count("block_committed") == 5, "what was safe is not trained again"
    assert_same_run(folder / "run", finish(folder / "experiment.toml", folder / "straight"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_that_can_be_resumed(number: signal.Signals, tmp_path: Path) -> None:
    with _started(tmp_path, sleep_seconds=0.2) as process:
        wait_until(lambda: _training(process, tmp_path), "training has begun")
        process.send(number)
        ended = process.ended()
    assert f"{number.name}: finishing the blocks in flight; once more to leave at once" in ended.stderr
    assert calls_of(tmp_path / "calls.txt") == event_names(tmp_path / "run").count("block_committed"), "none is lost"
    _holds_together(ended, tmp_path)


@pytest.mark.ray
def test_the_handler_is_ours_although_ray_sets_one_for_sigterm(tmp_path: Path, ray_address: str) -> None:
    options = ["--set", "execution.executor=ray", "--address", ray_address]
    with _started(tmp_path, *options, sleep_seconds=0.3) as process:
        wait_until(lambda: _training(process, tmp_path), "training has begun")
        process.send(signal.SIGTERM)
        ended = process.ended()
    assert "SIGTERM: finishing the blocks in flight" in ended.stderr
    _holds_together(ended, tmp_path)


@pytest.mark.ray
def test_ctrl_c_in_a_terminal_does_not_take_the_blocks_of_a_local_ray(tmp_path: Path) -> None:
    with _started(tmp_path, "--set", "execution.executor=ray", sleep_seconds=0.3) as process:
        wait_until(lambda: _training(process, tmp_path), "training has begun")
        process.send_to_group(signal.SIGINT)  # a terminal sends it to the whole group
        ended = process.ended()
    assert "block_failed" not in event_names(tmp_path / "run")
    _holds_together(ended, tmp_path)


def test_the_command_that_the_message_names_finishes_the_run(tmp_path: Path) -> None:
    with _started(tmp_path, sleep_seconds=0.1) as process:
        wait_until(lambda: _training(process, tmp_path), "training has begun")
        process.send(signal.SIGINT)
        command = process.ended().stderr.rpartition("Go on with: feldman ")[2].split()
    with FeldmanProcess(tmp_path, *command) as process:
        assert process.ended().code == 0
    assert event_names(tmp_path / "run")[-1] == "run_finished"


def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    with _started(tmp_path, sleep_seconds=30.0) as process:
        wait_until(lambda: "training_started" in event_names(tmp_path / "run"), "training has begun")
        wait_until(lambda: "training" in _stderr(tmp_path), "it says so")
        process.send(signal.SIGINT)
        wait_until(lambda: "once more to leave at once" in _stderr(tmp_path), "the first is heard")
        assert process.running
        process.send(signal.SIGINT)
        ended = process.ended(25)  # less than the block that is in flight takes
    assert ended.code == 130
    assert "0 of 40 trials are safe. Go on with: feldman resume run" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_signal_after_blocks_were_set_aside_is_still_an_interruption(tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path, sleep_seconds=0.2)
    text = experiment.read_text().replace(
        "tests.trials.scripts:logged_centroid", "tests.trials.scripts:fails_in_one_block"
    )
    experiment.write_text(text)
    with FeldmanProcess(tmp_path, "run", experiment, "-o", "run", "--set", "execution.max_attempts=1") as process:
        wait_until(lambda: _training(process, tmp_path), "the first block is set aside and the second committed")
        assert "block_failed" in event_names(tmp_path / "run")
        process.send(signal.SIGINT)
        ended = process.ended()
    assert ended.code == 130, ended.stderr
    assert "Go on with: feldman resume run" in ended.stderr


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    told: list[str] = []
    with stop_on_signals(told.append) as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        assert told == ["SIGTERM"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert told == ["SIGTERM"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def _stderr(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.stderr"))
