"""Compiled training: the arithmetic of plain training, compiled once a worker and not once a trial."""

from __future__ import annotations

import inspect
import os
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from feldman.data.dataset import Dataset
from feldman.data.digits import load_digits
from feldman.experiment import Experiment, TrainingSection
from feldman.learner_sections import CnnLearner
from feldman.learners.compiled import Forward, compiled_forward, plain_forward
from feldman.learners.descent import finished
from feldman.learners.device_data import DeviceData
from feldman.learners.load import load_learner
from feldman.learners.looped import looped_training
from feldman.learners.models.layers import ChannelsFirst, conv_bn_relu, pooled_classifier
from feldman.learners.protocol import Correctness
from feldman.trials.plan import subset_masks, trial_seeds

NUM_SHAPES = 2
"""Of batches: 110 examples are 50, 50 and 10."""


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData.of(load_digits(), torch.device("cpu"))


@pytest.fixture(autouse=True)
def _nothing_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    counters.clear()
    # The check of types that tests put around our functions is nothing that torch can trace.
    monkeypatch.setattr(ChannelsFirst, "forward", inspect.unwrap(ChannelsFirst.forward))


def normalised_network(*_: Any) -> nn.Module:
    """A network with all that keeps a state or draws: the named ones take 20 seconds to compile."""
    return nn.Sequential(ChannelsFirst(), conv_bn_relu(1, 6, 3), nn.Dropout(0.2), pooled_classifier(6, 10))


@pytest.fixture
def _network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "normalised":
        for module in ("looped", "compiled"):
            monkeypatch.setattr(f"feldman.learners.{module}.build_module", normalised_network)


def trained_logits(data: DeviceData, seed: int, forward: Forward, **recipe: Any) -> Tensor:
    """Train one trial; return what it says of the test examples, with the statistics that batch normalisation has kept."""
    training = TrainingSection.model_validate({"epochs": 2, "batch_size": 50, "learning_rate": 0.05, **recipe})
    subset = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(seed))[:110]
    trained = finished(looped_training(CnnLearner(channels=[4]), training, data, subset, seed, forward=forward))
    with torch.inference_mode():
        return trained(data.x_test)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize(
    ("_network", "precision"), [("cnn", "float32"), ("normalised", "bfloat16")], indirect=["_network"]
)
def test_compiled_networks_say_what_plain_ones_say_and_the_second_trial_compiles_nothing(
    data: DeviceData, precision: str
) -> None:
    compiled = compiled_forward(CnnLearner(channels=[4]), data, backend="aot_eager")
    for seed in (1, 2, 3, 1):
        expected = trained_logits(data, seed, plain_forward, precision=precision)
        found = trained_logits(data, seed, compiled, precision=precision)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 if precision == "float32" else 0.05)
        assert counters["stats"]["unique_graphs"] == NUM_SHAPES


def bits(dataset: Dataset, compile_networks: bool) -> Correctness:
    # All of a subset is one batch: one graph, the smallest there is.
    experiment = Experiment.model_validate(
        {
            "dataset": {"name": "digits"},
            "learner": {"name": "linear", "vectorize": False},
            "training": {"epochs": 20, "batch_size": 1437},
            "execution": {"compile": compile_networks},
        }
    )
    trials = range(3)
    masks = subset_masks(0, trials, dataset.num_train, 0.7)
    return load_learner(experiment, dataset)(masks, trial_seeds(0, trials))


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="compiled code for a CPU needs a C++ compiler"
)
def test_execution_compile_gives_the_bits_of_plain_training_up_to_rounding_and_the_same_ones_every_time() -> None:
    dataset = load_digits()
    first, second, plain = (bits(dataset, compile_networks) for compile_networks in (True, True, False))
    assert counters["stats"]["unique_graphs"] == 2  # one a worker: here two were made, of three trials each
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(first.test, second.test)
    assert (first.train != plain.train).mean() < 1e-3
    assert (first.test != plain.test).mean() < 1e-3
