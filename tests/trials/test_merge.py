"""Runs trained apart and merged: the bits of one run, in any order, or a refusal that leaves nothing behind."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import feldman
from feldman import job
from feldman.errors import (
    CorruptStoreError,
    FeldmanError,
    InputError,
    InterruptedRunError,
    RunDirectoryError,
    StoreBusyError,
    StoreMismatchError,
)
from feldman.experiment import Experiment
from feldman.experiment_files import load_experiment
from feldman.merge_job import merge
from feldman.trials.events import read_events
from feldman.trials.integrity import Damage, find_damage, read_checked
from feldman.trials.layout import BIT_ARRAYS, BLOCK_ARRAYS
from feldman.trials.merge import merge_stores
from feldman.trials.plan import subset_masks
from feldman.trials.rundir import new_run_lock, run_paths, writer_lock, writer_of
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore
from feldman.trials.task import subset_accuracy, unpack_bits
from tests.commands import snapshot
from tests.conftest import cli_environment, small_dataset
from tests.runs import assert_same_run, calls_of, finish, write_experiment
from tests.trials.stores import CrashError, crash_at_write, experiment_of, result_of, stored_files

MANY = 48
Arrays = dict[str, np.ndarray]


@cache
def _trained() -> Arrays:
    """The arrays of 48 trials, trained as one block."""
    result = result_of(MANY, 0, MANY)
    arrays = {name: getattr(result, name) for name in BLOCK_ARRAYS}
    sizes = {"subset_mask": 60, "train_correct": 60, "test_correct": 30}
    arrays |= {name: unpack_bits(arrays[name], size) for name, size in sizes.items()}
    return arrays | {"train_seconds": np.arange(MANY, dtype=np.float32)}


def _source(
    run: Path,
    num_trials: int,
    block_size: int,
    blocks: Iterable[int] | None = None,
    experiment: Experiment | None = None,
    changed: Arrays | None = None,
) -> Path:
    """A run with some blocks committed, all of them by default; ``changed`` takes the place of trained arrays."""
    run.mkdir(parents=True)
    plan = {"num_trials": num_trials, "block_size": block_size}
    store = TrialStore.create(
        run / "trials.zarr", (experiment or experiment_of(40)).replace("subsets", plan), small_dataset()
    )
    for block in range(store.num_blocks) if blocks is None else blocks:
        trials = store.experiment.subsets.block_trials(block)
        rows = slice(trials.start, trials.stop)
        store.commit_arrays(block, {name: values[rows] for name, values in (_trained() | (changed or {})).items()})
    return run


def _store(run: Path) -> TrialStore:
    return TrialStore.open(run / "trials.zarr")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An experiment of 44 trials in six blocks of 8, the last one short."""
    write_experiment(tmp_path, num_trials=44)
    return tmp_path


def _trained_part(home: Path, first: int, end: int, *overrides: str) -> Path:
    run = home / f"{first}-{end}"
    return finish(home / "experiment.toml", run, f"execution.trials=[{first}, {end}]", *overrides)


# What a merge makes


def test_two_halves_trained_apart_are_merged_to_the_bytes_of_one_run(home: Path) -> None:
    whole = finish(home / "experiment.toml", home / "whole")
    first, second = _trained_part(home, 0, 24), _trained_part(home, 24, 44)
    before = [snapshot(run) for run in (first, second)]
    for number, runs in enumerate([(first, second), (second, first)]):
        summary = feldman.merge(runs, home / f"merged {number}")
        assert summary.status.complete
        assert not summary.status.has_range
        assert [source.num_taken_trials for source in summary.sources] == [24 if run == first else 20 for run in runs]
        assert_same_run(home / f"merged {number}", whole)
    assert [snapshot(run) for run in (first, second)] == before, "the sources are only read"


def test_a_merge_with_a_gap_is_finished_by_resume_as_if_trained_whole(home: Path) -> None:
    parts = [_trained_part(home, 0, 16), _trained_part(home, 24, 32)]
    summary = merge(parts, home / "merged")
    assert (summary.status.complete, summary.status.num_committed_trials) == (False, 24)
    num_calls = calls_of(home / "calls.txt")
    assert job.resume(home / "merged").status.complete
    assert calls_of(home / "calls.txt") == num_calls + 3
    assert_same_run(home / "merged", finish(home / "experiment.toml", home / "whole"))


def test_a_merged_run_has_the_longest_plan_and_grows_like_any_other(home: Path) -> None:
    parts = [_trained_part(home, 0, 24), _trained_part(home, 24, 56)]
    assert merge(parts, home / "merged").status.num_trials == 56
    job.resume(home / "merged", num_trials=60)
    assert_same_run(home / "merged", finish(home / "experiment.toml", home / "whole", "subsets.num_trials=60"))


