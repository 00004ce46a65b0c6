from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from feldman.errors import StoreBusyError
from feldman.trials.rundir import run_paths, writer_lock, writer_of
from tests.conftest import Cli
from tests.runs import FeldmanProcess, assert_same_run, event_names, finish, wait_until, write_experiment


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FeldmanProcess]:
    """A `feldman run` in mid-training, with at least one block committed."""
    experiment = write_experiment(tmp_path, sleep_seconds=1.0, num_trials=400)  # to be killed long before its end
    with FeldmanProcess(tmp_path, "run", experiment, "-o", "run") as process:
        wait_until(lambda: "block_committed" in event_names(tmp_path / "run"), "a block is committed")
        yield process


def test_one_process_writes_and_everybody_reads(writer: FeldmanProcess, tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "run"
    for command in (["run", "experiment.toml", "-o", "run"], ["resume", "run"]):
        refused = cli(*command)
        assert refused.returncode == 1
        message = refused.stderr.splitlines()[-1]
        assert re.fullmatch(
            rf"feldman: 'run' is being written by process {writer.pid} on \S+ \(since \S+\); "
            "wait for it, stop it, or choose another run directory",
            message,
        ), message
    status = json.loads(cli("status", "run", "--json").stdout)
    assert status["writer"]["pid"] == writer.pid
    assert not status["complete"]
    assert f"being written by process {writer.pid}" in cli("status", "run").stdout
    for command in (["verify", "run"], ["estimate", "run"], ["pairs", "run"]):
        read = cli(*command)
        assert read.returncode == 0, read.stderr
    assert writer.running, "the run is long enough for all this"

    writer.kill_tree()
    assert writer_of(run_paths(run)) is None, "a lock ends with its process"
    assert json.loads(cli("status", "run", "--json").stdout)["writer"] is None


@pytest.mark.ray
def test_the_lock_is_free_after_a_kill_even_of_the_driver_alone(tmp_path: Path, ray_address: str) -> None:
    experiment = write_experiment(tmp_path, sleep_seconds=0.2)
    run = tmp_path / "run"
    options = ["--set", "execution.executor=ray", "--address", ray_address]
    with FeldmanProcess(tmp_path, "run", experiment, "-o", run, *options) as process:
        wait_until(lambda: "block_committed" in event_names(run), "a block is committed")
        os.kill(process.pid, 9)
        process.ended()
        assert writer_of(run_paths(run)) is None
        finish(experiment, run)
    assert_same_run(run, finish(experiment, tmp_path / "straight"))


def test_asking_who_writes_does_not_keep_a_writer_out(tmp_path: Path) -> None:
    paths = run_paths(tmp_path / "run")
    assert writer_of(paths) is None
    for _ in range(3):
        with writer_lock(paths):
            found = writer_of(paths)
            assert found is not None
            assert found["pid"] == os.getpid()
            with pytest.raises(StoreBusyError, match=f"by process {os.getpid()} "), writer_lock(paths):
                pass
        assert writer_of(paths) is None


@pytest.mark.parametrize("content", ["", "no JSON", "[1]"])
def test_a_lock_file_that_says_nothing_locks_all_the_same(tmp_path: Path, content: str) -> None:
    paths = run_paths(tmp_path / "run")
    with writer_lock(paths):
        paths.lock.write_text(content)
        assert writer_of(paths) == {}
        with pytest.raises(StoreBusyError, match=r"by process \? on \?"), writer_lock(paths):
            pass
    assert writer_of(paths) is None
