"""A run that stops by its rule is the run that was planned with so many trials, whatever the order in which blocks arrive."""

from __future__ import annotations

import math
import shutil
import tempfile
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman import job
from feldman.errors import CorruptStoreError, InputError, TrialsFailedError
from feldman.estimates.bits import take_trials
from feldman.estimates.memorization import MemorizationCounts, count_memorization
from feldman.results.run import open_run
from feldman.studies.stability import StabilityPlan, measure_stability, stability_summary
from feldman.studies.stopping import StoppingWatch, halves_agreement, next_look, reached_stderr
from feldman.trials.events import EventLog, read_events
from feldman.trials.rundir import run_paths
from feldman.trials.session import pending_blocks, prepared_store
from feldman.trials.stopping import StoppingRecord, StoppingRule
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, pack_bits, subset_accuracy, unpack_bits
from tests.benchmarks.planted import planted_learner
from tests.conftest import small_dataset
from tests.runs import assert_same_run, calls_of, finish, write_experiment
from tests.trials.stores import CrashError, crash_at_write, experiment_of, result_of, stored_files

LIMIT = 120
ERRORS = StoppingRule(stderr=0.15)
AGREEMENT = StoppingRule(jaccard=0.16)  # so few trials select many pairs by chance


@cache
def planted_result(block: int) -> BlockResult:
    """A block of a learner that memorizes every second example, more or less, and the test example of its number with it."""
    result = result_of(LIMIT, block)
    mask = unpack_bits(result.subset_mask, 60)
    rng = np.random.default_rng(block)
    rate = np.where(mask, 0.95, np.where(np.arange(60) % 2 == 0, 0.9, np.linspace(0, 0.9, 60)))
    train, test = (rng.random(mask.shape) < rate for _ in range(2))
    test = test[:, :30]
    return replace(
        result,
        train_correct=pack_bits(train),
        test_correct=pack_bits(test),
        train_accuracy=subset_accuracy(mask, train),
        test_accuracy=test.mean(axis=1).astype(np.float32),
    )


def watched(run: Path, rule: StoppingRule | None, order: list[int], most: int | None = None) -> TrialStore:
    """What `feldman run` does to a store, blocks arriving in some order; it is interrupted after ``most``."""
    paths = run_paths(run)
    run.mkdir(exist_ok=True)
    with closing(EventLog(paths.events)) as events:
        store = prepared_store(paths, experiment_of(LIMIT), small_dataset(), events, lambda progress: None, until=rule)
        record = store.stopping
        if record is None or record.outcome is not None:
            return store
        watch = StoppingWatch(store, record, events, lambda progress: None)
        watch.start()
        pending = pending_blocks(store)
        for block in [block for block in order if block in pending][:most]:
            if watch.enough:
                break
            store.commit_block(planted_result(block))
            watch.committed(block)
    return store


def decision(store: TrialStore) -> StoppingRecord:
    record = TrialStore.open(store.path).stopping
    assert record is not None
    return record


