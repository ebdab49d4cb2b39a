"""The parts of the page that are words and tables, as HTML. Whatever comes from a user is escaped here, and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from admf_dask.page.view import RunView
from admf_dask.progress.digest import TOP, Parameters
from admf_dask.text import format_bytes, format_count, format_rate, format_seconds, readable

MOST_CELLS = 600
NONE = "&ndash;"


@dataclass(frozen=True)
class Executing:
    """An item under way."""

    run: str
    index: int
    count: int
    seconds: float


@dataclass(frozen=True)
class WorkerFacts:
    """A worker as its last heartbeat told."""

    name: str
    threads: int
    private: int
    shared: int
    limit: int
    cpu: float
    executing: tuple[Executing, ...]


def safe(text: Any) -> str:
    """Escaped."""
    return html.escape(str(text))


def in_line(parameters: Parameters, most: int = 120, *, view: RunView | None = None) -> str:
    """`fast 18 · slow 100`, escaped; without the name where an item is one value; with `view`, what differs from item to item."""
    names = view.told(parameters) if view is not None else parameters
    words = " · ".join(parameters[name] if name == "item" else f"{name} {parameters[name]}" for name in names)
    return safe(words if len(words) <= most else f"{words[: most - 1]}…")


def header(view: RunView | None, workers: Sequence[WorkerFacts]) -> str:
    """Title and cluster in a line."""
    threads = sum(worker.threads for worker in workers)
    private, limit = sum(worker.private for worker in workers), sum(worker.limit for worker in workers)
    of = f" of {format_bytes(limit)}" if limit else ""
    facts = (
        f"<b>{len(workers)}</b> workers · <b>{threads}</b> threads · <b>{format_bytes(private)}</b>{of} private memory"
    )
    name = "" if view is None else f" · {safe(view.last.name[:120])}"
    return f'<h1>Runs</h1> <span class="soft">&nbsp; {facts}{name}</span>'


def tiles(view: RunView | None, now: float) -> str:
    """The figures on top."""
    if view is None:
        return '<div class="card empty">Nothing has run on this scheduler yet. A run of a session shows up here.</div>'
    last = view.last
    share = last.done / last.total if last.total else 1.0
    failed = last.failed / last.total if last.total else 0.0
    bar = (
        f'<div class="bar"><span style="width:{100 * max(0.0, share - failed):.2f}%;background:var(--blue)"></span>'
        f'<span style="width:{100 * failed:.2f}%;background:var(--red)"></span></div>'
    )
    aside = ["of an unknown number" if last.open_ended else f"of {format_count(last.total)}"]
    aside += [f"{format_count(last.recalled)} from the journal"] if last.recalled else []
    aside += [f"{format_count(last.rejected)} ruled out"] if last.rejected else []
    share_failed = f"{100 * last.failed / last.evaluated:.2g} % of evaluated" if last.evaluated else "&nbsp;"
    left, band = _time_left(view, now)
    parts = [
        _tile(
            f"{safe(last.kind)} · <b>{safe(view.state)}</b>",
            *(NONE, "no total") if last.open_ended else (f"{_percent(share)} %", bar),
        ),
        _tile("completed", format_count(last.done), " · ".join(aside)),
        _tile(
            "rate",
            format_rate(view.rate(now)) if last.done else NONE,
            "15 s average" if view.state == "running" else "over the whole run",
        ),
        _tile("time left" if view.state == "running" else "took", left, band),
        _best(view),
        _tile("failed", format_count(last.failed), share_failed, "red" if last.failed else ""),
    ]
    notices = "".join(f'<div class="notice small">{safe(text)}</div>' for _, text in last.notices[-2:])
    return f'<div class="tiles">{"".join(parts)}</div>{notices}'


def _percent(share: float) -> str:
    return "100" if share >= 1 else f"{100 * share:.1f}"


def _tile(label: str, figure: str, note: str, colour: str = "") -> str:
    body = note if note.startswith("<div") else f'<div class="note">{note}</div>'
    return f'<div class="card"><div class="label">{label}</div><div class="figure {colour}">{figure}</div>{body}</div>'


def _best(view: RunView) -> str:
    last = view.last
    if not last.best:
        return _tile("best", NONE, "no score yet" if last.score or last.kind == "optimize" else "nothing is ranked")
    score, _, parameters = last.best[0]
    line = in_line(parameters, view=view)
    return _tile(
        f"best {safe(str(last.score).replace('_', ' '))}",
        f"{score:.6g}",
        f'<span title="{line}">{line}</span>',
        "orange",
    )


def _time_left(view: RunView, now: float) -> tuple[str, str]:
    elapsed = format_seconds(view.elapsed(now))
    if view.state != "running":
        return elapsed, f"{safe(view.state)}"
    found = view.time_left(now)
    if found is None:
        return NONE, f"running for {elapsed}"
    low, likely, high = found
    band = f"{format_seconds(low)} to {format_seconds(high)}"
    return format_seconds(likely), f"{band}<br>running for {elapsed}"


def history_title(view: RunView | None) -> str:
    """What the figure shows, with its legend."""
    name = safe(readable(str((view.last.score if view is not None else None) or "score")))
    thinned = f" · one in {view.stride} is drawn" if view is not None and view.stride > 1 else ""
    legend = f"{_dot('var(--blue)')}each evaluation{thinned} &nbsp; {_dot('var(--orange)')}best so far"
    return f'<h2>{name} of every evaluation <span class="legend">{legend}</span></h2>'


def equity_title(view: RunView | None, colours: Sequence[str]) -> str:
    """The curves, with what each is."""
    curves = view.curves if view is not None else ()
    if view is None or not curves:
        return ""
    told = {index: parameters for _, index, parameters in view.last.best}
    legend = " &nbsp; ".join(
        f"{_dot(colour)}{in_line(told[curve.index], 60, view=view) if curve.index in told else safe(view.what(curve.index))}"
        for curve, colour in zip(curves, colours, strict=False)
    )
    return f'<h2>Equity of the best {len(curves)}</h2><div class="soft small legends">{legend}</div>'


def _dot(colour: str) -> str:
    return f'<i class="dot" style="background:{colour}"></i>'


def leaderboard(view: RunView | None) -> str:
    """The best twenty with their parameters."""
    best = view.last.best if view else ()
    if view is None or not best:
        empty = _nothing("The best evaluations stand here as soon as there are scores.")
        return f"<h2>Leaderboard</h2>{_of_height(view, empty)}"
    names = list(dict.fromkeys(name for _, _, parameters in best for name in view.told(parameters)))[:8]
    figures = _distinct([score for score, _, _ in best])
    scores = [score for score, _, _ in best]
    low, high = min(scores), max(scores)
    heads = "".join(f"<th>{safe(name)}</th>" for name in names)
    rows = []
    for place, ((score, _, parameters), figure) in enumerate(zip(best, figures, strict=True), start=1):
        width = (
            100.0 if high == low else 15 + 85 * ((score - low) if view.last.maximize else (high - score)) / (high - low)
        )
        cells = "".join(f'<td title="{safe(parameters.get(n, ""))}">{safe(parameters.get(n, ""))}</td>' for n in names)
        bar = _bar(width, "var(--blue)", "background:none;opacity:.75")
        mark = "orange" if place == 1 else "soft"
        rows.append(f'<tr><td class="left {mark}">{place}</td><td>{figure}</td><td class="wide">{bar}</td>{cells}</tr>')
    title = safe(readable(str(view.last.score or "score")))
    table = f"<table><tr><th></th><th>{title}</th><th></th>{heads}</tr>{''.join(rows)}</table>"
    return f"<h2>Leaderboard</h2>{_of_height(view, table)}"


def _of_height(view: RunView | None, content: str) -> str:
    """With room for the rows that a run that goes on will have, so that what is below stays where it is."""
    if view is None or view.state != "running":
        return content
    return f'<div style="min-height:{26 + 29 * min(TOP, view.last.total)}px">{content}</div>'


def _distinct(scores: Sequence[float]) -> list[str]:
    """Scores with four decimals, or as many more as it takes to tell different ones apart."""
    different = len({f"{score:.9f}" for score in scores})
    for digits in range(4, 10):
        texts = [f"{score:,.{digits}f}" for score in scores]
        if len(set(texts)) >= different:
            break
    return texts


def symbols(view: RunView, running: Iterable[int]) -> str:
    """A cell for each item of a run over named items: done, failed, under way, waiting."""
    labels = view.labels or ()
    under_way = set(running) if view.state == "running" else set()
    cells = []
    for index, label in enumerate(labels[:MOST_CELLS]):
        state = (
            "failed" if index in view.failed_items
            else "done" if index in view.finished_items
            else "running" if index in under_way
            else "waiting"
        )  # fmt: skip
        cells.append(f'<i class="{state}" title="{safe(label)}: {state}"></i>')
    done, failed, total = len(view.finished_items), len(view.failed_items), len(labels)
    busy = len(under_way - view.finished_items - view.failed_items)
    counts = (("done", done, "green"), ("failed", failed, "red"), ("running", busy, "blue"))
    legend = " &nbsp; ".join(f"{_dot(f'var(--{colour})')}{format_count(n)} {state}" for state, n, colour in counts)
    waiting = max(0, total - done - failed - busy)
    legend += f" &nbsp; {_dot('var(--bar)')}{format_count(waiting)} waiting"
    more = f" · the first {MOST_CELLS} are drawn" if total > MOST_CELLS else ""
    title = "Symbols" if view.last.kind == "process" else "Items"
    head = f'<h2>{title} <span class="legend">{legend} &nbsp; of {format_count(total)}{more}</span></h2>'
    bar = "".join(
        f'<span style="width:{100 * n / max(1, total):.2f}%;background:var(--{colour})"></span>'
        for _, n, colour in counts
    )
    return f'{head}<div class="bar">{bar}</div><div class="cells">{"".join(cells)}</div>'


def failures(view: RunView | None) -> str:
    """Kinds, and the latest in a line each."""
    if view is None or not view.last.kinds:
        return f"<h2>Failures</h2>{_nothing('None.')}"
    kinds = sorted(view.last.kinds.items(), key=lambda pair: -pair[1])
    pills = " ".join(
        f'<span class="pill failed">{safe(kind)} {format_count(count)}</span>' for kind, count in kinds[:6]
    )
    rows = "".join(
        f'<tr><td class="left mono">{in_line(failed.item, 60, view=view)}</td>'
        f'<td class="left mono red" title="{safe(failed.summary)}">'
        f"{safe(failed.summary[:90])}</td></tr>"
        for failed in view.last.failures[:6]
    )
    return f'<h2>Failures</h2>{pills}<table class="fixed">{rows}</table>'


def all_failures(view: RunView) -> str:
    """The latest with their tracebacks, to unfold."""
    if not view.last.failures:
        return f"<h2>Failures</h2>{_nothing('None.')}"
    rows = "".join(
        f'<details><summary class="mono">{in_line(failed.item, view=view)} '
        f'<span class="red">{safe(failed.summary)}</span></summary>'
        f"{trace(failed.traceback)}</details>"
        for failed in view.last.failures
    )
    return f"<h2>Failures <span class='soft small'>{format_count(view.last.failed)} in all</span></h2>{rows}"


def trace(text: str) -> str:
    """A traceback."""
    return f'<pre class="mono">{safe(text)}</pre>' if text else ""


def machine(workers: Sequence[WorkerFacts], views: dict[str, RunView]) -> str:
    """A line for each worker: memory against its limit, CPU, and what it is at."""
    if not workers:
        return f"<h2>Workers</h2>{_nothing('No worker is connected.')}"
    rows = "".join(_worker(worker, views) for worker in workers[:32])
    more = f'<p class="soft small">and {len(workers) - 32} more</p>' if len(workers) > 32 else ""
    words = ""
    if any(worker.limit for worker in workers):
        words = "Private memory against the limit: orange from 70 %, red from 90 %; at 95 % the process is ended and starts anew."
    return f'<h2>Workers</h2><div class="soft small">{words}</div>{rows}{more}'


def _worker(worker: WorkerFacts, views: dict[str, RunView]) -> str:
    scale = max(worker.limit or worker.private + worker.shared, 1)
    share = min(100.0, 100 * worker.private / scale)
    colour = "var(--red)" if share > 90 else "var(--orange)" if share > 70 else "var(--green)"
    bar = _bar(share, colour)
    limit = f" of {format_bytes(worker.limit)}" if worker.limit else ", no limit"
    shared = f" · {format_bytes(worker.shared)} shared" if worker.shared else ""
    doing = " &nbsp; ".join(_doing(item, views) for item in worker.executing[:4]) or "idle"
    return (
        f'<div class="worker"><div class="sides"><span><b>{safe(worker.name[:60])}</b> &nbsp; '
        f'{format_bytes(worker.private)}{limit} private{shared}</span><span class="soft">{worker.cpu:.0f} % CPU</span></div>'
        f'{bar}<div class="small soft cut">{doing}</div></div>'
    )


def _doing(item: Executing, views: dict[str, RunView]) -> str:
    view = views.get(item.run)
    what = f"item {item.index:,}" if view is None else view.what(item.index)
    many = f" and {item.count - 1:,} more" if item.count > 1 else ""
    return f"{safe(what[:80])}{many} · for {format_seconds(item.seconds)}"


def slowest(view: RunView | None, workers: Sequence[WorkerFacts]) -> str:
    """What has been under way the longest."""
    if view is None:
        return ""
    running = [(item, worker.name) for worker in workers for item in worker.executing if item.run == view.last.run]
    running = sorted(running, key=lambda pair: -pair[0].seconds)[:5]
    if not running or view.state != "running":
        return f"<h2>Under way the longest</h2>{_nothing('Nothing is under way.')}"
    rows = "".join(
        f'<tr><td class="left">{safe(view.what(item.index)[:90])}</td><td>{format_seconds(item.seconds)}</td>'
        f"<td>{safe(name)}</td></tr>"
        for item, name in running
    )
    return f"<h2>Under way the longest</h2><table>{rows}</table>"


def all_runs(views: Sequence[RunView]) -> str:
    """Every run that the scheduler remembers, the latest first."""
    if not views:
        return f"<h2>All runs</h2>{_nothing('None yet.')}"
    rows = []
    for view in views:
        last = view.last
        share = 100 * last.done / last.total if last.total else 100.0
        colour = "var(--green)" if view.state == "finished" else "var(--blue)"
        best = f"{last.best[0][0]:.5g}" if last.best else ""
        done = format_count(last.done) + ("" if last.open_ended else f"/{format_count(last.total)}")
        rows.append(
            f'<tr><td class="left">{safe(last.name[:80])}</td><td class="left">{safe(last.kind)}</td>'
            f'<td class="left"><span class="pill {view.state.replace(" ", "-")}">{safe(view.state)}</span></td>'
            f'<td class="wide">{_bar(share, colour)}</td>'
            f"<td>{done}</td><td>{format_count(last.failed)}</td><td>{best}</td></tr>"
        )
    left = "".join(f'<th class="left">{name}</th>' for name in ("run", "kind", "state"))
    heads = f"<tr>{left}<th></th><th>done</th><th>failed</th><th>best</th></tr>"
    return f"<h2>All runs</h2><table>{heads}{''.join(rows)}</table>"


def _bar(percent: float, colour: str, style: str = "") -> str:
    return f'<div class="bar" style="{style}"><span style="width:{percent:.1f}%;background:{colour}"></span></div>'


def _nothing(words: str) -> str:
    return f'<div class="empty">{words}</div>'
