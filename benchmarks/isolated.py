"""What one call in a fresh process costs: `run_isolated_process` against what people use instead, and what ten thousand leave.

    python benchmarks/isolated.py                about two minutes
    python benchmarks/isolated.py --quick        half a minute
    python benchmarks/isolated.py --leaks 10000  the calls after which processes and descriptors are counted; 0 for none

Every contender calls the same function with the same arguments, one call after the other, in a process that served no call
before and serves none after; the results are compared first. Rounds go through all contenders in turn. `fork` copies this
process, threads and all, which is quick and what the others avoid.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import common
import psutil

SIZES = {"a number": 0, "an array of 8 MB": 1_000_000}
OURS, COLD = "run_isolated_process, warm", "run_isolated_process, env= (from nothing)"
Call = Callable[..., Any]


def work(size: int, seed: int) -> Any:
    """A little NumPy, as the shortest of research calls."""
    import numpy as np

    values = np.random.default_rng(seed).normal(size=max(size, 10))
    return values if size else float(values.sum())


def work_with_pid(size: int, seed: int) -> Any:
    """The same, and which process did it."""
    return work(size, seed), os.getpid()


def _answer(pipe: Any, function: Call, args: tuple[Any, ...]) -> None:
    pipe.send(function(*args))
    pipe.close()


def of_multiprocessing(method: str) -> Call:
    """A process for the call, read before it is joined, as the standard library wants it."""
    context = multiprocessing.get_context(method)

    def call(function: Call, *args: Any) -> Any:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(theirs, function, args))
        process.start()
        theirs.close()
        value = ours.recv()
        process.join()
        ours.close()
        return value

    return call


def contenders() -> dict[str, tuple[Call, Callable[[], None]]]:
    """Name -> the call, and how it is ended."""
    import pandas  # noqa: F401 - as a research process has it, with the thread that it brings along

    from admf_dask import run_isolated_process

    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1)

    def nothing() -> None:
        return None

    found: dict[str, tuple[Call, Callable[[], None]]] = {
        OURS: (run_isolated_process, run_isolated_process.close),
        COLD: (run_isolated_process.options(env={"ADMF_DASK_COLD": "1"}), nothing),
        "multiprocessing, fork": (of_multiprocessing("fork"), nothing),
        "multiprocessing, forkserver": (of_multiprocessing("forkserver"), nothing),
        "multiprocessing, spawn": (of_multiprocessing("spawn"), nothing),
        "ProcessPoolExecutor(max_tasks_per_child=1), spawn": (
            lambda function, *args: pool.submit(function, *args).result(),
            pool.shutdown,
        ),
    }
    try:
        from joblib.externals.loky import ProcessPoolExecutor as Loky
    except ImportError:
        return found

    def loky(function: Call, *args: Any) -> Any:
        with Loky(1) as executor:
            return executor.submit(function, *args).result()

    found["loky, an executor for the call"] = (loky, nothing)
    return found


def check(name: str, call: Call) -> None:
    """The same numbers, and another process each time."""
    import numpy as np

    for size in SIZES.values():
        assert np.array_equal(call(work, size, 7), work(size, 7)), f"{name} gives another result"
    pids = {call(work_with_pid, 0, 7)[1] for _ in range(3)}
    assert len(pids) == 3, f"{name} does not use a fresh process for each call"
    assert os.getpid() not in pids


def race(given: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Seconds of each call: size -> contender -> one for each round."""
    field = contenders()
    for name, (call, _) in field.items():
        common.say(f"checking {name}")
        check(name, call)
    times: dict[str, dict[str, list[float]]] = {size: {name: [] for name in field} for size in SIZES}
    for number in range(given.rounds):
        common.say(f"round {number + 1} of {given.rounds}")
        for size, count in SIZES.items():
            for name, (call, _) in field.items():
                began = time.perf_counter()
                call(work, count, number)
                times[size][name].append(time.perf_counter() - began)
    for _, end in field.values():
        end()
    return times


def leaks(count: int) -> bool:
    """Call so often, and print what is left; whether that is nothing."""
    from admf_dask import run_isolated_process

    def look() -> tuple[int, int, int]:
        children = psutil.Process().children(recursive=True)
        zombies = sum(child.status() == psutil.STATUS_ZOMBIE for child in children)
        return len(os.listdir("/proc/self/fd")), len(children), zombies

    run_isolated_process(int, 0)
    before, began = look(), time.perf_counter()
    for number in range(count):
        assert run_isolated_process(int, number) == number
    took, after = time.perf_counter() - began, look()
    run_isolated_process.close()
    print(f"\n{count:,} calls in {took:.1f} s ({took / count * 1e3:.1f} ms each)")
    for name, was, now in zip(("descriptors", "child processes", "zombies"), before, after):
        print(f"{name:<16} {was} before, {now} after")
    return before == after and not after[2]


def main() -> int:
    """Run, print, write. Returns 1 if something is left behind."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--leaks", type=int, default=None)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    given = common.options("The cost of a call in a fresh process.", rounds=25, quick_rounds=7)
    facts = common.describe_machine()
    common.print_machine(facts)
    times = race(given)
    for size, of in times.items():
        ours = statistics.median(of[OURS])
        rows = [
            [name, f"{statistics.median(each) * 1e3:.1f} ms", f"{statistics.median(each) / ours:.1f}"]
            for name, each in sorted(of.items(), key=lambda pair: statistics.median(pair[1]))
        ]
        common.print_table(
            f"one call that returns {size}", ("contender", "median", "to ours"), rows, markdown=given.markdown
        )
    common.write_json(given.json, {"machine": facts, "seconds": times})
    count = own.leaks if own.leaks is not None else common.of_form(given, 10_000, 300, 100)
    return 0 if not count or leaks(count) else 1


if __name__ == "__main__":
    raise SystemExit(main())
