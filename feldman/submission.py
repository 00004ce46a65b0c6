"""Runs as jobs of a Ray cluster, through Ray's Jobs API: submit, list, follow.

Ray keeps what describes a job (its metadata and its log), so that nothing has to be kept here, and Ray's own
``ray job list``, ``logs`` and ``stop`` work on the same jobs.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import feldman
from feldman.errors import FeldmanError, InputError, StoreBusyError
from feldman.experiment import Experiment
from feldman.shipping import check_not_written_here, checked_run, job_command, pack
from feldman.trials.authentication import find_token

__all__ = ["Cluster", "Job", "Submission", "connect", "follow", "list_jobs", "submit"]

_ADDRESS_ADVICE = "give that of the head's dashboard, as in http://HOST:8265"
_RUN_KEY = "feldman_run"
_ANSWER_SECONDS = 10.0
_LOST_SECONDS = 60.0
"""How long a cluster may be out of reach while a job is followed."""

_SILENT_SECONDS = 30.0
"""A log that is silent for so long is asked for anew: of a connection that died while a laptop slept, nobody tells."""

_STOP_SECONDS = 60
"""Of a stop, between SIGTERM and SIGKILL: the driver waits 10 s for blocks in flight, commits them and leaves Ray."""

_JOB_ENVIRONMENT = {
    "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS),
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

_TOLD = re.compile(r"(training|checking|reading trials|estimating influence): \d|feldman: ")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster whose dashboard answers.

    Attributes
    ----------
    address
        Of the dashboard: ``http://HOST:PORT``.
    asks_for_token
        Whether it refuses requests without one.
    client
        Ray's `JobSubmissionClient`.
    """

    address: str
    asks_for_token: bool
    client: Any


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job that has been handed over.

    Attributes
    ----------
    submission_id
        Ray's name of the job.
    run
        The run directory, as the cluster sees it.
    address
        The dashboard's address.
    command
        What the job runs.
    num_bytes
        Size of the archive that was made for it; Ray sends it only if the cluster does not have it.
    num_user_files
        How many files of ``--working-dir`` went along.
    """

    submission_id: str
    run: str
    address: str
    command: str
    num_bytes: int
    num_user_files: int

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of this project, as the cluster knows it.

    Attributes
    ----------
    status
        Ray's: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``STOPPED`` or ``FAILED``.
    started, ended
        ISO 8601, UTC.
    exit_code
        Of ``feldman run`` in the job, once it has ended by itself.
    progress
        The last of its own lines in the job's log: how far it is, or how it ended.
    message
        Ray's own words on the status.
    """

    submission_id: str
    run: str
    status: str
    started: str | None
    ended: str | None
    exit_code: int | None
    progress: str | None
    message: str

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.status in ("PENDING", "RUNNING")

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return {key: value for key, value in asdict(self).items() if key != "message"}


def connect(address: str) -> Cluster:
    """Find out whether a cluster's dashboard answers, and whether it asks for a token; it gets ours only if it does.

    Raises
    ------
    InputError
        If it is no such address, nothing or something else answers there, or the token is missing or another one.
    """
    address = _checked_address(address)
    asks_for_token = _asks_for_token(address)
    headers = {}
    if asks_for_token:
        token = find_token()
        if token is None:
            raise InputError(
                f"the cluster at {address} asks for a token, and none was found; set RAY_AUTH_TOKEN_PATH to a file that "
                "holds it, or keep it in ~/.ray/auth_token"
            )
        headers["Authorization"] = f"Bearer {token}"
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what it sends is told here
    try:
        with _ray_address_unset():
            client = JobSubmissionClient(address, headers=headers)
    except AuthenticationError:  # Ray's own text is a page on how to configure it
        raise InputError(
            f"the cluster at {address} refuses the token that was found; it is looked for in RAY_AUTH_TOKEN, in the file that "
            "RAY_AUTH_TOKEN_PATH names, and in ~/.ray/auth_token"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"what answers at {address} takes no jobs ({_first_line(error)}); {_ADDRESS_ADVICE}") from None
    return Cluster(address=address, asks_for_token=asks_for_token, client=client)


def submit(
    experiment: Experiment,
    run: str,
    cluster: Cluster,
    *,
    working_dir: Path | None = None,
    with_package: bool = True,
) -> Submission:
    """Hand a run over to a cluster. A run that is there already goes on where it stopped.

    Parameters
    ----------
    experiment
        What is estimated.
    run
        The run directory: an absolute path that the cluster's head sees, or a URL.
    cluster
        Where; see `connect`.
    working_dir
        A folder of the user's own modules (and data) to send along.
    with_package
        Send this very feldman, too; otherwise the job takes the cluster's own.

    Raises
    ------
    InputError
        If the job could not work; nothing was sent.
    StoreBusyError
        If another job of the cluster, or a process that is seen from here, writes to the run.
    FeldmanError
        If the cluster does not take the job.
    """
    run = checked_run(run)
    if experiment.execution.executor == "in-process":
        raise InputError(
            "execution.executor = 'in-process' trains in the driver alone; for a cluster add --set execution.executor=ray"
        )
    check_not_written_here(run)
    _check_not_submitted(cluster, run)
    command = job_command(run)
    with tempfile.TemporaryDirectory(prefix="feldman-") as folder, _cluster_errors(cluster):
        archive = pack(experiment, Path(folder), working_dir=working_dir, with_package=with_package)
        submission_id = cluster.client.submit_job(
            entrypoint=command,
            runtime_env={"working_dir": str(archive.path), "env_vars": _JOB_ENVIRONMENT},
            metadata={_RUN_KEY: run, "feldman_version": feldman.__version__, "job_name": f"feldman {run}"},
        )
    return Submission(
        submission_id=submission_id,
        run=run,
        address=cluster.address,
        command=command,
        num_bytes=archive.num_bytes,
        num_user_files=archive.num_user_files,
    )


