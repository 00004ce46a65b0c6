"""Estimates of a run directory: one result whoever counts, the whole matrix, counts that are kept."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from scipy.stats import hypergeom
from statsmodels.stats.multitest import multipletests
from zarr.storage import LocalStore

from feldman.errors import CorruptStoreError, FeldmanError, QueryError, StorageError
from feldman.estimates import kernel_tiles, torch_tiles
from feldman.estimates.counting import Counting
from feldman.estimates.selection import PairSelection
from feldman.results import matrix as matrix_module
from feldman.results.all_pairs import Extras
from feldman.results.estimation import Estimated, write_estimates
from feldman.results.run import open_run
from feldman.results.tables import read_table
from feldman.trials.rundir import RunPaths, run_paths
from feldman.trials.store import TrialStore
from tests.conftest import cli_environment
from tests.estimates import oracle
from tests.estimates.failing_tiles import attempts_at, prepare_failing
from tests.estimates.stores import TABLES, commit_random, copied_tables, left_behind, plain_bits, random_run
from tests.estimates.test_selection import selections

ALL_PAIRS = PairSelection(min_influence=-1.0, min_memorization=-1.0)
BOTH = Extras(matrix="float32", keep_counts=True)
SELECTIONS = {
    "the paper's": PairSelection(),
    "all": ALL_PAIRS,
    "thresholds": PairSelection(min_influence=0.2, min_memorization=0.1),
    "top of tests": PairSelection(min_influence=-1.0, min_memorization=-1.0, top_per_target=3),
    "top of training examples": PairSelection(min_influence=0.0, min_memorization=-1.0, top_per_train=2),
    "both tops": PairSelection(min_influence=-1.0, min_memorization=0.0, top_per_target=1, top_per_train=4),
    "one class": PairSelection(min_influence=0.1, min_memorization=-1.0, same_class=True),
    "tops of one class": PairSelection(min_influence=-1.0, min_memorization=-1.0, same_class=True, top_per_target=2),
    "on training examples": PairSelection(min_influence=0.1, min_memorization=0.1, targets="train"),
    "tops on training examples of one class": PairSelection(
        min_influence=-1.0, min_memorization=-1.0, same_class=True, top_per_target=2, top_per_train=3, targets="train"
    ),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 training examples: three tiles of the kernel, one block pending."""
    folder = tmp_path_factory.mktemp("estimation")
    return random_run(folder / "run", num_train=150, num_test=140, num_trials=44, pending=[2]).root


