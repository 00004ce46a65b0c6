"""Augmentation, against a plain loop over images; and where it has to stay out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from feldman.data.digits import load_digits
from feldman.errors import LearnerError
from feldman.experiment import Experiment, TrainingSection
from feldman.learners.augmentation import Augmenter, Draws, apply_draws, draw
from feldman.learners.load import check_learner, load_learner
from feldman.trials.plan import subset_masks, trial_seeds

RECIPES: list[dict[str, Any]] = [
    {"augment": ["crop"]},
    {"augment": ["flip"]},
    {"augment": ["cutout"], "cutout_size": 3},
    {"augment": ["crop", "flip"], "crop_padding": 2},
    {"augment": ["crop", "flip", "cutout"], "crop_padding": 1, "cutout_size": 4},
]
SHAPES = [(7, 9, 5), (7, 8, 8, 1), (6, 5, 9, 3)]


def one_by_one(x: Tensor, draws: Draws, training: TrainingSection) -> Tensor:
    """The same, an image and a pixel at a time."""
    padding, result = training.crop_padding, []
    for index, image in enumerate(x.numpy()):
        height, width = image.shape[:2]
        if draws.corners is not None:
            framed = np.zeros((height + 2 * padding, width + 2 * padding, *image.shape[2:]), np.float32)
            framed[padding:-padding, padding:-padding] = image
            row, column = draws.corners[index].tolist()
            image = framed[row : row + height, column : column + width]
        if draws.flipped is not None and draws.flipped[index]:
            image = image[:, ::-1]
        image = image.copy()
        if draws.holes is not None:
            top, left = (middle - training.cutout_size // 2 for middle in draws.holes[index].tolist())
            for row in range(max(top, 0), min(top + training.cutout_size, height)):
                for column in range(max(left, 0), min(left + training.cutout_size, width)):
                    image[row, column] = 0
        result.append(image)
    return torch.from_numpy(np.stack(result))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_batch_is_augmented_as_image_after_image_would_be(recipe: dict[str, Any], shape: tuple[int, ...]) -> None:
    training, x = TrainingSection(**recipe), torch.rand(shape) + 1
    for seed in range(5):
        draws = draw(training, (shape[0], shape[1], shape[2]), torch.Generator().manual_seed(seed))
        found = apply_draws(x, draws, training)
        assert found.shape == x.shape
        assert torch.equal(found, one_by_one(x, draws, training))


def test_every_place_that_a_crop_or_a_hole_may_have_is_drawn_and_half_the_images_are_flipped() -> None:
    training = TrainingSection(augment=["crop", "flip", "cutout"], crop_padding=2)
    draws = draw(training, (2000, 5, 7), torch.Generator().manual_seed(0))
    assert draws.corners is not None
    assert draws.flipped is not None
    assert draws.holes is not None
    assert [sorted(set(draws.corners[:, axis].tolist())) for axis in (0, 1)] == [list(range(5))] * 2
    assert [sorted(set(draws.holes[:, axis].tolist())) for axis in (0, 1)] == [list(range(5)), list(range(7))]
    assert 0.45 < draws.flipped.float().mean() < 0.55


def test_the_middle_crop_unflipped_is_the_image_itself() -> None:
    training, x = TrainingSection(augment=["crop", "flip"]), torch.rand(3, 6, 6, 3)
    draws = Draws(torch.full((3, 2), 4), torch.zeros(3, dtype=torch.bool), None)
    assert torch.equal(apply_draws(x, draws, training), x)


def test_a_trial_draws_from_a_generator_of_its_own() -> None:
    training, x = TrainingSection(augment=["crop", "flip", "cutout"]), torch.rand(30, 12, 12)
    before = torch.random.get_rng_state()
    first, second, other = Augmenter(training, 5), Augmenter(training, 5), Augmenter(training, 6)
    batch = first(x)
    torch.manual_seed(1)
    assert torch.equal(batch, second(x))
    assert not torch.equal(batch, other(x))
    assert not torch.equal(batch, first(x)), "every batch is drawn anew"
    torch.random.set_rng_state(before)


def test_no_augmentation_changes_nothing() -> None:
    x = torch.rand(3, 4, 4)
    assert Augmenter(TrainingSection(), 5)(x) is x


def experiment(**training: Any) -> Experiment:
    learner = {"name": "cnn", "channels": [4]}
    return Experiment.model_validate({"dataset": {"name": "digits"}, "learner": learner, "training": training})


def test_only_training_batches_are_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, sizes = load_digits(), []

    class Recording(Augmenter):
        def __call__(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x

    monkeypatch.setattr("feldman.learners.looped.Augmenter", Recording)
    masks, seeds = subset_masks(3, range(1), digits.num_train, 0.7), trial_seeds(3, range(1))
    load_learner(experiment(epochs=2, batch_size=503), digits)(masks, seeds)
    assert sizes == [503, 503, 503, 503]  # 1,006 of 1,437 examples, twice; 1,797 were evaluated


def test_augmented_trials_do_not_depend_on_their_block_and_differ_from_plain_ones() -> None:
    digits = load_digits()
    masks, seeds = subset_masks(3, range(3), digits.num_train, 0.7), trial_seeds(3, range(3))
    recipe = {"epochs": 1, "batch_size": 64, "learning_rate": 0.05}
    learn = load_learner(
        experiment(**recipe, augment=["crop", "flip", "cutout"], crop_padding=1, cutout_size=2), digits
    )
    together, alone = learn(masks, seeds), learn(masks[1:2], seeds[1:2])
    np.testing.assert_array_equal(alone.train, together.train[1:2])
    plain = load_learner(experiment(**recipe), digits)(masks, seeds)
    assert (plain.train != together.train).any()


def test_a_hole_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(LearnerError, match=r"cutout_size = 8 can cover images of 8x8 pixels whole; use less than 8"):
        check_learner(experiment(augment=["cutout"]), load_digits())
