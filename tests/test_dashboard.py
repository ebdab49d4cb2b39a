"""The page in a real browser, over a real scheduler."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import journal_work
import page_work as work
import pytest
from remote_cluster import remote

from admf_dask import Journal, JournalError, ParallelConfig, ParallelOptimizer, ParameterSpace, Session
from admf_dask.events import BlockFinished, RunFinished
from admf_dask.journal.follow import Follow
from admf_dask.page.style import DARK, LIGHT
from admf_dask.runtime import FailedItemsWarning

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore:2 of 234 evaluations failed"),  # in a thread, so in whichever test goes on then
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: apt-get install chromium)"),
]
SPACE = ParameterSpace(
    {"fast": range(3, 16), "slow": range(20, 110, 10), "stop": [0.01, 0.1]}, constraints=["fast < slow"]
)
ARTEFACTS = os.environ.get("ADMF_DASK_ARTEFACTS")
"""A folder for screenshots."""


class Tab:
    """A page in the browser, with what its console said."""

    def __init__(self, page: Any, link: str) -> None:
        self.page, self.errors = page, []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(link)

    def sees(self, text: str) -> None:
        """Wait until a text is there."""
        self.page.get_by_text(text, exact=False).filter(visible=True).first.wait_for(timeout=10_000)

    def choose(self, name: str, value: str) -> None:
        """Choose in the select of that title."""
        self.page.locator("select").nth(self._place(name)).select_option(value)

    @staticmethod
    def _place(name: str) -> int:
        return ["Run", "across", "up", "over the rest", "Traceback of"].index(name)

    def keep(self, name: str) -> None:
        """A screenshot, where somebody collects them."""
        if ARTEFACTS:
            self.page.screenshot(path=str(Path(ARTEFACTS) / f"{name}.png"), full_page=True)


@pytest.fixture(scope="module", autouse=True)
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Opened before the watch for what is left behind begins, with the processes that Chromium starts when first needed.

    It has a folder of its own for temporary files, which it makes and removes whenever it likes.
    """
    own = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("browser"))}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], env=own)
        first = browser.new_page()
        with contextlib.suppress(sync_api.Error):
            first.goto("http://127.0.0.1:9/")
        first.close()
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    contexts: list[Any] = []

    def open_it(link: str, *, width: int = 1280, scheme: str = "light") -> Tab:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        return Tab(contexts[-1].new_page(), link)

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def watched(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, threading.Thread]]:
    """A run that has one combination left, which waits for a file: its link, the file, the thread that drives it."""
    gate = tmp_path_factory.mktemp("gate") / "open"
    os.environ["ADMF_TEST_GATE"] = str(gate)
    with Session(mode="process", workers=2, dashboard="127.0.0.1:0") as session:

        def drive() -> None:
            ParallelOptimizer(session=session).optimize(
                SPACE, work.waits_at_the_end, score="sharpe", name="AAPL <b>crossover</b>", progress=False
            )

        thread = threading.Thread(target=drive)
        thread.start()
        assert session.dashboard_link is not None
        yield session.dashboard_link, gate, thread
        gate.touch()
        thread.join(60)
    del os.environ["ADMF_TEST_GATE"]


