"""Figures: what they show, and that the same figure has the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feldman.estimates.selection import PairSelection
from feldman.report.comparison_figure import comparison_figure
from feldman.report.lds_figure import lds_figure
from feldman.report.removal_figure import removal_figure
from feldman.report.stability_figure import stability_figure
from feldman.report.style import save_figure
from feldman.report.tail_figure import tail_figure
from feldman.results.tables import influence_schema
from feldman.studies.comparison import ComparisonPlan, measure_comparison, summarize_run
from feldman.studies.lds import LdsPlan, measure_lds
from feldman.studies.marginal_utility import marginal_utility
from feldman.studies.removal import RemovalPlan, removal_design, removal_table
from feldman.studies.stability import StabilityPlan, measure_stability
from feldman.studies.tail import TailPlan, tail_of_estimates
from feldman.studies.tail_report import tail_of_trials
from tests.benchmarks.band_coverage import two_learners
from tests.benchmarks.planted import planted_learner


def test_the_stability_figure_shows_three_measures_of_both_estimates_beside_chance() -> None:
    labels = np.zeros(60, np.int64), np.zeros(60, np.int64)
    plan = StabilityPlan(sizes=(20, 40), num_repeats=2, selection=PairSelection(min_influence=0.2))
    figure = stability_figure(measure_stability(planted_learner().trials(80, 0), labels, plan))
    assert [axes.get_title() or axes.get_title("left") for axes in figure.axes] == [
        f"{measure}, {estimate}"
        for estimate in ("memorization", "influence")
        for measure in ("Jaccard similarity", "mean difference", "rank correlation")
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["halves", "chance"]


@pytest.mark.parametrize("num_classes", [3, 40])
def test_the_tail_figure_has_a_panel_for_all_that_is_known(tmp_path: Path, num_classes: int) -> None:
    bits, labels = planted_learner().trials(80, 0), (np.arange(60) % num_classes, np.arange(60) % num_classes)
    plan = TailPlan(num_resamples=5)
    report = tail_of_trials(bits, labels, plan, PairSelection(min_influence=0.3))
    figure = tail_figure(report, ("a", "b"))
    panels = [
        "training examples by memorization",
        "examples that reach a threshold",
        "share of a class that reaches",
        "test accuracy that they carry",
        "examples by their pairs",
    ]
    assert [axes.get_title("left") for axes in figure.axes] == panels
    named = [text.get_text() for text in figure.axes[2].get_xticklabels()]
    if num_classes == 3:
        assert set(named) == {"a", "b", "2"}
    else:
        assert figure.axes[2].get_xlabel() == "40 classes, most memorized first"
    save_figure(figure, tmp_path / "tail.svg")
    alone = replace(report, memorization=None, carried=())
    assert [axes.get_title("left") for axes in tail_figure(alone).axes] == panels[-1:]
    without = replace(
        report,
        memorization=tail_of_estimates(np.full(60, np.nan), None, plan),
        carried=(),
        pairs=marginal_utility(influence_schema().empty_table()),
    )
    figure = tail_figure(without)
    assert [axes.get_title("left") for axes in figure.axes] == [*panels[:2], panels[-1]]
    save_figure(figure, tmp_path / "empty.svg")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_is_saved_whole_and_the_same_one_has_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    labels = np.zeros(60, np.int64), np.zeros(60, np.int64)
    table = measure_stability(planted_learner().trials(40, 0), labels, StabilityPlan(sizes=(20,), num_repeats=1))
    for name in ("first", "second"):
        save_figure(stability_figure(table), tmp_path / f"{name}.{suffix}")
    first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("first", "second"))
    assert first == second
    assert len(first) > 5000
    assert len(list(tmp_path.iterdir())) == 2


def test_the_lds_figure_shows_every_estimator_beside_its_chance() -> None:
    bits = planted_learner().trials(120, 0)
    figure = lds_figure(measure_lds(bits, LdsPlan(sizes=(30, 60), num_held_out=40, num_test=10)))
    (legend,) = figure.legends
    named = {text.get_text() for text in legend.get_texts()}
    assert named == {"difference", "difference, chance", "ridge", "ridge, chance"}


@pytest.mark.parametrize(("by_influence", "num_columns"), [(False, 1), (True, 3)])
def test_the_removal_figure_shows_accuracies_above_what_remains(by_influence: bool, num_columns: int) -> None:
    plan = RemovalPlan(thresholds=(0.3, 0.5), repeats=2, by_class=by_influence, by_influence=by_influence)
    memorization = np.array([0.9, 0.6, 0.4, 0.3, 0.0])
    design = removal_design(plan, memorization, np.array([True, False, True, False, False]), 2)
    trials = range(design.num_trials(2))
    figure = removal_figure(removal_table(design, trials, np.linspace(0.8, 0.9, len(trials))))
    assert len(figure.axes) == 2 * num_columns
    (legend,) = figure.legends
    series = ["memorized removed", "as many at random", *(["as many of each class"] if by_influence else [])]
    assert [text.get_text() for text in legend.get_texts()] == [*series, "nothing removed"]
    assert [len(panel.patches) for panel in figure.axes] == [0] * num_columns + [2] * num_columns


def test_the_comparison_figure_has_the_papers_four_panels_and_a_line_with_a_band_for_every_run() -> None:
    learners = two_learners(40)
    runs = [(f"runs/{number}", learners.trials(number % 2, 40, number)) for number in range(4)]
    plan = ComparisonPlan(influence=(0.1, 0.2, 0.9), num_resamples=3, num_repeats=1)
    words = ("cnn", "linear", "linear", "mlp")
    summaries = [summarize_run(name, word, 0.7, bits) for (name, bits), word in zip(runs, words, strict=True)]
    figure = comparison_figure(measure_comparison(runs, plan), summaries)
    assert [axes.get_title("left") for axes in figure.axes] == [
        f"{figure_name}, {estimate}"
        for estimate in ("memorization", "influence")
        for figure_name in ("average difference D", "Jaccard similarity J")
    ]
    (legend,) = figure.legends
    numbers = [f"({each.num_pairs:,} pairs, {100 * each.mean_test_accuracy:.1f}%)" for each in summaries]
    assert [text.get_text() for text in legend.get_texts()] == [
        f"linear, runs/1 {numbers[1]}",
        f"linear, runs/2 {numbers[2]}",
        f"mlp {numbers[3]}",
        f"reference: cnn {numbers[0]}, its halves",
        "halves of a run (20 trials a side)",
        "by chance",
    ]
    for axes in figure.axes:
        assert len(axes.collections) == 3, "bands"
        marked = [line for line in axes.lines if line.get_marker() != "None"]
        assert len({(line.get_color(), line.get_marker()) for line in marked}) == len(marked) == 3
        assert axes.get_ylim()[0] == 0


def test_a_comparison_in_which_nothing_is_selected_can_be_drawn() -> None:
    learners = two_learners(40)
    runs = [(f"runs/{number}", learners.trials(number, 40, number)) for number in range(2)]
    plan = ComparisonPlan(memorization=(1.0,), influence=(1.0,), num_resamples=2, num_repeats=1)
    figure = comparison_figure(
        measure_comparison(runs, plan), [summarize_run(name, "cnn", 0.7, bits) for name, bits in runs]
    )
    figure.canvas.draw()
