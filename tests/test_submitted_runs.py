"""Submitted runs end to end, on head nodes that are started here: with a token and without."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from feldman import submission
from feldman.trials.events import read_events
from feldman.trials.rundir import run_paths, writer_lock
from tests.commands import Answer, Commands
from tests.conftest import REPOSITORY, cli_environment, small_arrays
from tests.heads import Head, ray_head
from tests.runs import FeldmanProcess, assert_same_run, event_names, finish, wait_until, write_experiment

pytestmark = pytest.mark.ray

TOKEN = secrets.token_hex(32)

LEARNER = '''
"""The nearest centroid, slowly: it waits while the file `hold` is there, and notes which feldman runs it."""
import time
from pathlib import Path

import numpy as np

import feldman


def learn(dataset, masks, seeds, parameters):
    place = Path(parameters["place"])
    (place / "package").write_text(feldman.__file__)
    time.sleep(0.1)
    while (place / "hold").exists():
        time.sleep(0.05)
    bits = []
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        rows = []
        for mask, seed in zip(masks, seeds):
            x_in, y_in = dataset.x_train[mask], dataset.y_train[mask]
            means = np.array([x_in[y_in == c].mean(axis=0) for c in range(3)]).astype(float)
            means += np.random.default_rng(int(seed)).normal(scale=0.3, size=means.shape)
            rows.append(((x[:, None] - means) ** 2).sum(axis=2).argmin(axis=1) == y)
        bits.append(np.array(rows))
    return tuple(bits)
'''


@pytest.fixture(scope="module", params=["token", "open"])
def head(request: pytest.FixtureRequest) -> Iterator[Head]:
    """A head node that asks for a token, and then one that does not."""
    with ray_head(TOKEN if request.param == "token" else None) as running:
        yield running


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder: an experiment, its learner and its data; and beside it `place`, which every machine sees."""
    folder, place = tmp_path / "it's mine", tmp_path / "place"
    folder.mkdir()
    place.mkdir()
    np.savez(folder / "data.npz", allow_pickle=False, **small_arrays())
    (folder / "my_learner.py").write_text(LEARNER)
    (folder / "experiment.toml").write_text(
        f'[dataset]\nname = "arrays"\npath = "data.npz"\n[learner]\nname = "my_learner:learn"\n'
        f'[learner.parameters]\nplace = "{place}"\n[subsets]\nnum_trials = 60\nblock_size = 2\nseed = 3\n'
    )
    return folder


def environment(head: Head) -> dict[str, str]:
    """That of a user who has the token's file, and has set nothing else of Ray's."""
    found = {name: value for name, value in cli_environment().items() if not name.startswith("RAY_")}
    if head.token is None:
        return found
    return found | {"RAY_AUTH_TOKEN_PATH": head.environment["RAY_AUTH_TOKEN_PATH"]}


def ray_job(head: Head, *words: str) -> str:
    """Ray's own command on the job, as `feldman submit` says to type it."""
    mode = {"RAY_AUTH_MODE": "token" if head.token else "disabled"}
    ran = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "job", words[0], "--address", head.url, *words[1:]],
        env=environment(head) | mode, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture
