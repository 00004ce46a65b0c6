"""Checkpoints of long trials: arrays in a file a trial, written whole or not at all, and never unpickled."""

from __future__ import annotations

import os
import uuid
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

__all__ = ["Checkpoints", "State", "trial_name"]

State = Mapping[str, NDArray[Any]]
"""All that a training has changed so far, by name."""


def trial_name(seed: int, subset: Int64[np.ndarray, " example"]) -> str:
    """Return the name of a trial among those of its experiment: where subsets are designed, several share a seed."""
    return f"{seed}-{zlib.crc32(subset.tobytes()):08x}"


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where trials under way are kept, and how often.

    Attributes
    ----------
    folder
        Of this experiment alone; every worker has to reach it.
    every_epochs
        How many epochs lie between two checkpoints of a trial.
    """

    folder: Path
    every_epochs: int

    def load(self, trial: str) -> State | None:
        """Return the last state of a trial, by its `trial_name`; None if there is none that can be read: it then begins anew."""
        try:
            with self._path(trial).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def save(self, trial: str, state: State) -> None:
        """Keep the state of a trial in place of the one before.

        Two workers may have one trial in hand, as when one of them was thought lost: both write the same states, whole.

        Raises
        ------
        OSError
            If the storage refuses.
        """
        path = self._path(trial)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex[:8]}.partial")
        try:
            with partial.open("wb") as file:
                np.savez(file, **state)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())  # hours of work: it may wait for the disk
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def forget(self, trials: Sequence[str]) -> None:
        """Remove the states of trials that have been trained."""
        for trial in trials:
            self._path(trial).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, trial: str) -> Path:
        return self.folder / f"{trial}.npz"
