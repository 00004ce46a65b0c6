"""What a submitted job takes along: the experiment, a user's own folder, this package; and the command that it runs.

One archive holds all three, so that its size is known before a byte is sent, and equal content is sent once: Ray names
archives by their content.
"""

from __future__ import annotations

import os
import shlex
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pathspec

import feldman
from feldman.errors import InputError, RunDirectoryError, StoreBusyError, listed
from feldman.experiment import Experiment
from feldman.experiment_files import experiment_to_toml
from feldman.trials.rundir import run_paths, writer_of

__all__ = ["MAX_ARCHIVE_BYTES", "Archive", "check_not_written_here", "checked_run", "job_command", "pack"]

MAX_ARCHIVE_BYTES = 100 * 1024**2
"""Ray's dashboard answers a larger request with HTTP 413, after all of it has been sent."""

EXPERIMENT_FILE = "submitted-experiment.toml"

_IGNORE_FILES = (".gitignore", ".rayignore")
_NEVER_SENT = {".git", ".venv", "venv", "__pycache__"}  # Ray's own list
_CACHES = {".pyc", ".nbi", ".nbc"}
_DATE = (1980, 1, 1, 0, 0, 0)
_PIECE_BYTES = 1024**2


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file that is ready to be sent.

    Attributes
    ----------
    path
        Where it lies.
    num_bytes
        How large it is.
    num_user_files
        How many files of the user's folder it holds.
    """

    path: Path
    num_bytes: int
    num_user_files: int


def checked_run(run: str) -> str:
    """Return the run directory as the cluster will read it; a URL as it is.

    Raises
    ------
    InputError
        If it is a relative path: the job starts in another folder, on another machine.
    """
    if "://" in run:
        return run
    try:
        run.encode()
    except UnicodeEncodeError:
        raise InputError(f"the run directory {run!r} is not a text in UTF-8; give another path") from None
    if not run.startswith("/"):
        raise InputError(
            f"'{run}' is relative, and the job starts in a folder of its own on the cluster's head; "
            "give -o an absolute path that the head sees, or a URL"
        )
    return str(PurePosixPath(run))


def check_not_written_here(run: str) -> None:
    """Refuse a run that somebody writes to, as far as that is seen from this machine.

    Raises
    ------
    StoreBusyError
        If its lock is held.
    """
    if "://" in run:
        return
    try:
        writer = writer_of(run_paths(run))
    except RunDirectoryError:  # of no use here, which says nothing about the cluster
        return
    if writer is not None:
        raise StoreBusyError(
            f"'{run}' is being written by process {writer.get('pid', '?')} on {writer.get('host', '?')} "
            f"(since {writer.get('since', '?')}); wait for it, stop it, or choose another run directory"
        )


def job_command(run: str) -> str:
    """Return the shell command of the job; it runs where the archive was unpacked.

    ``exec`` puts Python in the shell's place, so that the signals of a stop reach it and its exit code is the job's.
    """
    return "exec " + shlex.join(
        ["python", "-m", "feldman", "run", EXPERIMENT_FILE, "-o", run, "--address", "auto"],
    )


def pack(experiment: Experiment, folder: Path, *, working_dir: Path | None, with_package: bool) -> Archive:
    """Write what the job takes along as a zip file; equal content gives equal bytes.

    Parameters
    ----------
    experiment
        The validated experiment. If its data lie among the files that are sent, the job reads those.
    folder
        Where the archive is written.
    working_dir
        A folder with the user's own modules, of which everything is sent that no ``.gitignore`` or ``.rayignore`` names.
    with_package
        Whether this very package goes along. If ``working_dir`` has it, that one is taken.

    Raises
    ------
    InputError
        If there is no such folder, a file cannot be read, or the archive would be larger than Ray takes.
    """
    files = {} if working_dir is None else dict(_files_of(working_dir))
    files.pop(EXPERIMENT_FILE, None)
    num_user_files = len(files)
    if with_package and "feldman/__init__.py" not in files:
        files |= _package_files()
    text = experiment_to_toml(_with_sent_data(experiment, files, working_dir))
    path = folder / "job.zip"
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(EXPERIMENT_FILE, _DATE), text)
        for name, file in sorted(files.items()):
            _add(archive, name, file, files)
    num_bytes = path.stat().st_size
    if num_bytes > MAX_ARCHIVE_BYTES:  # its table of contents comes last
        raise _too_large(files)
    return Archive(path=path, num_bytes=num_bytes, num_user_files=num_user_files)


def _files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise InputError(f"--working-dir '{folder}' is not a folder; give the one that holds your modules")
    yield from _walk(folder, "", [], (folder.resolve(),))


def _walk(
    folder: Path, prefix: str, ignored: list[tuple[str, pathspec.GitIgnoreSpec]], ancestors: tuple[Path, ...]
) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder by their names in the archive, without what the ignore files on the way name."""
    try:
        ignored = [*ignored, *((prefix, spec) for spec in _ignore_specs(folder))]
        entries = sorted(folder.iterdir())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read '{folder}', which was to be sent: {error}") from None
    for entry in entries:
        name = prefix + entry.name
        is_folder = entry.is_dir()
        shown = f"{name}/" if is_folder else name
        if entry.name in _NEVER_SENT or any(spec.match_file(shown[len(base) :]) for base, spec in ignored):
            continue
        if is_folder:
            target = entry.resolve()
            if target not in ancestors:  # a link back up would never end
                yield from _walk(entry, shown, ignored, (*ancestors, target))
        elif entry.is_file():
            yield name, entry


