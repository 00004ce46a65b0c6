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
from feldman.trials.flights import Flights
from feldman.trials.loop import LoopOptions, run_blocks
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
        self._begin(block)

    def submit_copy(self, block: int) -> bool:
        if self.chance.random() < 0.3:  # there is no place for it now
            return False
        assert self.in_flight.count(block) == 1, f"block {block} has {self.in_flight.count(block)} copies"
        self._begin(block)
        return True

    def _begin(self, block: int) -> None:
        assert self.num_free > 0
        self.in_flight.append(block)
        self.submitted[block] += 1
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        assert timeout_seconds >= 0
        self.idle_polls += not self.in_flight
        number = self.chance.randint(0, len(self.in_flight)) if self.answers else 0
        ended = [self.in_flight.pop(self.chance.randrange(len(self.in_flight))) for _ in range(number)]
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
        on_failure=lambda outcome, attempt: told.append((outcome.block, attempt, str(outcome.error))),
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
        on_failure=lambda outcome, attempt: attempt == 2,
        options=LoopOptions(grace_polls=10**9),
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
        range(100),
        executor,
        lambda block, result: None,
        max_attempts=3,
        should_stop=should_stop,
        options=LoopOptions(grace_polls=10_000),
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
        range(5),
        executor,
        lambda block, result: None,
        max_attempts=3,
        should_stop=lambda: next(stops),
        options=LoopOptions(grace_polls=7),
    )
    assert report.stopped
    assert report.committed == []
    assert executor.in_flight == [0, 1]


class Copying(FakeExecutor):
    """Fails or forgets attempts by chance, whichever copy they are."""

    def __init__(self, chance: random.Random, num_workers: int, failing: float) -> None:
        super().__init__(chance, num_workers, {})
        self.failing = failing
        self.results: Counter[int] = Counter()
        self.copies: Counter[int] = Counter()

    def submit_copy(self, block: int) -> bool:
        done = super().submit_copy(block)
        self.copies[block] += done
        return done

    def _outcome(self, block: int) -> BlockOutcome:
        if self.chance.random() < self.failing:
            return BlockOutcome(block=block, error="by chance", lost=self.chance.random() < 0.5)
        self.results[block] += 1
        return BlockOutcome(block=block, result=f"result of {block}")


@given(chances, block_lists, st.integers(1, 6), st.sampled_from([0.0, 0.3, 0.7]), st.integers(1, 4))
def test_with_speculation_every_block_is_committed_exactly_once_or_set_aside(
    chance: random.Random, blocks: list[int], num_workers: int, failing: float, max_attempts: int
) -> None:
    executor = Copying(chance, num_workers, failing)
    committed: list[int] = []
    attempts: Counter[int] = Counter()

    def failed(outcome: BlockOutcome, attempt: int) -> None:
        attempts[outcome.block] += 1
        assert attempts[outcome.block] == attempt
        assert outcome.block not in executor.in_flight or executor.results[outcome.block] == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feldman.trials.flights._STRAGGLES", 0.0)  # whatever is in flight takes long
        report = run_blocks(
            blocks,
            executor,
            lambda block, result: committed.append(block),
            max_attempts=max_attempts,
            on_failure=failed,
            options=LoopOptions(submit_copy=executor.submit_copy),
        )
    assert committed == report.committed
    assert len(set(committed)) == len(committed)
    assert not set(committed) & set(report.set_aside)
    if not report.stopped:
        assert set(committed) | set(report.set_aside) == set(blocks)
    assert all(executor.results[block] >= 1 for block in committed)
    assert set(report.set_aside) == {block for block, number in attempts.items() if number == max_attempts}
    assert Counter(report.speculated) == executor.copies
    assert executor.most_in_flight <= num_workers
    for block, number in executor.submitted.items():
        assert number - executor.copies[block] <= max_attempts, "handed out once an attempt"
        assert executor.copies[block] <= number - executor.copies[block], "and at most once more"


@given(chances, block_lists, st.integers(1, 6))
def test_without_speculation_nothing_is_handed_out_twice(
    chance: random.Random, blocks: list[int], num_workers: int
) -> None:
    executor = Copying(chance, num_workers, 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feldman.trials.flights._STRAGGLES", 0.0)
        report = run_blocks(blocks, executor, lambda block, result: None, max_attempts=1)
    assert report.speculated == []
    assert executor.submitted == Counter(blocks)


class Stuck(FakeExecutor):
    """Forgets the first attempt at some blocks until everything else is done."""

    def __init__(self, num_workers: int, stuck: set[int]) -> None:
        super().__init__(random.Random(0), num_workers, {})
        self.stuck = stuck

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        ended = [block for block in self.in_flight if block not in self.stuck or self.in_flight.count(block) > 1]
        for block in ended:
            self.in_flight.remove(block)  # one copy of each
        return [self._outcome(block) for block in dict.fromkeys(ended)]


def test_a_run_ends_without_the_copies_that_never_come_back() -> None:
    executor = Stuck(4, {3, 7})
    report = run_blocks(
        range(20),
        executor,
        lambda block, result: None,
        max_attempts=1,
        options=LoopOptions(submit_copy=executor.submit_copy),
    )
    assert sorted(report.committed) == list(range(20))
    assert sorted(report.speculated) == [3, 7]


def test_a_block_counts_as_slow_beside_the_median_of_those_that_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("feldman.trials.flights.time.monotonic", lambda: now)
    flights = Flights()
    for block in range(6):
        flights.begin(block)
    assert flights.stragglers() == [], "nothing is known yet"
    for block, when in ((0, 10.0), (1, 20.0), (2, 90.0)):
        now = when
        assert flights.end(BlockOutcome(block=block, result="its bits"))
    now = 29.9
    assert flights.stragglers() == []
    now = 30.0
    assert flights.stragglers() == [3, 4, 5]
    flights.add_copy(3)
    assert flights.stragglers() == [4, 5]
    assert not flights.end(BlockOutcome(block=3, error="one of two")), "the other copy is left"
    assert flights.stragglers() == [4, 5], "and there is no third one"
    assert flights.end(BlockOutcome(block=3, error="the other"))
    flights.begin(3)
    now = 70.0
    assert flights.stragglers() == [4, 5, 3], "a new attempt may have a copy again"


def test_blocks_that_were_lost_with_their_node_are_handed_out_first() -> None:
    order: list[int] = []

    class Losing(FakeExecutor):
        def submit(self, block: int) -> None:
            order.append(block)
            super().submit(block)

        def _outcome(self, block: int) -> BlockOutcome:
            outcome = super()._outcome(block)
            return BlockOutcome(block=block, error="gone", node="a", lost=True) if outcome.error else outcome

    run_blocks(range(6), Losing(random.Random(0), 1, {1: 2}), lambda block, result: None, max_attempts=3)
    assert order == [0, 1, 1, 1, 2, 3, 4, 5]


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
