"""The tables of SCALING.md, from the presets' costs, the driver's measured ones and the simulation. `make scaling` calls it.

python cluster/scaling_tables.py --seed 0 --write cluster/SCALING.md    # remakes what stands between the page's marks
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from math import ceil, inf
from pathlib import Path

from simulate import Fleet, Job, simulate

PRESETS = Path(__file__).parent.parent / "feldman" / "presets"

NUM_SEEDS = 3

COMMIT_SECONDS = 0.012
WAIT_SECONDS_A_WORKER = 0.85e-6
"""What a block costs the driver: its commit, and one look at the calls of all workers.

`make bench-scheduling` commits 168 blocks of CIFAR-100's rows a second, 6 ms each; ImageNet's take 6 ms more. The look is
measured by `driver_costs.py`."""


def preset(name: str) -> tuple[float, int]:
    """Return a preset's hours of an H100 a trial, as its first line reckons them, and its number of trials."""
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    hours = re.search(r"about ([\d,]+) hours of an H100", text)
    if hours is None:
        raise SystemExit(f"the first line of the preset '{name}' says no 'about N hours of an H100'")
    num_trials = int(tomllib.loads(text)["subsets"]["num_trials"])
    return float(hours[1].replace(",", "")) / num_trials, num_trials


def commit_seconds(num_workers: int) -> float:
    """Return what one block costs the driver of so many workers."""
    return COMMIT_SECONDS + WAIT_SECONDS_A_WORKER * num_workers


def row(label: str, fleet: Fleet, job: Job, seed: int) -> list[str]:
    """Simulate a few times; return the cells of a row: of the run that took the median time, and between which times all lay."""
    outcomes = sorted((simulate(fleet, job, seed + k) for k in range(NUM_SEEDS)), key=lambda outcome: outcome.hours)
    outcome = outcomes[NUM_SEEDS // 2]
    ideal = ceil(job.num_blocks / fleet.num_workers) * job.block_hours
    return [
        label,
        f"{ideal:,.1f}",
        f"{outcome.hours:,.1f} ({outcomes[0].hours:,.1f} to {outcomes[-1].hours:,.1f})",
        f"{outcome.useful_hours + outcome.lost_hours:,.0f}",
        f"{outcome.lost_share:.1%}",
        f"{outcome.attempts - job.num_blocks:,}",
        f"{outcome.driver_share:.2%}",
    ]


HEADER = [
    "",
    "hours, ideal",
    "hours: median (all)",
    "GPU-hours trained",
    "thrown away",
    "blocks tried again",
    "driver busy",
]


def nodes_table(seed: int) -> list[list[str]]:
    """CIFAR-100's ResNet-50 on more and more GPUs."""
    hours, num_trials = preset("cifar100-resnet50")
    rows = [HEADER]
    for num_workers, block_size in ((8, 4), (64, 4), (256, 4), (256, 1), (1000, 4), (1000, 1), (4000, 1)):
        job = Job(
            num_blocks=num_trials // block_size,
            block_hours=hours * block_size,
            spread=0.03,
            commit_seconds=commit_seconds(num_workers),
        )
        fleet = Fleet(num_workers=num_workers, losses_per_hour=0.05)
        rows.append(row(f"{num_workers:,} GPUs, blocks of {block_size}", fleet, job, seed))
    return rows


def losses_table(seed: int) -> list[list[str]]:
    """ImageNet on 256 GPUs, by how often nodes are lost, with and without checkpoints."""
    hours, num_trials = preset("imagenet-resnet50")
    rows = [HEADER]
    for losses in (0.0, 0.01, 0.05, 0.1):
        for checkpoint_hours in (inf, 1.0) if losses else (inf,):
            job = Job(
                num_blocks=num_trials,
                block_hours=hours,
                spread=0.03,
                checkpoint_hours=checkpoint_hours,
                commit_seconds=commit_seconds(256),
            )
            every = "from the start" if checkpoint_hours == inf else f"every {checkpoint_hours:g} h"
            label = f"{losses:g} losses an hour, {every}" if losses else "no losses"
            rows.append(row(label, Fleet(num_workers=256, losses_per_hour=losses), job, seed))
    return rows


def stragglers_table(seed: int) -> list[list[str]]:
    """One attempt in a hundred takes five times as long."""
    hours, num_trials = preset("cifar100-resnet50")
    rows = [HEADER]
    for num_workers in (64, 1000):
        for speculate in (False, True):
            job = Job(
                num_blocks=num_trials // 4,
                block_hours=hours * 4,
                spread=0.03,
                straggler_share=0.01,
                straggler_factor=5,
                speculate=speculate,
                commit_seconds=commit_seconds(num_workers),
            )
            label = f"{num_workers:,} GPUs{', with `--speculate`' * speculate}"
            rows.append(row(label, Fleet(num_workers=num_workers), job, seed))
    return rows


def large_table(seed: int) -> list[list[str]]:
    """10,000 GPUs."""
    cifar, num_cifar = preset("cifar100-resnet50")
    imagenet, num_imagenet = preset("imagenet-resnet50")
    rows = [HEADER]
    for label, num_trials, hours, checkpoint_hours in (
        (f"CIFAR-100, {num_cifar:,} trials", num_cifar, cifar, inf),
        ("CIFAR-100, 100,000 trials", 100_000, cifar, inf),
        (f"ImageNet, {num_imagenet:,} trials", num_imagenet, imagenet, inf),
        (f"ImageNet, {num_imagenet:,} trials, checkpoints", num_imagenet, imagenet, 1.0),
        ("ImageNet, 20,000 trials, checkpoints", 20_000, imagenet, 1.0),
    ):
        job = Job(
            num_blocks=num_trials,
            block_hours=hours,
            spread=0.03,
            checkpoint_hours=checkpoint_hours,
            speculate=True,
            commit_seconds=commit_seconds(10_000),
        )
        rows.append(row(label, Fleet(num_workers=10_000, losses_per_hour=0.05), job, seed))
    return rows


TABLES: dict[str, Callable[[int], list[list[str]]]] = {
    "nodes": nodes_table,
    "losses": losses_table,
    "stragglers": stragglers_table,
    "large": large_table,
}


def markdown(rows: Iterable[list[str]]) -> str:
    """Return rows, of which the first is the header, as a table."""
    header, *body = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_tables(page: str, seed: int) -> str:
    """Return the page with what stands between its marks made anew."""
    for name, table in TABLES.items():
        mark = re.compile(rf"(<!-- {name}: made by `make scaling` -->\n)(?:\|.*\n)*(<!-- end -->)")
        page, found = mark.subn(rf"\g<1>{markdown(table(seed))}\n\g<2>", page)
        if found != 1:
            raise SystemExit(
                f"the page must have the mark '<!-- {name}: made by `make scaling` -->' once, found {found}"
            )
    return page


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="the page whose tables are remade; default: print them"
    )
    options = parser.parse_args()
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(with_tables(page, options.seed), encoding="utf-8")
    else:
        sys.stdout.write("\n\n".join(markdown(table(options.seed)) for table in TABLES.values()) + "\n")


if __name__ == "__main__":
    main()
