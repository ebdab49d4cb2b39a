"""Every comparison in this folder, one after another, and a page of what came out: `results.html` and `results.md`.

    python benchmarks/run.py                    all of them, an hour or so
    python benchmarks/run.py --quick            about five minutes: every program with --brief, so figures are rough
    python benchmarks/run.py --only spine       one; the page keeps what other runs left in the same folder
    python benchmarks/run.py --out FOLDER       where to; benchmark-results unless told

A program is a file here that takes the common options; whoever adds one need not tell this file. Each runs in a process of its
own, prints its tables, and leaves them in the folder as NAME.md and NAME.json. The page holds every table whole, with what was
missed, what failed and which peers are not installed; the charts are drawn from those tables and open without a network. Ctrl-C
ends the program under way and all that it started; the page has what was done before. Returns 1 if a program failed or was
interrupted.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import common
import psutil

HERE = Path(__file__).resolve().parent
PATIENCE = 20.0
"""Seconds that an interrupted program has to end what it started."""
ROUGH = (
    "Programs with `--brief` make every comparison once, on small loads: their figures are rough, and a goal met or "
    "missed there is a hint."
)
PLOTTED = ("of ideal", "to plain", "a second", "a bar", "efficiency", "open to first", "to owned", "median", "time")
"""The column that a table's chart shows: the first of these that it has with numbers."""
NUMBER = re.compile(r"([\d,]*\.?\d+)\s*(ns|µs|ms|s|min|h|d|KiB|MiB|GiB)?\b")
UNITS = {
    "ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
    "KiB": 2**-10, "MiB": 1.0, "GiB": 2.0**10,
}  # fmt: skip
CSS = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .75rem;border-bottom:1px solid #d8dee4;text-align:right}th:first-child,td:first-child{text-align:left}
code{background:#f0f2f4;padding:.1rem .3rem;border-radius:3px}.missed{color:#a40e26;font-weight:600}.wide{overflow-x:auto}
"""


@dataclass(frozen=True)
class Table:
    """A Markdown table with its title."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Outcome:
    """What a program left in the folder."""

    name: str
    question: str
    text: str
    facts: dict[str, Any]


def programs() -> list[str]:
    """The names of the programs here, spine first."""
    names = [
        path.stem
        for path in sorted(HERE.glob("*.py"))
        if path.stem not in ("common", "run") and "common.options(" in path.read_text()
    ]
    return sorted(names, key=lambda name: name != "spine")


def question(name: str) -> str:
    """The first line of the program's docstring."""
    return (ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or name).splitlines()[0]


def run(name: str, out: Path, options: list[str]) -> bool:
    """Run a program; its text goes to the folder, its progress to the terminal. Whether it ended well."""
    common.say(f"== {name} {' '.join(options)}")
    began = time.perf_counter()
    page, figures = out / f"{name}.md", out / f"{name}.json"
    for left in (page, figures):
        left.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{name}.py"), "--markdown", "--json", str(figures), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:
            end(process)
            raise
    took = time.perf_counter() - began
    shown = " ".join(["python", f"benchmarks/{name}.py", *options])
    last = f"\nMISSED: the program ended with exit code {process.returncode}\n" if process.returncode else ""
    text = re.sub(r"\nAll figures are in .*\n", "\n", printed)
    page.write_text(f"`{shown}` took {took:.0f} s.\n\n{text}{last}")
    return not process.returncode


def end(process: subprocess.Popen[str]) -> None:
    """Wait for an interrupted program, which got the Ctrl-C too and ends what it started; end all of it after `PATIENCE`."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        common.say("it does not end, so it is ended")
    finally:
        if process.poll() is None:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def outcomes(out: Path) -> list[Outcome]:
    """What the folder holds, in the order of `programs`."""
    found = []
    for name in programs():
        text, figures = out / f"{name}.md", out / f"{name}.json"
        if text.exists():
            facts = json.loads(figures.read_text()) if figures.exists() else {}
            found.append(Outcome(name, question(name), text.read_text(), facts))
    return found


# -- the page ----------------------------------------------------------------------------------------------------------


def tables(text: str) -> list[Table]:
    """The tables of a program's text."""
    found, title = [], ""
    block: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("### "):
            title = line[4:]
        elif line.startswith("|"):
            block.append([part.strip() for part in line.strip("|").split("|")])
        elif block:
            found.append(Table(title, block[0], block[2:]))
            block = []
    return found


def number(cell: str) -> float | None:
    """The first number of a cell in seconds, MiB or as it stands; None without one."""
    match = NUMBER.search(cell)
    return None if match is None else float(match[1].replace(",", "")) * UNITS.get(match[2] or "", 1.0)


def chart(table: Table) -> Any | None:
    """Bars of the column that matters, the rows from top to bottom; None where no column is known to matter."""
    from bokeh.models import ColumnDataSource, LabelSet
    from bokeh.plotting import figure

    wanted = next((name for name in PLOTTED if name in table.columns[1:]), None)
    if wanted is None:
        return None
    at = table.columns.index(wanted)
    bars = [(row[0], value, row[at]) for row in table.rows if len(row) > at and (value := number(row[at])) is not None]
    names = [name for name, _, _ in bars]
    if len(bars) < 2 or len(set(names)) < len(names):
        return None
    colors = ["#0b7285" if "admf" in name or "ours" in name else "#adb5bd" for name in names]
    source = ColumnDataSource(
        {"name": names, "value": [bar[1] for bar in bars], "text": [bar[2] for bar in bars], "color": colors}
    )
    plot = figure(
        y_range=names[::-1], x_range=(0, 1.15 * max(bar[1] for bar in bars) or 1), height=60 + 26 * len(bars), width=900,
        title=f"{table.title}: {wanted}", toolbar_location=None, tools="",
    )  # fmt: skip
    plot.hbar(y="name", right="value", height=0.7, fill_color="color", line_color=None, source=source)
    plot.add_layout(
        LabelSet(x="value", y="name", text="text", x_offset=5, y_offset=-8, text_font_size="11px", source=source)
    )
    plot.ygrid.grid_line_color = None
    return plot


def scaling_chart(records: list[dict[str, Any]]) -> Any:
    """Efficiency over workers, a line for each number of items, for items of the middle durations."""
    from bokeh.layouts import gridplot
    from bokeh.palettes import Viridis6
    from bokeh.plotting import figure

    plots = []
    for seconds in sorted({record["item_seconds"] for record in records}):
        plot = figure(
            x_axis_type="log", y_range=(0, 1.02), width=450, height=300, toolbar_location=None, tools="",
            title=f"items of {common.micro(seconds)} (modelled)", x_axis_label="workers", y_axis_label="efficiency",
        )  # fmt: skip
        for color, items in zip(Viridis6, sorted({record["items"] for record in records})):
            mine = [record for record in records if (record["item_seconds"], record["items"]) == (seconds, items)]
            x, y = [record["workers"] for record in mine], [record["efficiency"] for record in mine]
            plot.line(x, y, color=color, line_width=2, legend_label=f"{items:.0e}".replace("e+0", "e"))
            plot.scatter(x, y, color=color, size=6)
        plot.legend.location = "bottom_left"
        plot.legend.label_text_font_size = "9px"
        plots.append(plot)
    return gridplot(plots, ncols=2, toolbar_location=None)


def machine_words(found: list[Outcome], now: str) -> list[str]:
    """The machine and all versions, from what the programs wrote down."""
    lines, seen = [f"Written {now}."], set()
    if any("--brief" in outcome.text.partition("\n")[0] for outcome in found):
        lines.append(ROUGH)
    for outcome in found:
        facts = outcome.facts.get("machine")
        if facts:
            packages = {**facts["packages"], **outcome.facts.get("peers", {})}
            line = (
                f"{facts['cpus']} CPUs ({facts['cpu']}), {common.mib(facts['memory_bytes'])}, {facts['system']}, "
                f"{facts['python']}; " + ", ".join(f"{name} {version}" for name, version in packages.items())
            )
            if missing := facts.get("missing"):
                line += f"; not installed, so not compared: {', '.join(missing)}"
            if line not in seen:
                seen.add(line)
                lines.append(line)
    return lines


def prose(text: str) -> list[str]:
    """The lines that are neither table nor title: commands and verdicts; without the machine, which stands above."""
    plain = [line for line in text.splitlines() if line.strip() and not line.startswith(("|", "### "))]
    return [line for line in plain if not re.match(r"\d+ CPUs \(|(Linux|Darwin) \S+ \S+, |dask \d", line)]


def write_markdown(path: Path, found: list[Outcome], now: str) -> None:
    """All tables and verdicts."""
    parts = ["# Measured", *machine_words(found, now)]
    for outcome in found:
        parts.append(f"## {outcome.name}\n\n{outcome.question}")
        parts += [f"### {table.title}\n\n{_markdown(table)}" for table in tables(outcome.text)]
        parts.append("\n".join(f"- {line}" for line in prose(outcome.text)))
    path.write_text("\n\n".join(parts) + "\n")


def _markdown(table: Table) -> str:
    head = [f"| {' | '.join(table.columns)} |", f"| --- |{' ---: |' * (len(table.columns) - 1)}"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in table.rows])


