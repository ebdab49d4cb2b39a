"""Input that is natural and wrong: each is answered with what to type, and none becomes a wrong number in silence."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from admf_dask import DataError, datasets
from admf_dask.engine import FrameDataHandler

AAPL, IBM = (datasets.load_prices(symbol).iloc[:120] for symbol in ("AAPL", "IBM"))


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (
            pd.concat({"AAPL": AAPL, "IBM": IBM}),
            r"one symbol, but has 2 levels; write .*droplevel\(0\).*groupby\(level=0\)",
        ),
        (pd.concat({"AAPL": AAPL}).swaplevel(), r"droplevel\(1\)"),
        (
            pd.concat({"AAPL": AAPL, "IBM": IBM}, names=["Ticker"]).reset_index("Ticker").sort_index(),
            r"the column 'Ticker' has 2; write dict\(list\(prices.groupby\('Ticker'\)\)\)",
        ),
        (AAPL["close"], r"but are Series; .* write pd.DataFrame\({name: prices for name in"),
        ("prices/AAPL.csv", r"from_csv\('prices/AAPL.csv'\)"),
        ([AAPL, IBM], "give a mapping symbol -> DataFrame"),
    ],
)
def test_bars_of_several_symbols_never_become_one_history(prices: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        FrameDataHandler(prices)


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (AAPL.reset_index(), r"daily bars \(252 a year\).* write prices.set_index\('date'\)"),
        (AAPL.reset_index(names="Date").astype({"Date": str}), r"set_index\(pd.to_datetime\(prices\['Date'\]\)\)"),
    ],
)
def test_bars_numbered_by_row_beside_their_dates_are_said_to_count_as_daily(prices: Any, words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        FrameDataHandler(prices)


def test_bars_with_times_or_with_numbers_alone_are_taken_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FrameDataHandler(AAPL.reset_index(drop=True)).prices(None).periods_per_year == 252
        FrameDataHandler(AAPL.assign(symbol="AAPL", time=np.arange(len(AAPL))))
