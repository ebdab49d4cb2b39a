"""Figures of an optimisation, in Bokeh, in one calm style."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.embed import file_html
from bokeh.models import BasicTicker, ColorBar, FixedTicker, HoverTool, LinearColorMapper, NumeralTickFormatter, Range1d
from bokeh.palettes import Viridis256
from bokeh.plotting import figure
from bokeh.resources import INLINE

from admf_dask.rich import BLUE, EMPTY, ORANGE, calm, without_frame
from admf_dask.text import readable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def heatmap_figure(wide: pd.DataFrame, title: str, score: str, best: tuple[Any, Any] | None) -> figure:
    """Scores by row and column of `wide`; every cell is labelled on hover, the best is ringed, NaN stays empty."""
    x, y = str(wide.columns.name), str(wide.index.name)
    across, down = [str(value) for value in wide.columns], [str(value) for value in wide.index]
    values = wide.to_numpy(dtype=float)
    rows, columns = np.nonzero(~np.isnan(values))
    scores = values[rows, columns]
    plot = _figure(
        title,
        x_range=Range1d(-0.5, len(across) - 0.5),
        y_range=Range1d(-0.5, len(down) - 0.5),
        x_axis_label=x,
        y_axis_label=y,
        height=560,
        width=820,
    )
    plot.background_fill_color, plot.grid.grid_line_color = EMPTY, None
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    mapper = LinearColorMapper(palette=list(Viridis256), low=low, high=high if high > low else low + 1)
    labels = {"x": [across[c] for c in columns], "y": [down[r] for r in rows]}
    source = {"column": columns, "row": rows, "score": scores, **labels}
    cells = plot.rect(
        "column",
        "row",
        1,
        1,
        source=source,
        fill_color={"field": "score", "transform": mapper},
        line_color=None,
        width_units="data",
    )
    plot.add_tools(HoverTool(renderers=[cells], tooltips=[(x, "@x"), (y, "@y"), (score, "@score{0.0000}")]))
    # Plain numbers: `8.000e+6` is no sum of money.
    words = NumeralTickFormatter(format="0,0" if max(abs(low), abs(high)) >= 1000 else "0,0.[000]")
    ticks = BasicTicker(desired_num_ticks=7)
    plot.add_layout(ColorBar(color_mapper=mapper, ticker=ticks, formatter=words, border_line_color=None), "right")
    if best is not None:
        _mark_best(plot, across.index(str(best[0])), down.index(str(best[1])))
    _label(plot.xaxis, across, 26)
    _label(plot.yaxis, down, 22)
    return plot


def history_figure(indices: NDArray[np.int64], scores: NDArray[np.float64], score: str, *, maximize: bool) -> figure:
    """Every score in grid order, and the best so far as a line."""
    best = _best_so_far(scores, maximize)
    plot = _figure(
        f"{readable(score)} of every combination", x_axis_label="combination", y_axis_label=score, width=820, height=400
    )
    step = max(1, len(scores) // 20_000)
    positions = indices.astype(float)
    plot.scatter(positions[::step], scores[::step], size=4, color=BLUE, alpha=0.35, legend_label="each evaluation")
    plot.step(positions[::step], best[::step], mode="after", color=ORANGE, line_width=2, legend_label="best so far")
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    without_frame(plot.legend)
    plot.legend.update(orientation="horizontal", location="top_left", padding=0, spacing=12)
    plot.add_layout(plot.legend[0], "above")  # inside it would lie on the dots
    return plot


def save_html(plot: figure, path: Path) -> None:
    """One file that opens without a network."""
    path.write_text(file_html(plot, INLINE, title=plot.title.text if plot.title else ""), encoding="utf-8")


def _figure(title: str, **options: Any) -> figure:
    tools = "pan,wheel_zoom,box_zoom,reset,save"
    return calm(figure(title=title, tools=tools, toolbar_location="above", **options))


def _mark_best(plot: figure, column: int, row: int) -> None:
    plot.scatter([column], [row], size=14, fill_color=None, line_color=ORANGE, line_width=3, legend_label="best")
    plot.legend.location = "top_right"
    without_frame(plot.legend)


def _label(axes: Any, labels: list[str], most: int) -> None:
    """Every k-th label, so that they can be read."""
    shown = range(0, len(labels), max(1, -(-len(labels) // most)))
    for axis in axes:
        axis.ticker = FixedTicker(ticks=list(shown))
        axis.major_label_overrides = {place: labels[place] for place in shown}


def _best_so_far(scores: Any, maximize: bool) -> Any:
    filled = np.where(np.isnan(scores), -np.inf if maximize else np.inf, scores)
    best = np.maximum.accumulate(filled) if maximize else np.minimum.accumulate(filled)
    return np.where(np.isinf(best), np.nan, best)
