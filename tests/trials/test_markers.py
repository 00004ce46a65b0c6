"""Trials counted without Zarr, against the store's own count."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.trials.markers import TrialCount, count_trials
from feldman.trials.store import TrialStore
from tests.conftest import cli_environment, small_dataset, small_experiment


@given(
    num_trials=st.integers(1, 40),
    block_size=st.integers(1, 12),
    markers=st.lists(st.sampled_from(["committed", "pending", "missing", "damaged", "cut"]), min_size=40, max_size=40),
)
@settings(max_examples=25, deadline=None)
def test_trials_are_counted_as_the_store_counts_them(
    tmp_path_factory: pytest.TempPathFactory, num_trials: int, block_size: int, markers: list[str]
) -> None:
    path = tmp_path_factory.mktemp("run") / "trials.zarr"
    experiment = small_experiment(path, num_trials=num_trials, block_size=block_size)
    store = TrialStore.create(path, experiment, small_dataset())
    for block, marker in zip(range(store.num_blocks), markers, strict=False):
        chunk = path / "committed" / "c" / str(block)
        store.array("committed")[block] = int(marker != "pending")
        if marker == "missing":
            chunk.unlink()
        elif marker in ("damaged", "cut"):
            content = chunk.read_bytes()
            chunk.write_bytes(content[:-1] + (b"\0" if marker == "damaged" else b""))
    num_committed = store.num_trials_in(store.committed_blocks())
    assert count_trials(path) == TrialCount(num_trials=num_trials, num_committed=num_committed)


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff", b"[]", b"{}", b'{"attributes": {"experiment": {"subsets": 3}}}']
)
def test_what_is_no_store_has_no_count(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "zarr.json").write_bytes(content)
    assert count_trials(tmp_path) is None


@pytest.mark.parametrize("command", ["memorized", "pairs"])
def test_a_query_imports_neither_zarr_nor_the_kernel_nor_pandas(run_of_16: Path, command: str) -> None:
    script = """
import sys
from feldman.cli.app import main
try:
    main()
except SystemExit as left:
    assert left.code == 0, left.code
heavy = {"zarr", "numba", "pandas", "torch", "ray", "pyarrow.dataset", "feldman.trials.store"} & set(sys.modules)
sys.exit(f"imported for a query: {heavy}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, command, str(run_of_16)],
        env=cli_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def run_of_16(tmp_path: Path, arrays_file: Path) -> Path:
    import feldman

    feldman.run(small_experiment(arrays_file, num_trials=16), tmp_path / "run")
    return tmp_path / "run"
