"""Which pairs an estimate keeps: there are up to 10^11 of them, and few matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from feldman.errors import QueryError

__all__ = [
    "DEFAULT_MIN_INFLUENCE",
    "DEFAULT_MIN_MEMORIZATION",
    "NO_THRESHOLD",
    "PairSelection",
    "Targets",
    "chosen_pairs",
]

DEFAULT_MIN_INFLUENCE = 0.15
DEFAULT_MIN_MEMORIZATION = 0.25
"""The paper's thresholds for high-influence pairs."""

NO_THRESHOLD = -1.0
"""Every defined value is at least this."""

Targets = Literal["test", "train"]


@dataclass(frozen=True, kw_only=True)
class PairSelection:
    """Which pairs are kept: those that pass every threshold and, where a top is asked for, are in one of the tops.

    Attributes
    ----------
    min_influence, min_memorization
        Thresholds, inclusive, -1 .. 1. Undefined (NaN) values never pass.
    top_per_target
        Of the pairs of each target, keep this many with the largest influence; equal ones by the lower training index.
    top_per_train
        Of the pairs of each training example, keep this many; equal ones by the lower target index. With both tops given a pair
        is kept if it is in either.
    same_class
        Only pairs whose two examples have one label.
    targets
        Whose predictions are influenced: the test examples, or the training examples. An example's influence on itself is its
        memorization, and no pair.
    """

    min_influence: float = DEFAULT_MIN_INFLUENCE
    min_memorization: float = DEFAULT_MIN_MEMORIZATION
    top_per_target: int | None = None
    top_per_train: int | None = None
    same_class: bool = False
    targets: Targets = "test"

    def __post_init__(self) -> None:
        """Refuse what selects nothing that anybody could mean."""
        for name in ("min_influence", "min_memorization"):
            value = getattr(self, name)
            if not -1 <= value <= 1:
                raise QueryError(f"{name} is a difference of two rates, -1 .. 1; found {value!r}")
        for name in ("top_per_target", "top_per_train"):
            top = getattr(self, name)
            if top is not None and top < 1:
                raise QueryError(f"{name} is how many pairs to keep, at least 1; found {top!r}")
        if self.targets not in ("test", "train"):
            raise QueryError(f"targets are 'test' or 'train'; found {self.targets!r}")

    @property
    def has_tops(self) -> bool:
        """Whether pairs are ranked, not only compared with thresholds."""
        return self.top_per_target is not None or self.top_per_train is not None

    def as_options(self) -> list[str]:
        """Return the options with which `feldman estimate` makes this selection."""
        options = ["--min-influence", f"{self.min_influence:g}", "--min-memorization", f"{self.min_memorization:g}"]
        if self.top_per_target is not None:
            options += ["--top-per-test", str(self.top_per_target)]
        if self.top_per_train is not None:
            options += ["--top-per-train", str(self.top_per_train)]
        options += ["--same-class"] if self.same_class else []
        return options + (["--targets", "train"] if self.targets == "train" else [])

    def in_words(self) -> str:
        """Say what is selected, for people."""
        thresholds = [
            f"{name} >= {value:g}"
            for name, value in (("influence", self.min_influence), ("memorization", self.min_memorization))
            if value > NO_THRESHOLD
        ]
        target = "test example" if self.targets == "test" else "target"
        tops = [
            f"the top {top} of each {whose}"
            for top, whose in ((self.top_per_target, target), (self.top_per_train, "training example"))
            if top is not None
        ]
        parts = [*thresholds, *([" and ".join(tops)] if tops else []), *(["one class"] if self.same_class else [])]
        return ", ".join(parts) or "all that are defined"


def chosen_pairs(
    *,
    min_influence: float | None = None,
    min_memorization: float | None = None,
    top_per_target: int | None = None,
    top_per_train: int | None = None,
    same_class: bool = False,
    targets: Targets = "test",
) -> PairSelection:
    """Return a selection; a threshold that is left out is the paper's, or none where a top is asked for."""
    has_tops = top_per_target is not None or top_per_train is not None
    return PairSelection(
        min_influence=_threshold(min_influence, DEFAULT_MIN_INFLUENCE, has_tops),
        min_memorization=_threshold(min_memorization, DEFAULT_MIN_MEMORIZATION, has_tops),
        top_per_target=top_per_target,
        top_per_train=top_per_train,
        same_class=same_class,
        targets=targets,
    )


def _threshold(given: float | None, default: float, has_tops: bool) -> float:
    if given is not None:
        return given
    return NO_THRESHOLD if has_tops else default
