# %% [markdown]
# # Many backtests, and reading the result
#
# **The question.** Four stocks, three textbook rules, one honest rule of execution: which of them made money after
# costs, how did it feel on the way, and at what cost does the edge die?
#
# A grid varies numbers. `run_parallel_backtests` varies anything: the class, the symbol, the costs. Each config is
# one backtest with its equity, its fills and its trades.

# %%
import numpy as np
import pandas as pd
from bokeh.io import output_notebook, show
from bokeh.resources import INLINE

from admf_dask import Session, run_parallel_backtests
from admf_dask.datasets import load_prices
from admf_dask.engine import Strategy

output_notebook(INLINE, hide_banner=True)
pd.options.display.float_format = "{:,.3f}".format

symbols = ["AAPL", "GOOG", "IBM", "MSFT"]
prices = {symbol: load_prices(symbol) for symbol in symbols}

# %% [markdown]
# ## What a backtest means here
#
# At each close the strategy looks at the bars so far and names a target: long, out, or short. It is filled at the
# **next open**. A commission is a fraction of what is traded; so is slippage. Nothing sees tomorrow. That is the
# whole contract, and an event-driven engine and a compiled one both keep it to the last fill.

# %%
rules = [
    {"class": "sma_crossover", "parameters": {"fast": 10, "slow": 50}},
    {"class": "rsi_reversion", "parameters": {"period": 14, "lower": 30, "upper": 70}},
    {"class": "donchian_breakout", "parameters": {"entry": 20, "exit": 10}},
    {"class": "buy_and_hold"},
]
configs = [
    {**rule, "symbol": symbol, "commission": 0.001} for symbol in symbols for rule in rules
]

session = Session(mode="process", workers=2).open()
results = run_parallel_backtests(configs, prices, session=session)
results

# %% [markdown]
# ## The table
#
# One row for each config, in the order you gave. A pivot of it is often the whole answer: here the Sharpe ratio of
# each rule on each stock.

# %%
results.frame.pivot(index="symbol", columns="class", values="sharpe_ratio")

# %% [markdown]
# GOOG went up so much that buying and doing nothing is hard to beat. Holding AAPL looks worse than a breakout rule on
# it. Be suspicious: these prices are as they were traded, and in February 2005 a share of Apple became two. A split
# looks like a loss of one half to whoever held. [Symbols to features](3_symbols_to_features.ipynb) mends that; until
# then the comparison across stocks is not to be trusted, and this notebook goes on with GOOG, which has no split in
# these years.

# %%
goog = results.frame.query("symbol == 'GOOG'").set_index("class")
goog[["sharpe_ratio", "total_return", "max_drawdown", "n_trades", "engine"]]

# %% [markdown]
# ## How it felt
#
# A Sharpe ratio is one number, an equity curve is nine years of mornings. The three rules on GOOG, above their
# drawdowns, and beside them what doing nothing gave: `plot` adds buy and hold at the same costs unless you ask for
# another benchmark. A click on a name hides its curve.

# %%
on_goog = [place for place, config in enumerate(configs) if config["symbol"] == "GOOG"]
show(results.plot(on_goog))

# %% [markdown]
# The axis is logarithmic: the same distance is the same percentage, in 2004 and in 2012. Holding made eight dollars of
# one, and asked for the nerves to sit through a fall of two thirds. The crossover made three, and never lost more than
# thirty per cent.
#
# And one of them alone, with the peak that it had to win back each time:

# %%
crossover = results[on_goog[0]]
show(crossover.plot())
crossover

# %% [markdown]
# ## The trades
#
# Every position that was opened and closed again, with what it earned after costs. Few rules survive a look at their
# own trades: how much of the profit came from the best three? (A position that is still open at the end is no trade
# yet, which is why buy and hold has none.)

# %%
trades = crossover.trades
trades.nlargest(3, "profit")[
    ["entry_time", "exit_time", "entry_price", "exit_price", "profit", "bars"]
]

# %%
best_three = trades["profit"].nlargest(3).sum()
print(f"{len(trades)} trades, {np.mean(trades['profit'] > 0):.0%} of them with a profit")
print(f"profit of all trades {trades['profit'].sum():12,.0f}")
print(f"the best three alone {best_three:12,.0f}")

