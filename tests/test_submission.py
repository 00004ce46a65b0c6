"""The Jobs client against a dashboard that is scripted: whom it trusts, what it refuses, what it shows."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.errors import FeldmanError, InputError, JobFailedError, StoreBusyError
from feldman.experiment import Experiment
from feldman.jobs_client import Cluster, connect
from feldman.submission import follow, list_jobs, submit
from tests.commands import Commands

EXPERIMENT = Experiment.model_validate({"dataset": {"name": "digits"}})
TOKEN = "5e5a" * 16


@dataclass(kw_only=True)
class Dashboard:
    """Answers as a head's dashboard does, and keeps the paths and headers of what it was asked."""

    url: str
    mode: str = "disabled"
    jobs: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        self.asked.append((path, headers))
        if path == "/api/authentication_mode":
            return 200, [] if self.mode == "no dashboard" else {"authentication_mode": self.mode}
        if self.mode == "token" and headers.get("Authorization") != f"Bearer {TOKEN}":
            return 403, "no"
        known = {"/api/version": {"ray_version": "2.60.0", "version": "4", "ray_commit": ""}, "/api/jobs/": self.jobs}
        return (200, known[path]) if path in known else (404, "nothing there")


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Dashboard]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = scripted.answer(self.path, dict(self.headers))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        scripted = Dashboard(url=f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield scripted
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("head:6379", r"'head:6379' is no address of a dashboard; give that of the head's dashboard, as in http://HOST:8265"),
        ("auto", "is no address of a dashboard"),
        ("http://", "is no address of a dashboard"),
        ("http://head:port", "is no address of a dashboard"),
        ("http://127.0.0.1:1", r"no Ray dashboard answers at http://127\.0\.0\.1:1 \(.*refused.*\)"),
    ],
)  # fmt: skip
def test_an_address_where_no_dashboard_answers_is_bad_input(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        connect(address)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="takes no user, password or query") as refusal:
        connect("http://me:secret@head:8265")
    assert "secret" not in str(refusal.value)


