"""A Ray cluster of several nodes in this machine, whose nodes can be killed, stopped and replaced."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil

__all__ = ["TestCluster"]


class TestCluster:
    """A head of 1 CPU and two nodes of 2, each with a GPU that is made up. A context manager; use it in one thread.

    Everything listens on loopback: see the environment in ``conftest.py``.
    """

    __test__ = False

    def __init__(self, num_nodes: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **_NODE})
        self.nodes: list[Any] = []
        self.complete(num_nodes)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> Any:
        node = self._cluster.add_node(num_cpus=2, **_NODE)
        self.nodes.append(node)
        return node

    def remove(self, node: Any) -> None:
        """As an operator would: the node says goodbye."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=True)

    def complete(self, num_nodes: int = 2) -> None:
        """Forget nodes that are no more, and add new ones."""
        self.nodes = [node for node in self.nodes if raylet(node).poll() is None]
        while len(self.nodes) < num_nodes:
            self.add()

    def kill(self, node: Any) -> None:
        """SIGKILL to the node's raylet, which its workers survive for a moment."""
        raylet(node).kill()
        raylet(node).wait()

    def kill_head(self) -> None:
        for processes in list(self._cluster.head_node.all_processes.values()):
            for process in processes:
                process.process.kill()
                process.process.wait()

    def signal(self, node: Any, number: signal.Signals) -> None:
        """Send a signal to every process of a node."""
        for pid in [raylet(node).pid, *worker_pids(node)]:
            if psutil.pid_exists(pid):
                os.kill(pid, number)

    def __enter__(self) -> TestCluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cluster.shutdown()


_NODE = {"num_gpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}


def raylet(node: Any) -> Any:
    """The process of a node's raylet, as a ``Popen``."""
    # all_processes forgets a process that has ended
    found = node.__dict__.setdefault("_raylet_of_test", None) or node.all_processes["raylet"][0].process
    node.__dict__["_raylet_of_test"] = found
    return found


def worker_pids(node: Any) -> set[int]:
    """The processes that descend from a node's raylet: its workers, and agents."""
    try:
        return {child.pid for child in psutil.Process(raylet(node).pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()
