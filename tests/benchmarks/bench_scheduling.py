"""`make bench-scheduling`: what the machinery around training costs, in time and in memory.

Three questions, each put to `feldman run` in a process of its own, watched from outside:

1. *Busy*: the digits preset, whose blocks take seconds. A block's training is taken to fill the ``train_seconds`` before its
   commit. The window opens when as many blocks have arrived as there are workers, and closes with the last commit; the figure
   is the training inside the window, divided by the window's length and the number of workers. So it counts as lost whatever is
   not training: drawing subsets, packing, Ray, waiting for the driver's commit, and the last block that has no companion.
2. *Commits*: 20,000 trials of CIFAR-100's row lengths in blocks of 10, whose learner returns at once. Commits are counted from
   the first to the last. The driver's memory is sampled ten times a second; its growth is that of a straight line through
   the samples after the first tenth of the commits, from their first to their last.
3. *One copy*: a data set of 600 MB, and 1, 2 and 4 workers that train linear models on all of it. Proportional set sizes (PSS: a
   page that n processes share counts as 1/n in each) of the workers, of the driver and of Ray's daemons, at the moment when the
   workers have most; less those of the same processes with 30 MB of the same data, which fill every buffer that a batch needs;
   in units of the 570 MB that are left. So 1 is one copy between them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import zarr

from feldman.experiment import Experiment
from feldman.experiment_files import experiment_to_toml, load_experiment
from feldman.trials.events import read_events
from feldman.trials.layout import BIT_ARRAYS
from tests.benchmarks.report import FOLDER, Row, limit, write_report
from tests.runs import kill_tree

FELDMAN = (sys.executable, "-c", "from feldman.cli.app import main; main()")
"""Started in the current folder, so that Ray's workers can import the learners of `tests`."""

NUM_NOOP_TRIALS, NOOP_BLOCK_SIZE = 20_000, 10
NUM_EXAMPLES, NUM_BASE_EXAMPLES, EXAMPLE_SHAPE = 195_000, 10_000, (32, 32, 3)
MEGABYTE = 1e6


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="feldman-bench-", dir=FOLDER
    ) as folder:  # a disk, as runs have; /tmp may be none
        write_report("scheduling", [*busy(Path(folder)), *commits(Path(folder)), *copies(Path(folder))])


def run_watched(
    experiment: Experiment, run: Path, look: Callable[[psutil.Process], None], every_seconds: float, *options: str
) -> None:
    """Run an experiment to its end in a process of its own; look at the process now and then."""
    toml = run.with_suffix(".toml")
    toml.write_text(experiment_to_toml(experiment))
    process = subprocess.Popen([*FELDMAN, "run", str(toml), "-o", str(run), *options], stderr=subprocess.DEVNULL)
    try:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            look(watched)
            time.sleep(every_seconds)
    finally:
        kill_tree(process.pid)
    if process.returncode != 0:
        raise SystemExit(f"`feldman run {toml}` ended with exit code {process.returncode}")


def commits_of(run: Path) -> list[tuple[float, float]]:
    """Return when each block was committed, in seconds since the epoch, and how many seconds it had trained; in order."""
    return [
        (datetime.fromisoformat(event["time"]).timestamp(), event["seconds"])
        for event in read_events(run / "events.jsonl")
        if event["event"] == "block_committed"
    ]


def num_workers_of(run: Path) -> int:
    return next(int(event["num_workers"]) for event in read_events(run / "events.jsonl") if "num_workers" in event)


# 1. Busy


def busy(folder: Path) -> list[Row]:
    run = folder / "digits"
    run_watched(load_experiment("digits"), run, lambda process: None, 1.0)
    commits, workers = commits_of(run), num_workers_of(run)
    share = busy_share(commits, workers)
    shortest = min(seconds for _, seconds in commits)
    print(f"busy: {len(commits)} blocks of {shortest:.2f} s or more on {workers} workers")
    return [
        Row(
            name=f"share of time in training, blocks of {shortest:.1f} s or more", value=share, unit="", yardstick=0.95,
            ratio=share / 0.95, at_least=1, n=len(commits),
        )
    ]  # fmt: skip


def busy_share(commits: list[tuple[float, float]], num_workers: int) -> float:
    """Return the share of the workers' time that was training, after the first block of each."""
    opens, closes = commits[num_workers - 1][0], commits[-1][0]
    trained = sum(max(0.0, ended - max(opens, ended - seconds)) for ended, seconds in commits)
    return trained / (num_workers * (closes - opens))


# 2. Commits


@dataclass(kw_only=True)
class Memory:
    """A driver's memory over time: its own, and what it sees of Ray's object store."""

    times: list[float] = field(default_factory=list)
    own_bytes: list[int] = field(default_factory=list)
    all_bytes: list[int] = field(default_factory=list)

    def look(self, process: psutil.Process) -> None:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        if "VmRSS" in status:  # not so once it has ended
            self.times.append(time.time())
            self.all_bytes.append(int(status["VmRSS"].split()[0]) * 1024)
            self.own_bytes.append(int(status["RssAnon"].split()[0]) * 1024)


