"""A disk that fills up while a run is written: one clear failure, nothing lost, and `resume` finishes once there is room."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from feldman.experiment_files import experiment_to_toml
from feldman.trials.store import TrialStore
from tests.commands import Commands
from tests.conftest import small_experiment
from tests.disks import Disk
from tests.runs import assert_same_run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.remove()


@pytest.fixture
def commands(tmp_path: Path, arrays_file: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    (tmp_path / "experiment.toml").write_text(experiment_to_toml(small_experiment(arrays_file)))
    return Commands(tmp_path, capsys)


# No room at all; room for the first things written; for a few blocks.
@pytest.mark.parametrize("leave_bytes", [0, 40_000, 460_000])
def test_a_full_disk_is_one_failure_that_loses_nothing_and_resume_finishes_the_run(
    leave_bytes: int, disk: Disk, commands: Commands, tmp_path: Path
) -> None:
    run = disk.folder / "run"
    assert commands("run", "experiment.toml", "-o", str(run)).code == 0
    asked_before = commands("memorized", str(run), "--json").out
    disk.fill(run, leave_bytes)

    full = commands("resume", str(run), "--num-trials", "200")
    message = full.err.splitlines()[-1]
    assert (full.code, full.out) == (1, "")
    assert message.startswith("feldman: cannot write to ")
    assert os.strerror(errno.ENOSPC) in message
    assert "what is committed is safe: make room or mend the permissions, then run the same command again" in message
    assert full.err.count("feldman: ") == 1
    assert "Traceback" not in full.err

    assert commands("verify", str(run)).code == 0
    assert len(TrialStore.open(run / "trials.zarr").committed_blocks()) >= 5
    assert commands("memorized", str(run), "--json").out == asked_before

    disk.make_room(run)
    assert commands("resume", str(run), "--num-trials", "200").code == 0
    assert commands("run", "experiment.toml", "-o", "other", "--set", "subsets.num_trials=200").code == 0
    assert_same_run(run, tmp_path / "other")


@pytest.mark.parametrize("leave_bytes", [0, 20_000])
def test_a_run_that_cannot_even_begin_leaves_no_half_made_store(
    leave_bytes: int, disk: Disk, commands: Commands
) -> None:
    run = disk.folder / "run"
    run.mkdir()
    disk.fill(run, leave_bytes)
    full = commands("run", "experiment.toml", "-o", str(run))
    assert (full.code, full.out) == (1, "")
    assert "No space left on device" in full.err
    assert "Traceback" not in full.err
    assert not list(run.glob("*.partial"))
    if (run / "trials.zarr").exists():
        assert commands("verify", str(run)).code == 0
    disk.make_room(run)
    assert commands("run", "experiment.toml", "-o", str(run)).code == 0
