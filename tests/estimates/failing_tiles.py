"""Tiles that fail as a script says, importable by Ray's workers."""

from __future__ import annotations

import os
from pathlib import Path

from feldman.estimates.kernel_tiles import prepare_selecting
from feldman.estimates.tiles import TileInputs, TileResult
from feldman.trials.executor import Task

__all__ = ["attempts_at", "prepare_failing"]


def prepare_failing(folder: str, num_failures: int, inputs: TileInputs) -> Task:
    """Select with the kernel, but let the first attempts at every odd tile fail."""
    select = prepare_selecting(inputs)

    def task(tile: int) -> TileResult:
        log = Path(folder) / f"{tile}.txt"
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if tile % 2 and attempts_at(folder, tile) <= num_failures:
            raise RuntimeError(f"tile {tile} fails as scripted")
        result: TileResult = select(tile)
        return result

    return task


def attempts_at(folder: str | Path, tile: int) -> int:
    log = Path(folder) / f"{tile}.txt"
    return len(log.read_text().splitlines()) if log.exists() else 0
