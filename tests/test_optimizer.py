"""The optimizer on every mode: the same table, whatever the layout; what fails, what is left out, what is refused."""

from __future__ import annotations

import _thread
import functools
import itertools
import math
import operator
import threading
import tracemalloc
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import cluster_work as work
import numpy as np
import pandas as pd
import pytest

from admf_dask import (
    ConfigError,
    IntRange,
    OptimizationResult,
    ParallelConfig,
    ParallelOptimizer,
    ParameterSpace,
    ResourceError,
    Session,
    SpaceError,
    TaskError,
    batch_objective,
)
from admf_dask.events import BlockFinished, Event, RunFinished, RunStarted
from admf_dask.objectives import read_score
from admf_dask.optimize import collect
from admf_dask.optimize.result import _write
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.runtime import FailedItemsWarning, Keep, ScoreEvaluator
from admf_dask.runtime.job import Watch
from admf_dask.runtime.score import MOST_ROWS

SPACE = ParameterSpace({"fast": range(2, 22), "slow": range(5, 55, 5)}, constraints=["fast < slow"])
ALLOWED = [params for params in SPACE if params["fast"] < params["slow"]]


def optimize(session: Session, *args: Any, **options: Any) -> OptimizationResult:
    return ParallelOptimizer(session=session).optimize(*args, progress=False, **options)


def same(left: OptimizationResult, right: OptimizationResult) -> None:
    pd.testing.assert_frame_equal(left.frame.drop(columns="seconds"), right.frame.drop(columns="seconds"))
    assert left.best_params == right.best_params


def test_the_result_is_the_original_mapping(any_session: Session) -> None:
    result = optimize(any_session, SPACE, work.score)
    expected = sorted(((p, work.score(p)) for p in ALLOWED), key=lambda pair: -pair[1])
    assert dict(result) == {
        "best_params": {"fast": 7, "slow": 10},
        "best_score": -2.5,
        "all_results": expected,
        "total_evaluations": len(ALLOWED),
        "total_combinations": 200,
    }
    assert result["best_params"] == result.best_params
    assert result.rejected == 200 - len(ALLOWED)
    assert result.state == "finished"
    assert not result.failed


def test_plain_mapping_and_batch_objectives_agree(any_session: Session) -> None:
    plain = optimize(any_session, SPACE, work.score)
    same(plain, optimize(any_session, SPACE, work.batch_score))
    named = optimize(any_session, SPACE, work.scores, score="sharpe")
    assert named.frame["sharpe"].tolist() == plain.frame["score"].tolist()
    assert named.best_params == plain.best_params


def test_all_modes_give_identical_tables(
    process_session: Session, thread_session: Session, hybrid_session: Session, inline_session: Session
) -> None:
    first, *others = (
        optimize(session, SPACE, work.score)
        for session in (inline_session, process_session, thread_session, hybrid_session)
    )
    for other in others:
        same(first, other)


def test_constraints_may_come_with_the_call_as_functions_or_expressions(any_session: Session) -> None:
    grid = ParameterSpace({"fast": range(2, 22), "slow": range(5, 55, 5)})
    by_text = optimize(any_session, grid, work.score, "fast < slow")
    by_function = optimize(any_session, grid, work.score, [lambda params: params["fast"] < params["slow"]])
    same(by_text, by_function)
    assert by_text.total_evaluations == len(ALLOWED)
    assert by_text.total_combinations == 200


@pytest.mark.parametrize("objective", [work.score, work.batch_score])
def test_keep_gives_the_best_n_of_all(any_session: Session, objective: Any) -> None:
    everything = optimize(any_session, SPACE, objective)
    best = optimize(any_session, SPACE, objective, keep=7)
    assert best.all_results == everything.all_results[:7]
    assert best.total_evaluations == everything.total_evaluations
    assert len(best.frame) == 7