def commits(folder: Path) -> list[Row]:
    experiment = Experiment.model_validate(
        {
            "dataset": {"name": "tests.benchmarks.noop:rows_of_cifar100"},
            "learner": {"name": "tests.benchmarks.noop:at_once"},
            "subsets": {"num_trials": NUM_NOOP_TRIALS, "block_size": NOOP_BLOCK_SIZE},
        }
    )
    run, memory = folder / "noop", Memory()
    run_watched(experiment, run, memory.look, 0.1)
    times = [when for when, _ in commits_of(run)]
    rate = (len(times) - 1) / (times[-1] - times[0])
    window = [k for k, when in enumerate(memory.times) if times[len(times) // 10] <= when <= times[-1]]
    growth = {
        name: float(np.polyfit(window, [values[k] for k in window], 1)[0]) * len(window)
        for name, values in (("own", memory.own_bytes), ("all", memory.all_bytes))
    }
    print(
        f"commits: {len(times)} in {times[-1] - times[0]:.1f} s; the driver's memory from "
        f"{memory.all_bytes[window[0]] / MEGABYTE:.0f} to {memory.all_bytes[window[-1]] / MEGABYTE:.0f} MB, of which its own "
        f"{memory.own_bytes[window[0]] / MEGABYTE:.0f} to {memory.own_bytes[window[-1]] / MEGABYTE:.0f} MB"
    )
    size = sum(file.stat().st_size for file in (run / "trials.zarr").rglob("*") if file.is_file())
    print(f"commits: the store has {size / MEGABYTE:.0f} MB, bits {8 * size / stored_bits(run):.3f} bit a bit")
    return [
        Row(
            name="blocks committed a second, no-op learner", value=rate, unit="blocks/s", yardstick=100, ratio=rate / 100,
            at_least=1, n=len(times),
        ),
        limit("growth of the driver's memory in the run", growth["all"] / MEGABYTE, 10, "MB", len(window)),
    ]  # fmt: skip


def stored_bits(run: Path) -> int:
    arrays = (zarr.open_array(run / "trials.zarr" / name, mode="r") for name in BIT_ARRAYS)
    return sum(array.shape[0] * array.shape[1] for array in arrays)


# 3. One copy


@dataclass(kw_only=True)
class Sharing:
    """Proportional set sizes, in bytes, when the workers had most."""

    workers: int = 0
    driver: int = 0
    daemons: int = 0

    def look(self, process: psutil.Process) -> None:
        try:
            family = {member.pid: member.cmdline() for member in process.children(recursive=True)}
        except psutil.NoSuchProcess:
            return
        workers = [pid for pid, words in family.items() if words and words[0].startswith("ray::_Worker")]
        held = sum(pss_bytes(pid) for pid in workers)
        if held > self.workers:
            self.workers, self.driver = held, pss_bytes(process.pid)
            self.daemons = sum(pss_bytes(pid) for pid in family if pid not in workers)


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def copies(folder: Path) -> list[Row]:
    rows = []
    paths = {
        (kind, size): data_of(folder / f"{size}{suffix}", size)
        for kind, suffix in (("in memory", ".npz"), ("mapped", ""))
        for size in (NUM_EXAMPLES, NUM_BASE_EXAMPLES)
    }
    unit = float(NUM_EXAMPLES - NUM_BASE_EXAMPLES) * float(np.prod(EXAMPLE_SHAPE))
    print(f"{'data set':12} {'workers':>7} | copies held by the workers, the driver, the daemons, all together")
    for kind in ("in memory", "mapped"):
        for num_workers in (1, 2, 4):
            whole, base = (
                sharing(folder, paths[kind, size], size, num_workers) for size in (NUM_EXAMPLES, NUM_BASE_EXAMPLES)
            )
            held = [(getattr(whole, who) - getattr(base, who)) / unit for who in ("workers", "driver", "daemons")]
            print(f"{kind:12} {num_workers:7} | {' '.join(f'{copies:6.2f}' for copies in [*held, sum(held)])}")
            name = f"copies of the data, {kind}, in {num_workers} worker{'s' * (num_workers > 1)}"
            rows.append(limit(name, held[0], 1.1, "copies", num_workers))
    return rows


def sharing(folder: Path, path: Path, num_examples: int, num_workers: int) -> Sharing:
    """Train on a data set for some seconds, so that no peak is missed; return who held what."""
    trials_a_worker = 3 if num_examples == NUM_EXAMPLES else 25
    experiment = Experiment.model_validate(
        {
            "dataset": {"name": "arrays", "path": str(path.absolute())},
            "learner": {"name": "linear"},
            "training": {"epochs": 1, "batch_size": 512, "learning_rate": 0.01},
            "subsets": {"num_trials": trials_a_worker * num_workers, "block_size": 1},
            "execution": {"num_workers": num_workers},
        }
    )
    found = Sharing()
    with tempfile.TemporaryDirectory(dir=folder) as run:
        run_watched(experiment, Path(run) / "run", found.look, 0.25)
    return found


def data_of(path: Path, num_examples: int) -> Path:
    """Write random images as an .npz file, or as a folder of .npy files."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (num_examples, *EXAMPLE_SHAPE), np.uint8),
        "y_train": np.arange(num_examples) % 10,
        "x_test": rng.integers(0, 256, (100, *EXAMPLE_SHAPE), np.uint8),
        "y_test": np.arange(100) % 10,
    }
    if path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **arrays)
    else:
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    return path


if __name__ == "__main__":
    main()
