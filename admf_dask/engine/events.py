"""What happens in an event-driven backtest, as frozen records: Bar -> Signal -> Order -> Fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MarketEvent:
    """Something that the market did, at a time of the data."""

    symbol: str
    time: Any


@dataclass(frozen=True, slots=True)
class BarEvent(MarketEvent):
    """A bar that has closed."""

    index: int
    """Position among the bars of its symbol."""
    open: float
    high: float
    low: float
    close: float
    last: bool = False
    """Whether no bar of this symbol follows."""


@dataclass(frozen=True, slots=True)
class SignalEvent:
    """The position that a strategy wants: -1, 0 or +1."""

    symbol: str
    time: Any
    target: int


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """What the portfolio asks the broker to do: hold a position of the sign of `target`."""

    symbol: str
    time: Any
    target: int


@dataclass(frozen=True, slots=True)
class FillEvent:
    """An execution: `quantity` bought (above 0) or sold (below 0) at `price`, with `commission` paid."""

    symbol: str
    time: Any
    index: int
    quantity: float
    price: float
    commission: float
