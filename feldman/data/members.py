"""Named files of a folder, or of the .tar.gz archive that it was distributed as, read into memory; nothing is extracted."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from feldman.errors import DatasetError, listed

__all__ = ["read_members"]

_MAX_FILE_BYTES = 2**28
"""The largest of the originals has 155 MB; a header that says more is no header of theirs."""

_CHUNK_BYTES = 2**20


def read_members(where: Path, folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """Read files of a folder, or of an archive of that folder.

    Parameters
    ----------
    where
        The folder, or the archive.
    folder
        What the folder is called inside the archive.
    names
        The files to read.

    Returns
    -------
    dict
        Content by name.

    Raises
    ------
    DatasetError
        If one is missing, anything is unreadable, or the archive holds what a distribution of files does not: links,
        devices, paths that lead elsewhere, a file twice.
    """
    names = list(names)
    try:
        read = _from_folder(where, names) if where.is_dir() else _from_archive(where, folder, names)
    except (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error) as error:
        raise DatasetError(f"{where} is damaged or cut short ({error}); fetch it again") from None
    except OSError as error:
        raise DatasetError(f"cannot read {where}: {error.strerror or error}") from None
    missing = [name for name in names if name not in read]
    if missing:
        raise DatasetError(f"{where} lacks {listed(missing)}; the data set needs {listed(names)}")
    return read


def _from_folder(folder: Path, names: list[str]) -> dict[str, bytes]:
    read = {}
    for name in names:
        if (folder / name).exists():
            _check_size((folder / name).stat().st_size, folder / name)
            read[name] = (folder / name).read_bytes()
    return read


def _from_archive(archive: Path, folder: str, names: list[str]) -> dict[str, bytes]:
    read: dict[str, bytes] = {}
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not (member.isfile() or member.isdir()) or path.parts[:1] != (folder,) or ".." in path.parts:
                raise DatasetError(
                    f"{archive} is refused: its member '{member.name}' is no file in {folder}/, and the original holds "
                    "nothing else. Fetch the original"
                )
            name = "/".join(path.parts[1:])
            if name not in names:  # a page to read, say
                continue
            if name in read:
                raise DatasetError(f"{archive} is refused: it holds '{member.name}' twice. Fetch the original")
            _check_size(member.size, f"{archive}: {name}")
            content = tar.extractfile(member)
            if content is None:
                raise DatasetError(f"{archive} is refused: its member '{member.name}' is a folder. Fetch the original")
            read[name] = content.read()
            if len(read[name]) != member.size:
                raise EOFError(f"'{name}' has {len(read[name])} of {member.size} bytes")
        while stream.read(_CHUNK_BYTES):  # to the checksum at its end, which tarfile has no need to reach
            pass
    return read


def _check_size(size: int, where: Path | str) -> None:
    if size > _MAX_FILE_BYTES:
        raise DatasetError(
            f"{where} has {size:,} bytes, more than {_MAX_FILE_BYTES:,}: it is no file of this data set. Fetch the original"
        )
