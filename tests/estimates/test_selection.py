"""Selected pairs, by every way of counting, against a plain loop over the dense float64 formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from feldman.errors import FeldmanError, QueryError
from feldman.estimates import kernel_tiles, packing, torch_tiles
from feldman.estimates.bits import TrialBits
from feldman.estimates.dense import influence_of_counts, select_from_counts
from feldman.estimates.influence import PairCollector, Pairs, estimate_influence, run_tiles, select_pairs
from feldman.estimates.intervals import proportion_difference
from feldman.estimates.memorization import estimate_memorization
from feldman.estimates.packing import count_bits
from feldman.estimates.selection import PairSelection, chosen_pairs
from feldman.estimates.tiles import TileInputs, TileResult, target_lanes
from feldman.trials.executor import BlockOutcome, InProcessExecutor, Task, ThreadExecutor
from tests.estimates import oracle
from tests.estimates.trials import Trials, any_trials

Found = list[tuple[int, int, float]]
Prepare = Callable[[TileInputs], Task]


def counted_then_selected(prepare_counting: Prepare, inputs: TileInputs) -> Task:
    """As the matrix and kept counts are made: all pairs are counted, selected afterwards."""
    count = prepare_counting(inputs)
    totals = inputs.targets.by_target

    def task(tile: int) -> TileResult:
        counts, rows = count(tile), np.array(inputs.rows_of(tile))
        influence = influence_of_counts(counts, inputs.num_in[rows], totals, inputs.num_trials)
        target = np.arange(len(totals))
        eligible = np.ones(counts.shape, bool)
        if inputs.selection.targets == "train":
            eligible &= inputs.train_index[rows][:, None] != target
        if inputs.selection.same_class:
            eligible &= inputs.row_label[rows][:, None] == LABELS[: len(totals)]
        return select_from_counts(inputs, tile, counts, influence, eligible)

    return task


LABELS = np.arange(400) * 7 % 5 % 3

WAYS: dict[str, Prepare] = {
    "kernel": kernel_tiles.prepare_selecting,
    "torch float32": partial(torch_tiles.prepare_selecting, "cpu"),
    "torch float16": partial(torch_tiles.prepare_selecting, "cpu", precision="float16"),
    "kernel counts": partial(counted_then_selected, kernel_tiles.prepare_counting),
    "torch counts": partial(counted_then_selected, partial(torch_tiles.prepare_counting, "cpu")),
}

selections = st.builds(
    PairSelection,
    min_influence=st.one_of(st.just(-1.0), st.floats(-1, 1), st.sampled_from([0.0, 0.5])),
    min_memorization=st.one_of(st.just(-1.0), st.floats(-1, 1)),
    top_per_target=st.one_of(st.none(), st.integers(1, 6)),
    top_per_train=st.one_of(st.none(), st.integers(1, 150)),
    same_class=st.booleans(),
    targets=st.sampled_from(["test", "train"]),
)


def expected_pairs(trials: Trials, selection: PairSelection) -> Found:
    """Select as the words of `PairSelection` say, with sorted lists."""
    memorization = oracle.memorization(trials.subset_mask, trials.train_correct)
    on_train = selection.targets == "train"
    dense = oracle.influence(trials.subset_mask, trials.train_correct if on_train else trials.test_correct)
    passing = [
        (i, j, float(dense[i, j]))
        for i in range(dense.shape[0])
        for j in range(dense.shape[1])
        if dense[i, j] >= selection.min_influence
        and memorization[i] >= selection.min_memorization
        and not (on_train and i == j)
        and not (selection.same_class and LABELS[i] != LABELS[j])
    ]
    if selection.top_per_target is None and selection.top_per_train is None:
        return passing
    kept = set()
    for axis, top in ((1, selection.top_per_target), (0, selection.top_per_train)):
        for group in {pair[axis] for pair in passing} if top else ():
            members = [pair for pair in passing if pair[axis] == group]
            kept |= set(sorted(members, key=lambda pair: (-pair[2], pair[1 - axis]))[:top])
    return sorted(kept)


def inputs_of(trials: Trials, bits: TrialBits, selection: PairSelection, tile_rows: int, by_class: bool) -> TileInputs:
    correct = bits.train_correct if selection.targets == "train" else bits.test_correct
    memorization = estimate_memorization(bits).memorization
    candidates = np.flatnonzero(memorization >= selection.min_memorization)
    inputs = TileInputs.balanced(
        num_trials=bits.num_trials,
        selection=selection,
        targets=target_lanes(correct, LABELS[: len(correct)] if by_class else None),
        train_index=candidates,
        masks=bits.subset_mask[candidates],
        row_label=LABELS[candidates],
        num_workers=1,
    )
    return replace(inputs, tile_rows=tile_rows)


def selected(inputs: TileInputs, prepare: Prepare) -> list[Pairs]:
    """Count tiles in any order, and collect them in theirs."""
    parts: list[Pairs] = []
    collector = PairCollector(inputs.selection, inputs.num_trials, inputs.targets.by_target, parts.append)
    task, order = prepare(inputs), np.random.default_rng(inputs.tile_rows).permutation(inputs.num_tiles)
    results = {int(tile): task(int(tile)) for tile in order}
    for tile in range(inputs.num_tiles):
        collector.add(results[tile])
    collector.finish()
    return parts


def as_found(parts: list[Pairs]) -> Found:
    return [
        (int(i), int(j), float(v))
        for part in parts
        for i, j, v in zip(part.train_index, part.target_index, part.influence, strict=True)
    ]


@pytest.mark.parametrize("way", WAYS)
@given(any_trials(), selections, st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_every_way_of_counting_selects_what_the_dense_formula_does(
    way: str, trials: Trials, selection: PairSelection, tile_rows: int
) -> None:
    by_class = selection.same_class and "counts" not in way
    inputs = inputs_of(trials, trials.packed(), selection, tile_rows, by_class)
    found, expected = as_found(selected(inputs, WAYS[way])), expected_pairs(trials, selection)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in expected], atol=1e-12)


@pytest.mark.parametrize("way", ["kernel", "torch float32"])
@pytest.mark.parametrize("tops", [{}, {"top_per_target": 3}, {"top_per_train": 1}])
def test_training_examples_of_a_class_without_a_target_make_no_pairs(way: str, tops: dict[str, int]) -> None:
    rng = np.random.default_rng(3)
    trials = Trials(*(rng.random((40, size)) < 0.5 for size in (6, 6, 2)))
    bits, selection = trials.packed(), PairSelection(min_influence=-1.0, min_memorization=-1.0, same_class=True, **tops)  # type: ignore[arg-type]
    inputs = replace(
        inputs_of(trials, bits, selection, 2, by_class=False),
        targets=target_lanes(bits.test_correct, np.array([1, 1])),
        row_label=np.array([2, 2, 0, 0, 1, 2]),  # tiles of two: of classes above, and below, those of the targets
    )
    assert {i for i, _, _ in as_found(selected(inputs, WAYS[way]))} == {4}


@given(any_trials(), selections)
@settings(deadline=None, max_examples=40)
def test_on_all_cores_the_same_pairs_come_with_the_errors_of_their_proportions(
    trials: Trials, selection: PairSelection
) -> None:
    bits = trials.packed()
    labels = tuple(LABELS[: rows.shape[1]] for rows in (trials.subset_mask, trials.test_correct))
    pairs = select_pairs(bits, estimate_memorization(bits).memorization, selection, (labels[0], labels[1]))
    assert [*zip(pairs.train_index.tolist(), pairs.target_index.tolist(), strict=True)] == [
        pair[:2] for pair in expected_pairs(trials, selection)
    ]
    correct = trials.train_correct if selection.targets == "train" else trials.test_correct
    for k, (i, j) in enumerate(zip(pairs.train_index, pairs.target_index, strict=True)):
        had = trials.subset_mask[:, i]
        counts = [np.array([n]) for n in (correct[had, j].sum(), had.sum(), correct[~had, j].sum(), (~had).sum())]
        expected = proportion_difference(*counts)
        found = (pairs.influence[k], pairs.stderr[k], pairs.ci_low[k], pairs.ci_high[k])
        np.testing.assert_allclose(found, np.ravel(expected), atol=1e-12)


def test_more_pairs_than_the_kernel_finds_at_once_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    trials = Trials(*(rng.random((70, size)) < 0.5 for size in (200, 200, 400)))
    monkeypatch.setattr(kernel_tiles, "_FOUND_ROWS", 64 * 128)
    for of_train, of_target in ((None, None), (100, None), (100, 50)):
        selection = chosen_pairs(
            min_influence=-1.0, min_memorization=-1.0, top_per_train=of_train, top_per_target=of_target
        )
        inputs = inputs_of(trials, trials.packed(), selection, 128, by_class=False)
        assert [pair[:2] for pair in as_found(selected(inputs, kernel_tiles.prepare_selecting))] == [
            pair[:2] for pair in expected_pairs(trials, selection)
        ]


@pytest.mark.parametrize("num_trials", [2047, 2049, 4100])
def test_counts_on_a_device_are_exact_beyond_what_half_precision_counts(num_trials: int) -> None:
    rng = np.random.default_rng(num_trials)
    trials = Trials(*(rng.random((num_trials, size)) < 0.98 for size in (3, 3, 130)))
    selection = PairSelection(min_influence=-1.0, min_memorization=-1.0)
    inputs = inputs_of(trials, trials.packed(), selection, 64, by_class=False)
    expected = (trials.subset_mask.T.astype(int) @ trials.test_correct)[inputs.train_index]
    for precision in ("float16", "float32"):
        counts = torch_tiles.prepare_counting("cpu", inputs, precision=precision)(0)
        np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(kernel_tiles.prepare_counting(inputs)(0), expected)


def test_pairs_at_the_very_threshold_are_kept() -> None:
    mask = np.array([[True], [True], [True], [True], [False], [False]])
    right = np.array([[True], [True], [True], [False], [True], [False]])
    bits = Trials(mask, mask, right).packed()
    for threshold, kept in ((0.25, 1), (np.nextafter(0.25, 1), 0)):
        selection = PairSelection(min_influence=float(threshold), min_memorization=-1.0)
        assert len(select_pairs(bits, estimate_memorization(bits).memorization, selection).train_index) == kept


def test_influence_on_training_examples_is_memorization_on_the_diagonal() -> None:
    rng = np.random.default_rng(3)
    trials = Trials(*(rng.random((90, size)) < 0.5 for size in (20, 20, 5)))
    bits = trials.packed()
    on_train = TrialBits(
        num_trials=90,
        subset_mask=bits.subset_mask,
        train_correct=bits.train_correct,
        test_correct=bits.train_correct,
    )
    diagonal = np.diag(estimate_influence(on_train, trials.every_example).value)
    np.testing.assert_array_equal(diagonal, estimate_memorization(bits).memorization)


@given(any_trials(), st.data())
@settings(deadline=None, max_examples=30)
def test_results_are_handed_on_in_order_whatever_the_order_they_come_in(trials: Trials, data: st.DataObject) -> None:
    inputs = inputs_of(
        trials, trials.packed(), PairSelection(min_influence=-1.0, min_memorization=-1.0), 1, by_class=False
    )
    order = data.draw(st.permutations(range(inputs.num_tiles)))
    taken: list[int] = []
    executor = InAnyOrder(order)
    run_tiles(inputs, executor, lambda tile, result: taken.append(tile))
    assert taken == list(range(inputs.num_tiles))


class InAnyOrder:
    """An executor whose outcomes come in an order of its own."""

    def __init__(self, order: Sequence[int]) -> None:
        self._inner = InProcessExecutor(lambda shared: lambda tile: tile, None)
        self._order, self._waiting = list(order), list[int]()
        self.num_workers = self.num_free = len(order) + 1

    def submit(self, block: int) -> None:
        self._waiting.append(block)

    def wait(self, timeout_seconds: float) -> Any:
        if len(self._waiting) < len(self._order):
            return []
        outcomes: list[BlockOutcome] = []
        for tile in self._order:
            self._inner.submit(tile)
            outcomes += self._inner.wait(0.0)
        self._order.clear()
        return outcomes

    def __enter__(self) -> InAnyOrder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


def test_results_that_wait_for_one_tile_do_not_pile_up() -> None:
    rng = np.random.default_rng(0)
    trials = Trials(*(rng.random((9, size)) < 0.5 for size in (300, 300, 3)))
    inputs = inputs_of(
        trials, trials.packed(), PairSelection(min_influence=-1.0, min_memorization=-1.0), 1, by_class=False
    )
    attempts: dict[int, int] = {}
    most_ahead = 0

    def fails_twice(tile: int) -> int:
        attempts[tile] = attempts.get(tile, 0) + 1
        if tile == 5 and attempts[tile] < 3:
            raise OSError("lost")
        return tile

    taken: list[int] = []

    def take(tile: int, result: int) -> None:
        nonlocal most_ahead
        most_ahead = max(most_ahead, max(attempts) - tile)
        taken.append(tile)

    run_tiles(inputs, ThreadExecutor(lambda shared: fails_twice, None, num_workers=3), take)
    assert taken == list(range(inputs.num_tiles))
    assert max(attempts.values()) == 3
    assert most_ahead < 30


def test_a_top_longer_than_there_are_examples_is_all_of_them() -> None:
    rng = np.random.default_rng(0)
    trials = Trials(*(rng.random((60, size)) < 0.5 for size in (20, 20, 10)))
    selection = PairSelection(min_influence=-1.0, min_memorization=-1.0, top_per_target=10**12, top_per_train=10**12)
    pairs = select_pairs(trials.packed(), np.ones(20), selection)
    assert len(pairs.train_index) == 20 * 10


def test_without_a_folder_to_write_to_the_kernel_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packing.njit  # type: ignore[attr-defined]

    def refusing(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(packing, "njit", refusing)
    assert packing.compiled(lambda x: x + 1)(2) == 3


def test_a_tile_that_cannot_be_counted_is_told() -> None:
    rng = np.random.default_rng(0)
    trials = Trials(*(rng.random((9, 4)) < 0.5 for _ in range(3)))
    inputs = inputs_of(
        trials, trials.packed(), PairSelection(min_influence=-1.0, min_memorization=-1.0), 1, by_class=False
    )

    def fail(tile: int) -> None:
        raise MemoryError("no memory left")

    executor = InProcessExecutor(lambda shared: fail, None)
    with pytest.raises(FeldmanError, match=r"could not be counted; first: tile \d+: MemoryError: no memory left"):
        run_tiles(inputs, executor, lambda tile, result: None)


@example(-1.5)
@given(st.one_of(st.floats(max_value=-1, exclude_max=True), st.floats(min_value=1, exclude_min=True), st.just(np.nan)))
def test_thresholds_are_differences_of_rates(value: float) -> None:
    for name in ("min_influence", "min_memorization"):
        with pytest.raises(QueryError, match=rf"{name} is a difference of two rates, -1 \.\. 1; found"):
            chosen_pairs(**{name: value})  # type: ignore[arg-type]


def test_a_top_is_of_all_pairs_unless_a_threshold_is_given() -> None:
    assert chosen_pairs() == PairSelection(min_influence=0.15, min_memorization=0.25)
    assert chosen_pairs(top_per_train=3) == PairSelection(min_influence=-1.0, min_memorization=-1.0, top_per_train=3)
    both = chosen_pairs(top_per_target=3, min_influence=0.2)
    assert (both.min_influence, both.min_memorization) == (0.2, -1.0)


def test_counts_of_rows_and_words_agree() -> None:
    rng = np.random.default_rng(5)
    bits: NDArray[np.bool_] = rng.random((301, 40)) < 0.3
    packed = Trials(bits, bits, bits).packed()
    np.testing.assert_array_equal(count_bits(packed.subset_mask, packed.subset_mask), bits.sum(axis=0))
