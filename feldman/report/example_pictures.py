"""The pictures of a page: the examples of the data set that a run was trained on, as many as the page has room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.data.load import example_files, load_dataset
from feldman.errors import DatasetError, command
from feldman.experiment import DatasetSection
from feldman.report.document import Examples, Pictures, ReportDocument, ValuePlots
from feldman.report.page import render_page
from feldman.report.pictures import Inputs, image_layout, num_short, short_values, sprite_sheets, thumbnails
from feldman.report.selection import PageLimits
from feldman.results.run import Run

__all__ = ["with_pictures", "with_pictures_of"]

_FRAME_BYTES, _SLOT_BYTES = 1000, 8
"""Of what is told of all pictures, and of the number of an example's tile, in JSON, with room to spare."""


def with_pictures_of(
    run: Run,
    document: ReportDocument,
    order: Int64[np.ndarray, "2 example"],
    limits: PageLimits,
    tell: Callable[[str], None],
) -> ReportDocument:
    """Load the data set of a run, and show its examples.

    Parameters
    ----------
    run
        Where the data set is named, with the hash of its content.
    document, order, limits
        As for `with_pictures`.
    tell
        Told what is being done.

    Raises
    ------
    DatasetError
        If the data set is not there, or no longer what it was; says how to make the page without pictures.
    """
    tell("loading the data set")
    dataset = _dataset(run)
    section = run.experiment.dataset
    document = replace(
        document,
        train=_with_files(document.train, section, "train", dataset.num_train),
        test=_with_files(document.test, section, "test", dataset.num_test),
    )
    tell("making pictures")
    return with_pictures(document, dataset, order, limits)


def with_pictures(
    document: ReportDocument, dataset: Dataset, order: Int64[np.ndarray, "2 example"], limits: PageLimits
) -> ReportDocument:
    """Give the examples of a document their pictures, or their values where they are no images.

    Parameters
    ----------
    document
        Without pictures.
    dataset
        What the examples are of.
    order
        Every example once, the most important first; as `feldman.report.contents.Contents.picture_order`.
    limits
        The size of a picture, and of the file.
    """
    train = Inputs(x=dataset.x_train, index=document.train.index)
    test = Inputs(x=dataset.x_test, index=document.test.index)
    if image_layout(dataset.example_shape) is None:
        num_values = int(np.prod(dataset.example_shape))
        return replace(document, pictures=ValuePlots(train=_values(train), test=_values(test), num_values=num_values))
    num_train, num_examples = len(train.index), order.shape[1]
    if not num_examples:
        return document
    tiles = thumbnails((train, test), limits.thumbnail)[order[1] + np.where(order[0] == 1, num_train, 0)]
    taken = len(render_page(document).encode()) + _FRAME_BYTES + _SLOT_BYTES * num_examples
    sheets = sprite_sheets(tiles, int(limits.max_megabytes * 1e6) - taken)
    slots = [_slots(order, part, len(each.index), sheets.num_tiles) for part, each in enumerate((train, test))]
    pictures = Pictures(sheets=sheets, train=slots[0], test=slots[1])
    if not pictures.num_left_out:
        return replace(document, pictures=pictures)
    note = (
        f"The pictures of {pictures.num_left_out:,} of the {num_examples:,} examples on this page are left out, to keep it below "
        f"{limits.max_megabytes:g} MB."
    )
    return replace(document, pictures=pictures, notes=(*document.notes, note))


def _values(inputs: Inputs) -> NDArray[np.float64]:
    return np.concatenate([np.empty((0, num_short(inputs.x))), *(short_values(part) for part in inputs.parts())])


def _dataset(run: Run) -> Dataset:
    without = f"make the report without pictures: {command('report', run.paths.root, '--no-pictures')}"
    try:
        dataset = load_dataset(run.experiment.dataset)
    except DatasetError as error:
        raise DatasetError(f"{error}; put the data set in its place, or {without}") from None
    trained_on = run.store.attributes["dataset"]["fingerprint"]
    if dataset.fingerprint != trained_on:
        raise DatasetError(
            f"the data set '{dataset.name}' is not what '{run.paths.root}' was trained on: its content is "
            f"{dataset.fingerprint[:12]} now, {trained_on[:12]} then; put the old data in its place, or {without}"
        )
    return dataset


def _with_files(examples: Examples, section: DatasetSection, part: str, num_examples: int) -> Examples:
    files = example_files(section, part)
    if files is None or len(files) != num_examples:
        return examples
    return replace(examples, files=tuple(files[index] for index in examples.index))


def _slots(order: NDArray[np.int64], part: int, num_examples: int, num_tiles: int) -> NDArray[np.int64]:
    """Return the tile of each example of a part; -1 for those that have none."""
    slots = np.full(num_examples, -1)
    place = np.flatnonzero(order[0, :num_tiles] == part)
    slots[order[1, place]] = place
    return slots
