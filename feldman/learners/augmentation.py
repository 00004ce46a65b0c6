"""Augmentation of training images: drawn a trial at a time on the CPU, applied to a whole batch where the images are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn.functional import pad

from feldman.experiment import TrainingSection

__all__ = ["Augmenter", "Draws", "apply_draws", "draw"]

_AUGMENT_STREAM = 0x9E3779B97F4A7C15 >> 1
"""Tells the generator of the augmentation from those of the initial weights and of the shuffles, which have the same seed."""


class Draws(NamedTuple):
    """What was drawn for a batch, on the CPU; None where the recipe does not have it.

    Attributes
    ----------
    corners
        int64 [example, 2]: row and column of the padded image at which the crop begins.
    flipped
        bool [example].
    holes
        int64 [example, 2]: row and column of the middle of the square that is cut out.
    """

    corners: Int64[Tensor, "example 2"] | None
    flipped: Bool[Tensor, " example"] | None
    holes: Int64[Tensor, "example 2"] | None


class Augmenter:
    """Changes batches of training images, with a generator of each trial's own.

    Parameters
    ----------
    training
        The recipe; nothing is changed if its ``augment`` is empty.
    seeds
        Those of the trials whose batches lie one after the other, equally long: each gets what it would get alone.

    Attributes
    ----------
    generators
        What is drawn from, one a trial.
    """

    def __init__(self, training: TrainingSection, *seeds: int) -> None:
        self._training = training
        self.generators = [torch.Generator().manual_seed(seed ^ _AUGMENT_STREAM) for seed in seeds]

    def __call__(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return a batch with what was drawn for it."""
        if not self._training.augment:
            return x
        shape = (len(x) // len(self.generators), x.shape[1], x.shape[2])
        drawn = (draw(self._training, shape, generator) for generator in self.generators)
        return apply_draws(x, Draws(*map(_joined, zip(*drawn, strict=True))), self._training)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def draw(training: TrainingSection, shape: tuple[int, int, int], generator: torch.Generator) -> Draws:
    """Draw for a batch of ``shape`` [example, height, width]; on the CPU, so that it is the same on every device."""
    num, height, width = shape
    corners = flipped = holes = None
    if "crop" in training.augment:
        corners = torch.randint(2 * training.crop_padding + 1, (num, 2), generator=generator)
    if "flip" in training.augment:
        flipped = torch.randint(2, (num,), generator=generator) == 1
    if "cutout" in training.augment:
        middles = (torch.randint(side, (num,), generator=generator) for side in (height, width))
        holes = torch.stack(list(middles), dim=1)
    return Draws(corners, flipped, holes)


def apply_draws(
    x: Float[Tensor, "example height width *channel"], draws: Draws, training: TrainingSection
) -> Float[Tensor, "example height width *channel"]:
    """Return the augmented batch, on the device of ``x``.

    crop
        ``crop_padding`` zeros all around, then the image's size from there (He et al. 2016, section 4.2).
    flip
        Left and right, of half the images.
    cutout
        A square of side ``cutout_size`` set to 0, its middle anywhere in the image, so that it may stick out (DeVries & Taylor
        2017).
    """
    num, height, width = x.shape[:3]
    places = (torch.arange(height, device=x.device), torch.arange(width, device=x.device))
    if draws.corners is not None or draws.flipped is not None:
        rows, columns = (place.expand(num, -1) for place in places)
        if draws.flipped is not None:
            columns = torch.where(draws.flipped.to(x.device)[:, None], columns.flip(1), columns)
        if draws.corners is not None:
            corners = draws.corners.to(x.device)
            rows, columns = rows + corners[:, :1], columns + corners[:, 1:]
            x = pad(x, [0, 0] * (x.ndim - 3) + [training.crop_padding] * 4)
        x = x[torch.arange(num, device=x.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    if draws.holes is not None:
        firsts = draws.holes.to(x.device) - training.cutout_size // 2
        cut_rows, cut_columns = (
            (first[:, None] <= place) & (place < first[:, None] + training.cutout_size)
            for first, place in zip(firsts.unbind(1), places, strict=True)
        )
        cut = cut_rows[:, :, None] & cut_columns[:, None, :]
        x = x.masked_fill(cut.reshape(*cut.shape, *[1] * (x.ndim - 3)), 0.0)
    return x
