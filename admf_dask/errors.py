"""Every exception that admf_dask raises, one class per "whose fault".

    AdmfError
    ├── ConfigError          (ValueError)  a setting in a file or a keyword
    ├── SpaceError           (ValueError)  axes, constraints, a grid with nothing left
    ├── ResourceError                      the machine cannot give what was asked
    ├── SessionError                       the cluster: misuse, or out of reach
    │   ├── SessionClosed                  used before open, or after close
    │   ├── SchedulerUnreachable           nobody answers at that address
    │   └── ClusterLost                    it was there and went away during a run
    ├── TaskError                          an item, or the function over the items
    │   ├── TaskFailed                     the user's function raised
    │   ├── WorkerDied                     the process died while it evaluated the item
    │   └── TaskTimeout                    the item took longer than `timeout=`
    ├── DataError            (ValueError)  prices or symbols that cannot be read or used
    ├── EngineError                        the backtest engine
    │   ├── UnknownStrategy                no strategy of that name is registered
    │   ├── NotSupported                   the chosen engine cannot do this config
    │   └── BooksDisagree                  our bug: cash and positions do not add up
    └── JournalError                       the durable record of a run
        ├── JournalMismatch                it belongs to another function, data or seed
        └── JournalCorrupt                 it cannot be read

A message has four parts: what was found, the rule, where, and what to type now.
Exceptions of Dask are translated in `admf_dask.runtime`, with the original as `__cause__`.
"""

from __future__ import annotations

from typing import Any


class AdmfError(Exception):
    """Base of every exception that admf_dask raises on purpose."""


class ConfigError(AdmfError, ValueError):
    """A setting is unknown or out of its range; the message names file and key."""


class SpaceError(AdmfError, ValueError):
    """Axes or constraints of a parameter space break a rule, or leave nothing to run."""


class ResourceError(AdmfError):
    """The machine cannot give what was asked; the message says which two numbers to change."""


class DataError(AdmfError, ValueError):
    """Prices or symbols cannot be read or used; the message names symbol, row or column."""


class SessionError(AdmfError):
    """The cluster was misused or cannot be reached."""


class SessionClosed(SessionError):
    """A session was used before it was opened or after it was closed."""


class SchedulerUnreachable(SessionError):
    """Nobody answered at the scheduler address."""


class ClusterLost(SessionError):
    """The cluster went away during a run; what had finished is on `.partial`."""

    partial: Any = None


class TaskError(AdmfError):
    """An item could not be evaluated; `.item` is that item where it is known."""

    def __init__(self, message: str, *, item: Any = None) -> None:
        super().__init__(message)
        self.item = item

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep `.item` through pickling, which would drop a keyword-only argument."""
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class TaskFailed(TaskError):
    """The user's function raised; the exception is in `__cause__` or in the message."""


class WorkerDied(TaskError):
    """The process died while it evaluated the item: a crash, a kill, or too much memory.

    What is not known is None: `.signal` (`"SIGSEGV"`) or `.exit_code`; `.peak_memory` and `.memory_limit`, in bytes. `.attempts`
    counts the processes that the item took along.
    """

    def __init__(
        self,
        message: str,
        *,
        item: Any = None,
        signal: str | None = None,
        exit_code: int | None = None,
        peak_memory: int | None = None,
        memory_limit: int | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message, item=item)
        self.signal, self.exit_code = signal, exit_code
        self.peak_memory, self.memory_limit = peak_memory, memory_limit
        self.attempts = attempts


class TaskTimeout(TaskError):
    """The item took longer than `timeout=` seconds and was stopped."""


class EngineError(AdmfError):
    """The backtest engine could not run a config."""


class UnknownStrategy(EngineError):
    """No strategy of that name is registered; the message names the closest."""


class NotSupported(EngineError):
    """The chosen engine cannot run this config; the message says which one can."""


class BooksDisagree(EngineError):
    """Cash, positions and equity do not add up: a bug in admf_dask, please report it."""


class JournalError(AdmfError):
    """The durable record of a run cannot be used."""


class JournalMismatch(JournalError):
    """The journal belongs to another function, data set, seed or setting."""


class JournalCorrupt(JournalError):
    """The journal cannot be read."""


def _rebuild(cls: type[TaskError], args: tuple[Any, ...], state: dict[str, Any]) -> TaskError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error
