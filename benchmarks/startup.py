"""From a fresh interpreter to the first result and out again: our Session against the stock LocalCluster and Client.

    python benchmarks/startup.py            ten runs of each
    python benchmarks/startup.py --quick    three of the ones that matter most

Each run is a new interpreter that imports, opens a process of one thread for each of `--slots`, evaluates one
item and closes. The goal: open to first result no slower than the stock cluster without a dashboard plus TLS.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from foreign import LIMIT, foreign_share, wait_for_calm
from trial import environment

SCRIPT = Path(__file__).resolve().parent / "opening.py"
GOAL = "stock, no page, TLS"
OURS = "ours, page, TLS"
BARE = "ours, no page, TLS"
VARIANTS: dict[str, dict[str, Any]] = {
    OURS: {"who": "ours", "page": True, "tls": True},
    BARE: {"who": "ours", "page": False, "tls": True},
    "ours, page, no TLS": {"who": "ours", "page": True, "tls": False},
    "ours, no page, no TLS": {"who": "ours", "page": False, "tls": False},
    "ours, thread mode": {"who": "ours", "page": False, "tls": False, "mode": "thread"},
    "stock, page, TLS": {"who": "stock", "page": True, "tls": True},
    GOAL: {"who": "stock", "page": False, "tls": True},
    "stock, page, no TLS": {"who": "stock", "page": True, "tls": False},
    "stock, no page, no TLS": {"who": "stock", "page": False, "tls": False},
    "stock, in this process": {"who": "stock", "page": False, "tls": False, "mode": "thread"},
}
QUICK = (OURS, BARE, "stock, page, TLS", GOAL, "stock, no page, no TLS")
PARTS = ("interpreter", "import", "open", "first", "close", "exit")
Run = dict[str, float]
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """What a run leaves behind when it ends, as our fork server, is ours from now on: its CPU time is the run's (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def bury() -> None:
    """Take in the time of children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def run_once(variant: dict[str, Any], slots: int) -> Run:
    """Seconds of each part, of all together, and the foreign share. Raises RuntimeError with its words if it fails."""
    command = [sys.executable, str(SCRIPT), json.dumps({**variant, "slots": slots})]
    with foreign_share() as foreign:
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=False)
        ended = time.perf_counter()
        bury()
    if done.returncode or not done.stdout.startswith("{"):
        raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}, output {done.stdout!r:.200}")
    stamps = json.loads(done.stdout)
    marks = [began, *(stamps[name] for name in ("main", "imported", "opened", "first", "closed")), ended]
    parts = {name: after - before for name, before, after in zip(PARTS, marks, marks[1:])}
    return {**parts, "open to first": parts["open"] + parts["first"], "total": ended - began, "foreign": foreign.share}


def measure(names: Sequence[str], given: argparse.Namespace) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """(runs, failures) by variant, interleaved. The first run of each, with `--brief` of the first of ours and of stock, warms
    the file cache and does not count.
    """
    adopt_orphans()
    runs: dict[str, list[Run]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    first = {VARIANTS[name]["who"]: name for name in reversed(names)} if given.brief else dict(zip(names, names))
    for number in range(given.rounds + 1):
        common.say(f"round {number} of {given.rounds}" if number else "round 0, to warm the file cache")
        for name in names if number else first.values():
            if name in failed:
                continue
            wait_for_calm(0.0 if given.brief else 5.0)
            try:
                run = run_once(VARIANTS[name], given.slots)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed[name] = str(error)
                continue
            if number:
                runs[name].append(run)
    return runs, failed


def trusted(runs: Sequence[Run]) -> Sequence[Run]:
    """Those that nobody disturbed; all of them if there are none."""
    return [run for run in runs if run["foreign"] <= LIMIT] or runs


def median(runs: Sequence[Run], part: str) -> float:
    """The median seconds of a part over the trusted runs."""
    return common.median_of(trusted(runs), lambda run: run[part])


def rows_of(runs: dict[str, list[Run]], failed: dict[str, str]) -> list[list[str]]:
    """The table; the ratio is open to first result against the goal's."""
    shown = (*PARTS, "open to first", "total")
    goal = median(runs[GOAL], "open to first") if runs.get(GOAL) else None
    rows = []
    for name, found in runs.items():
        if name in failed or not found:
            rows.append([name, "failed", *[""] * (len(shown) + 1)])
            continue
        ratio = "" if goal is None else f"{median(found, 'open to first') / goal:.2f}"
        calm = sum(run["foreign"] <= LIMIT for run in found)
        rows.append([name, *(common.seconds(median(found, part)) for part in shown), ratio, f"{calm} of {len(found)}"])
    return rows


def verdict(runs: dict[str, list[Run]], name: str) -> str:
    """Whether open to first result is within the goal."""
    if not runs.get(name) or not runs.get(GOAL):
        return f"{name}: no verdict, because it or '{GOAL}' did not run"
    ours, goal = (median(runs[which], "open to first") for which in (name, GOAL))
    words = "met" if ours <= goal else "MISSED"
    return f"{name}: open to first result {common.seconds(ours)}, the goal ({GOAL}) is {common.seconds(goal)}: {words}"


def main() -> int:
    """Measure, print, write. Returns 1 when a variant failed."""
    given = common.options(
        "Start-up, first result and close against the stock LocalCluster.", rounds=10, quick_rounds=3
    )
    facts = common.describe_machine()
    common.print_machine(facts)
    runs, failed = measure(common.chosen(QUICK if given.quick else VARIANTS, given.only), given)
    columns = ["variant", *PARTS, "open to first", "total", "x goal", "calm runs"]
    common.print_table("start-up, medians", columns, rows_of(runs, failed), markdown=given.markdown)
    print()
    for name in (OURS, BARE):
        print(verdict(runs, name))
    for name, text in failed.items():
        print(f"\nfailed: {name}: {text.splitlines()[-1]}")
    common.write_json(given.json, {"machine": facts, "runs": runs, "failed": failed})
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
