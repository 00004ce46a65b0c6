"""Designed subsets: every arm gets what it should, arms take turns, and a store knows its design."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from feldman.errors import CorruptStoreError, ExperimentError, RunDirectoryError
from feldman.estimates.reading import read_bits
from feldman.experiment import SubsetsSection
from feldman.trials.design import DRAWS, Arm, Design, DesignedPlan, Level, made_plan
from feldman.trials.integrity import find_damage
from feldman.trials.plan import RandomPlan
from feldman.trials.store import TrialStore
from feldman.trials.task import prepare_block_task
from tests.conftest import small_dataset, small_experiment


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a design is made of. It is made in the test: checks of annotations draw random numbers, which strategies may not."""

    kept: list[list[bool]]
    order: list[int]
    labels: list[int]
    together: int

    def design(self) -> tuple[Design, NDArray[np.int64]]:
        """Every arm of every level once, in some order; and labels."""
        arms = [Arm(level=level, draw=draw) for level in range(len(self.kept)) for draw in DRAWS]
        levels = [Level(threshold=k / 10, removed="memorized") for k in range(len(self.kept))]
        ordered = [arms[place] for place in self.order]
        return Design.of(levels, ordered, np.array(self.kept), self.together), np.array(self.labels)


@st.composite
def designs(draw: st.DrawFn) -> Parts:
    num_train, num_levels = draw(st.integers(2, 40)), draw(st.integers(1, 4))
    bits = st.lists(st.booleans(), min_size=num_train, max_size=num_train)
    kept = [[True, *draw(bits)[1:]] for _ in range(num_levels)]
    return Parts(
        kept=kept,
        order=draw(st.permutations(range(num_levels * len(DRAWS)))),
        labels=draw(st.lists(st.integers(0, 3), min_size=num_train, max_size=num_train)),
        together=draw(st.integers(1, 5)),
    )


@settings(max_examples=50)
@given(designs(), st.integers(0, 2**40))
def test_every_trial_learns_from_what_its_arm_says(planned: Parts, seed: int) -> None:
    design, labels = planned.design()
    plan = DesignedPlan(seed=seed, design=design, labels=labels)
    trials = range(design.num_trials(3))
    for trial, mask in zip(trials, plan.masks(trials), strict=True):
        arm = design.arms[design.arm_and_repeat(trial)[0]]
        kept = design.kept(arm.level)
        assert mask.sum() == kept.sum()
        if arm.draw == "removal":
            np.testing.assert_array_equal(mask, kept)
        if arm.draw == "class":
            np.testing.assert_array_equal(
                np.bincount(labels[mask], minlength=4), np.bincount(labels[kept], minlength=4)
            )


@settings(max_examples=40)
@given(designs())
def test_arms_take_turns_and_every_repeat_of_every_arm_is_one_trial(
    planned: Parts,
) -> None:
    design, _ = planned.design()
    together, num_arms = design.repeats_together, len(design.arms)
    found = [design.arm_and_repeat(trial) for trial in range(2 * num_arms * together)]
    assert sorted(found) == [(arm, repeat) for arm in range(num_arms) for repeat in range(2 * together)]
    for block in range(0, len(found), together):  # as many examples in all trials of a block
        assert len({arm for arm, _ in found[block : block + together]}) == 1
    assert {arm for arm, _ in found[: num_arms * together]} == set(range(num_arms))
    assert design.num_trials(together + 1) == len(found)


@settings(max_examples=40)
@given(designs())
def test_repeats_share_their_seed_and_what_is_removed_at_random_is_nested(
    planned: Parts,
) -> None:
    design, labels = planned.design()
    plan, trials = DesignedPlan(seed=3, design=design, labels=labels), range(design.num_trials(2))
    seeds, masks = plan.seeds(trials), plan.masks(trials)
    drawn: dict[int, dict[int, NDArray[np.bool_]]] = {}
    of_repeat: dict[int, set[int]] = {}
    for trial in trials:
        arm, repeat = design.arm_and_repeat(trial)
        of_repeat.setdefault(repeat, set()).add(int(seeds[trial]))
        if design.arms[arm].draw == "random":
            drawn.setdefault(repeat, {})[int(masks[trial].sum())] = masks[trial]
    assert all(len(one) == 1 for one in of_repeat.values())
    assert len(set.union(*of_repeat.values())) == len(of_repeat)
    for sizes in drawn.values():
        ordered = [sizes[size] for size in sorted(sizes)]
        assert all((small <= large).all() for small, large in pairwise(ordered))


@settings(max_examples=40)
@given(designs(), st.integers(1, 10**6), st.integers(0, 30))
def test_a_trial_does_not_depend_on_those_it_is_drawn_with(planned: Parts, seed: int, trial: int) -> None:
    design, labels = planned.design()
    plan = DesignedPlan(seed=seed, design=design, labels=labels)
    trials = range(max(trial - 3, 0), trial + 3)
    np.testing.assert_array_equal(plan.masks(trials)[trials.index(trial)], plan.masks(range(trial, trial + 1))[0])
    np.testing.assert_array_equal(plan.seeds(trials)[trials.index(trial)], plan.seeds(range(trial, trial + 1))[0])


