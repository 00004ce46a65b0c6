"""Truth planted in real images: wrong labels are memorized, and not needed where they stand twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import feldman
from feldman.data.digits import load_digits
from tests.datasets import flipped_examples


def memorization(folder: Path, duplicated: str) -> NDArray[np.float64]:
    """Estimate with the demo's own recipe, from 150 trials."""
    overrides = [
        "dataset.name=tests.datasets:flipped_digits",
        f"dataset.parameters.duplicated={duplicated}",
        "subsets.num_trials=150",
        "execution.executor=in-process",
    ]
    feldman.run(feldman.load_experiment("digits", overrides), folder)
    values: NDArray[np.float64] = feldman.open_run(folder).memorization()["memorization"].to_numpy()
    return values


def test_flipped_labels_are_memorized_unless_they_stand_twice(tmp_path: Path) -> None:
    chosen = flipped_examples(load_digits())
    values = memorization(tmp_path / "once", "false")
    others = np.setdiff1d(np.arange(len(values)), chosen)
    # AUC: how often a flipped example has more memorization than another one.
    above = (values[chosen][:, None] > values[others][None]).mean()
    auc = above + 0.5 * (values[chosen][:, None] == values[others][None]).mean()
    print(f"AUC {auc:.4f}; mean memorization {values[chosen].mean():.3f} flipped, {values[others].mean():.3f} others")
    assert auc >= 0.95

    twice, once = chosen[::2], chosen[1::2]
    again = memorization(tmp_path / "twice", "true")
    # With its twin in 70% of the subsets, a duplicated example is mostly right without itself: about 1 - 0.7 is left.
    assert again[twice].mean() < 0.5 * values[twice].mean()
    assert (again[twice] < values[twice]).mean() > 0.9
    assert again[once].mean() > 0.8 * values[once].mean()
