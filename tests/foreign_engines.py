"""The books of independent engines, set so that they express our semantics: each takes targets and gives an equity curve.

Costs: `commission` and `slippage` as fractions. Each engine computes fills, costs and equity by its own rules.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CASH = 1e6


def no_watching_thread() -> None:
    """The progress bar of backtesting.py would leave a thread behind that watches it."""
    if importlib.util.find_spec("tqdm"):
        importlib.import_module("tqdm").tqdm.monitor_interval = 0


def vectorbt_equity(
    prices: pd.DataFrame, targets: NDArray[Any], *, same_close: bool, commission: float, slippage: float
) -> NDArray[Any]:
    """Signals shifted by one bar and filled at the open; or filled at their own close, but for the last."""
    import vectorbt

    wanted = np.append(targets[:-1], targets[-2]) if same_close else np.append(0, targets[:-1])
    short = {"short_entries": wanted == -1, "short_exits": wanted != -1} if (targets < 0).any() else {}
    book = vectorbt.Portfolio.from_signals(
        prices["close"], wanted == 1, wanted != 1, price=prices["close" if same_close else "open"], fees=commission,
        slippage=slippage, init_cash=CASH, freq="D", **short,
    )  # fmt: skip
    return np.asarray(book.value(), np.float64)


def backtesting_equity(
    prices: pd.DataFrame, targets: NDArray[Any], *, same_close: bool, commission: float
) -> NDArray[Any]:
    """Market orders for all the equity, in units of a thousand-millionth share, at the next open or at the same close.

    With trade_on_close a fill of bar t is booked at t + 1, so the equity of bars with a fill is not ours.
    """
    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    no_watching_thread()

    class Follows(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            pass

        def next(self) -> None:
            target = targets[len(self.data) - 1]
            held = self.position.is_long - self.position.is_short
            if target != held:
                self.position.close()
                if target:
                    (self.buy if target > 0 else self.sell)(size=1 - 1e-16)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some trades remain open at the end of backtest", UserWarning)
        warnings.filterwarnings("ignore", r"DatetimeIndex\.dayofweek", DeprecationWarning)
        run = FractionalBacktest(
            prices.rename(columns=str.capitalize),
            Follows,
            cash=CASH,
            commission=commission,
            trade_on_close=same_close,
            fractional_unit=1e-9,
        ).run()
    return run["_equity_curve"]["Equity"].to_numpy(np.float64)  # type: ignore[no-any-return]


def backtrader_equity(
    prices: pd.DataFrame, targets: NDArray[Any], *, same_close: bool, commission: float, slippage: float
) -> NDArray[Any]:
    """Sized from the cash in hand; cheat-on-open for the next open, cheat-on-close for the same close.

    With cheat-on-close the broker books a fill of bar t only at t + 1, so the equity of bars with a fill is not ours.
    """
    import backtrader

    class Follows(backtrader.Strategy):  # type: ignore[misc]
        def __init__(self) -> None:
            self.equity: list[float] = []

        def next_open(self) -> None:
            before = len(self.data) - 2
            if before >= 0:
                self.want(int(targets[before]), self.data.open[0])

        def next(self) -> None:
            self.equity.append(self.broker.getvalue())
            if same_close and len(self) < len(targets):
                self.want(int(targets[len(self) - 1]), self.data.close[0])

        def want(self, target: int, price: float) -> None:
            size, cash = self.position.size, self.broker.getcash()
            held = int(np.sign(size))
            if target == held:
                return
            if size:
                got = price * (1 - held * slippage)
                cash += size * got - abs(size) * got * commission
                self.order_target_size(target=0)
            if target:
                paid = price * (1 + target * slippage)
                (self.buy if target > 0 else self.sell)(size=cash / (paid * (1 + commission)) * (1 - 1e-13))

        def notify_order(self, order: Any) -> None:
            assert order.status not in (order.Margin, order.Rejected, order.Canceled)

    cerebro = backtrader.Cerebro(stdstats=False, cheat_on_open=not same_close)
    cerebro.adddata(backtrader.feeds.PandasData(dataname=prices))
    cerebro.addstrategy(Follows)
    cerebro.broker.setcash(CASH)
    cerebro.broker.setcommission(commission)
    cerebro.broker.set_slippage_perc(slippage, slip_open=True, slip_limit=True, slip_match=True, slip_out=True)
    cerebro.broker.set_checksubmit(False)
    cerebro.broker.set_coc(same_close)
    return np.array(cerebro.run()[0].equity)
