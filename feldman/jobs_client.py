"""The way to a cluster's Jobs API: its dashboard's address, whether it asks for a token, and Ray's own client.

The only module that imports Ray, beside the executor.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from feldman.errors import FeldmanError, InputError
from feldman.trials.authentication import find_token

__all__ = ["Cluster", "cluster_errors", "connect"]

_ADDRESS_ADVICE = "give that of the head's dashboard, as in http://HOST:8265"
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster whose dashboard answers.

    Attributes
    ----------
    address
        Of the dashboard: ``http://HOST:PORT``.
    asks_for_token
        Whether it refuses requests without one.
    client
        Ray's `JobSubmissionClient`.
    """

    address: str
    asks_for_token: bool
    client: Any


def connect(address: str) -> Cluster:
    """Find out whether a cluster's dashboard answers, and whether it asks for a token; it gets ours only if it does.

    Raises
    ------
    InputError
        If it is no such address, nothing or something else answers there, or the token is missing or another one.
    """
    address = _checked_address(address)
    asks_for_token = _asks_for_token(address)
    headers = {}
    if asks_for_token:
        token = find_token()
        if token is None:
            raise InputError(
                f"the cluster at {address} asks for a token, and none was found; set RAY_AUTH_TOKEN_PATH to a file that "
                "holds it, or keep it in ~/.ray/auth_token"
            )
        headers["Authorization"] = f"Bearer {token}"
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what it sends is told here
    try:
        with _ray_address_unset():
            client = JobSubmissionClient(address, headers=headers)
    except AuthenticationError:  # Ray's own text is a page on how to configure it
        raise InputError(
            f"the cluster at {address} refuses the token that was found; it is looked for in RAY_AUTH_TOKEN, in the file that "
            "RAY_AUTH_TOKEN_PATH names, and in ~/.ray/auth_token"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"what answers at {address} takes no jobs ({_first_line(error)}); {_ADDRESS_ADVICE}") from None
    return Cluster(address=address, asks_for_token=asks_for_token, client=client)


def _checked_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        secret = parts.username is not None or bool(parts.query or parts.fragment)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        secret, valid = False, False
    if secret:  # and so it is not repeated here
        raise InputError(f"an address takes no user, password or query; {_ADDRESS_ADVICE}")
    if not valid:
        raise InputError(f"'{address}' is no address of a dashboard; {_ADDRESS_ADVICE}")
    return address.rstrip("/")


def _asks_for_token(address: str) -> bool:
    """Ask the one page of a dashboard that tells this to anybody."""
    try:
        with urllib.request.urlopen(f"{address}/api/authentication_mode", timeout=_ANSWER_SECONDS) as answer:
            mode = json.load(answer)["authentication_mode"]
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # a gate of somebody's before it; a Ray older than tokens says 404
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"no Ray dashboard answers at {address} ({reason}); {_ADDRESS_ADVICE}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"what answers at {address} is no Ray dashboard; {_ADDRESS_ADVICE}") from None
    return bool(mode != "disabled")


@contextmanager
def _ray_address_unset() -> Iterator[None]:
    """Ray takes an address from the environment before the one that it is given; ``--address`` was said, and counts."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


@contextmanager
def cluster_errors(cluster: Cluster) -> Iterator[None]:
    """Tell what goes wrong between a cluster and this client as a `FeldmanError`."""
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, RayError) as error:  # requests' errors are OSErrors; a token may change
        raise FeldmanError(f"the cluster at {cluster.address} failed: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
