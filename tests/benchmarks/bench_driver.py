"""`make bench-driver`: what one driver takes to serve 1,000 workers.

The run loop, the real store and its commits, and workers that are simulated: each trains for a time drawn from a gamma
distribution of mean 10 s (a tenth of the blocks take longer than 15 s), so that 100 blocks a second come back. Trials have
CIFAR-100's row lengths, 5 a block: a commit writes 550,000 bits and records. Workers join one by one over the mean time
of a block, so that the rate is steady; figures are taken while all are at work.

Processor time is that of this process with all its threads, in cores; memory its resident set, and the growth that of a
straight line through the samples of the window. What the simulation leaves out is Ray's share of a driver: its threads, and the
bits on their way through the object store; `make bench-scheduling` has these in it, with two workers.
"""

from __future__ import annotations

import heapq
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from feldman.experiment import Experiment
from feldman.trials.executor import BlockOutcome
from feldman.trials.loop import LoopOptions, run_blocks
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, pack_bits
from tests.benchmarks.noop import rows_of_cifar100
from tests.benchmarks.report import FOLDER, Row, limit, write_report

NUM_WORKERS, MEAN_SECONDS = 1000, 10.0
BLOCK_SIZE, NUM_SECONDS = 5, 40
RATE = NUM_WORKERS / MEAN_SECONDS
NUM_BLOCKS = int(RATE * NUM_SECONDS)
MEGABYTE = 1e6


class SimulatedWorkers:
    """An executor whose workers end when a clock says so; their results were drawn before."""

    def __init__(self, results: Sequence[BlockResult]) -> None:
        self.num_workers = NUM_WORKERS
        self._results = results
        self._rng = np.random.default_rng(0)
        self._ends: list[tuple[float, int]] = []
        self._started = time.monotonic()

    @property
    def num_free(self) -> int:
        """Workers join one by one over the mean time of a block."""
        joined = int(NUM_WORKERS * (time.monotonic() - self._started) / MEAN_SECONDS)
        return min(joined, NUM_WORKERS) - len(self._ends)

    def submit(self, block: int) -> None:
        seconds = self._rng.gamma(8.0, MEAN_SECONDS / 8.0)
        heapq.heappush(self._ends, (time.monotonic() + seconds, block))

    def submit_copy(self, block: int) -> bool:
        self.submit(block)
        return True

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        next_end = self._ends[0][0] if self._ends else float("inf")
        # While workers join there is one to be given a block every so often, as Ray's own wait returns when one has joined.
        time.sleep(max(0.0, min(timeout_seconds, next_end - time.monotonic(), 1 / RATE)))
        ended = []
        while self._ends and self._ends[0][0] <= time.monotonic():
            block = heapq.heappop(self._ends)[1]
            result = replace(self._results[block % len(self._results)], block=block)
            ended.append(BlockOutcome(block=block, result=result))
        return ended

    def __enter__(self) -> SimulatedWorkers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None


@dataclass(kw_only=True)
class Samples:
    """What the driver had used at each commit: the wall's time, the processor's, and memory."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def take(self) -> None:
        self.wall.append(time.monotonic())
        self.processor.append(time.process_time())
        self.memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


def drawn_results(num_train: int, num_test: int) -> list[BlockResult]:
    """Bits no easier to compress than a model's, a few blocks of them, as a worker sends them."""
    rng = np.random.default_rng(1)

    def bits(share: float, length: int) -> Any:
        return pack_bits(rng.random((BLOCK_SIZE, length)) < share)

    records = np.full(BLOCK_SIZE, 0.75, np.float32)
    return [
        BlockResult(
            block=0,
            subset_mask=bits(0.7, num_train),
            train_correct=bits(0.88, num_train),
            test_correct=bits(0.74, num_test),
            trial_seed=np.arange(BLOCK_SIZE),
            train_accuracy=records,
            test_accuracy=records,
            train_seconds=records,
        )
        for _ in range(50)
    ]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    dataset = rows_of_cifar100()
    experiment = Experiment.model_validate(
        {
            "dataset": {"name": "tests.benchmarks.noop:rows_of_cifar100"},
            "subsets": {"num_trials": NUM_BLOCKS * BLOCK_SIZE, "block_size": BLOCK_SIZE},
        }
    )
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="feldman-bench-", dir=FOLDER) as folder:
        store = TrialStore.create(Path(folder) / "trials.zarr", experiment, dataset)

        def commit(block: int, result: BlockResult) -> None:
            store.commit_block(result)
            samples.take()

        with SimulatedWorkers(drawn_results(dataset.num_train, dataset.num_test)) as workers:
            options = LoopOptions(submit_copy=workers.submit_copy)
            report = run_blocks(range(NUM_BLOCKS), workers, commit, max_attempts=3, options=options)
        assert len(store.committed_blocks()) == len(report.committed) == NUM_BLOCKS
    write_report("driver", rows_of(samples))
    print(f"{len(report.speculated)} blocks were handed out twice near the end")


def rows_of(samples: Samples) -> list[Row]:
    """Take the figures where all workers are at work: after the first joined ones came back, and before blocks run out."""
    first, end = NUM_WORKERS, NUM_BLOCKS - NUM_WORKERS
    seconds = samples.wall[end] - samples.wall[first]
    rate = (end - first) / seconds
    cores = (samples.processor[end] - samples.processor[first]) / seconds
    window = range(first, end)
    growth = float(np.polyfit(window, [samples.memory[k] for k in window], 1)[0]) * len(window)
    print(f"driver: {1e3 * cores / rate:.2f} ms of the processor a block, {samples.memory[first] / MEGABYTE:.0f} MB")
    return [
        Row(
            name="blocks a second, 1,000 simulated workers", value=rate, unit="blocks/s", yardstick=RATE, ratio=rate / RATE,
            at_least=0.95, n=end - first,
        ),
        limit("processor time of the driver at that rate", cores, 0.5, "cores", end - first),
        limit("growth of its memory", growth / MEGABYTE, 10, "MB", end - first),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
