"""S3 on loopback, for tests: moto's server, a proxy before it that fails as networks do, and what lies in a bucket."""

from __future__ import annotations

import http.client
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from moto.server import ThreadedMotoServer
from obstore.store import MemoryStore

from feldman.trials.locations import ObjectPath, location_of

__all__ = [
    "SECRET",
    "Proxy",
    "download_run",
    "make_bucket",
    "memory_path",
    "object_path",
    "s3_environment",
    "s3_server",
]

SECRET = "wJalrXUtnFEMI-never-to-be-seen"
KEY = "AKIAOFTESTSALONE"


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server; yields its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Proxy:
    """Stands before a server. A context manager.

    Attributes
    ----------
    url
        To be used in place of the server's.
    requests
        Method and path of each.
    fail
        How many of the next requests get the answer 503; of every third, the server has done as asked before.
    """

    def __init__(self, target: str) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fail = 0
        self._counting = threading.Lock()
        self._target = urlsplit(target).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy._answer(self)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: clients are killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        with self._counting:
            self.requests.append((request.command, request.path))
            failing, done = self.fail > 0, self.fail % 3 == 0
            self.fail = max(0, self.fail - 1)
        status, headers, content = 503, [("Content-Length", "0")], b""
        if done or not failing:
            found = self._forward(request, body)
            status, headers, content = found if not failing else (status, headers, content)
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._target, timeout=30)
        connection.request(request.command, request.path, body, dict(request.headers))
        response = connection.getresponse()
        content = response.read()
        kept = [(k, v) for k, v in response.getheaders() if k.lower() not in ("content-length", "connection", "server")]
        length = response.getheader("Content-Length", "0") if request.command == "HEAD" else str(len(content))
        connection.close()
        return response.status, [*kept, ("Content-Length", length)], content

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def s3_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def make_bucket(endpoint: str, name: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")):
        pass


def object_path(url: str) -> ObjectPath:
    location = location_of(url)
    assert isinstance(location, ObjectPath)
    return location


def memory_path(key: str = "run") -> ObjectPath:
    """A place in a store of its own, which is as S3 but for the network."""
    return ObjectPath(store=MemoryStore(), bucket="memory://tests", key=key)


def download_run(run: ObjectPath, folder: Path) -> Path:
    """Copy all objects of a run into a folder, as they lie."""
    for entry in obstore.list(run.store, run.key).collect():
        path = folder / entry["path"].removeprefix(f"{run.key}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(obstore.get(run.store, entry["path"]).bytes().to_bytes())
    return folder
