from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from feldman.trials.integrity import find_damage
from feldman.trials.store import TrialStore
from tests.conftest import long
from tests.runs import FeldmanProcess, assert_same_run, calls_of, event_names, finish, run_files, write_experiment

ROUNDS = int(os.environ.get("FELDMAN_CHAOS_ROUNDS", "6"))
"""How many processes are killed in the test without Ray; a third as many in the one with it, but at least 3."""

FIRST_TRIALS, ALL_TRIALS, BLOCK_SIZE = 44, 76, 8  # six blocks with a short last one, then ten
NUM_COMMITS = 11  # the short one is trained once more when the run grows

pytestmark = [pytest.mark.chaos]


@dataclass(kw_only=True)
class Tally:
    """What a chaos test did to its runs."""

    kills: int = 0
    runs: int = 0
    trials_lost: int = 0
    blocks_retrained: int = 0
    processes: int = 0
    moments: Counter[str] = field(default_factory=Counter)

    def table(self, title: str) -> str:
        rows = [
            ("kills", self.kills),
            ("processes killed", self.processes),
            ("runs finished", self.runs),
            ("trials lost in flight", self.trials_lost),
            ("blocks retrained", self.blocks_retrained),
            *((f"killed while {moment}", number) for moment, number in sorted(self.moments.items())),
        ]
        return "\n".join([title, *(f"  {name:<40}{value:>6}" for name, value in rows)])


@dataclass(kw_only=True)
class Chaos:
    """Starts runs of one experiment and kills them at random moments of their lives."""

    home: Path
    experiment: Path
    reference: Path
    options: list[str]
    in_flight: int
    chance: random.Random
    tally: Tally = field(default_factory=Tally)
    longest_life: float = 1.0
    longest_training: float = 1.0

    def finish_once(self, kills_left: int) -> int:
        """One run from nothing to its full size, by way of a growth; return how many kills it took."""
        run = self.home / f"run {self.tally.runs}"
        begin = [
            "run",
            str(self.experiment),
            "-o",
            str(run),
            "--set",
            f"subsets.num_trials={FIRST_TRIALS}",
            *self.options,
        ]
        go_on = ["run", str(self.experiment), "-o", str(run), *self.options]
        num_calls = calls_of(self.home / "calls.txt")
        kills = self.survive(run, begin, kills_left)
        kills += self.survive(run, go_on, kills_left - kills)
        self.tally.runs += 1
        self.tally.blocks_retrained += calls_of(self.home / "calls.txt") - num_calls - NUM_COMMITS
        assert_same_run(run, self.reference)
        return kills

    def survive(self, run: Path, command: list[str], kills_left: int) -> int:
        """Start a command again and again, and kill it, until one process gets to its end; return the kills."""
        kills = 0
        while True:
            num_events, num_calls = len(event_names(run)), calls_of(self.home / "calls.txt")
            started = time.monotonic()
            with FeldmanProcess(self.home, *command) as process:
                if kills < kills_left:
                    self._sleep_some(process, run)
                if kills == kills_left or not process.running:
                    ended = process.ended()
                    assert ended.code == 0, ended.stderr
                    self.longest_life = max(self.longest_life, time.monotonic() - started)
                    return kills
                writing = _holds_lock(process.pid, run)
                self.tally.processes += process.kill_tree()
            kills += 1
            self.tally.kills += 1
            events = event_names(run)[num_events:]
            self.tally.moments[_moment(events, run) if writing else "starting up"] += 1
            self._lose_no_more_than_was_in_flight(run, events, num_calls)

    def _sleep_some(self, process: FeldmanProcess, run: Path) -> None:
        """Wait for a random moment: anywhere in its life; while it makes, mends or grows the store; from training on."""
        num_trainings = event_names(run).count("training_started")
        mode = self.chance.choice(["anywhere", "store", "training", "training"])
        if mode == "store":
            wait_for: Callable[[], bool] = lambda: _holds_lock(process.pid, run)  # noqa: E731
        else:
            wait_for = lambda: mode == "anywhere" or event_names(run).count("training_started") > num_trainings  # noqa: E731
        while process.running and not wait_for():
            time.sleep(0.002)
        delay = self.chance.uniform(
            0, {"anywhere": 1.1 * self.longest_life, "store": 0.1}.get(mode, self.longest_training)
        )
        deadline = time.monotonic() + delay
        while process.running and time.monotonic() < deadline:
            time.sleep(0.002)

    def _lose_no_more_than_was_in_flight(self, run: Path, events: list[str], num_calls: int) -> None:
        calls = calls_of(self.home / "calls.txt") - num_calls
        lost = calls - events.count("block_committed")
        # One more: a kill may fall between the commit and the event that tells of it.
        assert lost <= self.in_flight + 1, f"{calls} blocks begun, {events.count('block_committed')} committed"
        self.tally.trials_lost += BLOCK_SIZE * max(0, lost)
        if not (run / "trials.zarr").exists():
            return
        store = TrialStore.open(run / "trials.zarr")  # it is there whole or not at all
        assert find_damage(store) == []
        assert len(store.committed_blocks()) >= events.count("block_committed")
        for name in run_files(run):
            assert not name.endswith(".parquet") or (run / name).read_bytes()[-4:] == b"PAR1", "a table is whole"


def _holds_lock(pid: int, run: Path) -> bool:
    try:
        return f'"pid": {pid},' in (run / ".writer.lock").read_text()
    except FileNotFoundError:
        return False


def _moment(events: list[str], run: Path) -> str:
    """What a session that held the lock was at when it was killed, by the last thing it told."""
    if not events:
        return "mending the store, starting workers" if (run / "trials.zarr").exists() else "making the store"
    if events[-1] == "block_committed" and _all_trained(run):
        return "estimating"
    moments = {
        "run_created": "beginning",
        "run_grown": "beginning",
        "estimates_written": "leaving",
        "run_finished": "leaving",
    }
    return moments.get(events[-1], "training")


def _all_trained(run: Path) -> bool:
    store = TrialStore.open(run / "trials.zarr")
    return len(store.committed_blocks()) == store.num_blocks


def _chaos(home: Path, seed: int, sleep_seconds: float, in_flight: int, *options: str) -> Chaos:
    experiment = write_experiment(home, sleep_seconds=sleep_seconds, num_trials=ALL_TRIALS, block_size=BLOCK_SIZE)
    reference = finish(experiment, home / "reference")
    return Chaos(
        home=home,
        experiment=experiment,
        reference=reference,
        options=list(options),
        in_flight=in_flight,
        chance=random.Random(seed),
    )


def _let_loose(chaos: Chaos, kills: int, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        while kills > 0:
            kills -= chaos.finish_once(kills)
    finally:
        with capsys.disabled():
            print("\n" + chaos.tally.table(title))


@pytest.mark.timeout(3600)
def test_killed_at_any_moment_a_run_ends_as_if_never_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chaos = _chaos(tmp_path, 20_200_808, 0.05, in_flight=1)
    _let_loose(chaos, ROUNDS, "kill -9 of the process, trained in process", capsys)


@long
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_killed_at_any_moment_with_its_ray_a_run_ends_as_if_never_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chaos = _chaos(tmp_path, 20_200_809, 0.2, 2, "--set", "execution.executor=ray", "--set", "execution.num_workers=2")
    chaos.longest_life = 7.0
    chaos.longest_training = 1.5
    _let_loose(chaos, max(2, ROUNDS // 3), "kill -9 of the whole process tree, Ray included", capsys)
