"""A lease: who may write to a run on an object store, which has no locks that end with a process.

An object that says who holds it is created, renewed and taken over by conditional writes alone, so that of several who try one
succeeds. Nobody compares the clocks of two machines: the holder counts from before its request went out, whoever wants to take
over from the server's time of the last renewal to the server's time now.

What no lease can prevent: a process that is stopped after `Lease.check` and before its request goes out writes once more when it
wakes. Blocks of another process have the same bits; whatever else came of it, `verify` and `resume` find.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feldman.errors import FeldmanError, StorageError, StoreBusyError
from feldman.trials.locations import WRITE_SECONDS, ChangedMeanwhileError, ObjectInfo, ObjectPath, ObjectTag

__all__ = ["Lease", "LeaseTimes", "held_lease", "lease_holder"]

Clock = Callable[[], tuple[float, ...]]


def _clocks() -> tuple[float, float]:
    """Seconds of two clocks: the one that nobody sets stands still while a machine sleeps, the other does not."""
    return time.monotonic(), time.time()


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """How long a lease lasts, in seconds.

    Attributes
    ----------
    lasts
        From one renewal on.
    renewed_every
        How often it is renewed.
    needed
        What must be left of it when a write begins: as long as one may take to arrive.
    margin
        Waited beyond its end before it is taken over: servers tell whole seconds.
    """

    lasts: float = 120.0
    renewed_every: float = 15.0
    needed: float = WRITE_SECONDS
    margin: float = 30.0


@dataclass(kw_only=True)
class Lease:
    """A lease that was taken by this process.

    Attributes
    ----------
    location
        The object.
    times, clock
        How long it lasts, and what tells the time here.
    """

    location: ObjectPath
    times: LeaseTimes = field(default_factory=LeaseTimes)
    clock: Clock = _clocks
    _holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    _since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    _tag: ObjectTag | None = None
    _asked: tuple[float, ...] = ()
    _lost_to: dict[str, Any] | None = None
    _num_renewals: int = 0
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Let a write begin: return only if the lease lasts until it has arrived. One that has run out is first renewed.

        Raises
        ------
        StoreBusyError
            If another process has taken it over: nothing may be written any more.
        StorageError
            If it has run out and the storage does not answer.
        """
        if self._lost_to is None and self._left() >= self.times.needed:
            return
        with self._changing:
            while self._lost_to is not None or self._left() < self.times.needed:
                self._renew()

    def renew(self) -> None:
        """Make it last from now on; see `check`."""
        with self._changing:
            self._renew()

    def take(self, before: ObjectTag | None) -> bool:
        """Take the lease, which is free or has run out: create it, or replace what was read; tell whether that succeeded."""
        with self._changing:
            return self._write(before)

    def check_storage(self) -> None:
        """Refuse a storage that lets conditional writes pass: two processes would hold one lease.

        Raises
        ------
        StorageError
            If the lease, which is there, can be created.
        """
        try:
            self.location.create(b"{}")
        except ChangedMeanwhileError:
            return
        self.location.unlink()
        raise StorageError(
            f"the storage of '{self.location.parent}' ignores conditions of writes (If-None-Match), and so two processes could "
            "write one run at once; keep the run on a storage that honours them, or in a folder"
        )

    def release(self) -> None:
        """Let others take it at once. A storage that does not answer makes them wait until it has run out."""
        with self._changing, suppress(FeldmanError):
            if self._lost_to is None:
                self._write(self._tag, released=True)
                self._lost_to = {}

    def _left(self) -> float:
        """Seconds for which nobody else can have it."""
        return self.times.lasts - max(now - asked for now, asked in zip(self.clock(), self._asked, strict=True))

    def _renew(self) -> None:
        if self._lost_to is None and not self._write(self._tag):
            self._lost_to = _read(self.location)[0]
        if self._lost_to is not None:
            raise StoreBusyError(
                f"'{self.location.parent}' is no longer this process's to write: its lease was not renewed in time, and "
                f"{_who(self._lost_to)} took it over. What was committed is safe; leave the run to that process, or "
                "resume it when that has ended"
            )

    def _write(self, before: ObjectTag | None, released: bool = False) -> bool:
        asked = self.clock()
        self._num_renewals += 1
        expires = datetime.now(UTC) + timedelta(seconds=self.times.lasts)
        record = {
            "holder": self._holder,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "machine": _machine(),
            "lasts_seconds": self.times.lasts,
            "expires_at": expires.isoformat(timespec="seconds"),
            "renewal": self._num_renewals,  # no two contents, and so no two tags, are alike
            "released": released,
        }
        content = json.dumps(record).encode()
        try:
            self._tag = self.location.create(content) if before is None else self.location.replace_if(content, before)
        except ChangedMeanwhileError:
            # An attempt whose answer was lost may have succeeded: the next one is then refused for it.
            found, info = _read(self.location)
            if info is None or found.get("holder") != self._holder:
                return False
            self._tag = info.tag
            if found.get("renewal") != self._num_renewals:  # an earlier one: this one is still to be written
                return self._write(info.tag, released)
        self._asked = asked
        return True