Part = tuple[int, int, frozenset[int]]


@st.composite
def _parts(draw: st.DrawFn) -> Part:
    """A plan, a block size, and which blocks are committed: at least one."""
    num_trials, block_size = draw(st.integers(1, MANY)), draw(st.sampled_from([2, 3, 4, 6, 8, 12, 16, MANY]))
    blocks = draw(st.sets(st.integers(0, -(-num_trials // block_size) - 1), min_size=1))
    return num_trials, block_size, frozenset(blocks)


@settings(max_examples=15, deadline=None)
@given(st.lists(_parts(), min_size=2, max_size=3))
@example([(20, 8, frozenset({0, 1, 2})), (44, 12, frozenset({2, 3}))])
@example([(21, 8, frozenset({2})), (19, 8, frozenset({2})), (48, 8, frozenset({5}))])
def test_bits_are_the_same_trial_by_trial_whatever_the_blocks_and_the_order(parts: list[Part]) -> None:
    size = math.gcd(*(block_size for _, block_size, _ in parts))
    num_trials = max(plan for plan, _, _ in parts)
    held = {
        trial
        for plan, block_size, blocks in parts
        for block in blocks
        for trial in range(block * block_size, min((block + 1) * block_size, plan))
    }
    merged_blocks = [range(start, min(start + size, num_trials)) for start in range(0, num_trials, size)]
    expected = [number for number, trials in enumerate(merged_blocks) if held.issuperset(trials)]
    with TemporaryDirectory() as made:
        runs = [_source(Path(made) / str(number), *part) for number, part in enumerate(parts)]
        files = []
        for number, order in enumerate((runs, runs[::-1], runs[1:] + runs[:1])):
            report = merge_stores([_store(run) for run in order], Path(made) / f"{number}.zarr")
            store = TrialStore.open(Path(made) / f"{number}.zarr")
            files.append(stored_files(store.path))
            assert store.experiment.subsets.block_size == size
            assert store.experiment.subsets.num_trials == num_trials
            assert store.committed_blocks() == expected
            assert find_damage(store) == []
            assert sum(report.num_taken) == store.num_trials_in(expected)
            assert report.num_left_out == len(held) - sum(report.num_taken)
            for block in expected:
                trials = merged_blocks[block]
                for name, values in _trained().items():
                    assert np.array_equal(store.read(name, block), values[trials.start : trials.stop]), name
        assert all(found == files[0] for found in files)


def test_trials_of_a_short_last_block_that_fill_no_block_are_left_out_and_trained_again(home: Path) -> None:
    first = _trained_part(home, 0, 20, "subsets.num_trials=20")
    second = _trained_part(home, 24, 44)
    summary = merge([first, second], home / "merged")
    assert summary.num_left_out_trials == 4
    assert [source.num_taken_trials for source in summary.sources] == [16, 20]
    assert [source.num_committed_trials for source in summary.sources] == [20, 20]
    job.resume(home / "merged")
    assert_same_run(home / "merged", finish(home / "experiment.toml", home / "whole"))


def test_trials_that_several_runs_hold_with_equal_bits_are_taken_once(tmp_path: Path) -> None:
    runs = [
        _source(tmp_path / "a", 40, 8, [0, 1, 2]),
        _source(tmp_path / "b", 40, 8, [1, 2, 3]),
        _source(tmp_path / "c", 20, 8, [2]),
    ]
    summary = merge(runs, tmp_path / "merged")
    assert [source.num_taken_trials for source in summary.sources] == [24, 8, 0]
    assert (summary.num_shared_trials, summary.num_left_out_trials) == (16, 0)
    assert _store(tmp_path / "merged").committed_blocks() == [0, 1, 2, 3]


def test_bits_seeds_accuracies_and_times_are_carried_over(tmp_path: Path) -> None:
    runs = [_source(tmp_path / "a", 40, 8, [0, 4]), _source(tmp_path / "b", 40, 8, [2])]
    merge(runs, tmp_path / "merged")
    for run, blocks in zip(runs, ([0, 4], [2]), strict=True):
        for block, name in itertools.product(blocks, BLOCK_ARRAYS):
            chunk = f"trials.zarr/{name}/c/{block}" + ("/0" if name in BIT_ARRAYS else "")
            assert (tmp_path / "merged" / chunk).read_bytes() == (run / chunk).read_bytes()


def test_where_data_lies_and_how_trials_are_executed_is_the_first_runs_word_without_its_range(tmp_path: Path) -> None:
    first = experiment_of(40).replace("execution", {"num_workers": 3, "trials": (0, 8)})
    second = first.replace("dataset", {"path": "/elsewhere.npz"}).replace("execution", {"num_workers": 5})
    runs = [
        _source(tmp_path / name, 40, 8, [number], experiment)
        for number, (name, experiment) in enumerate([("a", first), ("b", second)])
    ]
    merge(runs, tmp_path / "merged")
    merged = _store(tmp_path / "merged")
    assert merged.experiment == first.replace("execution", {"trials": None})
    assert merged.attributes["fingerprint"] == first.fingerprint
    assert merged.attributes["dataset"] == _store(runs[0]).attributes["dataset"]


def test_the_events_tell_what_was_merged_and_by_what_it_was_trained(tmp_path: Path) -> None:
    runs = [_source(tmp_path / "a", 40, 8, [0]), _source(tmp_path / "b", 40, 8, [1])]
    summary = merge(runs, tmp_path / "merged")
    event, estimated = read_events(tmp_path / "merged" / "events.jsonl")
    assert (event["event"], estimated["event"]) == ("run_merged", "estimates_written")
    assert [source["run"] for source in event["sources"]] == [str(run) for run in runs]
    assert event["sources"][0]["created_with"] == _store(runs[0]).attributes["created_with"]
    assert (event["num_trials"], event["num_shared"], event["num_left_out"]) == (16, 0, 0)
    assert list(summary.as_json()["sources"]) == event["sources"]


def test_one_block_of_each_source_is_in_memory_and_each_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [_source(tmp_path / "a", 48, 12), _source(tmp_path / "b", 48, 8)]
    read: list[tuple[str, int]] = []
    held: dict[str, list[weakref.ref[np.ndarray]]] = {"a": [], "b": []}

    def counted(store: TrialStore, block: int) -> tuple[Arrays, list[Damage]]:
        run = store.path.parent.name
        assert all(array() is None for array in held[run]), "the block before is let go first"
        arrays, damage = read_checked(store, block)
        held[run] = [weakref.ref(array) for array in arrays.values()]
        read.append((run, block))
        return arrays, damage

    monkeypatch.setattr("feldman.trials.merge.read_checked", counted)
    told: list[Progress] = []
    merge(runs, tmp_path / "merged", on_progress=told.append)
    assert sorted(read) == sorted({("a", block) for block in range(4)} | {("b", block) for block in range(6)})
    done = [progress.done for progress in told if progress.stage == "merging"]
    assert done == sorted(done)
    assert (done[-1], {progress.total for progress in told if progress.stage == "merging"}) == (96, {96})


# What is refused, and that nothing is left behind


def _refused(
    folder: Path, runs: list[Path], error: type[FeldmanError], says: str, code: int = 2, new: str = "some/new"
) -> str:
    before = snapshot(folder)
    with pytest.raises(error, match=says) as caught:
        merge(runs, folder / new)
    assert caught.value.exit_code == code
    assert snapshot(folder) == before
    return str(caught.value)


def test_other_bits_of_the_same_trials_are_refused_naming_the_trials(tmp_path: Path) -> None:
    correct = _trained()["test_correct"].copy()
    correct[[9, 17, 18], 3] ^= True
    other = {"test_correct": correct, "test_accuracy": correct.mean(axis=1).astype(np.float32)}
    runs = [_source(tmp_path / "a", 40, 8), _source(tmp_path / "b", 40, 4, [2, 4, 5], changed=other)]
    for order in (runs, runs[::-1]):
        message = _refused(tmp_path, order, StoreMismatchError, r"hold other bits of the same trials \(3: 9, 17, 18\)")
        assert f"'{order[0]}' and '{order[1]}'" in message
        assert "leave one of the two out" in message


def test_other_bits_are_found_also_in_trials_that_would_be_left_out(tmp_path: Path) -> None:
    correct = _trained()["train_correct"].copy()
    correct[17] ^= True
    other = {"train_correct": correct, "train_accuracy": subset_accuracy(_trained()["subset_mask"], correct)}
    runs = [
        _source(tmp_path / "a", 18, 8),
        _source(tmp_path / "b", 20, 8, changed=other),
        _source(tmp_path / "c", 40, 8, [3]),
    ]
    _refused(tmp_path, runs, StoreMismatchError, r"hold other bits of the same trials \(1: 17\)")


@pytest.mark.parametrize(
    ("section", "field", "value", "says"),
    [
        ("subsets", "seed", 8, "subsets.seed: 7 in '{a}', 8 in '{b}'"),
        (
            "learner",
            "name",
            "tests.learners:failing",
            "learner.name: 'tests.learners:nearest_centroid' in '{a}', 'tests.learners:failing' in '{b}'",
        ),
        ("training", "epochs", 3, "training.epochs: 30 in '{a}', 3 in '{b}'"),
    ],
)
def test_runs_of_other_experiments_are_refused_listing_what_differs(
    tmp_path: Path, section: str, field: str, value: Any, says: str
) -> None:
    other = experiment_of(40).replace(section, {field: value})
    runs = [_source(tmp_path / "a", 40, 8), _source(tmp_path / "b", 40, 8, experiment=other)]
    message = _refused(tmp_path, runs, StoreMismatchError, "are runs of different experiments")
    assert message.splitlines()[1:] == ["  " + says.format(a=runs[0], b=runs[1])]


def test_runs_of_other_data_are_refused(tmp_path: Path) -> None:
    runs = [_source(tmp_path / "a", 40, 8), tmp_path / "b"]
    runs[1].mkdir()
    store = TrialStore.create(runs[1] / "trials.zarr", experiment_of(40), small_dataset(seed=1))
    store.commit_block(result_of(40, 0))
    _refused(tmp_path, runs, StoreMismatchError, rf"content of the data set: \w+ in '{runs[0]}', \w+ in '{runs[1]}'")


def flip(run: Path) -> None:
    chunk = run / "trials.zarr/test_correct/c/1/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 16
    chunk.write_bytes(content)


def take_away(run: Path) -> None:
    (run / "trials.zarr/train_seconds/c/4").unlink()


def other_mask(run: Path) -> None:
    """One trial, not the first of its block, with the subset of another seed: everything else agrees with it."""
    store = _store(run)
    masks = store.read("subset_mask", 1).copy()
    masks[5] = subset_masks(99, range(13, 14), 60, 0.7)[0]
    store.array("subset_mask")[8:16] = masks
    store.array("train_accuracy")[8:16] = subset_accuracy(masks, store.read("train_correct", 1))


def harm_labels(run: Path) -> None:
    (run / "trials.zarr/train_label/c/0").write_bytes(b"x")


def harm_marker(run: Path) -> None:
    (run / "trials.zarr/committed/c/2").write_bytes(b"x")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (flip, r"is damaged \(1 block: 1; first: chunk test_correct/c/1/0 cannot be decoded"),
        (take_away, r"is damaged \(1 block: 4; first: chunk train_seconds/c/4 is missing"),
        (other_mask, r"is damaged \(1 block: 1; first: subset_mask of block 1 differs from the plan"),
        (harm_labels, r"is damaged \(labels; first: train_label"),
        (harm_marker, r"is damaged \(1 block: 2; first: the marker of block 2"),
    ],
)
def test_a_damaged_run_is_refused_with_how_to_mend_it(
    tmp_path: Path, harm: Callable[[Path], None], which: int, says: str
) -> None:
    runs = [_source(tmp_path / "a", 40, 8), _source(tmp_path / "b", 40, 8)]
    harm(runs[which])
    message = _refused(tmp_path, runs, CorruptStoreError, says, code=1)
    assert f"`feldman resume {runs[which]}` mends it" in message


def test_what_is_no_set_of_runs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, empty = _source(tmp_path / "a", 40, 8), _source(tmp_path / "empty", 40, 8, [])
    (tmp_path / "link").symlink_to("a")
    _refused(tmp_path, [], InputError, "a merge takes two runs or more; found 0")
    _refused(tmp_path, [run], InputError, "a merge takes two runs or more; found 1")
    _refused(tmp_path, [run, run], InputError, "is given twice; give each run once")
    _refused(tmp_path, [run, tmp_path / "link"], InputError, "link' is given twice")
    _refused(tmp_path, [run, empty], RunDirectoryError, "empty' has no committed trials to merge; leave it out")
    _refused(tmp_path, [run, tmp_path / "nothing"], RunDirectoryError, "nothing' is not a run")
    with pytest.raises(InputError, match=r"a merge takes a list of runs; found 'a'"):
        merge("a", tmp_path / "new")


def test_a_run_that_exists_is_never_written_over(tmp_path: Path) -> None:
    runs = [_source(tmp_path / "a", 40, 8, [0]), _source(tmp_path / "b", 40, 8, [1])]
    _refused(tmp_path, runs, RunDirectoryError, "b' is a run already, and a merge makes a new one", new="b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    _refused(tmp_path, runs, RunDirectoryError, "holds other things", new="full")
    _refused(tmp_path, runs, RunDirectoryError, "is a file; a run is a folder", new="full/thesis.tex")


# Kills, crashes and others who write


@pytest.fixture
def halves(tmp_path: Path) -> tuple[Path, Path]:
    return _source(tmp_path / "a", 40, 8, [0, 1, 2]), _source(tmp_path / "b", 40, 8, [2, 3, 4])


KILLED = """
import os, signal, sys
from feldman.trials.store import TrialStore
from feldman.cli.app import main
real, left = TrialStore.commit_arrays, [{commits}]
def counted(self, block, arrays):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(self, block, arrays)
TrialStore.commit_arrays = counted
sys.argv = ["feldman", "merge", "a", "b", "-o", "merged"]
main()
"""


@pytest.mark.parametrize("commits", [0, 3])
def test_a_kill_in_mid_merge_leaves_no_run_and_a_second_merge_succeeds(
    tmp_path: Path, halves: tuple[Path, Path], commits: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(commits=commits)],
        cwd=tmp_path, env=cli_environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "merged").glob("trials.zarr.*.partial"))
    with pytest.raises(RunDirectoryError, match="is not a run"):
        feldman.open_run(tmp_path / "merged")
    assert writer_of(run_paths(tmp_path / "merged")) is None
    assert merge(halves, tmp_path / "merged").status.complete
    assert merge(halves, tmp_path / "straight").status.complete
    assert_same_run(tmp_path / "merged", tmp_path / "straight")
    assert not list((tmp_path / "merged").glob("*.partial"))


def test_a_crash_at_any_write_leaves_nothing_behind(
    tmp_path: Path, halves: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with crash_at_write(monkeypatch, 10**6) as written:
        merge(halves, tmp_path / "whole")
    before = snapshot(tmp_path)
    for number in range(0, len(written), 3):
        with crash_at_write(monkeypatch, number), pytest.raises(CrashError):
            merge(halves, tmp_path / "deep" / "new")
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("merging", "interrupted; nothing was written. The same command begins anew"),
        ("reading trials", "interrupted; all trials are merged. Make the tables with: feldman estimate new"),
    ],
)
def test_an_interrupt_says_how_to_go_on(
    tmp_path: Path, halves: tuple[Path, Path], stage: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == stage and progress.done > 16:
            raise KeyboardInterrupt

    def interrupt_at_once(progress: Progress) -> None:
        if progress.stage == stage:
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InterruptedRunError) as caught:
        merge(["a", "b"], "new", on_progress=interrupt if stage == "merging" else interrupt_at_once)
    assert str(caught.value) == says
    assert (tmp_path / "new").exists() == (stage != "merging")
    if stage != "merging":
        assert feldman.open_run("new").status().complete


