"""The progress line from events alone: what it says, how long it is, and how often it is drawn."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from admf_dask.events import BlockFinished, BlockRecalled, Event, Notice, RunFinished, RunStarted
from admf_dask.outcomes import Block
from admf_dask.progress import LogProgress, TerminalProgress
from admf_dask.progress.state import ProgressState

RUN = "f" * 32


class Clock:
    """Says what it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def block(scores: Iterable[float]) -> Block:
    column = np.array(list(scores), np.float64)
    count = len(column)
    return Block(
        start=0, stop=count, indices=np.arange(count), columns={"score": column}, payload=None,
        seconds=np.ones(count, np.float32), failures=(), evaluated=count, rejected=0, busy=1.0, worker="", failed=0,
    )  # fmt: skip


def started(total: int = 100, **facts: Any) -> RunStarted:
    return RunStarted(RUN, "optimize", "crossover", total, 2, "score", facts.pop("maximize", True), 0.0, **facts)


def feed(observer: Any, clock: Clock, events: Iterable[Event]) -> None:
    for event in events:
        clock.now = event.at
        observer.on_event(event)


def lines_of(moments: Iterable[float], *, total: int = 100) -> list[str]:
    """What a log has of a run in which one item is done at each moment."""
    stream, clock = io.StringIO(), Clock()
    moments = list(moments)
    events: list[Event] = [started(total), *(BlockFinished(RUN, block([1.0]), at) for at in moments)]
    feed(LogProgress(stream, clock=clock), clock, [*events, RunFinished(RUN, "finished", moments[-1])])
    return stream.getvalue().splitlines()


def test_a_log_has_few_lines_of_a_fast_run() -> None:
    lines = lines_of(n / 10 for n in range(1, 101))
    assert [line.partition(" (")[0] for line in lines] == [
        "crossover: 0/100",
        "crossover: 100/100",
        "crossover: 100/100",
    ]
    assert lines[-1] == "crossover: 100/100 (100 %), best 1, finished in 10.0 s, 10.0/s"


def test_a_log_has_a_line_for_each_tenth_and_each_minute() -> None:
    assert len(lines_of(range(2, 2 * 101, 2))) == 1 + 10 + 1, "a tenth takes twenty seconds"
    assert len(lines_of(range(20, 1_201, 20), total=1_000)) == 1 + 20 + 1, "in twenty minutes not a tenth was done"


@pytest.mark.parametrize("width", [20, 40, 100, 300])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_bar_is_one_line_whatever_the_width(width: int, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    raw, clock = io.BytesIO(), Clock()
    progress = TerminalProgress(io.TextIOWrapper(raw, encoding, newline=""), clock=clock)
    feed(progress, clock, [started(), BlockFinished(RUN, block([1.0] * 60), 2.0)])
    feed(progress, clock, [Notice(RUN, "a worker was lost", 3.0), RunFinished(RUN, "interrupted", 4.0)])
    written = raw.getvalue().decode(encoding)
    assert written.count("\n") == 2
    drawn = [part for part in written.replace("\n", "").split("\r\x1b[K") if part and part != "a worker was lost"]
    assert all(len(line) < width for line in drawn)
    if width >= 100:
        assert "crossover" in drawn[-1]
        assert "60/100 (60 %), best 1, interrupted in 4.0 s, 15.0/s" in drawn[-1]
        assert drawn[-1].count("█" if encoding == "utf-8" else "#") == 18
    assert "a worker was lost\n" in written, "in full, above it"


def test_a_bar_is_drawn_ten_times_a_second_at_the_most() -> None:
    stream, clock = io.StringIO(), Clock()
    events = [started(1_000), *(BlockFinished(RUN, block([1.0]), n / 1_000) for n in range(1, 1_001))]
    feed(TerminalProgress(stream, clock=clock), clock, [*events, RunFinished(RUN, "finished", 1.0)])
    assert 10 <= stream.getvalue().count("\r") <= 12
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("kind", [TerminalProgress, LogProgress])
def test_a_stream_that_nobody_reads_ends_the_drawing_and_not_the_run(kind: Any) -> None:
    stream, clock = io.StringIO(), Clock()
    stream.close()
    feed(kind(stream, clock=clock), clock, [started(), RunFinished(RUN, "finished", 1.0)])


def test_the_best_follows_the_direction_and_leaves_nan_out() -> None:
    for maximize, best in ((True, "best 3"), (False, "best -2")):
        state = ProgressState()
        nan = float("nan")
        for event in (
            started(maximize=maximize), BlockFinished(RUN, block([nan, nan]), 1.0),
            BlockFinished(RUN, block([nan, 3.0, -2.0]), 2.0), BlockFinished(RUN, block([0.0]), 3.0),
        ):  # fmt: skip
            state.take(event)
        assert best in state.words()


def test_what_the_journal_had_is_done_and_no_measure_of_speed() -> None:
    state = ProgressState()
    for event in (
        started(recalled=40), BlockRecalled(RUN, block([1.0] * 40), 0.0), BlockFinished(RUN, block([1.0] * 10), 5.0)
    ):  # fmt: skip
        state.take(event)
    assert state.words() == "50/100 (50 %), 40 from the journal, best 1, 2.0/s, 25.0 s left"
    state.take(RunFinished(RUN, "finished", 10.0))
    assert "finished in 10.0 s, 1.0/s" in state.words()
