"""The executor on a cluster that changes: nodes that come, go, fail, or do not fit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldman import job
from feldman.data.dataset import Dataset
from feldman.errors import InputError
from feldman.trials.executor import BlockOutcome, Task
from feldman.trials.loop import run_blocks
from feldman.trials.ray_cluster import BlockResources, check_runtime_env, this_node
from feldman.trials.ray_executor import RayExecutor
from tests.clusters import TestCluster, worker_pids
from tests.conftest import small_arrays, small_experiment
from tests.learners import nearest_centroid
from tests.runs import wait_until
from tests.trials.scripts import Script, ScriptedError, prepare_scripted

pytestmark = pytest.mark.ray

HALF_A_GPU = BlockResources(gpus=0.5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[TestCluster]:
    """A head with room for one worker, and nodes with room for two each: one at first."""
    with TestCluster(num_nodes=1) as made:
        yield made


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feldman.trials.ray_executor._LOOK_SECONDS", 0.2)


def prepare_telling(bad_node: str | None, folder: str) -> Task:
    """Make a task that tells its node and fails at its first attempt; on the bad node it cannot be made."""
    if this_node()[0] == bad_node:
        raise ScriptedError("this node lacks something")
    return partial(_tell, Path(folder))


def _tell(folder: Path, block: int) -> str:
    time.sleep(0.05)
    try:
        (folder / f"{block}.failed").touch(exist_ok=False)
    except FileExistsError:
        return this_node()[1]
    raise ScriptedError(f"the first attempt at block {block} fails, on {this_node()[1]}")


def _joined(executor: RayExecutor, number: int) -> None:
    wait_until(lambda: executor.wait(0.1) or executor.num_free == number, f"{number} workers have joined")


def test_a_node_that_joins_is_used_unless_a_number_of_workers_is_asked_for(
    cluster: TestCluster, tmp_path: Path
) -> None:
    prepare = partial(prepare_telling, None)
    with RayExecutor(prepare, str(tmp_path), address=cluster.address, resources=HALF_A_GPU) as executor:
        assert executor.num_workers == 3
        _joined(executor, 3)
        node = cluster.add()
        _joined(executor, 5)
        assert executor.num_workers == 5
        nodes: dict[int, str] = {}
        run_blocks(range(40), executor, nodes.__setitem__, max_attempts=2)
        assert any(node.node_id.startswith(told.split("(")[1].rstrip(")")) for told in nodes.values())
    with RayExecutor(prepare, str(tmp_path), address=cluster.address, num_workers=1, resources=HALF_A_GPU) as executor:
        _joined(executor, 1)
        deadline = time.monotonic() + 0.6
        while time.monotonic() < deadline:
            executor.wait(0.1)
        assert executor.num_workers == 1


def test_a_block_that_failed_is_tried_on_another_node(cluster: TestCluster, tmp_path: Path) -> None:
    failures: list[BlockOutcome] = []
    nodes: dict[int, str] = {}
    prepare = partial(prepare_telling, None)
    with RayExecutor(prepare, str(tmp_path), address=cluster.address, resources=HALF_A_GPU) as executor:
        _joined(executor, 5)
        for block in range(6):  # one after the other: all workers are free
            run_blocks(
                [block], executor, nodes.__setitem__, max_attempts=2, on_failure=lambda one, _: failures.append(one)
            )
    for failure in failures:
        assert failure.node is not None
        assert failure.error == f"ScriptedError: the first attempt at block {failure.block} fails, on {failure.node}"
        assert nodes[failure.block] != failure.node
    assert sorted(nodes) == list(range(6))


def test_a_copy_goes_to_another_node_or_waits_for_one(cluster: TestCluster, tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.start({0: ["wait", "wait"]})
    with RayExecutor(prepare_scripted, str(tmp_path), address=cluster.address, resources=HALF_A_GPU) as executor:
        _joined(executor, 5)
        executor.submit(0)
        assert executor.submit_copy(0)
        wait_until(lambda: script.num_calls(0) == 2, "both copies are at work")
        hosts = [
            next((k for k, node in enumerate(cluster.nodes) if pid in worker_pids(node)), -1) for pid in script.pids(0)
        ]
        assert hosts[0] != hosts[1]
        script.open_gate()
        num_ended = 0
        while num_ended < 2:
            num_ended += len(executor.wait(0.1))
    with RayExecutor(prepare_scripted, str(tmp_path), address=cluster.address, num_workers=1) as executor:
        _joined(executor, 1)
        executor.submit(5)
        assert not executor.submit_copy(5), "nobody is free"


def test_a_node_where_workers_cannot_be_set_up_is_told_and_left_out(cluster: TestCluster, tmp_path: Path) -> None:
    bad = cluster.nodes[0]
    told: list[tuple[str, str]] = []
    nodes: dict[int, str] = {}
    with RayExecutor(
        partial(prepare_telling, bad.node_id),
        str(tmp_path),
        address=cluster.address,
        resources=HALF_A_GPU,
        on_setup_failure=lambda *failure: told.append(failure),
    ) as executor:
        report = run_blocks(range(30), executor, nodes.__setitem__, max_attempts=3)
        _joined(executor, 3)
        assert executor.num_workers == 3, "nobody is sent there again"
    assert sorted(report.committed) == list(range(30))
    assert [problem for _, problem in told] == ["ScriptedError: this node lacks something"] * 2
    assert {node for node, _ in told}.isdisjoint(nodes.values())
    assert all(bad.node_id[:8] in node for node, _ in told)


def test_no_more_workers_are_asked_for_than_memory_allows(cluster: TestCluster) -> None:
    resources = BlockResources(memory_bytes=int(0.6 * _memory_of_a_node(cluster.address)))
    with RayExecutor(prepare_scripted, "", address=cluster.address, resources=resources) as executor:
        assert executor.num_workers == 3, "one a node"


def _memory_of_a_node(address: str) -> float:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="error")
    try:
        return float(min(node["Resources"]["memory"] for node in ray.nodes() if node["Alive"]))
    finally:
        ray.shutdown()


SECRET = "c0mpletely-secret"


def needs_secret(dataset: Dataset, masks: Any, seeds: Any, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    """A learner that works in the right environment only, and on data that is memory-mapped."""
    if os.environ["FELDMAN_TEST_SECRET"] != SECRET or not isinstance(dataset.x_train, np.memmap):
        raise ScriptedError("this is another environment, or the data came another way")
    return nearest_centroid(dataset, masks, seeds, {})


def test_a_runtime_environment_reaches_the_workers_and_is_written_nowhere_and_files_are_shared(
    cluster: TestCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, array in small_arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    experiment = small_experiment(tmp_path).replace("execution", {"executor": "ray", "shared_files": True})
    experiment = experiment.replace("learner", {"name": f"{__name__}:needs_secret"})
    runtime_env = {"env_vars": {"FELDMAN_TEST_SECRET": SECRET}}
    summary = job.run(experiment, tmp_path / "run", address=cluster.address, runtime_env=runtime_env, speculate=True)
    assert summary.status.num_committed_trials == 40
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in "".join(capfd.readouterr())


def test_a_runtime_environment_that_ray_does_not_take_is_bad_input_and_not_repeated() -> None:
    with pytest.raises(InputError, match="does not take the runtime environment, which has env_vars") as raised:
        check_runtime_env({"env_vars": {"FELDMAN_TEST_SECRET": [SECRET]}}, None)
    assert SECRET not in str(raised.value)


def test_after_a_node_is_killed_its_blocks_begin_again_elsewhere(
    cluster: TestCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script(tmp_path)
    script.start({block: ["wait"] * 9 for block in range(4)})
    with RayExecutor(prepare_scripted, str(tmp_path), address=cluster.address, resources=HALF_A_GPU) as executor:
        _joined(executor, 5)
        for block in range(4):
            executor.submit(block)
        wait_until(lambda: script.num_running() == 4, "four of five workers are at a block")
        victim = max(cluster.nodes, key=lambda node: len(_blocks_on(script, node)))
        lost = _blocks_on(script, victim)
        assert len(lost) == 2
        cluster.kill(victim)
        killed = time.monotonic()
        again: list[int] = []
        while not any(script.num_calls(block) == 2 for block in lost):
            assert time.monotonic() < killed + 60
            again += [outcome.block for outcome in executor.wait(0.1) if outcome.lost]
            if again and executor.num_free:
                executor.submit(again.pop())
        seconds = time.monotonic() - killed
        script.open_gate()
    with capsys.disabled():
        print(
            f"\na node is killed: the first of its blocks begins elsewhere after {seconds:.2f} s (Ray's own retry: 13 s)"
        )


def _blocks_on(script: Script, node: Any) -> list[int]:
    pids = worker_pids(node)
    return [block for block in range(4) if script.pids(block)[-1] in pids]
