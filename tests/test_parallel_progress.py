"""The counter with a progress line."""

from __future__ import annotations

import contextlib
import io
import threading
from typing import Any

import pytest

from admf_dask import ParallelProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_shows_a_line_every_half_second_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ParallelProgress(10, "bars", stream=stream, clock=clock)
    assert progress.update() is False
    clock.now += 0.5
    assert progress.update() is True
    clock.now += 0.1
    assert [progress.update(7), progress.update()] == [False, True]
    assert progress.update() is False, "the end is told once"
    assert stream.getvalue().splitlines() == [
        "bars: 2/10 (20.0 %), elapsed 0.5 s, 2.0 s left",
        "bars: 10/10 (100.0 %), elapsed 0.6 s, 16.7/s",
    ]


def test_on_a_terminal_it_is_one_line_that_is_left_standing() -> None:
    stream, clock = Terminal(), Clock()
    with contextlib.suppress(KeyError), ParallelProgress(4, stream=stream, clock=clock) as progress:
        clock.now += 1
        progress.update(2)
        raise KeyError
    assert stream.getvalue() == "\r\x1b[KProcessing: 2/4 (50.0 %), elapsed 1.0 s, 1.0 s left\n"


@pytest.mark.parametrize(
    ("total", "words"),
    [(0, "Processing: 3/0 (100.0 %), elapsed 2.0 s, 1.5/s"), (None, "Processing: 3, elapsed 2.0 s")],
)
def test_totals_of_nothing_and_unknown_totals(total: Any, words: str) -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ParallelProgress(total, stream=stream, clock=clock)
    progress.update(3)
    clock.now += 2
    progress.display()
    assert stream.getvalue().splitlines()[-1] == words
    assert progress.statistics().completed == 3
    assert progress.statistics().rate == 1.5


@pytest.mark.parametrize("wrong", [-1, 2.5, True])
def test_counts_are_whole_numbers(wrong: Any) -> None:
    with pytest.raises(ValueError, match="total must be"):
        ParallelProgress(wrong)
    with pytest.raises(ValueError, match="increment must be"):
        ParallelProgress(3).update(wrong)


def test_threads_count_exactly_and_the_end_is_told_once() -> None:
    stream = io.StringIO()
    progress = ParallelProgress(16_000, stream=stream, clock=Clock())
    gate = threading.Barrier(16)
    shown: list[bool] = []

    def count() -> None:
        gate.wait(30)
        shown.extend(progress.update() for _ in range(1_000))

    threads = [threading.Thread(target=count) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.statistics().completed == 16_000
    assert shown.count(True) == 1


def test_a_broken_stream_does_not_stop_the_work() -> None:
    stream = io.StringIO()
    progress = ParallelProgress(1, stream=stream)
    stream.close()
    assert progress.update() is True
