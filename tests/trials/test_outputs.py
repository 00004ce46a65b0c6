"""Runs that record margins and predictions: written, damaged, mended, grown and merged by the rules of the bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from feldman import job
from feldman.errors import StoreMismatchError, TrialsFailedError
from feldman.experiment import Experiment
from feldman.merge_job import merge
from feldman.results.run import open_run
from feldman.trials.events import read_events
from feldman.trials.integrity import find_damage, find_small_damage
from feldman.trials.plan import subset_masks, trial_seeds
from feldman.trials.store import TrialStore
from feldman.trials.task import BlockResult, prepare_block_task
from tests.commands import Commands
from tests.conftest import small_arrays, small_dataset, small_experiment
from tests.learners import centroid_scores
from tests.runs import assert_same_run
from tests.trials.stores import CrashError, crash_at_write, stored_files

OUTPUTS = ("train_margin", "test_margin", "train_prediction", "test_prediction")
BOTH = {"margins": True, "predictions": True}
BLOCK, DONOR = 1, 2


def telling(path: Path, num_trials: int = 20, **outputs: bool) -> Experiment:
    experiment = small_experiment(path, num_trials=num_trials).replace(
        "learner", {"name": "tests.learners:telling_centroid"}
    )
    return experiment.replace("outputs", outputs)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    np.savez(folder / "data.npz", allow_pickle=False, **small_arrays())
    return folder


@pytest.fixture(scope="module")
def reference(home: Path) -> Path:
    """20 trials in three blocks, the last one short, with both outputs; not to be written to."""
    job.run(telling(home / "data.npz", **BOTH), home / "reference")
    return home / "reference"


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capsys)


@pytest.fixture
def run(reference: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reference, tmp_path / "run")


def _store(run: Path) -> TrialStore:
    return TrialStore.open(run / "trials.zarr")


def _values(run: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(run / "trials.zarr" / name, mode="r")[:])


# What is written


@pytest.mark.parametrize("name", OUTPUTS)
def test_each_output_has_the_type_dimensions_chunks_and_codecs_of_the_contract(reference: Path, name: str) -> None:
    array = zarr.open_array(reference / "trials.zarr" / name, mode="r")
    part, kind = name.split("_")
    size = {"train": 60, "test": 30}[part]
    assert (array.shape, array.chunks) == ((20, size), (8, size))
    assert array.dtype == np.dtype({"margin": "float16", "prediction": "uint8"}[kind])
    document = json.loads((reference / "trials.zarr" / name / "zarr.json").read_text())
    assert document["dimension_names"] == ["trial", part]
    assert [codec["name"] for codec in document["codecs"]] == ["bytes", "blosc", "crc32c"]
    assert isinstance(blosc := array.compressors[0], BloscCodec)
    assert (blosc.cname.value, blosc.shuffle.value) == ("zstd", "shuffle")
    opened = open_run(reference).to_xarray()[name]
    assert (opened.dims, opened.dtype) == (("trial", part), array.dtype)
    np.testing.assert_array_equal(opened.values, np.asarray(array[:]))


def test_what_is_stored_is_what_the_learner_said(reference: Path) -> None:
    data, plan = small_dataset(), range(20)
    both = centroid_scores(data, subset_masks(7, plan, 60, 0.7), trial_seeds(7, plan))
    for part, scores, labels in zip(("train", "test"), both, (data.y_train, data.y_test), strict=True):
        np.testing.assert_array_equal(_values(reference, f"{part}_prediction"), scores.argmax(axis=2))
        margin = _values(reference, f"{part}_margin")
        others = scores + np.where(labels[:, None] == np.arange(3), -np.inf, 0)
        own = np.take_along_axis(scores, labels[None, :, None], axis=2)[:, :, 0]
        np.testing.assert_allclose(margin.astype(float), own - others.max(axis=2), rtol=2**-10)
        np.testing.assert_array_equal(margin > 0, _values(reference, f"{part}_correct"))


@pytest.mark.parametrize("outputs", [{}, {"margins": True}, {"predictions": True}])
def test_recording_changes_no_byte_of_anything_else(
    outputs: dict[str, bool], reference: Path, home: Path, tmp_path: Path
) -> None:
    job.run(telling(home / "data.npz", **outputs), tmp_path / "run")
    recorded = _store(tmp_path / "run").experiment.outputs.names
    left_out = tuple(name for name in OUTPUTS if f"{name.split('_')[1]}s" not in recorded)
    files = stored_files(reference / "trials.zarr")
    assert stored_files(tmp_path / "run" / "trials.zarr") == {
        name: content for name, content in files.items() if not name.startswith(left_out)
    }
    assert _store(tmp_path / "run").attributes["fingerprint"] == _store(reference).attributes["fingerprint"]
    for table in ("memorization.parquet", "influence.parquet"):
        assert (tmp_path / "run" / table).read_bytes() == (reference / table).read_bytes()


def test_a_store_from_before_outputs_were_records_none_and_goes_on(home: Path, tmp_path: Path) -> None:
    job.run(telling(home / "data.npz"), tmp_path / "run")
    path = tmp_path / "run" / "trials.zarr" / "zarr.json"
    document = json.loads(path.read_text())
    del document["attributes"]["experiment"]["outputs"]
    path.write_text(json.dumps(document))
    assert open_run(tmp_path / "run").status().outputs == ()
    assert job.resume(tmp_path / "run", num_trials=30).status.complete
    assert job.run(telling(home / "data.npz", 30), tmp_path / "run").status.complete
    with pytest.raises(StoreMismatchError, match="records no outputs and the experiment asks for margins"):
        job.run(telling(home / "data.npz", 30, margins=True), tmp_path / "run")


def test_a_learner_that_tells_nothing_fails_and_is_told_what_to_return(home: Path, tmp_path: Path) -> None:
    silent = small_experiment(home / "data.npz").replace("outputs", {"margins": True})
    with pytest.raises(
        TrialsFailedError, match=r"LearnerError: outputs\.margins is asked for, .* returned no train_margin"
    ):
        job.run(silent, tmp_path / "run")


# What is recorded is decided when a run is made


@pytest.mark.parametrize(
    ("outputs", "asked"), [({}, "no outputs"), ({"margins": True}, "margins"), ({"predictions": True}, "predictions")]
)
def test_a_run_is_not_continued_with_other_outputs(run: Path, home: Path, outputs: dict[str, bool], asked: str) -> None:
    before = stored_files(run / "trials.zarr")
    with pytest.raises(
        StoreMismatchError,
        match=rf"records margins, predictions and the experiment asks for {asked}: what is recorded is decided when a run is "
        r"made\. To go on with it, set outputs\.margins=true and outputs\.predictions=true, or use `feldman resume ",
    ) as caught:
        job.run(telling(home / "data.npz", 40, **outputs), run)
    assert caught.value.exit_code == 2
    assert stored_files(run / "trials.zarr") == before


# Interrupted, damaged, grown


def _result(path: Path, num_trials: int, block: int) -> BlockResult:
    return prepare_block_task(telling(path, num_trials, **BOTH), (), small_dataset())(block)


def test_a_crash_between_any_two_writes_leaves_the_block_pending(
    home: Path, tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [_result(home / "data.npz", 20, block) for block in range(3)]
    whole = TrialStore.create(tmp_path / "whole", telling(home / "data.npz", **BOTH), small_dataset())
    with crash_at_write(monkeypatch, 10**6) as written:
        whole.commit_block(results[0])
    assert {key.split("/c/")[0] for key in written} >= set(OUTPUTS)
    assert written[-1] == "committed/c/0"
    for number in range(len(written)):
        store = TrialStore.create(tmp_path / str(number), telling(home / "data.npz", **BOTH), small_dataset())
        with crash_at_write(monkeypatch, number), pytest.raises(CrashError):
            store.commit_block(results[0])
        resumed = TrialStore.open(tmp_path / str(number))
        assert resumed.committed_blocks() == []
        for result in results:
            resumed.commit_block(result)
        assert find_damage(resumed) == []
        assert stored_files(resumed.path) == stored_files(reference / "trials.zarr")


def _chunk(run: Path, name: str, block: int = BLOCK) -> Path:
    return run / "trials.zarr" / name / "c" / str(block) / "0"


def flip(run: Path, name: str) -> None:
    content = bytearray(_chunk(run, name).read_bytes())
    content[len(content) // 2] ^= 16
    _chunk(run, name).write_bytes(content)


def delete(run: Path, name: str) -> None:
    _chunk(run, name).unlink()


def swap(run: Path, name: str) -> None:
    """Put another block's chunk there: its checksum is right."""
    shutil.copyfile(_chunk(run, name, DONOR - 2), _chunk(run, name))


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("harm", [flip, delete, swap])
def test_damage_of_an_output_is_found_and_mended(
    run: Path, reference: Path, name: str, harm: Callable[[Path, str], None]
) -> None:
    harm(run, name)
    assert {(found.block, found.array) for found in find_damage(_store(run))} == {(BLOCK, name)}
    num_events = len(read_events(run / "events.jsonl"))
    job.resume(run)
    new = read_events(run / "events.jsonl")[num_events:]
    assert [event["block"] for event in new if event["event"] == "block_committed"] == [BLOCK]
    assert_same_run(run, reference)


