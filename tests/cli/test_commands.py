"""Exit codes, help, presets, broken pipes and full devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import feldman as package
from feldman.experiment_files import experiment_to_toml, load_experiment, preset_names
from tests.commands import Commands
from tests.conftest import Cli, cli_environment, small_experiment

COMMANDS = [
    "run", "resume", "merge", "status", "verify", "estimate", "memorized", "pairs", "stability", "plan", "cscore", "tail",
    "lds",
    "duplicates", "null", "removal", "features", "report",
    "export", "import", "compare", "prepare", "presets", "submit", "jobs",
]  # fmt: skip
START = "from feldman.cli.app import main; main()"


def test_help_of_every_command_imports_nothing_heavy(tmp_path: Path) -> None:
    script = f"""
import contextlib, io, sys
from feldman.cli.app import main
for arguments in [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in {COMMANDS})]:
    sys.argv = ["feldman", *arguments]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        try:
            main()
        except SystemExit as left:
            assert left.code == 0, (arguments, left.code)
    assert arguments == ["--version"] or "Usage" in shown.getvalue(), arguments
heavy = {{"torch", "ray", "torchvision", "zarr", "numpy", "pyarrow", "sklearn", "xarray", "matplotlib", "faiss", "jinja2", "PIL"}}
heavy &= set(sys.modules)
sys.exit(f"imported for help: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=cli_environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_lists_every_command(feldman: Commands) -> None:
    answer = feldman("--help")
    assert answer.code == 0
    assert all(name in answer.out for name in COMMANDS)


def test_the_version_is_that_of_the_package(feldman: Commands) -> None:
    answer = feldman("--version")
    assert (answer.code, answer.out) == (0, f"feldman {package.__version__}\n")


def test_without_a_command_the_help_is_shown_as_bad_input(feldman: Commands) -> None:
    answer = feldman()
    assert answer.code == 2
    assert "Usage" in answer.out + answer.err


def test_done_is_0(feldman: Commands, tmp_path: Path, arrays_file: Path) -> None:
    (tmp_path / "experiment.toml").write_text(experiment_to_toml(small_experiment(arrays_file)))
    ran = feldman("run", "experiment.toml", "--set", "subsets.num_trials=16")
    assert ran.code == 0
    assert (tmp_path / "runs" / "experiment" / "trials.zarr").is_dir()
    assert "16 trials" in ran.out
    assert "next               feldman memorized runs/experiment; feldman pairs runs/experiment" in ran.out
    for command in ("resume", "status", "verify", "estimate", "memorized", "pairs"):
        assert feldman(command, "runs/experiment").code == 0


@pytest.mark.parametrize("learner", ["failing", "wrong_shape"])
def test_failed_while_working_is_1_and_says_how_to_go_on(
    feldman: Commands, tmp_path: Path, arrays_file: Path, learner: str
) -> None:
    (tmp_path / "experiment.toml").write_text(experiment_to_toml(small_experiment(arrays_file)))
    answer = feldman("run", "experiment.toml", "-o", "new", "--set", f"learner.name=tests.learners:{learner}")
    assert (answer.code, answer.out) == (1, "")
    assert "To try again: feldman resume new" in answer.err
    assert "Traceback" not in answer.err


def test_running_again_trains_nothing_and_changes_no_table(
    feldman: Commands, tmp_path: Path, arrays_file: Path
) -> None:
    (tmp_path / "experiment.toml").write_text(experiment_to_toml(small_experiment(arrays_file)))
    assert feldman("run", "experiment.toml", "-o", "new").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "new").glob("*.parquet")}
    assert feldman("run", "experiment.toml", "-o", "new").code == 0
    assert {path: path.read_bytes() for path in before} == before


def test_presets_are_listed_and_printed_as_files_to_start_from(feldman: Commands, tmp_path: Path) -> None:
    listing = feldman("presets")
    assert [line.split(":")[0] for line in listing.out.splitlines()] == preset_names()
    for name in preset_names():
        text = feldman("presets", name).out
        (tmp_path / "own.toml").write_text(text)
        assert load_experiment(tmp_path / "own.toml") == load_experiment(name)


QUERIES = [["memorized", "--json"], ["memorized"], ["presets"]]
"""Through `json`, through rich, and through `print`."""


def query(arguments: list[str], run: Path) -> list[str]:
    command, *options = arguments
    return [sys.executable, "-c", START, command, *([] if command == "presets" else [str(run)]), *options]


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", QUERIES, ids=" ".join)
def test_a_reader_that_left_is_no_reason_to_complain(
    finished: Path, tmp_path: Path, arguments: list[str], unbuffered: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        query(arguments, finished),
        cwd=tmp_path,
        env=cli_environment() | {"PYTHONUNBUFFERED": unbuffered},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", QUERIES, ids=" ".join)
def test_output_on_a_full_device_is_a_failure_with_one_message(
    finished: Path, tmp_path: Path, arguments: list[str], unbuffered: str
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            query(arguments, finished),
            cwd=tmp_path,
            env=cli_environment() | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.stderr == b"feldman: No space left on device\n"
    assert done.returncode == 1


def test_a_users_own_learner_is_found_in_the_current_folder(cli: Cli, tmp_path: Path, arrays_file: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.learners import nearest_centroid as learn\n")
    (tmp_path / "experiment.toml").write_text(experiment_to_toml(small_experiment(arrays_file)))
    done = cli("run", "experiment.toml", "-o", "new", "--set", "learner.name=mine:learn")
    assert done.returncode == 0, done.stderr
    assert "mine:learn, 40 trials" in done.stdout
