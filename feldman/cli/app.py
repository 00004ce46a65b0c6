"""The `feldman` command. Every command imports what it needs when it runs: ``--help`` costs no torch, Ray or Zarr."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from feldman import __version__
from feldman.cli.options import (
    AddressOption,
    AllOption,
    DashboardOption,
    FormatOption,
    JsonOption,
    OutputOption,
    RunArgument,
    RuntimeEnvOption,
    SpeculateOption,
    TopOption,
    UntilJaccardOption,
    UntilStderrOption,
    num_rows,
)
from feldman.cli.study_commands import add_study_commands
from feldman.errors import FeldmanError

__all__ = ["app", "main"]

app = typer.Typer(
    name="feldman",
    help="What neural networks memorize, and which predictions depend on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        typer.echo(f"feldman {__version__}")
        raise typer.Exit


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A preset's name, or a TOML file.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="RUN", help="The run directory. Default: runs/NAME.")
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="A:B",
            help="Train trials A to B - 1 alone; other runs may train the others, and `feldman merge` joins them.",
        ),
    ] = None,
    address: AddressOption = None,
    runtime_env: RuntimeEnvOption = None,
    speculate: SpeculateOption = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as in training.epochs=5.")
    ] = None,
    until_stderr: UntilStderrOption = None,
    until_jaccard: UntilJaccardOption = None,
    json: JsonOption = False,
) -> None:
    """Train the trials of an experiment and estimate; goes on where it stopped if RUN exists."""
    from feldman.cli.job_commands import JobOptions, run_job

    options = JobOptions(
        address=address,
        runtime_env=runtime_env,
        speculate=speculate,
        until_stderr=until_stderr,
        until_jaccard=until_jaccard,
        as_json=json,
    )
    run_job(experiment, output or str(Path("runs") / Path(experiment).stem), trials, overrides or [], options)


@app.command()
def resume(
    run: RunArgument,
    num_trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="Let the run grow to N trials.")] = None,
    address: AddressOption = None,
    runtime_env: RuntimeEnvOption = None,
    speculate: SpeculateOption = False,
    until_stderr: UntilStderrOption = None,
    until_jaccard: UntilJaccardOption = None,
    json: JsonOption = False,
) -> None:
    """Finish an interrupted run, train damaged blocks again, or let a finished run grow."""
    from feldman.cli.job_commands import JobOptions, resume_job

    options = JobOptions(
        address=address,
        runtime_env=runtime_env,
        speculate=speculate,
        until_stderr=until_stderr,
        until_jaccard=until_jaccard,
        as_json=json,
    )
    resume_job(run, num_trials, options)


@app.command()
def submit(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A preset's name, or a TOML file.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="RUN", help="The run directory: an absolute path there, or a URL.")
    ],
    address: DashboardOption,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the job's log until it ends, and leave with its exit code.")
    ] = False,
    working_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of your own modules to send, but for what .gitignore names."),
    ] = None,
    installed: Annotated[
        bool, typer.Option("--installed", help="Take the feldman that the cluster has, instead of sending this one.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as in training.epochs=5.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Hand a run over to a Ray cluster as a job; goes on where it stopped if RUN exists there."""
    from feldman.cli.submit_commands import Request, submit_job

    request = Request(
        experiment=experiment,
        run=output,
        address=address,
        working_dir=working_dir,
        installed=installed,
        overrides=tuple(overrides or ()),
    )
    submit_job(request, follow, json)


@app.command()
def jobs(address: DashboardOption, json: JsonOption = False) -> None:
    """List the runs that were submitted to a cluster: their jobs, run directories and progress."""
    from feldman.cli.submit_commands import show_jobs

    show_jobs(address, json)


@app.command()
def merge(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two or more runs of one experiment.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="RUN", help="The run directory to make.")],
    json: JsonOption = False,
) -> None:
    """Join the trials of runs that were trained apart into a new run, and estimate; the runs stay as they are."""
    from feldman.cli.store_commands import merge_runs

    merge_runs(runs, output, json)


@app.command()
def status(run: RunArgument, json: JsonOption = False) -> None:
    """Say how far a run is."""
    from feldman.cli.status_commands import show_status

    show_status(run, json)


@app.command()
def verify(run: RunArgument, json: JsonOption = False) -> None:
    """Compare every committed block with its checksums and with the plan. Exit code 1 if anything is wrong."""
    from feldman.cli.store_commands import verify_run

    verify_run(run, json)


