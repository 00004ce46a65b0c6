"""Draw the most memorized images of a run, and test images that depend on them.

    python analysis/fashion-mnist-10k/contact_sheet.py RUN OUT.png

Left, the most memorized training images of each class, most memorized first. Right, in the form of the paper's figure 4, the
training images of the most influential pairs, each followed by the test images that it decides.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from feldman import open_run
from feldman.data.load import load_dataset

CELL, TEXT, GAP = 84, 26, 6
NUM_PER_CLASS, NUM_ROWS, NUM_TESTS = 6, 10, 4
Tile = tuple[np.ndarray, str, str]


def main(run_path: str, out: str) -> None:
    run = open_run(run_path)
    data = load_dataset(run.experiment.dataset)
    memorization = pq.read_table(run.paths.memorization).to_pandas()
    pairs = pq.read_table(run.paths.influence).to_pandas()
    by_class = memorization.sort_values("memorization", ascending=False).groupby("label").head(NUM_PER_CLASS)
    left = [
        [
            (data.x_train[row.train_index], data.class_names[label], f"mem {row.memorization:.2f}")
            for row in by_class[by_class.label == label].itertuples()
        ]
        for label in range(data.num_classes)
    ]
    strongest = pairs.sort_values("influence", ascending=False)
    right = []
    for train in strongest.train_index.drop_duplicates().head(NUM_ROWS):
        decided = strongest[strongest.train_index == train].head(NUM_TESTS)
        first = decided.iloc[0]
        name = data.class_names[int(first.train_label)]
        row: list[Tile] = [(data.x_train[train], name, f"mem {first.memorization:.2f}")]
        row += [
            (data.x_test[pair.test_index], data.class_names[pair.test_label], f"infl {pair.influence:.2f}")
            for pair in decided.itertuples()
        ]
        right.append(row)
    sheets = [sheet(left, framed=range(NUM_PER_CLASS)), sheet(right, framed=range(1))]
    picture = Image.new("RGB", (sum(s.width for s in sheets) + 40, max(s.height for s in sheets)), "white")
    picture.paste(sheets[0], (0, 0))
    picture.paste(sheets[1], (sheets[0].width + 40, 0))
    picture.save(out)
    print(f"{out}: {run.status().num_committed_trials} trials, {len(pairs)} pairs")


def sheet(rows: list[list[Tile]], framed: Iterable[int]) -> Image.Image:
    """Draw rows of captioned images; those in the framed columns are training images."""
    width = max(map(len, rows)) * (CELL + GAP) + GAP
    picture = Image.new("RGB", (width, len(rows) * (CELL + TEXT + GAP) + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for i, row in enumerate(rows):
        for j, (pixels, name, value) in enumerate(row):
            x, y = GAP + j * (CELL + GAP), GAP + i * (CELL + TEXT + GAP)
            picture.paste(
                Image.fromarray(pixels.squeeze()).resize((CELL, CELL), Image.Resampling.NEAREST), (x, y + TEXT)
            )
            draw.text((x, y), f"{name}\n{value}", fill="black", spacing=1)
            if j in framed:
                draw.rectangle((x - 2, y + TEXT - 2, x + CELL + 1, y + TEXT + CELL + 1), outline=(200, 30, 30), width=2)
    return picture


if __name__ == "__main__":
    main(*sys.argv[1:])
