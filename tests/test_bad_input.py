"""Bad input: one clear message, the right exit code, nothing written, an existing run untouched."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feldman.experiment_files import experiment_to_toml
from feldman.job import run
from tests.bad_input_cases import CASES
from tests.bad_input_setups import Case
from tests.commands import Commands, snapshot
from tests.conftest import small_arrays, small_experiment

IS_ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """The folder that every case starts from, made once. Not below pytest's own, which only its owner may enter."""
    import numpy as np

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "template"
        folder.mkdir()
        folder.parent.chmod(0o755)
        np.savez(folder / "data.npz", allow_pickle=True, **small_arrays())
        yield folder


@pytest.fixture
def folder(template: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """A copy of the template. It has the template's own path while a case runs: the run in it names its data by path."""
    kept = template.with_name("kept")
    if not kept.exists():
        experiment = small_experiment(template / "data.npz")
        (template / "experiment.toml").write_text(
            experiment_to_toml(experiment).replace(str(template / "data.npz"), "data.npz")
        )
        run(experiment, template / "done")
        shutil.copytree(template, kept)
    yield template
    for path in [template, *template.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(template)
    shutil.copytree(kept, template)


@contextmanager
def unprivileged(needed: bool) -> Iterator[None]:
    """Act as a user whom the file system can refuse something; root passes over all permissions."""
    if not (needed and IS_ROOT):
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input_is_one_clear_message_and_leaves_everything_as_it_was(
    case: Case, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python's own writing, next to a module of the user's
    case.setup(folder)
    before = snapshot(folder)
    with unprivileged(case.unprivileged):
        answer = Commands(folder, capsys)(*shlex.split(case.command))
    assert (answer.code, answer.out) == (case.code, ""), answer
    lines = answer.err.splitlines()
    assert lines[0].startswith("feldman: ")
    assert all(line.startswith("  ") for line in lines[1:]), "one message, its further lines indented"
    assert case.says in answer.err
    assert "Traceback" not in answer.err
    assert len(answer.err) < 1500
    assert snapshot(folder) == before


def test_there_are_cases_enough_and_no_two_of_one_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 45
