"""Worker processes are forked, ready to work, from a small process that has imported once what each of them needs.

Started from nothing a worker imports for most of a second, and so does its replacement after a death, on CPUs that the other
workers need. Forked it is there in hundredths, and the memory of what was imported is shared until it is written to.

The server is multiprocessing's own, one for this process: it runs no thread of Python's but its first, and only imports, which
makes forking it safe (the one thread that an import starts belongs to an allocator of Arrow's, which knows of forks). It starts
with the first session that has worker processes, ends with this process, and takes what it started with it.

The command `admf-dask` forks its server from itself, before it meets anything of its user's: it needs the same imports, which are
then made once and in memory once. A script cannot do that without surprises: what it had set, opened and loaded until then would
be in its workers, or not, by whether it had started a thread.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from admf_dask.local.child import threads_here
from admf_dask.runtime.environment import of_processes
from admf_dask.runtime.leases import new_folder

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""How worker processes start (macOS's own libraries do not bear forking)."""
_ALWAYS = ["admf_dask.runtime.warm"]
_IF_USED = ["pandas", "pyarrow.parquet", "numba"]
"""Loaded where this process has them: then what it sends to workers will need them too."""
_FOR_BACKTESTS = ["admf_dask.engine", "numba"]
"""Instead of those, where this process has the engine: its kernels need no pandas, which takes 35 MB."""
_FOR_SYMBOLS = ["admf_dask.symbols.task", "pandas", "pyarrow.parquet", "pyarrow.pandas_compat"]
"""As well, where this process has the first: files are read and written there."""
_AMONG_THEMSELVES = ("pandas", "pyarrow")
_LONGEST = 107 - len("/listener-12345678")
"""Bytes of the path of a folder in which a socket of multiprocessing's can be made."""
_starting = threading.Lock()


def begin_as_parent(program: str) -> bool:
    """Have the environment of worker processes from the start of this process on, as `fork_server` needs it.

    Where it is another, the process begins again (some 20 ms), so call this before anything else is loaded or begun. False where
    that cannot be: if this process was not started as the program, but by a notebook or a test that calls it.
    """
    module, words = program.replace("-", "_"), sys.orig_argv[1:]
    started = ("-m", module) in pairwise(words) or any(
        os.path.basename(word) == program and os.path.isfile(word) for word in words
    )
    if METHOD != "forkserver" or not started:
        return False
    wanted = of_processes()
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *words])
        return False
    return True


def fork_server(module: str) -> None:
    """Load a module and have the server of this process forked from it, if that is safe: it costs the imports and 10 ms.

    For a process that runs nothing but a command of ours, and has begun nothing yet (`begin_as_parent`).
    """
    importlib.import_module(module)
    with _starting:
        for name in _prepare():
            importlib.import_module(name)
        # A process of its own in any case.
        resource_tracker.ensure_running()
        if _is_alone():
            with _forking():
                forkserver.ensure_running()


def start_server() -> None:
    """Begin to start the server, where there is none; costs a few milliseconds, its imports go on beside the caller."""
    if METHOD != "forkserver":
        return
    with _starting:
        if server_pid() is None:
            _prepare()
        forkserver.ensure_running()


def _prepare() -> list[str]:
    """Say what the server is to load, and where it is to be; returns the first."""
    preloads = [*_preloads(), *_ALWAYS]
    multiprocessing.get_context(METHOD).set_forkserver_preload(preloads)
    _choose_folder()
    return preloads


@contextmanager
def _forking() -> Iterator[None]:
    """While this lasts, what multiprocessing starts is forked from this process."""
    start_anew = util.spawnv_passfds

    def fork(_: bytes, arguments: Sequence[Any], descriptors: Sequence[int]) -> int:
        with warnings.catch_warnings():
            # Newer Python counts the threads of libraries too.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            pid = os.fork()
        if pid:
            return pid
        util.spawnv_passfds = start_anew
        _serve(arguments[-1], descriptors)

    util.spawnv_passfds = fork  # type: ignore[assignment]
    try:
        yield
    finally:
        util.spawnv_passfds = start_anew


def _is_alone() -> bool:
    """Whether nothing runs in this process beside the thread that asks, and that is its first one."""
    return threading.current_thread() is threading.main_thread() and threads_here() == 1


def _serve(command: str, descriptors: Sequence[int]) -> NoReturn:
    """The life of the server, in the new process: as one that was started anew, but for what is loaded."""
    global _starting
    code = 1
    try:
        for number in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *descriptors}:
            with suppress(OSError):  # the one that the list was read through
                os.close(number)
        # Held by the thread that was forked here. (Multiprocessing's own is made anew by `leave_server`.)
        _starting = threading.Lock()
        exec(command, {})  # what multiprocessing would have had a new interpreter do
    except SystemExit:
        code = 0
    except BaseException:  # noqa: BLE001 - nobody else could say it
        traceback.print_exc()
    finally:
        os._exit(code)


def _preloads() -> list[str]:
    used = [name for name in _IF_USED if name in sys.modules]
    symbols = _FOR_SYMBOLS if _FOR_SYMBOLS[0] in sys.modules else []
    if _FOR_BACKTESTS[0] not in sys.modules:
        return symbols + used
    if not symbols and not ("pandas" in used and _named_by_others(sys.modules["pandas"])):
        return _FOR_BACKTESTS
    return _FOR_BACKTESTS + symbols + used


def _named_by_others(package: ModuleType) -> bool:
    """Whether a module of somebody else has imported something of it by name, which is what a worker does too that imports it."""
    public = {id(package), *(id(getattr(package, name, package)) for name in package.__all__)}
    others = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] not in _AMONG_THEMSELVES]
    return any(not public.isdisjoint(map(id, list(getattr(module, "__dict__", {}).values()))) for module in others)


def _choose_folder() -> None:
    """Where multiprocessing puts the server's socket: where a later session sweeps it up if this process is killed.

    Not in the usual folder, nor in one that multiprocessing has made there before, where the socket's path would be too long.
    """
    settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    made = settings.get("tempdir")
    if made is not None and len(os.fsencode(made)) <= _LONGEST:
        return
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) + len("/admf-dask-server-") + 12 <= _LONGEST
    lease = new_folder(Path(usual if fits else "/tmp"), "admf-dask-server-")
    atexit.register(lease.remove)
    settings["tempdir"] = str(lease.folder)


def server_pid() -> int | None:
    """The process id of the server, None where there is none."""
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


def leave_server() -> None:
    """In a worker process: have nothing in common with the server that it was forked from, nor with others forked from it.

    The server waits for the end of all who could ask it for processes, and a forked process is one of those: it must end when the
    driver does, however that is. If the function of an item starts processes in this way, they get a server of their own.
    """
    server = getattr(forkserver, "_forkserver", None)
    held = getattr(server, "_forkserver_alive_fd", None)
    if server is None or held is None or server_pid() is not None:
        return
    os.close(held)
    server.__init__()
    # Python draws anew in a forked process by itself, NumPy does not: without seed= each worker would draw the same numbers.
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
