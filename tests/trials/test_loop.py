from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman.errors import StorageError
from feldman.trials.executor import BlockOutcome, Executor
from feldman.trials.loop import run_blocks
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, prepare_block_task
from tests.conftest import small_dataset, small_experiment


class FakeExecutor:
    """Ends attempts in any order, some late, some with an error."""

    def __init__(self, chance: random.Random, num_workers: int, failures: dict[int, int]) -> None:
        self.num_workers = num_workers
        self.chance, self.failures = chance, failures
        self.in_flight: list[int] = []
        self.submitted: Counter[int] = Counter()
        self.most_in_flight = 0
        self.idle_polls = 0
        self.answers = True

    @property
    def num_free(self) -> int:
        return self.num_workers - len(self.in_flight)

    def submit(self, block: int) -> None:
        assert block not in self.in_flight, f"block {block} is in flight twice"
        assert self.num_free > 0
        self.in_flight.append(block)
        self.submitted[block] += 1
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        assert timeout_seconds >= 0
        self.idle_polls += not self.in_flight
        ended = self.chance.sample(self.in_flight, self.chance.randint(0, len(self.in_flight))) if self.answers else []
        self.in_flight = [block for block in self.in_flight if block not in ended]
        return [self._outcome(block) for block in ended]

    def _outcome(self, block: int) -> BlockOutcome:
        attempt = self.submitted[block]
        if attempt <= self.failures.get(block, 0):
            return BlockOutcome(block=block, error=f"attempt {attempt} of block {block}")
        return BlockOutcome(block=block, result=f"result of {block}")

    def __enter__(self) -> FakeExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None


chances = st.randoms(use_true_random=False)
block_lists = st.lists(st.integers(0, 50), unique=True, max_size=20)
failure_counts = st.dictionaries(st.integers(0, 50), st.integers(1, 5), max_size=10)


def test_the_fake_is_an_executor() -> None:
    assert isinstance(FakeExecutor(random.Random(0), 1, {}), Executor)


@given(chances, block_lists, failure_counts, st.integers(1, 6), st.integers(1, 4))
def test_every_block_is_committed_exactly_once_or_set_aside(
    chance: random.Random, blocks: list[int], failures: dict[int, int], num_workers: int, max_attempts: int
) -> None:
    executor = FakeExecutor(chance, num_workers, failures)
    committed: list[tuple[int, Any]] = []
    told: list[tuple[int, int, str]] = []
    report = run_blocks(
        blocks,
        executor,
        lambda block, result: committed.append((block, result)),
        max_attempts=max_attempts,
        on_failure=lambda *failure: told.append(failure),
    )
    assert [block for block, _ in committed] == report.committed
    assert all(result == f"result of {block}" for block, result in committed)
    assert len(set(report.committed)) == len(report.committed)
    assert not set(report.committed) & set(report.set_aside)
    hopeless = {block for block in blocks if failures.get(block, 0) >= max_attempts}
    if report.stopped:
        assert len(report.set_aside) >= 3
        assert set(report.set_aside) <= hopeless
    else:
        assert set(report.set_aside) == hopeless
        assert set(report.committed) == set(blocks) - hopeless
    for block, attempts in executor.submitted.items():
        assert attempts <= max_attempts
        if block in report.committed:
            assert attempts == failures.get(block, 0) + 1
    assert Counter(block for block, _, _ in told) == Counter(
        {block: min(executor.submitted[block], failures[block]) for block in failures if executor.submitted[block]}
    )
    assert all(report.set_aside[block] == f"attempt {max_attempts} of block {block}" for block in report.set_aside)
    assert executor.in_flight == []
    assert executor.most_in_flight <= num_workers


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 30), st.booleans())
def test_once_a_commit_says_enough_nothing_is_committed_or_waited_for(
    seed: int, num_workers: int, num_wanted: int, fails: bool
) -> None:
    executor = FakeExecutor(random.Random(seed), num_workers, {5: 9} if fails else {})
    committed: list[int] = []

    def commit(block: int, result: str) -> bool:
        committed.append(block)
        executor.answers = len(committed) < num_wanted  # what is in flight then never comes back
        return not executor.answers

    report = run_blocks(
        range(50),
        executor,
        commit,
        max_attempts=2,
        on_failure=lambda block, attempt, error: attempt == 2,
        grace_polls=10**9,
    )
    assert (report.enough, report.stopped, report.hopeless) == (True, False, False)
    assert report.committed == committed
    assert len(committed) == num_wanted or (set(report.set_aside) == {5} and len(committed) < num_wanted)


