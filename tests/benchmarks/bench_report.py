"""`make bench-report`: the page of a run of CIFAR-100's shape, from its tables and images on disk to the file, start-up included.

Once with a table of pairs as `feldman estimate` makes it by default, about a thousand, once with one of a hundred thousand, as
tops of every example give, and once with one of ten million. Images are drawn: smooth shapes with noise, about as hard to
compress as photographs of this size; in the last case almost noise alone, which is as hard as any can be.

The tables are made in a process of its own: what a process holds when it starts another one counts as memory of both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.report import Row, limit, write_report

NUM_TRAIN, NUM_TEST, NUM_CLASSES, NUM_TRIALS = 50_000, 10_000, 100, 4_000
CASES = {"1,000 pairs": (1_000, 8.0), "100,000 pairs": (100_000, 8.0), "10 million pairs, noise": (10_000_000, 80.0)}
"""How many pairs, and the standard deviation of the noise in the images, of 255."""

MOST_SECONDS, MOST_GIGABYTES, MOST_MEGABYTES = 30.0, 1.0, 15.0
REPEATS = 3


def main() -> None:
    rows: list[Row] = []
    for case, (num_pairs, noise) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            making = [sys.executable, "-m", "tests.benchmarks.bench_report", str(run), str(num_pairs), str(noise)]
            subprocess.run(making, check=True)
            rows += measured_rows(case, run, num_pairs)
    write_report("report", rows)


def measured_rows(case: str, run: Path, num_pairs: int) -> list[Row]:
    command = [str(Path(sys.executable).with_name("feldman")), "report", str(run)]
    seconds, processor_seconds, gigabytes = zip(*(measured(command) for _ in range(REPEATS)), strict=True)
    megabytes = (run / "report.html").stat().st_size / 1e6
    return [
        limit(f"{case}: time, best of {REPEATS}", min(seconds), MOST_SECONDS, "s", num_pairs),
        limit(f"{case}: processor time, worst", max(processor_seconds), MOST_SECONDS, "s", num_pairs),
        limit(f"{case}: peak memory, worst", max(gigabytes), MOST_GIGABYTES, "GB", num_pairs),
        limit(f"{case}: the file", megabytes, MOST_MEGABYTES, "MB", num_pairs),
    ]


def measured(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its wall and processor seconds, and its peak memory in GB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command[0]} failed")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def make_run(run: Path, num_pairs: int, noise: float) -> None:
    """Write a data set of images, a store that names it, and tables."""
    import numpy as np

    from feldman.data.load import load_dataset
    from feldman.experiment import Experiment
    from feldman.trials.store import TrialStore
    from tests.tables import large_pairs, pair_facts, write_memorization_columns, write_pairs

    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        coarse = rng.integers(0, 256, (num, 5, 5, 3)).astype(np.float32)
        smooth: Any = coarse.repeat(7, axis=1).repeat(7, axis=2)[:, 1:33, 1:33]
        for axis in (1, 2):
            smooth = (smooth + np.roll(smooth, 2, axis) + np.roll(smooth, -2, axis)) / 3
        arrays[f"x_{part}"] = (
            (smooth + noise * rng.standard_normal(smooth.shape, np.float32)).clip(0, 255).astype(np.uint8)
        )
        arrays[f"y_{part}"] = np.arange(num) % NUM_CLASSES
    run.mkdir(parents=True)
    np.savez(run.parent / "data.npz", allow_pickle=False, **arrays)
    subsets = {"num_trials": NUM_TRIALS, "block_size": 50}
    experiment = Experiment.model_validate(
        {"dataset": {"name": "arrays", "path": str(run.parent / "data.npz")}, "subsets": subsets}
    )
    dataset = load_dataset(experiment.dataset)
    TrialStore.create(run / "trials.zarr", experiment, dataset)
    facts = pair_facts(num_train=NUM_TRAIN, num_test=NUM_TEST, class_names=dataset.class_names)
    write_memorization_columns(run / "memorization.parquet", rng.random(NUM_TRAIN), NUM_CLASSES, facts)
    write_pairs(run / "influence.parquet", large_pairs(NUM_TRAIN, NUM_TEST, num_pairs), facts)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        make_run(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