@app.command()
def estimate(
    run: RunArgument,
    min_influence: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Keep pairs of at least this influence. Default: 0.15; none with a top."),
    ] = None,
    min_memorization: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="Keep pairs whose training example is memorized at least so much. Default: 0.25; none with a top.",
        ),
    ] = None,
    top_per_test: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Keep the K pairs of largest influence of each test example.")
    ] = None,
    top_per_train: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Keep the K of each training example (with both: in either).")
    ] = None,
    same_class: Annotated[
        bool, typer.Option("--same-class", help="Only pairs of one class: far fewer to count.")
    ] = False,
    targets: Annotated[
        str,
        typer.Option(metavar="test|train", help="Influence on test examples, or on the other training examples."),
    ] = "test",
    matrix: Annotated[
        str | None,
        typer.Option(metavar="float16|float32", help="Write the influence of all pairs, too, as RUN/influence.zarr."),
    ] = None,
    keep_counts: Annotated[
        bool,
        typer.Option(
            "--keep-counts", help="Keep counts in RUN/counts.zarr; next time read the blocks that are new only."
        ),
    ] = False,
    address: AddressOption = None,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda|cuda:N", help="Count with the compiled kernel, or on a GPU.")
    ] = "cpu",
    json: JsonOption = False,
) -> None:
    """Write memorization.parquet and influence.parquet from the trials committed so far; RUN may still be going."""
    from feldman.cli.estimate_command import EstimateOptions, estimate_run

    options = EstimateOptions(
        min_influence=min_influence,
        min_memorization=min_memorization,
        top_per_target=top_per_test,
        top_per_train=top_per_train,
        same_class=same_class,
        targets=targets,
        matrix=matrix,
        keep_counts=keep_counts,
        address=address,
        device=device,
    )
    estimate_run(run, options, json)


@app.command()
def memorized(
    run: RunArgument,
    top: TopOption = None,
    everything: AllOption = False,
    label: Annotated[int | None, typer.Option(help="Only examples of this class (its number).")] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            help="Only rows for which this SQL expression is true, as in 'memorization > 0.5 AND label IN (3, 7)'. Columns: "
            "train_index, label, memorization, stderr, ci_low, ci_high, num_in, num_out, correct_in, correct_out.",
        ),
    ] = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """List the most memorized training examples."""
    from feldman.cli.output import chosen_output
    from feldman.cli.query_commands import list_memorized
    from feldman.results.queries import MemorizedQuery

    query = MemorizedQuery(top=num_rows(top, everything), label=label, where=where)
    list_memorized(run, query, chosen_output(output_format, json, output))


@app.command()
def pairs(
    run: RunArgument,
    top: TopOption = None,
    everything: AllOption = False,
    train: Annotated[int | None, typer.Option(metavar="I", help="Only pairs with this training example.")] = None,
    target: Annotated[
        int | None,
        typer.Option("--test", "--target", metavar="J", help="Only pairs with this test, or target, example."),
    ] = None,
    targets: Annotated[
        Literal["test", "train"],
        typer.Option(help="Whose predictions: the test examples', or the training examples' (columns target_...)."),
    ] = "test",
    min_influence: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="At least this influence. Default: what the table was made with, 0.15."),
    ] = None,
    min_memorization: Annotated[
        float | None, typer.Option(min=-1, max=1, help="At least this memorization. Default: as in the table, 0.25.")
    ] = None,
    same_class: Annotated[bool, typer.Option("--same-class", help="Only pairs of one class.")] = False,
    honest: Annotated[
        bool,
        typer.Option(
            "--honest",
            help="Select on a random half of the trials, report from the other half, both ways; needs the trials.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the halves, with --honest.")] = 0,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            help="Only rows for which this SQL expression is true, as in 'influence > 0.3 AND train_label <> test_label'. "
            "Columns: train_index, test_index, influence, stderr, ci_low, ci_high, memorization, train_label, test_label, "
            "p_value, q_value; with --targets train, target_index and target_label.",
        ),
    ] = None,
    output_format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """List the most influential train/test pairs."""
    from feldman.cli.output import chosen_output
    from feldman.results.queries import PairQuery

    query = PairQuery(
        top=num_rows(top, everything),
        train=train,
        target=target,
        min_influence=min_influence,
        min_memorization=min_memorization,
        same_class=same_class,
        where=where,
    )
    chosen = chosen_output(output_format, json, output)
    if honest:
        from feldman.cli.honest_command import list_honest_pairs

        list_honest_pairs(run, targets, query, seed, chosen)
        return
    from feldman.cli.query_commands import list_pairs

    list_pairs(run, targets, query, chosen)


add_study_commands(app)