def test_rows_that_cannot_be_among_the_best_are_let_go_while_a_chunk_goes_on(
    inline_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = optimize(inline_session, {"fast": range(900), "slow": range(900)}, work.batch_score)
    monkeypatch.setattr("admf_dask.runtime.score.ROWS_HELD", 500)
    held: list[int] = []
    best_of = ScoreEvaluator._best

    def watched(self: Any, table: Any) -> Any:
        held.append(len(table))
        return best_of(self, table)

    monkeypatch.setattr(ScoreEvaluator, "_best", watched)
    best = optimize(inline_session, {"fast": range(900), "slow": range(900)}, work.batch_score, keep=7)
    assert best.all_results == everything.all_results[:7]
    assert best.total_evaluations == everything.total_evaluations == 810_000
    assert max(held) <= 500 + 14 + MOST_ROWS
    assert len(held) > 10


def test_minimising_ranks_the_other_way_round(any_session: Session) -> None:
    result = optimize(any_session, SPACE, work.score, maximize=False, keep=3)
    assert result.best_score == min(work.score(params) for params in ALLOWED)


def test_ties_keep_grid_order_and_nan_ranks_last(any_session: Session) -> None:
    result = optimize(
        any_session, {"a": range(50)}, lambda params: math.nan if params["a"] % 5 == 0 else params["a"] % 2
    )
    ranked = [params["a"] for params, _ in result.all_results]
    odd = [a for a in range(50) if a % 5 and a % 2]
    even = [a for a in range(50) if a % 5 and not a % 2]
    assert ranked == odd + even + list(range(0, 50, 5))


def test_failures_are_rows_and_are_not_ranked(any_session: Session) -> None:
    def objective(params: dict[str, Any]) -> float:
        if params["a"] == 13:
            raise ValueError("unlucky")
        return float(params["a"])

    with pytest.warns(FailedItemsWarning, match=r"1 of 40 evaluations failed \(first: a=13: ValueError: unlucky\)"):
        result = optimize(any_session, {"a": range(40)}, objective)
    assert result.failed == 1
    assert len(result.frame) == 39
    row = result.failures.loc[13]
    assert (row["a"], row["error_type"], row["message"]) == (13, "ValueError", "unlucky")
    assert "unlucky" in row["traceback"]
    assert 13 not in [params["a"] for params, _ in result.all_results]


def test_a_batch_that_raises_loses_only_the_guilty_combination(any_session: Session) -> None:
    with pytest.warns(FailedItemsWarning, match="1 of 300"):
        result = optimize(any_session, {"fast": range(300)}, work.batch_that_hates_thirteen)
    assert result.failures.index.tolist() == [13]
    assert sorted(result.frame["fast"]) == [a for a in range(300) if a != 13]


@pytest.mark.parametrize("rule", ["b % 10 == 3", "b % 10 != 3"], ids=["few are allowed", "most are allowed"])
def test_each_item_is_called_for_its_own_index(rule: str) -> None:
    space = ParameterSpace({"a": [0, 700], "b": range(700)}, constraints=[rule])

    def own(params: dict[str, int]) -> float | int:
        # Not all of one kind: whole numbers are read, floats are not.
        value = params["a"] + params["b"]
        return value if value % 7 == 0 else float(value)

    block = ScoreEvaluator(own, space)(0, 1400, math.inf, Watch(threading.Event(), None))
    assert block.indices.tolist() == [index for index in range(1400) if (index % 10 == 3) == ("==" in rule)]
    assert block.columns is not None
    assert block.columns["score"].dtype == np.float64
    assert block.columns["score"].tolist() == block.indices.tolist()
    assert block.evaluated + block.rejected == 1400


def test_a_constraint_that_raises_fails_that_combination(any_session: Session) -> None:
    with pytest.warns(FailedItemsWarning, match="ZeroDivisionError"):
        result = optimize(any_session, {"a": range(600)}, lambda p: 1.0, [lambda params: 6 / params["a"] >= 1])
    assert result.failures.index.tolist() == [0]
    assert result.frame["a"].tolist() == [1, 2, 3, 4, 5, 6]
    assert result.total_evaluations == 7
    assert result.rejected == 593


def gathered(start: int, scores: Any, failed: int = 0, name: str = "score") -> Block:
    """A block of `scores`, and of failures after them."""
    n = len(scores)
    lost = [FailedItem(start + n + k, 0.0, Failure("error", "ValueError", "no", "")) for k in range(failed)]
    return Block(
        start=start, stop=start + n + failed, indices=np.arange(start, start + n), columns={name: np.asarray(scores, float)},
        payload=None, seconds=np.ones(n, np.float32), failures=tuple(lost), evaluated=n + failed, rejected=0, busy=1.0,
        worker="w", failed=failed,
    )  # fmt: skip


def test_the_driver_holds_little_more_than_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "FAILURES_KEPT", 3)
    collector = collect.Collector(Keep("score", count=5))
    scores = np.random.default_rng(2).normal(size=600_000)
    for low in range(0, len(scores), 20_000):
        collector.add(gathered(low, scores[low : low + 20_000], failed=2))
        assert sum(len(table.indices) for table in collector._tables) <= 120_020
    assert collector.table().indices.tolist() == sorted(np.argsort(scores)[-5:].tolist())
    assert (collector.failed, len(collector.failures)) == (60, 3)