@pytest.mark.parametrize("rule", [ERRORS, AGREEMENT])
def test_order_of_arrival_and_interruptions_change_neither_the_stop_nor_a_byte(rule: StoppingRule) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected = watched(Path(folder, "expected"), rule, list(range(15)))
        record, files = decision(expected), stored_files(expected.path)
        assert record.outcome == "met"
        assert len(record.looks) > 1
        assert record.looked_at < LIMIT - 8
        assert expected.committed_blocks() == list(range(record.looked_at // 8))

        @given(st.permutations(range(15)), st.lists(st.integers(0, 6), max_size=4))
        @settings(deadline=None, max_examples=8)
        def holds(order: list[int], parts: list[int]) -> None:
            with tempfile.TemporaryDirectory() as other:
                run = Path(other, "run")
                for most in parts:
                    watched(run, rule, order, most)
                store = watched(run, rule, order)
                assert decision(store) == record
                assert stored_files(store.path) == files

        holds()


def test_a_kill_at_any_write_of_a_stop_leaves_a_run_that_stops_at_the_same_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [0, 1, 5, 6, 2, 3, 4, *range(7, 15)]  # some that will be beyond the stop are there before it
    expected = watched(tmp_path / "expected", ERRORS, order)
    stop = decision(expected).looked_at // 8
    base = tmp_path / "base"
    watched(base, ERRORS, [*reversed(range(stop, 15)), *range(stop - 1)])
    assert decision(TrialStore.open(base / "trials.zarr")).outcome is None
    with crash_at_write(monkeypatch, 10**6) as written:
        watched(shutil.copytree(base, tmp_path / "counted"), None, [stop - 1])
    assert len(written) > 9
    for number in range(len(written)):
        run = shutil.copytree(base, tmp_path / str(number))
        with crash_at_write(monkeypatch, number), pytest.raises(CrashError):
            watched(run, None, [stop - 1])
        store = watched(run, None, order)
        assert decision(store) == decision(expected)
        assert stored_files(store.path) == stored_files(expected.path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_experiment(tmp_path, num_trials=LIMIT)
    return tmp_path


def run_until(home: Path, rule: StoppingRule | None, name: str = "run") -> job.RunSummary:
    return job.run(home / "experiment.toml", home / name, until=rule)


def test_a_stopped_run_is_the_run_of_so_many_trials_and_grows_into_a_longer_one(home: Path) -> None:
    status = run_until(home, ERRORS).status
    assert status.complete
    assert status.stopping is not None
    num_trials = status.num_trials
    assert (status.stopping.outcome, status.stopping.limit, status.stopping.looked_at) == ("met", LIMIT, num_trials)
    assert num_trials == status.num_committed_trials < LIMIT
    looked = [event["num_trials"] for event in read_events(home / "run" / "events.jsonl") if event["event"] == "looked"]
    assert looked == [look.num_trials for look in status.stopping.looks] == list(range(8, num_trials + 1, 8))
    finish(home / "experiment.toml", home / "plain", f"subsets.num_trials={num_trials}")
    assert_same_run(home / "run", home / "plain")

    calls = calls_of(home / "calls.txt")
    for again in (
        job.resume(home / "run"),
        run_until(home, None),
        run_until(home, ERRORS),
        job.resume(home / "run", num_trials=num_trials),
    ):
        assert again.status.stopping == status.stopping
        assert again.status.num_trials == num_trials
    assert calls_of(home / "calls.txt") == calls

    grown = job.resume(home / "run", num_trials=num_trials + 20).status
    assert (grown.num_committed_trials, grown.stopping) == (num_trials + 20, None)
    job.resume(home / "plain", num_trials=num_trials + 20)
    assert_same_run(home / "run", home / "plain")


def test_a_rule_takes_nothing_from_a_run_that_had_more_and_a_stricter_one_goes_on(home: Path) -> None:
    finish(home / "experiment.toml", home / "run", "subsets.num_trials=100")  # a short block at its end
    kept = job.resume(home / "run", until=StoppingRule(stderr=0.3)).status
    assert (kept.num_trials, kept.complete) == (100, True)
    assert kept.stopping is not None
    assert [look.num_trials for look in kept.stopping.looks] == [100]
    stricter = job.resume(home / "run", num_trials=300, until=StoppingRule(stderr=0.09)).status
    assert stricter.stopping is not None
    assert (stricter.stopping.outcome, stricter.stopping.from_trial) == ("met", 100)
    assert 100 < stricter.num_trials == stricter.stopping.looked_at < 300
    run_until(home, StoppingRule(stderr=0.09), "anew")  # to the end of its plan, in vain
    unmet = open_run(home / "anew").status()
    assert unmet.complete
    assert unmet.stopping is not None
    assert (unmet.stopping.outcome, unmet.num_trials) == ("limit", LIMIT)
    assert "not met" in unmet.stopping.in_words()
    longer = job.resume(home / "anew", num_trials=300, until=StoppingRule(stderr=0.09)).status
    assert longer.num_trials == stricter.num_trials
    assert_same_run(home / "anew", home / "run")


def test_a_block_that_never_succeeds_ends_a_run_with_a_rule_at_once(home: Path) -> None:
    path = home / "experiment.toml"
    path.write_text(path.read_text().replace("logged_centroid", "fails_in_one_block"))
    with pytest.raises(TrialsFailedError, match=r"1 block\(s\) failed 3 times each"):
        run_until(home, ERRORS)
    assert calls_of(home / "calls.txt") == 0  # the first block is tried again before others


def test_rules_that_no_run_could_keep_are_refused_and_nothing_is_written(home: Path) -> None:
    refused: list[dict[str, Any]] = [
        {},
        {"stderr": 0.1, "jaccard": 0.5},
        {"stderr": 0.0},
        {"jaccard": 1.0},
        {"stderr": math.nan},
    ]
    for given_ in refused:
        with pytest.raises(InputError, match=r"stops by one rule|to stop at lies between 0 and 1"):
            StoppingRule(**given_)
    path = home / "experiment.toml"
    path.write_text(path.read_text() + "trials = [0, 80]\n")
    with pytest.raises(InputError, match="a stopping rule looks at all trials from the first on"):
        run_until(home, ERRORS)
    assert not (home / "run").exists()
    with pytest.raises(CorruptStoreError, match="the attribute 'stopping' of the store cannot be read"):
        StoppingRecord.from_json({"rule": 3})


def test_what_a_rule_looks_at_is_what_tables_and_studies_say() -> None:
    bits = planted_learner().trials(200, 3)
    labels = np.zeros(60, np.int64), np.zeros(60, np.int64)
    plan = StabilityPlan(sizes=(100,))
    table = measure_stability(bits, labels, plan)
    means = [
        stability_summary(table, estimate, "halves", "jaccard")[0][1] for estimate in ("memorization", "influence")
    ]
    assert halves_agreement(bits, labels) == pytest.approx(min(means), abs=1e-12)
    # Errors: by hand, in the dense way, with and without two more trials a group; 95% of all, and of the memorized.
    counts = count_memorization(bits)
    errors, memorized = [], []
    for i in range(60):
        groups = [(counts.correct_in[i], counts.num_in[i])]
        groups.append((counts.correct[i] - groups[0][0], 200 - groups[0][1]))
        by_hand = [
            math.sqrt(sum((c + a) / (n + 2 * a) * (1 - (c + a) / (n + 2 * a)) / (n + 2 * a) for c, n in groups))
            for a in (0, 1)
        ]
        errors.append(max(by_hand))
        if groups[0][0] / groups[0][1] - groups[1][0] / groups[1][1] >= 0.25:
            memorized.append(max(by_hand))
    of_memorized = sorted(memorized)[math.ceil(0.95 * len(memorized)) - 1]
    assert reached_stderr(counts, 200) == pytest.approx(max(of_memorized, sorted(errors)[56]), abs=1e-12)
    # One memorized example among a hundred that are always right decides.
    right = np.full(101, 70), np.full(101, 70), np.append(np.full(100, 100), 85)
    tail = MemorizationCounts(num_in=right[0], correct_in=right[1], correct=right[2])
    assert reached_stderr(tail, 100) == pytest.approx(math.sqrt(0.25 / 30), rel=0.05)
    few = take_trials(bits, np.arange(1, dtype=np.int64))
    assert math.isnan(reached_stderr(count_memorization(few), 1))


def test_looks_are_at_every_block_at_first_and_then_ever_farther_apart() -> None:
    assert [next_look(ERRORS, last) for last in (0, 50, 5_000, 10_000)] == [1, 51, 5_050, 10_100]
    assert [next_look(AGREEMENT, last) for last in (0, 40, 50, 4_000)] == [40, 50, 63, 5_000]
    assert next_look(AGREEMENT, 0, from_trial=1_000) == 1_000
