"""Trials enough? A run that is being trained is looked at, block by block, until its stopping rule is met.

What decides is the blocks in their order, not in that of their arrival: a look is at the first trials of the plan, all of them,
so a run ends at the same trial however it was interrupted and on however many workers.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Integer
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits, pack_trials
from feldman.estimates.influence import select_pairs
from feldman.estimates.intervals import adjusted_stderr
from feldman.estimates.memorization import MemorizationCounts, count_memorization, estimate_memorization
from feldman.estimates.reading import read_bits
from feldman.estimates.selection import DEFAULT_MIN_MEMORIZATION, PairSelection
from feldman.studies.consistency import PairSet, memorization_consistency
from feldman.studies.halves import FEWEST_TRIALS, split_halves
from feldman.trials.events import EventLog
from feldman.trials.integrity import Damage, refuse_damage
from feldman.trials.session import Progress, ProgressCallback
from feldman.trials.stopping import Look, StoppingRecord, StoppingRule
from feldman.trials.store import TrialStore

__all__ = ["StoppingWatch", "halves_agreement", "next_look", "reached_stderr"]

SHARE = 0.95
"""Of the training examples: a few may have an unlucky share of the trials."""

_GROWTH = {"stderr": 1.01, "jaccard": 1.25}
"""A look is at so many times the trials of the last one, at least. For errors that is every block of the first hundred, and
keeps what is recorded short after; agreement takes seconds to measure, and all looks together take five times the last one."""

_NUM_SPLITS = 5


def reached_stderr(counts: MemorizationCounts, num_trials: int) -> float:
    """Return the standard error that 95 in 100 training examples do not exceed, nor 95 in 100 of those that are memorized.

    These, by the paper's threshold, are looked at by themselves because they may be fewer than 5 in 100, and their errors are
    large. NaN if it is undefined.
    """
    num_out, correct_out = num_trials - counts.num_in, counts.correct - counts.correct_in
    errors = adjusted_stderr(counts.correct_in, counts.num_in, correct_out, num_out)
    with np.errstate(divide="ignore", invalid="ignore"):
        memorized = counts.correct_in / counts.num_in - correct_out / num_out >= DEFAULT_MIN_MEMORIZATION
    return float(max(_quantile(errors), _quantile(errors[memorized]) if memorized.any() else 0.0))


def _quantile(errors: NDArray[np.float64]) -> np.float64:
    place = math.ceil(SHARE * len(errors)) - 1
    found: np.float64 = np.partition(errors, place)[place]  # NaN is sorted last
    return found


def halves_agreement(
    bits: TrialBits, labels: tuple[Integer[np.ndarray, " train"], Integer[np.ndarray, " test"]]
) -> float:
    """Return how far random halves of the trials agree: the smaller of two Jaccard similarities.

    That of what is memorized and that of influential pairs, by the paper's thresholds, each the mean of five splits. One that is
    undefined, because nothing is selected, is not looked at; NaN if both are.

    Raises
    ------
    QueryError
        If there are fewer than 20 trials.
    """
    selection = PairSelection()
    found: dict[str, list[float]] = {"memorization": [], "influence": []}
    for repeat in range(_NUM_SPLITS):
        halves = split_halves(bits, bits.num_trials // 2, seed=0, repeat=repeat)
        values = [estimate_memorization(half).memorization for half in halves]
        found["memorization"].append(memorization_consistency(values[0], values[1], selection.min_memorization).jaccard)
        keys = []
        for half, memorization in zip(halves, values, strict=True):
            pairs = select_pairs(half, memorization, selection, labels)
            keys.append(PairSet(train=pairs.train_index, test=pairs.target_index).keys(len(labels[1])))
        either = len(np.union1d(*keys))
        found["influence"].append((len(keys[0]) + len(keys[1]) - either) / either if either else float("nan"))
    means = [float(np.mean(defined)) for each in found.values() if (defined := [v for v in each if not math.isnan(v)])]
    return min(means, default=float("nan"))


def next_look(rule: StoppingRule, last: int, from_trial: int = 0) -> int:
    """Return from how many trials on a rule looks again, after a look at ``last`` (0: it has not looked)."""
    growth = _GROWTH["stderr" if rule.stderr is not None else "jaccard"]
    first = 1 if rule.stderr is not None else 4 * FEWEST_TRIALS
    return max(first, from_trial, math.ceil(last * growth))


class StoppingWatch:
    """Looks at a store while it is trained, and ends its plan where the rule is met.

    Parameters
    ----------
    store
        The store, held for writing; it has a rule.
    record
        The rule, and what it has looked at before.
    events, tell
        Where to write and tell what was found.
    """

    def __init__(self, store: TrialStore, record: StoppingRecord, events: EventLog, tell: ProgressCallback) -> None:
        self._store, self._record, self._events, self._tell = store, record, events, tell
        self._committed: set[int] = set()
        self._num_blocks, self._num_trials = 0, 0
        nothing = np.zeros(store.num_train, np.int64)
        self._counts = MemorizationCounts(num_in=nothing, correct_in=nothing, correct=nothing)

    @property
    def enough(self) -> bool:
        """Whether the rule is met."""
        return self._record.outcome == "met"

    def start(self) -> None:
        """Look at what is there before anything is trained."""
        self._committed.update(self._store.committed_blocks())
        self._go_on()

    def committed(self, block: int) -> None:
        """Take note of a block; look if it, and those that waited for it, are so many more in their order."""
        self._committed.add(block)
        self._go_on()

    def _go_on(self) -> None:
        while not self.enough and self._num_blocks in self._committed:
            block = self._num_blocks
            if self._record.rule.stderr is not None:
                self._add(block)
            self._num_blocks += 1
            self._num_trials += len(self._store.experiment.subsets.block_trials(block))
            last, at_end = self._record.looked_at, self._num_trials == self._record.limit
            due = self._num_trials >= next_look(self._record.rule, last, self._record.from_trial)
            if (due or at_end) and self._num_trials > last:  # looks of before an interruption are not repeated
                self._look(at_end)

    def _add(self, block: int) -> None:
        counts = count_memorization(_block_bits(self._store, block))
        self._counts = MemorizationCounts(
            num_in=self._counts.num_in + counts.num_in,
            correct_in=self._counts.correct_in + counts.correct_in,
            correct=self._counts.correct + counts.correct,
        )

    def _look(self, at_end: bool) -> None:
        value = self._measured()
        met = self._record.rule.is_met_by(value)
        look = Look(num_trials=self._num_trials, value=None if math.isnan(value) else value)
        self._record = self._record.with_look(look, "met" if met else "limit" if at_end else None)
        self._store.record_stopping(self._record)
        self._events.write("looked", {"num_trials": look.num_trials, "value": look.value})
        if self._record.outcome is not None:
            self._events.write("stopping_decided", {"outcome": self._record.outcome, "num_trials": look.num_trials})
            self._tell(Progress(stage="training", note=self._record.in_words()))

    def _measured(self) -> float:
        if self._record.rule.stderr is not None:
            return reached_stderr(self._counts, self._num_trials)
        if self._num_trials < 2 * FEWEST_TRIALS:
            return float("nan")
        bits = read_bits(self._store, blocks=list(range(self._num_blocks)))
        return halves_agreement(bits, (self._store.labels("train"), self._store.labels("test")))


def _block_bits(store: TrialStore, block: int) -> TrialBits:
    """Read the bits of a block that memorization follows from, as the store has them: old trials of one that grew were kept."""
    try:
        mask, correct = (store.read(name, block) for name in ("subset_mask", "train_correct"))
    except ValueError as error:
        refuse_damage(store, [Damage(block=block, array="subset_mask", problem=str(error))])
        raise
    nothing: NDArray[np.bool_] = np.zeros((len(mask), 0), bool)
    return pack_trials(mask, correct, nothing)