def feldman(
    head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Commands:
    """The commands, in this process, of a user who has the token."""
    for name, value in environment(head).items():
        if name.startswith("RAY_AUTH"):
            monkeypatch.setenv(name, value)
    return Commands(tmp_path, capsys)


def jobs(feldman: Commands, head: Head) -> dict[str, dict[str, str]]:
    answer = feldman("jobs", "--address", head.url, "--json")
    assert answer.code == 0, answer.err
    return {job["submission_id"]: job for job in json.loads(answer.out)}


def test_submit_follow_leave_stop_and_resume_give_the_bytes_of_an_undisturbed_run(
    head: Head, mine: Path, tmp_path: Path, feldman: Commands
) -> None:
    place, run = tmp_path / "place", tmp_path / "a 'run'"
    arguments = [
        "submit",
        str(mine / "experiment.toml"),
        "-o",
        str(run),
        "--address",
        head.url,
        "--working-dir",
        str(mine),
    ]
    with FeldmanProcess(tmp_path, *arguments, "--json", "--follow", env=environment(head)) as follower:
        wait_until(lambda: not follower.running or "block_committed" in event_names(run), "a block is committed")
        assert follower.running, follower.ended().stderr
        (place / "hold").touch()
        ((job, record),) = jobs(feldman, head).items()
        assert (record["run"], record["status"]) == (str(run), "RUNNING")
        assert record["progress"].startswith("training: ")
        again = feldman(*arguments)
        assert again.code == 1
        assert "is being written by " in again.err
        wait_until(lambda: "training: " in (tmp_path / "0.stderr").read_text(), "its progress is shown")
        follower.send(signal.SIGINT)
        left = follower.ended()
    assert left.code == 130
    assert json.loads(left.stdout)["submission_id"] == job
    assert f"job {job} goes on. Follow it again: " in left.stderr
    assert ("answers without a token" in left.stderr) == (head.token is None)
    assert jobs(feldman, head)[job]["status"] == "RUNNING"
    _assert_no_token_on_show(run, left.stdout + left.stderr + ray_job(head, "logs", job))

    ray_job(head, "stop", "--no-wait", job)
    time.sleep(4)  # more than the 3 s that Ray would give
    committed = event_names(run).count("block_committed")
    (place / "hold").unlink()
    wait_until(lambda: jobs(feldman, head)[job]["status"] == "STOPPED", "the job has ended")
    assert event_names(run)[-1] == "interrupted"
    assert committed < event_names(run).count("block_committed") < 30, "blocks in flight are waited for"
    assert "trials are safe. Go on with: feldman resume" in jobs(feldman, head)[job]["progress"]

    resumed = feldman(*arguments, "--follow")
    assert resumed.code == 0, resumed.err
    assert "of 60 trials" not in resumed.out
    assert feldman("memorized", str(run), "--top", "3").code == 0
    assert "_ray_pkg_" in (place / "package").read_text(), "the job ran the feldman that was sent"
    _assert_each_block_was_committed_once(run)
    if head.token is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(mine)
        reference = finish(mine / "experiment.toml", tmp_path / "reference")
    assert_same_run(run, reference)


def _assert_each_block_was_committed_once(run: Path) -> None:
    blocks = [event["block"] for event in read_events(run / "events.jsonl") if event["event"] == "block_committed"]
    assert sorted(blocks) == list(range(30))


def _assert_no_token_on_show(run: Path, printed: str) -> None:
    """Neither in what a run keeps, nor in what is printed, nor in any process's command line."""
    kept = [path.name for path in run.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []
    assert TOKEN not in printed
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert [line for line in lines if TOKEN in line] == []


def _submitted(feldman: Commands, head: Head, experiment: Path, run: Path, *options: str) -> Answer:
    return feldman(
        "submit", str(experiment), "-o", str(run), "--address", head.url, "--follow", "--installed", *options
    )


def test_a_job_that_fails_is_told_as_feldman_run_would_tell_it(
    head: Head, tmp_path: Path, feldman: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(REPOSITORY) == head.environment["PYTHONPATH"], "the cluster has this feldman, too"
    experiment, run = write_experiment(tmp_path), tmp_path / "run"
    ray = ("--set", "execution.executor=ray")
    with writer_lock(run_paths(run)):
        # From another machine the lock would not be seen.
        monkeypatch.setattr(submission, "check_not_written_here", lambda run: None)
        busy = _submitted(feldman, head, experiment, run, *ray)
    assert busy.code == 1
    assert f"failed (exit code 1): '{run}' is being written by process " in busy.err
    if head.token is None:
        unknown = _submitted(feldman, head, experiment, run, *ray, "--set", "learner.name=no_such_module:learn")
        assert unknown.code == 2
        assert "cannot import 'no_such_module'" in unknown.err


def test_without_the_token_a_cluster_that_asks_for_one_tells_and_takes_nothing(
    head: Head, tmp_path: Path, feldman: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    if head.token is None:
        pytest.skip("this one asks for none")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = _submitted(feldman, head, write_experiment(tmp_path), tmp_path / "run")
    assert (answer.code, answer.out) == (2, "")
    assert "asks for a token, and none was found" in answer.err
