"""One HTML file of a run that opens without a network: the page, standing still."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.models import Column, CustomJS, Div, InlineStyleSheet
from bokeh.resources import INLINE

from admf_dask.page import words
from admf_dask.page.figures import Heatmap
from admf_dask.page.page import Page, card, page_sheets, row
from admf_dask.page.style import CSS, DARK, LIGHT, Palette
from admf_dask.page.view import RunView
from admf_dask.page.words import WorkerFacts
from admf_dask.progress.digest import Update

MOST_SURFACES = 4
_DRESS = """
const scheme = window.matchMedia('(prefers-color-scheme: dark)');
const dress = () => {
  changes.forEach(([name, light, dark], at) => models[at].setv({[name]: scheme.matches ? dark : light}));
};
if (scheme.matches) dress();
scheme.addEventListener('change', dress);
"""


class _Still:
    """A source that does not change."""

    def __init__(self, view: RunView) -> None:
        self._view = view

    def runs(self) -> Mapping[str, RunView]:
        return {self._view.last.run: self._view}

    def workers(self) -> Sequence[WorkerFacts]:
        return ()


def save_report(update: Update, path: Path) -> Path:
    """Write the file, and its folder where that is missing; about 4 MB, most of them the library that draws.

    Raises OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    view = RunView.of(update)
    page, surfaces = Page(_Still(view)), _surfaces(view)
    scored = bool(view.size)
    parts: list[Any] = [page.text("title"), page.text("tiles")]
    parts += [page.card("history"), *_rows(surfaces), page.card("leaderboard")] if scored else []
    parts += [page.card("equity")] if view.curves else []
    parts += [page.card("items")] if view.labels and not scored else []
    parts += [card(page.text("all failures"))]
    page.say("title", f"<h1>{words.safe(update.name)}</h1>")
    page.say("all failures", words.all_failures(view))
    # What waits for a choice has no place in a file.
    root = Column(*parts, sizing_mode="stretch_width", styles={"gap": "12px"}, stylesheets=page_sheets())
    dark, light = (_look(root, page, surfaces, palette) for palette in (DARK, LIGHT))
    document = Document()
    document.add_root(root)
    document.js_on_event("document_ready", _dressing(light, dark))
    path.write_text(file_html(document, INLINE, title=update.name), encoding="utf-8")
    return path


def _look(root: Column, page: Page, surfaces: dict[str, Heatmap], palette: Palette) -> dict[tuple[Any, str], Any]:
    """What is on the page by model and property, as far as a palette may change it."""
    page.dress(palette)
    for heatmap in surfaces.values():
        heatmap.dress(palette)
    page.update()
    return {
        (model, name): getattr(model, name)
        for model in root.references()
        for name in model.properties()
        if name.endswith("_color") or (name == "text" and isinstance(model, Div)) or name == "data"
    }


def _dressing(light: dict[tuple[Any, str], Any], dark: dict[tuple[Any, str], Any]) -> CustomJS:
    """Nobody is there to dress a page that stands still, so the file has both palettes, where they differ."""
    changed = [key for key, value in light.items() if value is not dark[key] and value != dark[key]]
    models = [model for model, _ in changed]
    changes = [[name, light[model, name], dark[model, name]] for model, name in changed]
    return CustomJS(args={"models": models, "changes": changes}, code=_DRESS)


def _surfaces(view: RunView) -> dict[str, Heatmap]:
    """A heatmap for each pair of parameters, for the first few, by its title."""
    found = {}
    for x, y in itertools.islice(itertools.combinations(view.names, 2), MOST_SURFACES):
        heatmap = Heatmap()
        heatmap.show(view, x, y, "best")
        title = f"<h2>{words.safe(x)} and {words.safe(y)} <span class='soft small'>best over the rest</span></h2>"
        found[title] = heatmap
    return found


def _rows(surfaces: dict[str, Heatmap]) -> list[Any]:
    """Two beside each other."""
    cards = []
    for title, heatmap in surfaces.items():
        head = Div(text=title, stylesheets=[InlineStyleSheet(css=CSS)], sizing_mode="stretch_width", margin=0)
        cards.append(card(head, heatmap.plot, flex="1 1 0"))
    return [row(*cards[place : place + 2]) for place in range(0, len(cards), 2)]
