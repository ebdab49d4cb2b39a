"""One large frame read by all workers: memory and time of ours against the peers, each at its usual best.

    python benchmarks/sharing.py                          about ten minutes
    python benchmarks/sharing.py --quick                  about three
    python benchmarks/sharing.py --load frame --only admf --only "made its own"

500 MB of prices (ten columns); an evaluation reads all of it, about 20 ms on data of one's own. And 50 tables of 10 MB, of
which an evaluation reads one. Each contender is a process of its own: it opens its workers and does one trivial item in each
(the baseline), then makes the data, and does all evaluations once while memory is sampled. When all have done so, they are
timed in turn, as many rounds as asked, and a round is set against the same round of "each process made its own", which has
nothing to send: the time to reach. They must agree on every sum. Extra memory is the peak less the baseline, in copies of
the data; the driver holds one copy anyway, because that is where a researcher's frame is, except for "shared, then dropped".
Private memory is what is not a page of a file; PSS counts shared pages once, those too.
"""

from __future__ import annotations

import argparse
import functools
import json
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import psutil
from memory import INTERVAL, peak_of_tree

FRAME, TABLE, TABLES = 6_250_000, 1_250_000, 50
"""Rows of the frame and of each table, and how many tables there are."""
BRIEF = 5
"""With --brief all rows are divided by this."""


