"""What a worker process has when it starts, and what it does not do again."""

from __future__ import annotations

import linecache
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from textwrap import indent
from typing import Any

import pandas as pd
import psutil
import pytest
import symbol_work

from admf_dask import Session
from admf_dask.runtime import forkserver, sources

HERE = Path(__file__).parent
forked = pytest.mark.skipif(forkserver.METHOD != "forkserver", reason="workers are forked on Linux only")


ROOMS = {"dask", "distributed", "tornado", "prometheus_client", "email", "importlib_metadata", "ssl"}


def loaded() -> set[str]:
    """The modules of this process."""
    return set(sys.modules)


def tell_loaded(end: Connection) -> None:
    """The same, from a process that was forked from the server and does nothing else."""
    end.send(loaded())
    end.close()


@forked
@pytest.mark.cluster
def test_a_worker_loads_nothing_by_itself() -> None:
    with Session(mode="process", workers=1, dashboard=None) as session:
        (names,) = session.client.run(loaded).values()
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("forkserver").Process(target=tell_loaded, args=(theirs,))
        process.start()
        theirs.close()
        with ours:
            bare = ours.recv()
        process.join()
    assert not {name for name in names - bare if name.partition(".")[0] in ROOMS}
    assert "distributed.worker" in bare


@forked
def test_a_worker_has_the_versions_that_it_tells_from_its_parent(process_session: Session) -> None:
    def counts() -> tuple[int, int]:
        from distributed.versions import _version_cached

        found = _version_cached.cache_info()
        return found.misses, found.hits

    for misses, hits in process_session.client.run(counts).values():
        assert 0 < misses <= hits, "each was looked up once, before the worker asked"


def settings() -> tuple[int, Any]:
    import dask

    return os.getpid(), dask.config.get("distributed.worker")


@pytest.mark.cluster
def test_a_worker_that_takes_the_place_of_another_has_the_same_settings(process_session: Session) -> None:
    client = process_session.client
    before = dict(client.run(settings).values())
    gone = min(before)
    os.kill(gone, signal.SIGKILL)
    after = before
    while gone in after or len(after) < len(before):
        client.wait_for_workers(len(before))
        after = dict(client.run(settings, on_error="ignore").values())
    kept, new = (set(before) & set(after)).pop(), (set(after) - set(before)).pop()
    assert after[new] == after[kept] == before[gone]
    assert after[new]["profile"]["interval"] == "1s"
    assert after[new]["http"]["routes"] == []


def busy(number: int) -> float:
    """Half a second of frames for a profiler to look at."""
    import pandas as pd

    until = time.perf_counter() + 0.5
    frame = pd.DataFrame({"a": range(1000)})
    while time.perf_counter() < until:
        frame.rolling(5).mean()
    return frame["a"].sum() + number


def test_a_profiled_worker_keeps_no_source_files(process_session: Session) -> None:
    def kept(dask_worker: Any) -> tuple[int, set[str], set[str]]:
        from distributed import profile

        seen: dict[str, Any] = profile.merge(
            *(state for _, state in dask_worker.profile_history), dask_worker.profile_recent
        )
        lines, todo = set(), [seen]
        while todo:
            node = todo.pop()
            if node["description"] != "root":
                lines.add(node["description"]["line"])
            todo += node["children"].values()
        return seen["count"], lines, set(linecache.cache)

    # The traceback of an item that failed inside pandas, in a test before, was made from such files too.
    process_session.client.run(linecache.clearcache)
    process_session.map(busy, range(4), progress=False)
    found = list(process_session.client.run(kept).values())
    assert any(count for count, _, _ in found)
    assert any("job.evaluate(" in line for _, lines, _ in found for line in lines), "the page still shows lines"
    assert not [name for _, _, files in found for name in files if "pandas" in name]


# Commands


def run_command(folder: Path, function: str, *more: str, **options: Any) -> subprocess.Popen[str]:
    paths = os.pathsep.join(map(str, [folder, HERE.parent, HERE]))
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": paths, "PYTHONHASHSEED": "1"}
    (folder / "names.txt").write_text("\n".join(f"S{n:04d}" for n in range(600)))
    command = [sys.executable, "-W", "error", "-m", "admf_dask", "process", "--function", function, *more]
    command += ["--workers", "2", "--dashboard", "none", "--out", str(folder / "out")]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **options)


def surroundings_of(folder: Path, function: str = "symbol_work:surroundings") -> pd.DataFrame:
    with run_command(folder, function, "--symbols", ",".join("ABCDEFGH"), "--quiet") as command:
        assert command.stderr is not None
        said = command.stderr.read()
    assert command.returncode == 0, said
    return pd.concat([pd.read_parquet(path) for path in sorted((folder / "out").glob("*.parquet"))])


