"""Documentation is executed: the blocks of the README run, links lead somewhere, options exist, names are there."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import feldman
from feldman.experiment_files import load_experiment
from tests.cli.test_commands import COMMANDS
from tests.commands import Commands
from tests.conftest import REPOSITORY, small_dataset
from tests.object_store import make_bucket, s3_environment, s3_server

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [path for path in REPOSITORY.rglob("*.md") if not {".venv", "runs", "build"} & set(path.parts)]
MODULES = sorted(module.name for module in pkgutil.walk_packages(feldman.__path__, "feldman."))
ELSEWHERE = ("make ", "git clone ", "cd ", "source ")
"""Commands that a test of them would run within themselves, or that lead away from the checkout."""

FAST = ["--set", "subsets.num_trials=40", "--set", "execution.executor=in-process", "--set", "training.epochs=3"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def console_lines() -> list[str]:
    lines = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "]
    return [line for line in lines if not line.startswith(ELSEWHERE)]


def shortened(arguments: list[str]) -> list[str]:
    """The same command on 40 trials, and 50 after growing; a range of thousands becomes one of blocks of 50."""
    if "--trials" in arguments:
        place = arguments.index("--trials") + 1
        arguments[place] = ":".join(str(int(bound) // 20) for bound in arguments[place].split(":"))
    if arguments[0] == "run":
        return [*arguments, *FAST]
    if "--num-trials" in arguments:
        arguments[arguments.index("--num-trials") + 1] = "50"
    return arguments


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The bucket of the README's commands, and the environment that leads to it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server() as endpoint:
        make_bucket(endpoint, "bucket")
        for name, value in s3_environment(endpoint).items():
            monkeypatch.setenv(name, value)
        yield "bucket"


@pytest.mark.usefixtures("bucket")
def test_the_commands_of_the_readme_run_one_after_the_other_and_so_does_its_notebook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(tmp_path, capsys)
    lines = console_lines()
    assert any(line.startswith("feldman run ") for line in lines)
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "feldman", f"only feldman is run here; found '{line}'"
        answer = commands(*shortened(arguments))
        assert answer.code == 0, f"$ {line}\n{answer.err}"
        assert answer.out or answer.err, line  # what is written to a file is told on standard error
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_learner_of_the_readme_fits_the_protocol() -> None:
    found: dict[str, Any] = {}
    for block in blocks("python"):
        if "def " in block:
            exec(compile(block, "README.md", "exec"), found)
    learners = [value for key, value in found.items() if callable(value) and hasattr(value, "__code__")]
    assert len(learners) == 1
    dataset = small_dataset()
    masks = np.random.default_rng(0).random((4, dataset.num_train)) < 0.7
    train, test = learners[0](dataset, masks, np.arange(4), {})
    assert (train.shape, test.shape) == ((4, 60), (4, 30))
    assert train.dtype == test.dtype == bool
    assert train[masks].all(), "its own nearest neighbour is each example that it learned from"


@pytest.mark.parametrize("number", range(len(blocks("toml"))))
def test_the_experiments_of_the_readme_are_valid_and_name_every_section(number: int, tmp_path: Path) -> None:
    text = blocks("toml")[number]
    (tmp_path / "experiment.toml").write_text(text)
    load_experiment(tmp_path / "experiment.toml")
    assert "dataset" in tomllib.loads(text)


def test_the_readme_names_only_options_that_some_command_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = Commands(tmp_path, capsys)
    helps = "\n".join(commands(name, "--help").out for name in COMMANDS)
    known = set(re.findall(r"--[a-z][a-z-]*", helps))
    text = "\n".join(line for line in README.splitlines() if not line.removeprefix("$ ").startswith(ELSEWHERE))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert len(named) > 5
    assert named <= known, named - known


def test_every_command_and_every_preset_is_in_the_readme() -> None:
    assert [name for name in COMMANDS if f"feldman {name}" not in README and f"`{name}`" not in README] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_relative_links_lead_to_something(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    relative = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in relative if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for_and_has_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, name
    assert module.__doc__.strip().endswith((".", "!")) or "\n" in module.__doc__
    offered = getattr(module, "__all__", [])
    assert [attribute for attribute in offered if not hasattr(module, attribute)] == []
    assert len(set(offered)) == len(offered)
    if not hasattr(module, "__path__"):
        assert offered, f"{name} has no __all__"


@pytest.mark.parametrize("name", MODULES)
def test_whatever_a_module_offers_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    offered = [getattr(module, attribute) for attribute in getattr(module, "__all__", [])]
    functions_and_classes = [item for item in offered if getattr(item, "__module__", None) == name]
    assert [item.__name__ for item in functions_and_classes if callable(item) and not item.__doc__] == []


def test_the_front_door_offers_what_it_says() -> None:
    assert [name for name in feldman.__all__ if not hasattr(feldman, name)] == []
    with pytest.raises(AttributeError, match="module 'feldman' has no attribute 'nothing'"):
        _ = feldman.nothing
