"""Where files of data sets are looked for, and how those that are nowhere are fetched."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from feldman.errors import DatasetError

__all__ = ["cache_folder", "download", "is_there", "searched_folders"]


def cache_folder() -> Path:
    """Return ``$FELDMAN_DATA``, or ``~/.cache/feldman``."""
    return Path(os.environ.get("FELDMAN_DATA") or Path.home() / ".cache" / "feldman")


def searched_folders(root: str | None, name: str, files: tuple[str, ...]) -> list[Path]:
    """Return the folders that may hold one of ``files``: ``root`` alone if it is given, else `cache_folder`.

    In either, a folder of the data set's name comes first. A root may also be one of the files itself.
    """
    base = cache_folder() if root is None else Path(root)
    return [base.parent] if base.name in files else [base / name, base]


def is_there(path: Path) -> bool:
    """Tell whether a file or folder is there.

    Raises
    ------
    DatasetError
        If nobody may know: a folder that is closed, a name too long.
    """
    try:
        return path.exists()
    except OSError as error:
        raise DatasetError(f"cannot look for '{path}': {error.strerror or error}") from None


def download(url: str, md5: str, folder: Path) -> Path:
    """Fetch one file with torchvision, which compares its MD5 sum; it appears whole or not at all.

    Raises
    ------
    OSError, RuntimeError
        If there is no network, or what came is not the file.
    """
    from torchvision.datasets.utils import download_url

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / url.rpartition("/")[2]
    with TemporaryDirectory(dir=folder, prefix=".download-") as partial:
        download_url(url, partial, file.name, md5)
        (Path(partial) / file.name).replace(file)
    return file
