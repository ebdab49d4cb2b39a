"""One large frame read by all workers: memory and time of ours against the peers, each at its usual best.

    python benchmarks/sharing.py            about ten minutes
    python benchmarks/sharing.py --quick    about two

500 MB of prices (ten columns); an evaluation reads one column, about 20 ms. And 50 tables of 10 MB, of which an evaluation
reads one. Each contender is a fresh process: it opens its workers and does one trivial item in each (the baseline), then makes
the data, runs once while memory is sampled, and then as often as asked with a clock. Extra memory is the peak less the
baseline, in copies of the data; the driver holds one copy anyway, because that is where a researcher's frame is, except for
"shared, then dropped". Private memory is what is not a page of a file; PSS counts shared pages once, those too.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import psutil
from memory import INTERVAL, peak_of_tree

ROWS = 6_250_000
TABLES = 50


def make_frame() -> pd.DataFrame:
    """500 MB."""
    values = np.empty((10, ROWS))
    np.random.default_rng(0).standard_normal(out=values)
    return pd.DataFrame(values.T, columns=[f"c{i}" for i in range(10)])


def make_tables() -> dict[str, pd.DataFrame]:
    """50 tables of 10 MB."""
    source = np.random.default_rng(0)
    return {f"S{i}": pd.DataFrame({"close": source.normal(size=1_250_000)}) for i in range(TABLES)}


def read_column(i: int, frame: pd.DataFrame) -> float:
    """About 20 ms: some passes over 50 MB."""
    column = frame.iloc[:, i % 10].to_numpy()
    return float(sum(step(column) for step in (np.sum, np.max, np.min, np.sum, np.min)))


def read_table(i: int, tables: dict[str, pd.DataFrame]) -> float:
    """A few milliseconds: some passes over 10 MB."""
    column = tables[f"S{i % TABLES}"]["close"].to_numpy()
    return float(sum(step(column) for step in (np.sum, np.max, np.min, np.sum, np.min)))


LOADS: dict[str, tuple[Callable[[], Any], Callable[[int, Any], float], int]] = {
    "one frame of 500 MB": (make_frame, read_column, 1000),
    "50 tables of 10 MB": (make_tables, read_table, 4000),
}
Run = Callable[[Any, int], list[float]]


@contextmanager
def ours(slots: int, function: Any, make: Any) -> Iterator[Run]:
    """`Session.map(data=)`."""
    from admf_dask import Session

    with Session(mode="process", workers=slots, dashboard=None) as session:
        session.map(abs, range(2 * slots), progress=False)
        yield lambda data, n: session.map(function, range(n), data=data, progress=False).values()


@contextmanager
def ours_dropped(slots: int, function: Any, make: Any) -> Iterator[Run]:
    """`session.share(make())`: the driver keeps no copy of its own."""
    from admf_dask import Session

    with Session(mode="process", workers=slots, dashboard=None) as session:
        session.map(abs, range(2 * slots), progress=False)
        handles: list[Any] = []

        def run(data: Any, n: int) -> list[float]:
            handles.extend([] if handles else [session.share(data())])
            return session.map(function, range(n), data=handles[0], progress=False).values()

        yield run


_owned: list[Any] = []


def _own(make: Any) -> None:
    _owned.append(make())


def _take(data: Any) -> None:
    _owned.append(data)


def _with_owned(function: Any, i: int) -> float:
    return float(function(i, _owned[0]))


@contextmanager
def owned(slots: int, function: Any, make: Any) -> Iterator[Run]:
    """`multiprocessing.Pool` whose processes each make the data themselves: nothing is sent, the time to reach."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(slots, _own, (make,)) as pool:
        pool.map(abs, range(2 * slots))
        yield lambda data, n: pool.map(functools.partial(_with_owned, function), range(n), 8)


@contextmanager
def pool(slots: int, function: Any, make: Any) -> Iterator[Run]:
    """`multiprocessing.Pool(initializer=)` that sends the data to each process."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    opened: list[Any] = []

    def run(data: Any, n: int) -> list[float]:
        if not opened:
            opened.append(context.Pool(slots, _take, (data,)))
        return list(opened[0].map(functools.partial(_with_owned, function), range(n), 8))

    yield run
    opened[0].terminate()


@contextmanager
def joblib_loky(slots: int, function: Any, make: Any) -> Iterator[Run]:
    """joblib's loky, which maps arrays of a megabyte or more by itself."""
    import joblib

    with joblib.Parallel(n_jobs=slots) as parallel:
        parallel(joblib.delayed(abs)(i) for i in range(2 * slots))
        yield lambda data, n: list(parallel(joblib.delayed(function)(i, data) for i in range(n)))


