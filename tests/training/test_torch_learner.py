"""Training with torch, against itself in other forms and against a float64 oracle in NumPy."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from feldman.data.dataset import Dataset
from feldman.data.digits import load_digits
from feldman.errors import LearnerError
from feldman.experiment import Experiment
from feldman.learner_sections import LinearLearner
from feldman.learners.device_data import DeviceData
from feldman.learners.load import check_learner, load_learner
from feldman.learners.protocol import Correctness
from feldman.learners.torch_models import build_module, seeded
from feldman.trials.plan import subset_masks, trial_seeds

LEARNERS: list[dict[str, Any]] = [
    {"name": "linear"},
    {"name": "mlp", "hidden": [32]},
    {"name": "mlp", "hidden": [16, 16], "vectorize": False},
    {"name": "cnn", "channels": [4]},
    {"name": "cnn", "channels": [3], "vectorize": True},
]
FAST_TRAINING = {"epochs": 2, "batch_size": 64, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_digits()


def train(
    dataset: Dataset,
    learner: dict[str, Any],
    trials: range | list[int],
    training: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
) -> Correctness:
    experiment = Experiment.model_validate(
        {
            "dataset": {"name": "digits"},
            "learner": learner,
            "training": training or FAST_TRAINING,
            "outputs": outputs or {},
        }
    )
    masks = np.concatenate([subset_masks(3, range(one, one + 1), dataset.num_train, 0.7) for one in trials])
    seeds = np.concatenate([trial_seeds(3, range(one, one + 1)) for one in trials])
    return load_learner(experiment, dataset)(masks, seeds)


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_a_trial_does_not_depend_on_the_trials_it_shares_a_block_with(digits: Dataset, learner: dict[str, Any]) -> None:
    together = train(digits, learner, range(6))
    for trials in ([0], [5], [3, 1], [2, 4, 0, 5, 3]):
        alone = train(digits, learner, trials)
        np.testing.assert_array_equal(alone.train, together.train[trials])
        np.testing.assert_array_equal(alone.test, together.test[trials])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("hidden", [[], [128], [33, 17]], ids=str)
def test_even_the_margins_of_a_trial_do_not_depend_on_its_company(
    digits: Dataset, hidden: list[int], precision: str
) -> None:
    """Bits hardly notice how floats are rounded; margins do."""
    learner = {"name": "mlp", "hidden": hidden} if hidden else {"name": "linear"}
    recipe, outputs = {**FAST_TRAINING, "precision": precision}, {"margins": True}
    together = train(digits, learner, range(30), recipe, outputs)
    for trials in ([0], [5], [3, 1], list(range(13)), list(range(7, 20))):
        alone = train(digits, learner, trials, recipe, outputs)
        np.testing.assert_array_equal(alone.train_margin, np.asarray(together.train_margin)[trials])


@pytest.mark.parametrize("learner", [LEARNERS[0], LEARNERS[1], *LEARNERS[3:]], ids=str)
def test_in_bfloat16_too_a_trial_depends_on_nothing_but_itself(digits: Dataset, learner: dict[str, Any]) -> None:
    recipe = {**FAST_TRAINING, "precision": "bfloat16"}
    together = train(digits, learner, range(6), recipe)
    for trials in ([5], [3, 1]):
        alone = train(digits, learner, trials, recipe)
        np.testing.assert_array_equal(alone.train, together.train[trials])
        np.testing.assert_array_equal(alone.test, together.test[trials])


def test_precision_moves_no_accuracy_by_half_a_point(digits: Dataset) -> None:
    """Means over 40 trials of the same subsets and seeds: their difference has a standard error below 0.1 points."""
    recipe = {"epochs": 10, "batch_size": 64, "learning_rate": 0.1}
    for learner in ({"name": "mlp", "hidden": [64]}, {"name": "mlp", "hidden": [64], "vectorize": False}):
        whole, low = (
            train(digits, learner, range(40 if "vectorize" not in learner else 6), {**recipe, "precision": precision})
            for precision in ("float32", "bfloat16")
        )
        assert abs(whole.test.mean() - low.test.mean()) < 0.005
        assert (whole.test != low.test).any()  # it is not the same computation


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_constants_of_each_channel_scale_as_if_the_inputs_had_been_scaled_before(
    digits: Dataset, learner: dict[str, Any]
) -> None:
    images = {part: np.repeat(getattr(digits, f"x_{part}"), 3, axis=-1) for part in ("train", "test")}
    shift, scale = (4.0, 5.5, 0.0), (0.25, 0.125, 0.1)
    coloured = replace(digits, x_train=images["train"], x_test=images["test"], shift=shift, scale=scale)
    x_train, x_test = (
        (images[part].astype(np.float32) - np.array(shift, np.float32)) * np.array(scale, np.float32)
        for part in ("train", "test")
    )
    expected = train(replace(digits, x_train=x_train, x_test=x_test, shift=0.0, scale=1.0), learner, range(4))
    found = train(coloured, learner, range(4))
    np.testing.assert_array_equal(found.train, expected.train)
    np.testing.assert_array_equal(found.test, expected.test)


@pytest.mark.parametrize("size", [20, 50])
def test_a_short_block_has_the_bits_of_the_whole_block(digits: Dataset, size: int) -> None:
    learner = {"name": "mlp", "hidden": [128]}
    np.testing.assert_array_equal(
        train(digits, learner, range(size)).train, train(digits, learner, range(size + 13)).train[:size]
    )


AUGMENTED = {**FAST_TRAINING, "augment": ["crop", "flip", "cutout"], "crop_padding": 1, "cutout_size": 3}


def test_a_stack_of_networks_gives_a_trial_the_same_bits_in_blocks_of_any_size(digits: Dataset) -> None:
    small = replace(digits, x_train=digits.x_train[:150], y_train=digits.y_train[:150])
    learner = {"name": "cnn", "channels": [3, 5], "vectorize": True}
    together = train(small, learner, range(20), AUGMENTED)
    for trials in ([0], [9, 10], [2, 19, 0, 7, 11], range(6), range(5, 15), range(13)):
        company = train(small, learner, list(trials), AUGMENTED)
        np.testing.assert_array_equal(company.train, together.train[trials])
        np.testing.assert_array_equal(company.test, together.test[trials])


DECAYING = {"schedule": "cosine", "weight_decay": 0.01, "nesterov": True}


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ({"name": "linear"}, {}),
        ({"name": "mlp", "hidden": [128]}, {}),
        ({"name": "mlp", "hidden": [32, 16]}, DECAYING),
        ({"name": "cnn", "channels": [4]}, AUGMENTED),
        ({"name": "cnn", "channels": [5, 7]}, DECAYING),
    ],
    ids=str,
)
def test_stacked_and_looped_training_agree(digits: Dataset, name: dict[str, Any], recipe: dict[str, Any]) -> None:
    stacked = train(digits, {**name, "vectorize": True}, range(8), {**FAST_TRAINING, **recipe})
    looped = train(digits, {**name, "vectorize": False}, range(8), {**FAST_TRAINING, **recipe})
    # One trajectory, computed in two orders of float32 additions: only examples on the boundary may differ.
    assert (stacked.train != looped.train).mean() < 1e-3
    assert (stacked.test != looped.test).mean() < 1e-3


@pytest.mark.parametrize(
    "training",
    [
        {"momentum": 0.0},
        {"momentum": 0.9, "schedule": "linear"},
        {"momentum": 0.9, "nesterov": True, "schedule": "cosine"},
        {"momentum": 0.5, "weight_decay": 0.01},
    ],
    ids=str,
)
def test_training_is_stochastic_gradient_descent_as_written_in_numpy(digits: Dataset, training: dict[str, Any]) -> None:
    recipe = {"epochs": 2, "batch_size": 100, "learning_rate": 0.1, **training}
    found = train(digits, {"name": "linear"}, range(3), recipe)
    masks = subset_masks(3, range(3), digits.num_train, 0.7)
    for trial, (mask, seed) in enumerate(zip(masks, trial_seeds(3, range(3)), strict=True)):
        weight, bias = softmax_regression(digits, np.flatnonzero(mask), int(seed), recipe)
        for x, y, bits in (
            (digits.x_train, digits.y_train, found.train[trial]),
            (digits.x_test, digits.y_test, found.test[trial]),
        ):
            expected = (scaled(digits, x) @ weight.T + bias).argmax(axis=1) == y
            assert (expected != bits).mean() < 2e-3


def scaled(dataset: Dataset, x: NDArray[np.uint8]) -> NDArray[np.float64]:
    return ((x.astype(np.float64) - dataset.shift) * dataset.scale).reshape(len(x), -1)


def softmax_regression(
    dataset: Dataset, subset: NDArray[np.intp], seed: int, recipe: dict[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train one linear model in float64, from the initial weights and shuffles that the seed means."""
    with seeded(seed):
        layer = build_module(LinearLearner(), (64,), 10).get_submodule("1")
    assert isinstance(layer, torch.nn.Linear)
    parameters = [layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()]
    velocity: list[NDArray[np.float64] | None] = [None, None]
    generator = torch.Generator().manual_seed(seed ^ 0x5DEECE66D)
    x, y = scaled(dataset, dataset.x_train), np.eye(10)[dataset.y_train]
    starts = range(0, len(subset), recipe["batch_size"])
    steps, step = recipe["epochs"] * len(starts), 0
    for _ in range(recipe["epochs"]):
        order = subset[torch.randperm(len(subset), generator=generator).numpy()]
        for start in starts:
            batch = order[start : start + recipe["batch_size"]]
            logits = x[batch] @ parameters[0].T + parameters[1]
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            error = (odds / odds.sum(axis=1, keepdims=True) - y[batch]) / len(batch)
            factor = {
                "constant": 1.0,
                "linear": 1 - step / steps,
                "cosine": 0.5 + 0.5 * np.cos(np.pi * step / steps),
            }[recipe.get("schedule", "constant")]
            for k, gradient in enumerate((error.T @ x[batch], error.sum(axis=0))):
                gradient = gradient + recipe.get("weight_decay", 0) * parameters[k]
                before = velocity[k]
                now = gradient if before is None else recipe["momentum"] * before + gradient
                velocity[k] = now
                move = gradient + recipe["momentum"] * now if recipe.get("nesterov") else now
                parameters[k] = parameters[k] - recipe["learning_rate"] * factor * move
            step += 1
    return parameters[0], parameters[1]


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_the_same_block_twice_gives_the_same_bits_and_leaves_the_global_generator_alone(
    digits: Dataset, learner: dict[str, Any]
) -> None:
    before = torch.random.get_rng_state()
    first = train(digits, learner, range(3))
    torch.manual_seed(99)
    second = train(digits, learner, range(3))
    torch.random.set_rng_state(before)
    third = train(digits, learner, range(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    for other in (second, third):
        np.testing.assert_array_equal(first.train, other.train)
        np.testing.assert_array_equal(first.test, other.test)


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_a_model_learns_from_its_subset_only(digits: Dataset, learner: dict[str, Any]) -> None:
    left_out = ~subset_masks(3, range(1), digits.num_train, 0.7)[0]
    spoiled = digits.y_train.copy()
    spoiled[left_out] = (spoiled[left_out] + 1) % 10
    other = Dataset(**{**fields(digits), "y_train": spoiled})
    np.testing.assert_array_equal(train(digits, learner, [0]).test, train(other, learner, [0]).test)


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_training_never_writes_into_the_arrays_it_shares(digits: Dataset, learner: dict[str, Any]) -> None:
    for dtype in (np.uint8, np.float32, np.float64, np.uint16):
        arrays = {**fields(digits), "x_train": digits.x_train.astype(dtype), "x_test": digits.x_test.astype(dtype)}
        for array in (arrays["x_train"], arrays["x_test"], arrays["y_train"], arrays["y_test"]):
            array.setflags(write=False)
        dataset = Dataset(**arrays)
        before = content(dataset)
        train(dataset, learner, range(2))
        assert content(dataset) == before


def test_types_of_the_input_do_not_change_the_bits(digits: Dataset) -> None:
    results = []
    for dtype in (np.uint8, np.int64, np.float32, np.dtype(">f4")):
        arrays = {**fields(digits), "x_train": digits.x_train.astype(dtype), "x_test": digits.x_test.astype(dtype)}
        results.append(train(Dataset(**arrays), {"name": "mlp", "hidden": [16]}, range(3)))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].train, other.train)


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_models_learn_the_digits(digits: Dataset, learner: dict[str, Any]) -> None:
    correct = train(digits, learner, range(2), {"epochs": 8, "learning_rate": 0.1})
    assert correct.test.mean() > 0.85


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("vectorize", [True, False])
def test_a_diverged_model_is_an_error_and_no_prediction(digits: Dataset, name: str, vectorize: bool) -> None:
    wild = {"epochs": 3, "learning_rate": 1e38}
    with pytest.raises(FloatingPointError, match=r"diverged .* lower training\.learning_rate"):
        train(digits, {"name": name, "vectorize": vectorize}, range(2), wild)


