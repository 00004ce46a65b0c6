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
from feldman.jobs_client import connect
from feldman.trials.events import read_events
from feldman.trials.rundir import run_paths, writer_lock
from tests.commands import Commands
from tests.conftest import cli_environment, long, small_arrays
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


@pytest.fixture(scope="module")
def head(request: pytest.FixtureRequest) -> Iterator[Head]:
    """A head node that asks for a token, or one that does not."""
    with ray_head(TOKEN if request.param == "token" else None) as running:
        yield running


with_token = pytest.mark.parametrize("head", ["token"], indirect=True)
without_token = pytest.mark.parametrize("head", ["open"], indirect=True)


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


@with_token
def test_submit_follow_leave_stop_and_resume_give_the_bytes_of_an_undisturbed_run(
    head: Head, mine: Path, tmp_path: Path, feldman: Commands
) -> None:
    place, run = tmp_path / "place", tmp_path / "a 'run'"
    arguments = _arguments(head, mine, run)
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
    assert jobs(feldman, head)[job]["status"] == "RUNNING"
    assert "_ray_pkg_" in (place / "package").read_text(), "the job runs the feldman that was sent"
    _assert_no_token_on_show(run, left.stdout + left.stderr + ray_job(head, "logs", job))

    _stop(head, job)
    time.sleep(3.5)  # more than Ray would give
    committed = event_names(run).count("block_committed")
    (place / "hold").unlink()
    wait_until(lambda: jobs(feldman, head)[job]["status"] == "STOPPED", "the job has ended")
    assert event_names(run)[-1] == "interrupted"
    assert committed < event_names(run).count("block_committed") < 30, "blocks in flight are waited for"
    assert "trials are safe. Go on with: feldman resume" in jobs(feldman, head)[job]["progress"]

    # The cluster's own feldman has compiled its kernel.
    _assert_a_second_submit_ends_what_was_begun(feldman, [*arguments, "--installed"], run)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(mine)
        reference = finish(mine / "experiment.toml", tmp_path / "reference")
    assert_same_run(run, reference)


@long
@without_token
def test_a_cluster_that_asks_for_no_token_is_warned_of_and_serves_all_the_same(
    head: Head, mine: Path, tmp_path: Path, feldman: Commands
) -> None:
    run = tmp_path / "run"
    arguments = [*_arguments(head, mine, run), "--installed"]
    submitted = feldman(*arguments)
    assert submitted.code == 0, submitted.err
    assert "this cluster answers without a token" in submitted.err
    (job,) = jobs(feldman, head)
    wait_until(lambda: "block_committed" in event_names(run), "a block is committed")
    (tmp_path / "place" / "hold").touch()
    _stop(head, job)
    (tmp_path / "place" / "hold").unlink()
    wait_until(lambda: jobs(feldman, head)[job]["status"] == "STOPPED", "the job has ended")
    assert event_names(run)[-1] == "interrupted"
    _assert_a_second_submit_ends_what_was_begun(feldman, arguments, run)


def _arguments(head: Head, mine: Path, run: Path) -> list[str]:
    experiment = str(mine / "experiment.toml")
    return ["submit", experiment, "-o", str(run), "--address", head.url, "--working-dir", str(mine)]


def _stop(head: Head, job: str) -> None:
    """Ask Ray to stop a job, and wait until the job has heard of it."""
    ray_job(head, "stop", "--no-wait", job)
    client = connect(head.url).client
    wait_until(lambda: "SIGTERM: finishing the blocks in flight" in client.get_job_logs(job), "the signal has arrived")


def _assert_a_second_submit_ends_what_was_begun(feldman: Commands, arguments: list[str], run: Path) -> None:
    resumed = feldman(*arguments, "--follow")
    assert resumed.code == 0, resumed.err
    blocks = [event["block"] for event in read_events(run / "events.jsonl") if event["event"] == "block_committed"]
    assert sorted(blocks) == list(range(30)), "each block was trained once"
    rows = json.loads(feldman("memorized", str(run), "--top", "3", "--json").out)
    assert len(rows) == 3


def _assert_no_token_on_show(run: Path, printed: str) -> None:
    """Neither in what a run keeps, nor in what is printed, nor in any process's command line."""
    kept = [path.name for path in run.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []
    assert TOKEN not in printed
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert [line for line in lines if TOKEN in line] == []


@with_token
def test_a_run_that_a_process_of_the_cluster_writes_is_refused_by_the_job(
    head: Head, tmp_path: Path, feldman: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, run = write_experiment(tmp_path), tmp_path / "run"
    with writer_lock(run_paths(run)):
        # From another machine the lock would not be seen.
        monkeypatch.setattr(submission, "check_not_written_here", lambda run: None)
        busy = feldman(
            "submit", str(experiment), "-o", str(run), "--address", head.url, "--set", "execution.executor=ray",
            "--follow", "--installed",
        )  # fmt: skip
    assert busy.code == 1
    assert f"failed (exit code 1): '{run}' is being written by process " in busy.err


@with_token
def test_without_its_token_a_cluster_takes_nothing(
    head: Head, tmp_path: Path, feldman: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = feldman("submit", "digits", "-o", "/shared/run", "--address", head.url)
    assert (answer.code, answer.out) == (2, "")
    assert "asks for a token, and none was found" in answer.err
