"""One HTML file of a run that opens without a network: the page, standing still."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bokeh.embed import file_html
from bokeh.models import Column, Div, InlineStyleSheet
from bokeh.resources import INLINE

from admf_dask.page import words
from admf_dask.page.figures import Heatmap
from admf_dask.page.page import Page, card, page_sheets, row
from admf_dask.page.style import CSS, LIGHT
from admf_dask.page.view import RunView
from admf_dask.page.words import WorkerFacts
from admf_dask.progress.digest import Update

MOST_SURFACES = 4


class _Still:
    """A source that does not change."""

    def __init__(self, view: RunView) -> None:
        self._view = view

    def runs(self) -> Mapping[str, RunView]:
        return {self._view.last.run: self._view}

    def workers(self) -> Sequence[WorkerFacts]:
        return ()


def save_report(update: Update, path: Path) -> Path:
    """Write the file; about 4 MB, most of them the library that draws. Raises OSError where it cannot be written."""
    view = RunView.of(update)
    page = Page(_Still(view))
    scored = bool(view.size)
    parts: list[Any] = [page.text("title"), page.text("tiles")]
    parts += [page.card("history"), *_surfaces(view), page.card("leaderboard")] if scored else []
    parts += [page.card("equity")] if view.curves else []
    parts += [page.card("items")] if view.labels and not scored else []
    parts += [card(page.text("all failures"))]
    page.update()
    page.say("title", f"<h1>{words.safe(update.name)}</h1>")
    page.say("all failures", words.all_failures(view))
    # What waits for a choice has no place in a file.
    root = Column(*parts, sizing_mode="stretch_width", styles={"gap": "12px"}, stylesheets=page_sheets())
    path.write_text(file_html(root, INLINE, title=update.name), encoding="utf-8")
    return path


def _surfaces(view: RunView) -> list[Any]:
    """A heatmap for each pair of parameters, for the first few; two beside each other."""
    found = []
    for x, y in itertools.islice(itertools.combinations(view.names, 2), MOST_SURFACES):
        heatmap = Heatmap()
        heatmap.dress(LIGHT)
        heatmap.show(view, x, y, "best")
        title = f"<h2>{words.safe(x)} and {words.safe(y)} <span class='soft small'>best over the rest</span></h2>"
        head = Div(text=title, stylesheets=[InlineStyleSheet(css=CSS)], sizing_mode="stretch_width", margin=0)
        found.append(card(head, heatmap.plot, flex="1 1 0"))
    return [row(*found[place : place + 2]) for place in range(0, len(found), 2)]
