"""The page over a journal, served by itself: `admf-dask dashboard DIR`."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.auth_provider import AuthProvider, NullAuth
from bokeh.server.server import Server
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from admf_dask.errors import ConfigError
from admf_dask.journal import Journal
from admf_dask.journal.follow import Follow
from admf_dask.page.page import Page, open_document
from admf_dask.page.view import RunView
from admf_dask.page.words import WorkerFacts
from admf_dask.progress.digest import Digest
from admf_dask.runtime.links import from_the_proxy, origins, page_link, tunnel

TEMPLATE = """
{% block preamble %}
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<style>body { margin: 8px; }</style>{% endblock %}
{% block js_resources %}{{ super() | replace('src="/static/', 'src="static/') }}{% endblock %}
"""
"""Of the page; its scripts are beside it, not at the root of the host, which behind a proxy is another server's."""


class JournalSource:
    """The last run of a journal as a page's source: looks for what is new each time that it is asked."""

    def __init__(self, journal: Journal) -> None:
        """Raises JournalError where there is no run."""
        self._follow = Follow(journal)
        self._digest = Digest(self._follow.items)
        self._view: RunView | None = None
        self._lock = threading.Lock()

    def runs(self) -> Mapping[str, RunView]:
        """The run."""
        with self._lock:
            anything = False
            for event in self._follow.new():
                self._digest.take(event)
                anything = True
            if anything and (update := self._digest.update()) is not None:
                if self._view is None:
                    self._view = RunView.of(update)
                else:
                    self._view.take(update)
            return {} if self._view is None else {self._view.last.run: self._view}

    def workers(self) -> Sequence[WorkerFacts]:
        """A journal knows no workers."""
        return ()


def serve(folder: Path, address: str | None, ready: Callable[[str, str | None], None]) -> None:
    """Serve until interrupted; `ready` gets the link, and over ssh the tunnel for it.

    Raises JournalError, or ConfigError for an address that cannot be used.
    """
    source = JournalSource(Journal(folder))
    host, port = _address(address)

    def document(doc: Any) -> None:
        page = Page(source)
        doc.title = f"Runs: {folder.name}"
        doc.template = TEMPLATE
        open_document(doc, page, page.root())

    allowed = origins(os.environ, host, port)

    async def until_interrupted() -> None:
        server = Server(
            {"/runs": Application(FunctionHandler(document))}, io_loop=IOLoop.current(), address=host, port=port,
            allow_websocket_origin=allowed or ["*"], auth_provider=NullAuth() if allowed else _ThroughProxy(), use_index=False,
        )  # fmt: skip
        server.start()
        ready(page_link(os.environ, host, port), tunnel(os.environ, host, port))
        try:
            await asyncio.Event().wait()
        finally:
            server.stop()

    asyncio.run(until_interrupted())


class _ThroughProxy(AuthProvider):  # type: ignore[misc]
    """Refuses websockets that did not come through the proxy, where its address is not known."""

    get_user = login_url = login_handler = logout_url = logout_handler = None

    @property
    def get_user_async(self) -> Callable[[Any], Any]:
        """Called for every request, before it is answered."""

        async def check(handler: Any) -> str:
            headers = handler.request.headers
            if headers.get("Upgrade", "").lower() == "websocket" and not from_the_proxy(headers):
                raise HTTPError(403, "this page talks to its server through the proxy in front of it only")
            return "somebody"

        return check

    @property
    def get_login_url(self) -> Callable[[Any], str]:
        """Bokeh wants one; nobody is ever sent there, for everybody is somebody."""
        return lambda handler: "/runs"


def _address(address: str | None) -> tuple[str, int]:
    host, _, port = (address or "127.0.0.1:0").rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"--dashboard must be HOST:PORT, but is {address!r}; write 127.0.0.1:8788")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "127.0.0.1", int(port)))
        except OSError as error:
            raise ConfigError(
                f"the page cannot be served at {address}: {error.strerror}; choose another port"
            ) from error
        return host or "127.0.0.1", int(probe.getsockname()[1])
