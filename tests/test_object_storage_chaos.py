"""Storage that fails, drivers that die, sleep and race, at random moments: a run on S3 ends as if nobody had touched it."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from feldman.trials.lease import LeaseTimes
from tests.conftest import cli_environment, long
from tests.object_store import Proxy, download_run, make_bucket, object_path, s3_environment, s3_server
from tests.runs import FeldmanProcess, assert_same_run, calls_of, finish, wait_until, write_experiment

ROUNDS = int(os.environ.get("FELDMAN_CHAOS_ROUNDS", "6"))
NUM_TRIALS, BLOCK_SIZE = 160, 8
SHORT_LEASE = LeaseTimes(lasts=2.0, renewed_every=0.3, needed=0.5, margin=0.5)
COMMAND = (
    "from functools import partial; from feldman.trials import rundir; from feldman.trials.lease import LeaseTimes; "
    f"rundir.held_lease = partial(rundir.held_lease, times={SHORT_LEASE!r}); from feldman.cli.app import main; main()"
)


class Stage:
    """A run on S3, the drivers that write it, and the proxy between them."""

    def __init__(self, folder: Path, proxy: Proxy, chance: random.Random, drivers: ExitStack) -> None:
        self.folder, self.proxy, self.chance, self._drivers = folder, proxy, chance, drivers
        self.experiment = write_experiment(folder, sleep_seconds=0.1, num_trials=NUM_TRIALS, block_size=BLOCK_SIZE)
        self.run, self.num_runs = "", 0
        self.driver = self.begun()

    def begun(self) -> FeldmanProcess:
        """Start a driver on the run; a new run if there is none."""
        self.run = self.run or f"s3://chaos/run-{self.chance.getrandbits(40):x}"
        process = FeldmanProcess(self.folder / "drivers", "run", self.experiment, "-o", self.run, env=cli_environment())
        return self._drivers.enter_context(process)

    def replace_driver(self) -> None:
        """Have a driver at work: another one where the last has ended; compare a run that is through, and begin the next."""
        if self.driver.running:
            return
        if self.driver.ended().code == 0:
            self.compare()
            self.run = ""
        self.driver = self.begun()

    def compare(self) -> None:
        """Hold a finished run against one that was left alone."""
        self.num_runs += 1
        reference = self.folder / "undisturbed"
        if not reference.exists():
            finish(self.experiment, reference)
        assert_same_run(download_run(object_path(self.run), self.folder / f"run-{self.num_runs}"), reference)


def errors_and_lost_answers(stage: Stage) -> None:
    stage.proxy.fail = stage.chance.randint(1, 25)
    wait_until(lambda: stage.proxy.fail == 0 or not stage.driver.running, "the storage is well again")


def driver_killed(stage: Stage) -> None:
    stage.driver.kill_tree()


def driver_slept_longer_than_its_lease(stage: Stage) -> None:
    stage.driver.send(signal.SIGSTOP)
    sleeper, stage.driver = stage.driver, stage.begun()  # waits for the lease to run out, and takes it
    time.sleep(stage.chance.uniform(2.5, 5.0))
    sleeper.send(signal.SIGCONT)
    assert sleeper.ended().code in (0, 1)  # 0: it had ended before it was stopped


def two_drivers_raced(stage: Stage) -> None:
    other = stage.begun()
    wait_until(lambda: not (other.running and stage.driver.running), "one of two drivers gives up, or ends")
    if not stage.driver.running:
        stage.driver = other


FAULTS: list[Callable[[Stage], None]] = [
    errors_and_lost_answers,
    driver_killed,
    driver_slept_longer_than_its_lease,
    two_drivers_raced,
]


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr("tests.runs.FELDMAN", (sys.executable, "-c", COMMAND))
    with s3_server() as url, Proxy(url) as proxy:
        for name, value in {**s3_environment(url), "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        make_bucket(url, "chaos")
        yield proxy


@long
def test_a_run_on_a_storage_that_fails_by_drivers_that_die_sleep_and_race_ends_as_if_undisturbed(
    tmp_path: Path, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(2**32)
    with ExitStack() as drivers:
        stage, rounds = Stage(tmp_path, proxy, random.Random(seed), drivers), Counter[str]()
        for number in range(ROUNDS):
            stage.replace_driver()
            time.sleep(stage.chance.uniform(0.3, 3.0))
            fault = FAULTS[number % len(FAULTS)]
            fault(stage)
            rounds[fault.__name__.replace("_", " ")] += 1
        while stage.driver.ended().code != 0:
            stage.driver = stage.begun()
        stage.compare()
    blocks = NUM_TRIALS // BLOCK_SIZE
    num_retrained = calls_of(tmp_path / "calls.txt") - blocks * (stage.num_runs + 1)
    with capsys.disabled():
        print(f"\nfaults of storage and drivers on S3, seed {seed}")
        for name, count in rounds.items():
            print(f"  {name:40}{count:6}")
        print(f"  {'runs finished, all equal':40}{stage.num_runs:6}\n  {'blocks retrained':40}{num_retrained:6}")