@given(chances, st.integers(1, 6), st.integers(0, 30), failure_counts)
def test_after_a_stop_nothing_is_handed_out_and_what_is_in_flight_is_settled(
    chance: random.Random, num_workers: int, stop_at: int, failures: dict[int, int]
) -> None:
    executor = FakeExecutor(chance, num_workers, failures)
    polls = 0
    at_stop: Counter[int] = Counter()

    def should_stop() -> bool:
        nonlocal polls
        polls += 1
        if polls == stop_at:
            at_stop.update(executor.submitted)
        return polls >= stop_at

    report = run_blocks(
        range(100), executor, lambda block, result: None, max_attempts=3, should_stop=should_stop, grace_polls=10_000
    )
    assert report.stopped
    if polls == stop_at:
        assert executor.submitted == at_stop
    assert executor.in_flight == []
    settled = set(report.committed) | set(report.set_aside)
    assert settled == {block for block, times in executor.submitted.items() if times > min(failures.get(block, 0), 2)}


def test_after_a_stop_a_block_that_does_not_end_is_waited_for_only_so_long() -> None:
    executor = FakeExecutor(random.Random(0), 2, {})
    executor.answers = False
    stops = iter([False, False, True])
    report = run_blocks(
        range(5), executor, lambda block, result: None, max_attempts=3, should_stop=lambda: next(stops), grace_polls=7
    )
    assert report.stopped
    assert report.committed == []
    assert executor.in_flight == [0, 1]


def test_no_blocks_means_no_work() -> None:
    executor = FakeExecutor(random.Random(0), 2, {})
    report = run_blocks([], executor, lambda block, result: None, max_attempts=3)
    assert (report.committed, report.set_aside, report.stopped) == ([], {}, False)
    assert executor.idle_polls == 0


def test_blocks_are_handed_out_in_their_order_and_failed_ones_after_the_others() -> None:
    order: list[int] = []

    class Noting(FakeExecutor):
        def submit(self, block: int) -> None:
            order.append(block)
            super().submit(block)

    run_blocks([3, 1, 2], Noting(random.Random(0), 1, {3: 2}), lambda block, result: None, max_attempts=3)
    assert order == [3, 1, 2, 3, 3]


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_no_worker_waits_for_a_commit_and_results_do_not_pile_up(seed: int, num_workers: int) -> None:
    executor = FakeExecutor(random.Random(seed), num_workers, {})
    committed: list[int] = []

    def commit(block: int, result: Any) -> None:
        handed_out = sum(executor.submitted.values())
        unsettled = handed_out - len(committed)
        assert unsettled <= 2 * num_workers
        if handed_out < 60 and unsettled - len(executor.in_flight) <= num_workers:
            assert executor.num_free == 0
        committed.append(block)

    run_blocks(range(60), executor, commit, max_attempts=1)
    assert len(committed) == 60


def test_a_commit_that_fails_ends_the_loop_at_once() -> None:
    executor = FakeExecutor(random.Random(0), 1, {})

    def commit(block: int, result: Any) -> None:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        run_blocks(range(5), executor, commit, max_attempts=3)
    assert sum(executor.submitted.values()) == 2, "the worker had its next block before the commit"


def test_three_hopeless_blocks_stop_the_run_only_while_nothing_has_succeeded() -> None:
    always = dict.fromkeys(range(50), 99)
    nothing = run_blocks(range(50), FakeExecutor(random.Random(0), 1, always), lambda *_: None, max_attempts=1)
    assert nothing.stopped
    assert sorted(nothing.set_aside) == [0, 1, 2]
    del always[0]
    one = run_blocks(range(50), FakeExecutor(random.Random(0), 1, always), lambda *_: None, max_attempts=1)
    assert not one.stopped
    assert one.committed == [0]
    assert sorted(one.set_aside) == list(range(1, 50))


def test_the_order_of_arrival_does_not_change_what_is_stored(tmp_path: Path) -> None:
    dataset, experiment = small_dataset(), small_experiment(tmp_path / "data.npz")
    task = prepare_block_task(experiment, (), dataset)

    class Training(FakeExecutor):
        def _outcome(self, block: int) -> BlockOutcome:
            outcome = super()._outcome(block)
            return outcome if outcome.error else BlockOutcome(block=block, result=task(block))

    def stored(name: str, executor: FakeExecutor) -> dict[str, bytes]:
        store = TrialStore.create(tmp_path / name, experiment, dataset)

        def commit(block: int, result: BlockResult) -> None:
            assert block == result.block
            store.commit_block(result)

        report = run_blocks(range(5), executor, commit, max_attempts=3)
        assert sorted(report.committed) == list(range(5))
        files = (path for path in store.path.rglob("*") if path.is_file() and "train_seconds/c" not in path.as_posix())
        return {path.relative_to(store.path).as_posix(): path.read_bytes() for path in files}

    reference = stored("in order", Training(random.Random(0), 1, {}))
    for seed in range(5):
        shuffled = stored(f"shuffled {seed}", Training(random.Random(seed), 4, {1: 1, 3: 2}))
        assert shuffled == reference
