"""`make bench-training`: models a second on all cores, beside the plain PyTorch loop a user would write, and beside the floor.

The plain loop trains one model after the other, in one process a core, in float32. feldman's side trains blocks in as many
processes, through the very task that Ray's workers run. Both train a little before the clock starts: workers live long. The
floor is the time of a trial's matrix products alone, at the rate that large products of the same precision reach here.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.utils.benchmark

from feldman.trials.executor import usable_cores
from tests.benchmarks.report import Row, write_report

FASHION = {"name": "fashion-mnist", "num_train": 10_000, "num_test": 10_000}

# What a user would write; the data come from the same loader, scaled once.
PLAIN_LOOP = """
import json, sys, time, torch
from torch import nn
from feldman.data.load import load_dataset
from feldman.experiment import DatasetSection
torch.set_num_threads(1)
work, num_trials, core = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data = load_dataset(DatasetSection.model_validate(work["dataset"]))
def tensors(x, y):
    x = (torch.from_numpy(x.copy()).float() - data.shift) * data.scale
    x = x.flatten(1) if work["learner"]["name"] == "mlp" else x.permute(0, 3, 1, 2).contiguous()
    return x, torch.from_numpy(y.copy()).long()
(x, y), (x_test, y_test) = tensors(data.x_train, data.y_train), tensors(data.x_test, data.y_test)
def build():
    if work["learner"]["name"] == "mlp":
        widths = [x.shape[1], *work["learner"]["hidden"], 10]
        layers = [layer for k in range(len(widths) - 1) for layer in (nn.Linear(widths[k], widths[k + 1]), nn.ReLU())]
        return nn.Sequential(*layers[:-1])
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 7 * 7, 10))
recipe, accuracies = work["training"], []
for trial in range(-1, num_trials):
    if trial == 0:
        accuracies, started = [], time.perf_counter()
    torch.manual_seed(core * 1000 + trial + 1)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe["learning_rate"], momentum=recipe["momentum"])
    subset = torch.randperm(len(x))[:round(0.7 * len(x))]
    for _ in range(recipe["epochs"]):
        for batch in subset[torch.randperm(len(subset))].split(recipe["batch_size"]):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        train_correct = torch.cat([model(part).argmax(1) for part in x.split(1000)]) == y
        predicted = torch.cat([model(part).argmax(1) for part in x_test.split(1000)])
        accuracies.append((predicted == y_test).float().mean().item())
print(num_trials / (time.perf_counter() - started), sum(accuracies) / num_trials)
"""

FELDMAN_BLOCK = """
import json, sys, time
from feldman.data.load import load_dataset
from feldman.experiment import Experiment
from feldman.trials.task import prepare_block_task
work, num_trials, core = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
subsets = {"num_trials": num_trials * 100, "block_size": num_trials}
experiment, warm = (Experiment.model_validate({**work, "training": {**work["training"], **change}, "subsets": subsets})
                    for change in ({}, {"epochs": 1}))
task, warm_task = (prepare_block_task(one, (), load_dataset(one.dataset)) for one in (experiment, warm))
warm_task(99)
started = time.perf_counter()
result = task(core)
print(num_trials / (time.perf_counter() - started), result.test_accuracy.mean())
"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One comparison: what is trained, how many trials a process, and how many times faster it has to be."""

    name: str
    dataset: dict[str, Any]
    learner: dict[str, Any]
    training: dict[str, Any]
    inputs: tuple[int, int]
    plain_trials: int
    block: int
    at_least: float

    def as_json(self, precision: str) -> str:
        training = {**self.training, "precision": precision}
        return json.dumps({"dataset": self.dataset, "learner": self.learner, "training": training})

    @property
    def products(self) -> float:
        """Floating-point operations of one trial's matrix products: forward, and backward twice as many."""
        num_examples, num_features = self.inputs
        if self.learner["name"] == "mlp":
            widths = [num_features, *self.learner["hidden"], 10]
            macs = sum(int(low) * int(high) for low, high in pairwise(widths))
        else:
            macs = 28 * 28 * 9 * 16 + 14 * 14 * 9 * 16 * 32 + 32 * 7 * 7 * 10
        return 6.0 * macs * round(0.7 * num_examples) * int(self.training["epochs"])


