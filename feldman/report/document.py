"""The document that a page shows: records of arrays, from tables, and as the JSON that the page's script reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from feldman.report.histogram import BIN_WIDTH, Histogram, bin_of
from feldman.report.pictures import TILES_A_ROW, TILES_A_SHEET, SpriteSheets

__all__ = [
    "Examples",
    "Figure",
    "PagePairs",
    "Pictures",
    "ReportDocument",
    "TrainColumns",
    "ValuePlots",
    "floats",
    "ints",
    "plain_numbers",
]

UNKNOWN = -1
"""Stands for a whole number that a table does not tell."""

_DECIMALS = 6
"""What is shown with three then rounds as the value itself does."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The training, or the test, examples of a page.

    Attributes
    ----------
    index
        int64 [example]: which, ascending.
    label
        int64 [example]: a position in the document's class names.
    num_pairs
        int64 [example]: how many pairs the table has of each.
    files
        What file each one was; None where they come from no files.
    """

    index: Int64[np.ndarray, " example"]
    label: Int64[np.ndarray, " example"]
    num_pairs: Int64[np.ndarray, " example"]
    files: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the columns."""
        columns = {"index": self.index, "label": self.label, "pairs": self.num_pairs}
        return {name: values.tolist() for name, values in columns.items()} | {"file": self.files}


