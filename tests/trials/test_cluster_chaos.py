"""Chaos on a cluster of three nodes: `feldman run --address` as a user types it, while workers, nodes, driver and head die."""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldman.trials.events import read_events
from feldman.trials.plan import trial_seeds
from tests.clusters import TestCluster, worker_pids
from tests.conftest import long, small_arrays
from tests.disks import Disk
from tests.runs import FeldmanProcess, assert_same_run, finish, wait_until

NUM_RUNS = int(os.environ.get("FELDMAN_CHAOS_ROUNDS", "0")) // 8
"""Runs of the long form, seven faults each; without, one run with the faults that take no new cluster."""

NUM_TRIALS, BLOCK_SIZE, SEED = 800, 2, 7
BLOCK_SECONDS = 0.4

pytestmark = [pytest.mark.chaos, pytest.mark.ray]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A block that a worker began."""

    when: float
    pid: int
    block: int


@dataclass(frozen=True, kw_only=True)
class Survived:
    """A fault, when it was, after how many calls of the run, and how long it took until a lost block was begun again, or a
    new node was used; None if nothing was lost."""

    fault: str
    num_calls: int
    seconds: float | None


@dataclass(kw_only=True)
class Scene:
    """A run on a cluster, and what happens to it."""

    home: Path
    disk: Disk
    cluster: TestCluster
    chance: random.Random
    survived: list[Survived] = field(default_factory=list)
    num_retrained: Counter[str] = field(default_factory=Counter)
    num_runs: int = 0
    num_equal: int = 0
    num_restarts: int = 0
    process: FeldmanProcess | None = None
    stopped: Any = None
    fallen: float = 0.0

    def __post_init__(self) -> None:
        np.savez(self.home / "data.npz", allow_pickle=False, **small_arrays())
        (self.home / "experiment.toml").write_text(
            '[dataset]\nname = "arrays"\npath = "data.npz"\n'
            '[learner]\nname = "tests.trials.scripts:paced_centroid"\n'
            f'[learner.parameters]\nlog = "{self.home / "calls.txt"}"\npace = "{self.home / "pace.txt"}"\n'
            f"[subsets]\nnum_trials = {NUM_TRIALS}\nblock_size = {BLOCK_SIZE}\nseed = {SEED}\n"
            '[execution]\ngpus_per_block = 0.5\ndevice = "cpu"\nmax_attempts = 10\nmemory_per_block = "100 MiB"\n'
        )
        self.pace(0)
        self.reference = finish(self.home / "experiment.toml", self.home / "reference")
        self.block_of = {int(trial_seeds(SEED, range(b * BLOCK_SIZE, b * BLOCK_SIZE + 1))[0]): b for b in range(400)}

    @property
    def run(self) -> Path:
        return self.disk.folder / f"run {self.num_runs}"

    def pace(self, seconds: float) -> None:
        (self.home / "pace.new").write_text(str(seconds))
        (self.home / "pace.new").rename(self.home / "pace.txt")

    def calls(self) -> list[Call]:
        lines = (self.home / "calls.txt").read_text().splitlines() if (self.home / "calls.txt").exists() else []
        rows = (line.split() for line in lines)
        return [Call(when=float(when), pid=int(pid), block=self.block_of[int(seed)]) for when, pid, seed in rows]

    def committed(self) -> set[int]:
        return {
            event["block"] for event in read_events(self.run / "events.jsonl") if event["event"] == "block_committed"
        }

    def start(self) -> None:
        words = ("run", str(self.home / "experiment.toml"), "-o", str(self.run), "--address", self.cluster.address)
        self.process = FeldmanProcess(self.home, *words, "--speculate")

    def ended(self) -> tuple[int, str]:
        assert self.process is not None
        ended = self.process.ended()
        return ended.code, ended.stderr

    def restart(self) -> None:
        assert self.process is not None
        self.process.kill_tree()
        self.num_restarts += 1
        self.start()

    def survive(self, faults: list[str]) -> None:
        """One run from nothing to its end, with these faults on the way, each at a random moment."""
        self.num_runs += 1
        (self.home / "calls.txt").unlink(missing_ok=True)
        self.pace(BLOCK_SECONDS)
        self.cluster.complete()
        self.start()
        try:
            falls = [self._fall(fault) for fault in faults]
            self.pace(0)
            self._finish()
        finally:
            if self.process is not None:
                self.process.kill_tree()
            if self.stopped is not None:
                self.cluster.signal(self.stopped, signal.SIGCONT)
                self.stopped = None
        self._count_retrained(falls)
        assert_same_run(self.run, self.reference)
        self.num_equal += 1
        shutil.rmtree(self.run)

    def _count_retrained(self, falls: list[Survived]) -> None:
        """Put calls of blocks that had been called before down to the last fault before them."""
        blocks = [call.block for call in self.calls()]
        bounds = [*(fall.num_calls for fall in falls), len(blocks)]
        for fall, (start, stop) in zip(falls, pairwise(bounds), strict=True):
            seen = set(blocks[:start])
            self.num_retrained[fall.fault] += sum(block in seen for block in blocks[start:stop])

    def _finish(self) -> None:
        code, told = self.ended()
        for _ in range(3):
            if code == 0:
                break
            self.restart()
            code, told = self.ended()
        assert code == 0, told

    def _fall(self, fault: str) -> Survived:
        began, goal = time.time(), self.chance.randint(1, 8)
        wait_until(lambda: len([call for call in self.calls() if call.when > began]) >= goal, "training goes on", 120)
        time.sleep(self.chance.uniform(0, BLOCK_SECONDS))
        num_before = len(self.calls())
        victims = FAULTS[fault](self)
        found: list[float] = []
        wait_until(lambda: self._recovered(victims, found), f"the run recovers from: {fault}", 120)
        fall = Survived(fault=fault, num_calls=num_before, seconds=found[0] - self.fallen if found else None)
        self.survived.append(fall)
        return fall

    def _recovered(self, victims: set[int] | Any, found: list[float]) -> bool:
        """Whether a victim was begun again, or all of them came back after all; or the new node has begun a block."""
        calls = [call for call in self.calls() if call.when > self.fallen]
        if isinstance(victims, set):
            found += [call.when for call in calls if call.block in victims][:1]
            return bool(found) or victims <= self.committed()
        found += [call.when for call in calls if call.pid in worker_pids(victims)][:1]
        return bool(found)

    def fall_now(self, pids: set[int] | None = None) -> set[int]:
        """Note the time, and return what these processes are at, by default all."""
        self.fallen = time.time()
        return self.in_flight(pids)

    def in_flight(self, pids: set[int] | None = None) -> set[int]:
        """The blocks that these processes are at, by default all."""
        latest = {call.pid: call.block for call in self.calls()}
        return {block for pid, block in latest.items() if pids is None or pid in pids} - self.committed()


def worker(scene: Scene) -> set[int]:
    """The process of a worker is killed."""
    pids = worker_pids(_busy_node(scene))
    victim = scene.chance.choice([call.pid for call in scene.calls() if call.pid in pids])
    lost = scene.fall_now({victim})
    os.kill(victim, signal.SIGKILL)
    return lost


def node(scene: Scene) -> set[int]:
    """A node is killed."""
    victim = _busy_node(scene)
    lost = scene.fall_now(worker_pids(victim))
    scene.cluster.kill(victim)
    return lost


def _busy_node(scene: Scene) -> Any:
    wait_until(lambda: any(scene.in_flight(worker_pids(one)) for one in scene.cluster.nodes), "a node is at work")
    return scene.chance.choice([one for one in scene.cluster.nodes if scene.in_flight(worker_pids(one))])


def joins(scene: Scene) -> Any:
    """A node comes, and is used without a word to the run."""
    made = scene.cluster.add()  # it takes two seconds until it is there
    scene.fallen = time.time()
    return made


def driver(scene: Scene) -> set[int]:
    """The driver is killed, and the command typed again."""
    assert scene.process is not None
    lost = scene.fall_now()
    os.kill(scene.process.pid, signal.SIGKILL)
    scene.restart()
    return lost


def head(scene: Scene) -> set[int]:
    """The head is killed, a new cluster made (which takes most of the time), and the command typed again with its address."""
    scene.cluster.kill_head()
    assert scene.process is not None
    time.sleep(scene.chance.uniform(0, 3))  # workers of the other nodes and the driver go on without it
    lost = scene.fall_now()
    scene.cluster.__exit__()
    scene.process.kill_tree()  # it would give up after a minute
    scene.cluster = TestCluster()
    scene.restart()
    return lost


def disk(scene: Scene) -> set[int]:
    """The disk is full; room is made, and the command typed again."""
    lost = scene.fall_now()
    scene.disk.fill(scene.run, scene.chance.choice([0, 4096, 40_000]))
    code, told = scene.ended()
    scene.disk.make_room(scene.run)
    assert code == 1, told
    assert "No space left on device" in told
    scene.restart()
    return lost


def stopped(scene: Scene) -> set[int]:
    """A node stops. The rest of the run is fast, so that it ends without the node, which may go on before or after."""
    scene.stopped = _busy_node(scene)
    lost = scene.fall_now(worker_pids(scene.stopped))
    scene.cluster.signal(scene.stopped, signal.SIGSTOP)
    scene.pace(0.02)
    if scene.chance.random() < 0.5:  # its results arrive late: each the first, or for nothing
        time.sleep(scene.chance.uniform(0, 6))
        scene.cluster.signal(scene.stopped, signal.SIGCONT)
        scene.stopped = None
    return lost


FAULTS: dict[str, Callable[[Scene], set[int] | Any]] = {
    "worker killed": worker,
    "node killed": node,
    "node joins": joins,
    "driver killed": driver,
    "head killed": head,
    "disk full": disk,
    "node stopped": stopped,
}


def plan(chance: random.Random, *, long: bool, has_disk: bool) -> list[str]:
    """The faults of a run. The node that stops comes last, since copies are made near the end."""
    if not long:
        return ["node joins", "node killed", "driver killed", "node stopped"]
    faults = [fault for fault in FAULTS if fault != "node stopped" and (has_disk or fault != "disk full")]
    chance.shuffle(faults)
    return [*faults, "node stopped"]


def table(scene: Scene) -> str:
    lines = [f"{'fault':<16}{'rounds':>7}{'retrained':>11}{'seconds to recover: median':>28}{'longest':>9}"]
    for fault in FAULTS:
        rounds = [one for one in scene.survived if one.fault == fault]
        seconds = [one.seconds for one in rounds if one.seconds is not None]
        times = (f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}") if seconds else ("-", "-")
        if rounds:
            retrained = scene.num_retrained[fault]
            lines.append(f"{fault:<16}{len(rounds):>7}{retrained:>11}{times[0]:>28}{times[1]:>9}")
    lines.append(
        f"{len(scene.survived)} rounds in {scene.num_runs} runs, of which {scene.num_equal} ended equal to one undisturbed; "
        f"commands typed again: {scene.num_restarts}"
    )
    return "\n".join(lines)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(
        home=tmp_path,
        disk=Disk(tmp_path / "disk", "128m"),
        cluster=TestCluster(),
        chance=random.Random(20_200_810),
    )
    yield made
    made.cluster.__exit__()
    made.disk.remove()


@long
@pytest.mark.timeout(7200)
def test_on_a_cluster_that_loses_workers_nodes_driver_and_head_a_run_ends_as_if_undisturbed(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        for _ in range(NUM_RUNS or 1):
            scene.survive(plan(scene.chance, long=NUM_RUNS > 0, has_disk=scene.disk.mounted))
    finally:
        with capsys.disabled():
            print("\n" + table(scene))
