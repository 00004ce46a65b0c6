"""Ray's tokens: who may use a cluster. A token is looked for where Ray looks, and goes nowhere but into a request's header.

Since 2.59 a Ray that is started by ``ray.init`` asks for a token unless ``RAY_AUTH_MODE=disabled`` says otherwise. Loopback
keeps other machines out; the token keeps out the other users of this one.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

__all__ = ["UNPROTECTED", "find_token", "make_private_token", "uses_tokens"]

UNPROTECTED = (
    "warning: this cluster answers without a token: whoever reaches it can run code there and read its data. "
    "Start it with RAY_AUTH_MODE=token (README, A cluster)"
)


def uses_tokens() -> bool:
    """Tell whether Ray in this process sends tokens. Asked after Ray has been started, which may have decided it."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def find_token() -> str | None:
    """Return the token of this user, by Ray's order: ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        return given.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    with suppress(OSError, UnicodeDecodeError, RuntimeError):  # no such file, or no home
        return (Path(path) if path else _default_path()).read_text(encoding="utf-8").strip() or None
    return None


def make_private_token() -> None:
    """Make this user's token, if a Ray that starts here would: Ray's own file is readable as the umask says, often by all."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or find_token() is not None:
        return
    with suppress(OSError, RuntimeError):  # Ray says what it could not write
        path = _default_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_hex(32).encode())
        finally:
            os.close(descriptor)


def _default_path() -> Path:
    return Path.home() / ".ray" / "auth_token"
