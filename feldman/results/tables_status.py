"""What there is to say of a run directory that holds tables and no trials."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from feldman.results.tables import TableFacts, num_rows, read_facts
from feldman.trials.rundir import RunPaths

__all__ = ["TablesStatus", "tables_status"]


@dataclass(frozen=True, kw_only=True)
class TablesStatus:
    """What is known of imported tables.

    Attributes
    ----------
    imported_from
        The name of the file; None if the tables were made from trials that are no longer here.
    num_train, num_test
        Size of the data set; None where the file does not tell.
    num_memorization, num_pairs
        Rows of the two tables.
    min_influence, min_memorization, same_class
        Which pairs are there.
    """

    run: str
    imported_from: str | None
    num_train: int | None
    num_test: int | None
    num_memorization: int
    num_pairs: int
    min_influence: float
    min_memorization: float
    same_class: bool

    def as_json(self) -> dict[str, Any]:
        """Return the record as an object for ``--json``."""
        return asdict(self)


def tables_status(paths: RunPaths) -> TablesStatus | None:
    """Describe tables that stand alone; None where there are trials, or no tables either.

    Raises
    ------
    CorruptStoreError
        If a table cannot be read.
    """
    if paths.has_store or not paths.memorization.exists():
        return None
    read_facts(paths.memorization, paths.root)
    facts = read_facts(paths.influence, paths.root)
    rows = [num_rows(path, paths.root) for path in (paths.memorization, paths.influence)]
    return TablesStatus(
        run=str(paths.root),
        imported_from=None if facts.source == TableFacts().source else facts.source,
        num_train=facts.num_train,
        num_test=facts.num_test,
        num_memorization=rows[0],
        num_pairs=rows[1],
        min_influence=facts.selection.min_influence,
        min_memorization=facts.selection.min_memorization,
        same_class=facts.selection.same_class,
    )
