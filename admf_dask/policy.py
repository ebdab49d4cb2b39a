"""`Policy`: what a run does about failures, slow items, transient errors and chance. Frozen and pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from admf_dask.errors import ConfigError
from admf_dask.text import whole

SMALLEST_TIMEOUT = 0.05
"""Seconds; below this the watch over the items could not tell."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the first retry, doubling with each."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings `on_error`, `timeout`, `retries`, `retry_on` and `seed` of a run, checked."""

    on_error: str = "record"
    """`record`, `raise`, `stop_after:N` failures, or `stop_after:P%` of what was evaluated."""
    timeout: float | None = None
    """Seconds that one item may take."""
    retries: int = 0
    """How often an item is called again after an error of `retry_on`."""
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check everything. Raises ConfigError or TypeError with the rule and what was found."""
        self.limit  # noqa: B018 - reads on_error
        timeout: Any = self.timeout
        if timeout is not None and not (isinstance(timeout, (int, float)) and SMALLEST_TIMEOUT <= timeout < math.inf):
            raise ConfigError(
                f"timeout counts seconds for one item and must be at least {SMALLEST_TIMEOUT}, but is {self.timeout!r}; "
                "leave it out for no limit"
            )
        if type(self.retries) is not int or self.retries < 0:
            raise ConfigError(f"retries must be a whole number of at least 0, but is {self.retries!r}")
        kinds: tuple[Any, ...] = self.retry_on
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise TypeError(
                f"retry_on must be exception classes such as (ConnectionError, TimeoutError), but is {self.retry_on!r}"
            )
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise ConfigError(f"seed must be a whole number of at least 0, but is {self.seed!r}")

    @classmethod
    def of(
        cls,
        *,
        on_error: str = "record",
        timeout: float | None = None,
        retries: int = 0,
        retry_on: Any = Exception,
        seed: int | None = None,
    ) -> Policy:
        """From the arguments of the public calls; one exception class or several in `retry_on`."""
        kinds = (
            retry_on if isinstance(retry_on, tuple) else tuple(retry_on) if isinstance(retry_on, list) else (retry_on,)
        )
        return cls(on_error, whole(timeout), whole(retries), kinds, whole(seed))

    @property
    def limit(self) -> Limit:
        """How many failures end the run. Raises ConfigError for an `on_error` that is none of the three forms."""
        if self.on_error == "record":
            return Limit(math.inf)
        if self.on_error == "raise":
            return Limit(1)
        form, _, amount = str(self.on_error).partition(":")
        try:
            if form == "stop_after" and amount.strip().endswith("%"):
                share = float(amount.strip()[:-1]) / 100
                if 0 < share < 1:
                    return Limit(math.inf, share)
            elif form == "stop_after" and int(amount) >= 1:
                return Limit(int(amount))
        except ValueError:
            pass  # No number: the message below says what there may be.
        raise ConfigError(
            'on_error must be "record", "raise", "stop_after:N" (failures) or "stop_after:P%" (of what was evaluated), '
            f"but is {self.on_error!r}"
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """When there were too many failures."""

    count: float
    share: float | None = None

    def reached(self, failed: int, evaluated: int) -> bool:
        """Whether the run ends now. A share counts from the first 1 / share evaluations on: 5 % from 20."""
        if self.share is not None:
            return evaluated >= math.ceil(1 / self.share) and failed >= self.share * evaluated
        return failed >= self.count


def pause_after(calls: int) -> float:
    """Seconds from the last of so many calls of an item to its next."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(calls - 1, 16))
