"""Connecting to a Ray cluster, or starting one on this machine, and what its nodes have room for.

The only module that imports Ray: the executor works with what `start_ray` returns.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feldman.errors import FeldmanError, InputError
from feldman.trials.authentication import make_private_token
from feldman.trials.executor import usable_cores

__all__ = ["BlockResources", "Node", "alive_nodes", "check_address", "check_runtime_env", "start_ray", "this_node"]

_ADDRESS_ADVICE = (
    "give HOST:6379 of its head, 'auto' on one of its nodes, or leave --address out to run on this machine"
)

# Read by Ray when it is imported or started. Without the first, Ray's control store listens on every network interface.
_LOCAL_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}

# For so long a driver waits to learn why an actor no longer answers before it says so; by default a second, which a lost block
# would wait, too.
_PROMPT_ENVIRONMENT = {"RAY_timeout_ms_task_wait_for_death_info": "100"}

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class BlockResources:
    """What one worker takes of its node while it lives.

    Attributes
    ----------
    cpus, gpus
        GPUs may be fractional.
    memory_bytes
        What Ray sets aside for it, so that no more blocks are in flight than fit; 0 for no such bound.
    custom
        Amounts of a cluster's own resources, by name.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory_bytes: int = 0
    custom: Mapping[str, float] = field(default_factory=dict)

    def amounts(self) -> dict[str, float]:
        """Return what is taken by Ray's names; nothing is 0."""
        taken = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes, **self.custom}
        return {name: float(amount) for name, amount in taken.items() if amount}

    def options(self) -> dict[str, Any]:
        """Return them as Ray's options of an actor."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "memory": self.memory_bytes or None,
            "resources": dict(self.custom) or None,
        }

    def in_words(self) -> str:
        """Return them for a message, with the names of their fields in an experiment."""
        words = f"{self.cpus} CPUs and {self.gpus:g} GPUs (execution.cpus_per_block, gpus_per_block)"
        if self.memory_bytes:
            words += f", {self.memory_bytes / 2**30:.3g} GiB (memory_per_block)"
        if self.custom:
            words += "".join(f", {amount:g} {name}" for name, amount in self.custom.items()) + " (resources)"
        return words

    def found_in_words(self, nodes: Sequence[Node]) -> str:
        """Return what nodes have of them in all, for a message."""
        total = {name: sum(node.total.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU", *self.amounts())}
        words = f"{total['CPU']:g} CPUs and {total['GPU']:g} GPUs"
        if self.memory_bytes:
            words += f", {total['memory'] / 2**30:.3g} GiB"
        return words + "".join(f", {total[name]:g} {name}" for name in self.custom)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the cluster, and the resources that it has in all, by Ray's names."""

    id: str
    name: str
    total: Mapping[str, float]

    def num_fitting(self, resources: BlockResources) -> int:
        """Return how many workers have room on it, if it does nothing else."""
        amounts = resources.amounts()
        # Half GPUs are exact in binary, thirds are not: three of them must still fit.
        return min(math.floor(self.total.get(name, 0.0) / amount + 1e-6) for name, amount in amounts.items())


def check_address(address: str) -> None:
    """Find out at once whether anybody listens at HOST:PORT: Ray itself asks for minutes before it gives up.

    Raises
    ------
    InputError
        If it is no address, or nothing listens there. ``"auto"`` is left to Ray.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise InputError(f"'{address}' is no address of a Ray cluster; {_ADDRESS_ADVICE}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise InputError(f"no Ray cluster answers at '{address}' ({error}); {_ADDRESS_ADVICE}") from None


def check_runtime_env(runtime_env: Mapping[str, Any], address: str | None) -> None:
    """Have Ray look at a runtime environment before anything is written.

    Parameters
    ----------
    runtime_env
        The environment.
    address
        Of the cluster where it is going to be used; None for this machine.

    Raises
    ------
    InputError
        If Ray does not take it. Values are not repeated: they may be secrets.
    """
    try:
        _imported_ray(address).runtime_env.RuntimeEnv(**runtime_env)
    except (TypeError, ValueError, OSError) as error:
        keys = ", ".join(map(str, runtime_env)) or "nothing"
        raise InputError(
            f"Ray does not take the runtime environment, which has {keys} ({type(error).__name__}); see Ray's documentation of "
            "`runtime_env`: env_vars, working_dir, py_modules, pip, ..."
        ) from None


def start_ray(
    address: str | None, num_workers: int | None, resources: BlockResources, runtime_env: Mapping[str, Any] | None
) -> Any:
    """Connect to a cluster, or start one on this machine, on loopback.

    Parameters
    ----------
    address
        Of the cluster; None for this machine.
    num_workers, resources
        What is going to run on this machine.
    runtime_env
        Ray's, for all workers.

    Returns
    -------
    module
        Ray, connected.

    Raises
    ------
    InputError
        If this process uses Ray already, or nothing listens at the address.
    FeldmanError
        If Ray does not start.
    """
    ray = _imported_ray(address)
    if ray.is_initialized():
        raise InputError("Ray is already in use in this process; call ray.shutdown() first, or run in another process")
    # The environment is the whole job's, and not each actor's: Ray sends folders of this machine along for a job alone.
    settings = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    settings |= {"runtime_env": dict(runtime_env)} if runtime_env else {}
    if address:
        check_address(address)
        try:
            ray.init(address=address, **settings)
        except (OSError, ValueError, RuntimeError) as error:
            if runtime_env:  # Ray's message repeats it
                raise FeldmanError(
                    f"Ray at '{address}' does not answer, or does not take the runtime environment ({type(error).__name__})"
                ) from None
            raise FeldmanError(
                f"no Ray cluster answers at '{address}' ({error}); {_ADDRESS_ADVICE}. One that asks for a token answers only "
                "with RAY_AUTH_MODE=token and the token in ~/.ray/auth_token or the file that RAY_AUTH_TOKEN_PATH names"
            ) from None
        return ray
    make_private_token()  # Ray asks for it by default, and would write it for all to read
    cores = num_workers * resources.cpus if num_workers else max(usable_cores(), resources.cpus)
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            num_gpus=None if resources.gpus else 0,
            # This machine is taken to have what a cluster's nodes are told apart by, so that an experiment runs here, too.
            resources={name: amount * cores for name, amount in resources.custom.items()} or None,
            include_dashboard=False,
            **settings,
        )
    except Exception as error:
        why = type(error).__name__ if runtime_env else error
        raise FeldmanError(f"Ray did not start on this machine: {why}") from error
    return ray


def _imported_ray(address: str | None) -> Any:
    """Import Ray with the environment that it reads then."""
    environment = _QUIET_ENVIRONMENT | _PROMPT_ENVIRONMENT | ({} if address else _LOCAL_ENVIRONMENT)
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.runtime_env

    # Its warnings tell how Ray was set up, which is decided here; what goes wrong arrives as an exception.
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def alive_nodes(ray: Any) -> list[Node]:
    """Return the nodes that the cluster has now, as far as its head knows: it takes some 15 seconds to give a dead one up."""
    return [
        Node(id=node["NodeID"], name=_name(node["NodeManagerHostname"], node["NodeID"]), total=node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def this_node() -> tuple[str, str]:
    """Return id and name of the node that a worker runs on; called in the worker."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    return node_id, _name(socket.gethostname(), node_id)


def _name(host: str, node_id: str) -> str:
    """Return what people and scripts may tell nodes apart by: several may run on one host."""
    return f"{host} ({node_id[:8]})"
