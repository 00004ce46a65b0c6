"""What a block costs the driver, measured here: its commit, and one look at the calls of many workers.

    python cluster/driver_costs.py

The commit is the store's own: unpacking, arrays, checksums, marker; of random bits that compress no better than a model's.
In a run, getting a result and writing the event are added: `make bench-scheduling` has the whole.
The look is what the Ray executor does once a block: two `ray.wait` over all pending calls, here of one actor that sleeps.
`scaling_tables.py` reckons with these figures.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from feldman.data.dataset import Dataset
from feldman.experiment import Experiment
from feldman.trials.plan import subset_masks, trial_seeds
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, pack_bits, subset_accuracy

NUM_BLOCKS, NUM_LOOKS = 40, 25


def main() -> None:
    """Print both tables."""
    tell("rows        block | commit, ms: least, median | kilobytes a block")
    for name, num_train, num_test, sizes in (
        ("CIFAR-100", 50_000, 10_000, (1, 4, 10)),
        ("ImageNet", 1_281_167, 50_000, (1,)),
    ):
        for block_size in sizes:
            times, kilobytes = commits(num_train, num_test, block_size)
            tell(
                f"{name:10} {block_size:6} | {min(times):10.1f} {statistics.median(times):10.1f}      | {kilobytes:10.0f}"
            )
    tell("workers | look, ms: least, median")
    for num_workers, times in looks((100, 1000, 4000, 10_000)):
        tell(f"{num_workers:7,} | {min(times):8.2f} {statistics.median(times):8.2f}")


def tell(line: str) -> None:
    """Print one line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def milliseconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def commits(num_train: int, num_test: int, block_size: int) -> tuple[list[float], float]:
    """Return the milliseconds of every commit, and the kilobytes of a block."""
    subsets = {"num_trials": NUM_BLOCKS * block_size, "block_size": block_size}
    experiment = Experiment.model_validate({"dataset": {"name": "arrays"}, "subsets": subsets})
    dataset = Dataset(
        name="rows",
        x_train=np.zeros((num_train, 1), np.uint8),  # what a block costs depends on the number of examples alone
        y_train=np.arange(num_train) % 10,
        x_test=np.zeros((num_test, 1), np.uint8),
        y_test=np.arange(num_test) % 10,
        class_names=tuple(map(str, range(10))),
    )
    with tempfile.TemporaryDirectory(dir=".") as folder:  # a disk, as runs have; /tmp may be none
        store = TrialStore.create(Path(folder) / "trials.zarr", experiment, dataset)
        results = (random_result(experiment, block, num_train, num_test) for block in range(NUM_BLOCKS))
        times = [milliseconds(partial(store.commit_block, result)) for result in results]
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file() and "c" in file.parts)
    return times, size / NUM_BLOCKS / 1e3


def random_result(experiment: Experiment, block: int, num_train: int, num_test: int) -> BlockResult:
    """Make a block of the plan's subsets and random bits."""
    trials = experiment.subsets.block_trials(block)
    rng = np.random.default_rng(block)
    masks = subset_masks(0, trials, num_train, 0.7)
    train = rng.random((len(trials), num_train), np.float32) < 0.88
    test = rng.random((len(trials), num_test), np.float32) < 0.74
    return BlockResult(
        block=block,
        subset_mask=pack_bits(masks),
        train_correct=pack_bits(train),
        test_correct=pack_bits(test),
        trial_seed=trial_seeds(0, trials),
        train_accuracy=subset_accuracy(masks, train),
        test_accuracy=test.mean(axis=1).astype(np.float32),
        train_seconds=np.ones(len(trials), np.float32),
    )


def looks(numbers: tuple[int, ...]) -> list[tuple[int, list[float]]]:
    """Return the milliseconds of every look, by the number of calls that are pending."""
    os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    import asyncio

    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")

    class Sleeper:
        async def sleep(self, seconds: float) -> bytes:
            await asyncio.sleep(seconds)
            return bytes(1000)

    sleeper = ray.remote(num_cpus=0, max_concurrency=20_000)(Sleeper).remote()
    ray.get(sleeper.sleep.remote(0))
    pending: list[Any] = []
    found = []
    for number in numbers:
        pending += [sleeper.sleep.remote(3600) for _ in range(number - len(pending))]
        time.sleep(2)  # until all have been sent
        found.append((number, [look(ray, sleeper, pending) for _ in range(NUM_LOOKS)]))
    ray.shutdown()
    return found


def look(ray: Any, sleeper: Any, pending: list[Any]) -> float:
    """Wait for one more call as the executor does."""
    calls = [*pending, sleeper.sleep.remote(0)]
    time.sleep(0.02)

    def wait() -> None:
        ray.wait(calls, num_returns=1, timeout=1)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        ray.get(ready)

    return milliseconds(wait)


if __name__ == "__main__":
    main()