@pytest.mark.parametrize("rows", [None, 13, 20])
def test_rows_are_in_grid_order_whatever_the_order_of_the_blocks_and_if_they_lie_between_each_other(
    rows: int | None,
) -> None:
    collector = collect.Collector(Keep(), rows)
    assert len(collector.table()) == 0
    for low in (6, 0, 3):
        collector.add(gathered(low, [low, low + 1.0, low + 2.0]))
    assert collector.table().columns["score"].tolist() == list(range(9))
    between = replace(gathered(9, [9.0, 12.0]), indices=np.array([9, 12]))
    for block in (gathered(10, [10.0, 11.0]), between):
        collector.add(block)
    table = collector.table()
    assert table.indices.tolist() == table.columns["score"].tolist() == list(range(13))
    assert table.seconds.tolist() == [1.0] * 13


@pytest.mark.parametrize("rows", [None, 6, 9])
def test_numbers_that_some_combinations_lack_are_nan_there(rows: int | None) -> None:
    collector = collect.Collector(Keep("score"), rows)
    scores, trades = np.arange(6.0), np.arange(6.0) * 10
    for low, names in ((4, ["score"]), (0, ["score", "trades"]), (2, ["score"])):
        columns = {"score": scores[low : low + 2], "trades": trades[low : low + 2]}
        collector.add(
            replace(gathered(low, columns["score"].tolist()), columns={name: columns[name] for name in names})
        )
    table = collector.table()
    assert table.columns["score"].tolist() == scores.tolist()
    np.testing.assert_array_equal(table.columns["trades"], [0.0, 10.0, *[np.nan] * 4])


def test_there_are_places_for_all_rows_only_where_nothing_is_turned_away(
    inline_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    class Counted(collect.Places):
        def __post_init__(self) -> None:
            made.append(self.count)
            super().__post_init__()

    monkeypatch.setattr(collect, "Places", Counted)
    space = {"fast": [1, 2, 3], "slow": [2, 3]}
    assert len(optimize(inline_session, space, work.score, "fast < slow").frame) == 3
    assert made == []
    assert len(optimize(inline_session, space, work.score).frame) == 6
    assert made == [6]


def test_rows_are_not_there_twice_when_all_have_come() -> None:
    rows = 4_000_000
    tracemalloc.start()
    try:
        collector = collect.Collector(Keep(), rows)
        for low in range(0, rows, 100_000):
            collector.add(gathered(low, np.ones(100_000)))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        table = collector.table()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == rows
    assert peak - before < 1.1 * table.indices.nbytes


def test_numbers_are_named_alike_in_all_chunks() -> None:
    collector = collect.Collector(Keep())
    collector.add(gathered(0, [1.0]))
    with pytest.raises(TaskError, match="one chunk returned 'score' and another 'sharpe'"):
        collector.add(gathered(1, [1.0], name="sharpe"))


def test_a_table_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    def fails_half_way(path: Path) -> None:
        path.write_text("half")
        raise OSError("no room")

    (tmp_path / "results.csv").write_text("the last one")
    with pytest.raises(OSError, match="no room"):
        _write(tmp_path / "results.csv", fails_half_way)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"results.csv": "the last one"}


