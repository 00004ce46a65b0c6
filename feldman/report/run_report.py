"""From a run to its page: read the tables, choose what is shown, fetch the pictures, write the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from feldman.errors import QueryError
from feldman.report.contents import Classes, Contents, MemorizationColumns, choose_contents
from feldman.report.document import UNKNOWN, ReportDocument
from feldman.report.example_pictures import with_pictures_of
from feldman.report.glance import estimate_facts, run_facts, run_notes, selection_told
from feldman.report.histogram import count_memorization
from feldman.report.page import render_page
from feldman.report.selection import PageLimits
from feldman.report.study_figures import study_figures
from feldman.results.run import Run
from feldman.results.sandbox import TableView
from feldman.results.strongest import PairTotals, pair_totals
from feldman.results.tables import TableFacts, check_same_trials, read_facts, read_table
from feldman.trials.locations import Location
from feldman.trials.rundir import RunPaths
from feldman.trials.store import TrialStore

__all__ = ["make_report"]

Tell = Callable[[str], None]


def make_report(
    paths: RunPaths, limits: PageLimits, *, pictures: bool = True, tell: Tell = lambda stage: None
) -> tuple[ReportDocument, str]:
    """Make the page of a run.

    Parameters
    ----------
    paths
        The run; one of tables alone has no pictures.
    limits
        How much the page holds.
    pictures
        Show the examples, from the data set that the run was trained on.
    tell
        Told what is being done.

    Returns
    -------
    document, page
        What the page holds, and the page: HTML, self-contained.

    Raises
    ------
    RunDirectoryError, CorruptStoreError
        If there is no run, or its tables are not there or cannot be read.
    DatasetError
        If pictures are wanted, and the data set is not there or no longer what it was.
    QueryError
        If the tables are of different trials, or the page would be larger than it may.
    """
    tell("reading tables")
    if not paths.memorization.exists():
        TrialStore.open(paths.store)  # says what is wrong with the run, if anything is
    table, facts = read_table(paths.memorization, paths.root)
    pair_facts = read_facts(paths.influence, paths.root)
    check_same_trials(paths.root, {facts.digest, pair_facts.digest})
    run = Run(paths) if paths.has_store else None
    tell("choosing what is shown")
    document, contents = _document(paths, MemorizationColumns.of(table), facts=pair_facts, limits=limits, run=run)
    if pictures and run is not None and run.store.imported_from is None:
        document = with_pictures_of(run, document, contents.picture_order, limits, tell)
    page = render_page(document)
    megabytes = len(page.encode()) / 1e6
    if megabytes > limits.max_megabytes:
        raise QueryError(
            f"the page takes {megabytes:.2f} MB, and --max-megabytes allows {limits.max_megabytes:g}; show less with --top-pairs "
            f"(now {limits.top_pairs:,}) and --per-class, or allow more"
        )
    return document, page


def _document(
    paths: RunPaths, memorization: MemorizationColumns, *, facts: TableFacts, limits: PageLimits, run: Run | None
) -> tuple[ReportDocument, Contents]:
    """Choose what is shown, and describe it; without pictures."""
    status, experiment = (None, None) if run is None else (run.status(), run.experiment)
    with TableView(paths.influence, "pairs") as view:
        totals = pair_totals(view)
        classes = _classes(facts, memorization, totals)
        contents = choose_contents(memorization, view, limits, classes)
    value = memorization.columns.memorization
    estimates = estimate_facts(facts.selection, value, memorization.columns, totals)
    figures, figure_notes = study_figures(paths.root)
    document = ReportDocument(
        name=_run_name(paths.root),
        facts=(*run_facts(facts, status, experiment), *estimates),
        notes=(*run_notes(facts, status), *figure_notes),
        selection=selection_told(contents, limits, totals, (facts.num_train, facts.num_test), len(classes.names)),
        class_names=classes.names,
        histogram=count_memorization(classes.label(memorization.label), value, len(classes.names)),
        train=contents.train,
        columns=contents.columns,
        test=contents.test,
        pairs=contents.pairs,
        figures=figures,
    )
    return document, contents


def _classes(facts: TableFacts, memorization: MemorizationColumns, totals: PairTotals) -> Classes:
    """Find out which labels there are: imported tables may lack names, or labels altogether."""
    told = [memorization.label, *([] if (was := memorization.columns.original_label) is None else [was])]
    in_pairs = UNKNOWN if totals.largest_test_label is None else totals.largest_test_label
    largest = max(in_pairs, *(int(labels.max(initial=UNKNOWN)) for labels in told))
    some_unknown = bool((memorization.label == UNKNOWN).any()) or (totals.num_pairs > 0 and in_pairs == UNKNOWN)
    return Classes.of(facts.class_names, largest, some_unknown)


def _run_name(root: Location) -> str:
    return root.resolve().name if isinstance(root, Path) else root.name
