"""The tables of a run, made anew where they are not of the trials that are committed."""

from __future__ import annotations

from feldman.errors import FeldmanError
from feldman.results.tables import DEFAULT_MIN_INFLUENCE, DEFAULT_MIN_MEMORIZATION, read_table
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

    min_influence, min_memorization = _thresholds(paths)
    write_estimates(
        paths,
        min_influence=min_influence,
        min_memorization=min_memorization,
        tell=tell,
    )
    events.write("estimates_written", {"num_trials": num_trials})


def _thresholds(paths: RunPaths) -> tuple[float, float]:
    """Return the thresholds of the table that is replaced: whoever chose them wants them for more trials too."""
    try:
        facts = read_table(paths.influence, paths.root)[1]
    except FeldmanError:
        return DEFAULT_MIN_INFLUENCE, DEFAULT_MIN_MEMORIZATION
    return facts.min_influence, facts.min_memorization


def _tables_are_of(paths: RunPaths, store: TrialStore, num_trials: int) -> bool:
    try:
        facts = [read_table(path, paths.root)[1] for path in (paths.memorization, paths.influence)]
    except FeldmanError:
        return False
    made_from = (num_trials, store.experiment.fingerprint, store.digest())
    return all((fact.num_trials, fact.fingerprint, fact.digest) == made_from for fact in facts)
