"""`make bench-estimates`: from a store on disk to finished tables at CIFAR-100's shape, beside the authors' dense formula."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feldman.estimates import kernel
from feldman.estimates.packing import popcount
from feldman.trials.executor import usable_cores
from tests.benchmarks.report import Row, limit, write_report
from tests.benchmarks.stores import CIFAR100, Shape, make_store

NUM_TILES = -(-CIFAR100.num_test // kernel.LANES)

# The authors' formula (mnist-example in their repository), with the selection and one file at the end; arrays from the store.
DENSE = """
import sys, numpy as np, zarr
group = {n: zarr.open_array(sys.argv[1] + "/trials.zarr/" + n, mode="r")[:] for n in
         ("subset_mask", "train_correct", "test_correct")}
mask, inverse = group["subset_mask"].astype(np.float32), (~group["subset_mask"]).astype(np.float32)
def masked_average(x, mask):
    return (x * mask).sum(axis=0) / np.maximum(mask.sum(axis=0), 1e-10)
def masked_dot(x, mask):
    return np.matmul(x.T.astype(np.float32), mask) / np.maximum(mask.sum(axis=0, keepdims=True), 1e-10)
mem = masked_average(group["train_correct"], mask) - masked_average(group["train_correct"], inverse)
infl = masked_dot(group["test_correct"], mask) - masked_dot(group["test_correct"], inverse)
test, train = np.nonzero((infl >= 0.15) & (mem >= 0.25))
np.savez(sys.argv[1] + "/dense.npz", mem=mem, train=train, test=test, infl=infl[test, train])
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [*cifar_rows(Path(folder) / "run"), kernel_row(), *scaling_rows(Path(folder))]
    write_report("estimates", rows)


def cifar_rows(run: Path) -> list[Row]:
    """The engine beside the dense formula, each in processes of its own, in turn."""
    print("making a store of CIFAR-100's shape ...")
    make_store(run, CIFAR100)
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    estimate(run, environment)  # compiles the kernel, once for ever
    engine, dense = [], []
    for _ in range(3):
        engine += [estimate(run, environment) for _ in range(2)]
        dense.append(measured([sys.executable, "-c", DENSE, str(run)], environment))
    print(f"tables agree with the dense formula: {agreement(run)}")
    seconds, yardstick = min(engine)[0], min(dense)[0]
    memory, dense_memory = (max(peak for _, peak in runs) for runs in (engine, dense))
    return [
        Row(name="CIFAR-100's shape, store to tables", value=seconds, unit="s", yardstick=yardstick,
            ratio=yardstick / seconds, at_least=12, n=CIFAR100.num_pairs),
        Row(name="the same, median of all", value=median(engine), unit="s", yardstick=median(dense),
            ratio=median(dense) / median(engine), at_least=12, n=CIFAR100.num_pairs),
        limit("the same, peak memory", memory, 1.0, "GB", CIFAR100.num_pairs),
        Row(name="dense formula, peak memory", value=dense_memory, unit="GB", yardstick=dense_memory, ratio=1, at_least=0,
            n=CIFAR100.num_pairs),
    ]  # fmt: skip


def median(runs: list[tuple[float, float]]) -> float:
    return float(np.median([seconds for seconds, _ in runs]))


def kernel_row() -> Row:
    reached, peak = kernel_words_per_second(), peak_words_per_second()
    return Row(name="kernel, words a second and core", value=reached / 1e9, unit="1e9/s", yardstick=peak / 1e9,
               ratio=reached / peak, at_least=0.6, n=CIFAR100.num_pairs)  # fmt: skip


def scaling_rows(folder: Path) -> list[Row]:
    """Every pair is counted while both numbers of examples double, twice: time grows four times, memory does not."""
    rows: list[Row] = []
    print(f"{'train':>8} {'test':>7} {'pairs':>8} {'seconds':>8} {'peak GB':>8}")
    first = None
    for doubling in range(3):
        shape = Shape(num_train=75_000 << doubling, num_test=12_500 << doubling, num_trials=2_000)
        run = folder / f"doubled-{doubling}"
        make_store(run, shape)
        seconds, peak = min(estimate(run, dict(os.environ), "--min-memorization", "-1") for _ in range(2))
        print(f"{shape.num_train:8,} {shape.num_test:7,} {shape.num_pairs:8.1e} {seconds:8.2f} {peak:8.3f}")
        first = first or (seconds, peak)
        if doubling:
            rows.append(
                limit(f"{4**doubling} x the pairs, memory", peak / first[1], 1.25**doubling, "x", shape.num_pairs)
            )
            rows.append(
                limit(f"{4**doubling} x the pairs, time", seconds / first[0], 1.1 * 4**doubling, "x", shape.num_pairs)
            )
        shutil.rmtree(run)
    return rows