def list_jobs(cluster: Cluster) -> list[Job]:
    """Return this project's jobs on a cluster, the newest first, with what each said last.

    Ray gives a log only as a whole, so this reads all of every job's.
    """
    with _cluster_errors(cluster):
        return [_job(found, _log(cluster, found.submission_id)) for found in _own_jobs(cluster)]


def follow(cluster: Cluster, submission_id: str, write: Callable[[str], None]) -> Job:
    """Hand on a job's log as it grows, until the job has ended. Whoever leaves earlier leaves the job as it is.

    Parameters
    ----------
    cluster, submission_id
        Which job.
    write
        Gets pieces of the log; each once, also over a connection that breaks.

    Raises
    ------
    FeldmanError
        If the cluster is out of reach for a minute.
    """
    num_written, reached = 0, time.monotonic()
    while True:
        num_written = asyncio.run(_tail(cluster, submission_id, num_written, write))
        try:
            with _cluster_errors(cluster):
                found = cluster.client.get_job_info(submission_id)
                if not _job(found, "").live:
                    return _job(found, _log(cluster, submission_id))
            reached = time.monotonic()
        except FeldmanError as error:
            if time.monotonic() - reached > _LOST_SECONDS:
                raise FeldmanError(f"lost sight of job {submission_id}, which may well go on: {error}") from None
        time.sleep(1)


async def _tail(cluster: Cluster, submission_id: str, skip: int, write: Callable[[str], None]) -> int:
    """Hand on a log from character ``skip`` on, until it ends or breaks off; return how many have been handed on in all."""
    import aiohttp

    position = 0
    pieces = cluster.client.tail_job_logs(submission_id)
    try:
        while True:
            piece = await asyncio.wait_for(anext(pieces), _SILENT_SECONDS)
            new = piece[max(0, skip - position) :]
            position += len(piece)
            if new:
                write(new)
    except (StopAsyncIteration, aiohttp.ClientError, OSError, RuntimeError):  # a time-out is an OSError
        return max(skip, position)
    finally:
        await pieces.aclose()


def _checked_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        secret = parts.username is not None or bool(parts.query or parts.fragment)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        secret, valid = False, False
    if secret:  # and so it is not repeated here
        raise InputError(f"an address takes no user, password or query; {_ADDRESS_ADVICE}")
    if not valid:
        raise InputError(f"'{address}' is no address of a dashboard; {_ADDRESS_ADVICE}")
    return address.rstrip("/")


def _asks_for_token(address: str) -> bool:
    """Ask the one page of a dashboard that tells this to anybody."""
    try:
        with urllib.request.urlopen(f"{address}/api/authentication_mode", timeout=_ANSWER_SECONDS) as answer:
            mode = json.load(answer)["authentication_mode"]
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # a gate of somebody's before it; a Ray older than tokens says 404
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"no Ray dashboard answers at {address} ({reason}); {_ADDRESS_ADVICE}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"what answers at {address} is no Ray dashboard; {_ADDRESS_ADVICE}") from None
    return bool(mode != "disabled")


@contextmanager
def _ray_address_unset() -> Iterator[None]:
    """Ray takes an address from the environment before the one that it is given; ``--address`` was said, and counts."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


@contextmanager
def _cluster_errors(cluster: Cluster) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
        raise FeldmanError(f"the cluster at {cluster.address} failed: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _own_jobs(cluster: Cluster) -> list[Any]:
    found = [job for job in cluster.client.list_jobs() if job.submission_id and _RUN_KEY in (job.metadata or {})]
    return sorted(found, key=lambda job: job.start_time or 0, reverse=True)


def _check_not_submitted(cluster: Cluster, run: str) -> None:
    with _cluster_errors(cluster):
        jobs = [_job(found, "") for found in _own_jobs(cluster)]
    for job in jobs:
        if job.live and job.run == run:
            raise StoreBusyError(
                f"'{run}' is being written by job {job.submission_id} ({job.status}, since {job.started}); wait for it, "
                f"follow it (ray job logs --follow --address {cluster.address} {job.submission_id}), stop it, or choose "
                "another run directory"
            )


def _log(cluster: Cluster, submission_id: str) -> str:
    try:
        return str(cluster.client.get_job_logs(submission_id))
    except RuntimeError:  # gone with its node
        return ""


def _job(found: Any, log: str) -> Job:
    run = found.metadata[_RUN_KEY]
    told = [line for line in log.splitlines() if _TOLD.match(line) or line.startswith(f"{run}: ")]
    return Job(
        submission_id=found.submission_id,
        run=run,
        status=str(getattr(found.status, "value", found.status)),
        started=_iso(found.start_time),
        ended=_iso(found.end_time),
        exit_code=found.driver_exit_code,
        progress=told[-1] if told else None,
        message=found.message or "",
    )


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