@contextmanager
def dask_scatter(slots: int, function: Any, make: Any) -> Iterator[Run]:
    """`client.scatter(broadcast=True)` and `client.map` on a stock LocalCluster."""
    from distributed import Client, LocalCluster

    with LocalCluster(slots, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.gather(client.map(abs, range(2 * slots)))
        sent: list[Any] = []

        def run(data: Any, n: int) -> list[float]:
            sent.extend([] if sent else [client.scatter(data, broadcast=True)])
            return list(client.gather([client.submit(function, i, sent[0], pure=False) for i in range(n)]))

        yield run


CONTENDERS: dict[str, Any] = {
    "each process made its own": owned,
    "admf_dask data=": ours,
    "admf_dask shared, then dropped": ours_dropped,
    "multiprocessing.Pool": pool,
    "joblib": joblib_loky,
    "dask scatter": dask_scatter,
}


def contend(name: str, load: str, slots: int, items: int, rounds: int) -> None:
    """One contender in this process, told by lines on standard input; answers are lines of JSON."""
    make, function, _ = LOADS[load]
    wants_maker = name == "admf_dask shared, then dropped"
    with CONTENDERS[name](slots, function, make) as run:
        print("baseline", flush=True)
        input()
        data = make if wants_maker else make() if name != "each process made its own" else None
        began = time.perf_counter()
        run(data, slots)
        first = time.perf_counter() - began
        values = run(data, items)
        print(json.dumps({"first": first, "check": round(sum(values), 3)}), flush=True)
        input()
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            run(data, items)
            times.append(time.perf_counter() - began)
        print(json.dumps(times), flush=True)


def measure(name: str, load: str, given: Any, items: int) -> dict[str, Any]:
    """Start a contender and take its figures."""
    command = [sys.executable, __file__, "--contend", name, load, str(given.slots), str(items), str(given.rounds)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    assert child.stdin
    assert child.stdout
    try:
        if child.stdout.readline() != "baseline\n":
            return {"error": "did not start"}
        time.sleep(1)
        with peak_of_tree(child.pid) as before:
            time.sleep(10 * INTERVAL)
        private_before = private_of_tree(child.pid)
        with peak_of_tree(child.pid) as peak:
            child.stdin.write("\n")
            child.stdin.flush()
            answer = json.loads(child.stdout.readline())
            private = private_of_tree(child.pid) - private_before
        child.stdin.write("\n")
        child.stdin.flush()
        times = json.loads(child.stdout.readline())
    except (json.JSONDecodeError, BrokenPipeError):
        return {"error": "failed"}
    finally:
        child.wait(60)
    extra = (peak.bytes or 0) - (before.bytes or 0)
    return {**answer, "times": times, "extra_pss": extra, "extra_private": private}


def private_of_tree(pid: int) -> int:
    """Anonymous pages of a process and all below it, in bytes."""
    total = 0
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                total += int(line.split()[1]) * 1024
    return total


def main() -> int:
    """Run, print, write. Returns 0: what is missed is printed."""
    given = common.options("Sharing data between workers.", rounds=3, quick_rounds=1)
    facts = common.describe_machine()
    common.print_machine(facts)
    figures: dict[str, Any] = {"machine": facts}
    for load, (make, _, items) in LOADS.items():
        items = items // 5 if given.quick else items
        one = 10 * ROWS * 8 if make is make_frame else TABLES * 1_250_000 * 8
        found = {}
        for name in common.chosen(CONTENDERS, given.only):
            common.say(f"{load}: {name}")
            found[name] = measure(name, load, given, items)
        figures[load] = found
        report(load, items, one, found, given.markdown)
    common.write_json(given.json, figures)
    return 0


def report(load: str, items: int, one: int, found: dict[str, Any], markdown: bool) -> None:
    """One table."""
    good = {name: facts for name, facts in found.items() if "error" not in facts}
    checks = {facts["check"] for facts in good.values()}
    assert len(checks) == 1, f"the contenders do not agree: {checks}"
    owner = found.get("each process made its own", {})
    ideal = statistics.median(owner["times"]) if "times" in owner else None
    rows = []
    for name, facts in found.items():
        if "error" in facts:
            rows.append([name, *[facts["error"]] * 5])
            continue
        run = statistics.median(facts["times"])
        rows.append(
            [
                name,
                common.seconds(facts["first"]),
                common.seconds(run),
                "" if ideal is None else f"{run / ideal:.2f}",
                f"{facts['extra_private'] / one:.2f}",
                f"{facts['extra_pss'] / one:.2f}",
            ]
        )
    columns = ["", "first result", f"{items:,} items", "to owned", "private, copies", "peak PSS, copies"]
    common.print_table(load, columns, rows, markdown=markdown)


if __name__ == "__main__":
    if "--contend" in sys.argv:
        name, load, slots, items, rounds = sys.argv[2:]
        contend(name, load, int(slots), int(items), int(rounds))
    else:
        raise SystemExit(main())
