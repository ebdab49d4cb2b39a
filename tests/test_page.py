"""What the page knows, without a browser: digest of events, view of a run, words, links, report."""

from __future__ import annotations

import math
import pickle
import socket
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from bokeh.server.util import check_allowlist

from admf_dask import (
    Layout,
    OptimizationResult,
    ParallelConfig,
    ParallelDataProcessor,
    ParallelOptimizer,
    ParameterSpace,
    Session,
    run_parallel_backtests,
)
from admf_dask.dashboard.plugin import MOST_RUNS, WHOLE_RUNS, RunsPlugin
from admf_dask.events import BlockFinished, BlockRecalled, Event, Notice, RunFinished, RunStarted
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.page import view as view_module
from admf_dask.page import words
from admf_dask.page.pace import FASTEST, PATIENCE, SHARE_BUSY, SHARE_FREE, SLOWEST, UNSEEN, Pace
from admf_dask.page.page import Page
from admf_dask.page.view import RunView, Side
from admf_dask.page.words import Executing, WorkerFacts
from admf_dask.progress.digest import TOP, Digest, Update, in_words
from admf_dask.rich import FONT, GREY
from admf_dask.runtime import FailedItemsWarning
from admf_dask.runtime.cluster import free_address
from admf_dask.runtime.links import from_the_proxy, origins, page_link, reached, tunnel
from admf_dask.space import Combinations

SPACE = ParameterSpace({"fast": range(10), "slow": range(0, 100, 10), "kind": ["a", "b"]}, constraints=["fast < slow"])


def started(total: int = 200, score: str | None = "sharpe", recalled: int = 0) -> RunStarted:
    return RunStarted("f" * 32, "optimize", "sma", total, 2, score, True, 100.0, recalled)


def block(indices: list[int], scores: list[float], failures: tuple[FailedItem, ...] = (), rejected: int = 0) -> Block:
    n = len(indices)
    return Block(
        start=0, stop=n + len(failures) + rejected, indices=np.array(indices, np.int64),
        columns={"sharpe": np.array(scores), "trades": np.ones(n)}, payload=None, seconds=np.ones(n, np.float32),
        failures=failures, evaluated=n + len(failures), rejected=rejected, busy=1.0, worker="w", failed=len(failures),
    )  # fmt: skip


def failure(index: int, text: str = "no <bars>") -> FailedItem:
    return FailedItem(index, 0.1, Failure("error", "ValueError", text, f"Traceback\nValueError: {text}"))


def whole(events: Sequence[object], items: object = SPACE) -> Update:
    digest = Digest(items)  # type: ignore[arg-type]
    for event in events:
        digest.take(event)  # type: ignore[arg-type]
    update = digest.update()
    assert update is not None
    return update


def test_an_update_holds_what_is_new_and_how_it_stands() -> None:
    digest = Digest(SPACE)
    assert digest.update() is None
    digest.take(started())
    digest.take(BlockFinished("f" * 32, block([3, 5], [0.5, 2.5], (failure(7),), rejected=2), 101.0))
    first = digest.update()
    digest.take(BlockFinished("f" * 32, block([9], [1.5]), 102.0))
    digest.take(Notice("f" * 32, "memory is short", 102.5))
    digest.take(RunFinished("f" * 32, "finished", 103.0))
    second = digest.update()
    assert first is not None
    assert second is not None
    assert (first.done, first.evaluated, first.failed, first.rejected) == (5, 3, 1, 2)
    assert first.axes is not None
    assert second.axes is None
    assert second.indices.tolist() == [9]
    assert [(score, index) for score, index, _ in second.best] == [(2.5, 5), (1.5, 9), (0.5, 3)]
    assert second.best[0][2] == {"fast": "0", "slow": "20", "kind": "'b'"} | {"kind": in_words(SPACE[5])["kind"]}
    assert second.failures[0].summary == "ValueError: no <bars>"
    assert (second.state, second.notices) == ("finished", ((102.5, "memory is short"),))
    assert pickle.loads(second.pack()).done == 6


