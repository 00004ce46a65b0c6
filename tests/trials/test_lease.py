from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from feldman.errors import StorageError, StoreBusyError
from feldman.trials.lease import Lease, LeaseTimes, held_lease, lease_holder
from feldman.trials.locations import ObjectPath
from feldman.trials.rundir import RunPaths, writer_lock, writer_of
from tests.object_store import memory_path

TIMES = LeaseTimes(lasts=100.0, renewed_every=10.0, needed=40.0, margin=20.0)
SHORT = LeaseTimes(lasts=0.4, renewed_every=0.1, needed=0.1, margin=0.1)


class Clocks:
    """The two clocks of a process: one that stands still while its machine sleeps, and one that does not."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 50.0, 1e9

    def __call__(self) -> tuple[float, float]:
        return self.monotonic, self.wall

    def work(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def sleep(self, seconds: float) -> None:
        self.wall += seconds


def taken(location: ObjectPath, clocks: Callable[[], tuple[float, ...]], times: LeaseTimes = TIMES) -> Lease:
    lease = Lease(location=location, times=times, clock=clocks)
    info = location.info()
    assert lease.take(None if info is None else info.tag)
    return lease


def record(location: ObjectPath) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(location.read_bytes())
    return found


def foreign(location: ObjectPath, **changes: Any) -> None:
    """Let the lease be that of a process of another machine."""
    location.write_bytes(json.dumps({"holder": "h", "pid": 1, "host": "far", "machine": "far", **changes}).encode())


@pytest.mark.parametrize("before", ["nothing", "a lease that has run out"])
def test_of_many_that_take_a_lease_at_once_exactly_one_has_it(before: str) -> None:
    for _ in range(20):
        location = memory_path() / ".writer.lease"
        if before != "nothing":
            foreign(location)
        info = location.info()
        start = threading.Barrier(8)

        def take(_: int, location: ObjectPath = location, info: Any = info, start: Any = start) -> bool:
            lease = Lease(location=location, times=TIMES)
            start.wait()
            return lease.take(None if info is None else info.tag)

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(take, range(8))) == 1


def test_of_two_that_wait_for_a_silent_holder_one_writes_and_the_other_is_refused() -> None:
    location = memory_path() / ".writer.lease"
    foreign(location, lasts_seconds=0.3)
    done = threading.Event()

    def hold(_: int) -> str:
        try:
            with held_lease(location, times=SHORT):
                done.wait(5)
                return "held"
        except StoreBusyError:
            done.set()
            return "refused"

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(hold, range(2))) == ["held", "refused"]


def test_a_holder_writes_while_its_lease_lasts_and_renews_it_in_time() -> None:
    clocks = Clocks()
    lease = taken(memory_path() / ".writer.lease", clocks)
    clocks.work(59)
    lease.check()
    assert record(lease.location)["renewal"] == 1, "so long it lasts without being asked"
    clocks.work(2)
    lease.check()
    assert record(lease.location)["renewal"] == 2, "what is left must suffice for a write to arrive"


@pytest.mark.parametrize("pause", ["work", "sleep"], ids=["busy", "asleep"])
def test_a_holder_whose_lease_ran_out_and_was_taken_over_writes_nothing_any_more(pause: str) -> None:
    root, clocks = memory_path(), Clocks()
    lease = taken(root / ".writer.lease", clocks)
    held = root.guarded(lease.check)
    (held / "before").write_bytes(b"1")
    getattr(clocks, pause)(1000)
    other = taken(root / ".writer.lease", Clocks())
    for _ in range(2):
        with pytest.raises(StoreBusyError, match=r"no longer this process's to write.*took it over"):
            (held / "late").write_bytes(b"1")
    with pytest.raises(StoreBusyError):
        (held / "before").unlink()
    assert root.names() == [".writer.lease", "before"]
    lease.release()
    other.check()  # whoever lost it does not give it away


def test_a_holder_that_slept_and_was_not_missed_renews_its_lease_before_it_writes() -> None:
    root, clocks = memory_path(), Clocks()
    lease = taken(root / ".writer.lease", clocks)
    stale = root.info(), (root / ".writer.lease").info()
    clocks.sleep(1000)
    (root.guarded(lease.check) / "late").write_bytes(b"1")
    assert record(lease.location)["renewal"] == 2
    assert stale[1] is not None
    taker = Lease(location=lease.location, times=TIMES)
    assert not taker.take(stale[1].tag), "who saw it run out before that comes too late"


def test_a_lease_that_was_taken_and_released_meanwhile_is_lost_all_the_same() -> None:
    clocks = Clocks()
    lease = taken(memory_path() / ".writer.lease", clocks)
    taken(lease.location, Clocks()).release()
    clocks.work(1000)
    with pytest.raises(StoreBusyError):
        lease.check()


def test_a_renewal_whose_answer_was_lost_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks()
    lease = taken(memory_path() / ".writer.lease", clocks)
    replace_if = ObjectPath.replace_if

    def unanswered(self: ObjectPath, content: bytes, before: Any) -> Any:
        replace_if(self, content, before)
        raise StorageError("the connection broke")

    clocks.work(1000)
    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "replace_if", unanswered)
        with pytest.raises(StorageError, match="the connection broke"):
            lease.check()
    lease.check()
    assert record(lease.location)["holder"] == lease._holder


def test_a_storage_that_does_not_answer_stops_writes_only_when_the_lease_has_run_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks()
    lease = taken(memory_path() / ".writer.lease", clocks)

    def unreachable(self: ObjectPath, content: bytes, before: Any) -> Any:
        raise StorageError("no answer")

    monkeypatch.setattr(ObjectPath, "replace_if", unreachable)
    with pytest.raises(StorageError):
        lease.renew()
    clocks.work(60)
    lease.check()
    clocks.work(1)
    with pytest.raises(StorageError, match="no answer"):
        lease.check()


def test_a_holder_that_renews_is_waited_for_in_vain() -> None:
    location, notes = memory_path() / ".writer.lease", list[str]()
    with held_lease(location, times=SHORT) as lease:
        with pytest.raises(
            StoreBusyError, match=r"'memory://tests/run' is being written by process \d+ on \S+ \(since "
        ):
            held_lease(location, times=SHORT, on_waiting=notes.append).__enter__()
        time.sleep(2 * SHORT.lasts)
        lease.check()
        assert record(location)["renewal"] > 4, "a thread renews it"
    assert len(notes) == 1
    assert "looking whether it is alive" in notes[0]


def test_the_lease_of_another_machine_is_taken_over_when_it_has_run_out_and_not_before() -> None:
    location = memory_path() / ".writer.lease"
    foreign(location, lasts_seconds=0.5)
    started = time.monotonic()
    with held_lease(location, times=SHORT):
        waited = time.monotonic() - started
    assert waited > 0.5 + SHORT.margin - 0.05


def test_how_old_a_lease_is_does_not_depend_on_the_clock_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    location = memory_path() / ".writer.lease"
    foreign(location, lasts_seconds=0.5)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # a hundred years later
    started = time.monotonic()
    with held_lease(location, times=SHORT):
        assert time.monotonic() - started > 0.5


def test_the_lease_of_a_process_that_died_on_this_machine_is_taken_over_at_once() -> None:
    location = memory_path() / ".writer.lease"
    own = taken(location, Clocks())
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    location.write_bytes(json.dumps(record(location) | {"pid": dead.pid}).encode())
    assert lease_holder(location) is None
    started = time.monotonic()
    with held_lease(location) as lease:
        assert time.monotonic() - started < 5
        assert record(location)["holder"] != own._holder
        lease.check()


def test_a_lease_that_was_taken_in_vain_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    location = memory_path() / ".writer.lease"

    def unanswered(self: Lease) -> None:
        raise StorageError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "check_storage", unanswered)
        with pytest.raises(StorageError, match="no answer"):
            held_lease(location).__enter__()
    assert lease_holder(location) is None


def test_a_storage_that_ignores_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    location = memory_path() / ".writer.lease"

    def careless(self: ObjectPath, content: bytes) -> Any:
        self.write_bytes(content)
        info = self.info()
        assert info is not None
        return info.tag

    monkeypatch.setattr(ObjectPath, "create", careless)
    with pytest.raises(StorageError, match=r"'memory://tests/run' ignores conditions of writes \(If-None-Match\)"):
        held_lease(location, times=SHORT).__enter__()
    assert not location.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"lasts_seconds": "x", "pid": "y"}'])
def test_a_lease_that_cannot_be_read_is_one_of_the_usual_length(content: bytes) -> None:
    location = memory_path() / ".writer.lease"
    location.write_bytes(content)
    assert lease_holder(location) is not None
    waiting = threading.Event()

    def stop(note: str) -> None:
        waiting.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        held_lease(location, times=SHORT, on_waiting=stop).__enter__()
    assert waiting.is_set()


def test_a_run_on_an_object_store_is_written_by_one_and_free_when_that_is_done() -> None:
    paths = RunPaths(root=memory_path())
    assert writer_of(paths) is None
    with writer_lock(paths) as held:
        holder = writer_of(paths)
        assert holder is not None
        assert set(holder) == {"pid", "host", "since", "expires_at"}
        assert isinstance(held.events, ObjectPath)
        held.events.write_bytes(b"")
    assert writer_of(paths) is None
    with writer_lock(paths):
        assert writer_of(paths) is not None
