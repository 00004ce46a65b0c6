"""The simulation behind SCALING.md agrees with what can be reckoned by hand."""

from __future__ import annotations

from math import ceil, expm1, inf, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaling_tables import markdown, stragglers_table
from simulate import Fleet, Job, Outcome, simulate

from tests.conftest import REPOSITORY

HOURS = 2.0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 8))
def test_without_losses_the_last_block_ends_after_full_rounds(blocks: int, workers: int, per_node: int) -> None:
    fleet = Fleet(num_workers=workers, workers_per_node=per_node)
    outcome = simulate(fleet, Job(num_blocks=blocks, block_hours=HOURS), seed=0)
    assert outcome.hours == pytest.approx(ceil(blocks / workers) * HOURS)
    assert outcome.useful_hours == pytest.approx(blocks * HOURS)
    assert (outcome.lost_hours, outcome.attempts) == (0, blocks)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 120), st.integers(1, 24), st.integers(1, 8), st.floats(0, 0.5), st.floats(0.01, 2), st.floats(0, 0.2),
    st.floats(0, 0.3), st.booleans(), st.sampled_from([0.25, 0.7, inf]), st.integers(0, 2**20),
)  # fmt: skip
def test_whatever_happens_each_block_is_committed_once_and_no_hour_is_counted_twice(
    blocks: int, workers: int, per_node: int, losses: float, replacement: float, spread: float, stragglers: float,
    speculate: bool, checkpoint: float, seed: int,
) -> None:  # fmt: skip
    job = Job(
        num_blocks=blocks, block_hours=1.0, spread=spread, straggler_share=stragglers, straggler_factor=4,
        speculate=speculate, checkpoint_hours=checkpoint,
    )  # fmt: skip
    fleet = Fleet(num_workers=workers, workers_per_node=per_node, losses_per_hour=losses, replacement_hours=replacement)
    outcome = simulate(fleet, job, seed)
    assert outcome.commits == blocks
    assert outcome.attempts >= blocks
    assert outcome.lost_hours >= -1e-9
    assert outcome.idle_hours >= -1e-6
    assert outcome.useful_hours + outcome.lost_hours <= workers * outcome.hours + 1e-6
    if not losses:  # then every hour of every worker is told
        told = outcome.useful_hours + outcome.lost_hours + outcome.idle_hours
        assert told == pytest.approx(workers * outcome.hours)
    if not (spread or stragglers):
        assert outcome.useful_hours == pytest.approx(blocks)
    assert simulate(fleet, job, seed) == outcome


def one_after_the_other(losses: float, replacement: float, checkpoint: float = inf, blocks: int = 3000) -> Outcome:
    """One worker, so that the clock shows the mean time of a block, times their number."""
    fleet = Fleet(num_workers=1, workers_per_node=1, losses_per_hour=losses, replacement_hours=replacement)
    return simulate(fleet, Job(num_blocks=blocks, block_hours=HOURS, checkpoint_hours=checkpoint), seed=1)


@pytest.mark.parametrize("losses", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("replacement", [0.0, 0.5])
def test_a_block_that_starts_again_after_every_loss_takes_as_long_as_reckoned(
    losses: float, replacement: float
) -> None:
    # Of a block of h hours and a rate r, (exp(rh) - 1) losses are expected, and (exp(rh) - 1) / r hours of training.
    blocks = 3000
    outcome = one_after_the_other(losses, replacement, blocks=blocks)
    failures = expm1(losses * HOURS)
    trained = failures / losses
    spread = 5 * sqrt(failures * (failures + 1) / blocks)  # the number of losses of a block is geometric
    assert (outcome.attempts - blocks) / blocks == pytest.approx(failures, abs=spread)
    assert outcome.hours / blocks == pytest.approx(trained + failures * replacement, abs=spread * (HOURS + replacement))
    assert outcome.lost_share == pytest.approx(1 - HOURS / trained, abs=0.05)


@pytest.mark.parametrize("checkpoint", [0.25, 0.5, 1.0])
def test_with_checkpoints_only_the_work_since_the_last_one_is_lost(checkpoint: float) -> None:
    # Each of the h / c pieces is a block of its own.
    losses = 0.4
    outcome = one_after_the_other(losses, 0.0, checkpoint)
    pieces = HOURS / checkpoint
    assert outcome.hours / 3000 == pytest.approx(pieces * expm1(losses * checkpoint) / losses, rel=0.03)


def test_a_driver_that_commits_more_slowly_than_workers_train_decides_how_long_it_takes() -> None:
    job = Job(num_blocks=500, block_hours=0.1, commit_seconds=60)
    outcome = simulate(Fleet(num_workers=100), job, seed=0)
    assert outcome.hours == pytest.approx(0.1 + 500 * 60 / 3600)
    assert outcome.driver_share == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_a_straggler_in_the_last_round_costs_what_it_takes_until_its_copy_ends(seed: int) -> None:
    def hours(speculate: bool) -> float:
        job = Job(num_blocks=60, block_hours=1, straggler_share=0.05, straggler_factor=10, speculate=speculate)
        return simulate(Fleet(num_workers=60), job, seed).hours

    slow, mended = hours(speculate=False), round(hours(speculate=True), 9)
    assert slow in (1.0, 10.0)
    # Handed out again after 1.5 times the median, and then an hour; a copy may be slow, too.
    assert mended in ((1.0,) if slow == 1.0 else (2.5, 10.0))


def test_the_page_has_the_tables_that_make_scaling_writes() -> None:
    page = (REPOSITORY / "cluster" / "SCALING.md").read_text()
    assert markdown(stragglers_table(seed=0)) in page  # one of four: all take half a minute