def test_recalled_items_count_once() -> None:
    update = whole([started(recalled=4), BlockRecalled("f" * 32, block([0, 1, 2, 3], [0.0] * 4), 100.1)])
    assert (update.done, update.evaluated, update.recalled) == (4, 4, 4)


@pytest.mark.parametrize("maximize", [True, False])
def test_the_board_is_that_of_a_full_sort(maximize: bool) -> None:
    random = np.random.default_rng(1)
    scores = random.integers(0, 40, 200).astype(float)  # many ties
    scores[::17] = np.nan
    digest = Digest(SPACE)
    digest.take(RunStarted("f" * 32, "optimize", "x", 200, 2, "sharpe", maximize, 0.0))
    for low in range(0, 200, 23):
        indices = list(range(low, min(200, low + 23)))
        digest.take(BlockFinished("f" * 32, block(indices, scores[indices].tolist()), 1.0))
    update = digest.update()
    assert update is not None
    sign = -1 if maximize else 1
    kept = [place for place in range(200) if not np.isnan(scores[place])]
    expected = sorted(kept, key=lambda place: (sign * scores[place], place))[:TOP]
    assert [scores[index] for _, index, _ in update.best] == [scores[place] for place in expected]
    assert [score for score, _, _ in update.best] == [scores[place] for place in expected]


def test_constraints_that_only_the_user_has_do_not_travel() -> None:
    space = SPACE.with_constraints(lambda params: params["fast"] > 2)
    axes = whole([started()], space).axes
    assert axes is not None
    assert pickle.loads(axes).size == 200