@contextmanager
def held_lease(
    location: ObjectPath,
    *,
    times: LeaseTimes | None = None,
    wait: bool = False,
    on_waiting: Callable[[str], None] = lambda note: None,
) -> Iterator[Lease]:
    """Hold a lease; a thread renews it.

    Parameters
    ----------
    location
        The object.
    times
        How long it lasts.
    wait
        Wait for a holder that is alive, too.
    on_waiting
        Told once, in a sentence, whom this waits for.

    Raises
    ------
    StoreBusyError
        If another process holds it, and is alive: it renews it, or has just taken it. That of a process that died on this
        machine is taken over at once, that of another machine's when it has run out.
    StorageError
        If the storage does not answer, or ignores conditions of writes.
    """
    lease = Lease(location=location, times=times or LeaseTimes())
    _acquire(lease, wait, on_waiting)
    ended = threading.Event()
    try:
        lease.check_storage()
        threading.Thread(target=_keep, args=(lease, ended), name="feldman-lease", daemon=True).start()
        yield lease
    finally:
        ended.set()
        lease.release()


def lease_holder(location: ObjectPath) -> dict[str, Any] | None:
    """Return who holds a lease (pid, host, since), or None. A hint: the server's time is compared with this machine's."""
    found, info = _read(location)
    if info is None or _is_free(found):
        return None
    age = (datetime.now(UTC) - info.modified).total_seconds()
    if age > _lasts(found) + LeaseTimes().margin:
        return None
    return {name: found[name] for name in ("pid", "host", "since", "expires_at") if name in found}


def _keep(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(lease.times.renewed_every):
        try:
            lease.renew()
        except StorageError:
            continue  # it lasts a while yet
        except StoreBusyError:
            return  # whoever writes next is told


def _acquire(lease: Lease, wait: bool, on_waiting: Callable[[str], None]) -> None:
    seen: ObjectInfo | None = None
    seen_at, age = 0.0, 0.0
    while True:
        found, info = _read(lease.location)
        if info is None or _is_free(found):
            if lease.take(None if info is None else info.tag):
                return
            found, seen = _read(lease.location)  # another one was faster
            if seen is not None and not _is_free(found) and not wait:
                raise _busy(lease.location, found)
            continue
        if info != seen:
            if seen is not None and not wait:
                raise _busy(lease.location, found)
            if seen is None:
                age = _age(lease.location, info)
                on_waiting(
                    f"{_who(found)} holds '{lease.location.parent}'; looking whether it is alive, and waiting for it"
                )
            else:
                age = 0.0
            seen, seen_at = info, time.monotonic()  # from here on, seconds of this machine are as good as the server's
        left = _lasts(found) + lease.times.margin - age - (time.monotonic() - seen_at)
        if left <= 0:
            if lease.take(info.tag):
                return
            continue
        time.sleep(min(1.0, left, lease.times.renewed_every / 5))


def _age(location: ObjectPath, info: ObjectInfo) -> float:
    """Return how long ago an object was written, by the server's clock: that of another object, which is written now."""
    probe = location.parent / f"{location.name}.{uuid.uuid4().hex[:8]}.time"
    probe.write_bytes(b"")
    try:
        now = probe.info()
    finally:
        probe.unlink()
    return 0.0 if now is None else (now.modified - info.modified).total_seconds()


def _read(location: ObjectPath) -> tuple[dict[str, Any], ObjectInfo | None]:
    try:
        content, info = location.read_with_info()
    except FileNotFoundError:
        return {}, None
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}, info


def _is_free(record: dict[str, Any]) -> bool:
    """Tell whether nobody holds it: it was released, or its holder was a process of this machine, and is gone."""
    if record.get("released") is True:
        return True
    pid = record.get("pid")
    if record.get("machine") != _machine() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _machine() -> str:
    """Return what tells this machine, since its start, and what numbers its processes, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex  # equal to no other


def _lasts(record: dict[str, Any]) -> float:
    lasts = record.get("lasts_seconds")
    return float(lasts) if isinstance(lasts, int | float) else LeaseTimes().lasts


def _who(record: dict[str, Any]) -> str:
    return f"process {record.get('pid', '?')} on {record.get('host', '?')}"


def _busy(location: ObjectPath, record: dict[str, Any]) -> StoreBusyError:
    return StoreBusyError(
        f"'{location.parent}' is being written by {_who(record)} (since {record.get('since', '?')}); wait for it, stop it, or "
        "choose another run directory"
    )
