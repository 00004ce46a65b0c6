from __future__ import annotations

from pathlib import Path

import pytest

from feldman.trials.authentication import find_token, make_private_token


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, and no word of tokens in the environment."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_token_that_is_made_here_can_be_read_by_its_user_alone_and_is_kept(home: Path) -> None:
    make_private_token()
    token = find_token()
    assert token is not None
    assert len(token) == 64
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    make_private_token()
    assert find_token() == token


@pytest.mark.parametrize(
    "environment",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_TOKEN_PATH": "/nowhere"}],
    ids=str,
)
def test_no_token_is_made_where_the_user_has_said_otherwise(
    home: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    make_private_token()
    assert not (home / ".ray").exists()


def test_a_token_is_looked_for_where_ray_looks_and_in_its_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_token() is None
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("of the home\n")
    assert find_token() == "of the home"
    (home / "other").write_text("of the path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "other"))
    assert find_token() == "of the path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the environment")
    assert find_token() == "of the environment"