WORKS = [
    Work(
        name="digits, MLP 64-128-10",
        dataset={"name": "digits"},
        learner={"name": "mlp", "hidden": [128]},
        training={"epochs": 30, "batch_size": 64, "learning_rate": 0.1, "momentum": 0.9},
        inputs=(1437, 64),
        plain_trials=40,
        block=50,
        at_least=4,
    ),
    Work(
        name="Fashion-MNIST 10,000, MLP 784-512-256-10",
        dataset=FASHION,
        learner={"name": "mlp", "hidden": [512, 256]},
        training={"epochs": 10, "batch_size": 128, "learning_rate": 0.1, "momentum": 0.9},
        inputs=(10_000, 784),
        plain_trials=5,
        block=10,
        at_least=2.5,
    ),
    Work(
        name="Fashion-MNIST 10,000, CNN 16-32",
        dataset=FASHION,
        learner={"name": "cnn", "channels": [16, 32]},
        training={"epochs": 2, "batch_size": 64, "learning_rate": 0.05, "momentum": 0.9},
        inputs=(10_000, 784),
        plain_trials=3,
        block=4,
        at_least=1.7,
    ),
]


def main() -> None:
    rows = []
    for work in WORKS:
        sides: dict[str, list[tuple[float, float]]] = {"plain": [], "float32": [], "bfloat16": []}
        for _ in range(2):
            sides["plain"].append(on_all_cores(PLAIN_LOOP, work.as_json("float32"), work.plain_trials))
            for precision in ("float32", "bfloat16"):
                sides[precision].append(on_all_cores(FELDMAN_BLOCK, work.as_json(precision), work.block))
        rates = {side: statistics.mean(rate for rate, _ in runs) for side, runs in sides.items()}
        accuracies = {side: statistics.mean(accuracy for _, accuracy in runs) for side, runs in sides.items()}
        for precision in ("float32", "bfloat16"):
            floor = usable_cores() * peak_flops(precision) / work.products
            print(
                f"{work.name}, {precision}: {rates[precision]:.3g} trials/s, {rates[precision] / floor:.0%} of the floor, test "
                f"accuracy {accuracies[precision]:.2%}; plain loop {rates['plain']:.3g} trials/s, {accuracies['plain']:.2%}",
                flush=True,
            )
        best = max(("float32", "bfloat16"), key=lambda precision: rates[precision])
        same = abs(accuracies[best] - accuracies["plain"]) <= 0.005
        rows.append(
            Row(
                name=f"{work.name} ({best})",
                value=rates[best],
                unit="trials/s",
                yardstick=rates["plain"],
                ratio=rates[best] / rates["plain"] if same else 0.0,
                at_least=work.at_least,
                n=work.block * usable_cores(),
            )
        )
    write_report("training", rows)


def on_all_cores(script: str, work: str, num_trials: int) -> tuple[float, float]:
    """Run a script in one process a core; return the trials a second of all together, and their mean test accuracy."""
    commands = [[sys.executable, "-c", script, work, str(num_trials), str(core)] for core in range(usable_cores())]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate()[0].split() for process in processes]
    return sum(float(rate) for rate, _ in outputs), statistics.mean(float(accuracy) for _, accuracy in outputs)


def peak_flops(precision: str) -> float:
    """Rate of large matrix products on one thread, in floating-point operations a second."""
    torch.set_num_threads(1)
    size, dtype = 1024, torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = math.inf
    for _ in range(8):
        seconds = torch.utils.benchmark.Timer("left @ right", globals={"left": left, "right": right}).timeit(3).mean
        best = min(best, seconds)
    return 2 * size**3 / best


if __name__ == "__main__":
    print(f"{usable_cores()} cores")
    main()
