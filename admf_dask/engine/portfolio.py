"""The book of one symbol and who fills its orders, by the rules that the compiled engine uses too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from admf_dask.engine import rules
from admf_dask.engine.config import BacktestConfig
from admf_dask.engine.events import BarEvent, FillEvent, OrderEvent, SignalEvent
from admf_dask.errors import BooksDisagree


class Broker:
    """Executes an order against a bar, at prices and costs of `rules`; the portfolio is told of each fill."""

    def __init__(self, settings: BacktestConfig) -> None:
        """With the costs of a config."""
        self._settings = settings

    def execute(self, order: OrderEvent, bar: BarEvent, portfolio: Portfolio, publish: Callable[[Any], None]) -> None:
        """Close the position whole, then open the one wanted; at the open of the bar, or at its close for `same_close`."""
        settings = self._settings
        price = bar.open if settings.fill == "next_open" else bar.close
        if portfolio.quantity != 0.0:
            got = rules.fill_price(price, -1.0 if portfolio.quantity > 0 else 1.0, settings.slippage)
            self._fill(-portfolio.quantity, got, bar, publish)
        if order.target == 0 or portfolio.cash <= 0.0:
            return
        paid = rules.fill_price(price, float(order.target), settings.slippage)
        wanted = rules.quantity_to_open(float(order.target), portfolio.cash, paid, settings.commission)
        quantity = rules.rounded(wanted, settings.lot_size)
        if quantity != 0.0:
            self._fill(quantity, paid, bar, publish)

    def _fill(self, quantity: float, price: float, bar: BarEvent, publish: Callable[[Any], None]) -> None:
        commission = abs(quantity) * price * self._settings.commission
        publish(FillEvent(bar.symbol, bar.time, bar.index, quantity, price, commission))


class Portfolio:
    """Cash, position and equity of one book. State belongs to one run."""

    def __init__(self, settings: BacktestConfig) -> None:
        """All cash."""
        self.settings = settings
        self.cash, self.quantity = float(settings.initial_cash), 0.0
        self.equity: list[float] = []
        self.fills: list[FillEvent] = []
        self.entries = self.trades = 0
        self.ruined = False

    @property
    def held(self) -> int:
        """The sign of the position."""
        return (self.quantity > 0) - (self.quantity < 0)

    def order_for(self, signal: SignalEvent) -> OrderEvent | None:
        """The order that a wanted position needs; None when it is there already."""
        if self.ruined or signal.target == self.held:
            return None
        return OrderEvent(signal.symbol, signal.time, signal.target)

    def on_fill(self, fill: FillEvent) -> None:
        """Book an execution."""
        commission = self.settings.commission
        if self.quantity != 0.0:
            self.cash = rules.cash_after_close(self.cash, self.quantity, fill.price, commission)
            self.quantity = 0.0
            self.trades += 1
        else:
            self.cash = rules.cash_after_open(self.cash, fill.quantity, fill.price, commission)
            self.quantity = fill.quantity
            self.entries += 1
        self.fills.append(fill)

    def mark(self, close: float) -> None:
        """The equity after a bar; a book at zero or below is ruined, and stays where it stands."""
        if self.ruined:
            self.equity.append(self.equity[-1])
            return
        equity = self.cash + self.quantity * close
        self.equity.append(equity)
        self.ruined = equity <= 0.0

    def check(self) -> None:
        """Do the books again from the fills alone. Raises BooksDisagree, which is a bug of ours."""
        cash, quantity = float(self.settings.initial_cash), 0.0
        for fill in self.fills:
            cash -= fill.quantity * fill.price + fill.commission
            quantity += fill.quantity
        scale = max(abs(self.cash), abs(cash), float(self.settings.initial_cash))
        if quantity != self.quantity or abs(cash - self.cash) > 1e-9 * scale:
            raise BooksDisagree(
                f"the books say cash {self.cash!r} and {self.quantity!r} held, but the {len(self.fills)} fills add up to cash "
                f"{cash!r} and {quantity!r}; this is a bug of admf_dask, please report it"
            )
