"""Named image classifiers: the papers' parameter counts, shapes, modes, and trials that do not depend on their block."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feldman.data.dataset import Dataset
from feldman.errors import LearnerError
from feldman.experiment import Experiment
from feldman.learners.load import check_learner, load_learner
from feldman.learners.models.build import NamedModel, image_model
from feldman.learners.models.layers import ChannelsFirst, has_batch_norm
from feldman.learners.protocol import Correctness
from feldman.learners.torch_models import seeded
from feldman.trials.plan import subset_masks, trial_seeds

SMALL: dict[str, Any] = {"name": "resnet20"}
FAST: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 0.02,
    "augment": ["crop", "flip", "cutout"],
    "cutout_size": 3,
}


def experiment_of(learner: dict[str, Any], **training: Any) -> Experiment:
    return Experiment.model_validate({"dataset": {"name": "arrays"}, "learner": learner, "training": training})


def built(learner: dict[str, Any], shape: tuple[int, ...], num_classes: int = 10) -> nn.Module:
    section = experiment_of(learner).learner
    assert isinstance(section, NamedModel)
    with torch.device("meta"):  # shapes alone: no memory, no arithmetic
        return image_model(section, shape, num_classes)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def images(shape: tuple[int, ...] = (8, 8, 3), num: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(num) % 2
    x = rng.integers(0, 100, (num, *shape)).astype(np.uint8)
    x[y == 1, : shape[0] // 2] += 100
    return Dataset(
        name="arrays", x_train=x, y_train=y, x_test=x[::2], y_test=y[::2], class_names=("0", "1"), scale=1 / 255
    )


def train(dataset: Dataset, learner: dict[str, Any], trials: list[int], **training: Any) -> Correctness:
    masks = np.concatenate([subset_masks(3, range(one, one + 1), dataset.num_train, 0.7) for one in trials])
    seeds = np.concatenate([trial_seeds(3, range(one, one + 1)) for one in trials])
    return load_learner(experiment_of(learner, **(FAST | training)), dataset)(masks, seeds)


@pytest.mark.parametrize(
    ("learner", "expected", "paper"),
    [
        ({"name": "resnet20"}, 269_722, "0.27M: He et al. 2016, table 6"),
        ({"name": "resnet32"}, 464_154, "0.46M: the same"),
        ({"name": "resnet56"}, 853_018, "0.85M: the same"),
        ({"name": "densenet40"}, 1_019_722, "1.0M: Huang et al. 2017, table 2, k = 12"),
        ({"name": "densenet100"}, 6_979_642, "7.0M: the same"),
        ({"name": "densenet100", "bottleneck": True}, 769_162, "0.8M: the same, DenseNet-BC"),
        ({"name": "inception", "variant": "zhang"}, 1_649_402, "1,649,402: Zhang et al. 2017, table 1"),
        ({"name": "inception"}, 1_895_786, "reckoned from the authors' code"),
    ],
    ids=str,
)
def test_models_for_small_images_have_the_parameters_of_their_papers(
    learner: dict[str, Any], expected: int, paper: str
) -> None:
    assert num_parameters(built(learner, (32, 32, 3))) == expected, paper


@pytest.mark.parametrize(
    ("learner", "large"),
    # torchvision's documentation has 11,689,512 and 25,557,032 for 1,000 classes
    [({"name": "resnet18"}, 11_689_512), ({"name": "resnet50"}, 25_557_032)],
    ids=str,
)
def test_resnets_have_imagenet_s_stem_above_64_pixels_and_a_small_one_up_to_them(
    learner: dict[str, Any], large: int
) -> None:
    assert num_parameters(built(learner, (224, 224, 3), 1000)) == large
    assert num_parameters(built(learner, (64, 65, 3), 1000)) == large
    assert num_parameters(built({**learner, "stem": "large"}, (32, 32, 3), 1000)) == large
    smaller = large - 64 * 3 * (7 * 7 - 3 * 3)  # a 3x3 convolution in place of a 7x7 one
    assert num_parameters(built(learner, (64, 64, 3), 1000)) == smaller
    assert num_parameters(built({**learner, "stem": "small"}, (224, 224, 3), 1000)) == smaller


def test_projections_cost_parameters_and_padding_does_not() -> None:
    padded, projected = (num_parameters(built({**SMALL, "shortcuts": kind}, (32, 32, 3))) for kind in "AB")
    assert projected - padded == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


@pytest.mark.parametrize(
    ("learner", "maps"),
    [
        ({"name": "resnet20"}, [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
        ({"name": "resnet20", "shortcuts": "B"}, [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
        ({"name": "resnet18"}, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]),
        ({"name": "densenet40"}, [(16, 32, 32), (160, 16, 16), (304, 8, 8), (448, 8, 8)]),
        ({"name": "densenet40", "bottleneck": True}, [(24, 32, 32), (48, 16, 16), (60, 8, 8), (132, 8, 8)]),
        ({"name": "inception"}, [(96, 32, 32), (80, 32, 32), (160, 16, 16), (240, 8, 8), (336, 8, 8)]),
        ({"name": "inception", "variant": "zhang"}, [(160, 16, 16), (144, 16, 16), (240, 8, 8), (336, 8, 8)]),
    ],
    ids=str,
)
def test_maps_inside_have_the_channels_and_sizes_of_the_papers(
    learner: dict[str, Any], maps: list[tuple[int, ...]]
) -> None:
    model = built(learner, (32, 32, 3))
    found: list[tuple[int, ...]] = []
    for layer in model.modules():
        layer.register_forward_hook(lambda layer, inputs, output: found.append(tuple(output.shape[1:])))
    assert model(torch.zeros(2, 32, 32, 3, device="meta")).shape == (2, 10)
    places = [found.index(expected) for expected in maps]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "densenet40", "inception", "torchvision:mobilenet_v3_small"])
@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (33, 36, 3), (32, 32, 4)])
def test_models_take_grey_and_colour_images(name: str, shape: tuple[int, ...]) -> None:
    model = built({"name": name}, shape)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == (shape[2] if len(shape) == 3 else 1)
    assert model(torch.zeros(2, *shape, device="meta")).shape == (2, 10)


def test_option_a_takes_every_second_position_and_pads_channels_with_zeros() -> None:
    section = experiment_of(SMALL).learner
    assert isinstance(section, NamedModel)
    model = image_model(section, (8, 8, 3), 10)
    shortcut = next(layer for layer in model.modules() if type(layer).__name__ == "_PaddedShortcut")
    x = torch.rand(2, 16, 8, 8)
    found = shortcut(x)
    assert torch.equal(found[:, :16], x[:, :, ::2, ::2])
    assert found.shape == (2, 32, 4, 4)
    assert not found[:, 16:].any()


@pytest.mark.parametrize("learner", [SMALL, {"name": "torchvision:shufflenet_v2_x0_5"}], ids=str)
def test_a_trial_of_a_model_with_batch_norm_does_not_depend_on_the_trials_it_shares_a_block_with(
    learner: dict[str, Any],
) -> None:
    dataset = images((16, 16, 3))
    before = torch.random.get_rng_state()
    together = train(dataset, learner, [0, 1, 2])
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    for trials in ([0], [2, 1]):
        alone = train(dataset, learner, trials)
        np.testing.assert_array_equal(alone.train, together.train[trials])
        np.testing.assert_array_equal(alone.test, together.test[trials])


def test_a_small_resnet_learns() -> None:
    correct = train(images(), SMALL, [0], epochs=20, augment=["flip"], cutout_size=8)
    assert correct.test.mean() > 0.9


class Recorder(nn.Module):
    """Notes in which mode it is called, and how large the batch is."""

    calls: list[tuple[bool, int]]

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(ChannelsFirst(), nn.Conv2d(3, 2, 8), nn.BatchNorm2d(2), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        Recorder.calls.append((self.training, len(x)))
        return self.layers(x)  # type: ignore[no-any-return]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    Recorder.calls = []
    monkeypatch.setattr("feldman.learners.torch_models.image_model", lambda *arguments: Recorder())
    return Recorder.calls


def test_models_train_in_training_mode_and_are_evaluated_in_evaluation_mode(recorded: list[tuple[bool, int]]) -> None:
    train(images(), SMALL, [0], batch_size=14)
    assert recorded == [(True, 14), (True, 14), (False, 40), (False, 20)]


@pytest.mark.parametrize(("batch_size", "sizes"), [(27, [28]), (9, [9, 9, 10]), (13, [13, 13, 2]), (28, [28])])
def test_a_last_example_alone_joins_the_batch_before_it(
    batch_size: int, sizes: list[int], recorded: list[tuple[bool, int]]
) -> None:
    train(images(), SMALL, [0], batch_size=batch_size)  # 28 of 40 examples; one position a channel: no variance in one
    assert [size for training, size in recorded if training] == sizes


def test_batches_of_one_are_refused_where_there_is_batch_norm() -> None:
    experiment = experiment_of(SMALL, batch_size=1)
    for call in (check_learner, load_learner):
        with pytest.raises(LearnerError, match=r"'resnet20' has batch normalisation, which needs .*batch_size = 1"):
            call(experiment, images())
    assert not has_batch_norm(built({"name": "torchvision:vgg11"}, (32, 32, 3)))


@pytest.mark.parametrize(
    ("learner", "shape", "message"),
    [
        ({"name": "resnet20"}, (64,), r"'resnet20' needs images \[height, width\] or .*; use 'mlp' or 'linear'"),
        ({"name": "densenet40"}, (3, 3), r"'densenet40' does not take images of 3x3 \("),
        (
            {"name": "torchvision:vgg111"},
            (8, 8),
            r"no classifier 'vgg111' \(did you mean 'vgg11'\?\); torchvision\.models",
        ),
        ({"name": "torchvision:fcn_resnet50"}, (8, 8), r"there is no classifier 'fcn_resnet50'"),
        (
            {"name": "torchvision:shufflenet_v2_x0_5", "parameters": {"depth": 3}},
            (8, 8),
            r"refused learner\.parameters \(TypeError: .*depth",
        ),
        (
            {"name": "torchvision:resnet18", "parameters": {"weights": "DEFAULT"}},
            (8, 8),
            r"learner\.parameters\.weights is not taken \(a trained model has seen what a trial must not learn from\)",
        ),
        (
            {"name": "torchvision:resnet18", "parameters": {"num_classes": 3}},
            (8, 8),
            r"num_classes is not taken \(the data set decides it\)",
        ),
        (
            {"name": "torchvision:googlenet", "parameters": {"init_weights": False}},
            (32, 32, 3),
            r"must return logits .* returned a GoogLeNetOutputs\. If it has auxiliary outputs, set aux_logits = false",
        ),
        (
            {"name": "timm:resnet18"},
            (8, 8),
            r"needs the package timm \(.*\); install it: pip install 'feldman\[timm\]'",
        ),
    ],
    ids=str,
)
def test_what_a_model_cannot_take_is_told_before_anything_is_written(
    learner: dict[str, Any], shape: tuple[int, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (check_learner, load_learner):
        with pytest.raises(LearnerError, match=message):
            call(experiment_of(learner), images(shape))


def test_parameters_reach_torchvision_s_builder() -> None:
    wide = {"name": "torchvision:shufflenet_v2_x0_5", "parameters": {"stages_out_channels": [24, 48, 96, 192, 512]}}
    with pytest.raises(LearnerError, match="multiple values"):
        built(wide, (32, 32, 3))  # the builder sets these itself: proof that they arrive
    aux = {"name": "torchvision:googlenet", "parameters": {"aux_logits": False, "init_weights": False}}
    assert built(aux, (32, 32, 3))(torch.zeros(2, 32, 32, 3, device="meta")).shape == (2, 10)


def test_timm_is_asked_for_an_untrained_model_of_these_channels_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def create_model(name: str, **arguments: Any) -> nn.Module:
        asked.update(arguments, name=name)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, arguments["num_classes"]))

    timm = ModuleType("timm")
    vars(timm).update(list_models=lambda: ["resnet18"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", timm)
    built({"name": "timm:resnet18", "parameters": {"drop_rate": 0.1}}, (8, 8), 7)
    assert asked == {"name": "resnet18", "pretrained": False, "in_chans": 1, "num_classes": 7, "drop_rate": 0.1}
    with pytest.raises(
        LearnerError, match=r"there is no classifier 'resnet19' \(did you mean 'resnet18'\?\); timm\.list"
    ):
        built({"name": "timm:resnet19"}, (8, 8))


def test_the_same_seed_gives_the_same_initial_weights() -> None:
    section = experiment_of(SMALL).learner
    assert isinstance(section, NamedModel)
    weights: list[NDArray[np.float32]] = []
    for seed in (1, 1, 2):
        with seeded(seed):
            model = image_model(section, (8, 8), 10)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy())
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()
