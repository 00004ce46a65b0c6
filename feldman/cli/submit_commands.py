"""`feldman submit` and `feldman jobs`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from feldman.cli.output import print_json
from feldman.errors import InterruptedRunError, JobFailedError, command
from feldman.experiment_files import load_experiment
from feldman.jobs_client import Cluster, connect
from feldman.submission import Job, Submission, list_jobs, submit
from feldman.submission import follow as follow_job
from feldman.trials.authentication import UNPROTECTED

__all__ = ["Request", "show_jobs", "submit_job"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was typed after ``feldman submit``."""

    experiment: str
    run: str
    address: str
    working_dir: Path | None
    installed: bool
    overrides: tuple[str, ...]

    def again(self) -> str:
        """Return the command as it can be typed again."""
        words = [self.experiment, "-o", self.run, "--address", self.address]
        if self.working_dir is not None:
            words += ["--working-dir", str(self.working_dir)]
        if self.installed:
            words += ["--installed"]
        for override in self.overrides:
            words += ["--set", override]
        return command("submit", *words)


def submit_job(request: Request, follow: bool, as_json: bool) -> None:
    """Submit, say how to follow, stop and resume, and follow if asked to."""
    experiment = load_experiment(request.experiment, request.overrides)
    cluster = _connected(request.address)
    submission = submit(
        experiment, request.run, cluster, working_dir=request.working_dir, with_package=not request.installed
    )
    if as_json:
        print_json(submission.as_json())
    else:
        _print_submission(submission, cluster, request)
    if follow:
        sys.stdout.flush()
        _follow(submission, cluster, request)


def show_jobs(address: str, as_json: bool) -> None:
    """Print the jobs of a cluster, the newest first."""
    jobs = list_jobs(_connected(address))
    if as_json:
        print_json([job.as_json() for job in jobs])
        return
    if not jobs:
        print("no run has been submitted to this cluster")
    for job in jobs:
        ended = f", ended {job.ended}" if job.ended else ""
        print(f"{job.submission_id}  {job.status:9}  {job.run}  (since {job.started or '?'}{ended})")
        if job.progress:
            print(f"  {job.progress}")


def _connected(address: str) -> Cluster:
    cluster = connect(address)
    if not cluster.asks_for_token:
        print(UNPROTECTED, file=sys.stderr)
    return cluster


def _print_submission(submission: Submission, cluster: Cluster, request: Request) -> None:
    mine = f", of which {submission.num_user_files:,} files are yours" if request.working_dir is not None else ""
    print(f"submitted {submission.submission_id}: {submission.run}")
    print(f"  takes along  {submission.num_bytes / 1024**2:,.1f} MiB{mine}")
    print(f"  follow       {_ray_job(cluster, 'logs', '--follow', submission.submission_id)}")
    print(f"  stop         {_ray_job(cluster, 'stop', submission.submission_id)}")
    print(f"  progress     {command('jobs', '--address', submission.address)}")
    print(f"  resume       {request.again()}")


def _ray_job(cluster: Cluster, *words: str) -> str:
    # Ray's own client sends a token only where it is told to; which token, it finds as this one does.
    mode = "RAY_AUTH_MODE=token " if cluster.asks_for_token else ""
    return mode + shlex.join(["ray", "job", words[0], "--address", cluster.address, *words[1:]])


def _follow(submission: Submission, cluster: Cluster, request: Request) -> None:
    try:
        job = follow_job(cluster, submission.submission_id, _write)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"no longer followed; job {submission.submission_id} goes on. Follow it again: "
            f"{_ray_job(cluster, 'logs', '--follow', submission.submission_id)}; stop it: "
            f"{_ray_job(cluster, 'stop', submission.submission_id)}"
        ) from None
    _raise_unless_succeeded(job, request)


def _write(piece: str) -> None:
    sys.stderr.write(piece)
    sys.stderr.flush()


def _raise_unless_succeeded(job: Job, request: Request) -> None:
    if job.status == "SUCCEEDED":
        return
    if job.status == "STOPPED":
        raise InterruptedRunError(
            f"job {job.submission_id} was stopped; what was committed is safe. Go on with: {request.again()}"
        )
    said = job.progress if job.exit_code is not None else None
    raise JobFailedError(
        f"job {job.submission_id} failed{'' if job.exit_code is None else f' (exit code {job.exit_code})'}: "
        f"{(said or job.message.strip() or 'it said nothing').removeprefix('feldman: ')}",
        job.exit_code,
    )
