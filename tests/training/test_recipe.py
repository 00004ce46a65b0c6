"""The learning rate, step by step, and the batches of an epoch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman.experiment import TrainingSection
from feldman.learners.recipe import batches_of, learning_rate_at


def rates(num_steps: int, **recipe: Any) -> list[float]:
    training = TrainingSection(learning_rate=1.0, **recipe)
    return [learning_rate_at(training, step, num_steps) for step in range(num_steps)]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({}, [1.0] * 8),
        ({"schedule": "linear"}, [1 - step / 8 for step in range(8)]),
        ({"schedule": "cosine"}, [1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]),
        ({"warmup": 0.5}, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ({"schedule": "linear", "warmup": 0.5}, [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ({"schedule": "step", "milestones": [0.5, 0.75]}, [1.0] * 4 + [0.1] * 2 + [0.01] * 2),
        ({"schedule": "step", "milestones": [0.5], "factor": 0.5, "warmup": 0.25}, [0.5] + [1.0] * 3 + [0.5] * 4),
    ],
    ids=str,
)
def test_the_learning_rate_follows_its_schedule(recipe: dict[str, Any], expected: list[float]) -> None:
    assert rates(8, **recipe) == pytest.approx(expected, abs=1e-4)


def test_the_drops_of_he_et_al_come_after_32000_and_48000_of_64000_steps() -> None:
    training = TrainingSection(learning_rate=0.1, schedule="step", milestones=[0.5, 0.75])
    around = [learning_rate_at(training, step, 64000) for step in (31999, 32000, 47999, 48000)]
    assert around == pytest.approx([0.1, 0.01, 0.01, 0.001])


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True), st.sampled_from(["constant", "linear", "cosine"]))
def test_the_learning_rate_is_never_zero_nor_above_its_peak(num_steps: int, warmup: float, schedule: str) -> None:
    found = rates(num_steps, warmup=warmup, schedule=schedule)
    assert all(0 < rate <= 1 for rate in found)
    assert max(found) == 1


@given(st.integers(1, 200), st.integers(1, 70), st.booleans())
def test_batches_hold_every_example_once_and_one_alone_only_where_it_may(
    num_examples: int, batch_size: int, batch_norm: bool
) -> None:
    batches = batches_of(num_examples, batch_size, batch_norm)
    assert [place for batch in batches for place in range(num_examples)[batch]] == list(range(num_examples))
    sizes = [batch.stop - batch.start for batch in batches]
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + batch_norm
    if batch_norm and batch_size > 1 and num_examples > 1:
        assert min(sizes) > 1
