"""`make bench-queries`: questions to tables of CIFAR-100's shape, start-up included, beside a script that reads the table whole.

Once with a table as `feldman estimate` makes it by default, a thousand pairs, and once with one of ten million. What the script
finds is compared with what the command says.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from feldman.estimates.selection import PairSelection
from feldman.results.table_writer import TableWriter
from feldman.results.tables import MEMORIZATION_SCHEMA, TableFacts, influence_schema
from tests.benchmarks.report import Row, write_report

NUM_TRAIN, NUM_TEST, NUM_CLASSES, REPEATS, MOST_SECONDS = 50_000, 10_000, 100, 9, 1.0
PAIRS_OF_500 = {"1,000 pairs": 10, "10 million pairs": 100_000}
FELDMAN = [str(Path(sys.executable).with_name("feldman"))]
WHERE = "influence > 0.3 AND train_label <> test_label"

# What a user would write: the filter in pyarrow's own reader, which is its best setting here.
SCRIPT = """
import sys, json, pyarrow.compute as pc, pyarrow.parquet as pq
path, order, chosen = sys.argv[1], sys.argv[2], sys.argv[3]
table = pq.read_table(path, filters=eval(chosen) if chosen else None)
keys = [(order, "descending"), *((n, "ascending") for n in ("train_index", "test_index") if n in table.column_names)]
print(json.dumps(table.sort_by(keys).slice(0, 20).to_pylist()))
"""
QUESTIONS = {
    "pairs": ([], ""),
    "pairs --train I": (["--train", "4711"], "[('train_index', '=', 4711)]"),
    "pairs --test J": (["--test", "77"], "[('test_index', '=', 77)]"),
    "pairs --where": (
        ["--where", WHERE],
        "(pc.field('influence') > 0.3) & (pc.field('train_label') != pc.field('test_label'))",
    ),
    "memorized": ([], ""),
}


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size, pairs_of_500 in PAIRS_OF_500.items():
            run = Path(folder) / size.replace(" ", "-")
            num_pairs = make_tables(run, pairs_of_500)
            for question, (options, chosen) in QUESTIONS.items():
                command = question.split()[0]
                table, order = ("influence", "influence") if command == "pairs" else ("memorization", "memorization")
                ours = [*FELDMAN, command, str(run), *options, "--json"]
                script = [sys.executable, "-c", SCRIPT, str(run / f"{table}.parquet"), order, chosen]
                seconds, yardstick = compared(ours, script)
                name = f"{size}: {question}"
                count = NUM_TRAIN if command == "memorized" else num_pairs
                rows += [
                    Row(name=name, value=seconds, unit="s", yardstick=yardstick, ratio=yardstick / seconds, at_least=0, n=count),
                    Row(name=f"{name}, limit", value=seconds, unit="s", yardstick=MOST_SECONDS,
                        ratio=MOST_SECONDS / seconds, at_least=1, n=count),
                ]  # fmt: skip
    write_report("queries", rows)


def make_tables(run: Path, pairs_of_500: int) -> int:
    """Write both tables through the writer, as estimates do; return how many pairs there are."""
    rng = np.random.default_rng(0)
    facts = TableFacts(
        num_trials=4_000,
        num_train=NUM_TRAIN,
        num_test=NUM_TEST,
        class_names=tuple(map(str, range(NUM_CLASSES))),
        selection=PairSelection(min_influence=0.0),
    )
    memorization = rng.random(NUM_TRAIN)
    run.mkdir()
    counts = np.full(NUM_TRAIN, 1_200)
    with TableWriter(run / "memorization.parquet", MEMORIZATION_SCHEMA, facts) as writer:
        bounds = [memorization, np.full(NUM_TRAIN, 0.01), memorization - 0.02, memorization + 0.02]
        columns = [
            np.arange(NUM_TRAIN),
            np.arange(NUM_TRAIN) % NUM_CLASSES,
            *bounds,
            4_000 - counts,
            counts,
            counts,
            counts,
        ]
        writer.write(pa.table(dict(zip(MEMORIZATION_SCHEMA.names, columns, strict=True)), schema=MEMORIZATION_SCHEMA))
    schema = influence_schema()
    with TableWriter(run / "influence.parquet", schema, facts, cut_by="test_index") as writer:
        for first in range(0, NUM_TRAIN, 500):
            chosen = np.unique(rng.integers(0, 500 * NUM_TEST, pairs_of_500))
            train, test = first + chosen // NUM_TEST, chosen % NUM_TEST
            influence, stderr = rng.exponential(0.05, len(chosen)).clip(0, 0.9), 0.005 + 0.02 * rng.random(len(chosen))
            values = [influence, stderr, influence - 2 * stderr, influence + 2 * stderr, memorization[train]]
            columns = [train, test, *values, train % NUM_CLASSES, test % NUM_CLASSES]
            writer.write(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
        return writer.num_rows


def compared(ours: list[str], script: list[str]) -> tuple[float, float]:
    """Return the median wall seconds of both, taken in turn; they have to find the same rows."""
    seconds: tuple[list[float], list[float]] = [], []
    found = []
    for repeat in range(REPEATS + 1):  # the first warms caches
        for command, taken in zip((ours, script), seconds, strict=True):
            started = time.perf_counter()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            if repeat:
                taken.append(time.perf_counter() - started)
            else:
                found.append(json.loads(done.stdout))
    if found[0] != found[1]:
        raise SystemExit(f"{ours} and the script find different rows")
    return statistics.median(seconds[0]), statistics.median(seconds[1])


if __name__ == "__main__":
    main()