def scores_of(indices: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return np.sin(indices.astype(float))


def test_the_heatmap_is_that_of_a_group_by() -> None:
    indices = np.array([i for i in range(200) if SPACE[i]["fast"] < SPACE[i]["slow"]])
    view = RunView.of(whole([started()]))
    for part in np.array_split(indices, 7):
        view.take(whole([started(), BlockFinished("f" * 32, block(part.tolist(), scores_of(part).tolist()), 101.0)]))
        view.surface("fast", "slow", "best")
    import pandas as pd

    table = pd.DataFrame([SPACE[i] for i in indices]).assign(score=scores_of(indices))
    for how, aggregate in (("best", "max"), ("worst", "min"), ("mean", "mean")):
        wide = table.pivot_table(index="slow", columns="fast", values="score", aggfunc=aggregate)
        wide = wide.reindex(index=range(0, 100, 10), columns=range(10))
        np.testing.assert_allclose(view.surface("fast", "slow", how).values, wide.to_numpy())
    best = view.surface("kind", "fast", "best").best
    at = int(indices[np.argmax(scores_of(indices))])
    assert best == (SPACE[at]["fast"], ["a", "b"].index(SPACE[at]["kind"]))


def test_a_heatmap_takes_numbers_of_any_size() -> None:
    space = ParameterSpace({"key": [10**400, 3, 2**63], "stop": [1, 2]})
    finished = BlockFinished("f" * 32, block(list(range(6)), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 101.0)
    surface = RunView.of(whole([started(6), finished], space)).surface("key", "stop", "best")
    np.testing.assert_array_equal(surface.values, [[3.0, 5.0, 1.0], [4.0, 6.0, 2.0]])


def test_a_heatmap_takes_lists_and_leaves_out_what_is_no_number() -> None:
    items = [{"weights": [a, 1], "stop": stop} for a in (0, 1) for stop in (math.nan, 2.0, 1.0)]
    finished = BlockFinished("f" * 32, block([0, 1, 2, 4], [9.0, 1.0, 2.0, 3.0]), 101.0)
    for given in (items, Combinations(items), Combinations([*items, {"weights": [2, 2]}])):
        surface = RunView.of(whole([started(6), finished], given)).surface("stop", "weights", "best")
        assert surface.x.labels == ["1", "2"]
        np.testing.assert_array_equal(surface.values[:2], [[2.0, 1.0], [np.nan, 3.0]])


def test_the_best_cell_of_a_minimised_run_is_the_lowest() -> None:
    # Items 0, 3 and 5 are (fast 0) of kinds a, b and b.
    finished = BlockFinished("f" * 32, block([0, 3, 5], [2.0, -1.0, 4.0]), 101.0)
    surface = RunView.of(whole([replace(started(), maximize=False), finished])).surface("fast", "kind", "best")
    assert (surface.values[0, 0], surface.values[1, 0]) == (2.0, -1.0)
    assert surface.best == (1, 0)


def test_a_long_axis_shares_cells_in_order() -> None:
    side = Side.of("x", list(np.geomspace(1, 1000, 500)))
    codes = side.codes(np.geomspace(1, 1000, 500))
    assert len(side.first) == 64
    assert codes.min() == 0
    assert codes.max() == 63
    assert (np.diff(codes) >= 0).all()
    assert np.bincount(codes).min() >= 7


def test_a_million_rows_stay_within_bounds_and_keep_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MOST_ROWS", 1000)
    view = RunView.of(whole([started(10**6)]))
    everything = np.random.default_rng(0).normal(size=50_000)
    for low in range(0, 50_000, 500):
        part = everything[low : low + 500]
        digest = Digest(range(10**6))
        digest.take(started(10**6))
        digest.take(BlockFinished("f" * 32, block(list(range(low, low + 500)), part.tolist()), 101.0))
        update = digest.update()
        assert update is not None
        view.take(update)
    assert view.size <= 1000
    assert view.stride == 64
    np.testing.assert_array_equal(view.scores[: view.size], everything[view.indices[: view.size]])
    assert (np.diff(view.indices[: view.size]) == view.stride).all()
    assert view.improvements[-1][1] == everything.max()
    assert view.points(100)[0].max() <= 50_000


def test_the_best_of_several_blocks_stand_in_one_update() -> None:
    everything = np.random.default_rng(1).permutation(3_000).astype(float)
    everything[::7] = np.nan
    digest = Digest(range(3_000))
    digest.take(started(3_000))
    for low in range(0, 3_000, 250):
        digest.take(
            BlockFinished("f" * 32, block(list(range(low, low + 250)), everything[low : low + 250].tolist()), 101.0)
        )
        if low in (750, 2_750):
            update = digest.update()
            assert update is not None
            known = everything[: low + 250]
            order = np.argsort(np.where(np.isnan(known), np.inf, -known))[:20]
            assert [(score, index) for score, index, _ in update.best] == [(known[at], at) for at in order]


def test_rate_and_time_left_come_from_the_recent_past() -> None:
    view = RunView.of(whole([started(1000)]))
    digest = Digest(SPACE)
    digest.take(started(1000))
    for second in range(1, 41):
        digest.take(BlockFinished("f" * 32, block([second], [0.0]), 100.0 + second))
        for _ in range(9):
            digest._counts["done"] += 1
        update = digest.update()
        assert update is not None
        view.take(update)
    assert view.rate(140.0) == pytest.approx(10.0, rel=0.05)
    found = view.time_left(140.0)
    assert found is not None
    low, likely, high = found
    assert low <= likely <= high
    assert likely == pytest.approx(60.0, rel=0.1)
    assert view.state == "running"
    view.lost = True
    assert view.state == "driver gone"


def test_whatever_a_user_writes_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    space = ParameterSpace({evil: [1, 2], "y": [evil, "b"]})
    events = [
        RunStarted("f" * 32, "optimize", evil, 4, 2, evil, True, 100.0),
        Notice("f" * 32, evil, 100.5),
        BlockFinished("f" * 32, Block(
            start=0, stop=4, indices=np.array([0]), columns={evil: np.array([1.0])}, payload=None,
            seconds=np.ones(1, np.float32), failures=(failure(1, evil),), evaluated=2, rejected=0, busy=1.0, worker=evil,
            failed=1,
        ), 101.0),
    ]  # fmt: skip
    view = RunView.of(whole(events, space))  # type: ignore[arg-type]
    workers = [WorkerFacts(evil, 1, 10, 10, 100, 5.0, (Executing("f" * 32, 1, 1, 2.0),))]
    shown = [
        words.header(view, workers), words.tiles(view, 102.0), words.leaderboard(view), words.failures(view),
        words.machine(workers, {"f" * 32: view}), words.slowest(view, workers), words.all_runs([view]),
        words.all_failures(view), words.trace(evil),
    ]  # fmt: skip
    named = RunView.of(whole([started(2)], [evil, "b"]))
    for text in [*shown, words.symbols(named, [])]:
        assert "<script" not in text
        assert "&lt;script" in text


# -- where it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "http://127.0.0.1:8787/runs"),
        ({"VSCODE_PROXY_URI": "https://x.dev/proxy/{{port}}/"}, "https://x.dev/proxy/8787/runs"),
        ({"JUPYTERHUB_SERVICE_PREFIX": "/user/me/"}, "/user/me/proxy/8787/runs"),
        (
            {"JUPYTERHUB_SERVICE_PREFIX": "/user/me/", "JUPYTERHUB_HOST": "https://hub.org"},
            "https://hub.org/user/me/proxy/8787/runs",
        ),
    ],
)
def test_the_link_works_where_the_user_sits(environment: dict[str, str], expected: str) -> None:
    assert page_link(environment, "127.0.0.1", 8787) == expected


