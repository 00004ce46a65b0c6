"""A finished run that query commands are asked about, and the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from feldman.job import run
from tests.commands import Commands
from tests.conftest import small_arrays, small_experiment


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 trials; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "data.npz", allow_pickle=True, **small_arrays())
    run(small_experiment(folder / "data.npz"), folder / "done")
    return folder / "done"


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to do with as one likes."""
    return Path(shutil.copytree(finished, tmp_path / "done"))


@pytest.fixture
def feldman(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The commands, called in this process, in an empty folder."""
    return Commands(tmp_path, capsys)
