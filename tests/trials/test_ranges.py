"""A run that trains a range of the plan's trials: what it trains, what it says, how it may grow."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman import job
from feldman.errors import InputError, InterruptedRunError
from feldman.experiment import Experiment
from feldman.experiment_files import load_experiment
from feldman.results.run import RunStatus, open_run
from feldman.trials.events import EventLog, read_events
from feldman.trials.ranges import continued, planned
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress, prepared_store
from feldman.trials.store import TrialStore
from tests.conftest import small_dataset
from tests.runs import assert_same_run, calls_of, event_names, finish, write_experiment
from tests.trials.stores import CrashError, crash_at_write, experiment_of, work


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An experiment of 44 trials in six blocks of 8, the last one short."""
    write_experiment(tmp_path, num_trials=44)
    return tmp_path


def _ranged(home: Path, first: int, end: int, *overrides: str, run: str = "run") -> Path:
    return finish(home / "experiment.toml", home / run, f"execution.trials=[{first}, {end}]", *overrides)


def _committed(run: Path) -> list[int]:
    return TrialStore.open(run / "trials.zarr").committed_blocks()


def _status(run: Path) -> RunStatus:
    return open_run(run).status()


def _with_range(num_trials: int, block_size: int, trials: tuple[int, int] | None) -> Experiment:
    return experiment_of(num_trials, block_size).replace("execution", {"trials": trials})


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 60), st.integers(1, 60))
def test_a_range_is_taken_if_it_is_made_of_whole_blocks_and_else_refused_with_ranges_that_are_taken(
    num_trials: int, block_size: int, first: int, length: int
) -> None:
    end = first + length
    given_ = _with_range(num_trials, block_size, (first, end))
    plan = range(max(num_trials, end))
    whole = [plan[start : start + block_size] for start in plan[::block_size]]
    if first in {block.start for block in whole} and end in {block.stop for block in whole}:
        taken = planned(given_)
        assert taken == given_.replace("subsets", {"num_trials": len(plan)})
        assert planned(taken) == taken
        assert [trial for block in taken.trained_blocks for trial in taken.subsets.block_trials(block)] == list(
            range(first, end)
        )
        return
    with pytest.raises(InputError, match=f"trials {first}:{end} cut through a block of {block_size} trials") as caught:
        planned(given_)
    advice = [
        [int(text) for text in found.split(" or ")] for found in re.findall(r"nearest: ([^)]+)\)", str(caught.value))
    ]
    firsts = advice[0] if "the first trial" in str(caught.value) else [first]
    ends = advice[-1] if "the end must" in str(caught.value) else [end]
    for one in firsts:
        for other in ends:
            if one < other:
                better = experiment_of(len(plan), block_size).replace("execution", {"trials": (one, other)})
                assert planned(better).trained_trials == range(one, other)


@given(st.data())
def test_a_run_only_grows_and_never_forgets_a_trial_that_it_was_to_train(data: st.DataObject) -> None:
    block_size = data.draw(st.integers(1, 8))

    def experiment() -> Experiment:
        num_trials = data.draw(st.integers(1, 40))
        bounds = st.tuples(st.integers(0, 40), st.integers(1, 40)).map(lambda pair: (pair[0], sum(pair)))
        return _with_range(num_trials, block_size, data.draw(st.none() | bounds))

    try:
        kept = planned(experiment())
        later = continued(kept, experiment(), Path("run"))
    except InputError:
        return
    assert later.subsets.num_trials >= kept.subsets.num_trials
    assert set(kept.trained_trials) <= set(later.trained_trials) <= set(range(later.subsets.num_trials))
    assert planned(later) == later
    assert continued(later, later, Path("run")) == later
    if kept.trained_trials.stop == kept.subsets.num_trials and later.execution.trials is None:
        assert later.trained_trials.stop == later.subsets.num_trials