def test_a_merge_holds_the_lock_of_the_new_run_and_respects_it(tmp_path: Path, halves: tuple[Path, Path]) -> None:
    paths = run_paths(tmp_path / "new")
    holders: list[object] = []
    with writer_lock(paths), pytest.raises(StoreBusyError, match=f"is being written by process {os.getpid()}"):
        merge(halves, paths.root)
    merge(halves, paths.root, on_progress=lambda progress: holders.append((writer_of(paths) or {}).get("pid")))
    assert set(holders) == {os.getpid()}
    assert writer_of(paths) is None


def test_a_lock_that_went_with_a_run_that_did_not_come_to_be_is_not_taken_for_the_runs(tmp_path: Path) -> None:
    paths = run_paths(tmp_path / "new")
    with pytest.raises(KeyError), new_run_lock(paths):
        raise KeyError
    assert not paths.root.exists()
    with writer_lock(paths):
        shutil.rmtree(paths.root)
        paths.root.mkdir()
        with writer_lock(paths):
            assert writer_of(paths) is not None


def test_a_lock_that_goes_while_it_is_waited_for_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = run_paths(tmp_path / "new")

    def locked_too_late(descriptor: int) -> bool:
        paths.lock.unlink()
        return True

    monkeypatch.setattr("feldman.trials.rundir._locked", locked_too_late)
    with pytest.raises(StoreBusyError), writer_lock(paths):
        pass


def test_tables_of_a_merged_run_are_those_of_a_run_that_trained_these_trials(home: Path) -> None:
    """The digest in the tables is that of a run trained whole: `run` finds nothing to do."""
    parts = [_trained_part(home, 0, 24), _trained_part(home, 24, 44)]
    merge(parts, home / "merged")
    num_calls = calls_of(home / "calls.txt")
    stages = set[str]()
    job.run(
        load_experiment(home / "experiment.toml"),
        home / "merged",
        on_progress=lambda progress: stages.add(progress.stage),
    )
    assert (stages, calls_of(home / "calls.txt")) == ({"checking"}, num_calls)