def test_the_page_is_in_the_navigation_and_joins_late(
    watched: tuple[str, Path, threading.Thread], open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(watched[0].replace("/runs", "/status"))
    tab.page.get_by_role("link", name="Runs", exact=True).click()
    tab.sees("AAPL <b>crossover</b>")
    tab.sees("of 234")
    tab.sees("Best sharpe")
    tab.sees("fast 8 · slow 60 · stop 0.01")
    # The one that is left is told with its parameters, and since when.
    tab.sees("fast 15 slow 100 stop 0.1")
    assert tab.page.evaluate("window.stolen") is None
    tab.keep("running-light")
    assert tab.errors == []


def test_heatmap_axes_can_be_changed(watched: tuple[str, Path, threading.Thread], open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(watched[0])
    tab.sees("Leaderboard")
    names = "Bokeh.documents[0].get_model_by_name('Heatmap')"
    assert tab.page.evaluate(f"{names}.below[0].axis_label") == "fast"
    scores = f"[...{names}.renderers[0].data_source.data.score[0]].filter(Number.isFinite)"
    # Cells that a constraint turns away have no score, nor has that of the failure.
    tab.page.wait_for_function(f"{scores}.length >= {13 * 8}", timeout=10_000)
    assert tab.page.evaluate(f"{scores}.length") < len({(params["fast"], params["slow"]) for params in SPACE})
    tab.choose("across", "stop")
    tab.page.wait_for_function(f"{names}.below[0].axis_label === 'stop'", timeout=10_000)
    tab.page.wait_for_function(f"{scores}.length === 18", timeout=10_000)
    tab.choose("over the rest", "mean")
    tab.page.wait_for_function(f"Math.max(...{scores}) < 0.95", timeout=10_000)
    assert tab.errors == []


def test_a_failed_items_traceback_can_be_read(
    watched: tuple[str, Path, threading.Thread], open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(watched[0], scheme="dark", width=1680)
    tab.sees("ValueError")
    tab.choose("Traceback of", f"#{SPACE.index_of({'fast': 5, 'slow': 40, 'stop': 0.1})} 5, 40, 0.1: ValueError")
    tab.sees("raise ValueError(f")
    tab.sees("<script>window.stolen = 1</script> bars of 5")
    assert tab.page.evaluate("window.stolen") is None
    tab.keep("running-dark")
    figure = "Bokeh.documents[0].get_model_by_name('Heatmap')"
    tab.page.wait_for_function(f"{figure}.below[0].axis_label_text_color === '#98a2b3'", timeout=10_000)
    assert tab.errors == []


def test_stock_pages_speak_of_kinds_of_runs(
    watched: tuple[str, Path, threading.Thread], open_tab: Callable[..., Tab]
) -> None:
    # The task stream has the same names, but lets go of what is older than some seconds.
    tab = open_tab(watched[0].replace("/runs", "/individual-progress"))
    told = "JSON.stringify(Bokeh.documents[0].to_json())"
    tab.page.wait_for_function(f"Bokeh.documents.length === 1 && {told}.includes('\"optimize\"')", timeout=20_000)
    tab.keep("stock-progress")
    assert tab.errors == []


def test_a_hidden_tab_is_sent_nothing_until_it_is_seen_again(
    watched: tuple[str, Path, threading.Thread], open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(watched[0])
    tab.sees("running for")
    put = "Bokeh.documents[0].roots()[0].tags[0]"
    tab.page.evaluate(f"window.came = 0; {put}.properties.data.change.connect(() => {{ window.came++ }})")
    tab.page.wait_for_function("window.came > 0", timeout=10_000)
    tab.page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true})")
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange')); window.came = 0")
    tab.page.wait_for_timeout(4_000)  # that nothing comes can only be waited for
    assert tab.page.evaluate("window.came") <= 1, "one may have been under way"
    tab.page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'visible', configurable: true})")
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange')); window.came = 0")
    tab.page.wait_for_function("window.came > 0", timeout=10_000)
    assert tab.errors == []


def test_it_follows_the_run_to_its_end_and_survives_a_reload(
    watched: tuple[str, Path, threading.Thread], open_tab: Callable[..., Tab]
) -> None:
    link, gate, thread = watched
    tab = open_tab(link)
    tab.sees("running")
    gate.touch()
    thread.join(60)
    tab.page.get_by_text("Took").first.wait_for(timeout=20_000)
    tab.sees("234")
    tab.page.reload()
    tab.sees("Took")
    tab.sees("fast 8 · slow 60 · stop 0.01")
    assert tab.errors == []


