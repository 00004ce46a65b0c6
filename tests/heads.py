"""Head nodes of Ray with a dashboard, on loopback, as an operator starts them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.runs import kill_tree, wait_until

__all__ = ["Head", "ray_head"]

_PORTS = (
    "port", "dashboard-port", "node-manager-port", "object-manager-port", "ray-client-server-port", "metrics-export-port",
    "dashboard-agent-listen-port", "runtime-env-agent-port",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head node: its dashboard, its cluster address, and the token it asks for, if it does."""

    url: str
    address: str
    token: str | None
    environment: dict[str, str]
    pid: int


@contextmanager
def ray_head(token: str | None) -> Iterator[Head]:
    """Start a head node of 2 CPUs and end it by its process id.

    Jobs find the learners of the tests, and `python` is the one that runs the tests.
    """
    folder = Path(tempfile.mkdtemp(prefix="fh-", dir="/tmp"))  # the path of a socket is short
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    if token is None:
        environment["RAY_AUTH_MODE"] = "disabled"
    else:
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text(token)
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    options = [f"--{name}={port}" for name, port in ports.items()]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0",
             "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true",
             "--object-store-memory=100000000", "--disable-usage-stats", f"--temp-dir={folder / 't'}", *options],
            env=environment, stdout=output, stderr=output, start_new_session=True, cwd=folder,
        )  # fmt: skip
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        wait_until(lambda: process.poll() is not None or _answers(url), "the dashboard answers", 90)
        assert process.poll() is None, (folder / "output").read_text()
        yield Head(url=url, address=f"127.0.0.1:{ports['port']}", token=token, environment=environment, pid=process.pid)
    finally:
        kill_tree(process.pid)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{url}/api/authentication_mode", timeout=5):
        return True
    return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