def test_a_run_trains_its_range_and_is_complete_then(home: Path) -> None:
    run = _ranged(home, 16, 32)
    assert _committed(run) == [2, 3]
    assert calls_of(home / "calls.txt") == 2
    status = _status(run)
    assert (status.trials, status.num_trials, status.num_blocks) == ((16, 32), 44, 6)
    assert (status.num_committed_in_range, status.num_committed_trials, status.complete) == (16, 16, True)
    assert "run_finished" in event_names(run)
    assert read_events(run / "events.jsonl")[0]["trials"] == [16, 32]
    assert open_run(run).memorization()["num_in"].to_pylist()[0] <= 16


def test_a_range_has_the_bits_that_a_whole_run_has_for_these_trials(home: Path) -> None:
    whole, part = finish(home / "experiment.toml", home / "whole"), _ranged(home, 24, 44)
    stores = [TrialStore.open(run / "trials.zarr") for run in (whole, part)]
    for name in ("subset_mask", "train_correct", "test_correct", "trial_seed", "test_accuracy"):
        for block in (3, 4, 5):
            assert (stores[0].read(name, block) == stores[1].read(name, block)).all()


def test_resuming_trains_nothing_outside_the_range(home: Path) -> None:
    run = _ranged(home, 8, 24)
    TrialStore.open(run / "trials.zarr").withdraw_block(2)
    assert not _status(run).complete
    summary = job.resume(run)
    assert (summary.status.complete, _committed(run)) == (True, [1, 2])
    assert calls_of(home / "calls.txt") == 3
    job.resume(run)
    assert calls_of(home / "calls.txt") == 3


def test_running_again_without_a_range_keeps_the_one_of_the_run(home: Path) -> None:
    run = _ranged(home, 8, 24)
    finish(home / "experiment.toml", run)
    assert (_status(run).trials, _committed(run)) == ((8, 24), [1, 2])


def test_a_range_beyond_the_plan_makes_the_plan_longer(home: Path) -> None:
    run = _ranged(home, 40, 51)
    status = _status(run)
    assert (status.num_trials, status.trials, status.num_committed_trials) == (51, (40, 51), 11)


def test_a_range_that_holds_the_runs_own_takes_its_place(home: Path) -> None:
    run = _ranged(home, 8, 24)
    _ranged(home, 0, 24)
    _ranged(home, 0, 32)
    assert (_status(run).trials, _committed(run)) == ((0, 32), [0, 1, 2, 3])
    grown = [event for event in read_events(run / "events.jsonl") if event["event"] == "range_grown"]
    assert [(event["from"], event["to"]) for event in grown] == [([8, 24], [0, 24]), ([0, 24], [0, 32])]
    _ranged(home, 0, 60)
    assert_same_run(run, finish(home / "experiment.toml", home / "whole", "subsets.num_trials=60"))


@pytest.mark.parametrize(("first", "end"), [(8, 16), (24, 44), (16, 44), (0, 8)])
def test_a_range_that_would_lose_trials_is_refused_with_what_to_do(home: Path, first: int, end: int) -> None:
    run = _ranged(home, 8, 24)
    with pytest.raises(InputError, match="a range only grows") as caught:
        _ranged(home, first, end)
    assert str(caught.value) == (
        f"'{run}' trains trials 8:24, and a range only grows; found {first}:{end}. Choose one that holds 8:24, or train the "
        "others in another run directory: `feldman merge` joins them"
    )
    assert _status(run).trials == (8, 24)


def test_a_range_for_a_run_of_the_whole_plan_is_refused_unless_it_is_all_of_it(home: Path) -> None:
    run = finish(home / "experiment.toml", home / "run")
    with pytest.raises(InputError, match=r"trains trials 0:44, and a range only grows; found 0:24"):
        _ranged(home, 0, 24)
    _ranged(home, 0, 44)
    assert not _status(run).has_range


def test_the_end_of_a_range_moves_with_the_end_of_the_plan_if_it_is_there(home: Path) -> None:
    run = _ranged(home, 24, 44)
    summary = job.resume(run, num_trials=60)
    assert (summary.status.trials, summary.status.complete) == ((24, 60), True)
    assert _committed(run) == [3, 4, 5, 6, 7]
    finish(home / "experiment.toml", run, "subsets.num_trials=64")
    assert _status(run).trials == (24, 64)


