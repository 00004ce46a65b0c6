"""One entrance to all imports: from what the authors publish or release to a run directory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from feldman.errors import ExchangeError
from feldman.estimates.selection import DEFAULT_MIN_INFLUENCE, DEFAULT_MIN_MEMORIZATION, PairSelection
from feldman.exchange.authors_files import MatrixFile, open_authors_file
from feldman.exchange.folders import built_folder
from feldman.exchange.labels import Labels, load_labels
from feldman.exchange.run_folders import find_runs
from feldman.exchange.table_import import import_matrix, import_pairs
from feldman.exchange.trial_import import import_trials
from feldman.results.tables import TableFacts
from feldman.trials.events import EventLog
from feldman.trials.locations import local_path
from feldman.trials.rundir import RunPaths, run_paths, writer_lock
from feldman.trials.session import ProgressCallback

__all__ = ["ImportOptions", "ImportSummary", "import_run"]


_NAMES_OF_NOTHING = "--class-names names the classes of labels, and here are none: give --labels too"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a user may add to an import.

    Attributes
    ----------
    min_influence, min_memorization
        Which pairs are kept; None for what the file holds, or else the paper's thresholds.
    labels
        An ``.npz`` file with ``tr_labels`` and ``tt_labels``.
    class_names
        A text file with one name a line.
    """

    min_influence: float | None = None
    min_memorization: float | None = None
    labels: Path | None = None
    class_names: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What was imported. ``num_trials`` is None where only tables came."""

    run: str
    source: str
    num_trials: int | None
    num_train: int
    num_pairs: int
    min_influence: float
    min_memorization: float

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def import_run(
    source: str | Path,
    run: str | Path,
    options: ImportOptions | None = None,
    *,
    tell: ProgressCallback = lambda progress: None,
) -> ImportSummary:
    """Make a run directory of a file of pairs, a matrix file, or released run folders. It is there whole or not at all.

    Parameters
    ----------
    source
        The file, or the folder.
    run
        The run directory, new or empty.
    options
        What to add to it.
    tell
        Told how far it is.

    Raises
    ------
    ExchangeError
        If the source is none of these, is damaged, or the options do not fit it; or the run is there already.
    StorageError
        If the storage refuses.
    """
    source, target, options = (
        Path(source),
        local_path(run_paths(run).root, "import makes runs"),
        options or ImportOptions(),
    )
    runs = _runs_at(source)
    labels = _labels(source, options)
    with built_folder(target) as folder, writer_lock(RunPaths(root=folder)):
        paths = RunPaths(root=folder)
        if runs:
            facts = import_trials(paths, source, runs, labels, selection=_selection(options), tell=tell)
        else:
            facts = _import_file(paths, source, labels, options, tell)
        rows = [pq.read_metadata(path).num_rows for path in (paths.memorization, paths.influence)]
    return ImportSummary(
        run=str(target),
        source=str(source),
        num_trials=facts.num_trials,
        num_train=rows[0],
        num_pairs=rows[1],
        min_influence=facts.selection.min_influence,
        min_memorization=facts.selection.min_memorization,
    )


def _runs_at(source: Path) -> list[Path]:
    """Return the run folders at a path; none if it is a file."""
    try:
        if not source.exists():
            raise ExchangeError(
                f"'{source}' does not exist; give an .npz file of the authors, or a folder of released runs"
            )
        return find_runs(source) if source.is_dir() else []
    except OSError as error:
        raise ExchangeError(f"cannot look into '{source}': {error.strerror or error}") from None


def _labels(source: Path, options: ImportOptions) -> Labels | None:
    if options.labels is not None:
        return load_labels(options.labels, options.class_names)
    if options.class_names is not None and source.is_dir():
        raise ExchangeError(_NAMES_OF_NOTHING)
    return None


def _selection(options: ImportOptions) -> PairSelection:
    return PairSelection(
        min_influence=DEFAULT_MIN_INFLUENCE if options.min_influence is None else options.min_influence,
        min_memorization=DEFAULT_MIN_MEMORIZATION if options.min_memorization is None else options.min_memorization,
    )


def _import_file(
    paths: RunPaths, source: Path, labels: Labels | None, options: ImportOptions, tell: ProgressCallback
) -> TableFacts:
    with open_authors_file(source, options.class_names) as file, closing(EventLog(paths.events)) as events:
        if isinstance(file, MatrixFile):
            if labels is not None:
                raise ExchangeError(f"{source} has labels of its own; leave --labels out")
            facts = import_matrix(paths, file, replace(_selection(options), same_class=True), tell=tell)
        else:
            if options.class_names is not None and labels is None:
                raise ExchangeError(_NAMES_OF_NOTHING)
            asked = (options.min_influence, options.min_memorization)
            facts = import_pairs(paths, file, labels, asked=asked)
        events.write("tables_imported", {"source": str(source.absolute())})
    return facts
