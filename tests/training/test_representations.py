"""What the last layer of a network gets: against the network's own logits, and only where there is such a layer."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from feldman.data.dataset import Dataset
from feldman.errors import FeldmanError, LearnerError
from feldman.experiment import Experiment
from feldman.learners.descent import finished
from feldman.learners.device_data import DeviceData
from feldman.learners.looped import looped_training
from feldman.learners.models.layers import ChannelsFirst
from feldman.learners.representations import Representations, trained_representations
from feldman.learners.training_path import TrainingPath, on_path

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "learning_rate": 0.02}
AUGMENTED = {"augment": ["crop", "flip", "cutout"], "crop_padding": 2, "cutout_size": 3}


def images(shape: tuple[int, ...] = (8, 8, 3), num: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(num) % 3
    x = rng.integers(0, 100, (num, *shape)).astype(np.uint8)
    x[y == 1, : shape[0] // 2] += 100
    x_test, y_test = x[5:17].copy(), y[5:17].copy()
    return Dataset(
        name="images", x_train=x, y_train=y, x_test=x_test, y_test=y_test, class_names=("0", "1", "2"), scale=1 / 255
    )


def alone(learner: dict[str, Any], training: dict[str, Any] | None = None) -> Experiment:
    recipe = FAST | (training or {})
    experiment = Experiment.model_validate({"dataset": {"name": "images"}, "learner": learner, "training": recipe})
    return on_path(experiment, TrainingPath(vectorize=False, precision=recipe.get("precision", "float32")))


def represented(
    learner: dict[str, Any], training: dict[str, Any] | None = None, *, seed: int = 1, dataset: Dataset | None = None
) -> Representations:
    return trained_representations(alone(learner, training), dataset or images(), seed)


def logits_of_the_network(experiment: Experiment, dataset: Dataset, seed: int) -> dict[str, np.ndarray]:
    """What the whole network says, trained as a trial of all examples would be."""
    data = DeviceData.of(dataset, torch.device("cpu"))
    learner: Any = experiment.learner
    said = finished(looped_training(learner, experiment.training, data, torch.arange(dataset.num_train), seed))
    with torch.inference_mode():
        return {part: said(getattr(data, f"x_{part}"))[0].numpy() for part in ("train", "test")}


@pytest.mark.parametrize(
    ("learner", "training", "num_features"),
    [
        ({"name": "mlp", "hidden": [7]}, {}, 7),
        ({"name": "mlp", "hidden": [9, 5]}, {"weight_decay": 0.01, "epochs": 3}, 5),
        ({"name": "cnn", "channels": [4, 6]}, AUGMENTED, 6 * 2 * 2),
        ({"name": "resnet20"}, AUGMENTED, 64),
        ({"name": "densenet40", "bottleneck": True, "growth_rate": 2}, {}, 22),
        ({"name": "torchvision:shufflenet_v2_x0_5"}, {}, 1024),
    ],
    ids=str,
)
def test_features_times_the_last_layer_are_the_logits_of_the_network(
    learner: dict[str, Any], training: dict[str, Any], num_features: int
) -> None:
    dataset = images((16, 16, 3)) if learner["name"] == "densenet40" else images()
    found = represented(learner, training, dataset=dataset)
    expected = logits_of_the_network(alone(learner, training), dataset, 1)
    for part, labels in (("train", dataset.y_train), ("test", dataset.y_test)):
        features = getattr(found, part)
        assert (features.dtype, features.shape) == (np.float32, (len(labels), num_features))
        logits = features.astype(np.float64) @ found.weight.T.astype(np.float64) + found.bias
        np.testing.assert_allclose(logits, expected[part], atol=1e-5 * np.abs(expected[part]).max(), rtol=1e-5)
        accuracy = (expected[part].argmax(axis=1) == labels).mean()
        assert getattr(found, f"{part}_accuracy") == pytest.approx(accuracy)


def test_in_bfloat16_they_are_the_logits_as_far_as_it_rounds() -> None:
    learner, recipe = {"name": "cnn", "channels": [4]}, {"precision": "bfloat16"}
    found = represented(learner, recipe)
    expected = logits_of_the_network(alone(learner, recipe), images(), 1)["train"]
    np.testing.assert_allclose(found.train @ found.weight.T + found.bias, expected, atol=0.01 * np.abs(expected).max())
    assert (found.train != represented(learner).train).any(), "it is another training"


@pytest.mark.parametrize("learner", [{"name": "mlp", "hidden": [7]}, {"name": "resnet20"}], ids=str)
def test_the_same_seed_gives_the_same_features_whatever_torch_drew_before_and_another_seed_gives_others(
    learner: dict[str, Any],
) -> None:
    torch.manual_seed(3)
    first = represented(learner)
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    again = represented(learner)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("train", "test", "weight", "bias"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (represented(learner, seed=2).train != first.train).any()


def test_equal_images_have_equal_features_wherever_they_stand() -> None:
    """No augmentation, no statistics of a batch: the test examples are training examples 5 to 16."""
    found = represented({"name": "resnet20"}, AUGMENTED)
    np.testing.assert_allclose(found.test, found.train[5:17], atol=1e-5)


def test_every_training_example_is_learned_from_and_no_test_example() -> None:
    learner, dataset = {"name": "mlp", "hidden": [7]}, images()
    found = represented(learner)
    for row in (0, 17, 39):
        x = dataset.x_train.copy()
        x[row] = 255 - x[row]
        changed = represented(learner, dataset=replace(dataset, x_train=x))
        assert (np.delete(changed.train, row, axis=0) != np.delete(found.train, row, axis=0)).any()
    held_out = represented(learner, dataset=replace(dataset, x_test=dataset.x_test[::-1].copy()))
    np.testing.assert_array_equal(held_out.train, found.train)
    np.testing.assert_allclose(held_out.test, found.test[::-1], atol=1e-6)


def test_progress_counts_every_step_and_then_every_example() -> None:
    told: list[tuple[str, int, int]] = []
    trained_representations(
        alone({"name": "mlp"}, {"epochs": 2, "batch_size": 13}),
        images(),
        1,
        tell=lambda *progress: told.append(progress),
    )
    assert told[:8] == [("training the network", step, 8) for step in range(1, 9)]
    assert told[8:] == [("computing features", 40, 52), ("computing features", 52, 52)]


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (
            {"name": "linear"},
            r"the learner 'linear' is a linear layer alone: .*; choose a network: mlp, cnn, resnet18,",
        ),
        ({"name": "mlp", "hidden": []}, r"'mlp' with hidden = \[\] is a linear layer alone"),
        ({"name": "sklearn:svm.SVC"}, r"feldman sees no layers of the learner 'sklearn:svm\.SVC'; choose a network"),
        ({"name": "tests.learners:nearest_centroid"}, r"sees no layers of the learner 'tests\.learners:nearest"),
        ({"name": "torchvision:squeezenet1_1"}, r"'torchvision:squeezenet1_1' are not those of a linear layer"),
    ],
    ids=str,
)
def test_learners_without_a_last_layer_on_features_are_refused_before_they_are_trained(
    learner: dict[str, Any], message: str
) -> None:
    told: list[Any] = []
    with pytest.raises(LearnerError, match=message):
        trained_representations(alone(learner), images((32, 32, 3)), 1, tell=lambda *progress: told.append(progress))
    assert told == []


class Wrapped(nn.Module):
    """A network whose logits are its last layer's, changed by ``change``."""

    def __init__(self, change: Any, zero: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(ChannelsFirst(), nn.Flatten(), nn.Linear(8 * 8 * 3, 4), nn.ReLU(), nn.Linear(4, 3))
        self.change = change
        if zero:  # as vision transformers begin
            nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.body[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.body(x))  # type: ignore[no-any-return]


def test_a_network_that_changes_what_its_last_layer_gives_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[nn.Module] = []
    monkeypatch.setattr("feldman.learners.torch_models.image_model", lambda *arguments: models[-1])
    models.append(Wrapped(lambda logits: logits))
    represented({"name": "resnet20"})
    models.append(Wrapped(lambda logits: 2 * logits))
    with pytest.raises(LearnerError, match="are not those of a linear layer"):
        represented({"name": "resnet20"})
    models.append(Wrapped(lambda logits: 2 * logits, zero=True))
    with pytest.raises(FeldmanError, match="trained, the network's logits are not what its last layer gives"):
        represented({"name": "resnet20"})


def test_networks_of_timm_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = ModuleType("timm")
    layers = [nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3)]
    vars(timm).update(list_models=lambda: ["a"], create_model=lambda name, **more: nn.Sequential(*layers))
    monkeypatch.setitem(sys.modules, "timm", timm)
    found = represented({"name": "timm:a"})
    assert (found.train.shape, found.layer) == ((40, 5), "1.3")


def test_training_that_diverges_is_told_with_what_to_do() -> None:
    with pytest.raises(FeldmanError, match=r"training diverged .* lower training\.learning_rate"):
        represented({"name": "mlp"}, {"learning_rate": 1e30, "epochs": 3})


def test_a_last_layer_without_a_bias_has_zeros_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))
    monkeypatch.setattr("feldman.learners.torch_models.image_model", lambda *arguments: model)
    np.testing.assert_array_equal(represented({"name": "resnet20"}).bias, np.zeros(3, np.float32))
