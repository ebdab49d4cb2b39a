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
        from bokeh.models import HoverTool, NumeralTickFormatter
        from bokeh.plotting import figure

        from admf_dask.rich import BLUE, GREY, calm, without_frame

        times = self.equity.index
        dates = getattr(times, "dtype", None) is not None and times.dtype.kind == "M"
        plot = figure(
            title=f"{self.config.get('class')} on {self.config.get('symbol') or 'prices'}", height=320,
            sizing_mode="stretch_width", x_axis_type="datetime" if dates else "auto", toolbar_location="above",
            x_axis_label=None if dates else "bar", y_axis_label="equity, currency of the prices",
            tools="pan,wheel_zoom,box_zoom,reset,save",
        )  # fmt: skip
        peak, equity = self.equity.cummax().to_numpy(), self.equity.to_numpy()
        plot.varea(times, equity, peak, fill_color=GREY, fill_alpha=0.15, legend_label="drawdown")
        plot.line(times, peak, color=GREY, line_alpha=0.5, legend_label="peak")
        line = plot.line(times, equity, color=BLUE, line_width=1.6, legend_label="equity")
        where = ("time", "@x{%F %T}") if dates else ("bar", "@x")
        formatters = {"@x": "datetime"} if dates else {}
        plot.add_tools(HoverTool(renderers=[line], tooltips=[where, ("equity", "@y{0,0.00}")], formatters=formatters))
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
        calm(plot)
        plot.legend.location = "top_left"
        without_frame(plot.legend)
        return plot

    def _repr_html_(self) -> str:
        import pandas as pd

        from admf_dask.rich import box

        where = f" on {self.config['symbol']}" if self.config.get("symbol") else ""
        words = ", ".join(f"{name} {value}" for name, value in dict(self.config.get("parameters") or {}).items())
        table = pd.DataFrame([dict(self.metrics)], index=[""])
        notes = ("ruined: the book was closed where the equity reached zero",) if self.ruined else ()
        title = f"{self.config.get('class')}{where}"
        return box(
            "BacktestResult", title, words, f"{self.engine} engine: {self.why}", *notes, *self.notes, table=table
        )

    def __repr__(self) -> str:
        """What, and how it went."""
        return (
            f"<BacktestResult {self.config.get('class')} {dict(self.config.get('parameters', {}))}: Sharpe ratio "
            f"{self['sharpe_ratio']:.3f}, final equity {self['final_equity']:,.0f}, max drawdown {self['max_drawdown']:.1%}, "
            f"{self['n_trades']:.0f} trades, {self.engine} engine>"
        )