# %% [markdown]
# Seventeen of the twenty trades were for nothing, and one of the three came right after the crash of 2008. Would you
# have held on? That is what the Sharpe ratio does not say.

# %% [markdown]
# ## When does the edge die?
#
# Costs are a setting like any other, so let them vary. From nothing to half a per cent for each side of a trade:

# %%
basis_points = [0, 5, 10, 20, 50]
fast_and_slow = [(5, 20), (10, 50), (50, 200)]
rule = {"class": "sma_crossover", "symbol": "GOOG"}
costly = [
    {**rule, "parameters": {"fast": fast, "slow": slow}, "commission": fee / 10_000}
    for fast, slow in fast_and_slow
    for fee in basis_points
]
sweep = run_parallel_backtests(costly, prices, session=session, progress=False)
table = sweep.frame.assign(basis_points=basis_points * len(fast_and_slow)).astype(
    {"n_trades": int}
)
table.pivot(index=["fast", "slow", "n_trades"], columns="basis_points", values="total_return")

# %% [markdown]
# The total return, as a multiple of the stake. The quick pair pays its broker most: half of its return is gone at 50
# basis points a side, and it still comes out ahead, because it was the lucky corner of [the first
# grid](1_first_grid.ipynb). A result without a commission is an opinion.
#
# ## A strategy of your own
#
# A class with `targets`: arrays of the bars in, one target for each bar out (1 long, 0 out, -1 short, down to `low`).
# It is vectorised, so the compiled book runs it. This one buys after a run of down days and sells after a run of up
# days.


# %%
class StreakReversal(Strategy):
    """Long after `days` closes in a row below the one before; out after `days` above."""

    @staticmethod
    def targets(bars, *, low, days):
        change = np.sign(np.diff(bars.close, prepend=bars.close[0]))
        runs = np.convolve(change, np.ones(days))[: len(change)]
        signal = np.where(runs == -days, 1, np.where(runs == days, low, np.nan))
        return pd.Series(signal).ffill().fillna(0).to_numpy().astype(np.int8)


streak = {"class": StreakReversal, "symbol": "GOOG", "commission": 0.001}
streaks = [{**streak, "parameters": {"days": days}} for days in (2, 3, 4, 5)]
mine = run_parallel_backtests(streaks, prices, session=session, progress=False)
figures = ["days", "sharpe_ratio", "total_return", "max_drawdown", "n_trades", "engine"]
mine.frame.astype({"n_trades": int})[figures]

# %% [markdown]
# Buying weakness in a stock that rises for nine years earns something: at best a quarter of what holding it gave, with a
# hole of more than two fifths on the way. Fine: that took ten lines and a second, and is out of the way.
#
# ## When a config is wrong
#
# One bad config is a row, and the others finish. The message says what you meant.

# %%
import warnings

three = [
    {**rule, "parameters": {"fast": 10, "slow": 50}},
    {**rule, "parameters": {"fast": 10, "slwo": 50}},
    {**rule, "parameters": {"fast": 10, "slow": 50}, "symbol": "GOOGL"},
]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the run warns that two failed, and we know
    mixed = run_parallel_backtests(three, prices, session=session, progress=False)
print(mixed)
for config, message in mixed.failures["message"].items():
    print(config, message)

# %% [markdown]
# ## Two engines, one truth
#
# The event-driven engine walks bar by bar and is easy to reason about; the compiled one is hundreds of times faster.
# Doing the same configs with both and comparing every fill is how you would find out if one of them lied.

# %%
by_events = run_parallel_backtests(
    configs[4:8], prices, session=session, engine="event", progress=False
)
for slow_one, fast_one in zip(by_events, results[4:8], strict=True):
    same = slow_one.fills.equals(fast_one.fills) and np.array_equal(
        slow_one.equity, fast_one.equity
    )
    print(f"{slow_one.config['class']:18} {len(slow_one.fills):4} fills, equal: {same}")

session.close()

# %% [markdown]
# **Next:** [symbols to features](3_symbols_to_features.ipynb): from files of raw prices to a table that may be
# trusted.
