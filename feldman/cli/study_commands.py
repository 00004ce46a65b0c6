"""The commands of the studies: their options. What they do is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from feldman.cli.options import (
    AllOption,
    FormatOption,
    JsonOption,
    OutputOption,
    PlotOption,
    RunArgument,
    TopOption,
    num_rows,
)

__all__ = ["add_study_commands"]


def add_study_commands(app: typer.Typer) -> None:
    """Let the command line know them."""
    for command in (stability, plan, cscore, tail, lds, duplicates, null):
        app.command()(command)


def stability(
    run: RunArgument,
    sizes: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Trials in each half. Default: half of all, half of that, and so on."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="How many random splits of each size.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    min_influence: Annotated[
        float | None, typer.Option(min=-1, max=1, help="High influence is at least this. Default: 0.15.")
    ] = None,
    min_memorization: Annotated[
        float | None, typer.Option(min=-1, max=1, help="High memorization is at least this. Default: 0.25.")
    ] = None,
    same_class: Annotated[bool, typer.Option("--same-class", help="Only pairs of one class.")] = False,
    plot: PlotOption = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Say how far random halves of a run's trials agree, against the number of trials and against chance."""
    from feldman.cli.output import chosen_output
    from feldman.cli.stability_command import StabilityOptions, show_stability

    options = StabilityOptions(
        sizes=sizes,
        repeats=repeats,
        seed=seed,
        min_influence=min_influence,
        min_memorization=min_memorization,
        same_class=same_class,
        plot=plot,
    )
    show_stability(run, options, chosen_output(output_format, json, output))


def plan(
    run: RunArgument,
    target_stderr: Annotated[
        float | None,
        typer.Option("--target-stderr", metavar="S", help="The standard error that is wanted, as in 0.02."),
    ] = None,
    target_jaccard: Annotated[
        float | None,
        typer.Option("--target-jaccard", metavar="J", help="The agreement of two such runs that is wanted, as in 0.8."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How many blocks train at a time. Default: as this run does here."),
    ] = None,
    min_influence: Annotated[
        float | None, typer.Option(min=-1, max=1, help="High influence is at least this. Default: 0.15.")
    ] = None,
    min_memorization: Annotated[
        float | None, typer.Option(min=-1, max=1, help="High memorization is at least this. Default: 0.25.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the halves, for --target-jaccard.")] = 0,
    json: JsonOption = False,
) -> None:
    """Say from a pilot run how many trials a wanted precision needs, and what they will cost."""
    from feldman.cli.plan_command import PlanOptions, show_plan

    options = PlanOptions(
        target_stderr=target_stderr,
        target_jaccard=target_jaccard,
        workers=workers,
        min_influence=min_influence,
        min_memorization=min_memorization,
        seed=seed,
    )
    show_plan(run, options, json)


def cscore(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs of one learner and data set, at one or several subset ratios."),
    ],
    top: TopOption = None,
    everything: AllOption = False,
    min_influence: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="A test example is decided from this influence on. Default: 0.15."),
    ] = None,
    min_memorization: Annotated[
        float | None, typer.Option(min=-1, max=1, help="And by examples memorized so much. Default: 0.25.")
    ] = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """List the hardest training examples: accuracy without them, over subset ratios, and what they do for the test set."""
    from feldman.cli.cscore_command import show_cscores
    from feldman.cli.output import chosen_output
    from feldman.estimates.selection import chosen_pairs

    selection = chosen_pairs(min_influence=min_influence, min_memorization=min_memorization)
    show_cscores(runs, selection, num_rows(top, everything), chosen_output(output_format, json, output))


def tail(
    run: RunArgument,
    bins: Annotated[
        int, typer.Option(min=1, metavar="N", help="Bins of the histogram of memorization on 0 .. 1.")
    ] = 20,
    resamples: Annotated[
        int, typer.Option(min=2, metavar="N", help="Random halves of the trials, for the errors of counts.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the halves.")] = 0,
    min_influence: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="A test example is decided from this influence on. Default: 0.15."),
    ] = None,
    min_memorization: Annotated[
        float | None, typer.Option(min=-1, max=1, help="And by examples memorized so much. Default: 0.25.")
    ] = None,
    same_class: Annotated[bool, typer.Option("--same-class", help="Only pairs of one class.")] = False,
    top: TopOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every class, instead of the --top memorized.")] = False,
    plot: PlotOption = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Say what is in the tail: how many examples are memorized, the accuracy they carry, test examples decided by one."""
    from feldman.cli.output import chosen_output
    from feldman.cli.tail_command import TailOptions, show_tail

    options = TailOptions(
        bins=bins,
        resamples=resamples,
        seed=seed,
        min_influence=min_influence,
        min_memorization=min_memorization,
        same_class=same_class,
        top=num_rows(top, everything),
        plot=plot,
    )
    show_tail(run, options, chosen_output(output_format, json, output))


def lds(
    run: RunArgument,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Trials to estimate from. Default: all that are not held out, half, and so on."
        ),
    ] = None,
    held_out: Annotated[
        int | None, typer.Option("--held-out", min=1, metavar="N", help="Trials to predict. Default: a fifth of all.")
    ] = None,
    num_tests: Annotated[int, typer.Option("--num-tests", min=1, metavar="N", help="Test examples, drawn.")] = 100,
    estimators: Annotated[
        str, typer.Option(metavar="NAME,...", help="difference, ridge, lasso (seconds for each test example).")
    ] = "difference,ridge",
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    plot: PlotOption = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Say how well influences add up: held-out trials, predicted from their subsets (linear datamodeling score)."""
    from feldman.cli.lds_command import LdsOptions, show_lds
    from feldman.cli.output import chosen_output

    options = LdsOptions(
        sizes=sizes, held_out=held_out, num_tests=num_tests, estimators=estimators, seed=seed, plot=plot
    )
    show_lds(run, options, chosen_output(output_format, json, output))


def duplicates(
    run: RunArgument,
    min_correlation: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="R", help="Images whose pixels correlate by this are near-duplicates."),
    ] = 0.97,
    top: TopOption = None,
    everything: AllOption = False,
    found: Annotated[
        str | None,
        typer.Option("--list", metavar="FILE", help="Write all near-duplicates, too: .json, .csv or .parquet."),
    ] = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Flag pairs whose two images are one, or nearly so, and say what is left of the figures without them."""
    from feldman.cli.duplicates_command import DuplicateOptions, show_duplicates
    from feldman.cli.output import chosen_output

    listed = None if found is None else chosen_output(None, False, found)
    options = DuplicateOptions(min_correlation=min_correlation, top=num_rows(top, everything), found=listed)
    show_duplicates(run, options, chosen_output(output_format, json, output))


def null(
    run: RunArgument,
    min_memorization: Annotated[
        float, typer.Option(min=-1, max=1, help="A threshold of memorization, shown beside usual ones.")
    ] = 0.25,
    json: JsonOption = False,
) -> None:
    """Say how memorized the examples with random labels are (dataset.random_labels), and which thresholds find them."""
    from feldman.cli.null_command import show_null

    show_null(run, min_memorization, json)
