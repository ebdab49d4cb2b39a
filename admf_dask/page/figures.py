"""The drawings of the page: scores with the best so far, heatmap, equity of the best, throughput. Each updates what changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    DatetimeTicker,
    DatetimeTickFormatter,
    FixedTicker,
    HoverTool,
    InlineStyleSheet,
    LinearColorMapper,
    NumeralTickFormatter,
)
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from admf_dask.page.style import FIGURE, FONT, LIGHT, Palette
from admf_dask.page.view import RunView, Surface

_DURATION = """
const whole = Math.round(tick * 10) / 10;
if (whole < 60) return `${whole} s`;
const minutes = Math.floor(whole / 60), seconds = Math.round(whole % 60);
if (minutes < 60) return seconds ? `${minutes} m ${seconds} s` : `${minutes} m`;
return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} m` : `${minutes / 60} h`;
"""
"""Seconds as `text.format_seconds` has them."""
_CELL = "return labels[Math.round(value)] ?? ''"
"""The words of a cell, by where the pointer is."""
MOST_POINTS = 4000
"""Of a history that stands still; a quarter of them while it grows, for each is drawn again each time."""


_DOTS = ((100, 7, 0.8), (1000, 5, 0.5), (float("inf"), 4, 0.35))
"""Up to how many scores, how large and how opaque each is: a few are seen, and many do not become a wall."""


class History:
    """Every score in the order in which it came, and the best so far."""

    def __init__(self) -> None:
        """An empty figure."""
        self.points = ColumnDataSource({"n": [], "score": []})
        self.best = ColumnDataSource({"n": [], "score": []})
        self.plot = _figure("History of scores", height=300, x_axis_label="evaluations completed")
        self.dots = self.plot.scatter(
            "n", "score", source=self.points, size=_DOTS[0][1], line_color=None, fill_alpha=_DOTS[0][2]
        )
        self.line = self.plot.step("n", "score", source=self.best, mode="after", line_width=2)
        self.plot.add_tools(
            HoverTool(renderers=[self.dots], tooltips=[("evaluation", "@n{0,0}"), ("score", "@score{0.0000}")])
        )
        self.plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
        self._drawn: tuple[Any, ...] = ()

    def dress(self, palette: Palette) -> None:
        """Colours."""
        _dress(self.plot, palette)
        self.dots.glyph.fill_color = palette.blue
        self.line.glyph.line_color = palette.orange

    def show(self, view: RunView | None) -> None:
        """Draw what is new."""
        mark = () if view is None else (view.last.run, view.seen, view.state == "running")
        if mark == self._drawn:
            return
        self._drawn = mark
        if view is None or not view.size:
            self.points.data = {"n": [], "score": []}
            self.best.data = {"n": [], "score": []}
            return
        n, scores = view.points(MOST_POINTS if view.state != "running" else MOST_POINTS // 4)
        size, alpha = next((size, alpha) for most, size, alpha in _DOTS if len(n) <= most)
        if self.dots.glyph.size != size:
            self.dots.glyph.update(size=size, fill_alpha=alpha)
        self.points.data = {"n": n, "score": scores}
        steps = [*view.improvements, (view.seen, view.improvements[-1][1])] if view.improvements else []
        self.best.data = {"n": [at for at, _ in steps], "score": [score for _, score in steps]}


class Throughput:
    """Items a second over the last ten minutes, by the time since the start: a clock would need the viewer's time zone."""

    def __init__(self) -> None:
        """An empty figure."""
        self.source = ColumnDataSource({"at": [], "rate": []})
        self.plot = _figure("Throughput", height=150)
        self.area = self.plot.varea("at", 0, "rate", source=self.source, fill_alpha=0.15)
        self.line = self.plot.line("at", "rate", source=self.source, line_width=2)
        self.plot.xaxis.ticker = AdaptiveTicker(base=60, mantissas=[1, 2, 5, 10, 15, 30], min_interval=0.5)
        self.plot.xaxis.formatter = CustomJSTickFormatter(code=_DURATION)
        self.plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[0]")
        self.plot.y_range.update(start=0, only_visible=True)
        self._drawn: tuple[Any, ...] = ()

    def dress(self, palette: Palette) -> None:
        """Colours."""
        _dress(self.plot, palette)
        self.area.glyph.fill_color = self.line.glyph.line_color = palette.blue

    def show(self, view: RunView | None, now: float) -> None:
        """Draw; once a second while the run goes on."""
        mark = () if view is None else (view.last.run, view.version if view.state != "running" else int(now))
        if mark == self._drawn:
            return
        self._drawn = mark
        at, rate = ([], []) if view is None else view.throughput(now)
        began = view.last.began if view is not None else 0.0
        self.source.data = {"at": [moment - began for moment in at], "rate": rate}


class Equity:
    """The curves of the best few backtests, the best in front."""

    def __init__(self) -> None:
        """An empty figure."""
        self.source = ColumnDataSource({name: [] for name in ("xs", "ys", "colour", "what")})
        self.plot = _figure("Equity", height=230, y_axis_label="currency of the prices")
        self.lines = self.plot.multi_line(
            "xs", "ys", source=self.source, line_color="colour", line_width=1.6, line_alpha=0.9
        )
        self.plot.add_tools(HoverTool(renderers=[self.lines], tooltips=[("", "@what"), ("equity", "$y{0,0}")]))
        self.plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
        self.plot.xaxis.axis_label, self.plot.xaxis.formatter = "bar", NumeralTickFormatter(format="0,0")
        # Kept, not made anew: with a new model Bokeh walks through all models of the document, which takes it 40 ms.
        self._bars = self.plot.xaxis[0].ticker, self.plot.xaxis[0].formatter
        self._dates = DatetimeTicker(), DatetimeTickFormatter()
        self._palette = LIGHT
        self._drawn: tuple[Any, ...] = ()

    def dress(self, palette: Palette) -> None:
        """Colours."""
        _dress(self.plot, palette)
        self._palette = palette
        self._drawn = ()

    @property
    def colours(self) -> tuple[str, ...]:
        """Of the curves, the best first."""
        return self._palette.few

    def show(self, view: RunView | None) -> None:
        """Draw, if there are other curves than before."""
        curves = view.curves if view is not None else ()
        mark = (view.last.run if curves and view is not None else "", *(curve.index for curve in curves), self._palette)
        if mark == self._drawn or view is None:
            return
        self._drawn = mark
        dates = bool(curves) and curves[0].dates
        ticker, formatter = self._dates if dates else self._bars
        axis = self.plot.xaxis[0]
        if axis.ticker is not ticker:
            axis.ticker, axis.formatter, axis.axis_label = ticker, formatter, None if dates else "bar"
        # The best is drawn last, above the others.
        shown = list(zip(curves, self._palette.few, strict=False))[::-1]
        self.source.data = {
            "xs": [curve.x for curve, _ in shown],
            "ys": [curve.y for curve, _ in shown],
            "colour": [colour for _, colour in shown],
            "what": [view.what(curve.index) for curve, _ in shown],
        }


class Heatmap:
    """Scores over two parameters. Cells, not values, are the axes, so a parameter of any type and scale fits."""

    def __init__(self) -> None:
        """An empty figure."""
        self.source = ColumnDataSource({name: [] for name in ("score", "x", "y", "width", "height")})
        self.mark = ColumnDataSource({"x": [], "y": []})
        self.plot = _figure("Heatmap", height=300)
        self.mapper = LinearColorMapper(palette=list(Viridis256), low=0, high=1, nan_color="rgba(0, 0, 0, 0)")
        # One picture instead of a rectangle a cell: thousands of them took the browser longer than all the rest.
        self.cells = self.plot.image(
            "score", "x", "y", "width", "height", source=self.source, color_mapper=self.mapper, level="glyph"
        )
        self.plot.scatter("x", "y", source=self.mark, size=15, fill_color=None, line_color="#ff7a1a", line_width=3)
        self._names = {place: CustomJSHover(args={"labels": []}, code=_CELL) for place in ("$x", "$y")}
        tips = [("", "$x{custom}"), ("", "$y{custom}"), ("score", "@score{0.0000}")]
        self.plot.add_tools(HoverTool(renderers=[self.cells], tooltips=tips, formatters=self._names))
        self.bar = ColorBar(
            color_mapper=self.mapper, ticker=BasicTicker(desired_num_ticks=5), border_line_color=None, width=8, label_standoff=6,
            background_fill_alpha=0,
        )  # fmt: skip
        self.plot.add_layout(self.bar, "right")
        for axis in self.plot.axis:
            axis.ticker, axis.formatter = FixedTicker(ticks=[]), CustomJSTickFormatter(code="return labels[tick]")
        self._drawn: tuple[Any, ...] = ()

    def dress(self, palette: Palette) -> None:
        """Colours."""
        _dress(self.plot, palette)
        self.plot.background_fill_color = palette.empty
        self.plot.grid.grid_line_color = None
        self.bar.major_label_text_color = palette.soft

    def show(self, view: RunView | None, x: str, y: str, how: str) -> None:
        """Draw over two parameters, if there is something new."""
        mark = () if view is None or not x or not y else (view.last.run, view.size, view.stride, x, y, how)
        if mark == self._drawn:
            return
        fresh = mark[3:] != self._drawn[3:] or mark[:1] != self._drawn[:1]
        self._drawn = mark
        if view is None or not mark:
            self.source.data = {name: [] for name in self.source.data}
            self.mark.data = {"x": [], "y": []}
            return
        self._fill(view.surface(x, y, how), fresh)

    def _fill(self, surface: Surface, fresh: bool) -> None:
        values = surface.values
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = float(finite.min()), float(finite.max())
            self.mapper.update(low=low, high=high if high > low else low + 1)
        if fresh:
            self._set_axes(surface)
        rows, columns = values.shape
        self.source.data = {
            "score": [values.astype(np.float32)], "x": [-0.5], "y": [-0.5], "width": [columns], "height": [rows]
        }  # fmt: skip
        best = surface.best
        self.mark.data = {"x": [best[1]], "y": [best[0]]} if best else {"x": [], "y": []}

    def _set_axes(self, surface: Surface) -> None:
        # As many labels as have room beside each other in the narrowest window.
        room = max(2, min(10, 280 // (6 * max(map(len, surface.x.labels), default=1) + 8)))
        for axis, span, side, most in (
            (self.plot.xaxis, self.plot.x_range, surface.x, room),
            (self.plot.yaxis, self.plot.y_range, surface.y, 10),
        ):
            count = len(side.labels)
            # A little more than the cells, so that the mark of the best has room at the edge.
            span.update(start=-0.5 - 0.02 * count, end=count - 0.5 + 0.02 * count)
            step = max(1, -(-count // most))
            (only,) = axis
            only.formatter.args = {"labels": side.labels}
            only.ticker.ticks = list(range(0, count, step))
            only.axis_label = side.name
        for place, side in (("$x", surface.x), ("$y", surface.y)):
            self._names[place].args = {"labels": [f"{side.name} {label}" for label in side.labels]}


def _figure(what: str, **options: Any) -> Any:
    plot = figure(
        tools="pan,wheel_zoom,box_zoom,reset,save", toolbar_location=None, sizing_mode="stretch_width", name=what,
        min_border_right=12, stylesheets=[InlineStyleSheet(css=FIGURE)], **options,
    )  # fmt: skip
    plot.outline_line_color = plot.border_line_color = None
    plot.xgrid.grid_line_color = None
    for axis in plot.axis:
        axis.axis_line_color = axis.minor_tick_line_color = axis.major_tick_line_color = None
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"
    return plot


def _dress(plot: Any, palette: Palette) -> None:
    # The card shines through: a canvas that is filled has a hairline at its edges.
    plot.background_fill_color = plot.border_fill_color = None
    plot.ygrid.grid_line_color = palette.line
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = palette.soft