@app.command()
def report(
    run: RunArgument,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="The .html file. Default: RUN/report.html.")
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The N most memorized examples of each class, N/2 typical ones. Default: 3 to 24, 1,200 in all.",
        ),
    ] = None,
    top_pairs: Annotated[int, typer.Option(min=1, metavar="N", help="The N most influential pairs.")] = 5000,
    thumbnail: Annotated[
        int, typer.Option(min=8, max=512, metavar="PIXELS", help="Larger images are made so large.")
    ] = 64,
    max_megabytes: Annotated[
        float, typer.Option(min=0, metavar="MB", help="Of the file: pictures are left out beyond.")
    ] = 15,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Show the examples, or do without the data set.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Make a page of a run, one HTML file that needs no network: what is memorized, and what depends on it."""
    from feldman.cli.report_command import write_report
    from feldman.report.selection import PageLimits

    limits = PageLimits(per_class=per_class, top_pairs=top_pairs, thumbnail=thumbnail, max_megabytes=max_megabytes)
    write_report(run, output, limits, pictures=pictures, as_json=json)


@app.command()
def export(
    run: RunArgument,
    format: Annotated[
        Literal["authors", "datamodels"],
        typer.Option(
            help="authors: their .npz files of pairs, and of influences inside classes. "
            "datamodels: masks and correctness as .npy files."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="New or empty. Default: RUN/export-FORMAT."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a run's estimates or trials as files that other programs read."""
    from feldman.cli.exchange_commands import export_run

    export_run(run, format, output, json)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="An .npz file of the authors (pairs, or a matrix a class), or released run folders."
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="RUN", help="The run directory, new or empty.")],
    min_influence: Annotated[
        float | None,
        typer.Option(
            min=-1, max=1, help="Keep pairs of at least this influence. Default: all of a file of pairs, else 0.15."
        ),
    ] = None,
    min_memorization: Annotated[
        float | None, typer.Option(min=-1, max=1, help="The same for memorization; else 0.25.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="An .npz file with tr_labels and tt_labels, where SOURCE has none."),
    ] = None,
    class_names: Annotated[
        str | None, typer.Option(metavar="FILE", help="A text file with a class name a line, label 0 first.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a run directory of the authors' published estimates or released runs."""
    from feldman.cli.exchange_commands import ImportChoices, import_source

    chosen = ImportChoices(
        min_influence=min_influence, min_memorization=min_memorization, labels=labels, class_names=class_names
    )
    import_source(source, output, chosen, json)


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder with train/CLASS/*.jpg and test/CLASS/*.jpg (or val/).")
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to make, new or empty.")],
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Images become PIXELS x PIXELS.")] = 64,
    resize_short: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="The short side first becomes so long; the centre is kept. Default: --size."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many processes. Default: as many as there are cores.")
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out images that cannot be decoded, and list them.")
    ] = False,
    class_names: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A line a class: its folder, then its name, as LOC_synset_mapping.txt."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Decode a folder of images once, into arrays for the data set 'image-folder'; goes on where it was stopped."""
    from feldman.cli.prepare_command import prepare_source
    from feldman.data.preparing import PrepareOptions
    from feldman.trials.executor import usable_cores

    options = PrepareOptions(
        size=size,
        resize_short=resize_short,
        num_workers=workers or usable_cores(),
        skip_damaged=skip_damaged,
        class_names=None if class_names is None else Path(class_names),
    )
    prepare_source(source, output, options, json)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this preset's TOML file.")] = None,
) -> None:
    """List the experiments that ship, or print one to start your own from."""
    from feldman.cli.status_commands import show_presets

    show_presets(name)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; turn errors into one message and an exit code."""
    code = _exit_code()
    try:
        sys.stdout.flush()  # here, and not in Python's shutdown, whose complaint nobody could understand
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or _broken_output(error)
    sys.exit(code)


def _exit_code() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a class name may have letters that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except FeldmanError as error:
        typer.echo(f"feldman: {error}", err=True)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("feldman: interrupted", err=True)
        return 130
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())  # choices come a line each
        typer.echo(f"feldman: {message} (see feldman --help)", err=True)
        return 2
    except OSError as error:
        return _broken_output(error)
    if code == 130:  # typer's own answer to an interrupt inside a command
        typer.echo("feldman: interrupted", err=True)
    return code if isinstance(code, int) else 0


def _broken_output(error: OSError) -> int:
    if not isinstance(error, BrokenPipeError):  # then the reader of our output left, as `head` does: nobody to tell
        typer.echo(f"feldman: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", err=True)
    return 1
