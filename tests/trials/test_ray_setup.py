from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import signal
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.data.digits import load_digits
from feldman.errors import FeldmanError, InputError
from feldman.experiment import Experiment
from feldman.experiment_files import load_experiment
from feldman.job import run
from feldman.trials.authentication import UNPROTECTED
from feldman.trials.executor import Task
from feldman.trials.loop import run_blocks
from feldman.trials.ray_cluster import BlockResources, Node
from feldman.trials.ray_executor import RayExecutor
from feldman.trials.task import prepare_block_task
from tests.conftest import cli_environment, long
from tests.learners import nearest_centroid
from tests.runs import FeldmanProcess, event_names, wait_until, write_experiment
from tests.trials.scripts import Script, prepare_scripted

pytestmark = pytest.mark.ray


def failing_setup(shared: Any) -> Task:
    raise RuntimeError("the set-up fails as scripted")


def dying_setup(shared: Any) -> Task:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (failing_setup, "no worker could be set up: RuntimeError: the set-up fails as scripted"),
        (dying_setup, "no worker could be set up: Actor(Died|Unavailable)Error: .*"),
    ],
)
def test_a_set_up_that_fails_is_one_clear_error(prepare: Any, message: str, ray_address: str) -> None:
    with (
        pytest.raises(FeldmanError, match=f"^{message}$"),
        RayExecutor(prepare, None, address=ray_address, num_workers=2) as executor,
    ):
        run_blocks(range(3), executor, lambda block, result: None, max_attempts=3)


LARGE = [
    (
        BlockResources(cpus=64),
        "64 CPUs and 0 GPUs .*, but no node has so much: the cluster has 2 CPUs and 0 GPUs together",
    ),
    (BlockResources(gpus=1.0), "1 CPUs and 1 GPUs .* the cluster has 2 CPUs and 0 GPUs together"),
    (BlockResources(memory_bytes=2**50), r"1\.05e\+06 GiB \(memory_per_block\), .* 0 GPUs, [0-9.]+ GiB together"),
    (BlockResources(custom={"spot": 2.0}), r"2 spot \(resources\), .* 0 GPUs, 0 spot together"),
]


@pytest.mark.parametrize(("resources", "message"), LARGE)
def test_a_block_that_takes_more_than_any_node_has_is_told_at_once(
    ray_address: str, resources: BlockResources, message: str
) -> None:
    with pytest.raises(FeldmanError, match=f"^a block takes .*{message}"):
        RayExecutor(prepare_scripted, "", address=ray_address, resources=resources)
    with RayExecutor(prepare_scripted, "", address=ray_address, resources=resources, num_workers=3) as executor:
        assert re.search(message, executor.shortage), "a number of workers says to wait, and that is told"
        assert (executor.num_workers, executor.num_free) == (3, 0)


def prepare_on_gpu(experiment: Experiment, folder: str, shared: Dataset) -> Task:
    """Make a task that does as a script says and tells which GPUs the worker sees; block 0 trains as well."""
    scripted = prepare_scripted(folder)

    def task(block: int) -> str:
        scripted(block)
        if block == 0:
            prepare_block_task(experiment, (), shared)(block)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    return task


