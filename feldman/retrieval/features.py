"""Features: what the last layer of one network gets, as a data set of its own, on which other learners train."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from feldman.data.arrays import load_arrays
from feldman.data.dataset import Dataset, DatasetSource
from feldman.data.feature_facts import FEATURES, FeatureFacts, read_facts
from feldman.data.load import load_dataset
from feldman.errors import DatasetError
from feldman.exchange.folders import built_folder, check_vacant
from feldman.experiment import Experiment, differing_fields
from feldman.experiment_files import experiment_from_document, load_experiment, overridden, preset_names
from feldman.learners.checkpoints import Checkpoints, trial_name
from feldman.learners.load import check_learner
from feldman.learners.training_path import TrainingPath, on_path
from feldman.trials.layout import created_with
from feldman.trials.plan import whole_set_seed
from feldman.trials.rundir import run_paths
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.store import TrialStore

if TYPE_CHECKING:  # torch takes seconds, and features that are there need none
    from feldman.learners.representations import Representations

__all__ = ["Features", "FeaturesRequest", "FeaturesSummary", "features_request", "make_features", "read_features"]

_WEIGHT, _BIAS = "last_layer_weight.npy", "last_layer_bias.npy"


@dataclass(frozen=True, kw_only=True)
class FeaturesRequest:
    """Which network's features are asked for.

    Attributes
    ----------
    experiment
        Its learner and recipe, as they are named.
    path
        How it trains, where the experiment leaves that open.
    dataset
        What it learns from, and what is shown to it.
    seed
        Of its weights, shuffles and augmentation.
    """

    experiment: Experiment
    path: TrainingPath
    dataset: Dataset
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features that lie in a folder.

    Attributes
    ----------
    dataset
        float32 [example, feature] and labels, memory-mapped, in the order of ``facts.source``.
    facts
        Where they come from.
    weight, bias
        float32 [class, feature] and [class]: the network's own last layer; its logits are ``x @ weight.T + bias``.
    """

    dataset: Dataset
    facts: FeatureFacts
    weight: Float32[np.ndarray, "class feature"]
    bias: Float32[np.ndarray, " class"]


@dataclass(frozen=True, kw_only=True)
class FeaturesSummary:
    """What was asked for, and whether it was made (or was there already)."""

    folder: str
    made: bool
    num_train: int
    num_test: int
    facts: FeatureFacts

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        own = {"folder": self.folder, "made": self.made, "num_train": self.num_train, "num_test": self.num_test}
        return own | self.facts.model_dump(mode="json")


def features_request(source: str, overrides: Iterable[str] = (), seed: int = 0) -> FeaturesRequest:
    """Find out whose features are asked for, and load the data.

    Parameters
    ----------
    source
        A preset's name; else a folder or a URL, which is a run: its experiment, on the very data that it was trained on; else a
        TOML file.
    overrides
        ``"section.key=value"`` texts, as `load_experiment` takes them.
    seed
        Of the network.

    Raises
    ------
    InputError
        If there is no such experiment or run, its data set cannot be loaded, or is not what the run was trained on.
    """
    if source in preset_names() or not _names_a_run(source):
        experiment = load_experiment(source, overrides)
        return _request(experiment, load_dataset(experiment.dataset), None, seed)
    paths = run_paths(source)
    store = TrialStore.open(paths.store)
    store.check_trainable()
    experiment = overridden(store.experiment, overrides, f"the experiment of '{paths.root}'")
    dataset = load_dataset(experiment.dataset)
    trained_on = store.attributes["dataset"]["fingerprint"]
    if dataset.fingerprint != trained_on:
        raise DatasetError(
            f"the data set '{dataset.name}' is not what '{paths.root}' was trained on: its content is {dataset.fingerprint[:12]} "
            f"now, {trained_on[:12]} then; put the old data in its place, or name an experiment's file instead of the run"
        )
    return _request(experiment, dataset, store.training_path, seed)


def _names_a_run(source: str) -> bool:
    try:
        return "://" in source or Path(source).is_dir()
    except OSError:  # a name too long, a folder that may not be entered: told when it is read
        return False


def _request(experiment: Experiment, dataset: Dataset, measured: TrainingPath | None, seed: int) -> FeaturesRequest:
    """Settle how one network trains: never in a stack; in the precision that its run was decided to have, if it is open."""
    precision = experiment.training.precision
    if precision == "auto":
        precision = "float32" if measured is None else measured.precision
    path = TrainingPath(vectorize=False, precision=precision)
    return FeaturesRequest(experiment=experiment, path=path, dataset=dataset, seed=seed)