def write_html(path: Path, found: list[Outcome], now: str) -> None:
    """The same with charts, in one file that needs no network."""
    from bokeh.embed import components
    from bokeh.resources import INLINE

    body = ["<h1>Measured</h1>", *(f"<p>{_line(line)}</p>" for line in machine_words(found, now))]
    plots: list[Any] = []
    for outcome in found:
        body.append(f"<h2>{escape(outcome.name)}</h2><p>{_line(outcome.question)}</p>")
        if outcome.facts.get("modelled"):
            plots.append(scaling_chart(outcome.facts["modelled"]))
            body.append(f"<!--plot {len(plots) - 1}-->")
        for table in tables(outcome.text):
            body.append(f"<h3>{escape(table.title)}</h3>{_html(table)}")
            if (plot := chart(table)) is not None:
                plots.append(plot)
                body.append(f"<!--plot {len(plots) - 1}-->")
        body += [f"<p{' class=missed' if 'MISSED' in line else ''}>{_line(line)}</p>" for line in prose(outcome.text)]
    script, divs = components(plots) if plots else ("", ())
    page = "\n".join(body)
    for place, div in enumerate(divs):
        page = page.replace(f"<!--plot {place}-->", div)
    head = f'<meta charset="utf-8"><title>Measured</title><style>{CSS}</style>{INLINE.render()}'
    path.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{page}{script}</body></html>\n')


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _line(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def main() -> int:
    """Run, write the page. Returns 1 when a program failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every program with --brief, about five minutes in all")
    parser.add_argument("--only", action="append", metavar="NAME", help="one of the programs; repeatable")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), metavar="FOLDER")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of what the folder holds")
    given = parser.parse_args()
    names = given.only or programs()
    if unknown := sorted(set(names) - set(programs())):
        parser.error(f"there is no program {', '.join(unknown)}; there are {', '.join(programs())}")
    given.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in () if given.page else names:
        try:
            if not run(name, given.out, ["--brief"] if given.quick else []):
                failed.append(name)
        except KeyboardInterrupt:
            failed.append(f"{name} (interrupted)")
            break
    found, now = outcomes(given.out), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    write_markdown(given.out / "results.md", found, now)
    write_html(given.out / "results.html", found, now)
    print(f"{given.out / 'results.html'} and {given.out / 'results.md'}")
    print(f"failed: {', '.join(failed)}" if failed else f"{len(found)} programs on the page")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
