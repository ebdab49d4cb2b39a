"""Real daily prices that install offline, for examples, tests and the built-in study.

AAPL, IBM and MSFT (3,270 days), GOOG (2,148) and FB (196), 2000 to 2013, as traded: not adjusted for splits or dividends. The
tables are those of the package bokeh-sampledata (BSD-3), which the extra `data` installs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from admf_dask.errors import DataError
from admf_dask.text import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

_SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")


def symbols() -> list[str]:
    """The symbols that `load_prices` knows, sorted."""
    return list(_SYMBOLS)


def load_prices(symbol: str) -> pd.DataFrame:
    """Daily prices of one symbol.

    Returns a DataFrame with an ascending, unique DatetimeIndex named `date` and the columns open, high, low, close (float64,
    US dollars) and volume (int64, shares). Raises DataError for an unknown symbol, naming the nearest, and when the tables are
    not installed, with the line that installs them. Costs about 0.1 s at the first call.
    """
    import pandas as pd

    if symbol not in _SYMBOLS:
        raise DataError(f"there are no prices for {symbol!r}{did_you_mean(symbol, _SYMBOLS)}")
    table = getattr(_stocks(), symbol)
    index = pd.DatetimeIndex(pd.to_datetime(table["date"]), name="date")
    columns = {name: table[name] for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns, index=index).sort_index()


def _stocks() -> Any:
    try:
        from bokeh_sampledata import stocks
    except ImportError as error:
        raise DataError('the price tables are not installed; type: pip install "admf_dask[data]"') from error
    return stocks
