"""What learners of images can take: found out before anything is written."""

from __future__ import annotations

from feldman.errors import LearnerError
from feldman.experiment import TrainingSection
from feldman.learner_sections import CnnLearner, ImageLearner

__all__ = ["check_image_learner"]


def check_image_learner(
    section: ImageLearner, training: TrainingSection, example_shape: tuple[int, ...], num_classes: int
) -> None:
    """Refuse inputs that a learner of images cannot take. Imports torch for all but ``"cnn"``.

    Raises
    ------
    LearnerError
        If they are not [height, width] or [height, width, channel], or too small, or the model cannot be built.
    """
    if len(example_shape) not in (2, 3):
        raise LearnerError(
            f"the learner '{section.name}' needs images [height, width] or [height, width, channel]; this data set has "
            f"{example_shape}; use 'mlp' or 'linear'"
        )
    if "cutout" in training.augment and training.cutout_size >= min(example_shape[:2]):
        raise LearnerError(
            f"training.cutout_size = {training.cutout_size} can cover images of {example_shape[0]}x{example_shape[1]} pixels "
            f"whole; use less than {min(example_shape[:2])}"
        )
    if isinstance(section, CnnLearner):
        _check_poolings(example_shape, len(section.channels))
        return
    from feldman.learners.models.build import check_model

    check_model(section, training, example_shape, num_classes)


def _check_poolings(shape: tuple[int, ...], num_poolings: int) -> None:
    if min(shape[:2]) < 2**num_poolings:
        raise LearnerError(
            f"{num_poolings} stages of 'cnn' halve the image {num_poolings} times, which {shape[0]}x{shape[1]} pixels do not "
            f"allow; use at most {min(shape[:2]).bit_length() - 1} entries in learner.channels"
        )
