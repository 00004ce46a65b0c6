"""Random parts of a run's trials, disjoint: two runs of fewer trials from one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from feldman.errors import QueryError
from feldman.estimates.bits import TrialBits, take_trials

__all__ = ["FEWEST_TRIALS", "Halves", "generator", "split_halves"]

FEWEST_TRIALS = 10
"""In a half: with fewer some example is likely to be in all of its trials, and undefined."""


class Halves(NamedTuple):
    """Two parts of a run, as if each were a run of its own."""

    first: TrialBits
    second: TrialBits


def split_halves(bits: TrialBits, num_each: int, *, seed: int, repeat: int = 0) -> Halves:
    """Draw two disjoint sets of trials. The smaller parts of one repeat are parts of its larger ones.

    Parameters
    ----------
    bits
        Of all trials.
    num_each
        How many trials each half has.
    seed, repeat
        Which draw.

    Raises
    ------
    QueryError
        If there are not so many trials, or a half would have next to none.
    """
    most = bits.num_trials // 2
    if not FEWEST_TRIALS <= num_each <= most:
        raise QueryError(
            f"a half of {bits.num_trials:,} trials has {FEWEST_TRIALS} to {most:,} of them; found {num_each:,}"
            + (": let the run have more trials first" if most < FEWEST_TRIALS else "")
        )
    order = generator(seed, repeat).permutation(bits.num_trials).astype(np.int64)
    parts: list[Int64[np.ndarray, " trial"]] = [np.sort(order[:num_each]), np.sort(order[most : most + num_each])]
    return Halves(*(take_trials(bits, part) for part in parts))


def generator(seed: int, repeat: int) -> np.random.Generator:
    """Return the random numbers of one repeat of a study: a function of both numbers."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, repeat], np.uint64)))
