from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feldman import job
from feldman.cli.estimate_command import EstimateOptions, estimate_run
from feldman.cli.store_commands import verify_run
from feldman.errors import CorruptStoreError, FeldmanError, RunDirectoryError
from feldman.experiment_files import load_experiment
from feldman.trials.events import read_events
from feldman.trials.integrity import find_damage
from feldman.trials.layout import BIT_ARRAYS, BLOCK_ARRAYS
from feldman.trials.store import TrialStore
from tests.conftest import Cli, small_arrays
from tests.runs import TABLES, assert_same_run, calls_of, finish, run_files, write_experiment

NUM_TRIALS = 36  # five blocks of 8, the last one short
BLOCK, DONOR, LAST = 1, 2, 4
MEASURED = "train_seconds"  # there is nothing to hold it against


def _chunk(run: Path, name: str, block: int) -> Path:
    tail = f"{block}/0" if name in BIT_ARRAYS else f"{block}"
    return run / "trials.zarr" / name / "c" / tail


def flip(run: Path, name: str, block: int) -> None:
    chunk = _chunk(run, name, block)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 16
    chunk.write_bytes(content)


def cut(run: Path, name: str, block: int) -> None:
    chunk = _chunk(run, name, block)
    chunk.write_bytes(chunk.read_bytes()[:-3])


def empty(run: Path, name: str, block: int) -> None:
    _chunk(run, name, block).write_bytes(b"")


def delete(run: Path, name: str, block: int) -> None:
    _chunk(run, name, block).unlink()


def swap(run: Path, name: str, block: int) -> None:
    """Put another block's chunk there: its checksum is right."""
    donor, chunk = _chunk(run, name, DONOR), _chunk(run, name, block)
    assert donor.read_bytes() != chunk.read_bytes()
    shutil.copyfile(donor, chunk)


def swap_whole_block(run: Path, name: str, block: int) -> None:
    """Put all of another block there, whose arrays agree with each other: only the plan tells."""
    for array in BLOCK_ARRAYS:
        shutil.copyfile(_chunk(run, array, DONOR), _chunk(run, array, block))