def test_random_subsets_of_an_arm_hold_every_example_equally_often() -> None:
    kept = np.arange(20) < 12
    design = Design.of([Level(threshold=0.5, removed="memorized")], [Arm(level=0, draw="random")], kept[None], 1)
    masks = DesignedPlan(seed=5, design=design, labels=np.zeros(20, np.int64)).masks(range(2000))
    share = masks.mean(axis=0)  # standard deviation 0.011
    assert (np.abs(share - 0.6) < 0.05).all()


def test_a_design_that_leaves_nothing_or_has_no_such_level_is_refused() -> None:
    level, arm = Level(threshold=0.1, removed="memorized"), Arm(level=0, draw="removal")
    with pytest.raises(ExperimentError, match=r"memorization >= 0\.1 leaves no training example; take a higher"):
        Design.of([level], [arm], np.zeros((1, 5), bool), 1)
    with pytest.raises(ExperimentError, match="each has one of its levels"):
        Design.of([level], [Arm(level=1, draw="removal")], np.ones((1, 5), bool), 1)
    with pytest.raises(ExperimentError, match="repeats lie together by 1 or more; found 0"):
        Design.of([level], [arm], np.ones((1, 5), bool), 0)


@settings(max_examples=40)
@given(designs(), designs())
def test_designs_have_one_fingerprint_just_if_they_are_equal(first: Parts, second: Parts) -> None:
    one, other = first.design()[0], second.design()[0]
    kept = np.array([one.kept(level) for level in range(len(one.levels))])
    again = Design.from_store(json.loads(json.dumps(one.attributes())), kept)
    assert again.fingerprint == one.fingerprint
    same = one.attributes() == other.attributes() and one.num_train == other.num_train
    same = same and np.array_equal(one.packed_kept, other.packed_kept)
    assert (one.fingerprint == other.fingerprint) == same


def test_without_a_design_the_plan_is_the_random_one() -> None:
    plan = made_plan(SubsetsSection(seed=4, subset_ratio=0.6), np.zeros(10, np.int64), None)
    assert plan == RandomPlan(seed=4, subset_ratio=0.6, num_train=10)


def small_design() -> Design:
    kept = np.array([np.ones(60, bool), np.arange(60) % 4 > 0])
    levels = [Level(threshold=None, removed="nothing"), Level(threshold=0.5, removed="memorized")]
    return Design.of(levels, [Arm(level=0, draw="removal"), *(Arm(level=1, draw=draw) for draw in DRAWS)], kept, 4)


def designed_store(folder: Path) -> TrialStore:
    """A store of 16 trials of a design, all committed."""
    design, dataset = small_design(), small_dataset()
    folder.mkdir()
    experiment = small_experiment(folder / "data.npz", num_trials=16, block_size=4)
    experiment = experiment.replace("subsets", {"design": design.fingerprint})
    store = TrialStore.create(folder / "trials.zarr", experiment, dataset, None, design)
    task = prepare_block_task(experiment, (), dataset, design=design)
    for block in range(store.num_blocks):
        store.commit_block(task(block))
    return TrialStore.open(folder / "trials.zarr")


def test_a_store_keeps_its_design_and_holds_what_the_plan_says(tmp_path: Path) -> None:
    store = designed_store(tmp_path / "run")
    assert store.design is not None
    assert store.design.fingerprint == small_design().fingerprint
    assert find_damage(store) == []
    group = zarr.open_group(store.path, mode="r")
    assert group.attrs["subset_plan"] == "designed"
    np.testing.assert_array_equal(np.asarray(group["design_kept"])[1], np.arange(60) % 4 > 0)
    masks = np.concatenate([store.read("subset_mask", block) for block in range(4)])
    plan = store.plan
    assert plan is not None
    np.testing.assert_array_equal(masks, plan.masks(range(16)))


def test_nothing_is_estimated_from_designed_subsets(tmp_path: Path) -> None:
    store = designed_store(tmp_path / "run")
    says = (
        r"is a study of removed examples: its subsets are no random ones.*`feldman removal .*run` shows what came out"
    )
    with pytest.raises(RunDirectoryError, match=says):
        read_bits(store)


def test_a_design_that_is_lost_or_another_is_damage(tmp_path: Path) -> None:
    store = designed_store(tmp_path / "run")
    array = zarr.open_group(store.path, mode="r+")["design_kept"]
    assert isinstance(array, zarr.Array)
    array[1, 3] = False
    with pytest.raises(CorruptStoreError, match=r"its array design_kept is of another design"):
        _ = TrialStore.open(store.path).plan
    (chunk,) = (path for path in (tmp_path / "run/trials.zarr/design_kept/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptStoreError, match=r"its array design_kept cannot be read"):
        _ = TrialStore.open(store.path).design


def test_an_experiment_says_nothing_of_ratios_where_subsets_are_designed() -> None:
    with pytest.raises(ValidationError, match="subset_ratio says nothing of designed subsets; take it out"):
        SubsetsSection(design="0" * 64, subset_ratio=0.5)


def test_an_experiment_without_a_design_keeps_its_fingerprint(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path / "data.npz")
    assert "subsets.design" not in experiment.identity()
    designed = experiment.replace("subsets", {"design": "0" * 64})
    assert designed.fingerprint != experiment.fingerprint
