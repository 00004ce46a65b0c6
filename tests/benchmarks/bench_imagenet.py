"""`make bench-imagenet`: all 6.4e10 pairs of ImageNet's shape, from a store on disk to tables, and those of one class alone.

1,281,167 x 50,000 examples, 2,000 trials of synthetic bits: the store takes some 0.7 GB in the temporary folder ($TMPDIR).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from feldman.trials.executor import usable_cores
from tests.benchmarks.bench_estimates import estimate
from tests.benchmarks.report import limit, write_report
from tests.benchmarks.stores import IMAGENET, make_store


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        print("making a store of ImageNet's shape ...")
        started = time.perf_counter()
        make_store(run, IMAGENET)
        print(f"made in {time.perf_counter() - started:.0f} s")
        estimate(run, dict(os.environ), "--same-class")  # compiles the kernel, once for ever
        rows = []
        for name, options, seconds in (
            ("all pairs", ("--min-memorization", "-1"), 120.0),
            ("all pairs of memorized examples", (), 120.0),
            ("pairs of one class", ("--same-class", "--min-memorization", "-1"), 30.0),
            ("top 10 of each test example", ("--top-per-test", "10"), 120.0),
        ):
            taken, peak = estimate(run, dict(os.environ), *options)
            found = pq.read_metadata(run / "influence.parquet").num_rows
            print(f"{name}: {found:,} pairs written")
            rows += [
                limit(f"ImageNet's shape, {name}", taken, seconds, "s", IMAGENET.num_pairs),
                limit("the same, peak memory", peak, 3.0, "GB", IMAGENET.num_pairs),
            ]
    write_report("imagenet", rows)


if __name__ == "__main__":
    print(f"{usable_cores()} cores")
    main()
