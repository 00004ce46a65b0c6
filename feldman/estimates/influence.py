"""Influence: how much more often a test example is predicted right by trials that learned from a training example.

Everything follows from one number a pair, the count of trials that had the training example and got the test example right,
and from the two marginals. Tiles count (`feldman.estimates.tiles`); here their results, in order, become estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, Integer
from numpy.typing import NDArray

from feldman.errors import FeldmanError
from feldman.estimates.bits import TrialBits, in_lanes
from feldman.estimates.intervals import Difference, proportion_difference
from feldman.estimates.kernel import joint_counts
from feldman.estimates.kernel_tiles import prepare_selecting
from feldman.estimates.packing import count_bits
from feldman.estimates.selection import PairSelection
from feldman.estimates.significance import pair_p_values
from feldman.estimates.tiles import TileInputs, TileResult, best_pairs, pair_influence, target_lanes
from feldman.trials.executor import BlockOutcome, Executor, ThreadExecutor, usable_cores
from feldman.trials.loop import LoopOptions, run_blocks

__all__ = ["PairCollector", "Pairs", "estimate_influence", "run_tiles", "select_pairs", "tile_inputs"]

_TILE_ATTEMPTS = 3
_PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Train/target pairs with their influence, ordered by training example, then by target.

    Attributes
    ----------
    train_index, target_index
        int64 [pair].
    influence, stderr, ci_low, ci_high
        float64 [pair].
    p_value
        float64 [pair]: of the test whether the influence is 0, `feldman.estimates.significance.pair_p_values`.
    """

    train_index: Int64[np.ndarray, " pair"]
    target_index: Int64[np.ndarray, " pair"]
    influence: Float64[np.ndarray, " pair"]
    stderr: Float64[np.ndarray, " pair"]
    ci_low: Float64[np.ndarray, " pair"]
    ci_high: Float64[np.ndarray, " pair"]
    p_value: Float64[np.ndarray, " pair"]


def estimate_influence(
    bits: TrialBits,
    train_index: Integer[np.ndarray, " chosen"],
    test_index: Integer[np.ndarray, " chosen_test"] | None = None,
) -> Difference:
    r"""Estimate the influence of some training examples on test examples.

    .. math:: infl_{ij} = \Pr_k[h_k(x'_j) = y'_j \mid i \in I_k] - \Pr_k[h_k(x'_j) = y'_j \mid i \notin I_k]

    V. Feldman, C. Zhang, "What Neural Networks Memorize and Why" (2020), Algorithm 1, line 7.

    Parameters
    ----------
    bits
        What the trials got right.
    train_index, test_index
        Which training examples, and which test examples; by default all of these.

    Returns
    -------
    Difference
        float64 [chosen, chosen_test]; NaN for examples that were in all trials or in none.
    """
    correct = bits.test_correct if test_index is None else np.ascontiguousarray(bits.test_correct[test_index])
    tests = in_lanes(correct)
    rows = np.ascontiguousarray(bits.subset_mask[train_index])
    counts = np.empty((len(rows), tests.shape[0] * tests.shape[2]), np.uint32)
    if len(rows):
        joint_counts(rows, tests, counts)
    joint = counts[:, : len(correct)].astype(np.float64)
    num_in = count_bits(rows, rows)[:, None]
    total = count_bits(correct, correct)[None]
    return proportion_difference(joint, num_in, total - joint, bits.num_trials - num_in)


class PairCollector:
    """Takes the results of tiles, in their order, and hands on estimates in the order of pairs.

    Without tops of targets every result is handed on at once. A target's top is known when all tiles are there: until then its
    contenders are kept, a few times their final number.

    Parameters
    ----------
    selection, num_trials
        What is selected, from how many trials.
    totals
        float64 [target]: trials that got each target right.
    take
        Called with estimates, ordered by training example and target.
    """

    def __init__(
        self,
        selection: PairSelection,
        num_trials: int,
        totals: Float64[np.ndarray, " target"],
        take: Callable[[Pairs], None],
    ) -> None:
        self._selection, self._num_trials, self._totals, self._take = selection, num_trials, totals, take
        self._kept: list[NDArray[np.int32]] = []
        self._contenders = np.empty((0, 4), np.int32)
        self._waiting: list[NDArray[np.int32]] = []

    def add(self, result: TileResult) -> None:
        """Take the result of the next tile."""
        if self._selection.top_per_target is None:
            self._hand_on(result.chosen)
            return
        self._kept.append(result.chosen)
        self._waiting.append(result.contenders)
        if sum(map(len, self._waiting)) > max(len(self._contenders), _PAIRS_AT_ONCE):
            self._drop_beaten()

    def asked(self) -> Float64[np.ndarray, " target"]:
        """Return the influence that the top of each target asks for by now: -inf until it is full."""
        asked = np.full(len(self._totals), -np.inf)
        top = self._selection.top_per_target
        if top is not None:
            self._drop_beaten()
            influence = pair_influence(self._contenders, self._totals, self._num_trials)
            full = np.bincount(self._contenders[:, 1], minlength=len(asked)) >= top
            lowest = np.full(len(asked), np.inf)
            np.minimum.at(lowest, self._contenders[:, 1], influence)
            asked[full] = lowest[full]
        return asked

    def finish(self) -> None:
        """Hand on what was waiting for the last tile."""
        if self._selection.top_per_target is None:
            return
        self._drop_beaten()
        pairs = np.unique(np.concatenate([*self._kept, self._contenders]), axis=0)  # a pair may be in both tops
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            self._hand_on(pairs[start : start + _PAIRS_AT_ONCE])

    def _drop_beaten(self) -> None:
        pairs = np.concatenate([self._contenders, *self._waiting])
        influence = pair_influence(pairs, self._totals, self._num_trials)
        top = self._selection.top_per_target or 0
        self._contenders, self._waiting = pairs[best_pairs(pairs, influence, of_target=True, top=top)], []

    def _hand_on(self, pairs: Int32[np.ndarray, "pair 4"]) -> None:
        train, target, count, num_in = pairs.T.astype(np.int64)
        wrong_side = self._totals[target] - count
        value, stderr, ci_low, ci_high = proportion_difference(count, num_in, wrong_side, self._num_trials - num_in)
        self._take(
            Pairs(
                train_index=train,
                target_index=target,
                influence=value,
                stderr=stderr,
                ci_low=ci_low,
                ci_high=ci_high,
                p_value=pair_p_values(
                    count, num_in, self._totals[target].astype(np.int64), num_trials=self._num_trials
                ),
            )
        )