Harm = Callable[[Path, str, int], None]
HARMS = [flip, cut, empty, delete, swap]
CASES = [(name, harm) for name in BLOCK_ARRAYS for harm in HARMS if (name, harm) != (MEASURED, swap)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def reference(home: Path) -> Path:
    return finish(write_experiment(home, num_trials=NUM_TRIALS), home / "reference")


@pytest.fixture
def run(reference: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reference, tmp_path / "run")


def _damaged(run: Path) -> set[tuple[int | None, str]]:
    return {(found.block, found.array) for found in find_damage(TrialStore.open(run / "trials.zarr"))}


def _mended(run: Path, reference: Path, blocks: list[int]) -> None:
    """Resume; hold that just these blocks were trained, and that nothing tells the run from one that was never damaged."""
    num_events, num_calls = len(read_events(run / "events.jsonl")), calls_of(reference.parent / "calls.txt")
    job.resume(run)
    new = read_events(run / "events.jsonl")[num_events:]
    assert sorted(event["block"] for event in new if event["event"] == "block_committed") == blocks
    assert calls_of(reference.parent / "calls.txt") == num_calls + len(blocks)
    assert _damaged(run) == set()
    assert_same_run(run, reference)


@pytest.mark.parametrize(("name", "harm"), CASES)
def test_damage_is_found_and_its_block_alone_is_trained_again(
    run: Path, reference: Path, name: str, harm: Harm, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(run, name, BLOCK)
    found = _damaged(run)
    assert {block for block, _ in found} == {BLOCK}
    # A mask that is not its own has other accuracies too, and the other way round.
    assert name in {array for _, array in found} or harm is swap
    with pytest.raises(
        CorruptStoreError, match=rf"trials.zarr is damaged \(1 block: {BLOCK}; first: .*feldman resume"
    ) as caught:
        verify_run(str(run), False)
    assert caught.value.exit_code == 1
    assert f"block {BLOCK}: " in capsys.readouterr().out
    _mended(run, reference, [BLOCK])


@pytest.mark.parametrize("name", BIT_ARRAYS)
@pytest.mark.parametrize("harm", [*HARMS, swap_whole_block])
def test_no_estimate_is_made_from_damaged_bits(run: Path, name: str, harm: Harm) -> None:
    harm(run, name, BLOCK)
    before = run_files(run)
    with pytest.raises(CorruptStoreError, match=rf"is damaged \(1 block: {BLOCK}; .*feldman resume") as caught:
        estimate_run(str(run), EstimateOptions(min_influence=0.1, min_memorization=0.1), False)
    assert caught.value.exit_code == 1
    assert run_files(run) == before
    assert not list(run.glob(".*.partial"))


@pytest.mark.parametrize("harm", [flip, cut, delete])
@pytest.mark.parametrize("name", ["subset_mask", "test_accuracy"])
def test_a_short_last_block_is_mended_like_the_others(run: Path, reference: Path, name: str, harm: Harm) -> None:
    harm(run, name, LAST)
    assert _damaged(run) == {(LAST, name)}
    _mended(run, reference, [LAST])


def test_a_whole_block_in_the_place_of_another_is_found_by_the_plan(run: Path, reference: Path) -> None:
    swap_whole_block(run, "", BLOCK)
    assert _damaged(run) == {(BLOCK, "subset_mask"), (BLOCK, "trial_seed")}
    _mended(run, reference, [BLOCK])


def test_damage_in_many_blocks_is_mended_at_once(run: Path, reference: Path) -> None:
    flip(run, "test_correct", 0)
    delete(run, "trial_seed", 2)
    cut(run, "subset_mask", LAST)
    assert {block for block, _ in _damaged(run)} == {0, 2, LAST}
    _mended(run, reference, [0, 2, LAST])


def test_damage_met_while_growing_is_mended_too(run: Path, reference: Path, home: Path) -> None:
    flip(run, "train_correct", BLOCK)
    job.resume(run, num_trials=50)
    straight = home / "fifty"
    job.run(load_experiment(home / "experiment.toml", ["subsets.num_trials=50"]), straight)
    assert_same_run(run, straight)


def test_a_marker_that_is_gone_makes_its_block_pending(run: Path, reference: Path) -> None:
    delete(run, "committed", BLOCK)
    assert TrialStore.open(run / "trials.zarr").committed_blocks() == [0, 2, 3, 4]
    _mended(run, reference, [BLOCK])


@pytest.mark.parametrize("harm", [flip, cut, empty])
def test_a_marker_that_cannot_be_read_is_found_and_never_counted(run: Path, reference: Path, harm: Harm) -> None:
    harm(run, "committed", BLOCK)
    assert TrialStore.open(run / "trials.zarr").committed_blocks() == [0, 2, 3, 4]
    assert _damaged(run) == {(BLOCK, "committed")}
    with pytest.raises(CorruptStoreError):
        verify_run(str(run), True)
    _mended(run, reference, [BLOCK])


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_flipped_bit_anywhere_is_found_where_it_is(run: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(BLOCK_ARRAYS))
    block = data.draw(st.integers(0, LAST))
    chunk = _chunk(run, name, block)
    content = chunk.read_bytes()
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    harmed = bytearray(content)
    harmed[place] ^= 1 << bit
    chunk.write_bytes(harmed)
    try:
        assert _damaged(run) == {(block, name)}
    finally:
        chunk.write_bytes(content)


@given(name=st.sampled_from(BLOCK_ARRAYS), block=st.integers(0, LAST), share=st.floats(0, 1, exclude_max=True))
@example(name="trial_seed", block=0, share=0.0)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_chunk_cut_anywhere_is_found_where_it_is(run: Path, name: str, block: int, share: float) -> None:
    chunk = _chunk(run, name, block)
    content = chunk.read_bytes()
    chunk.write_bytes(content[: int(share * len(content))])
    try:
        assert _damaged(run) == {(block, name)}
    finally:
        chunk.write_bytes(content)


def test_a_disk_that_cannot_be_read_counts_as_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def failing(self: Path) -> bytes:
        if self.as_posix().endswith("train_correct/c/3/0"):
            raise OSError(errno.EIO, "Input/output error")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert _damaged(run) == {(3, "train_correct")}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("harm", [flip, cut, delete])
def test_no_estimate_is_made_with_damaged_labels(run: Path, reference: Path, part: str, harm: Harm) -> None:
    harm(run, f"{part}_label", 0)
    before = run_files(run)
    with pytest.raises(CorruptStoreError, match=f"{part}_label"):
        estimate_run(str(run), EstimateOptions(min_influence=0.1, min_memorization=0.1), False)
    assert run_files(run) == before
    _mended(run, reference, [])


@pytest.mark.parametrize("name", [*BLOCK_ARRAYS, "committed", "train_label"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"null", b'{"zarr_format": 3}', b"\xff\xfe"])
def test_an_array_whose_metadata_is_damaged_is_refused_in_one_message(
    run: Path, name: str, content: bytes | None
) -> None:
    metadata = run / "trials.zarr" / name / "zarr.json"
    if content is None:
        metadata.unlink()
    else:
        metadata.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"trials\.zarr is damaged"):
        TrialStore.open(run / "trials.zarr")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("content", [None, b"", b"PAR1 nothing PAR1"])
def test_a_table_that_is_gone_or_damaged_is_made_again(
    run: Path, reference: Path, table: str, content: bytes | None
) -> None:
    if content is None:
        (run / table).unlink()
    else:
        (run / table).write_bytes(content)
    _mended(run, reference, [])


def test_resuming_an_undamaged_run_changes_nothing(run: Path, reference: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.suffix != ".jsonl"}
    del times[run / ".writer.lock"]
    _mended(run, reference, [])
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_the_commands_exit_with_1_on_damage_and_mend_it(run: Path, reference: Path, cli: Cli) -> None:
    flip(run, "test_correct", BLOCK)
    verified = cli("verify", str(run))
    assert verified.returncode == 1
    assert f"block {BLOCK}: " in verified.stdout
    assert verified.stderr.splitlines()[-1].endswith(
        f"`feldman resume {run}` mends it, and trains damaged blocks again"
    )
    estimated = cli("estimate", str(run))
    assert estimated.returncode == 1
    assert "is damaged (1 block" in estimated.stderr
    assert "Traceback" not in verified.stderr + estimated.stderr
    assert cli("resume", str(run)).returncode == 0
    assert cli("verify", str(run)).returncode == 0
    assert_same_run(run, reference)


def test_another_data_set_in_the_place_of_the_old_is_not_taken_for_damage(
    run: Path, home: Path, tmp_path: Path
) -> None:
    arrays = small_arrays(seed=1)
    other = tmp_path / "data.npz"
    np.savez(other, allow_pickle=False, **arrays)
    before = run_files(run)
    experiment = load_experiment(home / "experiment.toml", [f"dataset.path={other}"])
    with pytest.raises(FeldmanError, match="content of the data set"):
        job.run(experiment, run)
    assert run_files(run) == before
