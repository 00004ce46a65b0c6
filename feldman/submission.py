"""Runs as jobs of a Ray cluster, through Ray's Jobs API: submit, list, follow.

Ray keeps what describes a job (its metadata and its log), so that nothing has to be kept here, and Ray's own
``ray job list``, ``logs`` and ``stop`` work on the same jobs.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import feldman
from feldman.errors import FeldmanError, InputError, StoreBusyError
from feldman.experiment import Experiment
from feldman.jobs_client import Cluster, cluster_errors
from feldman.shipping import check_not_written_here, checked_run, job_command, pack

__all__ = ["Job", "Submission", "follow", "list_jobs", "submit"]

_RUN_KEY = "feldman_run"
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
    with tempfile.TemporaryDirectory(prefix="feldman-") as folder:
        archive = pack(experiment, Path(folder), working_dir=working_dir, with_package=with_package)
        with cluster_errors(cluster):
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
    with cluster_errors(cluster):
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
    num_written, lost_since = 0, None
    while True:
        num_written = asyncio.run(_tail(cluster, submission_id, num_written, write))
        try:
            with cluster_errors(cluster):
                found = cluster.client.get_job_info(submission_id)
                if not _job(found, "").live:
                    return _job(found, _log(cluster, submission_id))
            lost_since = None
        except FeldmanError as error:
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > _LOST_SECONDS:
                raise FeldmanError(f"lost sight of job {submission_id}, which may well go on: {error}") from None
        time.sleep(1)


async def _tail(cluster: Cluster, submission_id: str, skip: int, write: Callable[[str], None]) -> int:
    """Hand on a log from character ``skip`` on, until it ends or breaks off; return how many have been handed on in all."""
    import aiohttp

    position = 0
    pieces = cluster.client.tail_job_logs(submission_id)
    try:
        while True:
            try:
                piece = await asyncio.wait_for(anext(pieces), _SILENT_SECONDS)
            except (StopAsyncIteration, aiohttp.ClientError, OSError, RuntimeError):  # a time-out is an OSError
                return max(skip, position)
            new = piece[max(0, skip - position) :]
            position += len(piece)
            if new:
                write(new)
    finally:
        await pieces.aclose()


def _own_jobs(cluster: Cluster) -> list[Any]:
    found = [job for job in cluster.client.list_jobs() if job.submission_id and _RUN_KEY in (job.metadata or {})]
    return sorted(found, key=lambda job: job.start_time or 0, reverse=True)


def _check_not_submitted(cluster: Cluster, run: str) -> None:
    with cluster_errors(cluster):
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
