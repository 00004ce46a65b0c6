"""Whoever waits is told how far it is: of every stage, from its first step to its last."""

from __future__ import annotations

from pathlib import Path

import pytest

from feldman.cli import progress as shown
from feldman.exchange.authors_export import export_authors
from feldman.exchange.conformance import compare_with_file
from feldman.exchange.datamodels_export import export_datamodels
from feldman.exchange.importing import import_run
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress
from tests.exchange.released import bits_of, write_released


@pytest.mark.parametrize(
    ("work", "stages"),
    [
        ("import trials", {"importing": 40, "reading trials": 1, "estimating influence": 0}),
        ("export datamodels", {"exporting": 40}),
        ("export authors", {"reading trials": 5, "writing matrices": 3}),
        ("compare", {"reading trials": 5, "comparing matrices": 3}),
        ("import matrix", {"reading matrices": 3}),
    ],
)
def test_every_stage_is_told_to_its_end(trained: Path, tmp_path: Path, work: str, stages: dict[str, int]) -> None:
    export_authors(run_paths(trained), tmp_path / "made")
    matrix, told = tmp_path / "made" / "infl_matrix.npz", list[Progress]()
    if work == "import trials":
        import_run(write_released(tmp_path / "0.7", bits_of(trained)), tmp_path / "run", tell=told.append)
    elif work == "export datamodels":
        export_datamodels(run_paths(trained), tmp_path / "out", told.append)
    elif work == "export authors":
        export_authors(run_paths(trained), tmp_path / "out", told.append)
    elif work == "compare":
        compare_with_file(run_paths(trained), matrix, told.append)
    else:
        import_run(matrix, tmp_path / "run", tell=told.append)
    assert list(dict.fromkeys(progress.stage for progress in told)) == list(stages)
    for stage, total in stages.items():
        reports = [progress for progress in told if progress.stage == stage]
        assert stage in shown._UNITS
        assert reports[-1].done == reports[-1].total
        assert reports[-1].total >= total
