"""S3 on loopback, for tests: moto's server, a bucket each test, and what lies in it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from moto.server import ThreadedMotoServer
from obstore.store import MemoryStore

from feldman.trials.locations import ObjectPath, location_of

__all__ = ["SECRET", "download_run", "memory_path", "object_path", "s3_environment", "s3_server"]

SECRET = "wJalrXUtnFEMI-never-to-be-seen"


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


def s3_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIAOFTESTS",
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
