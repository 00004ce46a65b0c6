"""Runs that pages are made of, and what is on a page."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feldman.estimates.selection import PairSelection
from feldman.experiment import Experiment
from feldman.job import run
from feldman.report.pictures import TILES_A_ROW, TILES_A_SHEET
from feldman.results.estimation import write_estimates
from feldman.trials.rundir import run_paths
from tests.conftest import small_arrays, small_experiment

__all__ = ["CLASS_NAMES", "image_arrays", "image_run", "page_data", "tile", "vector_run"]

CLASS_NAMES = ("<script>alert(1)</script>", "Tom & \"Jerry\" <img src=x onerror='alert(2)'>", "0")
"""One is a number; the others must not become part of the page."""


def image_arrays() -> dict[str, NDArray[Any]]:
    """Images of 6 x 5 pixels in 3 classes that overlap, so that some training examples are memorized."""
    rng = np.random.default_rng(3)
    means = rng.integers(90, 150, (3, 6, 5, 3))
    arrays: dict[str, NDArray[Any]] = {}
    for part, num in (("train", 90), ("test", 40)):
        y = np.arange(num) % 3
        arrays[f"x_{part}"] = (means[y] + rng.normal(0, 60, (num, 6, 5, 3))).clip(0, 255).astype(np.uint8)
        arrays[f"y_{part}"] = y
    arrays["class_names"] = np.array(CLASS_NAMES)
    return arrays


def image_run(folder: Path, **dataset: Any) -> Path:
    """Make a run of these images, with a few hundred pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "images.npz", allow_pickle=False, **image_arrays())
    experiment = small_experiment(folder / "images.npz", num_trials=80)
    return _estimated(experiment.replace("dataset", dataset), folder / "run")


def vector_run(folder: Path) -> Path:
    """Make a run of points with five coordinates."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", allow_pickle=True, **small_arrays())
    return _estimated(small_experiment(folder / "data.npz"), folder / "run")


def _estimated(experiment: Experiment, path: Path) -> Path:
    run(experiment, path)
    write_estimates(run_paths(path), selection=PairSelection(min_influence=0.15, min_memorization=0.0))
    return path


def page_data(page: str) -> dict[str, Any]:
    """Return what the page's script reads, found as a browser finds it: up to the first end of a script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def tile(pictures: dict[str, Any], slot: int) -> NDArray[np.uint8]:
    """Cut a picture out of its sheet, as the page's script does."""
    sheet, place = divmod(slot, TILES_A_SHEET)
    across = min(TILES_A_ROW, pictures["total"] - sheet * TILES_A_SHEET)
    x, y = (place % across) * pictures["pitch"][0], (place // across) * pictures["pitch"][1]
    content = base64.b64decode(pictures["sheets"][sheet].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    return pixels[y : y + pictures["height"], x : x + pictures["width"]]
