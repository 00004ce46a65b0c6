"""`make bench-run`: the main job on the digits, beside what a user would do by hand."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import zarr

from feldman.trials.executor import usable_cores
from tests.benchmarks.report import Row, limit, write_report
from tests.estimates import oracle

NUM_PLAIN_TRIALS = 60
FELDMAN = [str(Path(sys.executable).with_name("feldman"))]

# What a user would write: one process a core, one model after the other.
PLAIN_LOOP = """
import sys, time, torch
from torch import nn
from feldman.data.digits import load_digits
torch.set_num_threads(1)
data = load_digits()
scaled = lambda x: (torch.from_numpy(x).flatten(1).float() - data.shift) * data.scale
x, y = scaled(data.x_train), torch.from_numpy(data.y_train)
x_test, y_test = scaled(data.x_test), torch.from_numpy(data.y_test)
accuracies, num_trials, started = [], int(sys.argv[1]), None
for trial in range(-1, num_trials):
    if trial == 0:
        started = time.perf_counter()
    torch.manual_seed(int(sys.argv[2]) * 1000 + trial)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    subset = torch.randperm(len(x))[:round(0.7 * len(x))]
    for _ in range(30):
        for batch in subset[torch.randperm(len(subset))].split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        train_correct = model(x).argmax(1) == y
        accuracies.append((model(x_test).argmax(1) == y_test).float().mean().item())
print(num_trials / (time.perf_counter() - started), sum(accuracies[1:]) / num_trials)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain_before = plain_trials_per_second()
        run_path = Path(folder) / "digits"
        started = time.perf_counter()
        subprocess.run([*FELDMAN, "run", "digits", "-o", str(run_path)], check=True)
        whole_seconds = time.perf_counter() - started
        plain_after = plain_trials_per_second()
        plain, plain_accuracy = (statistics.mean(pair) for pair in zip(plain_before, plain_after, strict=True))
        rate, training_seconds, num_trials = training_speed(run_path)
        accuracy = float(np.mean(np.asarray(zarr.open_array(run_path / "trials.zarr" / "test_accuracy", mode="r")[:])))
        help_seconds = statistics.median(command_seconds(["--help"]) for _ in range(7))
        query_seconds = statistics.median(command_seconds(["pairs", str(run_path)]) for _ in range(5))
        print(f"mean test accuracy: feldman {100 * accuracy:.2f}%, plain loop {100 * plain_accuracy:.2f}%")
        write_report(
            "run",
            [
                Row(
                    name="digits, MLP: trials a second, plain loop", value=rate, unit="trials/s", yardstick=plain,
                    ratio=rate / plain, at_least=1, n=num_trials,
                ),
                limit("digits: training of 2,000 trials", training_seconds, 120, "s", num_trials),
                limit("digits: whole `feldman run`", whole_seconds, 240, "s", 1),
                limit("`feldman --help`, median", help_seconds, 0.5, "s", 7),
                limit("`feldman pairs`, median", query_seconds, 2.0, "s", 5),
                limit("estimates: largest difference from the dense formula", *difference(run_path)),
            ],
        )  # fmt: skip


def plain_trials_per_second() -> tuple[float, float]:
    """Return the trials a second of all processes together, and their mean test accuracy."""
    commands = [[sys.executable, "-c", PLAIN_LOOP, str(NUM_PLAIN_TRIALS), str(core)] for core in range(usable_cores())]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate()[0].split() for process in processes]
    return sum(float(speed) for speed, _ in outputs), statistics.mean(float(accuracy) for _, accuracy in outputs)


def training_speed(run_path: Path) -> tuple[float, float, int]:
    """Return trials a second and seconds from the start of the workers to the last commit, and the number of trials."""
    events = [json.loads(line) for line in (run_path / "events.jsonl").read_text().splitlines()]
    times = {event["event"]: datetime.fromisoformat(event["time"]) for event in events}
    seconds = (times["block_committed"] - times["training_started"]).total_seconds()
    num_trials = next(event["num_trials"] for event in events if event["event"] == "run_created")
    return num_trials / seconds, seconds, num_trials


def command_seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([*FELDMAN, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def difference(run_path: Path) -> tuple[float, float, str, int]:
    """Return the largest difference of any estimate in the tables from the dense float64 formula, and its limit."""
    group = {name: zarr.open_array(run_path / "trials.zarr" / name, mode="r")[:] for name in
             ("subset_mask", "train_correct", "test_correct")}  # fmt: skip
    memorization = oracle.memorization(np.asarray(group["subset_mask"]), np.asarray(group["train_correct"]))
    influence = oracle.influence(np.asarray(group["subset_mask"]), np.asarray(group["test_correct"]))
    table = pq.read_table(run_path / "memorization.parquet")
    pairs = pq.read_table(run_path / "influence.parquet")
    kept = np.nonzero((influence >= 0.15) & (memorization >= 0.25)[:, None])
    if not np.array_equal(np.stack(kept), np.stack([pairs["train_index"].to_numpy(), pairs["test_index"].to_numpy()])):
        raise SystemExit("the selected pairs are not those of the dense formula")
    worst = max(
        float(np.abs(table["memorization"].to_numpy() - memorization).max()),
        float(np.abs(pairs["influence"].to_numpy() - influence[kept]).max(initial=0)),
    )
    return worst, 1e-6, "", memorization.size + influence.size


if __name__ == "__main__":
    main()
