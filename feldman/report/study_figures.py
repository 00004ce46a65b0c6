"""Figures of studies that lie in a run directory: whatever is there is shown, as an image that can run nothing."""

from __future__ import annotations

import base64
from pathlib import Path

from feldman.report.document import Figure
from feldman.trials.locations import Location

__all__ = ["FOLDER", "MOST_BYTES", "study_figures"]

FOLDER = "studies"
MOST_BYTES = 1_000_000
"""Of one figure; a larger one is told and left out."""

_CAPTIONS = {
    "consistency": "How far runs of several learners agree on what is memorized and which pairs are influential.",
    "lds": "How well held-out trials are predicted from their subsets, against the number of trials and beside chance.",
    "removal": "Accuracy after memorized, and after random, training examples were removed.",
    "stability": "How far random halves of the run's trials agree, against the number of trials and beside chance.",
}


def study_figures(run: Location) -> tuple[tuple[Figure, ...], list[str]]:
    """Take the ``.svg`` files of a run directory, and of ``studies`` in it, by their names.

    An SVG in an ``img`` element runs no script and loads nothing, whatever is in it.

    Returns
    -------
    figures, notes
        The figures, and a sentence for each file that is left out. Of an object store none: figures are local files.
    """
    if not isinstance(run, Path):
        return (), []
    figures, notes = [], []
    for path in sorted([*run.glob("*.svg"), *(run / FOLDER).glob("*.svg")], key=lambda path: (path.name, str(path))):
        if not path.is_file():
            continue
        name = path.name.encode("utf-8", "backslashreplace").decode()  # a file's name may be no text
        if path.stat().st_size > MOST_BYTES:
            notes.append(f"The figure {name} is larger than {MOST_BYTES / 1e6:g} MB, and left out.")
            continue
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        caption = _CAPTIONS.get(path.stem, f"The figure {name}.")
        figures.append(Figure(name=name, caption=caption, uri=f"data:image/svg+xml;base64,{content}"))
    return tuple(figures), notes