def test_the_link_of_a_scheduler_that_is_the_users_own_works_there_too() -> None:
    hub = {"JUPYTERHUB_SERVICE_PREFIX": "/user/me/"}
    assert reached(hub, "http://127.0.0.1:8787/status") == "/user/me/proxy/8787/status"
    assert reached({}, "http://127.0.0.1:8787/status") == "http://127.0.0.1:8787/status"
    for other in ("http://10.0.0.7:8787/status", "/user/me/proxy/8787/status", "https://cluster.org/status"):
        assert reached(hub, other) == other


def test_a_page_talks_to_its_server_from_its_own_address_and_the_proxys_only() -> None:
    assert origins({}, "127.0.0.1", 8788) == ["127.0.0.1:8788", "localhost:8788"]
    code = {"VSCODE_PROXY_URI": "https://x.dev/proxy/{{port}}/"}
    hub = {"JUPYTERHUB_SERVICE_PREFIX": "/user/me/", "JUPYTERHUB_HOST": "http://hub.org:8000"}
    for environment, good, bad in (
        (code, "https://x.dev", "http://x.dev:8080"),
        (hub, "http://hub.org:8000", "http://hub.org"),
    ):
        allowed = origins(environment, "127.0.0.1", 8788)
        assert allowed is not None
        assert check_allowlist(urlsplit(good).netloc, allowed)
        assert not check_allowlist(urlsplit(bad).netloc, allowed)
    assert origins({"JUPYTERHUB_SERVICE_PREFIX": "/user/me/"}, "127.0.0.1", 8788) is None
    assert origins({}, "10.0.0.7", 80) == ["10.0.0.7:80"]


def test_behind_a_hub_that_hides_its_address_a_request_shows_that_it_came_through() -> None:
    good = {"Origin": "https://hub.org", "Host": "hub.org", "X-Forwarded-For": "10.0.0.9"}
    assert from_the_proxy(good)
    assert from_the_proxy({**good, "Origin": "https://HUB.org"})
    assert not from_the_proxy({**good, "Origin": "https://evil.org"}), "with the user's cookie, from a page elsewhere"
    assert not from_the_proxy({"Origin": "http://evil.org:1", "Host": "evil.org:1"}), "a name that leads to loopback"
    assert not from_the_proxy({**good, "Origin": "null"})
    assert not from_the_proxy({"X-Forwarded-For": "10.0.0.9"})


