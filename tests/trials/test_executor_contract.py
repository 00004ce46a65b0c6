from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from feldman.trials.executor import BlockOutcome, InProcessExecutor, ReusableExecutor, Task, ThreadExecutor
from feldman.trials.loop import LoopReport, run_blocks
from feldman.trials.ray_executor import RayExecutor
from tests.runs import wait_until
from tests.trials.scripts import Script, prepare_scripted, prepare_squares

Prepare = Callable[[Any], Task]
Make = Callable[[Prepare, Any], ReusableExecutor]
KINDS = ["in-process", "threads", pytest.param("ray", marks=pytest.mark.ray)]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An executor that plays scripts."""

    executor: ReusableExecutor
    script: Script

    def run(
        self, blocks: Sequence[int], actions: dict[int, list[str]], **options: Any
    ) -> tuple[LoopReport, dict[int, Any]]:
        """Play a script through the run loop; return its report and what was committed."""
        self.script.start(actions)
        results: dict[int, Any] = {}

        def commit(block: int, result: Any) -> None:
            assert block not in results, f"block {block} is committed twice"
            results[block] = result

        report = run_blocks(blocks, self.executor, commit, **{"max_attempts": 3, **options})
        return report, results

    def outcomes(self, number: int) -> list[BlockOutcome]:
        """Wait for so many outcomes."""
        found: list[BlockOutcome] = []

        def all_there() -> bool:
            found.extend(self.executor.wait(0.2))
            return len(found) >= number

        wait_until(all_there, f"{number} outcomes arrive")
        return found

    def fill(self, blocks: Sequence[int]) -> list[int]:
        """Submit blocks while the executor takes them."""
        wait_until(lambda: self.executor.wait(0.1) or self.executor.num_free == self.executor.num_workers, "all joined")
        submitted = []
        for block in blocks:
            if self.executor.num_free == 0:
                break
            self.executor.submit(block)
            submitted.append(block)
        return submitted


@pytest.fixture(scope="module", params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "in-process":
        return InProcessExecutor
    if request.param == "threads":
        return lambda prepare, shared: ThreadExecutor(prepare, shared, num_workers=2)
    address = request.getfixturevalue("ray_address")
    return lambda prepare, shared: RayExecutor(prepare, shared, address=address)


@pytest.fixture(scope="module")
def stage(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    script = Script(tmp_path_factory.mktemp("script"))
    with make(prepare_scripted, str(script.folder)) as executor:
        yield Stage(executor=executor, script=script)


def test_an_executor_is_one_by_the_protocol(stage: Stage) -> None:
    assert isinstance(stage.executor, ReusableExecutor)
    assert stage.executor.num_workers >= 1


def test_results_are_those_of_calling_the_task(stage: Stage) -> None:
    report, results = stage.run(range(12), {})
    task = prepare_scripted(str(stage.script.folder))
    assert sorted(report.committed) == list(range(12))
    for block in range(12):
        assert results[block]["block"] == block
        assert np.array_equal(results[block]["bits"], task(block)["bits"])
        assert stage.script.num_calls(block) == 2  # this one and the executor's


def test_after_a_change_of_task_every_worker_runs_the_new_one(stage: Stage) -> None:
    stage.run(range(4), {})
    try:
        stage.executor.change_task(prepare_scripted)  # of two in a row the later one counts
        stage.executor.change_task(prepare_squares)
        assert stage.run(range(9), {})[1] == {block: block**2 for block in range(9)}
    finally:
        stage.executor.change_task(prepare_scripted)
    assert stage.run(range(4), {})[1].keys() == set(range(4))


def test_every_submitted_block_yields_exactly_one_outcome(stage: Stage) -> None:
    stage.script.start({1: ["fail"], 3: ["fail"]})
    waiting = list(range(8))
    blocks: list[int] = []
    while len(blocks) < 8:
        submitted = stage.fill(waiting)
        waiting = waiting[len(submitted) :]
        blocks += [outcome.block for outcome in stage.outcomes(len(submitted))]
    assert sorted(blocks) == list(range(8))
    assert list(stage.executor.wait(0.05)) == []
    assert [stage.script.num_calls(block) for block in range(8)] == [1] * 8


def test_an_error_comes_back_as_an_outcome_that_names_the_exception(stage: Stage) -> None:
    stage.script.start({5: ["fail"]})
    stage.fill([5])
    (outcome,) = stage.outcomes(1)
    assert (outcome.block, outcome.error) == (5, "ScriptedError: block 5 fails as scripted")
    assert not outcome.lost


def test_an_error_that_cannot_be_sent_is_named_all_the_same(stage: Stage) -> None:
    stage.script.start({5: ["fail-oddly"]})
    stage.fill([5])
    (outcome,) = stage.outcomes(1)
    assert outcome.error is not None
    assert "UnsendableError" in outcome.error
    assert "block 5 fails as scripted" in outcome.error


def test_num_free_bounds_what_is_in_flight(stage: Stage) -> None:
    workers = stage.executor.num_workers
    gated = workers > 1  # in this process nobody could open the gate
    stage.script.start({block: ["wait"] for block in range(9)} if gated else {})
    assert stage.fill(range(9)) == list(range(workers))
    assert stage.executor.num_free == 0
    if gated:
        wait_until(lambda: stage.script.num_running() == workers, "every worker is at its block")
        assert list(stage.executor.wait(0.05)) == []
        assert stage.script.num_running() == workers
        stage.script.open_gate()
    assert len(stage.outcomes(workers)) == workers
    assert stage.executor.num_free == workers


def test_waiting_for_nothing_returns_nothing(stage: Stage) -> None:
    stage.fill([])
    assert list(stage.executor.wait(0.01)) == []


@pytest.mark.parametrize("failures", [1, 2])
def test_a_block_that_fails_is_handed_out_until_it_succeeds(stage: Stage, failures: int) -> None:
    told: list[tuple[int, int, str]] = []
    report, results = stage.run(
        range(5),
        {2: ["fail"] * failures},
        on_failure=lambda outcome, attempt: told.append((outcome.block, attempt, str(outcome.error))),
    )
    assert sorted(results) == list(range(5))
    assert report.set_aside == {}
    assert not report.stopped
    assert [stage.script.num_calls(block) for block in range(5)] == [1, 1, 1 + failures, 1, 1]
    assert told == [(2, attempt, "ScriptedError: block 2 fails as scripted") for attempt in range(1, failures + 1)]


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_block_that_always_fails_is_set_aside_and_the_others_go_on(stage: Stage, max_attempts: int) -> None:
    report, results = stage.run(range(6), {0: ["fail"] * 99, 4: ["fail"] * 99}, max_attempts=max_attempts)
    assert sorted(results) == [1, 2, 3, 5]
    assert report.set_aside == {block: f"ScriptedError: block {block} fails as scripted" for block in (0, 4)}
    assert not report.stopped
    assert [stage.script.num_calls(block) for block in range(6)] == [max_attempts, 1, 1, 1, max_attempts, 1]


def test_when_nothing_succeeds_the_rest_is_not_tried(stage: Stage) -> None:
    report, results = stage.run(range(50), {block: ["fail"] * 99 for block in range(50)}, max_attempts=1)
    assert results == {}
    assert report.stopped
    calls = [stage.script.num_calls(block) for block in range(50)]
    assert 3 <= sum(calls) <= 3 + 2 * stage.executor.num_workers
    assert len(report.set_aside) == sum(calls)


def test_after_a_stop_nothing_more_is_handed_out_and_what_is_in_flight_is_committed(stage: Stage) -> None:
    stopping = False

    def should_stop() -> bool:
        return stopping

    def stop(outcome: BlockOutcome, attempt: int) -> None:
        nonlocal stopping
        stopping = True

    report, results = stage.run(range(30), {0: ["fail"]}, should_stop=should_stop, on_failure=stop)
    calls = [stage.script.num_calls(block) for block in range(30)]
    assert report.stopped
    assert set(results) == {block for block in range(30) if calls[block]} - {0}
    assert calls[0] == 1, "the failed block is not handed out again"
    assert sum(calls) <= 2 + 2 * stage.executor.num_workers
    assert stage.executor.num_free == stage.executor.num_workers
