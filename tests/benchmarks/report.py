"""The table and the JSON file that every benchmark leaves: ``build/bench/<name>.json``."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = Path("build") / "bench"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. ``ratio`` is how many times better than the yardstick it is, whatever the unit."""

    name: str
    value: float
    unit: str
    yardstick: float
    ratio: float
    at_least: float
    n: int

    @property
    def holds(self) -> bool:
        return self.ratio >= self.at_least


def limit(name: str, value: float, most: float, unit: str, n: int) -> Row:
    """A figure that must stay below a limit: the limit is its yardstick."""
    return Row(name=name, value=value, unit=unit, yardstick=most, ratio=most / max(value, 1e-9 * most), at_least=1, n=n)


def write_report(name: str, rows: list[Row]) -> None:
    """Print the table; write the file."""
    print(f"{'figure':44} {'value':>10} {'yardstick':>10} {'unit':12} {'ratio':>7} {'at least':>8}   n")
    for row in rows:
        print(
            f"{row.name:44} {row.value:10.3g} {row.yardstick:10.3g} {row.unit:12} {row.ratio:7.2f} {row.at_least:8.2f} "
            f"{row.n:5d}  {'holds' if row.holds else 'FALLS SHORT'}"
        )
    records: list[dict[str, Any]] = [{**asdict(row), "holds": row.holds} for row in rows]
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps([*records, {"name": "machine", "machine": machine()}], indent=2) + "\n")
    print(f"written: {path}")


def machine() -> dict[str, Any]:
    """Describe where the figures were taken."""
    names = ("feldman", "numpy", "torch", "ray", "zarr", "pyarrow", "duckdb")
    return {
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]} x {len(models)}" if models else platform.processor()
