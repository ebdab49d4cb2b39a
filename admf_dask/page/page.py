"""`Page`: widgets, figures and words over some runs; one for each browser tab, whatever server it comes from."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from bokeh.models import (
    Column,
    ColumnDataSource,
    CustomJS,
    Div,
    GlobalInlineStyleSheet,
    InlineStyleSheet,
    Row,
    Select,
    TextInput,
)

from admf_dask.page import words
from admf_dask.page.figures import Equity, Heatmap, History, Throughput
from admf_dask.page.pace import FASTEST, Pace
from admf_dask.page.style import AROUND, CARD, CSS, DARK, LIGHT, PAGE, SELECT, Palette
from admf_dask.page.view import RunView
from admf_dask.page.words import WorkerFacts

_YOUNG, _NEWBORN = 3.0, 1.0
"""Seconds up to which a run is taken to want every CPU, and up to which nothing of it is drawn while it runs."""
LATEST = "latest"
SCORED = ("optimize", "backtest")
"""Kinds of runs that have scores, also before the first has come."""
PLOTS = ("history", "heatmap", "leaderboard", "equity", "throughput", "workers", "failures")

# A Div whose text changes is rendered anew with all its style sheets, and the page laid out: so what is new is put in place.
_PUT = """
const began = performance.now();
const {name, html} = cb_obj.data;
for (let at = 0; at < name.length; at++) {
  const div = texts[name[at]];
  const view = window.Bokeh?.index?.find_one?.(div);
  if (view?.markup_el == null) { div.text = html[at]; continue; }
  div.properties.text.set_value(html[at]);
  view.markup_el.innerHTML = html[at];
}
requestAnimationFrame(() => setTimeout(() => {
  up.data = {drawn: [performance.now() - began], hidden: [document.visibilityState === "hidden"]};
}));
"""
_READY = """
const scheme = window.matchMedia('(prefers-color-scheme: dark)');
const dress = () => { dark.value = scheme.matches ? 'dark' : 'light'; };
dress();
up.data = {drawn: [-1], hidden: [document.visibilityState === "hidden"]};
scheme.addEventListener('change', dress);
document.addEventListener('visibilitychange', () => {
  up.data = {drawn: [-1], hidden: [document.visibilityState === "hidden"]};
});
"""


class Source(Protocol):
    """Where a page gets what it shows."""

    def runs(self) -> Mapping[str, RunView]:
        """By run, in the order in which they began."""

    def workers(self) -> Sequence[WorkerFacts]:
        """As they are now; empty where there is no cluster."""


class Page:
    """Widgets, figures and the one function that brings them up to date."""

    def __init__(self, source: Source) -> None:
        """Nothing is drawn yet."""
        self._source = source
        self.history, self.heatmap, self.equity, self.throughput = History(), Heatmap(), Equity(), Throughput()
        self._cards: dict[str, Column] = {}
        self._texts: dict[str, Div] = {}
        self.chooser = _select("Run", [(LATEST, "the latest run")], width=320)
        self.x, self.y = _select("across", []), _select("up", [])
        self.how = _select("over the rest", [(how, how) for how in ("best", "mean", "worst")], width=90)
        self.trace = _select("Traceback of", [("", "choose a failure to read its traceback")])
        self.trace.update(sizing_mode="stretch_width", margin=(8, 4, 0, 4))
        self.dark = TextInput(value="", visible=False, name="dark")
        self.dark.on_change("value", lambda attr, old, new: self._dress_as_told())
        for control in (self.chooser, self.x, self.y, self.how, self.trace):
            control.on_change("value", lambda attr, old, new: self.update())
        self._traces: dict[str, str] = {}
        self.pace = Pace()
        self._live = False
        self._said: dict[str, str] = {}
        self._new: dict[str, str] = {}
        self._marks: dict[str, Any] = {}
        self.down = ColumnDataSource({"name": [], "html": []})
        self.up = ColumnDataSource({"drawn": [], "hidden": []})
        """What the browser tells: milliseconds that drawing took, and whether nobody sees the page."""
        self.up.on_change("data", lambda attr, old, new: self._heard())
        self.dress(LIGHT)

    def _dress_as_told(self) -> None:
        self.dress(DARK if self.dark.value == "dark" else LIGHT)

    def dress(self, palette: Palette) -> None:
        """Colours of the figures; those of the words are CSS."""
        for part in (self.history, self.heatmap, self.equity, self.throughput):
            part.dress(palette)

    # -- layout --------------------------------------------------------------------------------------------------------

    def root(self) -> Column:
        """Everything."""
        head = Row(self.text("header", flex="1 1 300px"), self.chooser, self.dark, sizing_mode="stretch_width")
        right = Column(
            self.card("throughput"), self.card("workers"), self.card("slowest", "1 1 auto"),
            sizing_mode="stretch_both", styles={"flex": "2 1 0", "min-width": "0", "gap": "12px"},
        )  # fmt: skip
        return Column(
            head, self.text("tiles"), row(self.card("history", "3 1 0"), self.card("heatmap", "2 1 0")),
            self.card("items"), self.card("equity"), row(self.card("leaderboard", "3 1 0"), right), self.card("failures"),
            self.card("all runs"),
            sizing_mode="stretch_width", stylesheets=page_sheets(), styles={"gap": "12px"},
        )  # fmt: skip

    def part(self, name: str) -> Any:
        """One of `PLOTS` alone, for JupyterLab."""
        more = [self.card("items")] if name == "history" else [self.card("slowest")] if name == "workers" else []
        return Column(
            self.chooser, self.card(name), *more, self.dark, sizing_mode="stretch_width", stylesheets=page_sheets(),
            styles={"gap": "12px"},
        )  # fmt: skip

    def card(self, name: str, flex: str | None = None) -> Column:
        """A part in its box, by name."""
        content: dict[str, Callable[[], Sequence[Any]]] = {
            "history": lambda: (self.text("history title"), self.history.plot),
            "heatmap": lambda: (self._heatmap_head(), self.heatmap.plot),
            "equity": lambda: (self.text("equity title"), self.equity.plot),
            "throughput": lambda: (self.text("throughput title"), self.throughput.plot),
            "failures": lambda: (self.text("failures"), self.trace, self.text("trace")),
        }
        if name not in self._cards:
            parts = content.get(name, lambda: (self.text(name),))()
            self._cards[name] = card(*parts, flex=flex)
            if name == "leaderboard" and flex:
                # As high as what is beside it.
                self._cards[name].sizing_mode = "stretch_both"
        return self._cards[name]

    def _reveal(self, name: str, there: bool) -> None:
        found = self._cards.get(name)
        if found is not None and found.visible != there:
            found.visible = there

    def _heatmap_head(self) -> Row:
        return Row(self.text("heatmap title", flex="1 1 60px"), self.x, self.y, self.how, sizing_mode="stretch_width")

    def text(self, name: str, flex: str | None = None) -> Div:
        """A piece of HTML by name."""
        if name not in self._texts:
            styles = {"flex": flex, "min-width": "0"} if flex else {}
            self._texts[name] = Div(
                text="",
                visible=False,
                sizing_mode="stretch_width",
                stylesheets=[InlineStyleSheet(css=CSS)],
                styles=styles,
                margin=0,
                name=name,
                disable_math=True,
            )
        return self._texts[name]

    def say(self, name: str, text: str) -> None:
        """Change a piece of HTML, if it differs and is on this page."""
        div = self._texts.get(name)
        if div is None or self._said.get(name) == text:
            return
        self._said[name] = text
        if not self._live:
            div.update(text=text, visible=bool(text))
            return
        self._new[name] = text
        if div.visible != bool(text):
            div.visible = bool(text)

    def _tell(self, name: str, mark: Any, make: Callable[[], str]) -> None:
        """`say` what is made from what `mark` stands for, unless that is as it was."""
        if self._marks.get(name, self) != mark:
            self._marks[name] = mark
            self.say(name, make())

    def follow(self, root: Any) -> None:
        """Send a browser what is new, once it has said that it has the page: what is sent before is in it, or is lost."""
        self.down.js_on_change("data", CustomJS(args={"texts": self._texts, "up": self.up}, code=_PUT))
        root.tags = [self.down, self.up]

    def _heard(self) -> None:
        self._live = True
        told: Any = self.up.data
        for milliseconds in list(told.get("drawn", ()))[:1]:
            # Below 0: nothing was drawn. It is a browser that speaks, so it may say anything.
            if isinstance(milliseconds, (int, float)) and milliseconds >= 0:
                self.pace.drawn(milliseconds / 1000)
        was = self.pace.hidden
        self.pace.hidden = any(told.get("hidden", ()))
        if was and not self.pace.hidden:
            self.update()

    def again(self) -> None:
        """Bring everything up to date, if it is time."""
        views, workers = self._source.runs(), self._source.workers()
        cpus = max(1, min(os.cpu_count() or 1, sum(worker.threads for worker in workers)))
        now, running = time.time(), [view for view in views.values() if view.state == "running"]
        view = self._found(views, now)
        if view is not None and _is_newborn(view, now):
            # A run that is over within the second is drawn when it is: looking does not slow it down at all.
            return
        # Heartbeats tell of a run's first seconds late: until they do it is taken to want every CPU.
        young = any(view.elapsed(now) < _YOUNG for view in running)
        busy = young or sum(worker.cpu for worker in workers) >= 70 * cpus
        if self.pace.due(time.monotonic(), busy=cpus if busy else 0, moving=bool(running)):
            self.update()

    # -- content -------------------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Bring everything up to date; costs milliseconds, and next to nothing when nothing is new."""
        began, now = time.thread_time(), time.time()
        views, workers = self._source.runs(), self._source.workers()
        self._offer_runs(views)
        view = self._found(views, now)
        last = view.last if view is not None else None
        run = last.run if last is not None else ""
        self.say("header", words.header(view, workers))
        self.say("tiles", words.tiles(view, now))
        board = (run, view.state, last.best, last.score) if view is not None and last is not None else ()
        self._tell("leaderboard", board, lambda: words.leaderboard(view))
        self.say("workers", words.machine(workers, dict(views)))
        self.say("slowest", words.slowest(view, workers))
        self._tell("failures", (run, last and (last.failed, last.failures)), lambda: words.failures(view))
        mark = [(one, view.version, view.state) for one, view in views.items()]
        self._tell("all runs", mark, lambda: words.all_runs(list(views.values())[::-1]))
        self._draw(view, now, workers)
        self._offer_traces(view)
        sent = self._live and bool(self._new)
        if sent:
            # Last, so that what the browser then says that it has drawn is all of it.
            self.down.data = {"name": list(self._new), "html": list(self._new.values())}
            self._new.clear()
        self.pace.made(time.thread_time() - began, time.monotonic(), sent=sent)

    def _offer_runs(self, views: Mapping[str, RunView]) -> None:
        options = [(LATEST, "the latest run")]
        # The browser tells options apart by their words, so these differ.
        for number, (run, view) in list(enumerate(views.items(), start=1))[::-1]:
            options.append((run, f"{number}. {view.last.name[:60]} · {view.state}"))
        _offer(self.chooser, options)

    def _found(self, views: Mapping[str, RunView], now: float) -> RunView | None:
        """The run that is chosen; else the latest that goes on, or that ended, for a second before one that has just begun."""
        found = views.get(str(self.chooser.value))
        if found is not None or not views:
            return found
        grown = [view for view in views.values() if not _is_newborn(view, now)] or list(views.values())
        return ([view for view in grown if view.state == "running"] or grown)[-1]

    def _draw(self, view: RunView | None, now: float, workers: Sequence[WorkerFacts]) -> None:
        scored = view is None or bool(view.size) or view.last.kind in SCORED
        for name in ("history", "leaderboard"):
            self._reveal(name, scored)
        self.say("history title", words.history_title(view))
        self.history.show(view)
        self._reveal("equity", view is not None and bool(view.curves))
        self.say("equity title", words.equity_title(view, self.equity.colours))
        self.equity.show(view)
        named = view is not None and bool(view.labels) and not scored
        self._reveal("items", named)
        if view is not None and named:
            running = [item.index for worker in workers for item in worker.executing if item.run == view.last.run]
            self.say("items", words.symbols(view, running))
        self.throughput.show(view, now)
        over = view is not None and view.state != "running" and not self.throughput.source.data["at"]
        what = "the run was over too soon to draw it" if over else "items a second, by time since the start"
        self.say("throughput title", f"<h2>Throughput <span class='soft small'>{what}</span></h2>")
        self._draw_heatmap(view, scored)

    def _draw_heatmap(self, view: RunView | None, scored: bool) -> None:
        names = view.names if view is not None else []
        self._reveal("heatmap", scored and (len(names) >= 2 or view is None or view.last.kind == "optimize"))
        for control, place in ((self.x, 0), (self.y, 1)):
            _offer(control, [(name, name) for name in names], place)
        drawn = len(names) >= 2 and self.x.value != self.y.value
        hint = "" if drawn else "two parameters with several values each are needed"
        if drawn and view is not None and view.stride > 1:
            hint = f"of one evaluation in {view.stride:,}"
        self.say("heatmap title", f"<h2>Parameters</h2><span class='soft small'>{hint}</span>")
        self.heatmap.show(view if drawn else None, str(self.x.value), str(self.y.value), str(self.how.value))

    def _offer_traces(self, view: RunView | None) -> None:
        failures = view.last.failures if view is not None else ()
        self._traces = {str(failed.index): failed.traceback or failed.summary for failed in failures}
        options = [("", "choose a failure to read its traceback")]
        options += [
            (str(failed.index), f"#{failed.index:,} {', '.join(failed.item.values())[:60]}: {failed.kind}")
            for failed in failures
        ]
        self.trace.visible = bool(failures)
        _offer(self.trace, options)
        self.say("trace", words.trace(self._traces.get(str(self.trace.value), "")))