def test_jupyterlab_is_told_of_the_parts(
    watched: tuple[str, Path, threading.Thread], open_tab: Callable[..., Tab]
) -> None:
    with urllib.request.urlopen(watched[0].replace("/runs", "/individual-plots.json"), timeout=20) as answer:
        plots = json.load(answer)
    assert plots["Individual Task Stream"] == "/individual-task-stream"
    with urllib.request.urlopen(f"{watched[0]}/individual-plots.json", timeout=20) as answer:
        assert json.load(answer) == plots, "the address of the page does as well in the field of the extension"
    ours = [path for path in plots.values() if path.startswith("/individual-run-")]
    assert len(ours) == 7
    for path in ours:
        tab = open_tab(f"{watched[0]}{path}" if "history" in path else watched[0].replace("/runs", path))
        tab.page.wait_for_function("Bokeh.documents.length === 1", timeout=20_000)
        assert tab.errors == []


def test_items_with_names_are_a_cell_each(open_tab: Callable[..., Tab]) -> None:
    with Session(mode="thread", workers=2, dashboard="127.0.0.1:0") as session:
        with pytest.warns(FailedItemsWarning, match="1 of 3"):
            session.map(lambda symbol: 1 / (symbol != "IBM"), ["AAPL", "IBM", "MSFT"], progress=False, name="features")
        tab = open_tab(session.dashboard_link or "")
        tab.sees("2 done")
        tab.sees("of 3")
        assert tab.page.locator("i.done").count() == 2
        assert tab.page.locator("i.failed").get_attribute("title") == "IBM: failed"
        assert tab.errors == []


# -- other schedulers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [[], ["--preload", "admf_dask.dashboard"]], ids=["registered", "preloaded"])
def test_a_scheduler_that_already_runs_gets_the_page(
    pages: list[str], tmp_path: Path, open_tab: Callable[..., Tab]
) -> None:
    with remote(tmp_path, workers=1, pages=pages) as cluster:
        config = ParallelConfig(scheduler=cluster.address)
        with Session(config) as first, Session(config) as second:
            first.map(abs, range(50), progress=False, name="first run")
            second.map(abs, range(70), progress=False, name="second run")
            assert first.dashboard_link == f"http://127.0.0.1:{cluster.page_port}/runs"
            tab = open_tab(first.dashboard_link)
            tab.sees("first run")
            tab.sees("second run")
            assert tab.errors == []
        tab.page.reload()
        tab.sees("70/70")
        assert tab.errors == []


def test_a_journal_is_shown_afterwards(tmp_path: Path, open_tab: Callable[..., Tab]) -> None:
    with Session(mode="thread", workers=2, dashboard=None) as session, pytest.warns(FailedItemsWarning):
        ParallelOptimizer(session=session).optimize(
            SPACE, work.score, score="sharpe", name="last night", journal=tmp_path / "journal", progress=False
        )
    with serving(tmp_path) as (link, served):
        tab = open_tab(link)
        tab.sees("last night")
        tab.sees("fast 8 · slow 60 · stop 0.01")
        tab.sees("No worker is connected.")
        assert tab.errors == []
        served.send_signal(signal.SIGINT)
        assert served.wait(20) == 0


