# %% [markdown]
# # A first grid in five minutes
#
# Daily prices of GOOG, two moving averages, a grid of windows, and every CPU of this machine.

# %%
from admf_dask import ParallelOptimizer, ParameterSpace, Session, backtest_objective
from admf_dask.datasets import load_prices

prices = load_prices("GOOG")
prices.tail(3)

# %% [markdown]
# A parameter space is lazy: it has a length and `space[i]`, and holds nothing. Constraints may be expressions or functions.

# %%
space = ParameterSpace({"fast": range(5, 60), "slow": range(20, 220, 4)}, constraints=["fast < slow"])
print(len(space), space[0], space.axis_values("slow")[:4])

# %% [markdown]
# An objective is a function of one combination. This one is plain pandas.


# %%
def final_equity(params: dict, prices) -> float:
    fast = prices["close"].rolling(params["fast"]).mean()
    slow = prices["close"].rolling(params["slow"]).mean()
    held = (fast > slow).shift(1, fill_value=False)
    returns = prices["open"].shift(-1) / prices["open"] - 1
    return float((1 + returns.where(held, 0).fillna(0)).prod())


# %% [markdown]
# A session is the cluster. `mode="thread"` starts at once and shares memory with the notebook; `mode="process"` scales for
# Python code like the one above. `repr(session)` shows the layout and the dashboard.

# %%
with Session(mode="thread", workers=2) as session:
    optimizer = ParallelOptimizer(session=session)
    sample = space.sample(60, seed=1)
    by_pandas = optimizer.optimize(sample, final_equity, data=prices)
    compiled = optimizer.optimize(space, backtest_objective("sma_crossover", prices), score="final_equity")

# %%
by_pandas.top(3)

# %%
compiled.top(5)

# %% [markdown]
# The whole surface at once: rows and columns are the two windows.

# %%
compiled.heatmap("fast", "slow").iloc[:4, :4]

# %%
figure = compiled.plot_heatmap()
print(figure.title.text)
