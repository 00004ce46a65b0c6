"""`feldman export`, `feldman import` and `feldman compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.errors import ExchangeError, command
from feldman.exchange.agreement import Agreement
from feldman.exchange.authors_export import export_authors
from feldman.exchange.conformance import Conformance, compare_with_file
from feldman.exchange.datamodels_export import export_datamodels
from feldman.exchange.importing import ImportOptions, import_run
from feldman.trials.locations import local_path
from feldman.trials.rundir import run_paths

__all__ = ["ImportChoices", "compare_run", "export_run", "import_source"]


@dataclass(frozen=True, kw_only=True)
class ImportChoices:
    """The options of `feldman import`, as typed."""

    min_influence: float | None = None
    min_memorization: float | None = None
    labels: str | None = None
    class_names: str | None = None


def export_run(path: str, form: Literal["authors", "datamodels"], output: str | None, as_json: bool) -> None:
    """Write the files of a format, and print where they are."""
    paths = run_paths(path)
    if output is None:
        folder = local_path(paths.root, "without -o FOLDER, exports go into the run,") / f"export-{form}"
    else:
        folder = _path(output, "-o")
    with ProgressDisplay() as display:
        export = {"authors": export_authors, "datamodels": export_datamodels}[form]
        summary = export(paths, folder, display)
    if as_json:
        print_json(summary.as_json())
        return
    print(f"{summary.folder}: {', '.join(summary.files)}")
    if summary.left_out is not None:
        print(f"  left out  {summary.left_out}")


def import_source(source: str, path: str, chosen: ImportChoices, as_json: bool) -> None:
    """Make a run of files of others, and print what came."""
    options = ImportOptions(
        min_influence=chosen.min_influence,
        min_memorization=chosen.min_memorization,
        labels=None if chosen.labels is None else _path(chosen.labels, "--labels"),
        class_names=None if chosen.class_names is None else _path(chosen.class_names, "--class-names"),
    )
    with ProgressDisplay() as display:
        summary = import_run(_path(source, "SOURCE"), path, options, tell=display)
    if as_json:
        print_json(summary.as_json())
        return
    trials = "tables only" if summary.num_trials is None else f"{summary.num_trials:,} trials"
    print(f"{summary.run}: {trials}, imported from {summary.source}")
    print(f"  memorization  {summary.num_train:,} training examples")
    print(
        f"  pairs         {summary.num_pairs:,} (influence >= {summary.min_influence:g}, "
        f"memorization >= {summary.min_memorization:g})"
    )
    print(f"  next          {command('memorized', summary.run)}; {command('pairs', summary.run)}")


def compare_run(path: str, file: str, as_json: bool) -> None:
    """Print how well a run agrees with a file."""
    paths = run_paths(path)
    with ProgressDisplay() as display:
        found = compare_with_file(paths, _path(file, "--with"), display)
    if as_json:
        print_json(found.as_json())
        return
    trials = "imported tables" if found.num_trials is None else f"{found.num_trials:,} trials"
    labels = "the labels are the same" if found.labels_checked else "labels not compared"
    print(f"{found.run} ({trials}) and {found.file}; {labels}")
    rows = _comparison_rows(found)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value:>10}")


def _comparison_rows(found: Conformance) -> list[tuple[str, str]]:
    memorization, pairs = found.memorization, found.pairs
    of_class = ", of one class" if pairs.same_class else ""
    rows = [
        ("training examples with memorization in both", f"{memorization.num_compared:,}"),
        *_agreement_rows("memorization", memorization),
        ("  rank correlation (Spearman)", _number(memorization.spearman)),
        (f"  histograms of {memorization.num_bins} bins: total variation", _number(memorization.total_variation)),
        ("  histograms: earth mover's distance", _number(memorization.earth_movers_distance)),
        (
            f"pairs with influence >= {pairs.min_influence:g}, memorization >= {pairs.min_memorization:g}{of_class}: in both",
            f"{pairs.num_both:,}",
        ),
        ("  only in the run", f"{pairs.num_only_run:,}"),
        ("  only in the file", f"{pairs.num_only_file:,}"),
        ("  Jaccard similarity", _number(pairs.jaccard)),
        *_agreement_rows("influence of the pairs in both", pairs.influence),
    ]
    if found.same_class_influence is not None:
        rows.append(("all pairs of one class, defined in both", f"{found.same_class_influence.num_compared:,}"))
        rows += _agreement_rows("influence of all pairs of one class", found.same_class_influence)
    return rows


def _agreement_rows(what: str, found: Agreement) -> list[tuple[str, str]]:
    return [
        (f"  {what}: correlation (Pearson)", _number(found.pearson)),
        (f"  {what}: mean absolute difference", _number(found.mean_absolute_difference)),
    ]


def _number(value: float) -> str:
    return "undefined" if value != value else f"{value:.4f}"


def _path(text: str, option: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # '~name' of nobody
        raise ExchangeError(f"{option} '{text}': {error}") from None
