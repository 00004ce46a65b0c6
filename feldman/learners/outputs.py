"""What is recorded of a model beside right or wrong: margins and predicted labels, and the laws that tie them to the bits."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float16, Integer
from numpy.typing import NDArray

__all__ = ["LARGEST_MARGIN", "label_type", "margins", "margins_agree", "predictions_agree", "stored_margins"]

LARGEST_MARGIN = 65504.0
"""The largest finite float16: margins beyond it are stored as it."""

_EXPONENT_BITS = 0x7C00
"""Of float16: all set in infinities and in what is not a number."""


def margins(
    scores: Float[np.ndarray, "*trial example classes"], labels: Integer[np.ndarray, " example"]
) -> Float16[np.ndarray, "*trial example"]:
    r"""Return the margin of the correct class: :math:`z_y - \max_{c \neq y} z_c` for logits z and label y.

    The output that datamodels regress on (Ilyas et al. 2022, arXiv:2202.00622). It is positive where the label alone has the
    highest score, negative where another class has a higher one, and 0 where they tie.

    Parameters
    ----------
    scores
        Logits, or log probabilities: the same margin, as what normalizes them cancels. -inf is a class that cannot be.
    labels
        The correct classes.

    Returns
    -------
    ndarray of float16
        As `stored_margins` makes them.

    Raises
    ------
    FloatingPointError
        If a score is not a number.
    """
    if np.isnan(scores).any():
        raise FloatingPointError("some scores are not numbers, and have no margin: the model may have diverged")
    chosen = np.broadcast_to(labels[:, None], (*scores.shape[:-1], 1))
    own = np.take_along_axis(scores, chosen, axis=-1)[..., 0]
    others = scores.copy()
    np.put_along_axis(others, chosen, -np.inf, axis=-1)
    highest = others.max(axis=-1)
    with np.errstate(over="ignore"):  # clipped
        difference = np.subtract(own, highest, out=np.zeros_like(own), where=own != highest)  # -inf less -inf is a tie
    return stored_margins(difference)


def stored_margins(margin: Float[np.ndarray, "*trial example"]) -> Float16[np.ndarray, "*trial example"]:
    """Round margins to float16, clipped to its finite range.

    Rounding flips no sign; what is smaller than 3e-8 becomes 0, which says nothing about right or wrong. There is no negative
    zero: equal margins have equal bytes.
    """
    stored: NDArray[np.float16] = np.clip(margin, -LARGEST_MARGIN, LARGEST_MARGIN).astype(np.float16)
    stored += np.float16(0)
    return stored


def label_type(num_classes: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned type that holds the label of every class."""
    return np.min_scalar_type(num_classes - 1)


def margins_agree(margin: Float16[np.ndarray, "trial example"], correct: Bool[np.ndarray, "trial example"]) -> bool:
    """Tell whether margins are finite, none positive where a prediction is wrong, and none negative where it is right."""
    bits = margin.view(np.int16)  # a float's sign is its integer's; comparing float16 takes 50 times as long
    wrong_sign = ((bits > 0) & ~correct) | ((bits < 0) & correct)
    return not bool(wrong_sign.any() or ((bits & _EXPONENT_BITS) == _EXPONENT_BITS).any())


def predictions_agree(
    prediction: Integer[np.ndarray, "trial example"],
    correct: Bool[np.ndarray, "trial example"],
    labels: Integer[np.ndarray, " example"],
) -> bool:
    """Tell whether predictions are the labels just where they are right."""
    return np.array_equal(prediction == labels.astype(prediction.dtype), correct)
