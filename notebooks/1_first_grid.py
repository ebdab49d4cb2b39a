# %% [markdown]
# # A first grid in five minutes
#
# **The question.** Two moving averages on a stock: buy when the fast one is above the slow one, step aside when it is
# not. It is the oldest rule there is. Which two windows would have worked on GOOG from 2004 to 2013, and is the
# answer a broad hill that one may trust, or a lucky spike?
#
# A grid answers that: every pair of windows, a backtest for each, on every CPU of this machine. You need `pip install
# "admf_dask[data]"`, which brings the prices along, and five minutes.

# %%
import pandas as pd
from bokeh.io import output_notebook, show
from bokeh.plotting import figure
from bokeh.resources import INLINE

from admf_dask import ParallelOptimizer, ParameterSpace, Session, backtest_objective
from admf_dask.datasets import load_prices

output_notebook(INLINE, hide_banner=True)
pd.options.display.float_format = "{:,.3f}".format

prices = load_prices("GOOG")
prices.tail(3)

# %% [markdown]
# ## The space
#
# A parameter space is a promise of combinations: it has a length and `space[i]`, and holds nothing, so a billion
# points cost as much as ten. The constraint is plain text; a function would do as well. It is applied on the workers,
# so `len` counts the grid before it.

# %%
space = ParameterSpace(
    {"fast": range(5, 60), "slow": range(20, 220, 4)}, constraints=["fast < slow"]
)
len(space), space[0], space[1000]

# %% [markdown]
# ## Your own function first
#
# An objective takes one combination and returns a number. Nothing to inherit from, nothing to register: this one is
# six lines of pandas. What the close of today decides is done at the open of tomorrow, which is what `shift` is for.
# Leave it out and every strategy on earth makes money.


# %%
def growth(params: dict, prices: pd.DataFrame) -> float:
    fast = prices["close"].rolling(params["fast"]).mean()
    slow = prices["close"].rolling(params["slow"]).mean()
    held = (fast > slow).shift(1, fill_value=False)
    returns = prices["open"].shift(-1) / prices["open"] - 1
    return float((1 + returns.where(held, 0).fillna(0)).prod())


# %% [markdown]
# A `Session` is the cluster: here two processes on this machine. It takes about a second to open, so open it once and
# keep it. Functions that you define in a cell travel to the workers as they are; change one, run the cell again, and
# the new one is used.

# %%
session = Session(mode="process", workers=2).open()
optimizer = ParallelOptimizer(session=session)
by_pandas = optimizer.optimize(space.sample(200, seed=1), growth, data=prices)
by_pandas.top(3).drop(columns="seconds")

# %% [markdown]
# ## The whole grid, compiled
#
# `backtest_objective` is an objective too, with a real book behind it: orders, costs, drawdown, a Sharpe ratio,
# compiled to machine code. One pair of windows costs microseconds, so the question becomes the whole grid rather than
# a sample.

# %%
objective = backtest_objective("sma_crossover", prices, commission=0.001)
result = optimizer.optimize(space, objective, score="sharpe_ratio")
result.top(5)[["fast", "slow", "sharpe_ratio", "total_return", "max_drawdown", "n_trades"]]

# %%
print(f"{result.total_evaluations:,} backtests of {result.total_combinations:,} combinations")
print("best:", result.best_params)

# %% [markdown]
# ## Look before you believe
#
# The table shows five winners. The picture shows where they live: every pair of windows, the best one ringed. Hover
# over a cell for its figure.

# %%
show(result.plot_heatmap())

# %% [markdown]
# Two things to see. The good corner is at the edge of the grid: the true best may lie outside of it. And most of the
# rest is a plain that lies *below* what simply holding GOOG would have given you:

# %%
print(f"median of the grid {result.frame['sharpe_ratio'].median():.2f}")
holding = backtest_objective("buy_and_hold", prices)
held = optimizer.optimize([{}], holding, score="sharpe_ratio", progress=False)
print(f"buy and hold       {held.best_score:.2f}")

# %% [markdown]
# ## The honest test
#
# The best of 2,530 is better than it deserves to be: it was chosen for its luck as well. So choose on one half of the
# years and look at the other half. Each dot is a pair of windows; if the past told the future, the cloud would rise
# to the right.

# %%
windows = ["fast", "slow"]
halves = {}
for years, part in {"2004-2008": prices[:"2008"], "2009-2013": prices["2009":]}.items():
    objective = backtest_objective("sma_crossover", part, commission=0.001)
    half = optimizer.optimize(space, objective, score="sharpe_ratio", progress=False)
    halves[years] = half.frame.set_index(windows)["sharpe_ratio"]
both = pd.DataFrame(halves)

plot = figure(
    title="Sharpe ratio of each pair of windows, in two halves of the history",
    x_axis_label="2004-2008",
    y_axis_label="2009-2013",
    width=620,
    height=420,
)
before, after = both["2004-2008"].to_numpy(), both["2009-2013"].to_numpy()
plot.scatter(before, after, size=4, alpha=0.4, color="#2f5fe0")
show(plot)

# %%
chosen = both["2004-2008"].nlargest(25).index
print(f"rank correlation of the halves      {both.rank().corr().iloc[0, 1]:6.2f}")
print(f"the 25 best of 2004-2008, back then {both.loc[chosen, '2004-2008'].mean():6.2f}")
print(f"the same 25, in 2009-2013           {both.loc[chosen, '2009-2013'].mean():6.2f}")
print(f"all pairs, in 2009-2013             {both['2009-2013'].mean():6.2f}")
holding = backtest_objective("buy_and_hold", prices["2009":])
held = optimizer.optimize([{}], holding, score="sharpe_ratio", progress=False)
print(f"buy and hold, in 2009-2013          {held.best_score:6.2f}")

# %% [markdown]
# Across the whole grid, how a pair did in one half says nothing of the other. The winners lost half of what they had
# shown; they stayed above the average pair, and below a trader who bought in January 2009 and went fishing.
#
# That took a few seconds, and it is the most useful table of this notebook. A grid tells you what would have worked;
# only other data tells you whether to care.
#
# ## Keep it
#
# `save` writes the whole table (Parquet and CSV) and the heatmap as a page that opens without a network.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    result.save(Path(folder) / "goog")
    print(sorted(path.name for path in Path(folder, "goog").iterdir()))

session.close()

# %% [markdown]
# **Next:** [many backtests, and reading one](2_many_backtests.ipynb). For functions that you wrote yourself, in
# whatever style, [your own engine](6_your_own_engine.ipynb).
