"""Finished runs that exchange is tried on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from feldman.estimates.selection import PairSelection
from feldman.job import run
from feldman.results.estimation import write_estimates
from feldman.trials.rundir import run_paths
from tests.commands import Commands
from tests.conftest import small_arrays, small_experiment


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 trials on 60 and 30 examples of 3 classes, with many pairs; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    np.savez(folder / "data.npz", allow_pickle=True, **small_arrays())
    run(small_experiment(folder / "data.npz"), folder / "run")
    write_estimates(run_paths(folder / "run"), selection=PairSelection(min_influence=0.05, min_memorization=0.0))
    return folder / "run"


@pytest.fixture
def done(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to do with as one likes."""
    return Path(shutil.copytree(trained, tmp_path / "done"))


@pytest.fixture
def feldman(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The commands, called in this process, in an empty folder."""
    return Commands(tmp_path, capsys)
