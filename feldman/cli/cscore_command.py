"""`feldman cscore`: how hard training examples are, and what they do for the test set."""

from __future__ import annotations

import pyarrow.compute as pc

from feldman.cli.output import Output, class_name, number
from feldman.cli.progress import ProgressDisplay
from feldman.cli.study_output import OpenStudy, open_study, show_study
from feldman.errors import ComparisonError
from feldman.estimates.selection import PairSelection
from feldman.studies.scores import score_run, score_table

__all__ = ["show_cscores"]


def show_cscores(runs: list[str], selection: PairSelection, top: int | None, output: Output) -> None:
    """Print or write the scores of training examples, hardest first."""
    scores, first = [], None
    with ProgressDisplay() as display:
        for path in runs:
            study = open_study(path, display)
            first = first or study
            _check_comparable(first, study)
            ratio = study.store.experiment.subsets.subset_ratio
            scores.append(score_run(study.bits, study.labels, selection, ratio))
    if first is None:  # the command line asks for one at least
        return
    table = score_table(scores, first.labels[0]).sort_by([("cscore", "ascending"), ("train_index", "ascending")])
    table = table.filter(pc.is_finite(table["cscore"])).slice(0, top)
    ratios = sorted({run.subset_ratio for run in scores})
    names = tuple(first.store.attributes["dataset"]["class_names"])
    shown = [_row(row, names) for row in table.to_pylist()] if output.format == "table" or output.file else []
    title = (
        f"hardest of {first.store.num_train:,} training examples, subset ratio "
        f"{', '.join(f'{ratio:g}' for ratio in ratios)}; decided: {selection.in_words()}"
    )
    document = {"runs": runs, "subset_ratios": ratios, "selection": selection.in_words()}
    show_study(table, document, output, shown=shown, title=title)


def _check_comparable(first: OpenStudy, other: OpenStudy) -> None:
    """Refuse to average over other examples or other learners."""
    data = [study.store.attributes["dataset"]["fingerprint"] for study in (first, other)]
    if data[0] != data[1]:
        raise ComparisonError(f"a C-score is of one data set; '{other.root}' is of another one than '{first.root}'")
    learners = [(study.store.experiment.learner, study.store.experiment.training) for study in (first, other)]
    if learners[0] != learners[1]:
        raise ComparisonError(
            f"a C-score is of one learner and recipe; those of '{other.root}' differ from those of '{first.root}'"
        )


def _row(row: dict[str, float], names: tuple[str, ...]) -> dict[str, str]:
    return {
        "train": str(row["train_index"]),
        "class": class_name(row["label"], names),
        "C-score": number(row["cscore"]),
        "± error": number(row["stderr"]),
        "right with it": number(row["rate_in"]),
        "without": number(row["rate_out"]),
        "memorized": number(row["memorization"]),
        "of what it is right": number(row["fractional_memorization"]),
        "influence in all": f"{row['influence_total']:.2f}",
        "decided": f"{row['num_decided']:g}",
        "q <= 0.05": f"{row['num_significant']:g}",
    }
