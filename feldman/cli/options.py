"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from feldman.errors import QueryError

__all__ = [
    "AddressOption",
    "AllOption",
    "DashboardOption",
    "FormatOption",
    "JsonOption",
    "OutputOption",
    "PlotOption",
    "RunArgument",
    "RuntimeEnvOption",
    "SpeculateOption",
    "TopOption",
    "UntilJaccardOption",
    "UntilStderrOption",
    "num_rows",
]

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run directory.")]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR", help="A Ray cluster: HOST:6379, or 'auto' on one of its nodes. Default: this machine."
    ),
]
DashboardOption = Annotated[
    str, typer.Option("--address", metavar="URL", help="The dashboard of a Ray cluster's head: http://HOST:8265.")
]
RuntimeEnvOption = Annotated[
    str | None,
    typer.Option(metavar="FILE.json", help="Ray's runtime environment of the workers. It is not recorded in the run."),
]
SpeculateOption = Annotated[
    bool, typer.Option("--speculate", help="Near the end, train slow blocks a second time on free workers.")
]
UntilStderrOption = Annotated[
    float | None,
    typer.Option(
        "--until-stderr",
        metavar="S",
        help="Stop once memorization has a standard error of at most S, for 95% of all and of the memorized examples.",
    ),
]
UntilJaccardOption = Annotated[
    float | None,
    typer.Option(
        "--until-jaccard",
        metavar="J",
        help="Stop once halves of the trials agree by J on what is memorized and which pairs are influential.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
TopOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="How many rows. Default: 20.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every row, instead of --top.")]
FormatOption = Annotated[
    Literal["table", "json", "csv", "parquet"] | None,
    typer.Option("--format", help="Default: what FILE's suffix says, or a table for people."),
]
OutputOption = Annotated[
    str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a new file: .json, .csv or .parquet.")
]

PlotOption = Annotated[
    str | None, typer.Option("--plot", metavar="FILE", help="Draw it into a new file: .png, .svg or .pdf.")
]


def num_rows(top: int | None, everything: bool) -> int | None:
    """Settle how many rows are asked for; None is all.

    Raises
    ------
    QueryError
        If the options contradict each other.
    """
    if top is not None and everything:
        raise QueryError(f"--all is every row; found --top {top} too: give one of them")
    return None if everything else top or 20