def open_document(doc: Any, page: Page, root: Any) -> None:
    """Draw, and keep it up to date as long as somebody looks."""
    page.update()
    page.follow(root)
    doc.add_root(root)
    doc.js_on_event("document_ready", CustomJS(args={"dark": page.dark, "up": page.up}, code=_READY))
    doc.page = page  # the document owns the page: gone with the tab
    known = weakref.ref(page)

    def again() -> None:
        living = known()
        if living is not None:
            living.again()

    doc.add_periodic_callback(again, int(1000 * FASTEST))


def _is_newborn(view: RunView, now: float) -> bool:
    return view.state == "running" and view.elapsed(now) < _NEWBORN


def _select(title: str, options: list[tuple[str, str]], width: int = 110) -> Select:
    value = options[0][0] if options else ""
    return Select(
        options=options, value=value, width=width, name=title, margin=(0, 4), stylesheets=[InlineStyleSheet(css=SELECT)],
        description=None,
    )  # fmt: skip


def _offer(control: Select, options: list[tuple[str, str]], default: int = 0) -> None:
    """Change the options if they differ; a value that is not among them becomes the default one."""
    if control.options != options:
        control.options = options
    values = [value for value, _ in options]
    if control.value not in values:
        control.value = values[min(default, len(values) - 1)] if values else ""


def page_sheets() -> list[Any]:
    """Of the outermost model."""
    return [InlineStyleSheet(css=PAGE), GlobalInlineStyleSheet(css=AROUND)]


def card(*children: Any, flex: str | None = None) -> Column:
    """A white box."""
    styles = {"flex": flex, "min-width": "0"} if flex else {}
    return Column(*children, sizing_mode="stretch_width", stylesheets=[InlineStyleSheet(css=CARD)], styles=styles)


def row(*children: Any) -> Row:
    """Side by side, of one height."""
    return Row(*children, sizing_mode="stretch_width", styles={"gap": "12px", "align-items": "stretch"})