def _ignore_specs(folder: Path) -> list[pathspec.GitIgnoreSpec]:
    present = [folder / name for name in _IGNORE_FILES if (folder / name).is_file()]
    return [pathspec.GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8").splitlines()) for path in present]


def _package_files() -> dict[str, Path]:
    root = Path(feldman.__file__).parent
    return {
        f"feldman/{path.relative_to(root).as_posix()}": path
        for path in root.rglob("*")
        if path.is_file() and path.suffix not in _CACHES
    }


def _with_sent_data(experiment: Experiment, files: dict[str, Path], working_dir: Path | None) -> Experiment:
    """Name the data by their place in the archive, if they are sent: the job has them in another folder."""
    if working_dir is None:
        return experiment
    changed = {}
    for key, place in (("path", experiment.dataset.path), ("root", experiment.dataset.root)):
        name = os.path.relpath(place, working_dir) if place is not None else ""
        if name in files or any(file.startswith(f"{name}/") for file in files):
            changed[key] = name
    return experiment.replace("dataset", changed) if changed else experiment


def _add(archive: zipfile.ZipFile, name: str, file: Path, files: dict[str, Path]) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    try:
        entry.external_attr = (stat.S_IFREG | (0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644)) << 16
        with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
            for piece in _pieces(source):
                target.write(piece)
                if _written(archive) > MAX_ARCHIVE_BYTES:  # said now, and not after gigabytes
                    raise _too_large(files)
    except OSError as error:
        raise InputError(f"cannot pack '{file}', which was to be sent: {error.strerror or error}") from None


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(_PIECE_BYTES):
        yield piece


def _written(archive: zipfile.ZipFile) -> int:
    return archive.fp.tell() if archive.fp is not None else 0


def _too_large(files: dict[str, Path]) -> InputError:
    sizes = sorted(((file.stat().st_size, name) for name, file in files.items()), reverse=True)
    largest = listed(f"{name} ({size / 1024**2:,.1f} MiB)" for size, name in sizes[:3])
    return InputError(
        f"what the job would take along is more than the {MAX_ARCHIVE_BYTES // 1024**2} MiB that Ray takes; the largest of "
        f"{len(files):,} files: {largest}. Name what the job does not need in .rayignore, and keep data where the "
        "cluster sees them (dataset.path)"
    )