def test_bits_that_are_not_those_of_the_outputs_are_found_though_accuracies_agree(run: Path) -> None:
    array = zarr.open_array(run / "trials.zarr" / "test_correct", mode="r+")
    row = np.asarray(array[9])
    array[9] = row[::-1]
    assert {found.array for found in find_damage(_store(run))} == {"test_margin", "test_prediction"}


def test_damaged_labels_are_not_taken_for_damaged_predictions(run: Path, reference: Path) -> None:
    chunk = run / "trials.zarr" / "test_label" / "c" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert find_damage(_store(run)) == find_small_damage(_store(run)) != []
    job.resume(run)
    assert_same_run(run, reference)


def test_a_run_grows_with_its_outputs_and_old_trials_keep_theirs(
    run: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run(telling(home / "data.npz", 30, **BOTH), tmp_path / "thirty")
    changed = shutil.copytree(run, tmp_path / "changed")
    assert job.resume(run, num_trials=30).status.outputs == ("margins", "predictions")
    assert_same_run(run, tmp_path / "thirty")
    before = _values(changed, "test_margin")
    monkeypatch.setenv("FELDMAN_TEST_CHANGED", "1")
    job.resume(changed, num_trials=30)
    np.testing.assert_array_equal(_values(changed, "test_margin")[:20], before)
    assert (_values(changed, "test_margin")[20:] != _values(run, "test_margin")[20:]).any()


# Merged


def _part(home: Path, run: Path, trials: tuple[int, int], **outputs: bool) -> Path:
    job.run(telling(home / "data.npz", 20, **outputs).replace("execution", {"trials": trials}), run)
    return run


def test_halves_that_record_alike_are_merged_to_the_bytes_of_one_run(
    home: Path, tmp_path: Path, reference: Path
) -> None:
    halves = [_part(home, tmp_path / "a", (0, 8), **BOTH), _part(home, tmp_path / "b", (8, 20), **BOTH)]
    for number, sources in enumerate([halves, halves[::-1]]):
        summary = merge(sources, tmp_path / f"merged {number}")
        assert summary.outputs_left_out == ()
        assert_same_run(tmp_path / f"merged {number}", reference)


def test_outputs_that_only_some_runs_record_are_left_out_and_said_to_be(
    home: Path, tmp_path: Path, commands: Commands
) -> None:
    first = _part(home, tmp_path / "a", (0, 8), **BOTH)
    second = _part(home, tmp_path / "b", (8, 20), predictions=True)
    job.run(telling(home / "data.npz", predictions=True), tmp_path / "whole")
    for number, sources in enumerate([(first, second), (second, first)]):
        merged = tmp_path / f"merged {number}"
        answer = commands("merge", *map(str, sources), "-o", str(merged))
        assert "  margins are left out: not every run records them" in answer.out.splitlines()
        assert read_events(merged / "events.jsonl")[0]["outputs_left_out"] == ["margins"]
        assert_same_run(merged, tmp_path / "whole")


def test_other_predictions_of_the_same_trials_are_refused(home: Path, run: Path, tmp_path: Path) -> None:
    other = _part(home, tmp_path / "other", (8, 16), **BOTH)
    array = zarr.open_array(other / "trials.zarr" / "test_prediction", mode="r+")
    wrong = np.argwhere(~_values(other, "test_correct")[8:16])[0]
    trial, example = int(wrong[0]) + 8, int(wrong[1])
    third = 3 - int(_values(other, "test_label")[example]) - int(_values(other, "test_prediction")[trial, example])
    array[trial, example] = third
    assert find_damage(_store(other)) == []
    with pytest.raises(StoreMismatchError, match=rf"hold other bits of the same trials \(1: {trial}\)"):
        merge([run, other], tmp_path / "merged")


def test_of_other_margins_with_equal_bits_the_first_run_gives_its_own(
    home: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of another size round floats otherwise; what is recorded of one trial still comes from one run."""
    monkeypatch.setenv("FELDMAN_TEST_CHANGED", "1")
    changed = _part(home, tmp_path / "changed", (8, 16), **BOTH)
    assert merge([run, changed], tmp_path / "merged").num_shared_trials == 8
    assert_same_run(tmp_path / "merged", run)
    merge([changed, run], tmp_path / "turned")
    np.testing.assert_array_equal(
        _values(tmp_path / "turned", "test_margin")[8:16], _values(changed, "test_margin")[8:16]
    )
    bits_alone = _part(home, tmp_path / "bits alone", (8, 16))
    assert merge([run, bits_alone], tmp_path / "third").outputs_left_out == ("margins", "predictions")


# The commands


def test_the_commands_tell_what_a_run_records(home: Path, tmp_path: Path, commands: Commands) -> None:
    options = ("--set", "learner.name=tests.learners:telling_centroid", "--set", "execution.executor=in-process")
    (tmp_path / "e.toml").write_text(
        f'[dataset]\nname = "arrays"\npath = "{home / "data.npz"}"\n[subsets]\nnum_trials = 16\n'
    )
    recorded = ("--set", "outputs.margins=true")
    assert commands("run", "e.toml", "-o", "run", *options, *recorded).code == 0
    assert "  records        margins" in commands("status", "run").out.splitlines()
    assert json.loads(commands("status", "run", "--json").out)["outputs"] == ["margins"]
    assert "every chunk as it was written" in commands("verify", "run").out
    refused = commands("run", "e.toml", "-o", "run", *options)
    assert (refused.code, "records margins and the experiment asks for no outputs" in refused.err) == (2, True)
    (_chunk(tmp_path / "run", "test_margin", 0)).unlink()
    verified = commands("verify", "run")
    assert (verified.code, "chunk test_margin/c/0/0 is missing" in verified.out) == (1, True)
    assert (commands("resume", "run").code, commands("verify", "run").code) == (0, 0)
