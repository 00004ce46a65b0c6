"""The tables of a run, made anew where they are not of the trials that are committed."""

from __future__ import annotations

from feldman.errors import FeldmanError
from feldman.estimates.selection import PairSelection
from feldman.results.tables import count_rows, read_facts
from feldman.trials.events import EventLog
from feldman.trials.rundir import RunPaths
from feldman.trials.session import ProgressCallback
from feldman.trials.store import TrialStore

__all__ = ["refresh_tables"]


def refresh_tables(paths: RunPaths, store: TrialStore, events: EventLog, tell: ProgressCallback) -> None:
    """Write the tables, unless they are there and made from these very trials, or there is no trial.

    Raises
    ------
    CorruptStoreError
        If a committed block is damaged.
    StorageError
        If the storage refuses.
    """
    num_trials = store.num_trials_in(store.committed_blocks())
    if num_trials == 0 or _tables_are_of(paths, store, num_trials):
        return
    # Imported here: compiled code that a run with nothing to estimate need not wait for.
    from feldman.results.estimation import write_estimates

    write_estimates(paths, selection=_selection(paths), tell=tell)
    events.write("estimates_written", {"num_trials": num_trials})


def _selection(paths: RunPaths) -> PairSelection:
    """Return the selection of the table that is replaced: whoever chose it wants it for more trials too."""
    try:
        return read_facts(paths.influence, paths.root).selection
    except FeldmanError:
        return PairSelection()


def _tables_are_of(paths: RunPaths, store: TrialStore, num_trials: int) -> bool:
    try:
        tables = paths.memorization, paths.influence
        facts = [read_facts(path, paths.root) for path in tables]
        for path in tables:
            count_rows(path, paths.root)
    except FeldmanError:
        return False
    if facts[1].num_pairs_tested is None:  # from before there were q-values
        return False
    made_from = (num_trials, store.experiment.fingerprint, store.digest())
    return all((fact.num_trials, fact.fingerprint, fact.digest) == made_from for fact in facts)