def test_a_journal_is_followed_until_its_driver_is_killed(tmp_path: Path, open_tab: Callable[..., Tab]) -> None:
    script = [sys.executable, "-W", "ignore", journal_work.__file__, str(tmp_path / "journal")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ADMF_DASK_TEST_MODE": "thread"}
    environment["TMPDIR"] = str(tmp_path)  # what a killed driver leaves is swept by the next one
    driver = subprocess.Popen(script, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not has_blocks(tmp_path / "journal"):
            threading.Event().wait(0.02)
            assert driver.poll() is None
        driver.send_signal(signal.SIGSTOP)  # it would be done before the browser is there
        with serving(tmp_path) as (link, _):
            tab = open_tab(link)
            tab.sees("running")
            driver.kill()
            driver.wait(20)
            tab.sees("killed")
            tab.sees("Took")
            assert tab.errors == []
        started, *_, last, ended = Follow(Journal(tmp_path / "journal")).new()
        assert isinstance(last, BlockFinished)
        assert isinstance(ended, RunFinished)
        assert ended.at == last.at > started.at, "what it took is told by its last block"
    finally:
        driver.kill()
        driver.wait(20)


def has_blocks(folder: Path) -> bool:
    try:
        return Journal(folder).status().done > 0
    except JournalError:
        return False


def test_the_link_that_is_printed_works_behind_jupyters_proxy(
    tmp_path: Path, open_tab: Callable[..., Tab], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jupyter_server_proxy")
    with jupyter(tmp_path, "/user/me/") as address:
        monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
        with Session(mode="thread", workers=2, dashboard="127.0.0.1:0") as session:
            tab = open_tab(f"{address}{session.dashboard_link}")
            assert "/user/me/proxy/" in tab.page.url
            tab.sees("Nothing has run on this scheduler yet.")
            session.map(abs, [-1, -2], progress=False, name="seen through the proxy")
            tab.sees("seen through the proxy")
            assert tab.errors == []


@contextlib.contextmanager
def jupyter(folder: Path, base: str) -> Iterator[str]:
    """A Jupyter server with its proxy, as a hub starts one for each user; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", f"--port={port}"]
    command += [f"--ServerApp.base_url={base}", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    folders = {name: str(folder) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    environment = {**os.environ, **folders}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            assert any("is running at" in line for line in server.stderr), "the server ended"
            drained = threading.Thread(target=server.stderr.read)
            drained.start()
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                # Asked to end, it would wait for the page that is still open.
                server.kill()
                drained.join()
        finally:
            server.kill()


def test_behind_a_hub_that_hides_its_address_only_what_came_through_its_proxy_may_talk(tmp_path: Path) -> None:
    small = ParameterSpace({"fast": [3, 4], "slow": [50, 60]})
    with Session(ParallelConfig(enabled=False)) as session:
        optimizer = ParallelOptimizer(session=session)
        optimizer.optimize(small, work.score, score="sharpe", journal=tmp_path / "journal", progress=False)
    with serving(tmp_path, JUPYTERHUB_SERVICE_PREFIX="/user/me/") as (link, _):
        port = link.removeprefix("/user/me/proxy/").removesuffix("/runs")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/runs", timeout=20) as page:
            assert b'src="static/js/bokeh' in page.read(), "where its scripts are is the proxy's to say"
        assert answer_to_a_websocket(port, {"X-Forwarded-For": "10.0.0.9"}, origin="hub.org") == 101
        assert answer_to_a_websocket(port, {}, origin="hub.org") == 403
        assert answer_to_a_websocket(port, {"X-Forwarded-For": "10.0.0.9"}, origin="evil.org") == 403


def answer_to_a_websocket(port: str, more: dict[str, str], origin: str) -> int:
    """The status with which a server of pages answers to the start of one."""
    headers = {
        "Host": "hub.org", "Origin": f"https://{origin}", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "bokeh, token",
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    try:
        connection.request("GET", "/runs/ws", headers=headers | more)
        return connection.getresponse().status
    finally:
        connection.close()


@contextlib.contextmanager
def serving(folder: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`admf-dask dashboard` over a folder: its link and process."""
    command = [sys.executable, "-m", "admf_dask", "dashboard", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as served:
        try:
            assert served.stdout is not None
            yield served.stdout.readline().split()[0], served
        finally:
            served.kill()


def test_a_report_draws_without_a_network(tmp_path: Path, open_tab: Callable[..., Tab]) -> None:
    with Session(mode="thread", workers=2, dashboard=None) as session, pytest.warns(FailedItemsWarning):
        result = ParallelOptimizer(session=session).optimize(SPACE, work.score, score="sharpe", progress=False)
    tab = open_tab(result.report(tmp_path / "run.html").as_uri())
    tab.sees("Optimisation of Sharpe")
    assert tab.page.locator("canvas").count() >= 4
    tab.page.get_by_text("ValueError").first.click()
    tab.sees("raise ValueError(f")
    lines = """() => [...new Set([...Bokeh.documents[0]._all_models.values()]
        .filter((model) => model.type === "Grid").map((model) => model.grid_line_color).filter((colour) => colour))]"""
    assert tab.page.evaluate(lines) == [LIGHT.line]
    tab.page.emulate_media(color_scheme="dark")
    tab.page.wait_for_function(f"JSON.stringify(({lines})()) === '[\"{DARK.line}\"]'", timeout=10_000)
    tab.keep("report-dark")
    assert tab.errors == []
