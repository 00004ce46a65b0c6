"""The commands of the studies: their options. What they do is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from feldman.cli.options import (
    AddressOption,
    AllOption,
    FormatOption,
    JsonOption,
    OutputOption,
    PlotOption,
    RunArgument,
    RuntimeEnvOption,
    SpeculateOption,
    TopOption,
    num_rows,
)

__all__ = ["add_study_commands"]


def add_study_commands(app: typer.Typer) -> None:
    """Let the command line know them."""
    for command in (stability, compare, plan, cscore, tail, lds, duplicates, null, removal, features):
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


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs of one data set; all others are compared with the first."),
    ],
    with_file: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="FILE",
            help="Compare one run with an .npz file of the authors: pairs, or a matrix a class.",
        ),
    ] = None,
    memorization_thresholds: Annotated[
        str | None, typer.Option(metavar="X,X,...", help="Of memorization. Default: 0.05, 0.1, ..., 0.95.")
    ] = None,
    influence_thresholds: Annotated[
        str | None, typer.Option(metavar="X,X,...", help="Of influence. Default: 0.1, 0.15, ..., 0.6.")
    ] = None,
    min_memorization: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Pairs are of examples that the same run finds memorized so. Default: 0.25."),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Trials are drawn N times for error bands; 0: no bands. Default: 100."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Random splits into halves, and shuffles. Default: 5.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is drawn. Default: 0.")] = None,
    plot: PlotOption = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Say how far runs of several learners agree on what is memorized and influential; or a run and published estimates."""
    from feldman.cli.compare_command import CompareOptions, check_one_run, show_comparison
    from feldman.cli.output import chosen_output

    options = CompareOptions(
        memorization_thresholds=memorization_thresholds,
        influence_thresholds=influence_thresholds,
        min_memorization=min_memorization,
        bootstrap=bootstrap,
        repeats=repeats,
        seed=seed,
        plot=plot,
    )
    if with_file is None:
        show_comparison(runs, options, chosen_output(output_format, json, output))
        return
    from feldman.cli.exchange_commands import compare_run

    check_one_run(runs, {**vars(options), "output": output, "format": output_format})
    compare_run(runs[0], with_file, json)


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


def removal(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run whose estimates say what is memorized; or a study, to see what came out."
        ),
    ],
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="M,M,...",
            help="Examples memorized at least so much are removed. Default: 0.1, 0.2, 0.25, 0.3 to 0.9.",
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="R", help="How often each removal is trained. Default: 20.")
    ] = None,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Compare with as many random examples of each class, too.")
    ] = False,
    by_influence: Annotated[
        bool,
        typer.Option(
            "--by-influence",
            help="Remove, too, those alone that have a pair of high influence, and those that have none.",
        ),
    ] = False,
    study: Annotated[
        str | None, typer.Option(metavar="STUDY", help="The run directory of the study. Default: RUN-removal.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Train otherwise than RUN, as in execution.gpus_per_block=1."),
    ] = None,
    address: AddressOption = None,
    runtime_env: RuntimeEnvOption = None,
    speculate: SpeculateOption = False,
    plot: PlotOption = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Train without the memorized examples, and without as many random ones; go on where it stopped if STUDY exists."""
    from feldman.cli.output import chosen_output
    from feldman.cli.removal_command import RemovalOptions, show_removal

    options = RemovalOptions(
        thresholds=thresholds,
        repeats=repeats,
        by_class=by_class,
        by_influence=by_influence,
        study=study,
        overrides=tuple(overrides or ()),
        address=address,
        runtime_env=runtime_env,
        speculate=speculate,
        plot=plot,
    )
    show_removal(run, options, chosen_output(output_format, json, output))


def features(
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT",
            help="A preset's name or a TOML file; or a folder or URL, which is a run: its experiment, on the same data.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FOLDER", help="New or empty; if these very features are there, nothing is done."
        ),
    ],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, metavar="N", help="Of the network; no trial has it.")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as in training.epochs=5.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train one network on all training examples; write what its last layer gets, as a data set for other learners.

    On dataset.name = "arrays", dataset.path = "FOLDER" a run with learner.name = "linear" then trains last layers alone.
    """
    from feldman.cli.features_command import compute_features

    compute_features(experiment, output, overrides or [], seed, json)
