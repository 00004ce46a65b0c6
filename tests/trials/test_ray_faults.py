from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from feldman.trials.executor import InProcessExecutor
from feldman.trials.loop import run_blocks
from feldman.trials.ray_executor import RayExecutor
from tests.trials.scripts import Script, prepare_scripted

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Script:
    return Script(tmp_path_factory.mktemp("script"))


@pytest.fixture(scope="module")
def executor(script: Script, ray_address: str) -> Iterator[RayExecutor]:
    with RayExecutor(prepare_scripted, str(script.folder), address=ray_address) as made:
        yield made


def _run(executor: Any, script: Script, actions: dict[int, list[str]]) -> tuple[dict[int, bytes], list[str]]:
    script.start(actions)
    results: dict[int, bytes] = {}
    errors: list[str] = []
    report = run_blocks(
        range(6),
        executor,
        lambda block, result: results.__setitem__(block, result["bits"].tobytes()),
        max_attempts=3,
        on_failure=lambda outcome, attempt: errors.append(str(outcome.error)),
    )
    assert report.set_aside == {}
    assert sorted(report.committed) == list(range(6))
    return results, errors


def _expected(script: Script) -> dict[int, bytes]:
    with InProcessExecutor(prepare_scripted, str(script.folder)) as executor:
        return _run(executor, script, {})[0]


def test_a_worker_killed_in_mid_block_costs_one_attempt_and_nothing_else(executor: RayExecutor, script: Script) -> None:
    expected = _expected(script)
    results, errors = _run(executor, script, {1: ["die"], 4: ["die", "die"]})
    assert results == expected
    assert len(errors) == 3
    assert all(error.split(":")[0].endswith("Error") for error in errors), errors
    assert [script.num_calls(block) for block in range(6)] == [1, 2, 1, 1, 3, 1]


def test_a_worker_killed_while_idle_is_replaced(executor: RayExecutor, script: Script) -> None:
    expected = _expected(script)
    _run(executor, script, {})
    workers = {pid for block in range(6) for pid in script.pids(block)}
    assert os.getpid() not in workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
    results, _ = _run(executor, script, {})
    assert results == expected
    assert not workers & {pid for block in range(6) for pid in script.pids(block)}


def test_a_worker_that_always_dies_sets_its_block_aside(executor: RayExecutor, script: Script) -> None:
    script.start({1: ["die"] * 99})
    report = run_blocks(range(4), executor, lambda block, result: None, max_attempts=2)
    assert sorted(report.committed) == [0, 2, 3]
    assert list(report.set_aside) == [1]
    assert script.num_calls(1) == 2