@pytest.mark.parametrize(
    ("returned", "words"),
    [(None, "did it end without `return`"), ("high", "it returned 'high'"), ({}, "empty mapping")],
)
def test_what_is_no_score_fails_with_the_rule(inline_session: Session, returned: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        optimize(inline_session, {"a": [1, 2]}, lambda params: returned)


def test_nothing_left_after_constraints_shows_an_example(any_session: Session) -> None:
    with pytest.raises(
        SpaceError, match=r"rejected all 4 combinations \(example: fast=50, slow=20, by the constraint 'fast < slow'\)"
    ):
        optimize(any_session, {"fast": [50, 60], "slow": [20, 30]}, work.score, "fast < slow")


def test_all_failed_raises_with_the_first_as_cause(any_session: Session) -> None:
    with pytest.raises(TaskError, match=r"all 3 evaluations failed \(first: a=0: KeyError") as caught:
        optimize(any_session, {"a": range(3)}, lambda params: params["b"])
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.item == {"a": 0}


def test_several_numbers_need_to_be_told_which_ranks(any_session: Session) -> None:
    with pytest.raises(TaskError, match=r"score='sharpe'"):
        optimize(any_session, SPACE, work.scores)
    with pytest.raises(TaskError, match="did you mean 'sharpe'"):
        optimize(any_session, SPACE, work.scores, score="sharp", keep=3)


def test_data_reaches_the_objective(any_session: Session) -> None:
    prices = pd.DataFrame({"close": np.arange(100.0)})
    result = optimize(
        any_session, {"at": range(100)}, lambda params, data: data["close"].iloc[params["at"]], data=prices
    )
    assert result.best_params == {"at": 99}


def test_a_list_of_dicts_and_the_original_get_combinations_are_spaces_too(inline_session: Session) -> None:
    class Original:
        def get_combinations(self) -> list[dict[str, int]]:
            return [{"fast": 7, "slow": 20}, {"fast": 2, "slow": 50}]

    for space in (Original(), Original().get_combinations()):
        assert optimize(inline_session, space, work.score).best_params == {"fast": 7, "slow": 20}


def test_a_sample_is_a_space(any_session: Session) -> None:
    sample = SPACE.sample(20, seed=3)
    result = optimize(any_session, sample, work.score)
    assert result.total_evaluations == 20
    assert all(params in ALLOWED for params, _ in result.all_results)


def of_two(a: int, b: int) -> int:
    return a * b


async def later(params: dict[str, int]) -> int:
    return params["a"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda o: o.optimize({"a": [1]}, 0.42),
            TypeError,
            r"expected a function, but got 0.42 .*write `optimize\(space, sharpe\)`",
        ),
        (
            lambda o: o.optimize(work.score, {"a": [1]}),
            TypeError,
            r"the space comes first: write `optimize\(space, score\)`",
        ),
        (lambda o: o.optimize(42, work.score), TypeError, "parameter_space must be a ParameterSpace, a mapping"),
        (lambda o: o.optimize({"a": [1]}, work.score, keep=0), ValueError, "keep must be"),
        (
            lambda o: o.optimize({"a": [1]}, work.score, maximize="min"),
            ConfigError,
            "but is 'min'; write maximize=False",
        ),
        (
            lambda o: o.optimize({"a": [1], "b": [2]}, of_two),
            TypeError,
            r"called as of_two\(params\), params being a dict .*: 'b'; write `def of_two\(params\)` and `params\['a'\]` in it",
        ),
        (
            lambda o: o.optimize({"a": [1]}, work.score, data=5),
            TypeError,
            r"called as score\(params, data\), .*too many",
        ),
        (lambda o: o.optimize({"a": [1]}, later), TypeError, r"later is `async def`; write `def later\(params\)`"),
        (lambda o: o.optimize({"a": [1]}, batch_objective(of_two)), TypeError, "params being arrays by name, but"),
        (lambda o: o.optimize({"a": [1]}, work.score, progress=3), TypeError, "progress must be"),
        (lambda o: o.optimize({"a": range(10**12)}, work.score), ResourceError, r"keep=1000"),
        (lambda o: o.optimize({"fast": [1]}, work.score, "fats < 1"), SpaceError, "did you mean 'fast'"),
    ],
)
def test_wrong_calls_are_refused_before_anything_starts(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(ParallelOptimizer(config=ParallelConfig(enabled=False)))


def spread(function: Any) -> Any:
    """Combinations as arguments, under the name of the function."""

    @functools.wraps(function)
    def spreading(params: dict[str, int]) -> int:
        return int(function(**params))

    return spreading


def passing(function: Any) -> Any:
    @functools.wraps(function)
    def passed(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    return passed


def drawn(params: dict[str, int], *, rng: np.random.Generator) -> float:
    return float(rng.random())


def closed(params: dict[str, int]) -> float:
    return 0.0


class Held:
    def __call__(self, params: dict[str, int], data: int = 3) -> int:
        return params["a"] * data

    def method(self, *arguments: Any) -> int:
        return int(arguments[0]["a"])


@pytest.mark.parametrize(
    ("objective", "best"),
    [
        (spread(of_two), 8),
        (functools.partial(lambda times, params: times * params["b"], 5), 20),
        (Held(), 6),
        (Held().method, 2),
        (operator.itemgetter("b"), 4),
        (len, 2),
    ],
)
def test_whatever_can_be_called_with_a_combination_is_an_objective(
    objective: Any, best: float, inline_session: Session
) -> None:
    assert optimize(inline_session, {"a": [1, 2], "b": [4]}, objective).best_score == best


def test_a_decorated_objective_takes_rng_where_it_passes_it_on(inline_session: Session) -> None:
    plain, decorated = (optimize(inline_session, {"a": [1, 2]}, one, seed=3) for one in (drawn, passing(drawn)))
    assert plain.best_score == decorated.best_score
    # It is named like one that does, and itself takes one argument.
    assert optimize(inline_session, {"a": [1, 2]}, functools.wraps(drawn)(closed), seed=3).best_score == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            pd.Series({"sharpe": 1.0, "trades": 2}),
            r"returned sharpe 1.0 .* \(Series\); write `return values.to_dict\(\)`",
        ),
        (pd.DataFrame({"a": [1.0]}), r"\(DataFrame\); return one number of it"),
        (Decimal("1.5"), r"\(Decimal\); write `return float\(...\)`"),
    ],
)
def test_what_an_objective_cannot_return_is_answered_with_what_to_write(value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        read_score(value)


def test_without_a_session_one_is_opened_and_closed() -> None:
    result = ParallelOptimizer(workers=2, mode="thread").optimize({"a": range(10)}, lambda p: p["a"], progress=False)
    assert result.best_params == {"a": 9}


def test_the_workers_and_mode_of_the_original_are_kept() -> None:
    optimizer = ParallelOptimizer(3, "hybrid")
    assert (optimizer.workers, optimizer.mode) == (3, "hybrid")


class Watcher:
    """An observer that interrupts the main thread after some blocks."""

    def __init__(self, after: int | None = None) -> None:
        self.events: list[Event] = []
        self.after = after

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if self.after is not None and sum(isinstance(e, BlockFinished) for e in self.events) == self.after:
            _thread.interrupt_main()


def test_observers_see_every_item_once_and_a_broken_one_does_not_stop_the_run(
    any_session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher()
    result = ParallelOptimizer(session=any_session).optimize(SPACE, work.score, progress=watcher)
    assert isinstance(watcher.events[0], RunStarted)
    assert isinstance(watcher.events[-1], RunFinished)
    assert watcher.events[0].total == 200
    assert watcher.events[-1].state == "finished"
    spans = sorted((e.block.start, e.block.stop) for e in watcher.events if isinstance(e, BlockFinished))
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == 200

    class Broken:
        def on_event(self, event: Event) -> None:
            raise RuntimeError("observer")

    same(result, ParallelOptimizer(session=any_session).optimize(SPACE, work.score, progress=Broken()))
    assert "an observer of the run failed" in caplog.text


@pytest.mark.parametrize("mode", ["process", "thread", "inline"])
def test_a_billion_points_start_at_once_and_can_be_interrupted(request: pytest.FixtureRequest, mode: str) -> None:
    session = request.getfixturevalue(f"{mode}_session")
    space = ParameterSpace({"a": range(1000), "b": range(1000), "c": range(1000)}, constraints=["a <= b"])
    watcher = Watcher(after=6)
    with pytest.raises(KeyboardInterrupt) as stop:
        ParallelOptimizer(session=session).optimize(space, lambda p: p["c"] - p["b"], keep=100, progress=watcher)
    found = stop.value.partial  # type: ignore[attr-defined]
    assert isinstance(found, OptimizationResult)
    assert found.state == "interrupted"
    assert len(found.frame) == 100
    assert found.best_score == found.scores.max()
    assert isinstance(watcher.events[-1], RunFinished)
    assert watcher.events[-1].state == "interrupted"
    again = optimize(session, {"a": range(5)}, lambda p: p["a"])
    assert again.best_params == {"a": 4}


def test_an_interrupt_before_the_first_result_carries_an_empty_one(thread_session: Session) -> None:
    class Impatient:
        def on_event(self, event: Event) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        ParallelOptimizer(session=thread_session).optimize(SPACE, work.score, progress=Impatient())
    found = stop.value.partial  # type: ignore[attr-defined]
    assert (found.state, found.total_evaluations, found.best_params, len(found.frame)) == ("interrupted", 0, None, 0)
    assert "0 of" in repr(found)


def test_a_batch_objective_may_bound_its_rows(any_session: Session) -> None:
    @batch_objective(max_rows=10)
    def bounded(columns: dict[str, Any]) -> Any:
        if len(columns["a"]) > 10:
            raise AssertionError("too many rows at once")
        return columns["a"] * 1.0

    result = optimize(any_session, {"a": range(500)}, bounded)
    assert result.total_evaluations == 500
    assert result.failed == 0


def test_a_batch_never_holds_more_rows_than_its_time_allows(inline_session: Session) -> None:
    sizes: list[int] = []

    @batch_objective
    def slow(columns: dict[str, Any]) -> Any:
        sizes.append(len(columns["a"]))
        return np.full(len(columns["a"]), sum(range(100 * len(columns["a"]))) * 0.0)

    watcher = Watcher(after=2)
    space = ParameterSpace({"a": range(10**6), "b": range(10**6)})
    with pytest.raises(KeyboardInterrupt):
        ParallelOptimizer(session=inline_session).optimize(space, slow, keep=5, progress=watcher)
    assert sizes[0] == 256
    assert all(later <= 4 * before for before, later in itertools.pairwise(sizes))
    assert max(sizes) < 10**6


def test_two_runs_at_once_in_one_session(thread_session: Session) -> None:
    found: list[OptimizationResult] = []

    def run(high: int) -> None:
        found.append(optimize(thread_session, {"a": IntRange(1, high)}, lambda p: p["a"]))

    threads = [threading.Thread(target=run, args=(high,)) for high in (500, 700)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.best_score or 0 for result in found) == [500, 700]
