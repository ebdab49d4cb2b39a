"""The page as documents of Dask's dashboard: whole, and in parts for JupyterLab."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed.dashboard.components.scheduler import env

from admf_dask.page import words
from admf_dask.page.page import Page, open_document
from admf_dask.page.view import RunView
from admf_dask.page.words import WorkerFacts
from admf_dask.runtime.feed import PLUGIN


class SchedulerSource:
    """Runs and workers of a scheduler that has the plugin."""

    def __init__(self, scheduler: Any) -> None:
        """Looks only when asked."""
        self._scheduler = scheduler

    def runs(self) -> Mapping[str, RunView]:
        """What the plugin keeps."""
        plugin = self._scheduler.plugins.get(PLUGIN)
        return plugin.runs if plugin is not None else {}

    def workers(self) -> Sequence[WorkerFacts]:
        """From the heartbeats."""
        found = [_facts(worker) for worker in list(self._scheduler.workers.values())]
        return sorted(found, key=lambda facts: (len(facts.name), facts.name))


def _facts(worker: Any) -> WorkerFacts:
    metrics = worker.metrics
    ours = metrics.get("admf_dask") or {}
    executing = tuple(words.Executing(*item) for item in ours.get("executing", ()))
    return WorkerFacts(
        name=str(worker.name), threads=worker.nthreads, private=int(metrics.get("memory", 0)),
        shared=int(ours.get("shared", 0)), limit=int(worker.memory_limit or 0), cpu=float(metrics.get("cpu", 0.0)),
        executing=executing,
    )  # fmt: skip


def runs_document(scheduler: Any, extra: Mapping[str, Any], doc: Any) -> None:
    """The page, for Dask's dashboard."""
    page = Page(SchedulerSource(scheduler))
    doc.title = "Dask: Runs"
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    open_document(doc, page, page.root())


def plot_document(name: str) -> Callable[[Any, Mapping[str, Any], Any], None]:
    """One part of it as a document of its own."""

    def document(scheduler: Any, extra: Mapping[str, Any], doc: Any) -> None:
        page = Page(SchedulerSource(scheduler))
        doc.title = f"Dask: Run {name.title()}"
        open_document(doc, page, page.part(name))

    return document
