"""Margins and predicted labels: against a float64 oracle, and the laws that tie them to the bits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.svm import SVC

from feldman.data.digits import load_digits
from feldman.errors import LearnerError
from feldman.experiment import Experiment
from feldman.learner_sections import SklearnLearner
from feldman.learners.descent import logit_margins
from feldman.learners.load import check_learner, load_learner
from feldman.learners.outputs import (
    LARGEST_MARGIN,
    label_type,
    margins,
    margins_agree,
    predictions_agree,
    stored_margins,
)
from feldman.learners.protocol import Correctness
from feldman.learners.sklearn_learner import sklearn_estimator
from feldman.trials.plan import subset_masks, trial_seeds
from tests.conftest import small_dataset

BOTH = {"margins": True, "predictions": True}


@st.composite
def scored(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Logits [trial, example, class], with ties, extremes and neighbouring values, and labels."""
    num_examples, num_classes = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    some = st.one_of(
        st.sampled_from(
            [0.0, -0.0, 1.0, 1.0 + 2.0**-20, 2.0**-26, -(2.0**-26), 1e30, -1e30, 65504.0, 65519.0, 65536.0]
        ),
        st.floats(-100, 100, width=32),
    )
    scores = draw(nps.arrays(dtype, (draw(st.integers(1, 3)), num_examples, num_classes), elements=some))
    labels = draw(nps.arrays(np.int64, num_examples, elements=st.integers(0, num_classes - 1)))
    return scores, labels


def oracle(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The definition, an example at a time, in float64."""
    found = np.empty(scores.shape[:-1])
    for index in np.ndindex(found.shape):
        row, label = scores[index].astype(np.float64), labels[index[-1]]
        found[index] = row[label] - max(np.delete(row, label))
    return found


def assert_stored(found: NDArray[np.float16], exact: NDArray[np.float64], correct: NDArray[np.bool_]) -> None:
    """Within float16's rounding of the exact margin, at most once rounded before to float32; and the laws."""
    clipped = np.clip(exact, -LARGEST_MARGIN, LARGEST_MARGIN)
    np.testing.assert_allclose(found.astype(np.float64), clipped, rtol=2**-10, atol=2**-24)
    assert found.dtype == np.float16
    assert np.isfinite(found).all()
    assert not (np.signbit(found) & (found == 0)).any(), "one zero"
    assert (np.sign(found) * np.sign(exact) >= 0).all(), "rounding flips no sign"
    assert correct[found > 0].all()
    assert not correct[found < 0].any()
    assert margins_agree(found, correct)


@given(scored())
def test_margins_are_those_of_the_definition_within_rounding(case: tuple[NDArray[Any], NDArray[np.int64]]) -> None:
    scores, labels = case
    kept = scores.copy()
    assert_stored(margins(scores, labels), oracle(scores, labels), scores.argmax(axis=-1) == labels)
    np.testing.assert_array_equal(scores, kept)


@given(scored(), st.data())
def test_one_wrong_sign_or_number_is_found(case: tuple[NDArray[Any], NDArray[np.int64]], data: st.DataObject) -> None:
    scores, labels = case
    correct, found = scores.argmax(axis=-1) == labels, margins(scores, labels)
    place = tuple(data.draw(st.integers(0, size - 1)) for size in found.shape)
    for value in (np.nan, np.inf, -np.inf, -1.0 if correct[place] else 1.0, -6e-8 if correct[place] else 6e-8):
        spoiled = found.copy()
        spoiled[place] = value
        assert not margins_agree(spoiled, correct)
    prediction = scores.argmax(axis=-1)
    assert predictions_agree(prediction, correct, labels)
    right = correct.copy()
    right[place] ^= True
    assert not predictions_agree(prediction, right, labels)


@given(nps.arrays(np.float64, (2, 3), elements=st.floats(allow_nan=False)))
@example(np.array([[1e-9, -1e-9, -0.0], [65519.9, -1e300, np.inf]]))
def test_stored_margins_are_finite_and_keep_their_order(values: NDArray[np.float64]) -> None:
    stored = stored_margins(values).ravel().astype(np.float64)
    assert np.isfinite(stored).all()
    assert (np.diff(stored[np.argsort(values.ravel(), kind="stable")]) >= 0).all()


def test_a_score_that_is_not_a_number_has_no_margin() -> None:
    with pytest.raises(FloatingPointError, match="not numbers"):
        margins(np.array([[0.0, np.nan]]), np.array([0]))


def test_classes_that_cannot_be_have_the_extreme_margins_and_tie_with_each_other() -> None:
    scores = np.array([[0.0, -np.inf, -np.inf], [-np.inf, -np.inf, -np.inf]])
    assert margins(scores, np.array([0, 1])).tolist() == [LARGEST_MARGIN, 0]
    assert margins(scores, np.array([2, 2])).tolist() == [-LARGEST_MARGIN, 0]


@pytest.mark.parametrize(
    ("num_classes", "name"), [(1, "uint8"), (2, "uint8"), (256, "uint8"), (257, "uint16"), (70_000, "uint32")]
)
def test_predictions_take_the_smallest_type_that_holds_every_label(num_classes: int, name: str) -> None:
    assert label_type(num_classes).name == name


# scikit-learn


def experiment(learner: dict[str, Any], outputs: dict[str, bool], **training: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "dataset": {"name": "digits"},
            "learner": learner,
            "training": training,
            "outputs": outputs,
            "execution": {"executor": "in-process"},
        }
    )


