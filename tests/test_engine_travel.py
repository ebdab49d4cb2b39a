"""What a worker gets of bars and kernels, and what it does not need to load for them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
import pytest

import admf_dask
from admf_dask import backtest_objective, datasets
from admf_dask.engine import FrameDataHandler, Prices
from admf_dask.engine.times import Times
from admf_dask.identity import content_key
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.forkserver import METHOD
from admf_dask.runtime.pack import pack_evaluator
from admf_dask.runtime.shared import SharedStore

DAYS = pd.date_range("2024-03-01", periods=40, freq="D", name="day")
HOURS = pd.date_range("2024-03-09", periods=60, freq="h", tz="America/New_York")
INDICES = {
    "daily": DAYS,
    "zone": HOURS,
    "gaps": HOURS[[0, 3, 20]],
    "microseconds": DAYS.as_unit("us"),
    "numbers": pd.RangeIndex(5),
    "text": pd.Index(list("abc"), name="bar"),
    "periods": pd.period_range("2020-01", periods=4, freq="M"),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_comes_back_as_it_was(name: str) -> None:
    index = INDICES[name]
    for protocol in (4, 5):
        there = pickle.loads(pickle.dumps(Times(index), protocol=protocol))
        assert there._index is None, "made only where it is asked for"
        again = pickle.loads(pickle.dumps(there, protocol=protocol))
        pd.testing.assert_index_equal(again.index, index)
        assert getattr(again.index, "freq", None) == getattr(index, "freq", None)
        assert content_key(again) == content_key(Times(index))
    pd.testing.assert_index_equal(copy.deepcopy(Times(index)).index, index)


@pytest.mark.parametrize("name", INDICES)
def test_a_curve_is_drawn_over_the_clock_of_its_zone(name: str) -> None:
    index, part = INDICES[name], slice(1, None, 2)
    dates = isinstance(index, pd.DatetimeIndex)
    expected: Any = np.arange(len(index))[part]
    if isinstance(index, pd.DatetimeIndex):
        expected = index[part].tz_localize(None).as_unit("ms").asi8
    for times in (Times(index), pickle.loads(pickle.dumps(Times(index)))):
        x, moments = times.axis(part)
        assert moments == dates
        assert x.tolist() == expected.tolist()


def frames() -> dict[str, pd.DataFrame]:
    table = datasets.load_prices("FB")
    return {"A": table, "B": table * 2, "C": table.iloc[5:]}


def same(left: Prices, right: Prices) -> None:
    for column in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(left, column), getattr(right, column))
    pd.testing.assert_index_equal(left.index, right.index)
    assert (left.symbol, left.periods_per_year) == (right.symbol, right.periods_per_year)


def test_many_symbols_travel_in_a_few_pieces() -> None:
    handler = FrameDataHandler(frames())
    pieces: list[Any] = []
    packed = pickle.dumps(handler, protocol=5, buffer_callback=pieces.append)
    assert len([piece for piece in pieces if piece.raw().nbytes > 1000]) <= 4 + 2, "four columns, and two sets of times"
    there = pickle.loads(packed, buffers=pieces)
    assert there.symbols == ("A", "B", "C")
    for symbol in there.symbols:
        same(there.prices(symbol), handler.prices(symbol))
    assert there.prices("B").times is there.prices("A").times
    assert [there.next_bar() for _ in range(9)] == [handler.next_bar() for _ in range(9)]
    alone = pickle.loads(pickle.dumps(handler.only("C")))
    same(alone.prices(), handler.prices("C"))


SWEEP = """
import json, pickle, sys
import numpy as np
objective = pickle.load(open(sys.argv[1], "rb"))
found = objective({name: np.array(values) for name, values in json.loads(sys.argv[2]).items()})
heavy = [m for m in ("pandas", "numba.np.arrayobj", "numba.cpython.setobj") if m in sys.modules]
print(json.dumps([found["final_equity"].tolist(), heavy]))
"""


@pytest.mark.parametrize(
    ("strategy", "columns"),
    [
        ("sma_crossover", {"fast": [5, 10], "slow": [20, 50]}),
        ("rsi_reversion", {"period": [14, 5], "lower": [30.0, 35.0], "upper": [70.0, 60.0]}),
        ("donchian_breakout", {"entry": [20, 10], "exit": [10, 5]}),
    ],
)
def test_a_process_that_only_runs_kernels_loads_neither_pandas_nor_a_compiler(
    strategy: str, columns: dict[str, list[float]], tmp_path: Path
) -> None:
    objective = backtest_objective(strategy, datasets.load_prices("FB"), commission=0.001)
    path = tmp_path / "objective"
    path.write_bytes(pickle.dumps(objective))
    for _ in range(2):  # the first one may have to compile
        argv = [sys.executable, "-c", SWEEP, str(path), json.dumps(columns)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        equity, heavy = json.loads(done.stdout)
    assert heavy == []
    here = objective({name: np.array(values) for name, values in columns.items()})
    assert equity == here["final_equity"].tolist()


WALK = """
import numpy as np
from admf_dask.engine.kernels import NO_NOTES, NO_TAPE, walk
closes, targets, out = np.array([10.0, 11.0, 12.0, 13.0]), np.array([1, 0, 1, 1], np.int8), np.empty(7)
walk(closes, closes, targets, (True, 0.001, 0.01, 1e6, 0.0, 252.0), NO_TAPE, out, NO_NOTES)
print(out[3], sum(walk.stats.cache_hits.values()))
"""


def test_compiled_code_is_made_anew_when_a_rule_changes(tmp_path: Path) -> None:
    package = Path(admf_dask.__file__).parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    rules = tmp_path / package.name / "engine" / "rules.py"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def walked() -> tuple[float, int]:
        argv = [sys.executable, "-c", WALK]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
        equity, hits = done.stdout.split()
        return float(equity), int(hits)

    def by_hand(slippage: float) -> float:
        # Bought at 11, sold at 12, bought at 13, which is the last close.
        units = 1e6 / (11 * (1 + slippage) * 1.001)
        return float(units * 12 * (1 - slippage) * 0.999 / (13 * (1 + slippage) * 1.001) * 13)

    assert walked() == (pytest.approx(by_hand(0.01)), 0)
    assert walked() == (pytest.approx(by_hand(0.01)), 1)
    before = rules.stat()
    rules.write_text(rules.read_text().replace("side * slippage", "2 * side * slippage"))
    os.utime(rules, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert walked() == (pytest.approx(by_hand(0.02)), 0)


def test_where_no_folder_can_be_written_each_process_compiles_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from admf_dask.engine.compiled import compiled

    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    assert compiled(_twice)(21) == 42


def _twice(value: int) -> int:
    return 2 * value


SERVED = """
import sys
{imports}
from admf_dask import Session, datasets

