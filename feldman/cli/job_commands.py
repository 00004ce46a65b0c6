"""`feldman run` and `feldman resume`."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.errors import InputError, command
from feldman.experiment_files import load_experiment
from feldman.importing import see_current_folder
from feldman.job import RunSummary, StoppingRule, StudySummary, resume, run

__all__ = ["JobOptions", "read_runtime_env", "resume_job", "run_job"]


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What `feldman run` and `feldman resume` share, as given."""

    address: str | None
    runtime_env: str | None
    speculate: bool
    until_stderr: float | None
    until_jaccard: float | None
    as_json: bool

    def rule(self) -> StoppingRule | None:
        """Return the stopping rule, if one was given."""
        if self.until_stderr is None and self.until_jaccard is None:
            return None
        return StoppingRule(stderr=self.until_stderr, jaccard=self.until_jaccard)


def run_job(experiment: str, path: str, trials: str | None, overrides: list[str], options: JobOptions) -> None:
    """Run, and print what came out."""
    see_current_folder()
    rule = options.rule()
    if trials is not None:
        overrides = [*overrides, f"execution.trials={_bounds(trials)}"]
    loaded, runtime_env = load_experiment(experiment, overrides), read_runtime_env(options.runtime_env)
    # What a user's own code prints must not get between a script and its JSON.
    with ProgressDisplay() as display, contextlib.redirect_stdout(sys.stderr):
        summary = run(
            loaded,
            path,
            address=options.address,
            runtime_env=runtime_env,
            speculate=options.speculate,
            until=rule,
            on_progress=display,
        )
    _print_summary(summary, options.as_json)


def resume_job(path: str, num_trials: int | None, options: JobOptions) -> None:
    """Resume, and print what came out."""
    see_current_folder()
    rule, runtime_env = options.rule(), read_runtime_env(options.runtime_env)
    with ProgressDisplay() as display, contextlib.redirect_stdout(sys.stderr):
        summary = resume(
            path,
            num_trials=num_trials,
            address=options.address,
            runtime_env=runtime_env,
            speculate=options.speculate,
            until=rule,
            on_progress=display,
        )
    _print_summary(summary, options.as_json)


def read_runtime_env(path: str | None) -> dict[str, Any] | None:
    """Read a runtime environment; its content is never repeated, since it may be secret."""
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read --runtime-env {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"--runtime-env takes a JSON file; {path} is none{where}") from None
    if not isinstance(found, dict):
        raise InputError(
            f'--runtime-env takes a JSON object, as in {{"env_vars": {{"NAME": "value"}}}}; {path} holds another value'
        )
    return found


def _bounds(trials: str) -> list[int]:
    """Read a range as ``--trials`` takes it."""
    found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", trials)
    if found is None:
        raise InputError(f"--trials takes A:B, the trials A to B - 1 (as in 0:1000); found '{trials}'")
    return [int(bound) for bound in found.groups()]


def _print_summary(summary: RunSummary | StudySummary, as_json: bool) -> None:
    if as_json:
        print_json(summary.as_json())
        return
    status = summary.status
    if isinstance(summary, StudySummary):
        print(f"{status.run}: {status.num_committed_trials:,} trials of a removal study")
        print(f"  time               {summary.seconds:.1f} s, of which training {summary.train_wall_seconds:.1f} s")
        print(f"  next               {command('removal', status.run)}")
        return
    spread = f" +- {100 * status.std_test_accuracy:.2f}" if status.std_test_accuracy is not None else ""
    first, end = status.trials
    within = f" (the range {first}:{end} of {status.num_trials:,} planned)" if status.has_range else ""
    print(f"{status.run}: {status.dataset}, {status.learner}, {status.num_committed_trials:,} trials{within}")
    if status.stopping is not None:
        print(f"  stopping rule      {status.stopping.in_words()}")
    if status.mean_test_accuracy is not None and status.subset_size is not None:
        share = f"{100 * status.subset_size / status.num_train:.0f}%"
        print(f"  test accuracy      {100 * status.mean_test_accuracy:.2f}%{spread} (trained on {share})")
    print(
        f"  memorized          {summary.num_memorized:,} of {status.num_train:,} (memorization >= {summary.min_memorization:g})"
    )
    print(f"  influential pairs  {summary.num_pairs:,} ({summary.selection})")
    print(f"  standard error     at most {summary.largest_stderr:.3f}, for both")
    errors = 3 * summary.largest_stderr
    if 0 < summary.min_influence < errors:
        enough = 100 * math.ceil(status.num_committed_trials * (errors / summary.min_influence) ** 2 / 100)
        print(
            f"                     less than a third of {summary.min_influence:g} from {enough:,} trials on: until then,"
        )
        print("                     pairs near the threshold may be chance")
    print(f"  time               {summary.seconds:.1f} s, of which training {summary.train_wall_seconds:.1f} s")
    print(f"  tables             {summary.memorization_path}, {summary.influence_path}")
    print(f"  next               {command('memorized', status.run)}; {command('pairs', status.run)}")
    print(f"                     {command('report', status.run)} makes a page of it")
    if status.has_range:
        print(
            f"                     {command('merge', status.run, 'OTHER', '-o', 'NEW')} joins it with a run of other trials"
        )