@long
def test_four_workers_share_a_gpu_of_which_a_block_takes_a_quarter(tmp_path: Path) -> None:
    """The GPU is one in name only: Ray hands it out all the same, and torch computes on the CPU."""
    from ray.cluster_utils import Cluster

    script, seen = Script(tmp_path), dict[int, str]()
    script.start({block: ["wait"] for block in range(4)})
    experiment = Experiment.model_validate(
        {
            "dataset": {"name": "digits"},
            "learner": {"name": "linear"},
            "training": {"epochs": 1},
            "subsets": {"num_trials": 16, "block_size": 2},
            "execution": {"gpus_per_block": 0.25, "device": "cpu"},
        }
    )
    resources = {"num_cpus": 6, "num_gpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=resources)
    try:
        with RayExecutor(
            partial(prepare_on_gpu, experiment, str(tmp_path)),
            load_digits(),
            address=cluster.address,
            resources=BlockResources(gpus=experiment.execution.gpus_per_block),
        ) as executor:
            assert executor.num_workers == 4
            wait_until(lambda: executor.wait(0.1) or executor.num_free == 4, "four workers have joined")
            for block in range(4):
                executor.submit(block)
            wait_until(lambda: script.num_running() == 4, "four blocks are at work at once")
            script.open_gate()
            while len(seen) < 4:
                for outcome in executor.wait(1.0):
                    assert outcome.error is None
                    seen[outcome.block] = outcome.result
    finally:
        cluster.shutdown()
    assert seen == dict.fromkeys(range(4), "0")
    assert len({pid for block in range(4) for pid in script.pids(block)}) == 4


@pytest.mark.parametrize(("share", "num_workers"), [(0.1, 10), (0.2, 5), (0.25, 4), (0.3, 3), (1.0, 1)])
def test_as_many_workers_fit_on_a_gpu_as_their_shares_add_up_to(share: float, num_workers: int) -> None:
    """1 // 0.1 is 9 in floating point."""

    node = Node(id="0", name="alone", total={"CPU": 64.0, "GPU": 1.0})
    assert node.num_fitting(BlockResources(gpus=share)) == num_workers


def test_an_executor_can_be_closed_with_blocks_in_flight_and_another_one_be_made(
    ray_address: str, tmp_path: Path
) -> None:
    script = Script(tmp_path)
    script.start({0: ["wait"]})
    with RayExecutor(prepare_scripted, str(tmp_path), address=ray_address) as executor:
        wait_until(lambda: executor.wait(0.1) or executor.num_free > 0, "a worker joins")
        executor.submit(0)
        wait_until(lambda: script.num_running() == 1, "the block is at work")
        (worker,) = script.pids(0)
    wait_until(lambda: not psutil.pid_exists(worker), "its worker is gone")
    with RayExecutor(prepare_scripted, str(tmp_path), address=ray_address) as executor:
        assert run_blocks([1], executor, lambda block, result: None, max_attempts=1).committed == [1]


def test_a_process_that_uses_ray_already_is_told_so(ray_address: str) -> None:
    with (
        RayExecutor(prepare_scripted, "", address=ray_address, num_workers=1),
        pytest.raises(InputError, match="already in use in this process"),
    ):
        RayExecutor(prepare_scripted, "", address=ray_address)


def test_a_cluster_that_trains_for_whoever_has_no_token_is_warned_of(ray_address: str, tmp_path: Path) -> None:
    experiment = load_experiment(write_experiment(tmp_path), ["execution.executor=ray"])
    notes: list[str] = []
    run(experiment, tmp_path / "run", address=ray_address, on_progress=lambda progress: notes.append(progress.note))
    assert notes.count(UNPROTECTED) == 1


def test_an_address_where_no_cluster_answers_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        RayExecutor(prepare_scripted, "", address="127.0.0.1:1")


def _digests(dataset: Dataset) -> dict[str, str]:
    arrays = {name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def prepare_probe(experiments: Sequence[Experiment], shared: Dataset) -> Task:
    """Make a task that trains for real, a learner a block, and tells what the worker sees of the data before and after."""
    tasks = [prepare_block_task(experiment, (), shared) for experiment in experiments]

    def probe(block: int) -> dict[str, Any]:
        before = _digests(shared)
        tasks[block](block)
        x = shared.x_train
        return {
            "before": before,
            "after": _digests(shared),
            "writeable": [getattr(shared, name).flags.writeable for name in before],
            "owndata": [getattr(shared, name).flags.owndata for name in before],
            "segment": _mapped_file(x.__array_interface__["data"][0]),
            "pid": os.getpid(),
        }

    return probe


def meddling_through_torch(
    dataset: Dataset, masks: Any, seeds: NDArray[np.int64], parameters: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Write into what all workers share: NumPy would refuse, torch does not look."""
    import torch

    with warnings.catch_warnings(action="ignore"):
        torch.from_numpy(dataset.x_train)[0] = 7
    return nearest_centroid(dataset, masks, seeds, {})


def _mapped_file(address: int) -> str:
    """The file that backs an address of this process, by /proc; empty for memory of its own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, _, _, _, _, *file = line.split(maxsplit=5)
        low, high = (int(bound, 16) for bound in bounds.split("-"))
        if low <= address < high:
            return file[0] if file else ""
    return ""


LEARNERS: list[dict[str, Any]] = [
    {"learner": {"name": "mlp", "vectorize": True}},
    {"learner": {"name": "mlp", "vectorize": False}},
    {
        "learner": {"name": "cnn", "channels": [2]},
        "training": {"epochs": 1, "augment": ["crop", "flip", "cutout"], "crop_padding": 1, "cutout_size": 2},
    },
    {"learner": {"name": "sklearn:neighbors.KNeighborsClassifier"}},
]


def _probed(ray_address: str, dataset: Dataset, learners: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    base = {"dataset": {"name": "digits"}, "training": {"epochs": 1}, "subsets": {"num_trials": 8, "block_size": 2}}
    experiments = [Experiment.model_validate(base | learner) for learner in learners]
    seen: dict[int, dict[str, Any]] = {}
    with RayExecutor(partial(prepare_probe, experiments), dataset, address=ray_address) as executor:
        report = run_blocks(range(len(learners)), executor, seen.__setitem__, max_attempts=1)
    assert report.set_aside == {}
    return seen


def test_workers_share_the_data_without_a_copy_and_no_learner_changes_it(ray_address: str) -> None:
    dataset = load_digits()
    seen = _probed(ray_address, dataset, LEARNERS)
    assert len(seen) == len(LEARNERS)
    for told in seen.values():
        assert told["before"] == told["after"] == _digests(dataset)
        assert told["writeable"] == [False] * 4
        assert told["owndata"] == [False] * 4
        assert "plasma" in told["segment"], "the data is in Ray's shared memory, not in the worker's own"


def test_a_worker_that_writes_into_the_shared_data_would_be_noticed(ray_address: str) -> None:
    seen = _probed(ray_address, load_digits(), [{"learner": {"name": f"{__name__}:meddling_through_torch"}}])
    changed = {name for name, digest in seen[0]["after"].items() if digest != seen[0]["before"][name]}
    assert changed == {"x_train"}


def test_a_ray_that_feldman_starts_listens_on_loopback_only_and_asks_for_a_token_that_it_keeps_to_itself(
    tmp_path: Path,
) -> None:
    experiment = write_experiment(tmp_path, sleep_seconds=0.5)
    run = tmp_path / "run"
    # As on a user's machine: none of the settings that the tests' own cluster needs.
    env = {name: value for name, value in cli_environment().items() if not name.startswith("RAY_")}
    env["HOME"] = str(tmp_path)
    with FeldmanProcess(tmp_path, "run", experiment, "-o", run, "--set", "execution.executor=ray", env=env) as process:
        wait_until(lambda: "block_committed" in event_names(run) or not process.running, "a block is committed")
        assert process.running, process.ended().stderr
        listening = _open_sockets(process.pid)
        servers = psutil.Process(process.pid).children(recursive=True)
        (store,) = [server for server in servers if server.name() == "gcs_server"]
        assert store.environ()["RAY_AUTH_MODE"] == "token"
        token_file = tmp_path / ".ray" / "auth_token"
        assert token_file.stat().st_mode & 0o777 == 0o600
        token = token_file.read_text()
        assert [server.name() for server in servers if token in " ".join(server.cmdline())] == []
    kept = [path for path in run.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert kept == []
    assert len(listening) >= 3, "Ray's own servers are among them"
    assert [(name, ip) for name, ip in listening if not _is_loopback(ip)] == []


def _open_sockets(pid: int) -> list[tuple[str, str]]:
    """The local address of every listening TCP and every unconnected UDP socket of a process tree."""
    found: list[tuple[str, str]] = []
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        try:
            connections = process.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        servers = (
            connection
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
            or (connection.type.name == "SOCK_DGRAM" and not connection.raddr)
        )
        found += [(f"{process.name()} {process.pid}", connection.laddr.ip) for connection in servers]
    return found


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback  # how an IPv4 listener shows on a socket of both families
    return found.is_loopback
