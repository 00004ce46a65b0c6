"""The Slurm scripts run for real: on two nodes that are namespaces of this machine, with a stand-in for srun and scontrol."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from feldman.experiment_files import experiment_to_toml
from feldman.trials.events import read_events
from tests.conftest import REPOSITORY, Cli, long, small_experiment
from tests.runs import kill_tree

FAKES = Path(__file__).parent / "fake_slurm"
SCRIPTS = REPOSITORY / "cluster" / "slurm"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def namespaces_work() -> bool:
    tools = all(shutil.which(tool) for tool in ("unshare", "nsenter", "ip", "awk"))
    return tools and subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not namespaces_work(), reason="needs unshare, nsenter, ip and namespaces for users")


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder with a name short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="feldman-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def job(folder: Path, ray_folder: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a batch script as Slurm would, on the first of two nodes of one core."""
    (folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 node1\n10.77.0.2 node2\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{FAKES}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REAL_RAY": str(Path(sys.executable).parent / "ray"),
        "HOSTS": str(folder / "hosts"),
        "HOME": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "RAY_TMPDIR": str(ray_folder),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "2",  # how long the second node waits for a head that is gone
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "COLUMNS": "120",
    }
    command = [*NAMESPACES, str(FAKES / "stage"), "bash", str(SCRIPTS / script), *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def ended(process: subprocess.Popen[str], seconds: float = 120) -> str:
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        kill_tree(process.pid)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def experiment_file(folder: Path, arrays_file: Path, **parameters: float) -> Path:
    experiment = small_experiment(arrays_file, num_trials=80)
    document = experiment.model_dump() | {
        "learner": {"name": "tests.learners:nearest_centroid", "parameters": parameters},
        "execution": {"executor": "ray"},
    }
    path = folder / "experiment.toml"
    path.write_text(experiment_to_toml(type(experiment).model_validate(document)))
    return path


def num_workers(run: Path) -> int:
    return next(int(event["num_workers"]) for event in read_events(run / "events.jsonl") if "num_workers" in event)


def committed(run: Path) -> int:
    events = read_events(run / "events.jsonl") if (run / "events.jsonl").exists() else []
    return sum(event["event"] == "block_committed" for event in events)


def batch_shell(pid: int) -> psutil.Process:
    """The process of the script itself, which alone gets the signal of `--signal=B:TERM`."""
    family = psutil.Process(pid).children(recursive=True)
    return next(one for one in family if one.cmdline()[:1] == ["bash"] and one.cmdline()[1].startswith(str(SCRIPTS)))


@long
@pytest.mark.ray
def test_symmetric_run_trains_on_all_nodes_of_a_job(tmp_path: Path, arrays_file: Path, ray_folder: Path) -> None:
    experiment = experiment_file(tmp_path, arrays_file)
    process = job(tmp_path, ray_folder, "symmetric.sbatch", str(experiment), "run")
    output = ended(process)
    assert process.returncode == 0, output
    assert (tmp_path / "run" / "memorization.parquet").exists(), output
    assert num_workers(tmp_path / "run") == 2


@long
@pytest.mark.ray
def test_a_job_that_reaches_its_time_limit_is_queued_again_and_goes_on(
    tmp_path: Path, arrays_file: Path, ray_folder: Path, cli: Cli
) -> None:
    experiment, run = experiment_file(tmp_path, arrays_file, sleep_seconds=0.5), tmp_path / "run"
    process = job(tmp_path, ray_folder, "start.sbatch", str(experiment), "run")
    deadline = time.monotonic() + 120
    while not committed(run) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    batch_shell(process.pid).send_signal(signal.SIGTERM)  # as `--signal=B:TERM@120` has it
    output = ended(process)
    assert process.returncode == 130, output
    assert (tmp_path / "requeued").read_text() == "17\n"
    before = committed(run)
    assert 0 < before < 10, output
    assert num_workers(run) == 2
    assert cli("run", str(experiment), "-o", "run", "--set", "execution.executor=in-process").returncode == 0
    assert committed(run) == 10
