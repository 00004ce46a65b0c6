"""Bring in a user's own function by ``"package.module:name"``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feldman.errors import FeldmanError, listed, suggestion

__all__ = ["import_callable", "see_current_folder"]


def import_callable(spec: str, field: str, error: type[FeldmanError]) -> Callable[..., Any]:
    """Import a callable named ``package.module:name``.

    Parameters
    ----------
    spec
        The name, as the experiment gives it.
    field
        The experiment's field, for messages.
    error
        What to raise.
    """
    module_name, _, name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as problem:
        raise error(
            f"{field} = '{spec}': cannot import '{module_name}' ({problem}); "
            "it must be importable from the current folder or be installed"
        ) from None
    except (Exception, SystemExit) as problem:
        raise error(f"{field} = '{spec}': importing '{module_name}' raised {problem!r}") from problem
    found = getattr(module, name, None)
    if found is None:
        names = [key for key in vars(module) if not key.startswith("_")]
        raise error(
            f"{field} = '{spec}': '{module_name}' has no '{name}'{suggestion(name, names)}; it has {listed(names)}"
        )
    if not callable(found):
        raise error(f"{field} = '{spec}' must be a function; found a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def see_current_folder() -> None:
    """Let a user's own modules be imported from where a command is typed, as `python -m` would."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