def run_tiles(
    inputs: TileInputs,
    executor: Executor,
    take: Callable[[int, Any], None],
    on_examples: Callable[[int], None] = lambda count: None,
) -> None:
    """Run all tiles and hand on their results in order, whatever the order they come in.

    Parameters
    ----------
    inputs
        What the executor's task was made from.
    executor
        Where tiles run.
    take
        Called in this thread with each tile's number and result, in order.
    on_examples
        Told how many more training examples have been looked at.

    Raises
    ------
    FeldmanError
        If a tile failed again and again.
    """
    early: dict[int, Any] = {}
    next_tile = 0

    def commit(tile: int, result: Any) -> None:
        nonlocal next_tile
        early[tile] = result
        on_examples(len(inputs.rows_of(tile)))
        while next_tile in early:
            take(next_tile, early.pop(next_tile))
            next_tile += 1

    paced = _Paced(executor, lambda: len(early))
    in_order = LoopOptions(retry_first=True)
    report = run_blocks(range(inputs.num_tiles), paced, commit, max_attempts=_TILE_ATTEMPTS, options=in_order)
    if report.set_aside:
        tile, error = next(iter(report.set_aside.items()))
        raise FeldmanError(
            f"{len(report.set_aside)} tile(s) of pairs could not be counted; first: tile {tile}: {error}"
        )


class _Paced:
    """An executor that takes no more tiles while many results wait for one before them: they may be large."""

    def __init__(self, executor: Executor, num_early: Callable[[], int]) -> None:
        self._executor, self._num_early, self._num_running = executor, num_early, 0
        self.num_workers = executor.num_workers

    @property
    def num_free(self) -> int:
        if self._num_running and self._num_early() >= 2 * self.num_workers:
            return 0
        return self._executor.num_free

    def submit(self, block: int) -> None:
        self._num_running += 1
        self._executor.submit(block)

    def wait(self, timeout_seconds: float) -> Sequence[BlockOutcome]:
        outcomes = self._executor.wait(timeout_seconds)
        self._num_running -= len(outcomes)
        return outcomes

    def __enter__(self) -> _Paced:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Whoever made the executor closes it."""


def tile_inputs(
    bits: TrialBits,
    memorization: Float64[np.ndarray, " train"],
    selection: PairSelection,
    labels: tuple[Integer[np.ndarray, " train"], Integer[np.ndarray, " test"]] | None = None,
) -> TileInputs:
    """Cut bits in memory into tiles for all cores; see `select_pairs`."""
    on_train = selection.targets == "train"
    correct = bits.train_correct if on_train else bits.test_correct
    train_label, target_label = labels or (np.zeros(len(bits.subset_mask), int), None)
    if on_train and labels:
        target_label = train_label
    targets = target_lanes(correct, target_label if selection.same_class else None)
    candidates = np.flatnonzero(memorization >= selection.min_memorization)
    return TileInputs.balanced(
        num_trials=bits.num_trials,
        selection=selection,
        targets=targets,
        train_index=candidates,
        masks=bits.subset_mask[candidates],
        row_label=train_label[candidates],
        num_workers=usable_cores(),
    )


def select_pairs(
    bits: TrialBits,
    memorization: Float64[np.ndarray, " train"],
    selection: PairSelection,
    labels: tuple[Integer[np.ndarray, " train"], Integer[np.ndarray, " test"]] | None = None,
) -> Pairs:
    """Select pairs from bits in memory, on all cores.

    Parameters
    ----------
    bits
        What the trials got right.
    memorization
        float64 [train].
    selection
        Which pairs.
    labels
        Of training and test examples; needed for pairs of one class only.
    """
    inputs = tile_inputs(bits, memorization, selection, labels)
    totals = inputs.targets.by_target
    parts: list[Pairs] = []
    collector = PairCollector(selection, bits.num_trials, totals, parts.append)
    with ThreadExecutor(prepare_selecting, inputs, usable_cores() + 1) as executor:
        run_tiles(inputs, executor, lambda tile, result: collector.add(result))
    collector.finish()
    return Pairs(
        train_index=np.concatenate([np.empty(0, np.int64), *(part.train_index for part in parts)]),
        target_index=np.concatenate([np.empty(0, np.int64), *(part.target_index for part in parts)]),
        influence=np.concatenate([np.empty(0), *(part.influence for part in parts)]),
        stderr=np.concatenate([np.empty(0), *(part.stderr for part in parts)]),
        ci_low=np.concatenate([np.empty(0), *(part.ci_low for part in parts)]),
        ci_high=np.concatenate([np.empty(0), *(part.ci_high for part in parts)]),
        p_value=np.concatenate([np.empty(0), *(part.p_value for part in parts)]),
    )