def test_where_a_port_is_taken_the_next_free_one_is_used_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = free_address(f"127.0.0.1:{port}")
        assert free_address(f"127.0.0.1:{port}") == found
    assert port < int(found.rpartition(":")[2]) <= port + 100
    assert caplog.messages == [
        f"port {port} of 127.0.0.1 is taken; the dashboard is on port {found.rpartition(':')[2]}"
    ]
    assert free_address("127.0.0.1:0") == free_address(None) == "127.0.0.1:0"


def test_over_ssh_the_tunnel_is_a_line_to_type() -> None:
    ssh = {"SSH_CONNECTION": "10.0.0.9 5555 10.0.0.7 22", "USER": "me"}
    assert tunnel(ssh, "127.0.0.1", 8787) == "ssh -N -L 8787:127.0.0.1:8787 me@10.0.0.7"
    assert tunnel({**ssh, "SSH_CONNECTION": "1 2 h 2222"}, "127.0.0.1", 1) == "ssh -p 2222 -N -L 1:127.0.0.1:1 me@h"
    assert tunnel({}, "127.0.0.1", 8787) is None
    assert tunnel({**ssh, "VSCODE_PROXY_URI": "x"}, "127.0.0.1", 8787) is None
    assert tunnel(ssh, "0.0.0.0", 8787) is None


# -- reports and reprs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> OptimizationResult:
    def objective(params: dict[str, object]) -> float:
        if params["fast"] == 3 and params["slow"] == 50:
            raise ValueError("thin <market>")
        return float(str(params["slow"])) - float(str(params["fast"]))

    with Session(ParallelConfig(enabled=False)) as session, pytest.warns(UserWarning, match="failed"):
        return ParallelOptimizer(session=session).optimize(SPACE, objective, progress=False)


def test_a_report_is_one_file_that_needs_no_network(result: OptimizationResult, tmp_path: Path) -> None:
    text = result.report(tmp_path / "of today" / "sweeps" / "run.html").read_text()
    assert "Optimisation of Score" in text
    assert "thin &amp;lt;market&amp;gt;" in text or "thin &lt;market&gt;" in text
    assert "cdn.bokeh.org" not in text
    assert "<script src=" not in text