def test_a_range_that_ends_before_the_plan_does_not_grow_with_it(home: Path) -> None:
    run = _ranged(home, 8, 24)
    for grow in (
        lambda: job.resume(run, num_trials=60),
        lambda: finish(home / "experiment.toml", run, "subsets.num_trials=60"),
    ):
        with pytest.raises(InputError, match="does not grow") as caught:
            grow()
        assert str(caught.value) == (
            f"'{run}' trains trials 8:24 of 44: a range that ends before the plan does not grow with it, to 60; say which "
            f"trials to train, as in `feldman run EXPERIMENT -o {run} --trials 8:60`"
        )
    assert job.resume(run, num_trials=44).status.trials == (8, 24)
    assert _ranged(home, 8, 60) == run
    assert (_status(run).num_trials, _status(run).complete) == (60, True)


def test_the_blocks_of_a_range_are_those_of_the_run(home: Path) -> None:
    run = _ranged(home, 8, 24)
    with pytest.raises(InputError, match=r"trials 0:25 cut through a block of 8 trials: .*\(nearest: 24 or 32\)"):
        _ranged(home, 0, 25, "subsets.block_size=5")
    _ranged(home, 0, 32, "subsets.block_size=5")
    assert _committed(run) == [0, 1, 2, 3]


def test_progress_counts_the_trials_of_the_range(home: Path) -> None:
    told: list[Progress] = []
    experiment = load_experiment(home / "experiment.toml", ["execution.trials=[8, 24]"])
    job.run(experiment, home / "run", on_progress=told.append)
    assert [(found.done, found.total) for found in told if found.stage == "training"] == [(0, 16), (8, 16), (16, 16)]


def test_an_interrupted_range_says_how_much_of_it_is_safe(home: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "training" and progress.done:
            raise KeyboardInterrupt

    experiment = load_experiment(home / "experiment.toml", ["execution.trials=[8, 24]"])
    with pytest.raises(InterruptedRunError) as caught:
        job.run(experiment, home / "run", on_progress=interrupt)
    assert str(caught.value) == (
        "interrupted; 8 of 16 trials of the range 8:24 are safe. Go on with: " + f"feldman resume {home / 'run'}"
    )


def test_a_store_made_before_there_were_ranges_has_none(home: Path) -> None:
    run = finish(home / "experiment.toml", home / "run")
    file = run / "trials.zarr" / "zarr.json"
    document = json.loads(file.read_text())
    del document["attributes"]["experiment"]["execution"]["trials"]
    file.write_text(json.dumps(document))
    assert _status(run).trials == (0, 44)
    assert job.resume(run, num_trials=48).status.complete


def test_a_crash_at_any_write_of_a_growth_leaves_plan_and_range_of_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(run: Path) -> None:
        paths = run_paths(run)
        events = EventLog(paths.events)
        try:
            later = experiment_of(52).replace("execution", {"trials": (0, 52)})
            prepared_store(paths, later, small_dataset(), events, lambda progress: None)
        finally:
            events.close()

    base = tmp_path / "base"
    work(base, 20)
    store = TrialStore.open(base / "trials.zarr")
    store.record_circumstances(store.experiment.replace("execution", {"trials": (0, 20)}))
    with crash_at_write(monkeypatch, 10**6) as written:
        grow(shutil.copytree(base, tmp_path / "counted"))
    assert len(written) >= 9
    for number in range(len(written)):
        run = shutil.copytree(base, tmp_path / str(number))
        with crash_at_write(monkeypatch, number), pytest.raises(CrashError):
            grow(run)
        found = TrialStore.open(run / "trials.zarr").experiment
        assert (found.subsets.num_trials, found.execution.trials) in [(20, (0, 20)), (52, (0, 52))]
        grow(run)
        assert TrialStore.open(run / "trials.zarr").experiment.trained_trials == range(52)
