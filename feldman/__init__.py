"""feldman: what neural networks memorize, and which predictions depend on it.

After Feldman and Zhang, "What Neural Networks Memorize and Why: Discovering the Long Tail via Influence Estimation"
(2020). Three things to do: `run` an estimation, `open_run` its results, and read `ARCHITECTURE.md` for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "Run",
    "StoppingRule",
    "__version__",
    "load_experiment",
    "merge",
    "open_run",
    "removal",
    "resume",
    "run",
]

if TYPE_CHECKING:
    from feldman.experiment import Experiment
    from feldman.experiment_files import load_experiment
    from feldman.job import resume, run
    from feldman.merge_job import merge
    from feldman.removal_job import removal
    from feldman.results.run import Run, open_run
    from feldman.trials.stopping import StoppingRule

_HOMES = {
    "Experiment": "feldman.experiment",
    "Run": "feldman.results.run",
    "StoppingRule": "feldman.trials.stopping",
    "load_experiment": "feldman.experiment_files",
    "merge": "feldman.merge_job",
    "open_run": "feldman.results.run",
    "removal": "feldman.removal_job",
    "resume": "feldman.job",
    "run": "feldman.job",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `feldman --help` must not pay for NumPy and Zarr.
    if name not in _HOMES:
        raise AttributeError(f"module 'feldman' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
