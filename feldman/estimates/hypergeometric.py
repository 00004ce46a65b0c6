"""Exact tails of the hypergeometric distribution, compiled: a p-value a pair, for millions of pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feldman.estimates.packing import compiled

__all__ = ["two_sided_tails"]

_NEGLIGIBLE = 1e-17
"""A term that adds less than this share changes no float64."""


@compiled
def two_sided_tails(
    joint: Any, num_in: Any, totals: Any, num_trials: int, log_factorial: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return twice the smaller tail, at most 1: of ``joint`` right ones among ``num_in`` trials, ``totals`` of all being right.

    The smaller tail is summed outwards from the count itself, term by term from their ratios, until a term adds nothing: so it
    keeps its digits however small it is. NaN where all trials are in one group.

    Parameters
    ----------
    joint, num_in, totals
        int64 [pair].
    num_trials
        In all.
    log_factorial
        float64 [num_trials + 1]: log(k!).
    """
    tails = np.empty(len(joint))
    for pair in range(len(joint)):
        x, n, right = joint[pair], num_in[pair], totals[pair]
        if n == 0 or n == num_trials:
            tails[pair] = np.nan
            continue
        wrong = num_trials - right
        log_mass = (
            log_factorial[right] - log_factorial[x] - log_factorial[right - x]
            + log_factorial[wrong] - log_factorial[n - x] - log_factorial[wrong - n + x]
            - log_factorial[num_trials] + log_factorial[n] + log_factorial[num_trials - n]
        )  # fmt: skip
        mass, term, total, y = np.exp(log_mass), 1.0, 1.0, x
        if x * num_trials >= n * right:
            while y < min(n, right) and term > _NEGLIGIBLE * total:
                term *= (right - y) * (n - y) / ((y + 1) * (wrong - n + y + 1))
                total += term
                y += 1
        else:
            while y > max(0, n - wrong) and term > _NEGLIGIBLE * total:
                term *= y * (wrong - n + y) / ((right - y + 1) * (n - y + 1))
                total += term
                y -= 1
        tail = mass * total
        tails[pair] = min(1.0, 2 * min(tail, 1 - tail + mass))
    return tails
