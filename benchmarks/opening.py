"""The script that `startup.py` runs in a fresh interpreter: import, open, one result, close; prints the moments as JSON.

The moments are `time.perf_counter()`, which on Linux and macOS is one clock for all processes. Imports stand where a user's
script would do them, but inside the functions, because worker processes import the main module too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Mark = Callable[[str], None]


def ours(options: dict[str, Any], mark: Mark) -> None:
    """`Session` with the defaults, save what the options take away."""
    from admf_dask import Session

    mark("imported")
    page = "auto" if options["page"] else None
    security = "auto" if options["tls"] else "none"
    mode = options.get("mode", "process")
    with Session(mode=mode, workers=options["slots"], dashboard=page, security=security) as session:
        mark("opened")
        check(session.map(abs, [-1], progress=False).values()[0])
        mark("first")


def stock(options: dict[str, Any], mark: Mark) -> None:
    """`LocalCluster` and `Client`, workers without pages in every case."""
    from distributed import Client, LocalCluster

    mark("imported")
    processes = options.get("mode", "process") == "process"
    settings: dict[str, Any] = {
        "n_workers": options["slots"] if processes else 1,
        "threads_per_worker": 1 if processes else options["slots"],
        "processes": processes,
        "dashboard_address": "127.0.0.1:0" if options["page"] else None,
    }
    if not options["page"]:
        settings["scheduler_kwargs"] = {"dashboard_address": "127.0.0.1:0"}  # else a server on 8787, whoever has it
    if options["tls"]:
        from distributed import Security

        settings["security"] = Security.temporary()
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        mark("opened")
        check(client.submit(abs, -1).result())
        mark("first")


def check(result: Any) -> None:
    """Raises AssertionError for a wrong first result."""
    if result != 1:
        raise AssertionError(f"abs(-1) is 1, but the first result is {result!r}")


def main(options: dict[str, Any]) -> None:
    """Run one of the two and print the moments."""
    moments = {"main": time.perf_counter()}

    def mark(name: str) -> None:
        moments[name] = time.perf_counter()

    {"ours": ours, "stock": stock}[options["who"]](options, mark)
    mark("closed")
    print(json.dumps(moments))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