def trained(learner: dict[str, Any], outputs: dict[str, bool], masks: NDArray[np.bool_] | None = None) -> Correctness:
    digits = load_digits()
    masks = subset_masks(3, range(2), digits.num_train, 0.1) if masks is None else masks
    return load_learner(experiment(learner, outputs), digits)(masks, trial_seeds(3, range(len(masks))))


def assert_lawful(found: Correctness) -> None:
    digits = load_digits()
    for part, labels in (("train", digits.y_train), ("test", digits.y_test)):
        correct, margin = getattr(found, part), getattr(found, f"{part}_margin")
        assert margin.shape == correct.shape
        assert margins_agree(margin, correct)
        assert predictions_agree(getattr(found, f"{part}_prediction"), correct, labels)


SKLEARN: dict[str, dict[str, Any]] = {
    "log probabilities": {"name": "sklearn:linear_model.LogisticRegression", "parameters": {"max_iter": 5}},
    "probabilities of 0": {"name": "sklearn:neighbors.KNeighborsClassifier", "parameters": {"n_neighbors": 3}},
    "decision values": {"name": "sklearn:linear_model.RidgeClassifier"},
    "votes": {"name": "sklearn:svm.SVC", "parameters": {"C": 0.01}},
}


@pytest.mark.parametrize("kind", SKLEARN)
def test_scikit_learns_outputs_obey_the_laws_and_change_no_bit(kind: str) -> None:
    found, plain = trained(SKLEARN[kind], BOTH), trained(SKLEARN[kind], {})
    assert_lawful(found)
    assert plain[3:] == (None, None, None, None)
    np.testing.assert_array_equal(found.train, plain.train)
    np.testing.assert_array_equal(found.test, plain.test)
    share = np.mean(found.test_margin != 0)
    assert share > 0.9 or kind == "votes", f"{share:.0%} of margins say something"