def test_a_server_that_is_no_dashboard_is_told_so(dashboard: Dashboard) -> None:
    dashboard.mode = "no dashboard"
    with pytest.raises(InputError, match="is no Ray dashboard"):
        connect(dashboard.url)


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_token_goes_only_to_a_cluster_that_asks_for_one(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    dashboard.mode = mode
    cluster = connect(f"{dashboard.url}/")
    assert list_jobs(cluster) == []
    assert cluster.asks_for_token == (mode == "token")
    told = {headers.get("Authorization") for path, headers in dashboard.asked if path != "/api/authentication_mode"}
    assert told == ({f"Bearer {TOKEN}"} if mode == "token" else {None})
    assert all(
        "Authorization" not in headers for path, headers in dashboard.asked if path == "/api/authentication_mode"
    )


@pytest.mark.parametrize(
    ("token", "message"),
    [(None, "asks for a token, and none was found"), ("other", "refuses the token that was found")],
)
def test_a_cluster_that_asks_for_a_token_gets_the_right_one_or_nothing(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str
) -> None:
    dashboard.mode = "token"
    if token is not None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(InputError, match=message):
        connect(dashboard.url)


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_cluster_that_answers_without_a_token_is_warned_of(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    dashboard.mode = mode
    answer = Commands(tmp_path, capsys)("jobs", "--address", dashboard.url, "--json")
    assert json.loads(answer.out) == []
    assert ("this cluster answers without a token" in answer.err) == (mode == "disabled")
    assert TOKEN not in answer.out + answer.err


def test_the_address_that_was_typed_counts_and_not_one_of_the_environment(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert list_jobs(connect(dashboard.url)) == []


def job_record(**fields: Any) -> dict[str, Any]:
    return {
        "type": "SUBMISSION", "submission_id": "raysubmit_1", "status": "RUNNING", "entrypoint": "", "start_time": 0,
        "metadata": {"feldman_run": "/shared/run"}, **fields,
    }  # fmt: skip


def test_a_run_that_a_live_job_writes_is_refused_however_its_path_is_written(dashboard: Dashboard) -> None:
    dashboard.jobs = [job_record(status="PENDING")]
    with pytest.raises(
        StoreBusyError, match=r"'/shared/run' is being written by job raysubmit_1 \(PENDING, since 1970"
    ):
        submit(EXPERIMENT, "/shared//run/", connect(dashboard.url))


def test_jobs_of_others_and_those_that_ended_are_in_nobodys_way(dashboard: Dashboard) -> None:
    ended = [job_record(status=status) for status in ("SUCCEEDED", "FAILED", "STOPPED")]
    dashboard.jobs = [*ended, job_record(metadata={}), job_record(metadata=None), job_record(submission_id=None)]
    cluster = connect(dashboard.url)
    with pytest.raises(FeldmanError, match=r"the cluster at .* failed: ") as failure:
        submit(EXPERIMENT, "/shared/run", cluster)
    assert not isinstance(failure.value, StoreBusyError), (
        "it was not refused, but sent to a dashboard that takes nothing"
    )
    assert [job.status for job in list_jobs(cluster)] == ["SUCCEEDED", "FAILED", "STOPPED"]


def test_an_experiment_for_one_process_is_refused(dashboard: Dashboard) -> None:
    alone = EXPERIMENT.replace("execution", {"executor": "in-process"})
    with pytest.raises(InputError, match=r"for a cluster add --set execution\.executor=ray"):
        submit(alone, "/shared/run", connect(dashboard.url))


class Broken:
    """A client whose log breaks off after given numbers of characters, then ends."""

    def __init__(self, log: str, breaks: list[int]) -> None:
        self.log, self.breaks = log, breaks

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        end = self.breaks.pop(0) if self.breaks else len(self.log)
        for start in range(0, end, 3):
            yield self.log[start : min(start + 3, end)]
        if end < len(self.log):
            raise RuntimeError("the connection closed")

    def get_job_info(self, submission_id: str) -> SimpleNamespace:
        ended = not self.breaks
        status, code = ("SUCCEEDED", 0) if ended else ("RUNNING", None)
        return SimpleNamespace(
            **job_record(status=status), end_time=None, driver_exit_code=code, message="", error_type=None
        )

    def get_job_logs(self, submission_id: str) -> str:
        return self.log


@given(st.text("ab\n", max_size=30), st.lists(st.integers(0, 30), max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_log_is_shown_once_and_whole_wherever_the_connection_breaks(log: str, breaks: list[int]) -> None:
    client = Broken(log, [min(place, len(log)) for place in [*breaks, len(log)]])
    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feldman.submission.time.sleep", lambda seconds: None)
        job = follow(Cluster(address="http://head", asks_for_token=False, client=client), "raysubmit_1", shown.append)
    assert "".join(shown) == log
    assert job.status == "SUCCEEDED"


@pytest.mark.parametrize(("job_code", "exit_code"), [(None, 1), (0, 1), (1, 1), (2, 2), (130, 130), (137, 1)])
def test_a_failed_job_has_an_exit_code_of_the_contract(job_code: int | None, exit_code: int) -> None:
    assert JobFailedError("it failed", job_code).exit_code == exit_code


def test_a_connection_that_died_in_silence_is_noticed_and_the_log_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asleep(Broken):
        async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
            async for piece in super().tail_job_logs(submission_id):
                yield piece
                if self.breaks:
                    self.breaks.clear()
                    await asyncio.Event().wait()

    monkeypatch.setattr("feldman.submission._SILENT_SECONDS", 0.05)
    monkeypatch.setattr("feldman.submission.time.sleep", lambda seconds: None)
    shown: list[str] = []
    client = Asleep("epoch 1\nepoch 2\n", [16])
    follow(Cluster(address="http://head", asks_for_token=False, client=client), "raysubmit_1", shown.append)
    assert "".join(shown) == client.log
