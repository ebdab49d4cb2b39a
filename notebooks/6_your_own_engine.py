# %% [markdown]
# # Your own engine inside the optimizer
#
# **The question.** You have an engine already: yours, with your costs and your rules, and it can do what no library
# does. How do you get a grid, all CPUs, a page and a journal around it without rewriting it?
#
# You call it from a function. That is all, and this notebook does it with an engine that is written here: a rotation
# between stocks. Every `hold` days, look back `days` days, hold the `top` stocks that rose most, pay for what
# changes. A book of several symbols at a time, which the compiled engine of this toolkit does not do.

# %%
import numpy as np
import pandas as pd
from bokeh.io import output_notebook, show
from bokeh.plotting import figure
from bokeh.resources import INLINE

from admf_dask import ParallelOptimizer, ParameterSpace, Session, batch_objective
from admf_dask.datasets import load_prices
from admf_dask.steps import adjust

output_notebook(INLINE, hide_banner=True)
pd.options.display.float_format = "{:,.3f}".format

# %% [markdown]
# ## The data
#
# Four stocks on common days, adjusted for the splits of those years: in a rotation an unadjusted split looks like the
# worst month in the history of the company, and the book would sell at once.

# %%
splits = {"AAPL": ["2000-06-21", "2005-02-28"], "MSFT": ["2003-02-18"]}
closes = {}
for symbol in ("AAPL", "GOOG", "IBM", "MSFT"):
    actions = pd.DataFrame({"date": splits.get(symbol, []), "split": 2})
    table = load_prices(symbol)
    closes[symbol] = (adjust(table, actions=actions) if len(actions) else table)["close"]
closes = pd.DataFrame(closes).dropna()
print(f"{len(closes):,} days, {closes.index[0]:%Y-%m-%d} to {closes.index[-1]:%Y-%m-%d}")
(closes / closes.iloc[0]).iloc[[0, 1000, -1]]

# %% [markdown]
# ## The engine
#
# Pandas, as one writes it. The weights that are chosen at a close earn from the next close on: `shift(1)` again.


# %%
def rotate(
    closes: pd.DataFrame, days: int, hold: int, top: int, fee: float = 0.001
) -> pd.Series:
    """The equity of a rotation, starting at one."""
    past = closes / closes.shift(days) - 1
    chosen = past.rank(axis=1, ascending=False, method="first") <= top
    weights = (chosen / top).where(past.notna().all(axis=1), 0.0)
    decided = np.arange(len(closes)) % hold == 0
    weights = weights[decided].reindex(closes.index).ffill().shift(1).fillna(0.0)
    traded = weights.diff().abs().sum(axis=1).fillna(0.0)
    daily = (weights * closes.pct_change()).sum(axis=1) - traded * fee
    return (1 + daily).cumprod()


def figures(equity: pd.Series) -> dict[str, float]:
    daily = equity.pct_change().dropna()
    return {
        "sharpe": float(daily.mean() / daily.std() * 252**0.5),
        "growth": float(equity.iloc[-1]),
        "drawdown": float((1 - equity / equity.cummax()).max()),
    }


figures(rotate(closes, days=126, hold=21, top=1))

# %% [markdown]
# ## The objective
#
# One line between your engine and the grid: a function of the parameters (and the data) that returns a number, or
# several by name. `score=` says which of them ranks.

# %%
space = ParameterSpace(
    {"days": range(20, 260, 20), "hold": [5, 10, 21, 42, 63], "top": [1, 2, 3]}
)


def objective(params: dict, closes: pd.DataFrame) -> dict[str, float]:
    return figures(rotate(closes, **params))


session = Session(mode="process", workers=2).open()
optimizer = ParallelOptimizer(session=session)
plain = optimizer.optimize(space, objective, data=closes, score="sharpe")
plain.top(5).drop(columns="seconds")

# %%
show(plain.plot_heatmap("days", "hold"))

# %% [markdown]
# Where is it broad and green? A rotation that works with a look back of 100 days and fails with 120 does not work. The
# mean over a neighbourhood is a better guide than the best cell; here over all that hold one, two or three stocks:

# %%
plain.frame.groupby("top")[["sharpe", "drawdown"]].agg(["mean", "min", "max"])