@pytest.fixture
def paths(template: Path, tmp_path: Path) -> RunPaths:
    return run_paths(shutil.copytree(template, tmp_path / "run"))


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run that may be estimated again and again."""
    return run_paths(shutil.copytree(template, tmp_path_factory.mktemp("shared") / "run"))


def estimated(paths: RunPaths, selection: PairSelection = ALL_PAIRS, **given: Any) -> dict[str, bytes]:
    """Estimate into a clean folder; return what was written."""
    for old in (*paths.root.glob("*.parquet"), paths.matrix, paths.counts):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    write_estimates(paths, selection=selection, **given)
    assert left_behind(paths) == []
    return copied_tables(paths)


def tables_of(written: dict[str, bytes]) -> dict[str, bytes]:
    return {name: written[name] for name in TABLES}


# One result whoever counts


def count_with_torch(patch: pytest.MonkeyPatch) -> None:
    for name in ("prepare_selecting", "prepare_counting"):
        patch.setattr(kernel_tiles, name, partial(getattr(torch_tiles, name), "cpu"))


@pytest.mark.parametrize("name", SELECTIONS)
def test_torch_and_the_kernel_write_the_same_bytes(
    shared: RunPaths, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    selection = SELECTIONS[name]
    expected = estimated(shared, selection)
    table = "influence_train.parquet" if selection.targets == "train" else "influence.parquet"
    assert set(expected) == {"memorization.parquet", table}
    assert pq.read_metadata(shared.root / table).num_rows > 10
    with monkeypatch.context() as patch:
        count_with_torch(patch)
        assert estimated(shared, selection) == expected
    if selection.targets == "test":
        assert tables_of(estimated(shared, selection, extras=BOTH)) == expected


def test_torch_and_the_kernel_count_and_write_the_same_matrix(
    shared: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = estimated(shared, extras=BOTH)
    assert any(name.startswith("influence.zarr/c/") for name in expected)
    assert any(name.startswith("counts.zarr/joint/c/") for name in expected)
    with monkeypatch.context() as patch:
        count_with_torch(patch)
        assert estimated(shared, extras=BOTH) == expected


@pytest.mark.parametrize("name", SELECTIONS)
def test_q_values_are_of_all_pairs_looked_at_with_those_not_kept_as_chance(shared: RunPaths, name: str) -> None:
    selection = SELECTIONS[name]
    estimated(shared, selection)
    path = shared.influence if selection.targets == "test" else shared.influence_on_train
    table, facts = read_table(path, shared.root)
    trials = plain_bits(shared)
    on_train = selection.targets == "train"
    memorized = oracle.memorization(trials.subset_mask, trials.train_correct) >= selection.min_memorization
    labels = TrialStore.open(shared.store).labels("train")
    target_labels = TrialStore.open(shared.store).labels(selection.targets)
    looked_at = memorized[:, None] & np.ones(len(target_labels), bool)
    if selection.same_class:
        looked_at &= labels[:, None] == target_labels
    if on_train:
        np.fill_diagonal(looked_at, False)
    assert facts.num_pairs_tested == looked_at.sum()
    train, target, p_value, q_value = (
        table[column].to_numpy() for column in ("train_index", table.schema.names[1], "p_value", "q_value")
    )
    correct = (trials.train_correct if on_train else trials.test_correct)[:, target]
    mask, num = trials.subset_mask[:, train], len(trials.subset_mask)
    known = hypergeom(num, correct.sum(axis=0), mask.sum(axis=0))
    joint = (mask & correct).sum(axis=0)
    expected = np.minimum(2 * np.minimum(known.sf(joint - 1), known.cdf(joint)), 1)
    np.testing.assert_allclose(p_value, expected, rtol=1e-9)
    ones = np.ones(int(looked_at.sum()) - len(p_value))
    adjusted = multipletests(np.concatenate([p_value, ones]), method="fdr_bh")[1]
    np.testing.assert_allclose(q_value, adjusted[: len(p_value)], rtol=1e-9)


def test_the_notebooks_pairs_have_the_q_values_of_the_table(shared: RunPaths) -> None:
    estimated(shared, SELECTIONS["thresholds"])
    table = pq.read_table(shared.influence)
    found = open_run(shared.root).pairs(min_influence=0.2, min_memorization=0.1)
    order = [("train_index", "ascending"), ("test_index", "ascending")]
    assert found.sort_by(order).equals(table.replace_schema_metadata(None).sort_by(order))


@pytest.mark.ray
@pytest.mark.parametrize("name", ["thresholds", "both tops", "tops on training examples of one class"])
def test_a_cluster_writes_the_same_bytes(shared: RunPaths, ray_address: str, name: str) -> None:
    expected = estimated(shared, SELECTIONS[name])
    assert estimated(shared, SELECTIONS[name], counting=Counting(address=ray_address)) == expected


@pytest.mark.ray
def test_a_cluster_writes_the_same_matrix_and_counts(shared: RunPaths, ray_address: str) -> None:
    expected = estimated(shared, SELECTIONS["one class"], extras=BOTH)
    assert estimated(shared, SELECTIONS["one class"], extras=BOTH, counting=Counting(address=ray_address)) == expected


@pytest.mark.ray
def test_a_tile_that_fails_on_a_cluster_is_handed_out_again(
    shared: RunPaths, ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = estimated(shared)
    monkeypatch.setattr(kernel_tiles, "prepare_selecting", partial(prepare_failing, str(tmp_path), 2))
    assert estimated(shared, counting=Counting(address=ray_address)) == expected
    assert [attempts_at(tmp_path, tile) for tile in range(4)] == [1, 3, 1, 0]


def test_a_tile_that_fails_always_leaves_the_old_tables(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = estimated(paths)
    monkeypatch.setattr(kernel_tiles, "prepare_selecting", partial(prepare_failing, str(tmp_path), 99))
    with pytest.raises(FeldmanError, match=r"could not be counted; first: tile 1: RuntimeError: tile 1 fails as scri"):
        write_estimates(paths, selection=SELECTIONS["top of tests"])
    assert copied_tables(paths) == before
    assert left_behind(paths) == []


@given(selections.filter(lambda selection: selection.targets == "test"))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
def test_selecting_from_all_counts_is_selecting_while_counting(shared: RunPaths, selection: PairSelection) -> None:
    expected = estimated(shared, selection)
    assert tables_of(estimated(shared, selection, extras=Extras(keep_counts=True))) == expected
    write_estimates(shared, selection=selection, extras=Extras(keep_counts=True))  # now from kept counts alone
    assert tables_of(copied_tables(shared)) == expected


@pytest.mark.parametrize("extras", [Extras(matrix="float16"), Extras(keep_counts=True)])
def test_extras_are_of_test_examples_only(paths: RunPaths, extras: Extras) -> None:
    with pytest.raises(QueryError, match="are of test examples; leave them out for pairs of training examples"):
        write_estimates(paths, selection=SELECTIONS["on training examples"], extras=extras)
    assert copied_tables(paths) == {}


@pytest.mark.parametrize(
    "device", ["", "tpu", "cpu:", "cpu:1", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "cuda:1:2", "CUDA"]
)
@pytest.mark.parametrize("address", [None, "auto"])
def test_a_device_that_is_none_is_refused_wherever_it_were(device: str, address: str | None) -> None:
    with pytest.raises(QueryError, match=rf"a device is 'cpu', 'cuda' or 'cuda:N'; found '{device}'"):
        Counting(device=device, address=address)


# The whole matrix


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("float16", 1e-3)])
def test_the_matrix_is_the_textbook_formula_in_the_precision_asked_for(
    tmp_path: Path, precision: Any, error: float
) -> None:
    # So few trials that some example is in all of them, and another in none: undefined. More rows than a chunk has.
    paths = random_run(tmp_path / "run", num_train=300, num_test=35, num_trials=7, block_size=4)
    made = write_estimates(paths, selection=PairSelection(), extras=Extras(matrix=precision))
    trials = plain_bits(paths)
    expected = oracle.influence(trials.subset_mask, trials.test_correct)
    opened = zarr.open_array(paths.matrix, mode="r")
    assert (opened.shape, opened.dtype, opened.metadata.dimension_names) == ((300, 35), precision, ("train", "test"))  # type: ignore[union-attr]
    assert 0 < np.isnan(expected[:, 0]).sum() < 100
    found = np.asarray(opened[:]).astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=error, rtol=0, equal_nan=True)
    attributes = json.loads(json.dumps(opened.attrs.asdict()))
    # The matrix is of all pairs, selected or not: none of them was tested.
    assert attributes == json.loads(json.dumps(replace(made.facts, num_pairs_tested=None).as_json()))
    assert (attributes["num_trials"], attributes["fingerprint"]) == (
        7,
        TrialStore.open(paths.store).experiment.fingerprint,
    )


def test_an_estimate_that_asks_for_no_matrix_leaves_the_old_one_which_says_what_it_is_of(paths: RunPaths) -> None:
    write_estimates(paths, selection=ALL_PAIRS, extras=Extras(matrix="float16"))
    before = copied_tables(paths)
    commit_random(TrialStore.open(paths.store), 2)
    write_estimates(paths, selection=ALL_PAIRS)
    after = copied_tables(paths)
    assert [name for name in before if after[name] != before[name]] == list(TABLES) or set(TABLES) == {
        name for name in before if after[name] != before[name]
    }
    assert zarr.open_array(paths.matrix, mode="r").attrs["num_trials"] == 36


# Counts that are kept


def keeping(paths: RunPaths, selection: PairSelection = ALL_PAIRS) -> Estimated:
    return write_estimates(paths, selection=selection, extras=BOTH)


def fresh_copy(paths: RunPaths, place: Path) -> RunPaths:
    """The same trials in a run that was never estimated."""
    shutil.copytree(paths.store, place / "trials.zarr")
    return run_paths(place)


@pytest.mark.parametrize("name", ["all", "both tops", "tops of one class"])
def test_after_growth_only_new_blocks_are_read_and_the_files_are_those_made_from_scratch(
    tmp_path: Path, name: str
) -> None:
    selection = SELECTIONS[name]
    paths = random_run(tmp_path / "run", num_train=70, num_test=33, num_trials=24, pending=[1])
    assert keeping(paths, selection).num_blocks_read == 2
    assert keeping(paths, selection).num_blocks_read == 0
    commit_random(TrialStore.open(paths.store), 1)
    assert keeping(paths, selection).num_blocks_read == 1
    for num_trials, num_new in ((40, 2), (44, 1)):
        store = TrialStore.open(paths.store)
        store.grow(num_trials, None)
        for block in range(store.num_blocks - num_new, store.num_blocks):
            commit_random(store, block)
        made = keeping(paths, selection)
        assert (made.num_blocks_read, made.facts.num_trials) == (num_new, num_trials)
    scratch = fresh_copy(paths, tmp_path / "scratch")
    assert keeping(scratch, selection).num_blocks_read == 6
    assert copied_tables(paths) == copied_tables(scratch)
    write_estimates(scratch, selection=selection)
    assert tables_of(copied_tables(paths)) == tables_of(copied_tables(scratch))


def test_a_short_last_block_that_grew_makes_all_be_counted_anew(tmp_path: Path) -> None:
    paths = random_run(tmp_path / "run", num_trials=20)
    keeping(paths)
    store = TrialStore.open(paths.store)
    store.grow(24, None)
    commit_random(store, 2)
    assert keeping(paths).num_blocks_read == 3
    assert_counts_are_the_stores(paths)


def assert_counts_are_the_stores(paths: RunPaths) -> None:
    trials = plain_bits(paths)
    group = zarr.open_group(paths.counts, mode="r")
    found = {name: np.asarray(group[name][:]) for name in ("joint", "num_in", "correct_in", "correct", "totals")}  # type: ignore[index]
    mask = trials.subset_mask.astype(int)
    np.testing.assert_array_equal(found["joint"], mask.T @ trials.test_correct)
    np.testing.assert_array_equal(found["num_in"], mask.sum(axis=0))
    np.testing.assert_array_equal(found["correct_in"], (mask * trials.train_correct).sum(axis=0))
    np.testing.assert_array_equal(found["correct"], trials.train_correct.sum(axis=0))
    np.testing.assert_array_equal(found["totals"], trials.test_correct.sum(axis=0))
    expected = oracle.influence(trials.subset_mask, trials.test_correct)
    np.testing.assert_allclose(np.asarray(zarr.open_array(paths.matrix, mode="r")[:]), expected, atol=1e-6)


def withdraw(paths: RunPaths) -> None:
    TrialStore.open(paths.store).withdraw_block(1)


def train_otherwise(paths: RunPaths) -> None:
    withdraw(paths)
    commit_random(TrialStore.open(paths.store), 1, seed=5)


def attributes_with(**changes: Any) -> Callable[[RunPaths], None]:
    def change(paths: RunPaths) -> None:
        file = paths.counts / "zarr.json"
        document = json.loads(file.read_text())
        attributes = document["attributes"] | changes
        document["attributes"] = {name: value for name, value in attributes.items() if value is not None}
        file.write_text(json.dumps(document))

    return change


def metadata_of(content: bytes | None) -> Callable[[RunPaths], None]:
    def write(paths: RunPaths) -> None:
        (paths.counts / "zarr.json").unlink()
        if content is not None:
            (paths.counts / "zarr.json").write_bytes(content)

    return write


def become_a_file(paths: RunPaths) -> None:
    shutil.rmtree(paths.counts)
    paths.counts.write_bytes(b"counts")


def become_a_link(paths: RunPaths) -> None:
    """As somebody may do who keeps large things on another disk."""
    shutil.move(paths.counts, paths.root.parent / "elsewhere")
    paths.counts.symlink_to(paths.root.parent / "elsewhere")
    train_otherwise(paths)


def become_an_array(paths: RunPaths) -> None:
    shutil.rmtree(paths.counts)
    zarr.create_array(paths.counts, shape=(3,), dtype="int8")


SET_ASIDE = {
    "a block was withdrawn": withdraw,
    "a block was trained otherwise": train_otherwise,
    "another experiment's": attributes_with(fingerprint="0" * 64),
    "another digest": attributes_with(digest="0" * 64),
    "another format": attributes_with(format="feldman-trials"),
    "no format": attributes_with(format=None),
    "no digest": attributes_with(digest=None),
    "no blocks": attributes_with(blocks=None),
    "blocks that are not there": attributes_with(blocks=[0, 1, 77]),
    "negative blocks": attributes_with(blocks=[-1]),
    "blocks that are none": attributes_with(blocks=["a"]),
    "blocks that are lists": attributes_with(blocks=[[0], {}]),
    "blocks that are a number": attributes_with(blocks=3),
    "fewer blocks than were counted": attributes_with(blocks=[0, 1]),
    "a block twice": attributes_with(blocks=[0, 0, 1, 2, 3, 4]),
    "no metadata": metadata_of(None),
    "empty metadata": metadata_of(b""),
    "metadata that are no text": metadata_of(b"\xff\xfe\0"),
    "metadata that are null": metadata_of(b"null"),
    "metadata that are a list": metadata_of(b"[]"),
    "metadata of nothing": metadata_of(b"{}"),
    "metadata of an older Zarr": metadata_of(b'{"zarr_format": 2}'),
    "metadata without attributes": metadata_of(b'{"zarr_format": 3, "node_type": "group"}'),
    "metadata whose attributes are none": metadata_of(b'{"zarr_format": 3, "node_type": "group", "attributes": 3}'),
    "a file": become_a_file,
    "a link": become_a_link,
    "an array": become_an_array,
}


@pytest.fixture(scope="module")
def kept_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = random_run(tmp_path_factory.mktemp("kept") / "run")
    keeping(paths)
    return paths.root


@pytest.fixture
def kept(kept_template: Path, tmp_path: Path) -> RunPaths:
    """A run with kept counts and a matrix."""
    return run_paths(shutil.copytree(kept_template, tmp_path / "kept"))


@pytest.mark.parametrize("how", SET_ASIDE)
def test_counts_that_are_not_of_the_committed_trials_are_set_aside(kept: RunPaths, how: str) -> None:
    SET_ASIDE[how](kept)
    num_committed = len(TrialStore.open(kept.store).committed_blocks())
    assert keeping(kept).num_blocks_read == num_committed
    assert keeping(kept).num_blocks_read == 0
    assert_counts_are_the_stores(kept)
    assert left_behind(kept) == []


COUNTS = ["joint", "num_in", "correct_in", "correct", "totals"]


def change_a_byte(chunk: Path) -> None:
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)


HARMS: dict[str, Callable[[Path], Any]] = {
    "changed": change_a_byte,
    "cut": lambda chunk: chunk.write_bytes(chunk.read_bytes()[:-1]),
    "cut to nothing": lambda chunk: chunk.write_bytes(b""),
    "cut to two bytes": lambda chunk: chunk.write_bytes(b"ab"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("array", COUNTS)
def test_damaged_counts_are_refused_until_they_are_deleted(kept: RunPaths, array: str, harm: str) -> None:
    chunks = [path for path in (kept.counts / array / "c").rglob("*") if path.is_file()]
    HARMS[harm](chunks[-1])
    before = copied_tables(kept)
    with pytest.raises(
        CorruptStoreError, match=rf"counts.zarr is damaged \({array}: .*; delete it, and all blocks are re"
    ):
        keeping(kept)
    assert copied_tables(kept) == before
    assert left_behind(kept) == []
    write_estimates(kept, selection=ALL_PAIRS)  # without them nothing is amiss
    shutil.rmtree(kept.counts)
    assert keeping(kept).num_blocks_read == 5
    assert_counts_are_the_stores(kept)


@pytest.mark.parametrize(
    ("array", "content"),
    [
        *(("joint", content) for content in (None, b"", b"null", b"{}", b'{"zarr_format": 3}')),
        *((array, b"null") for array in COUNTS[1:]),
    ],
)
def test_counts_whose_arrays_cannot_be_opened_are_refused_too(
    kept: RunPaths, array: str, content: bytes | None
) -> None:
    metadata = kept.counts / array / "zarr.json"
    metadata.unlink() if content is None else metadata.write_bytes(content)
    with pytest.raises(CorruptStoreError, match=rf"counts.zarr is damaged \({array}: .*; delete it"):
        keeping(kept)
    assert left_behind(kept) == []


@pytest.mark.parametrize(("num_trials", "dtype"), [(65_535, "uint16"), (65_536, "uint32")])
def test_counts_are_wide_enough_for_their_trials(tmp_path: Path, num_trials: int, dtype: str) -> None:
    paths = random_run(tmp_path / "run")
    store = TrialStore.open(paths.store)
    with matrix_module.new_counts(paths.counts, store, [0], num_trials) as counts:
        counts.write_joint(slice(0, 40), np.full((40, 30), num_trials))
    opened = matrix_module.open_counts(paths.counts, store)
    assert opened is not None
    assert np.unique(opened.joint(slice(0, 40))).tolist() == [num_trials]
    assert zarr.open_array(paths.counts / "joint", mode="r").dtype == dtype


def test_old_narrow_counts_are_added_to_in_wide_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = random_run(tmp_path / "run", pending=[4])
    keeping(paths)
    commit_random(TrialStore.open(paths.store), 4)
    real = matrix_module.new_counts
    monkeypatch.setattr(
        "feldman.results.all_pairs.new_counts",
        lambda path, store, blocks, num_trials: real(path, store, blocks, num_trials + 2**16),
    )
    assert keeping(paths).num_blocks_read == 1
    assert zarr.open_array(paths.counts / "joint", mode="r").dtype == "uint32"
    assert_counts_are_the_stores(paths)


# Disks and kills


def with_outdated_counts(paths: RunPaths) -> dict[str, bytes]:
    """Let the kept counts be of other trials, for while they are of all they are not written again; return all files."""
    path = paths.counts / "zarr.json"
    path.write_text(path.read_text().replace('"digest": "', '"digest": "other'))
    return copied_tables(paths)


@pytest.mark.parametrize(
    ("extras", "says"),
    [
        (
            Extras(matrix="float32"),
            r"the influence matrix would take up to 0\.0 GB as influence.zarr, and '.*' has 0\.0 ",
        ),
        (
            Extras(keep_counts=True),
            r"counts of all pairs would take up to 0\.0 GB as counts.zarr, and '.*' has 0\.0 GB left",
        ),
    ],
)
def test_what_does_not_fit_on_the_disk_is_not_begun(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, extras: Extras, says: str
) -> None:
    estimated(paths, extras=BOTH)
    before = with_outdated_counts(paths)
    free = shutil.disk_usage(paths.root)._replace(free=150 * 140 * 2 - 1)
    monkeypatch.setattr("feldman.results.matrix.shutil.disk_usage", lambda path: free)
    with pytest.raises(StorageError, match=says + ".*; make room, or leave it out") as caught:
        write_estimates(paths, selection=PairSelection(), extras=extras)
    assert caught.value.exit_code == 1
    assert copied_tables(paths) == before
    assert left_behind(paths) == []


@pytest.mark.parametrize("num_writes", [0, 3, 9, 14])
def test_a_disk_that_fills_up_meanwhile_leaves_the_old_files(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, num_writes: int
) -> None:
    estimated(paths, extras=BOTH)
    before, written = with_outdated_counts(paths), list[str]()
    real = LocalStore._set

    async def filling(self: LocalStore, key: str, value: Any, exclusive: bool = False) -> None:
        if len(written) >= num_writes:
            raise OSError(28, "No space left on device")
        written.append(key)
        await real(self, key, value, exclusive)

    monkeypatch.setattr(LocalStore, "_set", filling)
    with pytest.raises(StorageError, match=r"cannot write to .*: No space left on device; what is committed is safe"):
        write_estimates(paths, selection=PairSelection(), extras=BOTH)
    assert copied_tables(paths) == before
    assert left_behind(paths) == []


def test_a_matrix_that_cannot_take_its_place_leaves_the_old_one(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = estimated(paths, extras=BOTH)
    real = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if (
            Path(target) == paths.matrix
            and self.name.endswith(".partial")
            and json.loads((self / "zarr.json").read_text())["attributes"]["selection"]["min_influence"] == 0.15
        ):
            raise OSError(13, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(StorageError, match="Permission denied"):
        write_estimates(paths, selection=PairSelection(), extras=Extras(matrix="float32"))
    assert copied_tables(paths) == before
    assert left_behind(paths) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from feldman.estimates.selection import PairSelection
from feldman.results import all_pairs
from feldman.results.estimation import write_estimates
from feldman.trials.rundir import run_paths

where, root = sys.argv[1:]
seen = []

def dying(real, name):
    def call(*arguments, **more):
        seen.append(name)
        if seen.count(name) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)
    return call

if where == "between tiles":
    all_pairs._take_tile = dying(all_pairs._take_tile, where)
else:
    Path.rename = dying(Path.rename, where)
write_estimates(run_paths(root), selection=PairSelection(), extras=all_pairs.Extras(matrix="float32"))
"""