@dataclass(frozen=True, kw_only=True)
class TrainColumns:
    """What a page tells of its training examples besides: estimates, and the counts they come from.

    Attributes
    ----------
    memorization, low, high
        float64 [example]: the value and its interval; NaN where undefined.
    counts
        int64 [4, example]: trials with the example and without, and of these those that got it right; `UNKNOWN` where not told.
    typical
        bool [example]: whether it is one of the typical examples of its class.
    original_label
        int64 [example]: the label before some were replaced by random ones; None where none was.
    """

    memorization: Float64[np.ndarray, " example"]
    low: Float64[np.ndarray, " example"]
    high: Float64[np.ndarray, " example"]
    counts: Int64[np.ndarray, "4 example"]
    typical: NDArray[np.bool_]
    original_label: Int64[np.ndarray, " example"] | None = None

    def part(self, places: NDArray[np.intp], typical: NDArray[np.intp]) -> TrainColumns:
        """Take the examples at some places, which are ascending, and note which of them are typical."""
        original = self.original_label
        return TrainColumns(
            memorization=self.memorization[places],
            low=self.low[places],
            high=self.high[places],
            counts=self.counts[:, places],
            typical=np.isin(places, typical),
            original_label=None if original is None else original[places],
        )

    def as_json(self) -> dict[str, Any]:
        """Return the columns, and the bin of the histogram that each example is in."""
        counted = dict(zip(("numIn", "numOut", "correctIn", "correctOut"), self.counts.tolist(), strict=True))
        return {
            "value": plain_numbers(self.memorization),
            "low": plain_numbers(self.low),
            "high": plain_numbers(self.high),
            "bin": bin_of(self.memorization).tolist(),
            **counted,
            "typical": self.typical.astype(int).tolist(),
            "original": None if self.original_label is None else self.original_label.tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class PagePairs:
    """The pairs of a page, most influential first.

    Attributes
    ----------
    train, test
        int64 [pair]: positions among the page's training and test examples.
    influence, low, high, q_value
        float64 [pair]; NaN where not known.
    """

    train: Int64[np.ndarray, " pair"]
    test: Int64[np.ndarray, " pair"]
    influence: Float64[np.ndarray, " pair"]
    low: Float64[np.ndarray, " pair"]
    high: Float64[np.ndarray, " pair"]
    q_value: Float64[np.ndarray, " pair"]

    def as_json(self) -> dict[str, Any]:
        """Return the columns."""
        return {
            "train": self.train.tolist(),
            "test": self.test.tolist(),
            "influence": plain_numbers(self.influence),
            "low": plain_numbers(self.low),
            "high": plain_numbers(self.high),
            "q": [None if np.isnan(value) else float(f"{value:.2g}") for value in self.q_value],
        }


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Thumbnails: ``train`` and ``test`` are the tile of each of the page's examples, or -1 for one that has none."""

    sheets: SpriteSheets
    train: Int64[np.ndarray, " train"]
    test: Int64[np.ndarray, " test"]

    @property
    def num_left_out(self) -> int:
        """How many examples have no picture."""
        return int((self.train < 0).sum() + (self.test < 0).sum())

    def as_json(self) -> dict[str, Any]:
        """Return the sheets, and where in them each picture is."""
        return {
            "kind": "images",
            "width": self.sheets.width,
            "height": self.sheets.height,
            "pitch": list(self.sheets.pitch),
            "columns": TILES_A_ROW,
            "tiles": TILES_A_SHEET,
            "total": self.sheets.num_tiles,
            "sheets": list(self.sheets.sheets),
            "train": self.train.tolist(),
            "test": self.test.tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class ValuePlots:
    """Inputs that are no images, as numbers of which small plots are drawn.

    Attributes
    ----------
    train, test
        float64 [example, value].
    num_values
        Of an input. There are more than columns where these are means of neighbours.
    """

    train: Float64[np.ndarray, "train value"]
    test: Float64[np.ndarray, "test value"]
    num_values: int

    def as_json(self) -> dict[str, Any]:
        """Return the values, to four digits."""
        parts = {"train": self.train, "test": self.test}
        digits = {name: [[float(f"{value:.4g}") for value in row] for row in rows] for name, rows in parts.items()}
        return {"kind": "values", "numValues": self.num_values, **digits}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a study: its file's name, what it shows, and the SVG as a data URI."""

    name: str
    caption: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class ReportDocument:
    """All that a page shows.

    Attributes
    ----------
    name
        Of the run.
    facts
        What is told of the run at a glance: terms and texts.
    notes
        What a reader must know besides.
    selection
        What of the run the page holds, in sentences.
    class_names
        By label, one for every label that stands anywhere.
    histogram
        Of all training examples, whether or not they are on the page.
    train, columns, test, pairs
        The examples and pairs of the page.
    pictures
        None where there are none.
    figures
        Of studies.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    selection: tuple[str, ...]
    class_names: tuple[str, ...]
    histogram: Histogram
    train: Examples
    columns: TrainColumns
    test: Examples
    pairs: PagePairs
    pictures: Pictures | ValuePlots | None = None
    figures: tuple[Figure, ...] = ()

    @property
    def num_pictures(self) -> int:
        """How many examples have a picture, or a plot of their values."""
        left_out = self.pictures.num_left_out if isinstance(self.pictures, Pictures) else 0
        return 0 if self.pictures is None else len(self.train.index) + len(self.test.index) - left_out

    def data(self) -> dict[str, Any]:
        """Return what the page's script reads: columns, with null where a number is undefined or not known."""
        return {
            "classes": list(self.class_names),
            "histogram": {
                "first": self.histogram.first,
                "width": BIN_WIDTH,
                "counts": self.histogram.counts.tolist(),
                "undefined": self.histogram.undefined.tolist(),
            },
            "train": self.train.as_json() | self.columns.as_json(),
            "test": self.test.as_json(),
            "pairs": self.pairs.as_json(),
            "pictures": None if self.pictures is None else self.pictures.as_json(),
        }


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column of numbers, NaN for null."""
    return np.asarray(column.to_numpy(), np.float64)


def ints(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a column of whole numbers, `UNKNOWN` for null."""
    return np.asarray(column.fill_null(UNKNOWN).to_numpy(), np.int64)


def plain_numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Return numbers as JSON has them: to six decimals, None for what is not finite."""
    rounded = np.round(values, _DECIMALS).tolist()
    return [None if value != value else value for value in rounded]
