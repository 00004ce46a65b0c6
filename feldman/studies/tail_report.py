"""What is in the tail of a run: counts of memorized examples, what they carry, and the pairs that rest on them, as one report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from feldman.estimates.bits import TrialBits
from feldman.estimates.influence import select_pairs
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.selection import PairSelection
from feldman.estimates.significance import QValues, num_pairs_tested
from feldman.results.tables import TableFacts, influence_table
from feldman.studies.carried import CarriedAccuracy, carried_accuracy
from feldman.studies.halves import FEWEST_TRIALS
from feldman.studies.marginal_utility import MarginalUtility, marginal_utility
from feldman.studies.tail import CountInterval, MemorizationTail, TailPlan, measure_tail, tail_of_estimates

__all__ = ["TAIL_SCHEMA", "TailReport", "tail_of_tables", "tail_of_trials", "tail_table"]

TAIL_SCHEMA = pa.schema(
    [
        ("measure", pa.string()),
        ("label", pa.int64()),
        *((name, pa.float64()) for name in ("at", "value", "stderr", "ci_low", "ci_high")),
    ]
)

Row = tuple[str, int | None, float | None, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class TailReport:
    """What is in the tail.

    Attributes
    ----------
    memorization
        None where the memorization of the training examples is not known, but of those that stand in pairs.
    carried
        One a threshold; empty without trials.
    pairs
        Of the high-influence pairs.
    selection
        What high influence is.
    not_known
        What this run cannot tell, and why, for people.
    """

    memorization: MemorizationTail | None
    carried: tuple[CarriedAccuracy, ...]
    pairs: MarginalUtility
    selection: PairSelection
    not_known: tuple[str, ...]


def tail_of_trials(
    bits: TrialBits,
    labels: tuple[NDArray[Any], NDArray[Any]],
    plan: TailPlan,
    selection: PairSelection,
    on_examples: Callable[[str, int], None] = lambda stage, count: None,
) -> TailReport:
    """Report on a run's trials.

    Parameters
    ----------
    bits, labels
        Of the run; labels of training and test examples.
    plan
        What to count. The selection's threshold of memorization is counted, too.
    selection
        What high influence is: thresholds; one class or all.
    on_examples
        Told, for each of two stages, how many more training examples have been looked at.
    """
    plan = _with_threshold(plan, selection)
    tail = measure_tail(bits, labels[0], plan, lambda count: on_examples("counting in halves", count))
    carried = carried_accuracy(bits, plan.thresholds, lambda count: on_examples("counting in subsets", count))
    memorization = estimate_memorization(bits).memorization
    memorized = memorization >= selection.min_memorization
    found = select_pairs(bits, memorization, selection, labels)
    q_value = QValues.of(found.p_value, num_pairs_tested(selection, labels[0][memorized], labels[1]))(found.p_value)
    pairs = influence_table(found, memorization, *labels, q_value=q_value)
    few = bits.num_trials < 2 * FEWEST_TRIALS
    return TailReport(
        memorization=tail,
        carried=tuple(carried),
        pairs=marginal_utility(
            pairs, num_memorized=int(memorized.sum()), num_test=len(labels[1]), one_class=selection.same_class
        ),
        selection=selection,
        not_known=(
            f"errors, and the accuracy that memorized examples carry: {bits.num_trials} trials, and "
            f"{2 * FEWEST_TRIALS} are the fewest",
        )
        if few
        else (),
    )


def tail_of_tables(
    memorized: pa.Table, pairs: pa.Table, selection: PairSelection, facts: TableFacts, plan: TailPlan
) -> TailReport:
    """Report on tables that have no trials, as `feldman import` makes them: what they hold, and what they leave open.

    Parameters
    ----------
    memorized
        As ``memorization.parquet``.
    pairs, selection
        As ``influence.parquet``, and how they are selected.
    facts
        What they were made from.
    plan
        What to count.
    """
    complete = facts.num_train is not None and memorized.num_rows == facts.num_train
    values = memorized["memorization"].to_numpy()
    labels = memorized["label"].to_numpy() if memorized["label"].null_count == 0 else None
    utility = marginal_utility(
        pairs,
        num_memorized=int((values >= selection.min_memorization).sum()) if complete else None,
        num_test=facts.num_test,
        one_class=selection.same_class,
    )
    return TailReport(
        memorization=tail_of_estimates(values, labels, _with_threshold(plan, selection)) if complete else None,
        carried=(),
        pairs=utility,
        selection=selection,
        not_known=_not_known(facts, utility, complete=complete, has_labels=labels is not None),
    )


def _not_known(facts: TableFacts, utility: MarginalUtility, *, complete: bool, has_labels: bool) -> tuple[str, ...]:
    source = "a run without its trials" if facts.source == TableFacts().source else facts.source
    is_open = {
        "errors of the counts, how many examples are truly memorized, and the accuracy that they carry: "
        f"{source} has no trials": True,
        "the histogram, how many examples are memorized, and how many of them have no pair: "
        f"{source} tells the memorization of those in its pairs alone": not complete,
        f"which pairs are more than chance: {source} has no q-values": "q <= 0.05"
        not in {g.which for g in utility.groups},
        f"which pairs are of one class: {source} has no labels; import it with --labels": not has_labels,
        f"the share of the test examples that is decided: {source} does not say how many there are; import it with "
        "--labels": facts.num_test is None,
        f"pairs of two classes: {source} has those of one class": facts.selection.same_class,
        f"pairs that are in no top of an example: {source} has the tops": facts.selection.has_tops,
    }
    return tuple(text for text, holds in is_open.items() if holds)


def tail_table(report: TailReport) -> pa.Table:
    """Return a report as rows: a number a row, with its error where there is one.

    Returns
    -------
    pyarrow.Table
        `TAIL_SCHEMA`. ``measure`` is, of all examples (``label`` null) and of each class: ``examples``, ``undefined``,
        ``negative``; ``histogram``, where ``at`` is the lower edge of a bin; ``memorized``, where it is a threshold: how many
        examples reach it. Of all examples alone, at thresholds: ``truly_memorized``, ``carried_accuracy``,
        ``accuracy_below_random`` and ``influence_sum``; at numbers of pairs: ``train_examples_in_pairs`` and
        ``test_examples_in_pairs``, how many examples stand in just so many.
    """
    rows = list(_memorization_rows(report.memorization)) if report.memorization is not None else []
    for row in report.carried:
        at, nan = row.min_memorization, float("nan")
        rows += [
            ("carried_accuracy", None, at, row.carried, row.stderr, row.ci_low, row.ci_high),
            ("accuracy_below_random", None, at, row.below_random, row.below_random_stderr, nan, nan),
            _plain("influence_sum", None, at, row.influence_sum),
        ]
    for part, counts in (
        ("train", report.pairs.train_examples_by_pairs),
        ("test", report.pairs.test_examples_by_pairs),
    ):
        rows += [_plain(f"{part}_examples_in_pairs", None, num_pairs, count) for num_pairs, count in counts]
    columns = zip(*rows, strict=True) if rows else [[] for _ in TAIL_SCHEMA]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, TAIL_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=TAIL_SCHEMA)


def _with_threshold(plan: TailPlan, selection: PairSelection) -> TailPlan:
    return replace(plan, thresholds=tuple(sorted({*plan.thresholds, selection.min_memorization})))


def _memorization_rows(tail: MemorizationTail) -> Iterator[Row]:
    for group, label in enumerate([None, *tail.labels.tolist()]):
        for measure, counts in (
            ("examples", tail.num_examples),
            ("undefined", tail.num_undefined),
            ("negative", tail.num_negative),
        ):
            yield _plain(measure, label, None, counts[group])
        yield from _count_rows("histogram", label, tail.bin_edges[:-1], tail.histogram, group)
        yield from _count_rows("memorized", label, tail.thresholds, tail.reaching, group)
    true = tail.true
    for place, at in enumerate(tail.thresholds.tolist()):
        values = (float(part[place]) for part in (true.count, true.stderr, true.ci_low, true.ci_high))
        yield ("truly_memorized", None, at, *values)


def _count_rows(
    measure: str, label: int | None, at: Iterable[float], counts: CountInterval, group: int
) -> Iterator[Row]:
    columns = (part[group] for part in (counts.count, counts.stderr, counts.ci_low, counts.ci_high))
    for where, value, stderr, low, high in zip(at, *columns, strict=True):
        yield (measure, label, float(where), float(value), float(stderr), float(low), float(high))


def _plain(measure: str, label: int | None, at: float | None, value: Any) -> Row:
    nan = float("nan")
    return (measure, label, at, float(value), nan, nan, nan)
