"""What a convolutional network can take."""

from __future__ import annotations

from feldman.errors import LearnerError

__all__ = ["check_image_shape"]


def check_image_shape(shape: tuple[int, ...], num_poolings: int) -> None:
    """Refuse inputs that a CNN with so many 2x2 poolings cannot take.

    Raises
    ------
    LearnerError
        If they are not [height, width] or [height, width, channel], or too small.
    """
    if len(shape) not in (2, 3):
        raise LearnerError(
            f"the learner 'cnn' needs images [height, width] or [height, width, channel]; this data set has {shape}; "
            "use 'mlp' or 'linear'"
        )
    if min(shape[:2]) < 2**num_poolings:
        raise LearnerError(
            f"{num_poolings} stages of 'cnn' halve the image {num_poolings} times, which {shape[0]}x{shape[1]} pixels do not "
            f"allow; use at most {min(shape[:2]).bit_length() - 1} entries in learner.channels"
        )
