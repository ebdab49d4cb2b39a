"""How a process ended, in words and as the facts of `WorkerDied`: one place for workers and isolated calls."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from admf_dask.errors import WorkerDied
from admf_dask.text import format_bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a process, as far as anybody knows."""

    code: int | None = None
    """The exit code, or minus the signal, as `subprocess` has it."""
    outgrew: bool = False
    """Whether it was stopped because it had more memory than it may."""
    peak_memory: int | None = None
    """Bytes, the most that was seen."""
    memory_limit: int | None = None
    """Bytes it may have; None for no limit."""

    @property
    def signal(self) -> str | None:
        """`SIGSEGV`; None for a process that was not ended by a signal."""
        if self.code is None or self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"

    def __str__(self) -> str:
        """The predicate of a sentence about the process."""
        if self.outgrew:
            return f"outgrew {self._limit()} (it had {format_bytes(self.peak_memory or 0)}) and was stopped"
        if self.code is None:
            return "died"
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        words = f"was ended by {self.signal}"
        if self.signal != "SIGKILL" or self.peak_memory is None:
            return words
        # What the kernel does when the machine has no memory left, too.
        beside = f" beside {self._limit()}" if self.memory_limit else ""
        return f"{words} (it had up to {format_bytes(self.peak_memory)}{beside})"

    def _limit(self) -> str:
        return f"the memory limit of {format_bytes(self.memory_limit or 0)}"

    def error(self, message: str, *, item: object = None, attempts: int = 1) -> WorkerDied:
        """The error that says so."""
        return WorkerDied(
            message, item=item, signal=self.signal,
            exit_code=self.code if self.code is not None and self.code >= 0 else None,
            peak_memory=self.peak_memory, memory_limit=self.memory_limit, attempts=attempts,
        )  # fmt: skip
