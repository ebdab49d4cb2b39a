"""Isolated calls: a fresh process each, and every end of it an answer."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import fault_work as work
import numpy as np
import psutil
import pytest

from admf_dask import TaskFailed, TaskTimeout, WorkerDied, run_isolated_process

HERE = Path(__file__).parent
COLD = run_isolated_process.options(env={"ADMF_DASK_TEST": "cold"})


@pytest.fixture(params=["warm", "cold"])
def run(request: pytest.FixtureRequest) -> Any:
    """Forked from the server, and started from nothing."""
    return run_isolated_process if request.param == "warm" else COLD


def test_lambdas_closures_arguments_and_large_results_travel(run: Any) -> None:
    offset = 5
    assert run(lambda x, *, y: x + y + offset, 1, y=2) == 8
    assert run(os.getpid) not in (os.getpid(), run(os.getpid))
    large = run(np.arange, 25_000_000)
    assert large.nbytes == 200_000_000
    assert large[-1] == 24_999_999


def test_nothing_is_inherited_and_nothing_comes_back(run: Any) -> None:
    assert run(work.remembers, 1) == 1
    assert run(work.remembers, 2) == 1

    def change() -> None:
        os.environ["ADMF_DASK_TEST_CHANGE"] = "1"
        os.chdir("/")

    before = os.getcwd()
    run(change)
    assert "ADMF_DASK_TEST_CHANGE" not in os.environ
    assert os.getcwd() == before


def test_environment_and_folder_are_those_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_isolated_process(os.getpid)
    monkeypatch.setenv("ADMF_DASK_TEST_LATE", "yes")
    monkeypatch.chdir(tmp_path)
    assert run_isolated_process(lambda: (os.environ.get("ADMF_DASK_TEST_LATE"), os.getcwd())) == ("yes", str(tmp_path))
    elsewhere = run_isolated_process.options(cwd="/", env={"A": "1"})
    assert elsewhere(lambda: (os.environ["A"], os.getcwd())) == ("1", "/")


FAULTS: dict[str, tuple[Any, str | None]] = {
    "raise": (ValueError, "invalid literal"),
    "recursion": (RecursionError, "maximum recursion"),
    "segfault": (WorkerDied, "was ended by SIGSEGV"),
    "exit": (WorkerDied, "ended with exit code 3"),
    "kill": (WorkerDied, "was ended by SIGKILL"),
    "terminate": (WorkerDied, "was ended by SIGTERM"),
    "system exit": (WorkerDied, "ended with exit code 4"),
    "unpicklable result": (TaskFailed, "must survive pickling"),
    "unpicklable error": (TaskFailed, "HoldsALock: locked"),
    "keyboard interrupt": (KeyboardInterrupt, None),
    "no str": ((TaskFailed, work.CannotBePrinted), None),
}
DEADLY = {"segfault": ("SIGSEGV", None), "exit": (None, 3), "kill": ("SIGKILL", None), "system exit": (None, 4)}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_error(run: Any, fault: str) -> None:
    kind, words = FAULTS[fault]
    with pytest.raises(kind, match=words) as caught:
        run(work.act, fault)
    if fault in DEADLY:
        assert (caught.value.signal, caught.value.exit_code) == DEADLY[fault]
        assert caught.value.item is work.act
        peak = caught.value.peak_memory
        assert peak is None if run is COLD else 2**20 < peak < 2**30


@pytest.mark.parametrize(("given", "code"), [("no more", 1), (None, 0), (7, 7)])
def test_who_leaves_says_so_with_the_code_that_any_process_would_have(given: Any, code: int) -> None:
    with pytest.raises(WorkerDied, match=f"ended with exit code {code} without an answer") as caught:
        run_isolated_process(sys.exit, given)
    assert caught.value.exit_code == code


def test_an_error_keeps_its_type_and_has_the_remote_traceback_as_its_cause() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        run_isolated_process(work.act, "raise")
    assert "fault_work.py" in str(caught.value.__cause__)
    assert "child.py" not in str(caught.value.__cause__), "frames of ours are noise"
    with pytest.raises((TaskFailed, work.WillNotUnpickle), match="1 and 2"):
        run_isolated_process(work.act, "error that will not unpickle")


@pytest.mark.parametrize("fault", ["python loop that swallows", "sleep", "c loop", "c loop that holds the interpreter"])
def test_a_timeout_ends_whatever_runs(run: Any, fault: str) -> None:
    before = time.monotonic()
    with pytest.raises(TaskTimeout, match=r"timeout=0.3 seconds and was killed"):
        run.options(timeout=0.3)(work.act, fault)
    assert time.monotonic() - before < 30


@pytest.mark.parametrize("fault", ["memory in small steps", "memory in big steps"])
def test_a_memory_limit_is_enforced_with_figures(run: Any, fault: str) -> None:
    with pytest.raises(WorkerDied, match=r"outgrew memory_limit=381 MiB \(it had \d+ MiB\)") as caught:
        run.options(memory_limit="400MB")(work.act, fault)
    assert caught.value.memory_limit == 400_000_000 < (caught.value.peak_memory or 0)
    assert run.options(memory_limit="400MB")(work.act, 5) == 5


def test_what_a_child_started_counts_for_its_memory() -> None:
    def start_and_let_it_grow() -> int:
        code = "held = b'x' * 400_000_000; import time; time.sleep(600)"
        return subprocess.run([sys.executable, "-c", code], check=False).returncode

    with pytest.raises(WorkerDied, match=r"outgrew memory_limit=286 MiB \(it had \d+ MiB\)"):
        run_isolated_process.options(memory_limit="300MB", timeout=40)(start_and_let_it_grow)


def test_what_a_child_started_ends_with_it(run: Any, tmp_path: Path) -> None:
    def start_and_leave(folder: str) -> int:
        return subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid

    def start_and_hang() -> None:
        child = subprocess.Popen(["sleep", "600"])
        Path(tmp_path, "grandchild").write_text(str(child.pid))
        time.sleep(600)

    left = run(start_and_leave, str(tmp_path))
    assert gone(left)
    with pytest.raises(TaskTimeout):
        run.options(timeout=1)(start_and_hang)
    assert gone(int(Path(tmp_path, "grandchild").read_text()))


def gone(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        process.wait(10)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        return not psutil.pid_exists(pid)
    return True


def test_a_kill_from_outside_is_told(tmp_path: Path) -> None:
    def tell_and_wait() -> None:
        Path(tmp_path, "new").write_text(str(os.getpid()))
        Path(tmp_path, "new").rename(tmp_path / "pid")
        time.sleep(600)

    def kill() -> None:
        while not (tmp_path / "pid").exists():
            pass
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkerDied, match="SIGKILL"):
        run_isolated_process(tell_and_wait)
    killer.join()


def test_what_it_prints_and_logs_reaches_the_caller(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    def speak() -> None:
        sys.stdout.write("to out\n")
        sys.stderr.write("to err\n")
        os.write(1, b"from C\n")
        logging.getLogger("a.users.logger").warning("%s bars of %s", 3, "AAPL")
        logging.getLogger("a.users.logger").debug("not asked for")

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), caplog.at_level(logging.INFO):
        run(speak)
    assert sorted(out.getvalue().splitlines()) == ["from C", "to out"]
    assert err.getvalue() == "to err\n"
    assert [(r.name, r.getMessage()) for r in caplog.records] == [("a.users.logger", "3 bars of AAPL")]


def test_a_character_may_come_in_two_pieces() -> None:
    # Pipes hold an even number of bytes, and the first of these is odd.
    out = io.StringIO()
    with redirect_stdout(out):
        run_isolated_process(print, "x" + "ü" * 200_000)
    assert out.getvalue() == "x" + "ü" * 200_000 + "\n"


@pytest.mark.parametrize("streams", ["sys.stdout.close()", "sys.stdout = sys.stderr = None", "os.close(1)"])
def test_a_service_without_streams_can_isolate_calls(streams: str) -> None:
    program = f"import os, sys, admf_dask; {streams}; os._exit(admf_dask.run_isolated_process(abs, -3))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (3, "")


def test_threads_and_forks_that_log_while_the_result_is_sent_do_not_mix_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def noisy() -> bytes:
        logger, started = logging.getLogger("noisy"), threading.Barrier(3)

        def log() -> None:
            started.wait()
            for _ in range(3000):
                logger.warning("%s", "x" * 500)

        if (fork := os.fork()) == 0:
            for _ in range(100):
                logger.warning("from a fork")
            os._exit(0)
        os.waitpid(fork, 0)
        for _ in range(2):
            threading.Thread(target=log, daemon=True).start()
        started.wait()
        return b"r" * 20_000_000

    err = io.StringIO()
    with redirect_stderr(err):
        assert run_isolated_process(noisy) == b"r" * 20_000_000
    assert err.getvalue() == "from a fork\n" * 100
    assert {record.getMessage() for record in caplog.records} <= {"x" * 500}


def test_calls_inside_calls() -> None:
    def inner(depth: int) -> list[int]:
        return [os.getpid(), *(run_isolated_process(inner, depth - 1) if depth else [])]

    pids = run_isolated_process(inner, 2)
    assert len({os.getpid(), *pids}) == 4
    assert all(gone(pid) for pid in pids)

    def fail() -> None:
        run_isolated_process(work.act, "segfault")

    with pytest.raises(WorkerDied, match="SIGSEGV") as caught:
        run_isolated_process(fail)
    assert caught.value.signal == "SIGSEGV"


CALLS = int(os.environ.get("ADMF_DASK_ISOLATED_CALLS", "320"))
"""`ADMF_DASK_ISOLATED_CALLS=10000 python -m pytest tests/test_local_isolated.py -k many` is the long form."""

MANY = """
import os, sys, threading
import pandas, psutil
from admf_dask import run_isolated_process

