"""`BacktestResult`: what one backtest gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from bokeh.plotting import figure

FILL_COLUMNS = ("time", "bar", "quantity", "price", "commission")
TRADE_COLUMNS = ("entry_time", "exit_time", "quantity", "entry_price", "exit_price", "commission", "profit", "bars")


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """Equity, fills and figures of one backtest. Immutable."""

    config: Mapping[str, Any]
    """The config with every setting, as a mapping."""
    equity: pd.Series
    """Cash plus position at the close of each bar, in the currency of the prices; float64 over the index of the bars."""
    fills: pd.DataFrame
    """One row for each execution: time, bar, quantity (below 0 sold), price, commission."""
    metrics: Mapping[str, float]
    """sharpe_ratio, total_return, max_drawdown, final_equity, n_trades, n_entries, n_fills, periods_per_year."""
    engine: str
    """`event` or `compiled`."""
    why: str
    """Why that engine."""
    ruined: bool = False
    """Whether the equity reached zero or below, where the book was closed."""
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float:
        """A metric."""
        return self.metrics[name]

    @property
    def trades(self) -> pd.DataFrame:
        """One row for each position opened and closed again: times, quantity, prices, commission, profit after costs, bars."""
        import pandas as pd

        rows = []
        fills: list[Any] = list(self.fills.itertuples(index=False))
        for entry, leave in zip(fills[::2], fills[1::2], strict=False):
            costs = entry.commission + leave.commission
            profit = entry.quantity * (leave.price - entry.price) - costs
            rows.append(
                (entry.time, leave.time, entry.quantity, entry.price, leave.price, costs, profit, leave.bar - entry.bar)
            )
        return pd.DataFrame(rows, columns=list(TRADE_COLUMNS))

    def plot(self) -> figure:
        """The equity and its running peak, as a Bokeh figure."""
        from bokeh.models import NumeralTickFormatter
        from bokeh.plotting import figure

        times = self.equity.index
        dates = getattr(times, "dtype", None) is not None and times.dtype.kind == "M"
        plot = figure(
            title=f"{self.config.get('class')} on {self.config.get('symbol') or 'prices'}", height=320,
            sizing_mode="stretch_width", x_axis_type="datetime" if dates else "auto", y_axis_label="equity",
        )  # fmt: skip
        plot.line(times, self.equity.cummax().to_numpy(), color="#bbbbbb", legend_label="peak")
        plot.line(times, self.equity.to_numpy(), color="#1f77b4", legend_label="equity")
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
        plot.legend.location = "top_left"
        return plot

    def __repr__(self) -> str:
        """What, and how it went."""
        return (
            f"<BacktestResult {self.config.get('class')} {dict(self.config.get('parameters', {}))}: Sharpe ratio "
            f"{self['sharpe_ratio']:.3f}, final equity {self['final_equity']:,.0f}, max drawdown {self['max_drawdown']:.1%}, "
            f"{self['n_trades']:.0f} trades, {self.engine} engine>"
        )
