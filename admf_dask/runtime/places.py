"""Where a job of the toolkit runs: in what it was given, or in a session of its own for the length of one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError
from admf_dask.runtime.session import Session

if TYPE_CHECKING:
    from distributed import Client


def settings_of(config: ParallelConfig | None, workers: Any, mode: str | None) -> ParallelConfig:
    """The config, with the number of workers and the mode going before. Raises ConfigError."""
    if isinstance(workers, Session) or hasattr(workers, "scheduler_info"):
        raise ConfigError(
            f"workers counts slots, but is {workers!r:.100}; for what is open already write `session=` before it"
        )
    given: dict[str, Any] = {"max_workers": workers, "mode": mode}
    return replace(config or ParallelConfig(), **{name: value for name, value in given.items() if value is not None})


@contextmanager
def session_for(given: Session | Client | None, config: ParallelConfig) -> Iterator[Session]:
    """A session, left open; a session over a client, which is left open; or one opened from the config, and closed."""
    if isinstance(given, Session):
        yield given
        return
    with Session(config, client=given) as session:
        yield session