# %% [markdown]
# ## Faster: a batch objective
#
# The engine above spends most of its time in pandas, saying hello. A **batch objective** gets a whole chunk, one
# array for each parameter, and answers for all of it. Rewritten for that, the inner loops are NumPy over all
# combinations at once.


# %%
@batch_objective(max_rows=200)
def rotation(columns: dict[str, np.ndarray], closes: pd.DataFrame) -> dict[str, np.ndarray]:
    price = closes.to_numpy()
    daily_returns = np.vstack([np.zeros(price.shape[1]), price[1:] / price[:-1] - 1])
    bars = np.arange(len(price))
    found: dict[str, list[float]] = {"sharpe": [], "growth": [], "drawdown": []}
    ranks = {days: ranks_of(price, days) for days in np.unique(columns["days"]).tolist()}
    for days, hold, top in zip(columns["days"], columns["hold"], columns["top"], strict=True):
        weights = np.where(ranks[days] < top, 1 / top, 0.0)
        weights[:days] = 0.0
        weights = weights[bars // hold * hold]  # what was decided last
        weights = np.vstack([np.zeros(weights.shape[1]), weights[:-1]])
        traded = np.abs(np.diff(weights, axis=0, prepend=weights[:1])).sum(axis=1)
        daily = (weights * daily_returns).sum(axis=1) - traded * 0.001
        equity = np.cumprod(1 + daily)
        daily = equity[1:] / equity[:-1] - 1
        found["sharpe"].append(daily.mean() / daily.std(ddof=1) * 252**0.5)
        found["growth"].append(equity[-1])
        found["drawdown"].append((1 - equity / np.maximum.accumulate(equity)).max())
    return {name: np.array(values) for name, values in found.items()}


def ranks_of(price: np.ndarray, days: int) -> np.ndarray:
    """0 for the stock that rose most in `days` days; ties to the one that stands first."""
    past = np.full_like(price, -np.inf)
    past[days:] = price[days:] / price[:-days] - 1
    return np.argsort(np.argsort(-past, axis=1, kind="stable"), axis=1)


batch = optimizer.optimize(space, rotation, data=closes, score="sharpe")
batch.top(3).drop(columns="seconds")

# %% [markdown]
# ## Parity before speed
#
# A fast engine that gives other numbers is a bug with good manners. So first: are they the same, combination by
# combination?

# %%
columns = ["sharpe", "growth", "drawdown"]
print(
    "all equal:", np.allclose(plain.frame[columns], batch.frame[columns], rtol=1e-9, atol=1e-12)
)
print("the same best:", plain.best_params == batch.best_params)

# %% tags=["measured"]
print(f"pandas {plain.elapsed:.2f} s, NumPy {batch.elapsed:.2f} s")

# %% [markdown]
# ## What the winner looks like
#
# Beside the four stocks in equal parts, which is the rotation that never thinks.

# %%
best = rotate(closes, **plain.best_params)
equal = (closes / closes.iloc[0]).mean(axis=1)
axes = {"x_axis_type": "datetime", "y_axis_type": "log", "width": 820, "height": 360}
plot = figure(title="The best rotation, and equal parts", **axes)
chosen = " ".join(f"{name}={value}" for name, value in plain.best_params.items())
plot.line(best.index, best.to_numpy(), color="#2f5fe0", legend_label=chosen)
plot.line(equal.index, equal.to_numpy(), color="#667085", legend_label="equal parts, held")
plot.legend.location = "top_left"
show(plot)

# %%
pd.DataFrame({"best rotation": figures(best), "equal parts": figures(equal)}).T

# %% [markdown]
# The best of all rotations, chosen with hindsight, has less to show than the portfolio that was bought once and
# forgotten. That is a result, and an honest engine is the only kind that tells you.
#
# **What to watch out for.** Even equal parts flatter themselves: the four stocks were chosen by people who knew in 2013
# that they would still be there, and one of them had gone up twenty-eightfold. The engine is honest, the list is not.
#
# ## Inside the box
#
# An engine that must never see what the last call left behind? `session.map` and `optimize` take `timeout=` for one
# that may hang, and `result.audit(20)` does twenty random combinations again, each alone in a fresh process:

# %%
audit = plain.audit(3, seed=7)
print(audit.agrees)
session.close()

# %% [markdown]
# **Next:** [from laptop to a Dask cluster](7_laptop_to_cluster.ipynb).
