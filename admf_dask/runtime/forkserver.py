"""Worker processes are forked, ready to work, from a small process that has imported once what each of them needs.

Started from nothing a worker imports for most of a second, and so does its replacement after a death, on CPUs that the other
workers need. Forked it is there in hundredths, and the memory of what was imported is shared until it is written to.

The server is multiprocessing's own, one for this process: it runs no thread of Python's but its first, and only imports, which
makes forking it safe (the one thread that an import starts belongs to an allocator of Arrow's, which knows of forks). It starts
with the first session that has worker processes, ends with this process, and takes what it started with it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import tempfile
import threading
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType

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


def start_server() -> None:
    """Begin to start the server, where there is none; costs a few milliseconds, its imports go on beside the caller."""
    if METHOD != "forkserver":
        return
    with _starting:
        if server_pid() is None:
            context = multiprocessing.get_context(METHOD)
            context.set_forkserver_preload([*_preloads(), *_ALWAYS])
            _choose_folder()
        forkserver.ensure_running()


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
