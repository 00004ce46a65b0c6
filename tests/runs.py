"""Runs as tests see them: their bytes, and `feldman` as processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from feldman import job
from feldman.experiment_files import load_experiment
from feldman.trials.events import read_events
from tests.conftest import cli_environment, small_arrays

__all__ = [
    "FeldmanProcess",
    "assert_same_arrays",
    "assert_same_run",
    "calls_of",
    "event_names",
    "finish",
    "kill_tree",
    "run_files",
    "wait_until",
    "write_experiment",
]

FELDMAN = (sys.executable, "-c", "from feldman.cli.app import main; main()")
TABLES = ("memorization.parquet", "influence.parquet")


def run_files(run: Path) -> dict[str, bytes]:
    """The bytes of everything in a run that has to be one however it was interrupted.

    Left out: ``train_seconds``, which is measured; the group's attributes, which tell how it was executed and by which
    versions; and what a kill may leave beside the files proper (``*.partial``, the lock, the events).
    """
    store = run / "trials.zarr"
    files = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.suffix != ".partial"
    }
    files = {name: content for name, content in files.items() if "/train_seconds/c/" not in name}
    attributes = json.loads(files.pop("trials.zarr/zarr.json"))["attributes"]
    kept = {name: attributes[name] for name in ("format", "format_version", "fingerprint", "dataset")}
    kept["subsets"] = attributes["experiment"]["subsets"]
    files["attributes"] = json.dumps(kept, sort_keys=True).encode()
    return files | {name: (run / name).read_bytes() for name in TABLES if (run / name).exists()}


def assert_same_run(run: Path, reference: Path) -> None:
    """Compare two finished runs, byte for byte; name the files that differ."""
    found, expected = run_files(run), run_files(reference)
    assert all(name in expected for name in TABLES), f"{reference} is not finished"
    differing = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    assert not differing, f"{run} differs from {reference} in {differing}"


def assert_same_arrays(run: Path, reference: Path) -> None:
    """Compare the stores of two runs, byte for byte, tables left out; name the files that differ."""
    found, expected = run_files(run), run_files(reference)
    differing = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    assert not [name for name in differing if name not in TABLES], differing


def event_names(run: Path) -> list[str]:
    return [event["event"] for event in read_events(run / "events.jsonl")]


def calls_of(log: Path) -> int:
    """How many blocks the learner of `write_experiment` has been called for."""
    return len(log.read_text().splitlines()) if log.exists() else 0


def write_experiment(folder: Path, sleep_seconds: float = 0.0, **subsets: int) -> Path:
    """Write an experiment that trains in milliseconds, and its data, into a folder; return the TOML file.

    The learner appends a line a call to ``calls.txt`` of this folder, and sleeps ``sleep_seconds`` in each. Both are part of
    what is estimated: runs that are compared have to be of one such file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", allow_pickle=False, **small_arrays())
    plan = {"num_trials": 40, "block_size": 8, "seed": 7, **subsets}
    lines = [
        '[dataset]\nname = "arrays"\npath = "data.npz"',
        '[learner]\nname = "tests.trials.scripts:logged_centroid"',
        f'[learner.parameters]\nlog = "{folder / "calls.txt"}"\nsleep_seconds = {sleep_seconds}',
        "[subsets]",
        *(f"{name} = {value}" for name, value in plan.items()),
        '[execution]\nexecutor = "in-process"',
    ]
    path = folder / "experiment.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def finish(experiment: Path, run: Path | str, *overrides: str) -> Path:
    """Run an experiment to its end in this process: begin, or go on where a run stopped."""
    job.run(load_experiment(experiment, ["execution.executor=in-process", *overrides]), run)
    return Path(run)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.01)


def kill_tree(pid: int) -> int:
    """Kill a process and all that descend from it with SIGKILL, and wait until they are gone; return how many there were.

    The parents first, so that none can start another one that was not seen.
    """
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    seen: dict[int, psutil.Process] = {}
    while tree:
        for process in tree:
            seen[process.pid] = process
            _suspend(process)
        tree = [child for process in tree for child in _children(process) if child.pid not in seen]
    for process in seen.values():
        _kill(process)
    psutil.wait_procs([process for process in seen.values() if process.pid != pid], timeout=20)
    return len(seen)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _suspend(process: psutil.Process) -> None:
    try:
        process.suspend()
    except psutil.NoSuchProcess:
        return


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


@dataclass(kw_only=True)
class Ended:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str


class FeldmanProcess:
    """``feldman ARGUMENTS`` running in a session of its own. A context manager that leaves no process behind.

    Parameters
    ----------
    folder
        Where it runs; its output goes to files there.
    arguments
        The command.
    """

    def __init__(self, folder: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.stderr")))
        self._outputs = [folder / f"{number}.stdout", folder / f"{number}.stderr"]
        with self._outputs[0].open("wb") as stdout, self._outputs[1].open("wb") as stderr:
            self._process = subprocess.Popen(
                [*FELDMAN, *map(str, arguments)],
                cwd=folder,
                env=cli_environment() if env is None else env,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def send_to_group(self, number: signal.Signals) -> None:
        """As a terminal does for Ctrl-C: to every process of the foreground group."""
        os.killpg(self.pid, number)

    def kill_tree(self) -> int:
        count = kill_tree(self.pid)
        self._process.wait()
        return count

    def ended(self, seconds: float = 120) -> Ended:
        code = self._process.wait(timeout=seconds)
        stdout, stderr = (path.read_text() for path in self._outputs)
        return Ended(code=code, stdout=stdout, stderr=stderr)

    def __enter__(self) -> FeldmanProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill_tree()
