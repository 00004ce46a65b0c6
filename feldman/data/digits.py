"""The 1,797 handwritten digits that scikit-learn ships: real 8x8 images, no download."""

from __future__ import annotations

import numpy as np

from feldman.data.dataset import Dataset, stratified_part

__all__ = ["load_digits"]

NUM_TEST = 360

# Of the 1,437 training images, rounded: declared constants. Centred inputs let the demo's networks fit all of their subset in
# its 30 epochs, wrong labels too (97% of them, against 31% with pixels scaled to 0 .. 1), and only what is fitted is memorized.
PIXEL_MEAN = 4.89
PIXEL_STD = 6.02


def load_digits() -> Dataset:
    """Load the digits, split 1,437 to 360.

    The split is fixed: `stratified_part` takes every fifth example or so of each class, in the order of the file, for the test
    part. Pixels are 0 to 16, kept as uint8 [example, 8, 8, 1].
    """
    from sklearn.datasets import load_digits as load_bunch

    bunch = load_bunch()
    images = bunch.images.astype(np.uint8)[..., np.newaxis]
    labels = bunch.target.astype(np.int64)
    test = stratified_part(labels, NUM_TEST)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Dataset(
        name="digits",
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
        class_names=tuple(str(digit) for digit in range(10)),
        shift=PIXEL_MEAN,
        scale=1 / PIXEL_STD,
    )