run_isolated_process(os.getpid)
before = sorted(os.listdir("/proc/self/fd"))
each, found = int(sys.argv[1]) // 8, []

def calls():
    for number in range(each):
        found.append(run_isolated_process(int, number))

threads = [threading.Thread(target=calls) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(found) == sorted(list(range(each)) * 8), found
after = sorted(os.listdir("/proc/self/fd"))
assert len(after) == len(before), (before, after)
states = [child.status() for child in psutil.Process().children(recursive=True)]
assert states and psutil.STATUS_ZOMBIE not in states, states
"""


@pytest.mark.timeout(900)
def test_many_calls_from_many_threads_leave_no_descriptor_and_no_zombie() -> None:
    # In a process of its own: in this one, others' sockets close when they like.
    done = subprocess.run([sys.executable, "-c", MANY, str(CALLS)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_server_has_one_thread_and_may_be_killed_or_closed() -> None:
    run_isolated_process(os.getpid)
    (server,) = (c for c in psutil.Process().children() if "admf_dask.local.forkserver" in " ".join(c.cmdline()))
    threads = [Path(f"/proc/{server.pid}/task/{thread.id}/comm").read_text().strip() for thread in server.threads()]
    assert [name for name in threads if name != "jemalloc_bg_thd"] == threads[:1]
    server.kill()
    server.wait(10)
    assert run_isolated_process(int, 3) == 3
    run_isolated_process.close()
    assert not [c for c in psutil.Process().children() if "admf_dask.local.forkserver" in " ".join(c.cmdline())]
    assert run_isolated_process(int, 4) == 4


def script(body: str, tmp_path: Path) -> subprocess.Popen[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(body))
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_where_pandas_is_loaded_a_child_is_forked_with_it(tmp_path: Path) -> None:
    """It brings a thread along; a child that starts from nothing loads it for each call, a quarter of a second."""
    body = """
    import os, sys
    import pandas
    from admf_dask import run_isolated_process
    print(run_isolated_process(lambda: "pandas" in sys.modules), run_isolated_process(os.getppid) != os.getpid())
    """
    with script(body, tmp_path) as process:
        assert process.communicate(timeout=60) == ("True True\n", "")


def test_what_begins_a_thread_is_not_loaded_into_the_server_and_that_ends_with_its_process(tmp_path: Path) -> None:
    (tmp_path / "restless.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    body = """
    import os, sys, warnings
    from admf_dask import run_isolated_process
    from admf_dask.local import start
    warnings.simplefilter("always", ResourceWarning)
    sys.modules["restless"], start._PRELOAD = sys, ("restless",)
    print(run_isolated_process(lambda: "restless" in sys.modules), run_isolated_process(os.getppid) != os.getpid())
    """
    with script(body, tmp_path) as process:
        assert process.communicate(timeout=60) == ("False True\n", "")


def test_an_unguarded_script_and_its_classes_work(tmp_path: Path) -> None:
    body = """
    import dataclasses, os
    from admf_dask import run_isolated_process
    @dataclasses.dataclass
    class Bar:
        close: float
    def make(close):
        return Bar(close)
    print("once", run_isolated_process(make, 2.5))
    """
    with script(body, tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("once Bar(close=2.5)\n", "")


NOTEBOOK = """
import sys
main = sys.modules["__main__"]
cells = [
    "from admf_dask import run_isolated_process",
    "FACTOR = 3",
    "class Bar:\\n    def __init__(self, close):\\n        self.close = close * FACTOR",
    "def make(close):\\n    return Bar(close)",
    "print(run_isolated_process(make, 2).close, run_isolated_process(lambda: make(3).close))",
    "print(type(run_isolated_process(make, 2)) is Bar)",
    "FACTOR = 5",
    "print(run_isolated_process(lambda: make(2).close), run_isolated_process(make, 2).close)",
]
for number, cell in enumerate(cells):
    exec(compile(cell, f"<cell {number}>", "exec"), main.__dict__)
"""


def test_functions_and_classes_of_a_notebook_travel_as_they_are_now(tmp_path: Path) -> None:
    with script(NOTEBOOK, tmp_path) as process:
        assert process.communicate(timeout=60) == ("6 9\nTrue\n10 10\n", "")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_child_ends_with_its_caller(tmp_path: Path, sign: signal.Signals) -> None:
    body = """
    import os, time
    from pathlib import Path
    from admf_dask import run_isolated_process
    def wait():
        Path("new").write_text(str(os.getpid()))
        Path("new").rename("pid")
        while True:
            pass
    try:
        run_isolated_process(wait)
    except KeyboardInterrupt:
        print("interrupted")
    """
    with script(body, tmp_path) as process:
        while not (tmp_path / "pid").exists():
            assert process.poll() is None
        child = int((tmp_path / "pid").read_text())
        process.send_signal(sign)
        out, err = process.communicate(timeout=30)
    assert gone(child)
    if sign is signal.SIGINT:
        assert (out, err) == ("interrupted\n", "")


def test_a_fork_of_the_caller_has_a_server_of_its_own(tmp_path: Path) -> None:
    body = """
    import os
    from admf_dask import run_isolated_process
    server = run_isolated_process(os.getppid)
    fork = os.fork()
    if not fork:
        print(run_isolated_process(os.getppid) != server, flush=True)
        run_isolated_process.close()
        os._exit(0)
    os.waitpid(fork, 0)
    print(run_isolated_process(os.getppid) == server)
    """
    with script(body, tmp_path) as process:
        assert process.communicate(timeout=60) == ("True\nTrue\n", "")


def test_misuse_is_answered_with_the_line_that_was_meant() -> None:
    with pytest.raises(TypeError, match=r"write run_isolated_process\(func, \*args\)"):
        run_isolated_process(abs(-3))  # type: ignore[arg-type]
    with pytest.raises(TaskFailed, match="must survive pickling to reach the child"):
        run_isolated_process(lambda lock: None, threading.Lock())
    with pytest.raises(ValueError, match="timeout counts seconds"):
        run_isolated_process.options(timeout=0)
    with pytest.raises(ValueError, match="a size such as"):
        run_isolated_process.options(memory_limit="much")


@pytest.mark.cluster
def test_it_works_inside_a_worker(process_session: Any) -> None:
    assert process_session.map(_isolated_inside, [1, 2], progress=False).values() == [2, 3]


def _isolated_inside(x: int) -> int:
    value: int = run_isolated_process(lambda: x + 1)
    run_isolated_process.close()
    return value
