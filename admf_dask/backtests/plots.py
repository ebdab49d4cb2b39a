"""Several equity curves above their drawdowns, beside a benchmark: Bokeh, in the style of the other figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.layouts import column
from bokeh.models import HoverTool, Legend, LegendItem, NumeralTickFormatter
from bokeh.palettes import Turbo256
from bokeh.plotting import figure

from admf_dask.engine import BacktestResult, FrameDataHandler, StrategyConfig, choose_engine, run_compiled, run_event
from admf_dask.errors import EngineError
from admf_dask.page.style import LIGHT
from admf_dask.rich import GREY, calm, without_frame
from admf_dask.text import plural

if TYPE_CHECKING:
    import pandas as pd
    from bokeh.models import Column
    from numpy.typing import NDArray

FEW = (*LIGHT.few[:4], "#c2185b", "#0891b2")
PARTS = 1000
"""A longer curve is drawn with the extremes of so many parts of it."""


@dataclass(frozen=True)
class Line:
    """One curve: its growth, 1 at the start."""

    label: str
    growth: pd.Series
    config: Mapping[str, Any] | None
    benchmark: bool = False


def lines_of(results: Sequence[BacktestResult], handler: FrameDataHandler, benchmark: Any) -> tuple[str, list[Line]]:
    """A title of what the results have in common, and their lines, those of the benchmark first, below the others."""
    configs = [_flat(result.config) for result in results]
    names = dict.fromkeys(name for config in configs for name in config)
    varying = [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]
    told = varying or ["class", *results[0].config["parameters"]]
    lines = [
        Line(_label(config, told), result.equity / result.config["initial_cash"], result.config)
        for result, config in zip(results, configs, strict=True)
    ]
    beside = list(_beside(results, handler, benchmark, named="symbol" in varying))
    compared = [line.config for line in beside]
    lines = [line for line in lines if line.config not in compared]
    alike = {name: configs[0].get(name) for name in ("class", "symbol") if name not in varying}
    where = f" on {alike['symbol']}" if alike.get("symbol") else ""
    return f"{alike.get('class') or plural(len(results), 'backtest')}{where}", [*beside, *lines]


def _beside(
    results: Sequence[BacktestResult], handler: FrameDataHandler, benchmark: Any, *, named: bool
) -> Iterator[Line]:
    import pandas as pd

    if isinstance(benchmark, pd.Series):
        yield Line(str(benchmark.name or "benchmark"), _from_the_start(benchmark, results), None, benchmark=True)
    elif isinstance(benchmark, pd.DataFrame):
        raise EngineError("a benchmark must be one column, but is a table; write benchmark=prices['close']")
    elif benchmark is not None:
        given = {"class": benchmark} if not isinstance(benchmark, Mapping) else benchmark
        # It trades as the first of its symbol does, at the same costs.
        for first in {result.config["symbol"]: result for result in reversed(results)}.values():
            config = StrategyConfig.from_mapping({**first.config, "parameters": {}, **given})
            run = run_compiled if choose_engine(config)[0] == "compiled" else run_event
            label = _label(_flat(config.to_mapping()), ["class", *(["symbol"] if named else []), *config.parameters])
            growth = run(config, handler).equity / config.settings.initial_cash
            yield Line(label, growth, config.to_mapping(), benchmark=True)


def _from_the_start(series: pd.Series, results: Sequence[BacktestResult]) -> pd.Series:
    """The part of a series in the time of the results, 1 at its start."""
    first = min(result.equity.index[0] for result in results)
    last = max(result.equity.index[-1] for result in results)
    try:
        part = series.dropna().sort_index().loc[first:last].astype(float)
    except TypeError as error:
        raise EngineError(
            f"a benchmark needs the kind of index that the prices have, from {first} to {last}, but has {series.index[:1]!r}"
        ) from error
    if not len(part) or part.iloc[0] <= 0:
        raise EngineError(f"the benchmark must have a value above 0 and be known between {first} and {last}")
    return part / part.iloc[0]


def curves_figure(title: str, lines: Sequence[Line], *, log: bool) -> Column:
    """Growth above, drawdown below, over the same times; a click in the legend hides a curve in both."""
    times = lines[0].growth.index
    dates = times.dtype.kind == "M" or hasattr(times, "tz")
    log = log and all((line.growth > 0).all() for line in lines)
    options = {"x_axis_type": "datetime" if dates else "auto", "tools": "pan,wheel_zoom,box_zoom,reset,save"}
    columns = 3 if max(len(line.label) for line in lines) <= 36 else 2
    height = 300 + 25 * -(-len(lines) // columns)  # what the legend takes does not go off the curves
    upper = figure(title=title, height=height, y_axis_type="log" if log else "auto", **_wide(options))
    lower = figure(height=150, x_range=upper.x_range, **_wide(options))
    upper.yaxis.axis_label, lower.yaxis.axis_label = "times the initial cash", "drawdown"
    upper.yaxis.formatter = NumeralTickFormatter(format="0.[00]")
    lower.yaxis.formatter = NumeralTickFormatter(format="0 %")
    items: list[tuple[bool, LegendItem]] = []
    for line, look in zip(lines, _looks(lines), strict=True):
        data = _data(line, dates)
        above = upper.line("time", "growth", source=data, **look)
        below = lower.line("time", "drawdown", source={**data}, **look)
        above.js_link("visible", below, "visible")
        items.append((line.benchmark, LegendItem(label=line.label, renderers=[above])))
        _tell(upper, above, line.label, dates)
        _tell(lower, below, line.label, dates)
    # The benchmark is drawn first, below the others, and named last.
    ordered = [item for last in (False, True) for benchmark, item in items if benchmark is last]
    legend = Legend(items=ordered, click_policy="hide", ncols=columns, location="top_left", padding=0, spacing=8)
    upper.add_layout(legend, "above")
    without_frame([legend])
    for plot in (upper, lower):
        calm(plot)
        plot.toolbar_location = "above" if plot is upper else None
    upper.xaxis.visible = False
    lower.xaxis.axis_label = None if dates else "bar"
    return column(upper, lower, sizing_mode="stretch_width")


def _wide(options: dict[str, Any]) -> dict[str, Any]:
    # Labels of one width, so that the same time is at the same place in both.
    return {**options, "sizing_mode": "stretch_width", "min_border_left": 70}


def _looks(lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """Colours for curves, the first ones easy to tell apart; a dashed grey for what they are compared with."""
    count = sum(not line.benchmark for line in lines)
    many = [Turbo256[place] for place in np.linspace(20, 235, count, dtype=int)]
    colours, dashes = iter(FEW if count <= len(FEW) else many), itertools.cycle(("dashed", "dotted", "dotdash"))
    for line in lines:
        if line.benchmark:
            yield {"line_color": GREY, "line_width": 1.3, "line_dash": next(dashes)}
        else:
            yield {"line_color": next(colours), "line_width": 1.6}


def _data(line: Line, dates: bool) -> dict[str, Any]:
    growth = line.growth.to_numpy(np.float64)
    drawdown = growth / np.maximum.accumulate(growth) - 1
    places = _telling(growth, drawdown)
    index: Any = line.growth.index[places]
    zone = dates and getattr(index, "tz", None) is not None
    times = index.tz_localize(None) if zone else index  # a clock of the exchange, not of the viewer
    return {"time": times.to_numpy(), "growth": growth[places], "drawdown": drawdown[places]}


def _telling(*columns: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions to draw: all, or the ends and, of each of many parts, where each column is smallest and largest."""
    count = len(columns[0])
    if count <= 4 * PARTS:
        return np.arange(count)
    edges = np.linspace(0, count, PARTS + 1).astype(int)
    places = [0, count - 1]
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        for values in columns:
            places += [start + int(values[start:stop].argmin()), start + int(values[start:stop].argmax())]
    return np.unique(places)


def _tell(plot: Any, drawn: Any, label: str, dates: bool) -> None:
    where = ("time", "@time{%F %T}") if dates else ("bar", "@time")
    tooltips = [("", label), where, ("times", "@growth{0.000}"), ("drawdown", "@drawdown{0.0 %}")]
    formatters = {"@time": "datetime"} if dates else {}
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=tooltips, formatters=formatters, visible=False))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in one level, in the order in which people speak of it."""
    kind = config["class"]
    rest = {name: value for name, value in config.items() if name not in ("class", "symbol", "parameters")}
    name = kind.__qualname__ if isinstance(kind, type) else str(kind)
    return {"class": name, "symbol": config["symbol"], **(config["parameters"] or {}), **rest}


def _label(config: Mapping[str, Any], names: Sequence[str]) -> str:
    """`sma_crossover GOOG fast 10 slow 50`."""
    bare = ("class", "symbol")
    words = [str(config[name]) if name in bare else f"{name} {config[name]}" for name in names if name in config]
    return " ".join(words)
