"""What being watched costs: the spine's loads without a dashboard, with the page, and with a browser looking at it.

    python benchmarks/watching.py            some minutes
    python benchmarks/watching.py --quick    about two

Each round opens the same session three times (`dashboard: null` and no progress; the page and a terminal bar; both and a headless
Chromium on this machine, whose own work counts), checks the results, and times the same laps, one after the other; ratios are
within a round. A lap is the mean of a session's, for the page is not drawn in each. Beside the time stands the CPU time of all
processes, of which the browser's is a part: it says where time goes, and does not change with what else the machine does. Then a
million evaluations: updates a second, what drawing takes, rows and memory that the page keeps. Then the start of a session
against the stock cluster with its dashboard. Goals: page and progress under 2 %, with a browser under 5 %, the start at most
10 % slower.

With --brief there are 250,000 evaluations in place of the million, and the start is left to `startup.py`.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import common
import numpy as np
import psutil
import startup
import work
from loads import Grid, calibrate

from admf_dask import ParallelOptimizer, ParameterSpace, Session, batch_objective
from admf_dask.dashboard.plugin import WHOLE_RUNS
from admf_dask.page.pace import Pace
from admf_dask.progress import TerminalProgress

UNWATCHED, WATCHED, LOOKED_AT = "dashboard: null", "page and progress", "and a browser"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAYS = (UNWATCHED, WATCHED, LOOKED_AT) if BROWSER else (UNWATCHED, WATCHED)
GOALS = {WATCHED: 1.02, LOOKED_AT: 1.05}
START = {"ours, page, TLS": "ours, page", "ours, no page, TLS": "ours, no page", "stock, page, TLS": "stock, page"}
WAVES = 400


class Terminal(io.StringIO):
    """Takes what a bar writes."""

    def isatty(self) -> bool:
        """As a terminal says."""
        return True


@contextlib.contextmanager
def looking(session: Session, link: str) -> Iterator[None]:
    """A headless browser on the page, from before the work until after it.

    Started by itself: what drives browsers for tests has every message of the page told to it, which costs as much again.
    """
    # Its helper processes outlive it for a moment, and still write there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", f"--user-data-dir={profile}", "--window-size=1280,900"]
        command = [str(BROWSER), *options, "--remote-debugging-port=0", link]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 60
            while not tabs(session):
                if time.monotonic() > until:
                    raise RuntimeError("the browser did not open the page")
                time.sleep(0.1)
            # What a browser does when it starts is not what the page costs.
            time.sleep(5)
            yield
            if not tabs(session):
                raise RuntimeError("the browser has left the page")
        finally:
            process.terminate()
            process.wait(30)


def tabs(session: Session) -> int:
    """How many browsers have the page open."""
    applications = session.client.cluster.scheduler.http_application.applications
    served = [app for app in applications if "/runs" in getattr(app, "app_paths", ())]
    return sum(open_page.connection_count for app in served for open_page in app.get_sessions("/runs"))


@contextlib.contextmanager
def watched(how: str, slots: int) -> Iterator[Session]:
    """A session that is watched in this way."""
    address = None if how == UNWATCHED else "127.0.0.1:0"
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(Session(mode="process", workers=slots, dashboard=address))
        if address is not None:
            link = str(session.dashboard_link)
            if how == LOOKED_AT:
                stack.enter_context(looking(session, link))
        yield session


def progress_of(how: str) -> Any:
    """What goes with it."""
    return False if how == UNWATCHED else TerminalProgress(Terminal())


def cpu_seconds() -> dict[str, float]:
    """CPU time so far of this process with all that it started, and of the browsers among them."""
    me = psutil.Process()
    spent = {"all": 0.0, "browser": 0.0}
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            kinds = ("all", "browser") if "chrom" in process.name() else ("all",)
            for kind in kinds:
                spent[kind] += times.user + times.system
    return spent


def laps(how: str, loads: list[Grid], slots: int, counts: list[int]) -> dict[str, dict[str, float]]:
    """The mean seconds of a lap of each load, checked; the CPU seconds of all processes, and of the browser."""
    found = {}
    with watched(how, slots) as session:
        optimizer = ParallelOptimizer(session=session)
        for load, count in zip(loads, counts, strict=True):
            space = ParameterSpace(load.axes)
            for lap in range(count + 1):
                result = optimizer.optimize(space, work.objective, progress=progress_of(how), name=load.name)
                if not lap:
                    began, cpu = time.perf_counter(), cpu_seconds()
            seconds, spent = time.perf_counter() - began, cpu_seconds()
            np.testing.assert_allclose(result.scores, load.expected)
            found[load.name] = {"lap": seconds / count} | {kind: (spent[kind] - cpu[kind]) / count for kind in cpu}
    return found


@batch_objective
def wave(columns: Any) -> Any:
    """Some microseconds each, so that a million take some seconds on two CPUs."""
    slow = np.cos(columns["b"] * 0.01)
    for step in range(WAVES):
        slow = slow + np.sin(columns["a"] * 0.01 + step)
    return slow


class Draws:
    """What the page and the browser say that drawing took, in seconds."""

    def __init__(self) -> None:
        """Listens from now on."""
        self.made: list[float] = []
        self.drawn: list[float] = []
        made, drawn = Pace.made, Pace.drawn

        def note_made(pace: Pace, seconds: float, now: float, *, sent: bool) -> None:
            self.made.append(seconds)
            made(pace, seconds, now, sent=sent)

        def note_drawn(pace: Pace, seconds: float) -> None:
            self.drawn.append(seconds)
            drawn(pace, seconds)

        Pace.made, Pace.drawn = note_made, note_drawn  # type: ignore[method-assign]

    def rows(self, seconds: float) -> list[list[str]]:
        """For the table; `seconds` since `clear`."""
        found = [["drawn, times a second", f"{len(self.made) / seconds:.2f}"]]
        for what, spent in (("on the scheduler", self.made), ("seen by the browser", self.drawn)):
            words = f"{1000 * statistics.median(spent):.1f} and {1000 * max(spent):.1f} ms" if spent else ""
            found.append([f"a drawing {what}, median and longest", words])
        return found

    def clear(self) -> None:
        """Forget what was."""
        self.made.clear()
        self.drawn.clear()


def a_million(slots: int, runs: int, warm: int, space: ParameterSpace) -> list[list[str]]:
    """Seconds and CPU seconds of a run without and with the page, and what the page made of it; `warm` runs come first."""
    ways = {how: a_million_watched(how, slots, runs, warm, space) for how in WAYS}
    plain = ways[UNWATCHED]
    rows = []
    for how, (lap, cpu, grown, _) in ways.items():
        against = f"{lap / plain[0]:.3f} and {cpu / plain[1]:.3f} of unwatched"
        rows.append([f"a run, {how}", f"{lap:.2f} s, {cpu:.2f} s of CPU, {against}"])
        rows.append([f"memory of the driver grown by {runs} runs, {how}", common.mib(grown)])
    return rows + ways[WAYS[-1]][3]


def a_million_watched(
    how: str, slots: int, runs: int, warm: int, space: ParameterSpace
) -> tuple[float, float, int, list[list[str]]]:
    """Seconds, CPU seconds, bytes that the driver (and so the scheduler) grew, what was seen of the page."""
    draws = Draws()
    with watched(how, slots) as session:
        optimizer = ParallelOptimizer(session=session)
        for _ in range(warm):
            optimizer.optimize(space, wave, progress=progress_of(how), name="a million")
        draws.clear()
        before, cpu, began = psutil.Process().memory_info().rss, cpu_seconds(), time.perf_counter()
        for _ in range(runs):
            optimizer.optimize(space, wave, progress=progress_of(how), name="a million")
        seconds, spent = time.perf_counter() - began, cpu_seconds()["all"] - cpu["all"]
        rows = draws.rows(seconds)
        # The last word of a run is on its way.
        time.sleep(1)
        grown = psutil.Process().memory_info().rss - before
        if how != UNWATCHED:
            views = list(session.client.cluster.scheduler.plugins["admf-dask-runs"].runs.values())
            rows += [["updates of a run that the scheduler got a second", f"{views[-1].version / seconds * runs:.1f}"]]
            rows += [["rows kept, latest and oldest run", f"{views[-1].size:,} and {views[0].size:,}"]]
            rows += [["memory of all rows kept", common.mib(sum(v.scores.nbytes + v.indices.nbytes for v in views))]]
    return seconds / runs, spent / runs, grown, rows


def start_rows(given: Any) -> list[list[str]]:
    """Seconds from opening to the first result."""
    runs, failed = startup.measure(list(START), given)
    if failed:
        raise SystemExit(f"failed: {failed}")
    middle = {name: startup.median(runs[name], "open to first") for name in START}
    stock = middle["stock, page, TLS"]
    return [[short, common.seconds(middle[name]), f"{middle[name] / stock:.3f}"] for name, short in START.items()]


def main() -> int:
    """Measure, print, write."""
    given = common.options("What being watched costs.", rounds=7, quick_rounds=3)
    facts = common.describe_machine()
    common.print_machine(facts)
    loads = [
        Grid("light", calibrate(10e-6), 10e-6, fast=250, slow=400),
        Grid("heavy", calibrate(20e-3), 20e-3, fast=10, slow=common.of_form(given, 20, 10, 5)),
    ]
    found: dict[str, list[dict[str, dict[str, float]]]] = {how: [] for how in WAYS}
    if BROWSER is None:
        print("left out: the browser, because there is no chromium, chromium-browser or google-chrome here")
    # The start stands in the table of `startup.py` too.
    chosen = common.chosen(("loads", "million", *(() if given.brief else ("start",))), given.only)
    counts = common.of_form(given, [16, 3], [8, 2], [3, 2])
    for number in range(given.rounds if "loads" in chosen else 0):
        # Each way stands first, second and third in turn.
        first = number % len(WAYS)
        for how in WAYS[first:] + WAYS[:first]:
            common.say(f"round {number + 1} of {given.rounds}: {how}")
            found[how].append(laps(how, loads, given.slots, counts))
    figures: dict[str, Any] = {"machine": facts, "laps": found}
    if "loads" in chosen:
        rows = [row for load in loads for row in ratio_rows(found, load.name)]
        columns = [
            "load",
            "watched",
            "a lap",
            "x unwatched",
            "lowest",
            "highest",
            "goal",
            "",
            "CPU a lap",
            "x unwatched",
            "browser's",
        ]
        common.print_table("watching, medians of ratios", columns, rows, markdown=given.markdown)
    if "million" in chosen:
        # What is kept of runs that ended has its size after five: then it is to stay as it is.
        warm = 1 if given.brief else WHOLE_RUNS + 1
        space = ParameterSpace({"a": range(250 if given.brief else 1000), "b": range(1000)})
        figures["million"] = a_million(given.slots, common.of_form(given, 12, 2, 1), warm, space)
        common.print_table(f"{space.size:,} evaluations", ["what", ""], figures["million"], markdown=given.markdown)
    if "start" in chosen:
        figures["start"] = start_rows(given)
        columns = ["session", "open to first result", "x stock with its dashboard"]
        common.print_table("start, medians", columns, figures["start"], markdown=given.markdown)
    common.write_json(given.json, figures)
    return 0


def ratio_rows(found: dict[str, list[dict[str, dict[str, float]]]], load: str) -> list[list[str]]:
    """One for each way of watching."""

    def each(how: str, what: str) -> list[float]:
        return [laps_of[load][what] for laps_of in found[how]]

    def against(how: str, what: str) -> list[float]:
        return [with_it / without for with_it, without in zip(each(how, what), each(UNWATCHED, what), strict=True)]

    rows = []
    for how in found:
        ratios, goal = against(how, "lap"), GOALS.get(how)
        middle = statistics.median(ratios)
        words = "" if goal is None else "met" if middle <= goal else "MISSED"
        spread = [f"{ratio:.3f}" for ratio in (middle, min(ratios), max(ratios))]
        cpu, browser = statistics.median(each(how, "all")), statistics.median(each(how, "browser"))
        times = [common.seconds(statistics.median(each(how, "lap"))), *spread, f"{goal:.2f}" if goal else "", words]
        more = statistics.median(against(how, "all"))
        rows.append([load, how, *times, common.seconds(cpu), f"{more:.3f}", f"{browser:.3f} s"])
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
