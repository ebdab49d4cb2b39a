# %% [markdown]
# # Symbols to features
#
# **The question.** A folder of price files, as a vendor wrote them, one for each symbol. How does it become one table
# of clean, adjusted, weekly features, for four symbols today and four thousand tomorrow, without doing all of it
# again when one file changes?
#
# `ParallelDataProcessor` takes a function, or a list of steps, and does it for each symbol. The workers read the
# files and write the results themselves, so nothing large passes through this notebook.

# %%
import tempfile
import warnings
from pathlib import Path

import pandas as pd
from bokeh.io import output_notebook, show
from bokeh.layouts import column
from bokeh.plotting import figure
from bokeh.resources import INLINE

from admf_dask import ParallelDataProcessor, Session
from admf_dask.datasets import load_prices
from admf_dask.steps import FrameReader, adjust, clean, inspect, resample, returns, rolling

output_notebook(INLINE, hide_banner=True)
pd.options.display.float_format = "{:,.3f}".format

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## Files as they come
#
# Vendors have opinions on dates, names and separators. These files are real daily prices, written as a German
# spreadsheet would.

# %%
(folder / "raw").mkdir()
for symbol in ("AAPL", "GOOG", "IBM", "MSFT"):
    table = (
        load_prices(symbol).rename(columns={"close": "Last"}).rename_axis("Day").reset_index()
    )
    table["Day"] = table["Day"].dt.strftime("%d.%m.%Y")
    table.to_csv(folder / "raw" / f"{symbol}.csv", sep=";", index=False)

print((folder / "raw" / "AAPL.csv").read_text()[:160])

# %% [markdown]
# A `FrameReader` says once how they are to be read. Nothing is guessed: 03.04. is the third of April because you said
# so.

# %%
reader = FrameReader(
    columns={"close": "Last"}, date_column="Day", date_format="%d.%m.%Y", separator=";"
)
apple = reader.read(folder / "raw" / "AAPL.csv")
apple.head(3)

# %% [markdown]
# ## Look at the data first
#
# `clean` reports what is odd and mends only what you tell it to: duplicates, disorder, gaps, bad ticks, jumps.

# %%
print(inspect(clean(apple)))

# %% [markdown]
# The gaps are the holidays of thirteen years (`align`, with the calendar of the exchange, tells those from missing
# days). The three jumps are another matter: days on which the close moved by more than makes sense. A crash, an
# error, or a split?

# %%
moves = apple["close"].pct_change()
table = pd.DataFrame(
    {"before": apple["close"].shift(1), "close": apple["close"], "move": moves}
)
table[moves.abs() > 0.4]

# %% [markdown]
# September 2000 was real: a profit warning, and half of the company's value was gone overnight. June 2000 and
# February 2005 were not: on those days one share became two. To a backtest without adjustment both are a loss of half
# the money. So tell the pipeline about the splits.

# %%
splits = pd.DataFrame(
    {
        "symbol": ["AAPL", "AAPL", "MSFT"],
        "date": ["2000-06-21", "2005-02-28", "2003-02-18"],
        "split": [2, 2, 2],
    }
)
steps = [
    (clean, {"bad_ticks": "drop"}),
    (adjust, {"actions": splits}),
    (resample, {"rule": "W-FRI"}),
    (returns, {"kind": "log"}),
    (rolling, {"windows": [13, 52], "features": ["std", "zscore"]}),
]

# %% [markdown]
# ## Run it
#
# `None` for the symbols means all that the folder has. Each result is written whole or not at all.

# %%
session = Session(mode="process", workers=2).open()
processor = ParallelDataProcessor(session=session)
features = processor.process_symbols(
    None, steps, data=folder / "raw", reader=reader, out=folder / "features", progress=False
)
print(features)
features.written[["rows"]]

# %%
features["AAPL"].tail(3)

# %% [markdown]
# What the adjustment did, to the eye. Above: as traded, where the two splits look like catastrophes. Below: weekly
# and adjusted, where September 2000 is the only one left.

# %%
axes = {"x_axis_type": "datetime", "y_axis_type": "log", "width": 820, "height": 230}
before = figure(title="AAPL as traded", **axes)
before.line(apple.index, apple["close"].to_numpy(), color="#667085")
after = figure(title="AAPL adjusted for splits, weekly", x_range=before.x_range, **axes)
after.line(features["AAPL"].index, features["AAPL"]["close"].to_numpy(), color="#2f5fe0")
show(column(before, after))

# %% [markdown]
# ## Only what is new
#
# Tomorrow one file has changed. The same call looks at each file, the function and its options, and does only what is
# not done yet; the line says what stood already.

# %%
path = folder / "raw" / "GOOG.csv"  # the vendor takes its last five days back
path.write_text("\n".join(path.read_text().splitlines()[:-5]) + "\n")
again = processor.process_symbols(
    None, steps, data=folder / "raw", reader=reader, out=folder / "features"
)

# %% [markdown]
# ## A symbol that is not there
#
# One missing file does not stop the others. It is in `failures`, by name, and asking for it raises its own error
# rather than giving you an empty table.

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    some = processor.process_symbols(
        ["IBM", "APPL", "MSFT"], steps, data=folder / "raw", reader=reader, progress=False
    )
print(some)
print(some.failures["error_type"].to_string())

# %% [markdown]
# ## One table of all
#
# `to_dask()` is one Dask frame over all results, read when it is computed; with four thousand symbols it does not
# have to fit into memory. With four it does, and the correlation of weekly returns is a line of pandas.

# %%
everything = again.to_dask().compute()
weekly = everything.pivot(columns="symbol", values="log_return_1")
weekly.corr()

# %% [markdown]
# All of them move with the market and none of them is the market: between 0.36 and 0.50, Apple and Microsoft being
# the pair that had least to do with each other.
#
# ## Features into a decision
#
# A last look at what such a table is for. After weeks in which a stock was more than two deviations below its yearly
# mean, what did the *next* week bring? (`shift(-1)` looks into the future, which is fine for asking a question of
# history and a crime in a backtest.)

# %%
everything["next_week"] = everything.groupby("symbol")["log_return_1"].shift(-1)
bands = pd.cut(everything["zscore_52"], [-10, -2, -1, 0, 1, 2, 10])
everything.groupby(bands, observed=True)["next_week"].agg(["mean", "std", "count"])

# %% [markdown]
# The first row is the one that makes the heart beat: 1.4 per cent in the week after. Now the cold shower. It is the
# mean of 63 weeks with a deviation of 5.7 per cent, so its standard error is 0.7; and the 63 are not 63 independent
# weeks, since four stocks fell together in 2008. Enough to go on with a real backtest, and not enough to trade.

# %%
session.close()
temporary.cleanup()

# %% [markdown]
# **Next:** [watching a run](4_watching_a_run.ipynb).