@pytest.mark.parametrize(
    ("shape", "channels", "message"),
    [
        ((64,), [4], "needs images"),
        ((2, 4, 4, 1), [4], "needs images"),
        ((3, 9, 1), [4, 4], "use at most 1 entries"),
    ],
)
def test_a_cnn_refuses_what_is_no_image_or_too_small(shape: tuple[int, ...], channels: list[int], message: str) -> None:
    x, y = np.zeros((4, *shape), np.uint8), np.array([0, 1, 0, 1])
    dataset = Dataset(name="arrays", x_train=x, y_train=y, x_test=x, y_test=y, class_names=("0", "1"))
    learner = {"name": "cnn", "channels": channels}
    experiment = Experiment.model_validate({"dataset": {"name": "arrays"}, "learner": learner})
    for call in (check_learner, load_learner):
        with pytest.raises(LearnerError, match=message):
            call(experiment, dataset)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (9, 11, 2)])
def test_a_cnn_takes_grey_and_colour_images_of_any_size(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, *shape)).astype(np.uint8), np.arange(20) % 2
    dataset = Dataset(name="arrays", x_train=x, y_train=y, x_test=x, y_test=y, class_names=("0", "1"), scale=1 / 255)
    assert train(dataset, {"name": "cnn", "channels": [3, 5]}, range(2)).train.shape == (2, 20)


def fields(dataset: Dataset) -> dict[str, Any]:
    return {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}


def content(dataset: Dataset) -> str:
    arrays = (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("shift", [0.0, (0.0, 0.0, 0.0)], ids=["one", "a channel"])
def test_constants_that_change_nothing_give_the_values_themselves_and_always_in_a_new_tensor(
    dtype: Any, shift: Any
) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(dtype)
    x[0] = -0.0
    dataset = Dataset(
        name="a", x_train=x, y_train=np.zeros(6, np.int64), x_test=x, y_test=np.zeros(6, np.int64), class_names=("0",),
        shift=shift,
    )  # fmt: skip
    data = DeviceData.of(dataset, torch.device("cpu"))
    scaled = data.scaled(data.x_train)
    assert scaled.numpy().tobytes() == x.astype(np.float32).tobytes()
    scaled.zero_()
    np.testing.assert_array_equal(data.x_train.numpy(), x)