def make_frame(smaller: int) -> pd.DataFrame:
    """500 MB."""
    values = np.empty((10, FRAME // smaller))
    np.random.default_rng(0).standard_normal(out=values)
    return pd.DataFrame(values.T, columns=[f"c{i}" for i in range(10)])


def make_tables(smaller: int) -> dict[str, pd.DataFrame]:
    """50 tables of 10 MB."""
    source = np.random.default_rng(0)
    return {f"S{i}": pd.DataFrame({"close": source.normal(size=TABLE // smaller)}) for i in range(TABLES)}


def read_frame(i: int, frame: pd.DataFrame) -> float:
    """About 20 ms: a pass over 500 MB, or more passes over less, and one value that depends on the item."""
    names = [*frame] * (FRAME // len(frame))
    return float(sum(frame[name].to_numpy().sum() for name in names)) + float(frame.iat[i, 0])


def read_table(i: int, tables: dict[str, pd.DataFrame]) -> float:
    """About 20 ms: many passes over 10 MB, or more over less."""
    column = tables[f"S{i % TABLES}"]["close"].to_numpy()
    steps = (np.sum, np.max, np.min) * 30 * (TABLE // len(column))
    return float(sum(step(column) for step in steps)) + float(column[i])


LOADS: dict[str, tuple[Callable[[int], Any], Callable[[int, Any], float], int, int]] = {
    "one frame of {} MB": (make_frame, read_frame, 10 * FRAME * 8, 1),
    "50 tables of {} MB": (make_tables, read_table, TABLES * TABLE * 8, TABLES),
}
"""Title -> how the data is made and read, its bytes, in how many parts."""
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


def contend(name: str, load: str, slots: int, items: int, smaller: int) -> None:
    """One contender in this process, told by lines on standard input; answers are lines of JSON."""
    maker, function, _, _ = LOADS[load]
    make = functools.partial(maker, smaller)
    wants_maker = name == "admf_dask shared, then dropped"
    with CONTENDERS[name](slots, function, make) as run:
        _answer("baseline")
        sys.stdin.readline()
        data = make if wants_maker else make() if name != "each process made its own" else None
        _answer("data")
        while line := sys.stdin.readline().strip():
            began = time.perf_counter()
            values = run(data, slots if line == "first" else items)
            _answer({"seconds": time.perf_counter() - began, "sum": sum(values)})


def _answer(content: Any) -> None:
    print(json.dumps(content), flush=True)


class Contender:
    """A contender's process, seen from here."""

    def __init__(self, name: str, load: str, slots: int, items: int, smaller: int) -> None:
        """Start it; raises RuntimeError when it does not come up."""
        command = [sys.executable, __file__, "--contend", name, load, *map(str, (slots, items, smaller))]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
        )
        self.ask(None)
        self.name, self.smaller = name, smaller
        self.times: list[float] = []
        self.facts: dict[str, Any] = {}

    def ask(self, what: str | None) -> Any:
        """Say something and wait for the answer. Raises RuntimeError when there is none."""
        assert self.child.stdin
        assert self.child.stdout
        try:
            if what is not None:
                self.child.stdin.write(f"{what}\n")
                self.child.stdin.flush()
            return json.loads(self.child.stdout.readline())
        except (json.JSONDecodeError, BrokenPipeError) as error:
            raise RuntimeError("failed") from error

    def rehearse(self) -> None:
        """The first result, and everything once with a look at the memory."""
        time.sleep(1 / self.smaller)
        with peak_of_tree(self.child.pid) as before:
            time.sleep(10 * INTERVAL)
        private = private_of_tree(self.child.pid)
        with peak_of_tree(self.child.pid) as peak:
            self.ask("data")
            first = self.ask("first")["seconds"]
            check = self.ask("all")["sum"]
        extra = (peak.bytes or 0) - (before.bytes or 0)
        held = private_of_tree(self.child.pid) - private
        self.facts = {"first": first, "check": check, "extra_pss": extra, "extra_private": held}

    def time(self) -> None:
        """One timed round."""
        answer = self.ask("all")
        # What Dask sends from worker to worker may begin at an odd address, where NumPy adds in another order.
        near = 1e-12 if self.name == "dask scatter" else 0.0
        assert np.isclose(answer["sum"], self.facts["check"], rtol=near, atol=0.0), (
            f"{self.name} does not agree with itself"
        )
        self.times.append(answer["seconds"])

    def close(self) -> None:
        """End it."""
        assert self.child.stdin
        self.child.stdin.close()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def private_of_tree(pid: int) -> int:
    """Anonymous pages of a process and all below it, in bytes."""
    total = 0
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                total += int(line.split()[1]) * 1024
    return total


def race(load: str, title: str, names: list[str], given: Any, items: int) -> dict[str, Any]:
    """All contenders on one load: rehearsals first, then rounds in turn."""
    found: dict[str, Any] = {}
    running: dict[str, Contender] = {}

    def start(name: str) -> Contender:
        return Contender(name, load, given.slots, items, given.smaller)

    with ThreadPoolExecutor(given.slots) as several:
        early = {name: several.submit(start, name) for name in names} if given.brief else {}
    try:
        for name in names:
            common.say(f"{title}: {name}")
            try:
                running[name] = contender = early[name].result() if early else start(name)
                contender.rehearse()
            except RuntimeError as error:
                found[name] = {"error": str(error)}
                if name in running:
                    running.pop(name).close()
        for number in range(given.rounds):
            common.say(f"{title}: round {number + 1} of {given.rounds}")
            order = list(running.values())
            for contender in order if number % 2 == 0 else reversed(order):
                contender.time()
    finally:
        for contender in running.values():
            contender.child.stdin.close()  # all at once, and then one after the other waited for
        for contender in running.values():
            contender.close()
    found |= {name: {**contender.facts, "times": contender.times} for name, contender in running.items()}
    return {name: found[name] for name in names}


def size_of_handle(make: Any, given: Any) -> int:
    """Bytes that travel instead of the data."""
    from admf_dask import Session

    with Session(mode="thread", workers=1, dashboard=None) as session:
        return len(pickle.dumps(session.share(make(given.smaller))))


def main() -> int:
    """Run, print, write. Returns 0: what is missed is printed."""
    given = _options()
    facts = common.describe_machine()
    common.print_machine(facts)
    figures: dict[str, Any] = {"machine": facts}
    names = common.chosen(CONTENDERS, given.only)
    items = common.of_form(given, 1000, 200, 40)
    for load, (make, _, size, parts) in LOADS.items():
        one = size // given.smaller
        title = load.format(one // parts // 10**6)
        if given.load is not None and given.load not in title:
            continue
        found = race(load, title, names, given, items)
        figures[title] = {"items": items, "handle_bytes": size_of_handle(make, given), "contenders": found}
        report(title, items, one, found, given.markdown)
        print(f"a handle has {figures[title]['handle_bytes']} bytes")
    common.write_json(given.json, figures)
    return 0


def _options() -> Any:
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--load", metavar="TEXT", help="only the load whose name contains TEXT")
    load, rest = which.parse_known_args()
    sys.argv[1:] = rest
    given = common.options("Sharing data between workers.", rounds=5, quick_rounds=3)
    given.load, given.smaller = load.load, BRIEF if given.brief else 1
    return given


def report(load: str, items: int, one: int, found: dict[str, Any], markdown: bool) -> None:
    """One table; a ratio is the median of the rounds' ratios."""
    good = [facts["check"] for facts in found.values() if "error" not in facts]
    assert np.allclose(good, good[0], rtol=1e-12), f"the contenders do not agree: {good}"
    owner = found.get("each process made its own", {}).get("times")
    rows = []
    for name, facts in found.items():
        if "error" in facts:
            rows.append([name, *[facts["error"]] * 5])
            continue
        times = facts["times"]
        ratios = [] if owner is None else [mine / its for mine, its in zip(times, owner, strict=True)]
        rows.append(
            [
                name,
                common.seconds(facts["first"]),
                common.seconds(statistics.median(times)),
                f"{statistics.median(ratios):.3f}" if ratios else "",
                f"{facts['extra_private'] / one:.2f}",
                f"{facts['extra_pss'] / one:.2f}",
            ]
        )
    columns = ["", "first result", f"{items:,} items", "to owned", "private, copies", "peak PSS, copies"]
    common.print_table(load, columns, rows, markdown=markdown)


if __name__ == "__main__":
    if "--contend" in sys.argv:
        name, load, *numbers = sys.argv[2:]
        contend(name, load, *map(int, numbers))
    else:
        raise SystemExit(main())