def look(item):
    return [name in sys.modules for name in ("numba", "pandas", "pyarrow.parquet")]

if __name__ == "__main__":
    datasets.load_prices("FB")
    with Session(workers=1, dashboard=None, security="none") as session:
        print(session.map(look, [1], progress=False).values())
"""


@pytest.mark.cluster
@pytest.mark.skipif(METHOD != "forkserver", reason="workers are not forked here")
@pytest.mark.parametrize(
    ("imports", "loaded"),
    [
        ("", [False, True, False]),
        ("from admf_dask import backtest_objective", [True, False, False]),
        ("from admf_dask import backtest_objective\nfrom pandas import Series", [True, True, False]),
        ("from admf_dask import ParallelDataProcessor", [False, True, True]),
        ("from admf_dask import ParallelDataProcessor, backtest_objective", [True, True, True]),
    ],
)
def test_workers_have_loaded_what_their_work_needs_where_it_was_prepared(
    imports: str, loaded: list[bool], tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SERVED.format(imports=imports))
    path = f"{Path(admf_dask.__file__).parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.strip() == str([loaded])


def test_a_function_is_shared_once_whatever_the_items() -> None:
    bars = 40_000
    table = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), np.linspace(1.0, 2.0, bars)))
    objective = backtest_objective("sma_crossover", table)
    store = SharedStore()
    try:
        columns = {"fast": np.array([2]), "slow": np.array([5])}
        for items in ([1, 2], [3]):
            packed, needed = pack_evaluator(MapEvaluator(objective, items), store)
            assert len(packed) < 10_000
            evaluator = pickle.loads(packed)
            assert evaluator.items == items
            assert evaluator.function(columns)["final_equity"] == objective(columns)["final_equity"]
            assert len(needed) == 1
            assert len(store._found) == 1, "the second run finds what the first one shared"
    finally:
        store.close()


def test_a_sweep_over_many_bars_gives_what_the_books_bar_by_bar_give() -> None:
    # From 50,000 bars on the tape has a sum for each sixteen bars, and the ends of runs are added up.
    from admf_dask.engine import run_compiled
    from admf_dask.engine.kernels import LONG, tape_of

    chance = np.random.default_rng(3)
    close = np.round(100 * np.exp(np.cumsum(chance.normal(0, 0.002, LONG + 1_003))), 2)
    table = pd.DataFrame({"open": close, "high": close, "low": close, "close": close})
    assert len(tape_of(close)[0]) == (LONG + 1_002) // 16 + 1
    windows = {"fast": [1, 2, 3, 10, 100, 5_000], "slow": [2, 5, 4, 30, 700, 30_000]}
    chunk = backtest_objective("sma_crossover", table, commission=1e-5)({k: np.array(v) for k, v in windows.items()})
    for place in range(6):
        parameters = {name: values[place] for name, values in windows.items()}
        alone = run_compiled({"class": "sma_crossover", "parameters": parameters, "commission": 1e-5}, table)
        for metric in ("final_equity", "n_fills", "n_trades"):
            assert chunk[metric][place] == alone[metric]
        for metric in ("sharpe_ratio", "max_drawdown"):
            assert chunk[metric][place] == pytest.approx(alone[metric], rel=1e-9), (metric, parameters)
