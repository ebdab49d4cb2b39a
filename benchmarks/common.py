"""What the benchmark programs share: the machine in words, options, tables and files of figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout, installed or not

PACKAGES = (
    "dask", "distributed", "numpy", "pandas", "numba", "bokeh", "cryptography", "cloudpickle", "psutil",
    "joblib", "vectorbt", "vectorbt-rust", "backtesting", "backtrader", "raptorbt", "ray",
)  # fmt: skip
"""Ours, then the peers."""
NEEDS = {"joblib": "joblib", "ray lists": "ray"}
"""The package without which a contender is left out."""


def slots_here() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def has(package: str) -> bool:
    """Whether a peer that not every Python can have is installed."""
    return find_spec(package) is not None


def describe_machine() -> dict[str, Any]:
    """Facts that explain the figures: hardware, load, versions. Nothing that names the machine or its owner."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpus": slots_here(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "missing": [name for name in PACKAGES if _version(name) is None],
    }


def print_machine(facts: dict[str, Any]) -> None:
    """The machine in three lines."""
    print(f"{facts['cpus']} CPUs ({facts['cpu']}), {mib(facts['memory_bytes'])}, load average {facts['load_average']}")
    print(f"{facts['system']}, {facts['python']}")
    print(", ".join(f"{name} {version}" for name, version in facts["packages"].items()))


def options(description: str, *, rounds: int, quick_rounds: int) -> argparse.Namespace:
    """The options that all programs have, parsed; `.rounds` is always a number."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help=f"about two minutes: fewer rounds ({quick_rounds}) of smaller loads"
    )
    parser.add_argument(
        "--brief", action="store_true", help="smaller still: every comparison once, rough; as `run.py --quick` has it"
    )
    parser.add_argument("--rounds", type=_positive, help=f"how often each is run; {rounds} unless told")
    parser.add_argument(
        "--slots", type=_positive, default=slots_here(), help="workers for everybody; all CPUs unless told"
    )
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="only those whose name contains TEXT; repeatable"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    given = parser.parse_args()
    given.quick |= given.brief
    given.rounds = given.rounds or of_form(given, rounds, quick_rounds, 1)
    return given


def of_form(given: argparse.Namespace, whole: Any, quick: Any, brief: Any) -> Any:
    """What belongs to the form of the run that was asked for."""
    return brief if given.brief else quick if given.quick else whole


def chosen(names: Iterable[str], only: Sequence[str] | None) -> list[str]:
    """The names that `--only` and missing packages leave. Ends the program when that is none."""
    names = [name for name in names if has(NEEDS.get(name, "dask"))]
    found = [name for name in names if only is None or any(text in name for text in only)]
    if not found:
        raise SystemExit(f"--only {' --only '.join(only or ())} leaves nothing; the names are: {', '.join(names)}")
    return found


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> None:
    """A table with the first column to the left and the others to the right."""
    print(f"\n### {title}\n" if markdown else f"\n{title}")
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    print(line(columns))
    marks = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    print(line(marks if markdown else ["-" * width for width in widths]))
    for row in rows:
        print(line(row))


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """All figures of a program, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")
        print(f"\nAll figures are in {path}")


def median_of(records: Sequence[Any], value: Callable[[Any], float]) -> float:
    """The median of `value(record)`."""
    return statistics.median(value(record) for record in records)


def seconds(value: float) -> str:
    """`0.0123` is `12 ms`, `1.5` is `1.50 s`."""
    return f"{value * 1000:.0f} ms" if value < 0.1 else f"{value:.2f} s"


def micro(value: float) -> str:
    """Seconds an item as microseconds."""
    return f"{value * 1e6:,.1f} µs" if value < 1e-3 else f"{value * 1e3:,.2f} ms"


def mib(value: float | None) -> str:
    """Bytes as MiB; `n/a` where they could not be measured."""
    return "n/a" if value is None else f"{value / 2**20:,.0f} MiB"


def say(text: str) -> None:
    """Progress, kept out of the tables."""
    print(text, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but is {number}")
    return number


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
