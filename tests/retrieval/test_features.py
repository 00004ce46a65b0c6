"""Folders of features: whole or not at all, the same bytes for the same seed, and a data set that knows whose they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldman import job
from feldman.data.arrays import load_arrays
from feldman.data.dataset import DatasetSource
from feldman.data.digits import load_digits
from feldman.data.load import load_dataset
from feldman.data.mapped import MappedDataset, for_workers
from feldman.errors import DatasetError, ExperimentError, FeldmanError, RunDirectoryError, StorageError
from feldman.experiment import DatasetSection
from feldman.experiment_files import load_experiment
from feldman.learners.training_path import TrainingPath
from feldman.retrieval.features import FeaturesSummary, features_request, make_features, read_features
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore
from tests.commands import Commands, snapshot
from tests.conftest import small_arrays

TOML = """
[dataset]
name = "arrays"
path = "data.npz"
[learner]
name = "mlp"
hidden = [6]
[training]
epochs = 4
batch_size = 16
[subsets]
num_trials = 4
block_size = 2
[execution]
executor = "in-process"
"""
LINEAR = [
    "learner.name=linear",
    "dataset.name=arrays",
    "subsets.num_trials=4",
    "subsets.block_size=2",
    "execution.executor=in-process",
]


@pytest.fixture
def experiment(tmp_path: Path, arrays_file: Path) -> str:
    """A file with an experiment whose network trains in milliseconds; beside it lie its data."""
    (tmp_path / "experiment.toml").write_text(TOML)
    return str(tmp_path / "experiment.toml")


@pytest.fixture
def features(experiment: str, tmp_path: Path) -> Path:
    """Its features."""
    made(experiment, tmp_path / "features")
    return tmp_path / "features"


def made(source: str, folder: Path, *overrides: str, seed: int = 0) -> FeaturesSummary:
    return make_features(features_request(source, overrides, seed), folder)


def edited(features: Path, **changes: Any) -> None:
    """Change the record of some features."""
    document = json.loads((features / "features.json").read_text()) | changes
    (features / "features.json").write_text(json.dumps(document))


def source_of(path: Path, **section: Any) -> DatasetSource | None:
    return load_dataset(DatasetSection(name="arrays", path=str(path), **section)).source


def test_a_folder_of_features_is_a_data_set_of_the_same_examples_in_their_order(
    experiment: str, features: Path
) -> None:
    found, arrays = load_arrays(str(features)), small_arrays()
    source = load_dataset(load_experiment(experiment).dataset)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(found, f"y_{part}"), arrays[f"y_{part}"])
        x = getattr(found, f"x_{part}")
        assert (x.dtype, x.shape) == (np.float32, (len(arrays[f"y_{part}"]), 6))
    assert (found.class_names, found.shift, found.scale) == (source.class_names, 0.0, 1.0)
    assert found.source == DatasetSource(name="arrays", fingerprint=source.fingerprint)
    assert found.fingerprint != source.fingerprint


def test_logits_and_accuracy_of_the_network_follow_from_what_lies_in_the_folder(features: Path) -> None:
    found = read_features(features)
    for part in ("train", "test"):
        logits = getattr(found.dataset, f"x_{part}").astype(np.float64) @ found.weight.T + found.bias
        accuracy = (logits.argmax(axis=1) == getattr(found.dataset, f"y_{part}")).mean()
        assert getattr(found.facts, f"{part}_accuracy") == pytest.approx(accuracy)
    assert (found.facts.layer, found.facts.num_features, found.facts.precision) == ("3", 6, "float32")


def test_the_record_names_the_network_and_the_data_that_it_learned_from(experiment: str, features: Path) -> None:
    asked, facts = features_request(experiment), read_features(features).facts
    assert facts.experiment == asked.experiment.model_dump(mode="json")
    assert (facts.experiment_fingerprint, facts.seed) == (asked.experiment.fingerprint, 0)
    assert facts.source == facts.dataset == DatasetSource(name="arrays", fingerprint=asked.dataset.fingerprint)
    assert {"feldman", "torch", "numpy"} <= set(facts.created_with["versions"])


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_features(
    experiment: str, features: Path, tmp_path: Path
) -> None:
    made(experiment, tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(features)
    made(experiment, tmp_path / "other", seed=1)
    other = read_features(tmp_path / "other")
    assert (other.dataset.x_train != read_features(features).dataset.x_train).any()
    assert other.facts.source == read_features(features).facts.source


def test_the_same_features_once_more_are_nothing_to_do(
    experiment: str, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path)
    monkeypatch.delattr("feldman.learners.representations.trained_representations")
    again = made(experiment, features, "execution.num_workers=1", "subsets.num_trials=8")
    assert not again.made
    assert (again.num_train, again.num_test, again.facts) == (60, 30, read_features(features).facts)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("overrides", "seed", "told"),
    [
        ((), 1, "seed: 0 there, 1 now"),
        (("training.epochs=5",), 0, "training.epochs: 4 there, 5 now"),
        (("learner.hidden=[7]",), 0, "learner.hidden: [6] there, [7] now"),
        (("dataset.num_test=20",), 0, "content of the data set: "),
    ],
    ids=str,
)
def test_other_features_are_left_alone_with_what_differs(
    experiment: str, features: Path, overrides: tuple[str, ...], seed: int, told: str
) -> None:
    before = snapshot(features)
    with pytest.raises(DatasetError, match="holds other features, and nothing is overwritten") as caught:
        made(experiment, features, *overrides, seed=seed)
    assert told in str(caught.value)
    assert snapshot(features) == before


def test_a_run_names_its_experiment_and_its_data(
    experiment: str, features: Path, arrays_file: Path, tmp_path: Path
) -> None:
    job.run(experiment, tmp_path / "run")
    assert not made(str(tmp_path / "run"), features).made, "they are those of the file, byte for byte"
    asked = features_request(str(tmp_path / "run"), ["training.epochs=5"])
    assert (asked.experiment.training.epochs, asked.experiment.training.batch_size) == (5, 16)
    with pytest.raises(
        ExperimentError, match=r"the experiment of '.*run' does not describe an experiment:\n  training"
    ):
        features_request(str(tmp_path / "run"), ["training.epoch=5"])
    np.savez(arrays_file, allow_pickle=False, **small_arrays(seed=1))
    with pytest.raises(DatasetError, match=r"is not what '.*run' was trained on: its content is .*; put the old data"):
        features_request(str(tmp_path / "run"))
    with pytest.raises(RunDirectoryError, match="is not a run: it has no"):
        features_request(str(tmp_path))


def test_where_a_run_was_decided_to_train_in_a_precision_so_does_the_network(experiment: str, tmp_path: Path) -> None:
    (tmp_path / "auto.toml").write_text(TOML.replace("epochs", 'precision = "auto"\nepochs'))
    assert features_request(str(tmp_path / "auto.toml")).path == TrainingPath(vectorize=False, precision="float32")
    job.run(str(tmp_path / "auto.toml"), tmp_path / "run")
    store = TrialStore.open(tmp_path / "run" / "trials.zarr")
    for precision in ("float32", "bfloat16"):
        store.record_training_path(TrainingPath(vectorize=True, precision=precision))
        assert features_request(str(tmp_path / "run")).path == TrainingPath(vectorize=False, precision=precision)
    named = features_request(str(tmp_path / "run"), ["training.precision=float32"])
    assert named.path.precision == "float32"
    made(str(tmp_path / "auto.toml"), tmp_path / "features")
    with pytest.raises(DatasetError, match="precision of the network: float32 there, bfloat16 now"):
        made(str(tmp_path / "run"), tmp_path / "features")


@pytest.mark.parametrize("stage", ["training the network", "computing features"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_was_interrupted_leaves_nothing(
    experiment: str, tmp_path: Path, stage: str, error: type[BaseException]
) -> None:
    before = snapshot(tmp_path)

    def tell(progress: Progress) -> None:
        if (progress.stage, progress.done) in ((stage, 8), (stage, 60)):
            raise error

    with pytest.raises(error):
        make_features(features_request(experiment), tmp_path / "a" / "features", tell)
    assert snapshot(tmp_path) == before


def test_a_full_disk_leaves_nothing(experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, save = snapshot(tmp_path), np.save

    def full(path: Path, *more: Any, **options: Any) -> None:
        if path.name == "class_names.npy":
            raise OSError(28, "No space left on device")
        save(path, *more, **options)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match="No space left on device"):
        made(experiment, tmp_path / "features")
    assert snapshot(tmp_path) == before


def test_an_interrupted_training_with_checkpoints_goes_on_to_the_same_bytes_and_forgets_them(
    experiment: str, features: Path, tmp_path: Path
) -> None:
    kept = f"execution.checkpoint_path={tmp_path / 'kept'}"
    steps: list[int] = []

    def tell(progress: Progress) -> None:
        steps.append(progress.done)
        if progress.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_features(features_request(experiment, [kept]), tmp_path / "resumed", tell)
    assert len(list((tmp_path / "kept").rglob("*.npz"))) == 1
    make_features(
        features_request(experiment, [kept]), tmp_path / "resumed", lambda progress: steps.append(progress.done)
    )
    assert steps[:12] == [*range(1, 11), 9, 10], "two epochs of 4 steps were kept"
    assert not list((tmp_path / "kept").iterdir())
    for name in ("x_train.npy", "x_test.npy", "last_layer_weight.npy"):
        assert (tmp_path / "resumed" / name).read_bytes() == (features / name).read_bytes()


def test_features_of_features_are_of_the_examples_of_the_first(experiment: str, features: Path, tmp_path: Path) -> None:
    second = made(experiment, tmp_path / "second", f"dataset.path={features}")
    first = read_features(features)
    assert second.facts.source == first.facts.source
    assert second.facts.dataset == DatasetSource(name="arrays", fingerprint=first.dataset.fingerprint)


def test_a_source_is_claimed_only_for_the_very_examples_and_labels(features: Path, tmp_path: Path) -> None:
    whole = load_arrays(str(features)).source
    assert whole is not None
    assert source_of(features, num_train=60, num_test=30) == whole
    for change in ({"num_train": 30}, {"num_test": 15}, {"random_labels": 3}):
        assert source_of(features, **change) is None, change
    plain = tmp_path / "plain"
    shutil.copytree(features, plain)
    (plain / "features.json").unlink()
    assert source_of(plain) is None
    assert load_arrays(str(plain)).fingerprint == load_arrays(str(features)).fingerprint


def test_workers_get_the_source_along(features: Path) -> None:
    dataset = load_arrays(str(features))
    sent = for_workers(dataset, "here")
    assert isinstance(sent, MappedDataset)
    assert sent.open().source == dataset.source


@pytest.mark.parametrize("part", ["x_train", "y_train", "x_test", "y_test", "class_names"])
def test_arrays_that_are_no_longer_what_was_recorded_are_refused(features: Path, part: str) -> None:
    path = features / f"{part}.npy"
    array = np.load(path)
    np.save(path, array[::-1])
    with pytest.raises(
        DatasetError, match=r"are not those that features\.json was written for: .* make the features anew"
    ):
        load_arrays(str(features))
    (features / "features.json").unlink()
    assert load_arrays(str(features)).source is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"[" * 5000, b'{"format": "other"}', b'{"source": {"name": "digits"}}'],
    ids=lambda content: content[:20],
)
def test_a_record_that_is_damaged_or_of_another_program_is_refused(
    experiment: str, features: Path, content: bytes
) -> None:
    (features / "features.json").write_bytes(content)
    for call in (lambda: load_arrays(str(features)), lambda: made(experiment, features)):
        with pytest.raises(
            DatasetError, match=r"features\.json is not what this version of `feldman features` writes \("
        ) as caught:
            call()
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format_version": 2}, "format_version: Input should be 1"),
        ({"train_accuracy": 1.5}, "train_accuracy: "),
        ({"seed": "0"}, "seed: "),
        ({"source": None}, "source: "),
        ({"more": 1}, "more: "),
    ],
    ids=str,
)
def test_a_record_with_wrong_fields_is_refused_by_their_names(
    features: Path, changes: dict[str, Any], told: str
) -> None:
    edited(features, **changes)
    with pytest.raises(DatasetError) as caught:
        load_arrays(str(features))
    assert told in str(caught.value)


def test_a_folder_without_features_and_one_without_the_last_layer_are_told(features: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no features \(it has no features\.json\); make some with"):
        read_features(tmp_path)
    (features / "last_layer_bias.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"cannot read .*last_layer_bias\.npy .*make the features anew"):
        read_features(features)


def test_training_that_diverges_fails_and_writes_nothing(experiment: str, tmp_path: Path) -> None:
    with pytest.raises(FeldmanError, match="training diverged") as caught:
        made(experiment, tmp_path / "features", "training.learning_rate=1e30")
    assert caught.value.exit_code == 1
    assert not list(tmp_path.glob("*features*"))


@pytest.fixture
def feldman(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capsys)


def test_last_layers_train_on_the_features_of_the_digits_and_their_store_says_whose_they_are(
    feldman: Commands, tmp_path: Path
) -> None:
    told = feldman("features", "digits", "-o", "features", "--set", "training.epochs=3")
    assert told.code == 0, told.err
    assert told.out.startswith("features: 128 features of 1,437 training and 360 test examples of digits\n")
    answer = feldman(
        "run", "digits", "-o", "run", "--set", "dataset.path=features", *(f"--set={one}" for one in LINEAR)
    )
    assert answer.code == 0, answer.err
    store, digits = TrialStore.open(tmp_path / "run" / "trials.zarr"), load_digits()
    assert store.attributes["dataset"]["name"] == "arrays"
    assert store.attributes["dataset"]["source"] == {"name": "digits", "fingerprint": digits.fingerprint}
    np.testing.assert_array_equal(store.labels("train"), digits.y_train)
    np.testing.assert_array_equal(store.labels("test"), digits.y_test)
    network = read_features(tmp_path / "features").facts.test_accuracy
    linear = np.concatenate([store.read("test_accuracy", block) for block in store.committed_blocks()])
    assert linear.mean() == pytest.approx(network, abs=0.03)


def test_the_command_tells_in_json_what_it_made_and_the_second_time_that_it_was_there(
    feldman: Commands, experiment: str, tmp_path: Path
) -> None:
    first, second = (
        json.loads(feldman("features", "experiment.toml", "-o", "new", "--seed", "3", "--json").out) for _ in range(2)
    )
    assert (first.pop("made"), second.pop("made")) == (True, False)
    assert first == second
    assert first == json.loads((tmp_path / "new" / "features.json").read_text()) | {
        "folder": "new",
        "num_train": 60,
        "num_test": 30,
    }
    assert (
        "they were there already, and nothing was done"
        in feldman("features", "experiment.toml", "-o", "new", "--seed", "3").out
    )


def test_an_interrupted_command_says_that_nothing_was_written(
    feldman: Commands, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path)

    def interrupted(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("feldman.learners.representations.trained_representations", interrupted)
    answer = feldman("features", "experiment.toml", "-o", "new")
    assert (answer.code, answer.out, answer.err) == (130, "", "feldman: interrupted; no features were written\n")
    assert snapshot(tmp_path) == before
