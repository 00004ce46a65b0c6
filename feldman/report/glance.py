"""What is told of a run at a glance: terms and texts, without any path of the machine it ran on."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from feldman.errors import listed
from feldman.estimates.intervals import largest_stderr
from feldman.estimates.selection import DEFAULT_MIN_MEMORIZATION, NO_THRESHOLD, PairSelection
from feldman.experiment import Experiment
from feldman.learner_sections import CustomLearner, SklearnLearner
from feldman.report.contents import Contents
from feldman.report.document import UNKNOWN, TrainColumns
from feldman.report.selection import PageLimits
from feldman.results.run import RunStatus
from feldman.results.strongest import SIGNIFICANT, PairTotals
from feldman.results.tables import TableFacts

__all__ = ["estimate_facts", "run_facts", "run_notes", "selection_told"]

Facts = list[tuple[str, str]]


def run_facts(facts: TableFacts, status: RunStatus | None, experiment: Experiment | None) -> Facts:
    """Tell of the data set, the learner, the trials and their accuracy, as far as it is known.

    Parameters
    ----------
    facts
        Of the run's tables.
    status, experiment
        Of its trials; None where it holds tables alone.
    """
    sizes = [f"{size:,}" if size is not None else "?" for size in (facts.num_train, facts.num_test)]
    classes = f", {len(facts.class_names):,} classes" if facts.class_names else ""
    named = "" if status is None else f"{status.dataset}: "
    told = [("Data set", f"{named}{sizes[0]} training and {sizes[1]} test examples{classes}")]
    if status is None or experiment is None:
        source = "trials that are no longer there" if facts.num_trials is not None else facts.source
        return [*told, ("Estimates", f"from {source}")]
    if experiment.dataset.random_labels is not None:
        told.append(("Random labels", f"{experiment.dataset.random_labels:,} training examples"))
    if status.imported_from is not None:
        told.append(("Imported from", PurePath(status.imported_from).name))
    else:
        told.append(("Learner", _learner(experiment)))
        if not isinstance(experiment.learner, CustomLearner | SklearnLearner):
            told.append(("Training", _training(experiment)))
    trials = status.num_committed_trials if facts.num_trials is None else facts.num_trials
    size = status.subset_size
    trained = "" if size is None else f", each trained on {size:,} examples ({100 * size / status.num_train:.0f}%)"
    told.append(("Trials", f"{trials:,}{trained}"))
    if status.mean_test_accuracy is not None:
        told.append(("Test accuracy", _accuracy(status)))
    if status.mean_train_accuracy is not None:
        told.append(("Accuracy on what was learned", f"{100 * status.mean_train_accuracy:.2f}%"))
    return told


def estimate_facts(
    selection: PairSelection, memorization: NDArray[np.float64], columns: TrainColumns, totals: PairTotals
) -> Facts:
    """Tell how much is memorized, how many pairs there are, and how sure all of that is.

    Parameters
    ----------
    selection
        Of the table of pairs.
    memorization
        Of all training examples that the table of memorization has.
    columns
        Intervals and counts of the same examples.
    totals
        Of the table of pairs.
    """
    threshold = selection.min_memorization
    threshold = DEFAULT_MIN_MEMORIZATION if threshold <= NO_THRESHOLD else threshold
    memorized = int((memorization >= threshold).sum())
    told = [
        (
            "Memorized",
            f"{memorized:,} of {len(memorization):,} training examples (memorization of {threshold:g} or more)",
        ),
        ("Influential pairs", f"{totals.num_pairs:,} ({selection.in_words().replace('>=', '≥')})"),
    ]
    if totals.num_significant is not None:
        told.append(
            (
                "More than chance",
                f"{totals.num_significant:,} of these pairs (q-value of {SIGNIFICANT:g} or less: at most "
                f"{100 * SIGNIFICANT:.0f} in 100 of them are expected to be chance)",
            )
        )
    widths = (columns.high - columns.low) / 2
    if np.isfinite(widths).any():
        told.append(("Precision of memorization", _precision(float(np.nanmedian(widths)), float(np.nanmax(widths)))))
    if totals.median_half_width is not None and totals.largest_half_width is not None:
        told.append(("Precision of influence", _precision(totals.median_half_width, totals.largest_half_width)))
    num_in, num_out = columns.counts[:2]
    error = float("nan") if (num_in == UNKNOWN).any() else largest_stderr(num_in, num_out)
    if np.isfinite(error):
        told.append(("Largest standard error", f"{error:.3f}, of any estimate"))
    return told


def run_notes(facts: TableFacts, status: RunStatus | None) -> list[str]:
    """Say what a reader must know: that trials are missing, or newer than the estimates."""
    if status is None:
        return []
    notes = []
    if not status.complete:
        first, end = status.trials
        notes.append(f"The run is not finished: {status.num_committed_in_range:,} of {end - first:,} trials are there.")
    newer = status.num_committed_trials - (facts.num_trials or 0)
    if newer > 0:
        notes.append(f"{newer:,} trials are newer than these estimates; `feldman estimate RUN` counts them.")
    return notes


def selection_told(
    contents: Contents, limits: PageLimits, totals: PairTotals, sizes: tuple[int | None, int | None], num_classes: int
) -> tuple[str, ...]:
    """Say in sentences what of a run the page holds.

    Parameters
    ----------
    contents, limits
        What was chosen, and by which limits.
    totals
        Of the table of pairs.
    sizes
        Numbers of training and test examples; None where not known.
    num_classes
        Of the data set.
    """
    train, test = (f" of {size:,}" if size is not None else "" for size in sizes)
    memorized, typical = limits.memorized_per_class(num_classes), limits.typical_per_class(num_classes)
    return (
        f"This page holds {len(contents.train.index):,}{train} training examples, {len(contents.test.index):,}{test} test "
        f"examples and {len(contents.pairs.train):,} of {totals.num_pairs:,} pairs; the histogram counts all training examples.",
        f"These are, of each class, the {memorized} most memorized training examples, but no more than half of it, and "
        f"{typical} typical ones: those that models without them get right most often.",
        f"Pairs are the {limits.top_pairs:,} of largest influence, and the {limits.pairs_per_example} strongest of each of these "
        "memorized examples and of each test example that stands in one; every example of a pair is there.",
    )


def _learner(experiment: Experiment) -> str:
    fields = experiment.learner.model_dump(exclude={"name", "parameters", "vectorize"})
    options = listed(f"{key} = {value}" for key, value in fields.items())
    return f"{experiment.learner.name}{f' ({options})' if options else ''}"


def _training(experiment: Experiment) -> str:
    training = experiment.training
    parts = [
        f"{training.epochs:,} epochs",
        f"batches of {training.batch_size:,}",
        f"learning rate {training.learning_rate:g} ({training.schedule})",
        f"momentum {training.momentum:g}",
    ]
    parts += [f"weight decay {training.weight_decay:g}"] if training.weight_decay else []
    return listed([*parts, *training.augment])


def _accuracy(status: RunStatus) -> str:
    spread = (
        "" if status.std_test_accuracy is None else f" (± {100 * status.std_test_accuracy:.2f} from trial to trial)"
    )
    return f"{100 * (status.mean_test_accuracy or 0):.2f}%{spread}"


def _precision(median: float, largest: float) -> str:
    return f"95% intervals reach ± {median:.3f} for half of them, and ± {largest:.3f} at most"
