"""`feldman null`: the memorization of examples with random labels beside that of all others."""

from __future__ import annotations

import sys

from feldman.cli.output import number, print_json, print_rows
from feldman.results.tables import read_table
from feldman.studies.random_labels import QUANTILES, LabelGroup, ThresholdPower, random_label_null
from feldman.trials.rundir import run_paths

__all__ = ["show_null"]

_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)


def show_null(path: str, min_memorization: float, as_json: bool) -> None:
    """Print both distributions, and what thresholds find."""
    paths = run_paths(path)
    table, facts = read_table(paths.memorization, paths.root)
    report = random_label_null(table, [*_THRESHOLDS, min_memorization])
    if as_json:
        print_json({"run": str(paths.root), "num_trials": facts.num_trials, **report.as_json()})
        return
    print_rows(
        [_group_row(group) for group in report.groups],
        f"{paths.root}: memorization, {facts.num_trials:,} trials",
        sys.stdout,
    )
    print_rows([_power_row(power) for power in report.thresholds], "found by a threshold", sys.stdout)


def _group_row(group: LabelGroup) -> dict[str, str]:
    quantiles = {f"{100 * at:.0f}%": number(value) for at, value in zip(QUANTILES, group.quantiles, strict=True)}
    return {
        "labels": group.labels,
        "examples": f"{group.num_examples:,}",
        "undefined": f"{group.num_undefined:,}",
        "mean": number(group.mean),
        **quantiles,
    }


def _power_row(power: ThresholdPower) -> dict[str, str]:
    return {
        "memorization": f">= {power.min_memorization:g}",
        "of random labels": f"{power.num_random_found:,}",
        "share": number(power.power),
        "95% interval": f"{number(power.power_low)} to {number(power.power_high)}",
        "of the others": f"{power.num_own_found:,}",
        "their share": number(power.share_own_found),
    }
