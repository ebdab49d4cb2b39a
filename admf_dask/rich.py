"""How results look in a notebook, and the colours of every figure. Whatever comes from a user is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

BLUE, ORANGE, GREY, EMPTY = "#2f5fe0", "#e8590c", "#667085", "#eef1f6"
FONT = "Inter, Helvetica, Arial, sans-serif"
SHOWN = 10
"""Rows of a table."""
# Grey at half strength is seen on white and on black, so a notebook may be light or dark.
_BOX = (
    "display:inline-block;min-width:22em;max-width:100%;box-sizing:border-box;overflow-x:auto;padding:8px 14px;margin:2px 0;"
    "border:1px solid rgba(128,128,128,.4);border-radius:8px;font-family:Inter,Helvetica,Arial,sans-serif;font-size:13px"
)  # fmt: skip


def box(title: str, *lines: str, table: Any = None, rows: int | None = None, link: str | None = None) -> str:
    """HTML of a result: its class, lines in words, a link, the first rows of a DataFrame.

    `rows` is how many there are in all, where the frame given is only its beginning.
    """
    parts = [f"<b>{html.escape(title)}</b>"]
    parts += [f'<div style="opacity:.8">{html.escape(line)}</div>' for line in lines if line]
    if link:
        address = html.escape(link, quote=True)
        parts.append(f'<div><a href="{address}" target="_blank" rel="noopener">{address}</a></div>')
    if table is not None and len(table):
        parts.append(table.head(SHOWN).to_html(float_format=_number, border=0, max_cols=12))
        rest = (len(table) if rows is None else rows) - min(SHOWN, len(table))
        if rest > 0:
            parts.append(f'<div style="opacity:.8">and {rest:,} more</div>')
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def _number(value: float) -> str:
    """Sums of money as people write them, all else to six digits."""
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.6g}"


def calm(plot: Any) -> Any:
    """A Bokeh figure in the style of the page; returns it."""
    plot.toolbar.logo = None
    plot.background_fill_color = None
    plot.outline_line_color = None
    plot.xgrid.grid_line_color = None
    plot.ygrid.grid_line_color = EMPTY
    for axis in plot.axis:
        axis.axis_line_color = axis.minor_tick_line_color = axis.major_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = GREY
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
    if plot.title is not None:
        plot.title.text_font = FONT
        plot.title.text_font_size = "15px"
    return plot


def without_frame(legends: Iterable[Any]) -> None:
    """Legends that stand in the figure without a box around them."""
    for legend in legends:
        legend.background_fill_alpha = 0.8
        legend.border_line_color = None
        legend.label_text_font = FONT