@forked
def test_a_command_forks_its_workers_from_itself_and_they_are_as_others(
    tmp_path: Path, process_session: Session
) -> None:
    found = surroundings_of(tmp_path)
    assert found["server"].nunique() == 1
    assert "-m admf_dask process" in found["server starts with"].iloc[0]
    assert set(found["threads of the server"]) == {"1"}
    assert found["pid"].nunique() == 2
    assert found["drawn"].nunique() == len(found), "no two draw the same"
    outcomes = process_session.map(symbol_work.surroundings, list("ABCDEFGH"), progress=False)
    usual = pd.concat(outcome.value for outcome in outcomes)
    assert "multiprocessing.forkserver" in usual["server starts with"].iloc[0]
    for fact in ("hash", "warnings", "term", "free locks", "files", "malloc", "arrow"):
        assert set(found[fact]) == set(usual[fact]), fact
    assert set(found["free locks"]) == {"2"}


THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


@forked
def test_what_a_function_brings_along_is_loaded_by_each_worker_itself(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        f"import os\n{THREAD}from symbol_work import surroundings as seen\nloaded_in = os.getpid()\n"
        "def surroundings(symbol):\n    return seen(symbol).assign(loaded_in=str(loaded_in))\n"
    )
    found = surroundings_of(tmp_path, "threaded:surroundings")
    assert set(found["threads of the server"]) == {"1"}
    assert (found["loaded_in"] == found["pid"]).all()


@forked
def test_a_command_that_is_not_alone_in_its_process_has_a_server_that_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nif '-c' not in sys.orig_argv:\n" + indent(THREAD, "    "))
    found = surroundings_of(tmp_path)
    assert "multiprocessing.forkserver" in found["server starts with"].iloc[0]


@pytest.mark.parametrize("how", ["module", "function"])
def test_a_program_that_calls_the_command_does_not_begin_again(tmp_path: Path, how: str) -> None:
    """A notebook would lose its kernel."""
    calls = {
        "module": "import runpy; runpy.run_module('admf_dask', run_name='__main__')",
        "function": "import admf_dask.cli; admf_dask.cli.command()",
    }
    (tmp_path / "study.yaml").write_text(
        "strategy: sma_crossover\nparameters: {fast: [2, 3], slow: [10, 20]}\ndata: {symbol: FB}\n"
        "parallel: {mode: process, max_workers: 1, dashboard: null}\n"
    )
    (tmp_path / "host.py").write_text(
        "import os, sys\nif __name__ == '__main__':\n    print('begun', flush=True)\n"
        f"    sys.argv[1:] = ['optimize', 'study.yaml', '--out', 'out', '--quiet']\n    {calls[how]}\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(HERE.parent), "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "host.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begun") == 1
    assert (tmp_path / "out" / "results.parquet").exists()


@forked
def test_a_command_that_is_killed_takes_all_with_it(tmp_path: Path) -> None:
    with run_command(tmp_path, "symbol_work:slow_row", "--symbols", "names.txt") as command:
        while len(list((tmp_path / "out").glob("S*.parquet"))) < 20:
            assert command.poll() is None
        others = psutil.Process(command.pid).children(recursive=True)
        command.kill()
        assert len(others) >= 4, "tracker, server and workers"
        _, alive = psutil.wait_procs(others, timeout=20)
    assert not alive


@forked
def test_a_command_goes_on_when_its_server_dies(tmp_path: Path) -> None:
    with run_command(tmp_path, "symbol_work:slow_row", "--symbols", "names.txt") as command:
        while len(list((tmp_path / "out").glob("S*.parquet"))) < 20:
            assert command.poll() is None
        driver = psutil.Process(command.pid)
        server = next(child for child in driver.children() if child.children())
        assert "-m admf_dask process" in " ".join(server.cmdline())
        server.kill()
        assert command.stderr is not None
        said = command.stderr.read()
    assert command.returncode == 0, said
    assert len(list((tmp_path / "out").glob("S*.parquet"))) == 600


# Lines


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    """Nothing known of any file before, nothing kept after."""
    before = dict(linecache.cache)
    linecache.clearcache()
    sources._line_of_file.cache_clear()
    yield
    linecache.cache.clear()
    linecache.cache.update(before)


@pytest.mark.parametrize("number", [-1, 0, 1, 2, 3, 4, 99])
def test_a_line_is_that_of_linecache(tmp_path: Path, number: int) -> None:
    path = tmp_path / "strategy.py"
    path.write_text("first\n    über\nlast\n", encoding="utf-8")
    found = sources.getline(str(path), number)
    assert str(path) not in linecache.cache
    if number > 0:
        assert found == linecache.getline(str(path), number)
    else:
        assert linecache.getline(str(path), number) == ""


def test_a_cell_of_a_notebook_has_its_lines() -> None:
    linecache.cache["<cell 1>"] = (9, None, ["a = 1\n", "b = 2\n"], "<cell 1>")
    assert sources.getline("<cell 1>", 2) == "b = 2\n"


def test_what_is_in_no_file_comes_from_who_loaded_it(tmp_path: Path) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("inside.py", "one = 1\ntwo = 2\n")
    sys.path.insert(0, str(path))
    try:
        import inside  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(path))
        sys.modules.pop("inside", None)
    assert sources.getline(inside.__file__, 2, vars(inside)) == "two = 2\n"
    assert sources.getline("<string>", 1) == ""
