# %% [markdown]
# # From laptop to a Dask cluster
#
# **The question.** The grid has outgrown this machine, and somebody has a cluster. What do you have to change?
#
# One line: where the session goes. To see it, this notebook starts a second scheduler with two workers, as an
# administrator would on other machines, only here on loopback.

# %%
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from distributed import Client
from IPython.display import IFrame

from admf_dask import (
    ParallelConfig,
    ParallelOptimizer,
    ParameterSpace,
    SchedulerUnreachable,
    Session,
    backtest_objective,
)
from admf_dask.datasets import load_prices

pd.options.display.float_format = "{:,.3f}".format
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## On the laptop
#
# The study: a space, an objective, a call.

# %%
prices = load_prices("IBM")
space = ParameterSpace(
    {"entry": range(5, 105, 2), "exit": range(5, 105, 2)},
    constraints=["exit <= entry"],
)
objective = backtest_objective("donchian_breakout", prices, commission=0.001)


def study(session) -> pd.DataFrame:
    optimizer = ParallelOptimizer(session=session)
    result = optimizer.optimize(space, objective, score="sharpe_ratio", progress=False)
    print(result.total_evaluations, "backtests by", len(result.workers), "workers")
    return result.frame.drop(columns="seconds")


with Session(mode="process", workers=2, dashboard=None) as session:
    at_home = study(session)
at_home.nlargest(3, "sharpe_ratio")[
    ["entry", "exit", "sharpe_ratio", "total_return", "n_trades"]
]

# %% [markdown]
# ## Somebody else's cluster
#
# These are the commands `dask scheduler` and `dask worker`, each a process of its own. On a cluster there would be a
# machine around each of them, and SLURM or Kubernetes would start them. The preload gives the scheduler the page of
# runs; without it the page comes with the first session.

# %%
address_file = folder / "scheduler.json"
QUIET = ["--no-dashboard", "--no-nanny"]


def start(*command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            *command,
            "--scheduler-file",
            str(address_file),
            "--host",
            "127.0.0.1",
        ],
        cwd=folder,
        env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


scheduler = start(
    "distributed.cli.dask_scheduler",
    "--port",
    "0",
    "--dashboard-address",
    "127.0.0.1:0",
    "--preload",
    "admf_dask.dashboard",
)
workers = [
    start("distributed.cli.dask_worker", "--nthreads", "1", *QUIET, "--name", name)
    for name in ("left", "right")
]
while not address_file.exists() or not address_file.read_text().endswith("}"):
    time.sleep(0.05)
address = json.loads(address_file.read_text())["address"]

with Client(address, set_as_default=False) as client:
    client.wait_for_workers(2)
print(address)

# %% [markdown]
# ## The one line
#
# `scheduler:` in the `parallel:` block of a YAML file does the same. Mode and workers are the cluster's business now,
# so the session asks it.

# %%
cluster = Session(ParallelConfig(scheduler=address)).open()
far_away = study(cluster)

# %%
pd.testing.assert_frame_equal(at_home, far_away)
print("the same table, to the last digit")

# %% [markdown]
# The page of runs is on the cluster's own dashboard, so everybody who shares the cluster can see whose run is whose.

# %%
IFrame(cluster.dashboard_link, width=1000, height=700)

# %% [markdown]
# ## A worker is lost
#
# Machines go away. Here one of the two is killed in the middle of a run, as a node that is taken away would be. The
# run goes on with the other one.


# %%
def patient(item: int) -> int:
    time.sleep(0.02)
    return item * item


finished = cluster.as_completed(patient, range(150))
values = [next(finished).value]
workers[0].kill()
values += [outcome.value for outcome in finished]
left = len(cluster.client.scheduler_info()["workers"])
print(sorted(values) == [item * item for item in range(150)], "with", left, "worker left")

# %% [markdown]
# ## One more
#
# And they come back: a new worker is used from the moment it arrives.

# %%
workers.append(
    start("distributed.cli.dask_worker", "--nthreads", "1", *QUIET, "--name", "late")
)
cluster.client.wait_for_workers(2)
outcomes = cluster.map(patient, range(150), progress=False)
print(len({outcome.worker for outcome in outcomes}), "workers took part")

# %% [markdown]
# ## A client that you have already
#
# From dask-jobqueue, dask-kubernetes or a cloud's own library you get a `Client`. Hand it over; it is used and left
# open.

# %%
cluster.close()
with Client(address, set_as_default=False) as client:
    optimizer = ParallelOptimizer(session=client)
    result = optimizer.optimize(space, objective, score="sharpe_ratio", progress=False)
    print(result.best_params, client.status)

# %% [markdown]
# ## Nobody there
#
# The message when the address is wrong, which is the most frequent failure of all:

# %%
for process in (*workers, scheduler):
    process.kill()
    process.wait()
try:
    Session(ParallelConfig(scheduler=address)).open()
except SchedulerUnreachable as error:
    print(error)
temporary.cleanup()

# %% [markdown]
# **What to watch out for.** Workers need this package and yours in the same versions; functions of this notebook
# travel by value, but what they import does not. Data given as `data=` goes once to each machine. And a cluster in a
# network needs `security=` with your certificates: whoever reaches an open scheduler may run code on it.
