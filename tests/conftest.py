"""What tests share: one Ray cluster, a small experiment that trains in milliseconds, the commands as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from feldman.data.dataset import Dataset
from feldman.experiment import Experiment

# Read by Ray when it is imported: everything on loopback, nothing reported home, no token in the home folder of who tests;
# and what `feldman` sets itself before it imports Ray, which tests have done before.
os.environ.update(
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0", RAY_AUTH_MODE="disabled",
    RAY_timeout_ms_task_wait_for_death_info="100",
)  # fmt: skip

REPOSITORY = Path(__file__).parent.parent


def pytest_configure() -> None:
    """Let SIGINT interrupt, and let no test fail for being slow: this machine may be busy.

    A shell that starts the tests in the background has SIGINT ignored, by all their children too.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")


def long(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that takes half a minute: `make chaos` runs it, `make test` does not."""
    skip = pytest.mark.skipif(
        "FELDMAN_CHAOS_ROUNDS" not in os.environ, reason="takes half a minute: `make chaos` runs it"
    )
    marked: Callable[..., None] = pytest.mark.chaos(skip(test))
    return marked


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `feldman ...` as a process of its own, in an empty folder; returns the completed process."""

    def call(
        *arguments: str, timeout: float = 120, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from feldman.cli.app import main; main()", *arguments],
            cwd=tmp_path,
            env=cli_environment() | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return call


def cli_environment() -> dict[str, str]:
    """The environment of commands run by tests: this checkout first, so that `tests.learners` can be imported."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}


@pytest.fixture
def arrays_file(tmp_path: Path) -> Path:
    """A small learnable problem: 60 training and 30 test points of 3 classes in 5 dimensions, as an .npz file."""
    path = tmp_path / "data.npz"
    np.savez(path, **small_arrays())  # type: ignore[arg-type]
    return path


def small_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, 5)) * 1.5
    labels = {"train": np.arange(60) % 3, "test": np.arange(30) % 3}
    arrays: dict[str, np.ndarray] = {}
    for part, y in labels.items():
        arrays[f"x_{part}"] = (centres[y] + rng.normal(size=(len(y), 5))).astype(np.float32)
        arrays[f"y_{part}"] = y.astype(np.int64)
    return arrays


def small_dataset(seed: int = 0) -> Dataset:
    arrays = small_arrays(seed)
    return Dataset(name="arrays", class_names=("0", "1", "2"), **arrays)  # type: ignore[arg-type]


def small_experiment(path: Path, **subsets: int | float) -> Experiment:
    """An experiment on the arrays file with a learner that needs no torch: thousands of trials a second."""
    return Experiment.model_validate(
        {
            "dataset": {"name": "arrays", "path": str(path)},
            "learner": {"name": "tests.learners:nearest_centroid"},
            "subsets": {"num_trials": 40, "block_size": 8, "seed": 7, **subsets},
            "execution": {"executor": "in-process"},
        }
    )


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of one Ray cluster of 2 CPUs that all tests share."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()
