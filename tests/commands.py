"""Commands run in this process, and the runs that they ask."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import pytest

from feldman.cli.app import main


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Commands:
    """Call `feldman ...` in this process as the shell would: its arguments, folder, output and exit code.

    The checks of annotations that only tests make are left out, so that what a user is told is seen.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Answer:
        self._capsys.readouterr()
        jaxtyping.config.update("jaxtyping_disable", True)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["feldman", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            patch.setenv("COLUMNS", "160")
            try:
                with pytest.raises(SystemExit) as left:
                    main()
            finally:
                jaxtyping.config.update("jaxtyping_disable", False)
        out, err = self._capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Answer(code=left.value.code, out=out, err=err)


def snapshot(folder: Path) -> dict[str, bytes | str | None]:
    """Everything in a folder: the content of files, the target of links, None for folders."""
    return {
        path.relative_to(folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in sorted(folder.rglob("*"))
    }
