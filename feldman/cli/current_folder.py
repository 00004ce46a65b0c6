"""The folder in which a command is typed, as a place to import from."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["see_current_folder"]


def see_current_folder() -> None:
    """Let a user's own learner or data set be imported from where the command is typed, as `python -m` would."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
