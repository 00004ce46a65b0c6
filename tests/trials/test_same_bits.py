from __future__ import annotations

from pathlib import Path

import pytest

from feldman import job
from feldman.experiment_files import load_experiment
from tests.conftest import long
from tests.runs import FeldmanProcess, assert_same_run, event_names, finish, write_experiment

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("home"), sleep_seconds=0.02, num_trials=60)


@pytest.fixture(scope="module")
def reference(experiment: Path) -> Path:
    return finish(experiment, experiment.parent / "reference")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(
    num_workers: int, experiment: Path, reference: Path, tmp_path: Path, ray_address: str
) -> None:
    overrides = ["execution.executor=ray", f"execution.num_workers={num_workers}"]
    job.run(load_experiment(experiment, overrides), tmp_path / "run", address=ray_address)
    assert_same_run(tmp_path / "run", reference)


@long
def test_three_workers_of_a_local_ray_change_no_bit(experiment: Path, reference: Path, tmp_path: Path) -> None:
    options = ["--set", "execution.executor=ray", "--set", "execution.num_workers=3"]
    with FeldmanProcess(tmp_path, "run", experiment, "-o", "run", *options) as process:
        ended = process.ended()
    assert ended.code == 0, ended.stderr
    assert event_names(tmp_path / "run").count("block_committed") == 8
    assert_same_run(tmp_path / "run", reference)


def test_torch_training_has_the_same_bits_in_both_executors(tmp_path: Path, ray_address: str) -> None:
    overrides = ["training.epochs=3", "subsets.num_trials=11", "subsets.block_size=4"]
    here = load_experiment("digits", [*overrides, "execution.executor=in-process"])
    there = load_experiment("digits", [*overrides, "execution.executor=ray"])
    job.run(here, tmp_path / "in-process")
    job.run(there, tmp_path / "ray", address=ray_address)
    assert_same_run(tmp_path / "ray", tmp_path / "in-process")
