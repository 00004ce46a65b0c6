"""Networks trained side by side, to the last bit of what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from feldman.data.digits import load_digits
from feldman.experiment import TrainingSection
from feldman.learner_sections import CnnLearner
from feldman.learners.descent import finished
from feldman.learners.device_data import DeviceData
from feldman.learners.stacked import NETWORKS_A_STACK, stacked_training

AUGMENTED = {"augment": ["crop", "flip", "cutout"], "crop_padding": 1, "cutout_size": 3}


@pytest.mark.parametrize("recipe", [{}, AUGMENTED, {"precision": "bfloat16", "nesterov": True}], ids=str)
@pytest.mark.parametrize("channels", [[3], [5, 7]], ids=str)
def test_a_network_says_the_same_to_the_last_bit_at_every_place_of_its_stack_and_in_any_company(
    channels: list[int], recipe: dict[str, Any]
) -> None:
    data = DeviceData.of(load_digits(), torch.device("cpu"))
    training = TrainingSection.model_validate(
        {"epochs": 2, "batch_size": 30, "learning_rate": 0.05, "weight_decay": 0.001, **recipe}
    )

    def logits(trials: list[int]) -> torch.Tensor:
        subsets = [torch.arange(trial, trial + 100) for trial in trials]
        trained = finished(stacked_training(CnnLearner(channels=channels), training, data, subsets, trials))
        with torch.inference_mode():
            return trained(data.x_test[:37])

    alone = logits([8])[0]
    for place in (0, 1, 4, NETWORKS_A_STACK - 1):
        company = [20 + k for k in range(NETWORKS_A_STACK)]
        company[place] = 8
        assert torch.equal(logits(company)[place], alone), f"place {place}"
    assert torch.equal(logits([1, 2, 8])[2], alone)
