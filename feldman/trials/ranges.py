"""Which trials of the plan a run trains: all, or a range of them, so that several runs can share one experiment."""

from __future__ import annotations

from feldman.errors import InputError, command
from feldman.experiment import Experiment
from feldman.trials.locations import Location

__all__ = ["continued", "planned"]


def planned(experiment: Experiment) -> Experiment:
    """Return an experiment whose plan has room for the range of trials that it names.

    Raises
    ------
    InputError
        If the range begins or ends inside a block: a block is trained as a whole.
    """
    if experiment.execution.trials is None:
        return experiment
    first, end = experiment.execution.trials
    num_trials = max(experiment.subsets.num_trials, end)
    size = experiment.subsets.block_size
    problems = []
    if first % size:
        nearest = [trial for trial in _multiples_around(first, size) if trial < num_trials]
        problems.append(f"the first trial must be a multiple of {size} (nearest: {_or(nearest)})")
    if end % size and end != num_trials:
        nearest = [min(trial, num_trials) for trial in _multiples_around(end, size) if trial > first]
        problems.append(
            f"the end must be a multiple of {size}, or the plan's end, {num_trials} (nearest: {_or(nearest)})"
        )
    if problems:
        raise InputError(f"trials {first}:{end} cut through a block of {size} trials: {'; '.join(problems)}")
    return experiment.replace("subsets", {"num_trials": num_trials})


def continued(kept: Experiment, given: Experiment, run: Location) -> Experiment:
    """Return an experiment as a run that exists goes on with it: the blocks of the run, its trials or more.

    A range that is given must hold the one that the run has: a run only grows, so that what it was begun for is never
    forgotten. Where none is given the run keeps its own; its end moves with that of the plan if it is there.

    Parameters
    ----------
    kept
        As the run's store has it.
    given
        The same experiment, as it is asked for now.
    run
        The run directory, for messages.

    Raises
    ------
    InputError
        If the range would lose trials, splits a block, or ends before a plan that is to grow.
    """
    before = kept.subsets.num_trials
    num_trials = max(before, given.subsets.num_trials)
    trials, has = given.execution.trials, kept.trained_trials
    if trials is None and kept.execution.trials is not None:
        if has.stop < before < num_trials:
            example = command("run", "EXPERIMENT", "-o", run, "--trials", f"{has.start}:{num_trials}")
            raise InputError(
                f"'{run}' trains trials {has.start}:{has.stop} of {before}: a range that ends before the plan does not grow "
                f"with it, to {num_trials}; say which trials to train, as in `{example}`"
            )
        trials = (has.start, num_trials if has.stop == before else has.stop)
    if trials is not None and not (trials[0] <= has.start and has.stop <= trials[1]):
        raise InputError(
            f"'{run}' trains trials {has.start}:{has.stop}, and a range only grows; found {trials[0]}:{trials[1]}. Choose one "
            f"that holds {has.start}:{has.stop}, or train the others in another run directory: `feldman merge` joins them"
        )
    plan = {"num_trials": num_trials, "block_size": kept.subsets.block_size}
    return planned(given.replace("subsets", plan).replace("execution", {"trials": trials}))


def _multiples_around(trial: int, block_size: int) -> tuple[int, int]:
    below = trial // block_size * block_size
    return below, below + block_size


def _or(trials: list[int]) -> str:
    return " or ".join(map(str, trials))
