# %% [markdown]
# # Failures, timeouts and memory
#
# **The question.** Ten thousand items run over night. One divides by zero, one never ends, one asks for all the
# memory, and one brings its whole process down. What do you find in the morning?
#
# Nine thousand nine hundred and ninety-six results, and four rows that say what happened.

# %%
import os
import time
import warnings

import numpy as np
import pandas as pd

from admf_dask import Session, TaskError, run_isolated_process
from admf_dask.datasets import load_prices, symbols

warnings.simplefilter("ignore")  # each run warns that some items failed; here that is the point
pd.options.display.max_colwidth = 110

session = Session(mode="process", workers=2, memory_limit="600MiB", dashboard=None).open()

# %% [markdown]
# ## Three ways to die
#
# A function with faults that we know from practice. The `os._exit` stands for a crash in compiled code: no exception,
# no goodbye, the process is gone.


# %%
def fragile(item: int) -> float:
    if item == 3:
        return 1 / 0
    if item == 5:
        while True:  # never comes back
            pass
    if item == 9:
        os._exit(11)
    return item**0.5


outcomes = session.map(fragile, range(1000), timeout=1, progress=False)
outcomes

# %% [markdown]
# Read the messages. Each says what was found, what the rule was, and how often it was tried. An item whose process died
# is done once more, alone, because its neighbours might have been guilty: only if it kills twice is it blamed. The other
# 997 are untouched, whichever process they were in:

# %%
good = [outcome.value for outcome in outcomes if outcome.ok]
print(len(good), good == [item**0.5 for item in range(1000) if item not in (3, 5, 9)])

# %% [markdown]
# ## The fourth: all the memory
#
# Each process of this session may have 600 MiB of its own. One item wants more and more; it is stopped at the limit, long
# before the machine begins to swap, and the message has the figures.


# %%
def hungry(item: int) -> int:
    pile = []
    while item == 1:
        pile.append(np.ones(2_000_000))
    return item


print(session.map(hungry, range(4), progress=False)[1].error)

# %% [markdown]
# ## Where it happened
#
# The traceback is the worker's own, with the line in which it happened, also for the item that never ended: that is
# where it was when its time was over.

# %% tags=["measured"]
print(outcomes[3].traceback)
print(outcomes[5].traceback)

# %% [markdown]
# ## Again, alone
#
# `replay` does one item again in a fresh process with the same seed. Does it fail the same way? Then the item is the
# reason, and not the night.

# %%
print(outcomes.replay(3))
print(outcomes.replay(4))

# %% [markdown]
# ## How much failure is too much
#
# While you write a function, stop at the first failure. At night, record all of them, or give up when a share has
# failed. Whatever had finished is in `.partial`.

# %% tags=["measured"]
for choice in ("raise", "stop_after:2"):
    try:
        session.map(lambda item: 1 / (item % 50), range(400), on_error=choice, progress=False)
    except (ZeroDivisionError, TaskError) as stopped:
        print(f"{choice:14} {type(stopped).__name__}: {stopped}")

# %% [markdown]
# ## A vendor that hiccups
#
# Some failures pass. `retries=` is for those, and `retry_on=` keeps it from hiding the others.


# %%
def flaky_download(symbol: str, calls) -> str:
    if calls.compute(symbol, lambda n: (n or 0) + 1) < 3:
        raise ConnectionError("reset by peer")
    return f"{symbol}: {len(load_prices(symbol)):,} bars"


calls = session.shared_dict("calls")
downloaded = session.map(
    flaky_download, symbols(), data=calls, retries=3, retry_on=ConnectionError, progress=False
)
downloaded.frame[["item", "value", "attempts"]]

# %% [markdown]
# ## Items that leak into each other
#
# The quietest failure of all: a function that remembers. Here a cache with a key that forgets a parameter, which a
# colleague put in to save time. Nothing fails, some numbers are just those of another item. `audit` does random items
# again, each alone in a fresh process, and compares.


# %%
cache: dict[int, float] = {}


def momentum(item: tuple[int, int], closes: np.ndarray) -> float:
    days, skip = item
    if days not in cache:  # the key should have been (days, skip)
        cache[days] = float(closes[-1 - skip] / closes[-1 - skip - days] - 1)
    return cache[days]


closes = load_prices("GOOG")["close"].to_numpy()
pairs = [(days, skip) for days in range(20, 40) for skip in range(10)]
leaky = session.map(momentum, pairs, data=closes, progress=False)
verdict = leaky.audit(8, seed=1)
print("agrees:", verdict.agrees)

# %% [markdown]
# ## Memory
#
# Who holds what, now. `private` is what ending a process would free; `shared` is the same pages in each of them.
# `limit` counts private memory only, so large data that is shared brings nobody near it.

# %% tags=["measured"]
minutes = pd.DataFrame(
    np.random.default_rng(1).normal(size=(1_000_000, 8)), columns=list("abcdefgh")
)
shared = session.share(minutes)
print(shared)
(session.memory().drop(columns="pid") / 2**20).round().rename(
    index=lambda name: name.split()[0] if "worker" in name else name
)

# %% [markdown]
# 61 MiB, once for the machine. Workers map it; nothing is copied and nobody can change it under another's feet:


# %%
def meddle(column: str, table: pd.DataFrame) -> float:
    if column == "h":
        table.loc[0, column] = 1e9
    return round(float(table[column].sum()), 3)


sums = session.map(meddle, list(minutes.columns), data=shared, progress=False)
expected = [round(minutes[name].sum(), 3) for name in "abcdefg"]
print([outcome.value for outcome in sums if outcome.ok] == expected)
print(sums[7].error)

# %% [markdown]
# ## One dangerous call
#
# Something you do not trust, just once: a process of its own, with a limit on time and memory. It costs a few
# milliseconds.

# %%
from admf_dask import TaskTimeout, WorkerDied

print(run_isolated_process(sum, [1, 2, 3]))

for function, argument, limits in (
    (time.sleep, 60, {"timeout": 0.5}),
    (os._exit, 3, {}),
    (bytearray, 4 * 10**9, {"memory_limit": "1GB"}),
):
    try:
        run_isolated_process.options(**limits)(function, argument)
    except (TaskTimeout, WorkerDied, MemoryError) as error:
        print(f"{type(error).__name__}: {error}")

session.close()

# %% [markdown]
# **What to watch out for.** In `mode="thread"` nothing can be killed: a hung item is stopped only where it returns to
# Python, and a crash takes this notebook along. For code you do not trust, use processes.
#
# **Next:** [your own engine inside the optimizer](6_your_own_engine.ipynb).
