from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman.data import digests
from feldman.data.digests import file_digest


@given(content=st.binary(max_size=200))
def test_the_digest_is_that_of_the_content_however_often_it_is_asked(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("digests")
    path = folder / "x.npy"
    path.write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert [file_digest(path, folder / "notes") for _ in range(2)] == [expected] * 2
    path.write_bytes(content + b"more")
    assert file_digest(path, folder / "notes") == hashlib.sha256(content + b"more").hexdigest()


def test_a_file_is_read_once_a_machine_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"content")
    reads: list[Path] = []
    really = digests._read_digest

    def reading(path: Path) -> str:
        reads.append(path)
        return really(path)

    monkeypatch.setattr(digests, "_read_digest", reading)
    threads = [threading.Thread(target=file_digest, args=(path, tmp_path / "notes")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [path]
    os.utime(path, (1, 1))
    file_digest(path, tmp_path / "notes")
    assert reads == [path, path], "a file that may have changed is read again"


def test_a_note_that_was_cut_short_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"content")
    expected = file_digest(path, tmp_path / "notes")
    (note,) = (tmp_path / "notes").iterdir()
    note.write_bytes(b"abc")
    assert file_digest(path, tmp_path / "notes") == expected
    assert note.read_text() == expected
    assert (note.stat().st_mode & 0o777, note.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_without_room_for_notes_it_takes_longer_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"content")
    (tmp_path / "notes").write_text("a file, no folder")
    assert file_digest(path, tmp_path / "notes") == hashlib.sha256(b"content").hexdigest()
