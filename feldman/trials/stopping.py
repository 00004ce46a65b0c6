"""A run that ends by itself: its stopping rule, what the rule has looked at, and how both are kept in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from feldman.errors import CorruptStoreError, InputError
from feldman.experiment import Experiment

__all__ = ["Look", "StoppingRecord", "StoppingRule", "Watch", "settled_stopping"]


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """When a run has trials enough; one of the two.

    Attributes
    ----------
    stderr
        Once the memorization of 95 in 100 training examples, and of 95 in 100 of those that are memorized, has a standard
        error of at most this.
    jaccard
        Once random halves of the trials agree so far on what is memorized, and on which pairs are influential.

    Raises
    ------
    InputError
        If not one of them is given, or it is none that a run could reach.
    """

    stderr: float | None = None
    jaccard: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if (self.stderr is None) == (self.jaccard is None):
            raise InputError("a run stops by one rule: give --until-stderr or --until-jaccard")
        if not 0 < self.target < 1:
            what = "a standard error" if self.jaccard is None else "a Jaccard similarity"
            raise InputError(f"{what} to stop at lies between 0 and 1; found {self.target:g}")

    @property
    def target(self) -> float:
        """The number that is to be reached."""
        return self.stderr if self.stderr is not None else self.jaccard or 0.0

    def is_met_by(self, value: float) -> bool:
        """Tell whether a measured value is enough; NaN never is."""
        return value <= self.target if self.stderr is not None else value >= self.target

    def in_words(self) -> str:
        """Return the rule for people."""
        if self.stderr is not None:
            return f"standard error of memorization <= {self.stderr:g} for 95% of the examples and of the memorized"
        return f"Jaccard similarity of halves >= {self.jaccard:g}"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a rule found in the first ``num_trials`` trials; None is undefined."""

    num_trials: int
    value: float | None


@dataclass(frozen=True, kw_only=True)
class StoppingRecord:
    """A rule, and how far it has come.

    Attributes
    ----------
    rule
        The rule.
    limit
        Trials of the plan: where the run ends if the rule is not met before.
    from_trial
        The rule looks at no fewer trials: those that a run had before it was given this rule are never taken from it.
    looks
        What it looked at, ascending.
    outcome
        ``"met"``, ``"limit"``, or None while the run goes on. If met, the plan ends at the last look.
    """

    rule: StoppingRule
    limit: int
    from_trial: int = 0
    looks: tuple[Look, ...] = ()
    outcome: Literal["met", "limit"] | None = None

    @property
    def looked_at(self) -> int:
        """Trials of the last look; 0 before the first."""
        return self.looks[-1].num_trials if self.looks else 0

    def with_look(self, look: Look, outcome: Literal["met", "limit"] | None) -> StoppingRecord:
        """Return the record after one more look."""
        return replace(self, looks=(*self.looks, look), outcome=outcome)

    def in_words(self) -> str:
        """Return the rule and how it ended, for people."""
        value = self.looks[-1].value if self.looks else None
        last = (
            f"{'undefined' if value is None else format(value, '.3g')} at {self.looked_at:,} trials"
            if self.looks
            else ""
        )
        ends = {
            "met": f"met: {last} of at most {self.limit:,}",
            "limit": f"not met: {last}, the end of the plan",
            None: f"not met yet{': ' if last else ''}{last}; {self.limit:,} at most",
        }
        return f"{self.rule.in_words()}; {ends[self.outcome]}"

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for the store's attributes and ``--json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> StoppingRecord:
        """Undo `as_json`.

        Raises
        ------
        CorruptStoreError
            If it is no such object.
        """
        try:
            return cls(
                **{
                    **document,
                    "rule": StoppingRule(**document["rule"]),
                    "looks": tuple(Look(**look) for look in document["looks"]),
                }
            )
        except (KeyError, TypeError, InputError) as error:
            raise CorruptStoreError(
                f"the attribute 'stopping' of the store cannot be read ({error}); take it out, and the run ends with its plan"
            ) from None


@runtime_checkable
class Watch(Protocol):
    """Looks at a run while it is trained."""

    def committed(self, block: int) -> None:
        """Take note of a block that is in the store now, and look if it is time to."""
        ...

    @property
    def enough(self) -> bool:
        """Whether no more trials are wanted."""
        ...


def settled_stopping(
    kept: Experiment | None,
    record: StoppingRecord | None,
    given: Experiment,
    rule: StoppingRule | None,
    *,
    num_before: int = 0,
    grows: bool = False,
) -> tuple[Experiment, StoppingRecord | None]:
    """Settle how long a run shall be, and by which rule it may end before.

    Without a rule the run keeps the one it has; if that is met, the run stays as long as it is, until more trials are asked for
    than the rule had as its limit, or more than it has by name: then these are trained, and the rule is forgotten. Another rule
    looks from where the run is now.

    Parameters
    ----------
    kept, record
        The experiment and the rule of the run's store; None without.
    given
        The same experiment, as it is asked for now.
    rule
        A rule that is asked for now.
    num_before
        Where the committed trials end: a rule that is new here looks at no fewer.
    grows
        Whether the number of trials was asked for by name, to let the run grow.

    Returns
    -------
    experiment, record
        With the number of trials to plan for.

    Raises
    ------
    InputError
        If a rule is given to a run that trains a range of its plan.
    """
    has = kept.subsets.num_trials if kept is not None else 0
    asked = given.subsets.num_trials
    if rule is not None and (given.execution.trials or (kept is not None and kept.execution.trials)):
        raise InputError(
            "a stopping rule looks at all trials from the first on, and this run trains a range of them; leave --trials out, or "
            "the rule"
        )
    if record is not None and rule in (None, record.rule):
        if record.outcome != "met":
            limit = max(asked, has, record.limit)
            if rule is None and (asked > (has if grows else record.limit)):
                return given, None
            outcome = record.outcome if limit == record.limit else None
            return _planned(given, limit), replace(record, limit=limit, outcome=outcome)
        if rule is not None or asked <= (has if grows else record.limit):
            return _planned(given, has), record
        return given, None
    if rule is None:
        return given, None
    limit = max(asked, has, record.limit if record else 0)
    return _planned(given, limit), StoppingRecord(rule=rule, limit=limit, from_trial=num_before)


def _planned(experiment: Experiment, num_trials: int) -> Experiment:
    return experiment.replace("subsets", {"num_trials": num_trials})
