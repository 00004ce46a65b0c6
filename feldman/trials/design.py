"""Subsets that were designed, not drawn: what remains of a training set without some examples, and as many at random."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8
from numpy.typing import NDArray

from feldman.errors import CorruptStoreError, ExperimentError
from feldman.experiment import SubsetsSection
from feldman.trials.plan import Plan, RandomPlan, drawn_seeds, random_words

__all__ = ["DRAWS", "Arm", "Design", "DesignedPlan", "Draw", "Level", "Removed", "made_plan"]

_SUBSET_STREAM = 2
_SEED_STREAM = 3
"""Streams of Philox that no random plan draws from."""

Removed = Literal["nothing", "memorized", "influential", "uninfluential"]
"""Which of the examples whose memorization reaches a threshold: all, those with a pair of high influence, or those without."""

Draw = Literal["removal", "random", "class"]
DRAWS: tuple[Draw, ...] = get_args(Draw)
"""A trial learns from what the removal leaves, from as many random examples, or from as many of each class."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """What was removed from the training set.

    Attributes
    ----------
    threshold
        Of memorization, inclusive; None where nothing is removed.
    removed
        Which of the examples that reach it.
    """

    threshold: float | None
    removed: Removed


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One kind of subset: a level, and whether its trials learn from what remains or from as many others."""

    level: int
    draw: Draw


@dataclass(frozen=True, kw_only=True)
class Design:
    """The arms of a study, each of which is repeated.

    A trial is one repeat of one arm. Trials lie in runs of ``repeats_together`` repeats of one arm, so that all trials of a block
    learn from equally many examples, and arms take turns: the first ``len(arms) x repeats_together`` trials hold every arm.

    Attributes
    ----------
    levels
        What is removed.
    arms
        In the order in which they take turns.
    packed_kept
        uint8 [level, train / 8]: which training examples each level leaves, eight a byte.
    num_train
        Number of training examples.
    repeats_together
        Repeats of an arm that lie side by side; a multiple of the blocks' size.

    Raises
    ------
    ExperimentError
        If a level leaves nothing, or an arm has no level.
    """

    levels: tuple[Level, ...]
    arms: tuple[Arm, ...]
    packed_kept: UInt8[np.ndarray, "level packed"]
    num_train: int
    repeats_together: int

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.packed_kept.shape != (len(self.levels), -(-self.num_train // 8)):
            raise ExperimentError(f"a design has a row of bits a level; found {self.packed_kept.shape}")
        if not self.arms or any(not 0 <= arm.level < len(self.levels) for arm in self.arms):
            raise ExperimentError("a design has arms, and each has one of its levels")
        if self.repeats_together < 1:
            raise ExperimentError(f"repeats lie together by 1 or more; found {self.repeats_together}")
        for number, level in enumerate(self.levels):
            if not self.kept(number).any():
                raise ExperimentError(
                    f"removing every example with memorization >= {level.threshold} leaves no training example; "
                    "take a higher threshold"
                )

    @classmethod
    def of(
        cls,
        levels: Sequence[Level],
        arms: Sequence[Arm],
        kept: Bool[np.ndarray, "level train"],
        repeats_together: int,
    ) -> Design:
        """Make a design from unpacked bits."""
        return cls(
            levels=tuple(levels),
            arms=tuple(arms),
            packed_kept=np.packbits(kept, axis=1),
            num_train=kept.shape[1],
            repeats_together=repeats_together,
        )

    def kept(self, level: int) -> Bool[np.ndarray, " train"]:
        """Return which training examples a level leaves."""
        return np.unpackbits(self.packed_kept[level], count=self.num_train).view(bool)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides which trial learns from what, but for seed and labels."""
        told = json.dumps([self.attributes(), self.num_train], sort_keys=True)
        return hashlib.sha256(told.encode() + self.packed_kept.tobytes()).hexdigest()

    def arm_and_repeat(self, trial: int) -> tuple[int, int]:
        """Return which arm a trial belongs to, and which of its repeats it is."""
        turn, place = divmod(trial, self.repeats_together)
        round_, arm = divmod(turn, len(self.arms))
        return arm, round_ * self.repeats_together + place

    def num_trials(self, repeats: int) -> int:
        """Return how many trials hold so many repeats of every arm, rounded up to whole runs of repeats."""
        return len(self.arms) * -(-repeats // self.repeats_together) * self.repeats_together

    def attributes(self) -> dict[str, Any]:
        """Return what a store tells of the design beside the bits; `from_store` undoes it."""
        return {
            "levels": [asdict(level) for level in self.levels],
            "arms": [asdict(arm) for arm in self.arms],
            "repeats_together": self.repeats_together,
        }

    @classmethod
    def from_store(cls, attributes: Any, kept: Bool[np.ndarray, "level train"]) -> Design:
        """Read what a store holds.

        Raises
        ------
        CorruptStoreError
            If it is no design.
        """
        try:
            levels = [Level(threshold=one["threshold"], removed=one["removed"]) for one in attributes["levels"]]
            arms = [Arm(level=one["level"], draw=one["draw"]) for one in attributes["arms"]]
            return cls.of(levels, arms, kept, attributes["repeats_together"])
        except (KeyError, TypeError, ExperimentError) as error:
            raise CorruptStoreError(f"the store's attribute 'design' is none: {error}") from None


@dataclass(frozen=True, kw_only=True)
class DesignedPlan:
    """The plan of a designed study.

    Repeats of one number share their seed in all arms, and their random order of examples: so the examples that are removed at
    random at a high threshold are among those of a lower one, and differences between arms are differences of pairs.

    Attributes
    ----------
    seed
        The experiment's.
    design
        The arms.
    labels
        int64 [train]: for subsets with as many examples of each class.
    """

    seed: int
    design: Design
    labels: Integer[np.ndarray, " train"]

    def masks(self, trials: range) -> Bool[np.ndarray, "trial train"]:
        """Return the subsets of some trials."""
        return np.array([self._mask(*self.design.arm_and_repeat(trial)) for trial in trials])

    def seeds(self, trials: range) -> Int64[np.ndarray, " trial"]:
        """Return the seeds of some trials."""
        repeats = [self.design.arm_and_repeat(trial)[1] for trial in trials]
        return drawn_seeds(self.seed, repeats, _SEED_STREAM)

    def _mask(self, arm: int, repeat: int) -> NDArray[np.bool_]:
        chosen = self.design.arms[arm]
        kept = self.design.kept(chosen.level)
        if chosen.draw == "removal":
            return kept
        words = random_words(self.seed, repeat, _SUBSET_STREAM, self.design.num_train)
        if chosen.draw == "random":
            return _smallest(words, int(kept.sum()))
        mask = np.zeros(len(kept), bool)
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            mask[members] = _smallest(words[members], int(kept[members].sum()))
        return mask


def made_plan(subsets: SubsetsSection, labels: Integer[np.ndarray, " train"], design: Design | None) -> Plan:
    """Return the plan of an experiment on a training set with these labels."""
    if design is None:
        return RandomPlan(seed=subsets.seed, subset_ratio=subsets.subset_ratio, num_train=len(labels))
    return DesignedPlan(seed=subsets.seed, design=design, labels=labels)


def _smallest(words: NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
    """Choose so many examples, those with the smallest words."""
    mask = np.zeros(len(words), bool)
    mask[np.argsort(words)[:count]] = True
    return mask
