# %% [markdown]
# # Watching a run
#
# **The question.** It is eleven at night and the grid will take an hour. Is it working, is it any good so far, may
# you stop it, and what is left if the power fails?

# %%
import signal
import tempfile
import time
from pathlib import Path

import pandas as pd
from bokeh.io import output_notebook, show
from bokeh.resources import INLINE
from IPython.display import IFrame

from admf_dask import (
    Journal,
    JournalMismatch,
    ParallelOptimizer,
    ParallelProgress,
    ParameterSpace,
    Session,
)
from admf_dask.datasets import load_prices
from admf_dask.events import BlockFinished

output_notebook(INLINE, hide_banner=True)
pd.options.display.float_format = "{:,.3f}".format
temporary = tempfile.TemporaryDirectory()

prices = load_prices("GOOG")
session = Session(mode="process", workers=2).open()

# %% [markdown]
# ## The session says what it is
#
# Processes, threads, the memory that each may take, and a link. Over ssh, `session.tunnel` is the command that makes
# the link work on your own machine; on JupyterHub and in VS Code the link is the proxied one already.

# %% tags=["measured"]
session

# %% [markdown]
# ## A slow objective
#
# To have something to watch: a channel breakout in plain Python, bar by bar, as one writes it the first time. A few
# milliseconds for each combination.


# %%
def breakout(params: dict, prices: pd.DataFrame) -> float:
    """The growth of a dollar: in above the highest close of `entry` days, out below the lowest of `leave`."""
    closes, opens = prices["close"].tolist(), prices["open"].tolist()
    entry, leave, stop = params["entry"], params["leave"], params["stop"]
    money, bought = 1.0, 0.0
    for today in range(max(entry, leave), len(closes) - 1):
        if not bought and closes[today] > max(closes[today - entry : today]):
            bought = opens[today + 1]
        elif bought and closes[today] < max(
            min(closes[today - leave : today]), bought * (1 - stop)
        ):
            money, bought = money * opens[today + 1] / bought, 0.0
    return money * closes[-1] / bought if bought else money


space = ParameterSpace(
    {"entry": range(10, 90, 4), "leave": range(5, 45, 4), "stop": [0.05, 0.1, 0.2]}
)
optimizer = ParallelOptimizer(session=session)
journal = Path(temporary.name) / "tonight"
len(space)

# %% [markdown]
# ## Stopping it
#
# With `journal=` each finished chunk is on disk before you see it. So press ■ whenever you like. This notebook runs
# itself, so an observer presses it: it is told every event of the run, and after the first finished chunk it sends
# what the button sends.


# %% tags=["measured"]
class Finger:
    def on_event(self, event) -> None:
        if isinstance(event, BlockFinished):
            signal.raise_signal(signal.SIGINT)


try:
    optimizer.optimize(
        space,
        breakout,
        data=prices,
        journal=journal,
        name="breakout on GOOG",
        progress=Finger(),
    )
except KeyboardInterrupt as stopped:
    partial = stopped.partial
    print(partial.summary())

# %% [markdown]
# The exception carries what was found. It is a whole result, only smaller: `top`, `frame` and the figures work.

# %%
print(partial.state, 0 < partial.total_evaluations < len(space))
print("a row for each:", len(partial.frame) == partial.total_evaluations)

# %% [markdown]
# From any other terminal, also after a crash, `admf-dask status tonight` says the same as this:

# %% tags=["measured"]
print(Journal(journal).status().words())

# %% [markdown]
# ## Going on
#
# The same call again. What is in the journal is not done twice, and the line says how much that was.

# %% tags=["measured"]
result = optimizer.optimize(
    space, breakout, data=prices, journal=journal, name="breakout on GOOG"
)
print(result.recalled == partial.total_evaluations, result.summary())

# %%
result.top(3).drop(columns="seconds")

# %% [markdown]
# A week later the grid grows. Only the new values are evaluated:

# %% tags=["measured"]
wider = ParameterSpace(
    {"entry": range(10, 90), "leave": range(5, 45, 4), "stop": [0.05, 0.1, 0.2, 0.3]}
)
result = optimizer.optimize(
    wider, breakout, data=prices, journal=journal, name="breakout on GOOG, wider"
)
print(result.summary())

# %% [markdown]
# And if you change the function, the journal notices, before anything runs. Old results under a new rule would be the
# worst kind of mistake: one that looks like data.


# %%
def breakout(params: dict, prices: pd.DataFrame) -> float:
    """Another rule under the same name: buy on day `entry` and wait."""
    closes = prices["close"]
    return float(closes.iloc[-1] / closes.iloc[params["entry"]])


try:
    optimizer.optimize(wider, breakout, data=prices, journal=journal, progress=False)
except JournalMismatch as refused:
    print(refused)

# %% [markdown]
# ## The page
#
# `session.dashboard_link` opens the page of runs: how far, how fast, the best so far, where in the grid it lies,
# which worker does what, and every failure with its traceback. It follows any number of runs, and Dask's own pages
# are one click away.

# %%
IFrame(session.dashboard_link, width=1000, height=700)

# %% [markdown]
# ## Pictures of a run
#
# Every score in grid order, and the best so far. A best that is still climbing at the end asks for a larger grid; one
# that was found early and never beaten tells you that the rest was for nothing.

# %%
show(result.plot_history())

# %%
show(result.plot_heatmap("entry", "leave"))

# %% [markdown]
# `result.report("night.html")` writes all of that into one file that opens without a network: the thing to send to a
# colleague.

# %%
report = result.report(Path(temporary.name) / "night.html")
print(report.name, report.stat().st_size > 1_000_000)

# %% [markdown]
# ## A loop of your own
#
# The same line for work that is not a run.

# %% tags=["measured"]
with ParallelProgress(5, "reports written") as progress:
    for _ in range(5):
        time.sleep(0.01)
        progress.update()

session.close()
temporary.cleanup()

# %% [markdown]
# **Next:** [failures, timeouts and memory](5_failures_timeouts_memory.ipynb): what happens when it goes wrong.
