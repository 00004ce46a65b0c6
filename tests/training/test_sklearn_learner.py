"""scikit-learn's classifiers as learners: against scikit-learn itself, end to end, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

import feldman
from feldman.data.dataset import Dataset
from feldman.data.digits import load_digits
from feldman.errors import LearnerError
from feldman.experiment import Experiment
from feldman.learners.load import check_learner, load_learner
from feldman.learners.protocol import Correctness
from feldman.trials.events import read_events
from feldman.trials.plan import subset_masks, trial_seeds

FOREST = {"name": "sklearn:ensemble.RandomForestClassifier", "parameters": {"n_estimators": 5}}
NEIGHBOURS = {"name": "sklearn:neighbors.KNeighborsClassifier", "parameters": {"n_neighbors": 3}}
REGRESSION = {"name": "sklearn:sklearn.linear_model.LogisticRegression", "parameters": {"max_iter": 10}}
BOOSTING = {"name": "sklearn:ensemble.HistGradientBoostingClassifier", "parameters": {"max_iter": 8}}
LEARNERS = [FOREST, NEIGHBOURS, REGRESSION, BOOSTING]


def experiment(learner: dict[str, Any], **execution: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "dataset": {"name": "digits"},
            "learner": learner,
            "subsets": {"num_trials": 6, "block_size": 3},
            "execution": {"executor": "in-process", **execution},
        }
    )


def train(dataset: Dataset, learner: dict[str, Any], trials: list[int], **execution: Any) -> Correctness:
    masks = np.concatenate([subset_masks(3, range(one, one + 1), dataset.num_train, 0.7) for one in trials])
    seeds = np.concatenate([trial_seeds(3, range(one, one + 1)) for one in trials])
    return load_learner(experiment(learner, **execution), dataset)(masks, seeds)


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_a_trial_does_not_depend_on_the_trials_it_shares_a_block_with(learner: dict[str, Any]) -> None:
    digits = load_digits()
    together = train(digits, learner, [0, 1, 2])
    np.random.seed(1)  # noqa: NPY002 - what must not matter
    alone = train(digits, learner, [2, 1])
    np.testing.assert_array_equal(alone.train, together.train[[2, 1]])
    np.testing.assert_array_equal(alone.test, together.test[[2, 1]])
    assert together.test.mean() > 0.8


def test_threads_change_no_bit_of_a_forest() -> None:
    digits = load_digits()
    np.testing.assert_array_equal(train(digits, FOREST, [0]).train, train(digits, FOREST, [0], cpus_per_block=2).train)


def test_bits_are_those_of_scikit_learn_on_scaled_inputs_with_the_trial_s_seed() -> None:
    digits = load_digits()
    found = train(digits, FOREST, [4])
    mask, seed = subset_masks(3, range(4, 5), digits.num_train, 0.7)[0], int(trial_seeds(3, range(4, 5))[0])
    x_train, x_test = (
        ((x.astype(np.float32) - digits.shift) * digits.scale).reshape(len(x), -1)
        for x in (digits.x_train, digits.x_test)
    )
    forest = RandomForestClassifier(n_estimators=5, random_state=seed & 0xFFFFFFFF).fit(
        x_train[mask], digits.y_train[mask]
    )
    np.testing.assert_array_equal(found.train[0], forest.predict(x_train) == digits.y_train)
    np.testing.assert_array_equal(found.test[0], forest.predict(x_test) == digits.y_test)


def test_seeds_make_trials_differ() -> None:
    digits = load_digits()
    mask = subset_masks(3, range(1), digits.num_train, 0.7)
    learn = load_learner(experiment(FOREST), digits)
    first, second = (learn(mask, np.array([seed])) for seed in (1, 2))
    assert (first.test != second.test).any()


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_classes_that_a_subset_lacks_are_never_predicted(learner: dict[str, Any]) -> None:
    digits = load_digits()
    masks = np.stack([digits.y_train < 9, digits.y_train == 4])
    masks[0] &= np.arange(digits.num_train) % 2 == 0
    correct = load_learner(experiment(learner), digits)(masks, np.arange(2))
    assert not correct.test[0][digits.y_test == 9].any()
    assert correct.test[0][digits.y_test < 9].mean() > 0.6
    np.testing.assert_array_equal(correct.test[1], digits.y_test == 4)
    np.testing.assert_array_equal(correct.train[1], digits.y_train == 4)


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
def test_a_run_with_scikit_learn_ends_in_estimates_and_tells_of_convergence_once(
    learner: dict[str, Any], tmp_path: Path
) -> None:
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        feldman.run(experiment(learner), tmp_path / "run", on_progress=lambda progress: notes.append(progress.note))
    status = feldman.open_run(tmp_path / "run").status()
    assert status.complete
    assert status.mean_test_accuracy is not None
    assert status.mean_test_accuracy > 0.8
    told = [note for note in notes if "converged" in note]
    events = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "not_converged"]
    if learner is REGRESSION:
        assert len(told) == 1
        assert told[0].startswith("6 of 6 trials stopped before they had converged; their bits count as they are")
        assert [(event["trials"], event["trained"]) for event in events] == [(6, 6)]
    else:
        assert (told, events) == ([], [])


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (
            {"name": "sklearn:neighbors.KNeighborsClassifier", "parameters": {"neighbors": 3}},
            r"learner\.parameters\.neighbors is no parameter of 'sklearn:neighbors\.KNeighborsClassifier' "
            r"\(did you mean 'n_neighbors'\?\); it takes n_neighbors, weights, algorithm, ",
        ),
        (
            {"name": "sklearn:neighbors.KNeighborsClassifier", "parameters": {"weights": "heavy"}},
            r"does not take learner\.parameters: The 'weights' parameter of KNeighborsClassifier must be",
        ),
        (
            {"name": FOREST["name"], "parameters": {"random_state": 3}},
            r"random_state is not taken \(each trial's comes from its seed: with one for all, trials would be alike\)",
        ),
        (
            {"name": FOREST["name"], "parameters": {"n_jobs": 3}},
            r"n_jobs is not taken \(it is execution\.cpus_per_block\)",
        ),
        (
            {"name": "sklearn:ensembel.RandomForestClassifier"},
            r"scikit-learn has no module 'ensembel' .*; give module and",
        ),
        (
            {"name": "sklearn:ensemble.RandomForest"},
            r"has no classifier 'RandomForest' \(did you mean 'RandomForestClassifier'\?\); it has AdaBoostClassifier, ",
        ),
        (
            {"name": "sklearn:ensemble.RandomForestRegressor"},
            r"sklearn\.ensemble has no classifier 'RandomForestRegressor'",
        ),
        ({"name": "sklearn:ensemble.VotingClassifier"}, r"does not take learner\.parameters: .*estimators"),
    ],
    ids=str,
)
def test_what_scikit_learn_does_not_take_is_told_before_anything_is_written(
    learner: dict[str, Any], message: str
) -> None:
    for call in (check_learner, load_learner):
        with pytest.raises(LearnerError, match=message):
            call(experiment(learner), load_digits())


def test_other_warnings_are_told_once_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def warning_fit(self: object, x: object, y: object) -> None:
        warnings.warn("as every trial says", FutureWarning, stacklevel=1)

    monkeypatch.setattr("sklearn.neighbors.KNeighborsClassifier.fit", warning_fit)
    monkeypatch.setattr("sklearn.neighbors.KNeighborsClassifier.predict", lambda self, x: np.zeros(len(x), int))
    digits = load_digits()
    learn = load_learner(experiment(NEIGHBOURS), digits)
    masks, seeds = subset_masks(3, range(4), digits.num_train, 0.7), trial_seeds(3, range(4))
    with pytest.warns(FutureWarning, match="as every trial says") as told:
        _ = [learn(masks, seeds) for block in range(2)]
    assert len(told) == 1
