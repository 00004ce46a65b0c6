"""Experiments from preset names, TOML files and ``--set`` overrides; and back to TOML."""

from __future__ import annotations

import json
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from feldman.errors import ExperimentError, command, listed, suggestion
from feldman.experiment import Experiment
from feldman.learner_sections import LEARNER_KINDS

__all__ = [
    "experiment_from_document",
    "experiment_to_toml",
    "load_experiment",
    "overridden",
    "preset_names",
    "preset_text",
]


def preset_names() -> list[str]:
    """Return the names of the experiments that ship."""
    folder = resources.files("feldman") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """Return the TOML text of a preset."""
    return (resources.files("feldman") / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def load_experiment(source: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Load an experiment by preset name or TOML path, with overrides applied.

    Parameters
    ----------
    source
        A preset name (``"digits"``) or the path of a TOML file. Relative paths inside a file are taken from the
        file's folder; those in an override from the current one.
    overrides
        ``"section.key=value"`` texts; a value is read as TOML and, where it is not TOML, as a string.

    Raises
    ------
    ExperimentError
        If there is no such preset or file, or a field is unknown, of the wrong type or out of range.
    """
    document, folder, origin = _read_document(source)
    dataset = document.get("dataset")
    if isinstance(dataset, dict):
        _make_absolute(dataset, folder)
    for override in overrides:
        _apply_override(document, override)
    return experiment_from_document(document, origin)


def overridden(experiment: Experiment, overrides: Iterable[str], origin: str) -> Experiment:
    """Return an experiment with overrides applied, as `load_experiment` does; ``origin`` names it in messages.

    Raises
    ------
    ExperimentError
        As `load_experiment`.
    """
    document = experiment.model_dump(mode="json")
    for override in overrides:
        _apply_override(document, override)
    return experiment_from_document(document, origin)


def experiment_from_document(document: Mapping[str, Any], origin: str) -> Experiment:
    """Validate a parsed document; ``origin`` names it in messages.

    Raises
    ------
    ExperimentError
        With a line for each field: its name, what was found and what is allowed.
    """
    try:
        return Experiment.model_validate(dict(document))
    except ValidationError as error:
        lines = dict.fromkeys(_explain(problem) for problem in error.errors())
        raise ExperimentError(f"{origin} does not describe an experiment:\n  " + "\n  ".join(lines)) from None


def experiment_to_toml(experiment: Experiment) -> str:
    """Write an experiment as TOML; `load_experiment` reads it back to an equal record."""
    document = experiment.model_dump(mode="json", exclude_none=True)
    parts = []
    for section, fields in document.items():
        tables = {key: value for key, value in fields.items() if isinstance(value, dict)}
        parts.append(f"[{section}]")
        parts += [f"{key} = {_toml_value(value)}" for key, value in fields.items() if key not in tables]
        for key, table in tables.items():
            if table:
                parts += ["", f"[{section}.{key}]"]
                parts += [f"{_toml_key(name)} = {_toml_value(value)}" for name, value in table.items()]
        parts.append("")
    return "\n".join(parts)


def _read_document(source: str | Path) -> tuple[dict[str, Any], Path, str]:
    name = str(source)
    if name in preset_names():
        return tomllib.loads(preset_text(name)), Path.cwd(), f"preset '{name}'"
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ExperimentError(
            f"'{name}' is neither a preset nor a file{suggestion(name, preset_names())}; "
            f"presets: {listed(preset_names())}"
        ) from None
    except IsADirectoryError:
        raise ExperimentError(
            f"'{name}' is a folder, not an experiment file; to go on with a run use `{command('resume', name)}`"
        ) from None
    except UnicodeDecodeError:
        raise ExperimentError(f"{name} is not a text file in UTF-8; an experiment is a TOML file") from None
    except OSError as error:
        raise ExperimentError(f"cannot read {name}: {error.strerror or error}") from None
    try:
        return tomllib.loads(text), path.absolute().parent, name
    except (ValueError, RecursionError) as error:  # a syntax error is one of the former, as is a number of 5,000 digits
        raise ExperimentError(f"{name} is not valid TOML: {error}") from None


def _make_absolute(section: dict[str, Any], folder: Path) -> None:
    for key in ("root", "path"):
        if isinstance(section.get(key), str):
            section[key] = _absolute(section[key], folder, f"dataset.{key}")


def _absolute(path: str, folder: Path, field: str) -> str:
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as error:  # '~name' of nobody
        raise ExperimentError(f"{field} = '{path}': {error}") from None


def _apply_override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or len(parts) < 2 or not all(parts):
        raise ExperimentError(f"--set takes section.key=value (as in training.epochs=5), found '{override}'")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    if parts in (["dataset", "path"], ["dataset", "root"]) and isinstance(value, str):
        value = _absolute(value, Path.cwd(), ".".join(parts))
    table = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ExperimentError(f"--set {override}: '{part}' is a value, not a section")
    if parts == ["learner", "name"] and table.get("name") != value:
        table.clear()  # another learner has other keys: those of the old one say nothing about it
    table[parts[-1]] = value


def _explain(problem: Any) -> str:
    """Turn one pydantic problem into ``field: what was found; what is allowed``."""
    where = _field(problem["loc"])
    name = ".".join(where) or "experiment"
    kind, found = problem["type"], problem.get("input")
    if kind == "missing":
        return f"{name}: is missing"
    if kind == "extra_forbidden":
        valid = _valid_keys(where, problem["loc"])
        return f"{name}: is not a key{suggestion(where[-1], valid)}; valid keys: {listed(valid)}"
    if kind == "value_error":
        return f"{name}: {problem['ctx']['error']}"
    if where[1:2] == ["parameters"] and len(where) == 3:
        return f"{name}: must be true or false, a number, a text, or a list of these; found {found!r}"
    message = problem["msg"].replace("Input should be", "must be")
    return f"{name}: {message[0].lower()}{message[1:]}; found {found!r}"


def _field(location: tuple[Any, ...]) -> list[str]:
    """Return the keys as the file has them, without pydantic's names for the branches of a union."""
    where = [str(part) for part in location]
    if where[0] == "learner":
        del where[1:2]  # which learner
    if where[1:2] == ["parameters"]:
        return where[:3]
    return where[:2] if where[1:2] == ["vectorize"] else where


def _valid_keys(where: list[str], location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Experiment
    for part in where[:-1]:
        if part == "learner":
            model = LEARNER_KINDS[str(location[1])]
        else:
            annotation = model.model_fields[part].annotation
            if typing.get_origin(annotation) is types.UnionType or not isinstance(annotation, type):
                return []
            model = annotation
    return list(model.model_fields)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that TOML wants DEL escaped and JSON leaves it
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)
