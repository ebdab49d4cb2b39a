"""How chunks go out and what waits meanwhile: many as one graph, none of a run that was stopped, and news not in the way."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from admf_dask import Session
from admf_dask.events import BlockFinished, RunFinished, RunStarted
from admf_dask.outcomes import Block
from admf_dask.progress.digest import Digest
from admf_dask.runtime import executors, feed
from admf_dask.runtime.executors import ClusterExecutor, Sent
from admf_dask.runtime.farewells import Farewells
from admf_dask.runtime.feed import RunFeed


class Spied:
    """A client that keeps what is sent."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.graphs: list[list[Any]] = []

    def map(self, function: Any, *columns: Any, key: Any, pure: bool, **options: Any) -> list[Any]:
        if self.fails:
            raise OSError("no scheduler")
        self.graphs.append([(key, chunk) for key, *chunk in zip(key, *columns, strict=True)])
        return [f"future {number}" for _, number in key]


def sent_in_one_turn(executor: ClusterExecutor, chunks: list[Sent], before: Any = None) -> list[Any]:
    async def turn() -> list[Any]:
        waits = [executor._sending(number, sent) for number, sent in enumerate(chunks)]
        if before is not None:
            before()
        return await asyncio.gather(*waits, return_exceptions=True)

    return asyncio.run(turn())


def test_chunks_of_one_turn_go_as_one_graph() -> None:
    client = Spied()
    executor = ClusterExecutor(client, 64, _run="r", _kind="map")
    chunks = [Sent((3 * number, 3 * number + 3), 0.5 + number) for number in range(4)]
    assert sent_in_one_turn(executor, chunks) == [None] * 4
    assert client.graphs == [[(("map-r", n), ["r", 3 * n, 3 * n + 3, 0.5 + n, n]) for n in range(4)]]
    assert [sent.future for sent in chunks] == [f"future {n}" for n in range(4)]
    sent_in_one_turn(executor, chunks[:1])
    assert [len(graph) for graph in client.graphs] == [4, 1], "what was sent is not sent again"


def test_nothing_is_sent_of_a_run_that_was_stopped_meanwhile() -> None:
    client = Spied()
    executor = ClusterExecutor(client, 2)

    def stop() -> None:
        executor._stopped = True

    chunks = [Sent((0, 1), 1.0), Sent((1, 2), 1.0)]
    answers = sent_in_one_turn(executor, chunks, stop)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
    assert client.graphs == []
    assert [sent.future for sent in chunks] == [None, None]


def test_who_waits_hears_why_it_could_not_be_sent() -> None:
    answers = sent_in_one_turn(ClusterExecutor(Spied(fails=True), 2), [Sent((0, 1), 1.0), Sent((1, 2), 1.0)])
    assert [str(answer) for answer in answers] == ["no scheduler"] * 2


def test_the_first_chunks_of_a_run_are_one_graph(process_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    client, sizes = process_session._client, []
    send = client.map

    def spied(*args: Any, key: Any, **options: Any) -> Any:
        sizes.append(len(key))
        return send(*args, key=key, **options)

    monkeypatch.setattr(client, "map", spied)
    assert process_session.map(abs, range(-50, 0), progress=False).values() == list(range(50, 0, -1))
    assert sizes[0] == process_session.layout.workers


def test_a_run_that_is_done_takes_nothing_back(process_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    client, cancelled = process_session._client, []
    monkeypatch.setattr(client, "cancel", lambda futures, **_: cancelled.append(futures))
    monkeypatch.setattr(executors, "PAUSE", 3.0)
    process_session._farewells.wait(10)
    process_session.map(abs, range(10), progress=False)
    assert process_session._farewells._futures
    process_session._farewells.wait(10)
    assert cancelled == []


def slow_but_for_the_first(number: int) -> int:
    for _ in range(number * 6_000):
        time.sleep(0.01)
    return number


def test_a_run_that_is_left_is_taken_back_at_once(process_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    client, taken = process_session._client, threading.Event()
    cancel = client.cancel

    def spied(*args: Any, **options: Any) -> Any:
        taken.set()
        return cancel(*args, **options)

    monkeypatch.setattr(client, "cancel", spied)
    monkeypatch.setattr(executors, "PAUSE", 30.0)
    outcomes = process_session.as_completed(slow_but_for_the_first, [0, 0, 1, 1])
    assert next(outcomes).value == 0
    outcomes.close()
    assert taken.wait(15)
    process_session._farewells.wait(15)


def block(start: int, stop: int) -> Block:
    rows = np.arange(start, stop)
    return Block(
        start, stop, rows, {"score": rows * 1.0}, None, np.zeros(len(rows), np.float32), (), len(rows), 0, 0.1, ""
    )


def test_news_of_a_moment_are_told_once(thread_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    gate: Future[None] = Future()

    async def held(self: RunFeed, pause: float) -> None:
        await asyncio.wrap_future(gate)
        await self._send()

    monkeypatch.setattr(RunFeed, "_send_in", held)
    ready: Future[bool] = Future()
    ready.set_result(True)
    told: list[Any] = []
    monkeypatch.setitem(
        thread_session._cluster.scheduler.handlers, feed.HANDLER, lambda update, client: told.append(update)
    )
    farewells, run = Farewells(), "0" * 32
    news = RunFeed(thread_session._client, Digest(range(4)), ready, farewells)
    news.on_event(RunStarted(run, "map", "abs", 4, 2, "score", True, 100.0))
    news.on_event(BlockFinished(run, block(0, 2), 101.0))
    news.on_event(BlockFinished(run, block(2, 4), 102.0))
    assert told == [], "a beginning run has the event loop to itself"
    news.on_event(RunFinished(run, "finished", 103.0))
    gate.set_result(None)
    farewells.wait(10)
    assert [(update.done, update.state) for update in told] == [(4, "finished")]


def test_nothing_is_told_of_a_runs_first_second_but_that_it_began(
    thread_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def at_once(self: RunFeed, pause: float) -> None:
        pauses.append(pause)
        await self._send()

    monkeypatch.setattr(RunFeed, "_send_in", at_once)
    monkeypatch.setattr(feed, "INTERVAL", 50.0)
    monkeypatch.setattr(feed, "FIRST_INTERVAL", 100.0)
    handlers = thread_session._cluster.scheduler.handlers
    monkeypatch.setitem(handlers, feed.HANDLER, lambda update, client: told.put(update))
    ready: Future[bool] = Future()
    ready.set_result(True)
    run = "0" * 32
    news = RunFeed(thread_session._client, Digest(range(6)), ready, Farewells())
    for done, event in enumerate(
        [
            RunStarted(run, "map", "abs", 6, 2, "score", True, 100.0),
            *(BlockFinished(run, block(place, place + 1), 101.0) for place in range(3)),
        ]
    ):
        news.on_event(event)
        assert told.get(timeout=10).done == done
    assert pauses[0] == feed.PAUSE
    assert pauses[1] == pytest.approx(100, abs=20)
    assert pauses[2:] == [pytest.approx(50, abs=20)] * 2
    news.on_event(RunFinished(run, "finished", 102.0))
    assert told.get(timeout=10).state == "finished"
    assert pauses[4:] == [feed.PAUSE], "after the result, but not much"
