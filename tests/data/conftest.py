"""What tests of data sets share."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def as_shipped() -> Iterator[None]:
    """Leave out the checks of annotations that only tests make, so that what a user is told is seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
