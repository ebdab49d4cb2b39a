"""The page among Dask's own: `/runs`, its place in the navigation, and plots for JupyterLab's Dask extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import distributed.http
from bokeh.server.tornado import BokehTornado
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from distributed.http.utils import RequestHandler
from tornado.ioloop import IOLoop

from admf_dask.dashboard.documents import plot_document, runs_document
from admf_dask.page.page import PLOTS
from admf_dask.runtime.links import PAGE


def attach(scheduler: Any) -> None:
    """Add the applications. Raises what Dask raises if its inside has another shape than it had."""
    variables = template_variables(scheduler)
    if PAGE not in variables["pages"]:
        # The same list is in every stock page's navigation.
        variables["pages"].insert(1, PAGE)
    names = {f"individual-run-{name}": f"Run {name.title()}" for name in PLOTS}
    known = {plot["url"] for plot in variables["plots"]}
    variables["plots"] += [{"url": url, "name": title} for url, title in names.items() if url not in known]
    documents: dict[str, Any] = {f"/{PAGE}": runs_document}
    documents |= {f"/individual-run-{name}": plot_document(name) for name in PLOTS}
    application = BokehApplication(documents, scheduler, prefix="/", template_variables=variables)
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    # Without this nobody looks for tabs that were closed, and their documents are drawn for ever.
    application.start()
    _tell_jupyterlab(scheduler)


def _tell_jupyterlab(scheduler: Any) -> None:
    """Answer for the list of plots that the extension asks for: the stock list is that of the first application only."""
    folder = Path(distributed.http.__file__).parent / "static"
    still = {f"/statics/{file.name}": file.stem for file in folder.glob("individual-*.html")}

    class Plots(RequestHandler):  # type: ignore[misc]
        def get(self) -> None:
            served = [app for app in scheduler.http_application.applications if isinstance(app, BokehTornado)]
            live = {path: path.strip("/") for app in served for path in sorted(app.app_paths) if "individual-" in path}
            self.write({name.replace("-", " ").title(): path for path, name in {**live, **still}.items()})

    class Above(RequestHandler):  # type: ignore[misc]
        def get(self, name: str) -> None:
            self.redirect(f"../{name}")

    server = {"dask_server": scheduler}
    # The address of our page is what a user has at hand, so it does as well as the dashboard's in the field of the extension.
    routes = [
        (r"/individual-plots.json", Plots, server),
        (rf"/{PAGE}/(individual-[a-z-]+(?:\.json|\.html)?)", Above, server),
    ]
    scheduler.http_application.add_handlers(".*", routes)
