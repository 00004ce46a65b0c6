"""Bits read in panels and column chunks: the same tables, of the committed blocks alone, and never from damaged ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.errors import CorruptStoreError, RunDirectoryError
from feldman.estimates import reading
from feldman.estimates.reading import BitReader, read_bits
from feldman.estimates.selection import PairSelection
from feldman.results.all_pairs import Extras
from feldman.results.estimation import write_estimates
from feldman.results.tables import read_facts
from feldman.trials import layout
from feldman.trials.layout import BIT_ARRAYS, TRIAL_ARRAYS
from feldman.trials.rundir import RunPaths, run_paths
from feldman.trials.session import Progress
from feldman.trials.store import TrialStore
from tests.estimates import oracle
from tests.estimates.stores import TABLES, commit_random, copied_tables, left_behind, plain_bits, random_run
from tests.estimates.test_selection import expected_pairs
from tests.estimates.trials import Trials

ALL_PAIRS = PairSelection(min_influence=-1.0, min_memorization=-1.0)
SELECTIONS = [
    ALL_PAIRS,
    PairSelection(min_influence=0.1, min_memorization=0.2),
    PairSelection(min_influence=-1.0, min_memorization=-1.0, top_per_target=2, top_per_train=3),
    PairSelection(min_influence=-1.0, min_memorization=0.0, same_class=True, targets="train"),
]


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, int | list[int]]:
    num_trials, block_size = draw(st.integers(2, 60)), draw(st.integers(5, 20))
    num_blocks = -(-num_trials // block_size)
    pending = draw(st.lists(st.integers(0, num_blocks - 1), max_size=min(3, num_blocks - 1), unique=True))
    return {
        "num_train": draw(st.integers(4, 50)),
        "num_test": draw(st.integers(1, 40)),
        "num_trials": num_trials,
        "block_size": block_size,
        "pending": pending,
    }


@given(shape=shapes(), chunk_examples=st.integers(3, 20), selection=st.sampled_from(SELECTIONS))
@settings(deadline=None, max_examples=12)
def test_panels_and_column_chunks_do_not_change_the_tables_and_pending_blocks_are_left_out(
    shape: dict[str, int | list[int]], chunk_examples: int, selection: PairSelection
) -> None:
    made = []
    for examples, panel_bytes in ((65536, 2**25), (chunk_examples, 2**25), (chunk_examples, 1)):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "MAX_CHUNK_EXAMPLES", examples)
            paths = random_run(Path(folder) / "run", **shape)  # type: ignore[arg-type]
            patch.setattr(reading, "_PANEL_BYTES", panel_bytes)
            panels = BitReader(TrialStore.open(paths.store)).panels()
            assert len(panels) == (-(-shape["num_train"] // chunk_examples) if panel_bytes == 1 else 1)  # type: ignore[operator]
            result = write_estimates(paths, selection=selection)
            made.append(copied_tables(paths))
            assert made[-1] == made[0]
            assert_tables_are_the_oracles(paths, plain_bits(paths), selection)
            blocks = TrialStore.open(paths.store).committed_blocks()
            assert set(blocks).isdisjoint(shape["pending"])  # type: ignore[arg-type]
            assert result.num_blocks_read == len(blocks)
            assert result.facts.num_trials == len(plain_bits(paths).subset_mask)


def assert_tables_are_the_oracles(paths: RunPaths, trials: Trials, selection: PairSelection) -> None:
    table = pq.read_table(paths.memorization)
    expected = oracle.memorization(trials.subset_mask, trials.train_correct)
    np.testing.assert_allclose(table["memorization"].to_numpy(), expected, atol=1e-12, equal_nan=True)
    num_in = table["num_in"].to_numpy()
    np.testing.assert_array_equal(num_in, trials.subset_mask.sum(axis=0))
    np.testing.assert_array_equal(num_in + table["num_out"].to_numpy(), len(trials.subset_mask))
    np.testing.assert_array_equal(
        table["correct_in"].to_numpy(), (trials.subset_mask & trials.train_correct).sum(axis=0)
    )
    np.testing.assert_array_equal(table["train_index"].to_numpy(), np.arange(trials.subset_mask.shape[1]))
    path = paths.influence if selection.targets == "test" else paths.influence_on_train
    pairs = pq.read_table(path).sort_by([("train_index", "ascending"), (pq.read_schema(path).names[1], "ascending")])
    found = list(zip(*(pairs.column(k).to_pylist() for k in range(3)), strict=True))
    wanted = expected_pairs(trials, selection)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in wanted]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in wanted], atol=1e-12)


def test_bits_in_memory_are_those_of_the_committed_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_CHUNK_EXAMPLES", 16)
    paths = random_run(tmp_path / "run", num_trials=37, pending=[0, 2])
    found, expected = read_bits(TrialStore.open(paths.store)), plain_bits(paths).packed()
    assert found.num_trials == expected.num_trials == 21
    for name in BIT_ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_run_without_a_committed_block_says_so_and_gets_no_tables(tmp_path: Path) -> None:
    paths = random_run(tmp_path / "run", pending=range(5))
    for extras in (Extras(), Extras(matrix="float32", keep_counts=True)):
        with pytest.raises(RunDirectoryError, match="has no committed trials yet; let it run on, or `feldman resume"):
            write_estimates(paths, selection=ALL_PAIRS, extras=extras)
    assert copied_tables(paths) == {}
    assert left_behind(paths) == []


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("extras", [Extras(), Extras(matrix="float32", keep_counts=True)])
def test_progress_ends_where_it_said_it_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: PairSelection, extras: Extras
) -> None:
    if selection.targets == "train" and extras.any:
        return
    monkeypatch.setattr(layout, "MAX_CHUNK_EXAMPLES", 16)
    monkeypatch.setattr(reading, "_PANEL_BYTES", 1)
    told: list[Progress] = []
    write_estimates(random_run(tmp_path / "run"), selection=selection, extras=extras, tell=told.append)
    for stage in ("reading trials", "estimating influence"):
        steps = [progress for progress in told if progress.stage == stage]
        assert [step.done for step in steps] == sorted(step.done for step in steps)
        assert {step.total for step in steps} == {steps[-1].done}


# Damage

NUM_TRIALS = 36  # five blocks of 8, the last one short
BLOCK, DONOR = 1, 3
COLUMNS = {"subset_mask": 3, "train_correct": 3, "test_correct": 2, "train_label": 3, "test_label": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run of several column chunks, with old tables and extras."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "MAX_CHUNK_EXAMPLES", 16)
        paths = random_run(tmp_path_factory.mktemp("reading") / "run", num_trials=NUM_TRIALS)
    write_estimates(paths, selection=ALL_PAIRS, extras=Extras(matrix="float16"))
    return paths


@pytest.fixture
def paths(whole: RunPaths) -> Iterator[RunPaths]:
    """The run, whose store may be damaged: it is mended afterwards."""
    kept = {path: path.read_bytes() for path in whole.store.rglob("*") if path.is_file()}
    yield whole
    for path, content in kept.items():
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)


def _file(paths: RunPaths, name: str, block: int, column: int) -> Path:
    index = f"{block}/{column}" if name in BIT_ARRAYS else f"{column}" if name.endswith("_label") else f"{block}"
    return paths.store / name / "c" / index


def flip(chunk: Path, donor: Path) -> None:
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)


def cut(chunk: Path, donor: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-1])


def empty(chunk: Path, donor: Path) -> None:
    chunk.write_bytes(b"")


def delete(chunk: Path, donor: Path) -> None:
    chunk.unlink()


def swap(chunk: Path, donor: Path) -> None:
    """Each in the place of the other: both checksums are right."""
    mine, others = chunk.read_bytes(), donor.read_bytes()
    assert mine != others
    chunk.write_bytes(others)
    donor.write_bytes(mine)


def folder_there(chunk: Path, donor: Path) -> None:
    chunk.unlink()
    chunk.mkdir()


Harm = Callable[[Path, Path], None]
HARMS: list[Harm] = [flip, cut, empty, delete, swap, folder_there]
CASES = [
    *product(BIT_ARRAYS, range(3), HARMS),
    *product(TRIAL_ARRAYS, range(1), HARMS),
    *product(("train_label", "test_label"), range(3), set(HARMS) - {swap}),
    *product(("committed",), range(1), [flip, cut, empty]),
]
CASES = [
    (name, column, harm)
    for name, column, harm in CASES
    if column < COLUMNS.get(name, 1) and (name, harm) != ("train_seconds", swap)  # measured: nothing to hold it against
]


@pytest.mark.parametrize(
    ("name", "column", "harm", "panel_bytes"),
    [*((*case, 1) for case in CASES), *((*case, 2**25) for case in CASES if case[2] is swap)],
)
def test_damage_of_any_chunk_is_refused_and_the_old_tables_stay(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, name: str, column: int, harm: Harm, panel_bytes: int
) -> None:
    monkeypatch.setattr(reading, "_PANEL_BYTES", panel_bytes)
    harm(_file(paths, name, BLOCK, column), _file(paths, name, DONOR, column))
    before = copied_tables(paths)
    assert len(before) > len(TABLES)
    where = (
        "labels" if name.endswith("_label") else rf"2 blocks: {BLOCK}, {DONOR}" if harm is swap else f"1 block: {BLOCK}"
    )
    for extras in (Extras(), Extras(matrix="float32", keep_counts=True))[: 2 if harm is cut else 1]:
        with pytest.raises(CorruptStoreError, match=rf"is damaged \({where}; first: .*; `feldman resume"):
            write_estimates(paths, selection=ALL_PAIRS, extras=extras)
        assert copied_tables(paths) == before
        assert left_behind(paths) == []


def test_a_block_in_the_place_of_another_is_refused_in_every_panel(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PANEL_BYTES", 1)
    for name, columns in {**COLUMNS, **dict.fromkeys(TRIAL_ARRAYS, 1)}.items():
        for column in range(columns if not name.endswith("_label") else 0):
            shutil.copyfile(_file(paths, name, DONOR, column), _file(paths, name, BLOCK, column))
    with pytest.raises(CorruptStoreError, match=rf"\(1 block: {BLOCK}; .* differs from the plan of the seed"):
        write_estimates(paths, selection=ALL_PAIRS)


def test_blocks_that_are_committed_while_an_estimate_begins_are_counted_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, blocks = TrialStore.committed_blocks, iter(range(1, 5))

    def commit_after_a_look(store: TrialStore) -> list[int]:
        found = look(store)
        for block in (next(blocks, None),):
            if block is not None:
                commit_random(TrialStore.open(store.path), block)
        return found

    for extras in (Extras(), Extras(matrix="float32", keep_counts=True)):
        paths = random_run(tmp_path / f"run{extras.any}", pending=range(1, 5))
        blocks = iter(range(1, 5))
        with monkeypatch.context() as patch:
            patch.setattr(TrialStore, "committed_blocks", commit_after_a_look)
            made = write_estimates(paths, selection=ALL_PAIRS, extras=extras)
        assert made.facts.num_trials in (8, 16, 24, 32, 40)
        counted = plain_bits(paths)
        first = Trials(*(rows[: made.facts.num_trials] for rows in counted))
        assert_tables_are_the_oracles(paths, first, ALL_PAIRS)
        facts = read_facts(paths.memorization, paths.root)
        assert facts.digest == TrialStore.open(paths.store).digest(list(range((facts.num_trials or 0) // 8)))


def test_a_run_elsewhere_is_read_as_well(tmp_path: Path) -> None:
    paths = random_run(tmp_path / "a folder with spaces" / "run")
    moved = run_paths(shutil.move(paths.root, tmp_path / "moved"))
    write_estimates(moved, selection=ALL_PAIRS)
    assert_tables_are_the_oracles(moved, plain_bits(moved), ALL_PAIRS)