def test_a_notebook_shows_outcomes_as_a_table(inline_session: Session) -> None:
    good = inline_session.map(str.upper, ["<a>", "b"], progress=False, name="up")
    assert "&lt;A&gt;" in good._repr_html_()
    with pytest.warns(UserWarning, match="failed"):
        mixed = inline_session.map(lambda x: 1 // x, [0, 1], progress=False)
    assert "ZeroDivisionError" in mixed._repr_html_()


# -- how often ---------------------------------------------------------------------------------------------------------


def test_looking_costs_no_more_than_its_share_however_dear_a_drawing_is() -> None:
    for cost in (0.001, 0.02, 0.1):
        for busy, share in ((2, 2 * SHARE_BUSY), (8, 8 * SHARE_BUSY), (0, SHARE_FREE)):
            pace, now, spent = Pace(), 0.0, 0.0
            for step in range(6000):
                now = step * FASTEST
                if pace.due(now, busy=busy, moving=True):
                    pace.made(cost, now, sent=True)
                    pace.drawn(cost)
                    spent += 2 * UNSEEN * cost
            assert spent / now <= max(share, 2 * UNSEEN * cost / SLOWEST) * 1.02
            assert spent > 0


def test_a_browser_that_has_not_drawn_is_waited_for_and_a_hidden_one_is_left_alone() -> None:
    pace = Pace()
    assert pace.due(0.0, busy=0, moving=True)
    pace.made(0.001, 0.0, sent=True)
    assert not pace.due(5.0, busy=0, moving=True), "it is still drawing"
    assert pace.due(PATIENCE, busy=0, moving=True), "it may be gone"
    pace.drawn(0.001)
    assert pace.due(5.0, busy=0, moving=True)
    pace.hidden = True
    assert not pace.due(1e9, busy=0, moving=True)
    assert pace.interval(busy=0, moving=False) >= 2 * FASTEST


class Runs:
    """A page's source that holds what a test puts there."""

    def __init__(self) -> None:
        self.views: dict[str, RunView] = {}

    def runs(self) -> dict[str, RunView]:
        return self.views

    def workers(self) -> tuple[WorkerFacts, ...]:
        return ()


def began(seconds_ago: float, run: str, state: str = "running") -> RunView:
    start = time.time() - seconds_ago
    events: list[Event] = [RunStarted(run, "optimize", run, 10, 2, "sharpe", True, start)]
    events += [RunFinished(run, state, start + 0.5)] if state != "running" else []
    return RunView.of(whole(events))


def test_a_run_is_drawn_when_it_is_over_or_a_second_old() -> None:
    source = Runs()
    page = Page(source)
    page.text("tiles")
    page.again()
    assert "Nothing has run" in page._said["tiles"]

    def shown() -> str:
        page.pace = Pace()
        page.again()
        return page._said["header"] if "Nothing has run" not in page._said["tiles"] else ""

    page.text("header")
    source.views["young"] = began(0.0, "young")
    assert shown() == "", "it may be over in a moment"
    source.views["young"] = began(0.6, "young", "finished")
    assert "young" in shown()
    source.views["next"] = began(0.0, "next")
    assert "young" in shown(), "the one that has just begun is not looked at yet"
    source.views["next"] = began(1.5, "next")
    assert "next" in shown()
    page.chooser.value = "young"
    assert "young" in shown()


def test_words_are_put_in_place_only_once_a_browser_has_the_page() -> None:
    source = Runs()
    page = Page(source)
    page.follow(page.root())
    page.update()
    source.views["first"] = began(2.0, "first")
    page.update()
    assert "first" in page.text("header").text, "a browser that has not got the page yet gets this with it"
    page.up.data = {"drawn": [-1], "hidden": [False]}
    source.views["second"] = began(1.5, "second")
    page.update()
    assert "second" not in page.text("header").text
    told = dict(zip(page.down.data["name"], page.down.data["html"], strict=True))
    assert "second" in told["header"]


def test_scores_that_differ_by_less_than_they_are_told_with_look_alike() -> None:
    assert words._distinct([-0.1, -0.1 - 1e-15, -0.3]) == ["-0.1000", "-0.1000", "-0.3000"]
    assert words._distinct([0.12345, 0.12346]) == ["0.12345", "0.12346"]


def test_a_scheduler_keeps_few_rows_of_old_runs_and_forgets_the_oldest() -> None:
    plugin = RunsPlugin()
    rows = 2 * view_module.ROWS_OF_OLD + 5
    for number in range(MOST_RUNS + 8):
        begun = RunStarted(f"{number:032d}", "optimize", "x", rows, 2, "sharpe", True, 0.0)
        plugin.receive(whole([begun]))
        if number > MOST_RUNS - 3:
            plugin.runs[begun.run]._keep(np.arange(rows), np.ones(rows))
        plugin.receive(whole([begun, RunFinished(begun.run, "finished", 1.0)]))
    kept = list(plugin.runs.values())
    told = block(list(range(5)), [1.0] * 5)
    kept[-1].take(whole([started(), BlockFinished("f" * 32, told, 101.0)]))
    assert kept[-1].last.scores.size == kept[-1].last.indices.size == 0, "rows are kept once"
    assert kept[-1].size == rows + 5
    assert len(kept) == MOST_RUNS
    assert [view.size for view in kept[-WHOLE_RUNS - 1 : -1]] == [rows] * WHOLE_RUNS
    assert max(len(view.scores) for view in kept[: -WHOLE_RUNS - 1]) <= view_module.ROWS_OF_OLD
    assert kept[-WHOLE_RUNS - 2].size > view_module.ROWS_OF_OLD // 3


def test_scores_that_rise_at_every_row_cost_no_more_than_others() -> None:
    view = RunView.of(whole([started(10**5)]))
    rising = block(list(range(50_000)), [float(row) for row in range(50_000)])
    view.take(whole([started(10**5), BlockFinished("f" * 32, rising, 101.0)], range(10**5)))
    assert len(view.improvements) <= 2 * view_module.MOST_RISES
    assert view.improvements[-1] == (50_000, 49_999.0)
    assert view.improvements == sorted(view.improvements)


# -- rich reprs and reports of the other results -----------------------------------------------------------------------

EVIL = "<script>x</script>"


def prices() -> pd.DataFrame:
    close = 100 + np.cumsum(np.random.default_rng(3).normal(size=300))
    index = pd.date_range("2020-01-01", periods=300, freq="D")
    return pd.DataFrame({"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 1.0}, index)


def configs() -> list[dict[str, Any]]:
    good = [{"class": "sma_crossover", "parameters": {"fast": fast, "slow": 30}} for fast in (3, 5, 8)]
    return [*good, {"class": "sma_crossover", "parameters": {"fast": 50, "slow": EVIL}}]


def refuse(frame: pd.DataFrame) -> pd.DataFrame:
    if frame["close"].iloc[0] < 0:
        raise ValueError(EVIL)
    return frame.tail(1)


@pytest.fixture(scope="module")
def others() -> dict[str, Any]:
    """One of each result, with a failure in each."""
    with Session(ParallelConfig(enabled=False)) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", FailedItemsWarning)
        books = run_parallel_backtests(configs(), {EVIL: prices()}, session=session, progress=False)
        symbols = ParallelDataProcessor(session=session).process_symbols(
            ["AAPL", EVIL], refuse, data={"AAPL": prices(), EVIL: -prices()}, progress=False
        )
        outcomes = session.map(lambda x: 1 // x, [0, 1, 2], progress=False, name=EVIL)
    return {"backtests": books, "symbols": symbols, "outcomes": outcomes}


@pytest.mark.parametrize("name", ["backtests", "symbols", "outcomes"])
def test_every_result_has_a_report_that_needs_no_network(others: dict[str, Any], name: str, tmp_path: Path) -> None:
    path = others[name].report(tmp_path / "of today" / "run.html")
    text = path.read_text()
    assert "cdn.bokeh.org" not in text
    assert "<script src=" not in text
    assert EVIL not in text
    assert {"backtests": "Equity of the best 3", "symbols": "1 done", "outcomes": "2 done"}[name] in text
    assert {"backtests": "Leaderboard", "symbols": "ValueError", "outcomes": "ZeroDivisionError"}[name] in text


def test_rich_reprs_look_alike_and_escape(
    others: dict[str, Any], result: OptimizationResult, inline_session: Session
) -> None:
    layout = Layout("process", 2, 1, 2**30)
    shown = [*others.values(), others["backtests"][0], result, layout, inline_session]
    for thing in shown:
        text = thing._repr_html_()
        assert text.startswith('<div style="display:inline-block')
        assert f"<b>{type(thing).__name__}</b>" in text
        assert "<script" not in text
    assert "&lt;script&gt;" in others["outcomes"]._repr_html_()
    assert "3 ok, 1 failed" in others["backtests"]._repr_html_()
    assert "sharpe_ratio" in others["backtests"]._repr_html_()
    assert "and 1 more" not in others["backtests"]._repr_html_()
    assert f"and {len(result.indices) - 10:,} more" in result._repr_html_()


def test_plots_are_of_one_style(others: dict[str, Any], result: OptimizationResult) -> None:
    for plot in (others["backtests"][0].plot(), result.plot_history(), result.plot_heatmap("fast", "slow")):
        assert plot.title.text_font == FONT
        assert plot.outline_line_color is None
        assert {axis.major_label_text_color for axis in plot.axis} == {GREY}