@pytest.mark.parametrize(("where", "is_there"), [("between tiles", True), ("between renames", False)])
def test_a_kill_leaves_the_old_matrix_or_none_and_the_next_estimate_tidies_up(
    tmp_path: Path, where: str, is_there: bool
) -> None:
    paths = random_run(tmp_path / "run", num_train=600)
    estimated(paths, extras=Extras(matrix="float32"))
    before = copied_tables(paths)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, where, str(paths.root)], env=cli_environment(), capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert any(path.name.startswith(".influence.zarr.") for path in left_behind(paths))
    after = {name: content for name, content in copied_tables(paths).items() if not name.startswith(".")}
    assert after == {name: content for name, content in before.items() if is_there or "influence.zarr" not in name}
    write_estimates(paths, selection=ALL_PAIRS, extras=Extras(matrix="float32"))
    assert left_behind(paths) == []
    assert copied_tables(paths) == before


# The notebook's door


@pytest.mark.parametrize(
    "name", ["the paper's", "top of tests", "both tops", "one class", "tops of one class", "thresholds"]
)
def test_an_open_run_selects_the_pairs_of_the_table(shared: RunPaths, name: str) -> None:
    selection = SELECTIONS[name]
    write_estimates(shared, selection=selection)
    written = pq.read_table(shared.influence)
    found = open_run(shared.root).pairs(
        min_influence=selection.min_influence,
        min_memorization=selection.min_memorization,
        top_per_test=selection.top_per_target,
        top_per_train=selection.top_per_train,
        same_class=selection.same_class,
    )
    assert found.schema.equals(written.schema.remove_metadata())
    order = [("train_index", "ascending"), ("test_index", "ascending")]
    assert found.sort_by(order).equals(written.sort_by(order).replace_schema_metadata(None))
    strongest = list(zip(*(found.column(k).to_pylist() for k in (2, 0, 1)), strict=True))
    assert strongest == sorted(strongest, key=lambda pair: (-pair[0], *pair[1:]))