def make_features(
    request: FeaturesRequest, folder: Path, tell: ProgressCallback = lambda progress: None
) -> FeaturesSummary:
    """Train a network on all training examples, and write what its last layer gets of all examples.

    The folder gets ``x_train``, ``y_train``, ``x_test``, ``y_test`` and ``class_names`` as ``.npy`` files, which the data set
    ``arrays`` reads, ``last_layer_weight`` and ``last_layer_bias``, and ``features.json`` (`FeatureFacts`). It appears whole or
    not at all. If these very features are there, of the same experiment, data set and seed, nothing is done.

    Parameters
    ----------
    request
        See `features_request`.
    folder
        New or empty, or these features.
    tell
        Told how far it is.

    Raises
    ------
    InputError
        If the folder holds something else, or the learner has no features; nothing was written.
    FeldmanError
        If training diverges.
    StorageError
        If the storage refuses.
    """
    facts = read_facts(folder)
    if facts is not None:
        _check_same(facts, request, folder)
        return _summary(read_features(folder), folder, made=False)
    check_vacant(folder)
    alone = on_path(request.experiment, request.path)
    check_learner(alone, request.dataset)
    from feldman.learners.representations import trained_representations

    checkpoints = _checkpoints(alone, request.dataset)
    seed = whole_set_seed(request.seed)
    found = trained_representations(
        alone,
        request.dataset,
        seed,
        checkpoints=checkpoints,
        tell=lambda stage, done, total: tell(Progress(stage=stage, done=done, total=total)),
    )
    features = _described(request, found)
    _write(features, folder)
    if checkpoints is not None:
        checkpoints.forget([trial_name(seed, np.arange(request.dataset.num_train))])
    return _summary(features, folder, made=True)


def read_features(folder: Path) -> Features:
    """Open the features in a folder.

    Raises
    ------
    DatasetError
        If there are none, or they are not what was written.
    """
    facts = read_facts(folder)
    if facts is None:
        raise DatasetError(f"'{folder}' holds no features (it has no {FEATURES}); make some with `feldman features`")
    return Features(
        dataset=load_arrays(str(folder)), facts=facts, weight=_read(folder / _WEIGHT), bias=_read(folder / _BIAS)
    )


def _described(request: FeaturesRequest, found: Representations) -> Features:
    """Return features as they will be read, with the record of where they come from."""
    dataset = request.dataset
    own = Dataset(
        name="arrays",
        x_train=found.train,
        y_train=dataset.y_train.astype(np.int64),
        x_test=found.test,
        y_test=dataset.y_test.astype(np.int64),
        class_names=dataset.class_names,
    )
    facts = FeatureFacts(
        format="feldman-features",
        format_version=1,
        source=dataset.source or _named(dataset),
        dataset=_named(dataset),
        experiment=request.experiment.model_dump(mode="json"),
        experiment_fingerprint=request.experiment.fingerprint,
        seed=request.seed,
        precision=request.path.precision,
        layer=found.layer,
        num_features=found.train.shape[1],
        train_accuracy=found.train_accuracy,
        test_accuracy=found.test_accuracy,
        fingerprint=own.fingerprint,
        created_with=created_with(),
    )
    return Features(dataset=own, facts=facts, weight=found.weight, bias=found.bias)


def _named(dataset: Dataset) -> DatasetSource:
    return DatasetSource(name=dataset.name, fingerprint=dataset.fingerprint)


def _checkpoints(alone: Experiment, dataset: Dataset) -> Checkpoints | None:
    """Return where the training is kept, if anywhere: a folder for this network on these data, apart from those of trials."""
    execution = alone.execution
    if execution.checkpoint_path is None:
        return None
    name = f"features-{alone.fingerprint[:16]}-{dataset.fingerprint[:16]}-{alone.training.precision}"
    return Checkpoints(folder=Path(execution.checkpoint_path) / name, every_epochs=execution.checkpoint_epochs)


def _check_same(facts: FeatureFacts, request: FeaturesRequest, folder: Path) -> None:
    """Refuse to take features for what they are not."""
    given, differing = _named(request.dataset), []
    if facts.experiment_fingerprint != request.experiment.fingerprint:
        stored = experiment_from_document(facts.experiment, f"the experiment in {folder / FEATURES}")
        fields = differing_fields(stored, request.experiment, ("there", "now"))
        differing += fields or ["the experiment's fingerprint"]
    if facts.dataset.fingerprint != given.fingerprint:
        differing.append(
            f"content of the data set: {facts.dataset.fingerprint[:12]} there, {given.fingerprint[:12]} now"
        )
    if facts.seed != request.seed:
        differing.append(f"seed: {facts.seed} there, {request.seed} now")
    if not differing and facts.precision != request.path.precision:  # left open by the experiment, decided for a run
        differing.append(f"precision of the network: {facts.precision} there, {request.path.precision} now")
    if differing:
        raise DatasetError(
            f"'{folder}' holds other features, and nothing is overwritten; choose another folder with -o, or remove this one. "
            "What differs:\n  " + "\n  ".join(differing)
        )


def _write(features: Features, folder: Path) -> None:
    dataset = features.dataset
    arrays: dict[str, NDArray[Any]] = {
        name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")
    }
    arrays["class_names"] = np.array(dataset.class_names)
    with built_folder(folder) as building:
        for name, array in arrays.items():
            np.save(building / f"{name}.npy", array, allow_pickle=False)
        np.save(building / _WEIGHT, features.weight, allow_pickle=False)
        np.save(building / _BIAS, features.bias, allow_pickle=False)
        (building / FEATURES).write_text(features.facts.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> NDArray[np.float32]:
    try:
        array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(
            f"cannot read {path} ({error}); remove its folder, and make the features anew with `feldman features`"
        ) from None
    return array


def _summary(features: Features, folder: Path, *, made: bool) -> FeaturesSummary:
    return FeaturesSummary(
        folder=str(folder),
        made=made,
        num_train=features.dataset.num_train,
        num_test=features.dataset.num_test,
        facts=features.facts,
    )
