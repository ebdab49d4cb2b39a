"""One contender in a fresh process, told over a pipe what to do. Started by `trial.py`.

Arguments: the file descriptor of the pipe, the name of the contender, the number of slots. Answers are tuples: `("ok",
value)`, or `("error", text)` after which the process ends.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any


def main(descriptor: int, name: str, slots: int) -> None:
    """Open the contender, then obey `rehearse` and `time` until `close`."""
    os.set_inheritable(descriptor, False)
    with Connection(descriptor) as pipe:
        try:
            serve(pipe, name, slots)
        except EOFError:
            return  # whoever asked is gone
        except Exception:  # noqa: BLE001 - the text goes to the table, and the process ends
            pipe.send(("error", traceback.format_exc()))


def serve(pipe: Connection, name: str, slots: int) -> None:
    """The conversation."""
    from contenders import AT_HAND, CONTENDERS
    from loads import Grid

    began = time.perf_counter()
    with CONTENDERS[name](slots) as run:
        opened = time.perf_counter()
        run(Grid("first", loops=1, nominal=0.0, fast=slots))
        pipe.send(("ok", {"open": opened - began, "first": time.perf_counter() - opened}))
        loads: dict[Any, Any] = {}
        while (order := pipe.recv())[0] != "close":
            load = loads.setdefault(order[1], order[1])
            load.expected  # noqa: B018 - before the clock starts, as the list of items where a caller has one
            if name == AT_HAND or not isinstance(load, Grid):
                load.items  # noqa: B018
            pipe.send(("ok", timed(run, load)))
        closing = time.perf_counter()
    pipe.send(("ok", time.perf_counter() - closing))


def timed(run: Any, load: Any) -> float:
    """Seconds from the call to the best score known; all values are checked afterwards. Raises on a wrong one."""
    began = time.perf_counter()
    answer = run(load)
    seconds = time.perf_counter() - began
    values, expected = list(answer.values()), load.expected
    if values != expected or answer.best != max(expected):
        wrong = [i for i, (got, right) in enumerate(zip(values, expected)) if got != right]
        raise AssertionError(
            f"{len(values)} values for {len(expected)} items, {len(wrong)} of them wrong (first at {wrong[:1]}); "
            f"best {answer.best}, which should be {max(expected)}"
        )
    return seconds


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
