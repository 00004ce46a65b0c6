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

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run directory.")]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR", help="A Ray cluster: HOST:6379, or 'auto' on one of its nodes. Default: this machine."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
TopOption = Annotated[int, typer.Option(min=1, help="How many rows.")]


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
    address: AddressOption = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as in training.epochs=5.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train the trials of an experiment and estimate; goes on where it stopped if RUN exists."""
    from feldman.cli.job_commands import run_job

    run_job(experiment, output or str(Path("runs") / Path(experiment).stem), address, overrides or [], json)


@app.command()
def resume(
    run: RunArgument,
    num_trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="Let the run grow to N trials.")] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Finish an interrupted run, train damaged blocks again, or let a finished run grow."""
    from feldman.cli.job_commands import resume_job

    resume_job(run, num_trials, address, json)


@app.command()
def status(run: RunArgument, json: JsonOption = False) -> None:
    """Say how far a run is."""
    from feldman.cli.query_commands import show_status

    show_status(run, json)


@app.command()
def verify(run: RunArgument, json: JsonOption = False) -> None:
    """Compare every committed block with its checksums and with the plan. Exit code 1 if anything is wrong."""
    from feldman.cli.store_commands import verify_run

    verify_run(run, json)


@app.command()
def estimate(
    run: RunArgument,
    min_influence: Annotated[float, typer.Option(min=-1, max=1, help="Keep pairs of at least this influence.")] = 0.15,
    min_memorization: Annotated[
        float, typer.Option(min=-1, max=1, help="Keep pairs whose training example is memorized at least so much.")
    ] = 0.25,
    json: JsonOption = False,
) -> None:
    """Write memorization.parquet and influence.parquet from the trials committed so far; RUN may still be going."""
    from feldman.cli.store_commands import estimate_run

    estimate_run(run, min_influence, min_memorization, json)


@app.command()
def memorized(
    run: RunArgument,
    top: TopOption = 20,
    label: Annotated[int | None, typer.Option(help="Only examples of this class (its number).")] = None,
    json: JsonOption = False,
) -> None:
    """List the most memorized training examples."""
    from feldman.cli.query_commands import list_memorized

    list_memorized(run, top, label, json)


@app.command()
def pairs(
    run: RunArgument,
    top: TopOption = 20,
    train: Annotated[int | None, typer.Option(metavar="I", help="Only pairs with this training example.")] = None,
    test: Annotated[int | None, typer.Option(metavar="J", help="Only pairs with this test example.")] = None,
    min_influence: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="At least this influence. Default: what the table was made with, 0.15."),
    ] = None,
    min_memorization: Annotated[
        float | None, typer.Option(min=-1, max=1, help="At least this memorization. Default: as in the table, 0.25.")
    ] = None,
    same_class: Annotated[bool, typer.Option("--same-class", help="Only pairs of one class.")] = False,
    json: JsonOption = False,
) -> None:
    """List the most influential train/test pairs."""
    from feldman.cli.query_commands import PairFilter, list_pairs

    chosen = PairFilter(
        train=train, test=test, min_influence=min_influence, min_memorization=min_memorization, same_class=same_class
    )
    list_pairs(run, top, chosen, json)


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
def compare(
    run: RunArgument,
    with_file: Annotated[
        str, typer.Option("--with", metavar="FILE", help="An .npz file of the authors: pairs, or a matrix a class.")
    ],
    json: JsonOption = False,
) -> None:
    """Say how well a run agrees with published estimates of the same examples."""
    from feldman.cli.exchange_commands import compare_run

    compare_run(run, with_file, json)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this preset's TOML file.")] = None,
) -> None:
    """List the experiments that ship, or print one to start your own from."""
    from feldman.cli.query_commands import show_presets

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