def estimate(run: Path, environment: dict[str, str], *options: str) -> tuple[float, float]:
    return measured([str(Path(sys.executable).with_name("feldman")), "estimate", str(run), *options], environment)


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its wall seconds and its peak memory in GB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command[0]} failed")
    return seconds, usage.ru_maxrss * 1024 / 1e9


def agreement(run: Path) -> str:
    """Compare the tables with the dense formula's file."""
    import pyarrow.parquet as pq

    dense = np.load(run / "dense.npz")
    memorization = pq.read_table(run / "memorization.parquet")["memorization"].to_numpy()
    pairs = pq.read_table(run / "influence.parquet")
    found = dict(zip(zip(pairs["train_index"].to_pylist(), pairs["test_index"].to_pylist(), strict=True),
                     pairs["influence"].to_pylist(), strict=True))  # fmt: skip
    expected = dict(zip(zip(dense["train"].tolist(), dense["test"].tolist(), strict=True), dense["infl"], strict=True))
    common = found.keys() & expected.keys()
    worst = max((abs(found[pair] - float(expected[pair])) for pair in common), default=0.0)
    # float32 decides some pairs on the very threshold the other way
    return (
        f"{len(common)} pairs in both, {len(found.keys() ^ expected.keys())} in one, largest difference "
        f"{max(worst, float(np.abs(memorization - dense['mem']).max())):.1e}"
    )


def kernel_words_per_second() -> float:
    """Speed of the selecting kernel on one core, at 4,000 trials, from data that do not stay in cache."""
    rng = np.random.default_rng(0)
    rows, tests = random_words(rng, (64, 64)), random_words(rng, (NUM_TILES, 64, kernel.LANES))
    padded = NUM_TILES * kernel.LANES
    arguments = (
        np.full((64, 2), 2048.0), np.tile([1024.0, 0.5], (64, 1)), np.full(64, -1), np.full((NUM_TILES, kernel.LANES), 2048.0),
        0.3, (np.empty((64, 0)), np.empty((64, 0, 2), np.int32)),
        (np.empty((padded, 0)), np.empty((padded, 0, 2), np.int32), np.empty(padded)), np.empty((1 << 20, 3), np.int32),
    )  # fmt: skip
    segments = np.array([[0, 64, 0, NUM_TILES]])
    return best_rate(
        lambda: kernel.select_counts(rows, tests, segments, np.array([0, -1]), *arguments), rows.size * padded
    )


def peak_words_per_second() -> float:
    """AND, population count and addition on words that stay in the first-level cache, and nothing else."""
    rng = np.random.default_rng(0)
    words, sums = random_words(rng, (64,)), np.zeros(64, np.uint64)
    repeats = 100_000
    return best_rate(lambda: and_popcount_add(words, sums, repeats), repeats * 4 * 64)


@njit(nogil=True)
def and_popcount_add(words: NDArray[np.uint64], sums: NDArray[np.uint64], repeats: int) -> None:
    for k in range(repeats):
        a = np.uint64(k) * np.uint64(0x9E3779B97F4A7C15)
        b, c, d = a ^ np.uint64(0xFFFF), a << np.uint64(7), a >> np.uint64(3)
        for lane in range(64):
            word = words[lane]
            sums[lane] += popcount(a & word) + popcount(b & word) + popcount(c & word) + popcount(d & word)


def best_rate(work: object, words: int) -> float:
    work()  # type: ignore[operator]
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        work()  # type: ignore[operator]
        seconds.append(time.perf_counter() - started)
    return words / min(seconds)


def random_words(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


if __name__ == "__main__":
    print(f"{usable_cores()} cores")
    main()
