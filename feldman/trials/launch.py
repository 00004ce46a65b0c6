"""Where and how one session trains: the executor that an experiment and its caller ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feldman.data.dataset import Dataset
from feldman.data.mapped import Whereabouts, for_workers
from feldman.errors import InputError
from feldman.experiment import Experiment
from feldman.trials.executor import InProcessExecutor, Prepare, ReusableExecutor
from feldman.trials.ray_cluster import BlockResources, check_address, check_runtime_env
from feldman.trials.ray_executor import RayExecutor

__all__ = ["Launch", "check_execution", "made_executor"]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how one session trains: what is said anew each time, and recorded nowhere.

    Attributes
    ----------
    address
        A Ray cluster, or None for this machine.
    runtime_env
        Ray's runtime environment of the workers; it may hold secrets.
    speculate
        Whether blocks that take long are handed out a second time near the end.
    """

    address: str | None = None
    runtime_env: Mapping[str, Any] | None = None
    speculate: bool = False


def check_execution(experiment: Experiment, launch: Launch) -> None:
    """Refuse what would not be looked at, an address where nothing answers, and an environment that Ray does not take.

    Raises
    ------
    InputError
        If trials are to be trained in this process and on a cluster or in another environment, nothing listens at the
        cluster's address, or the environment is none.
    """
    if experiment.execution.executor == "in-process":
        for option, given in (("--address", launch.address), ("--runtime-env", launch.runtime_env)):
            if given:
                raise InputError(f"execution.executor = 'in-process' trains in this process; leave {option} out")
    if launch.address:
        check_address(launch.address)
    if launch.runtime_env:
        check_runtime_env(launch.runtime_env, launch.address)


def made_executor(
    experiment: Experiment,
    prepare: Prepare,
    dataset: Dataset,
    launch: Launch,
    *,
    on_setup_failure: Callable[[str, str], None],
    on_shortage: Callable[[str], None],
) -> ReusableExecutor:
    """Make the executor that trains.

    Parameters
    ----------
    experiment, launch
        What they ask for.
    prepare, dataset
        Makes the task, and of what.
    on_setup_failure
        As for `RayExecutor`.
    on_shortage
        Told why no worker has room now, if they wait for nodes.
    """
    execution = experiment.execution
    if execution.executor == "in-process":
        return InProcessExecutor(prepare, dataset)
    executor = RayExecutor(
        prepare,
        for_workers(dataset, _whereabouts(launch.address, execution.shared_files)),
        address=launch.address,
        num_workers=execution.num_workers,
        resources=BlockResources(
            cpus=execution.cpus_per_block,
            gpus=execution.gpus_per_block,
            memory_bytes=execution.memory_bytes_per_block,
            custom=execution.resources,
        ),
        runtime_env=launch.runtime_env,
        on_setup_failure=on_setup_failure,
    )
    if executor.shortage:
        on_shortage(executor.shortage)
    return executor


def _whereabouts(address: str | None, shared_files: bool) -> Whereabouts:
    if address is None:
        return "here"
    return "same-path" if shared_files else "elsewhere"
