"""Bits of any small shape, for property tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, pack_trials

__all__ = ["Trials", "any_trials"]

Bits = NDArray[np.bool_]


class Trials(NamedTuple):
    """Bits as they are in a store: bool [trial, train], [trial, train], [trial, test]."""

    subset_mask: Bits
    train_correct: Bits
    test_correct: Bits

    def packed(self) -> TrialBits:
        return pack_trials(*self)

    @property
    def every_example(self) -> NDArray[np.intp]:
        return np.arange(self.subset_mask.shape[1])


@st.composite
def any_trials(draw: st.DrawFn) -> Trials:
    """Bits of any small shape, words and lanes full or not; examples in every trial, or in none, are likely."""
    num_trials, num_train = draw(st.integers(1, 300)), draw(st.integers(1, 9))
    num_test = draw(st.one_of(st.integers(1, 7), st.sampled_from([63, 64, 65, 127, 128, 129, 300])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random((num_trials, num_train)) < draw(st.floats(0, 1))
    for column in range(num_train):
        fixed = draw(st.sampled_from([None, None, False, True]))
        if fixed is not None:
            mask[:, column] = fixed
    correct = [rng.random((num_trials, size)) < draw(st.floats(0, 1)) for size in (num_train, num_test)]
    return Trials(mask, *correct)