@pytest.mark.parametrize("name", ["linear_model.LogisticRegression", "linear_model.RidgeClassifier"])
@pytest.mark.parametrize("num_seen", [2, 9, 10])
def test_margins_of_scikit_learn_are_differences_of_its_own_scores(name: str, num_seen: int) -> None:
    digits = load_digits()
    mask = (digits.y_train < num_seen) & (np.arange(digits.num_train) % 5 == 0)
    learner = {"name": f"sklearn:{name}", "parameters": {"max_iter": 20}}
    found = trained(learner, BOTH, mask[None])
    assert_lawful(found)
    shift, scale = (np.asarray(constant, np.float32) for constant in (digits.shift, digits.scale))
    x_train, x_test = ((x.reshape(len(x), -1) - shift) * scale for x in (digits.x_train, digits.x_test))
    section = SklearnLearner.model_validate(learner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sklearn_estimator(section, seed=0, num_threads=1).fit(x_train[mask], digits.y_train[mask])
    values = model.decision_function(x_test).astype(np.float64)
    values = np.stack([-values / 2, values / 2], axis=1) if num_seen == 2 else values
    scores = np.concatenate([values, np.full((len(values), 10 - num_seen), -np.inf)], axis=1)
    exact = np.clip(oracle(scores, digits.y_test), -LARGEST_MARGIN, LARGEST_MARGIN)
    assert found.test_margin is not None
    np.testing.assert_allclose(found.test_margin[0].astype(np.float64), exact, rtol=3e-3, atol=1e-3)


def test_a_subset_of_one_class_is_as_sure_of_it_as_can_be() -> None:
    digits = load_digits()
    found = trained(SKLEARN["decision values"], BOTH, (digits.y_train == 4)[None])
    assert_lawful(found)
    assert found.test_margin is not None
    np.testing.assert_array_equal(found.test_margin[0], np.where(digits.y_test == 4, LARGEST_MARGIN, -LARGEST_MARGIN))
    np.testing.assert_array_equal(found.test_prediction, np.full((1, len(digits.y_test)), 4))


def test_a_margin_that_contradicts_the_prediction_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SVC.decision_function
    monkeypatch.setattr(SVC, "decision_function", lambda self, x: -real(self, x))
    found = trained(SKLEARN["votes"], BOTH)
    assert_lawful(found)
    assert found.test_margin is not None
    assert not (found.test_margin > 0).any()


def test_a_classifier_without_scores_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(LinearClassifierMixin, "decision_function")
    learner = SKLEARN["decision values"]
    with pytest.raises(
        LearnerError, match=r"needs a classifier with predict_proba or decision_function; 'sklearn:.*has neither"
    ):
        check_learner(experiment(learner, BOTH), load_digits())
    check_learner(experiment(learner, {"predictions": True}), load_digits())


def test_decision_values_of_pairs_of_classes_are_refused() -> None:
    votes = {"name": "sklearn:svm.SVC", "parameters": {"decision_function_shape": "ovo"}}
    with pytest.raises(
        LearnerError, match=r"one decision value a class; set learner\.parameters\.decision_function_shape = 'ovr'"
    ):
        check_learner(experiment(votes, BOTH), load_digits())


# torch


@given(scored())
def test_margins_of_torch_are_those_of_the_definition_within_rounding(
    case: tuple[NDArray[Any], NDArray[np.int64]],
) -> None:
    scores, labels = case
    found = logit_margins(torch.from_numpy(scores), torch.from_numpy(labels)).numpy()
    assert_stored(found, oracle(scores, labels), scores.argmax(axis=-1) == labels)
    np.testing.assert_array_equal(found, margins(scores, labels))


TORCH: list[dict[str, Any]] = [
    {"name": "mlp", "hidden": [16]},
    {"name": "mlp", "hidden": [16], "vectorize": False},
    {"name": "cnn", "channels": [4]},
]


@pytest.mark.parametrize("learner", TORCH, ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_outputs_of_torch_obey_the_laws_and_change_no_bit(learner: dict[str, Any], precision: str) -> None:
    digits, recipe = load_digits(), {"epochs": 1, "precision": precision}
    masks, seeds = subset_masks(3, range(3), digits.num_train, 0.7), trial_seeds(3, range(3))
    found, plain = (
        load_learner(experiment(learner, outputs, **recipe), digits)(masks, seeds) for outputs in (BOTH, {})
    )
    assert_lawful(found)
    assert plain[3:] == (None, None, None, None)
    np.testing.assert_array_equal(found.train, plain.train)
    np.testing.assert_array_equal(found.test, plain.test)


def test_looped_and_stacked_training_tell_the_same_margins_within_rounding() -> None:
    digits, recipe = load_digits(), {"epochs": 1, "learning_rate": 0.05}
    masks, seeds = subset_masks(3, range(3), digits.num_train, 0.7), trial_seeds(3, range(3))
    stacked, looped = (load_learner(experiment(learner, BOTH, **recipe), digits)(masks, seeds) for learner in TORCH[:2])
    for name in ("train_margin", "test_margin"):
        one, other = (getattr(found, name).astype(np.float64) for found in (stacked, looped))
        np.testing.assert_allclose(one, other, rtol=2**-9, atol=1e-3)
    assert np.mean(stacked.test_prediction == looped.test_prediction) > 0.999


# A user's own


def test_a_users_outputs_are_taken_and_only_those_that_are_asked_for() -> None:
    own, small = {"name": "tests.learners:telling_centroid"}, small_dataset()
    masks, seeds = subset_masks(7, range(4), small.num_train, 0.7), trial_seeds(7, range(4))
    whole = load_learner(experiment(own, BOTH), small)(masks, seeds)
    assert whole.train_margin is not None
    assert margins_agree(whole.train_margin, whole.train)
    some = load_learner(experiment(own, {"predictions": True}), small)(masks, seeds)
    assert (some.train_margin, some.test_margin) == (None, None)
    np.testing.assert_array_equal(some.test_prediction, whole.test_prediction)


@pytest.mark.parametrize(
    ("spoiled", "how", "says"),
    [
        ("train_margin", "absent", r"outputs\.margins is asked for, and learner '.*' returned no train_margin: return "
         r"feldman\.learners\.protocol\.Correctness\(train, test, \.\.\., train_margin=\.\.\.\) with floats \(4, 60\), or set "
         r"outputs\.margins = false"),
        ("test_prediction", "absent", r"outputs\.predictions is asked for.*returned no test_prediction.*integers \(4, 30\)"),
        ("test_margin", "short", r"returned a test_margin of float16 \(4, 29\); expected floats \(4, 30\)"),
        ("train_prediction", "text", r"returned a train_prediction of <U\d+ \(4, 60\); expected integers \(4, 60\)"),
        ("train_margin", "other", r"returned a train_margin that is not of its bits: expected numbers, none positive where"),
        ("test_margin", "nan", r"returned a test_margin that is not of its bits"),
        ("test_prediction", "other", r"returned a test_prediction that is not of its bits: expected labels 0 \.\. 2"),
        ("train_prediction", "outside", r"returned a train_prediction that is not of its bits"),
    ],
)  # fmt: skip
def test_a_users_outputs_are_held_against_its_bits(spoiled: str, how: str, says: str) -> None:
    own = {"name": "tests.learners:telling_centroid", "parameters": {"spoiled": spoiled, "how": how}}
    small = small_dataset()
    learner = load_learner(experiment(own, BOTH), small)
    with pytest.raises(LearnerError, match=says):
        learner(subset_masks(7, range(4), small.num_train, 0.7), trial_seeds(7, range(4)))
