"""The same chunks as Dask collections."""

from __future__ import annotations

import dask
import pandas as pd
import pytest
from distributed import Client

from admf_dask import ParallelConfig, ParallelOptimizer, ParameterSpace, Session, batch_objective

SPACE = ParameterSpace({"fast": range(2, 12), "slow": range(5, 25)}, constraints=["fast < slow"])


def objective(params: dict[str, int]) -> float:
    if params["fast"] == 3:
        raise ValueError("three")
    return params["slow"] - params["fast"]


def test_a_bag_holds_the_allowed_combinations_in_order() -> None:
    bag = SPACE.to_bag(npartitions=7)
    assert bag.npartitions == 7
    assert bag.compute(scheduler="sync") == SPACE.get_combinations()
    assert bag.pluck("fast").max().compute(scheduler="sync") == 11


def test_a_bag_of_a_billion_points_is_a_small_graph() -> None:
    bag = ParameterSpace({"a": range(1000), "b": range(1000), "c": range(1000)}).to_bag(npartitions=1000)
    assert bag.npartitions == 1000
    assert len(dict(bag.__dask_graph__())) <= 2_002
    assert bag.to_delayed()[0].dask is not None


def test_delayed_chunks_give_the_table_of_the_optimizer() -> None:
    chunks = ParallelOptimizer().to_delayed(SPACE, objective, npartitions=5)
    assert len(chunks) == 5
    table = pd.concat(dask.compute(*chunks, scheduler="sync"))
    good = table[table["error"].isna()]
    with pytest.warns(UserWarning, match="failed"):
        result = ParallelOptimizer(config=ParallelConfig(enabled=False)).optimize(SPACE, objective, progress=False)
    assert good["score"].tolist() == result.frame["score"].tolist()
    assert good.index.tolist() == result.frame.index.tolist()
    assert table["error"].dropna().str.contains("ValueError: three").all()
    assert len(table) - len(good) == result.failed


def test_delayed_chunks_of_a_batch_objective_take_more_than_one_call() -> None:
    objective = batch_objective(lambda columns: columns["x"] * 2)
    chunks = ParallelOptimizer().to_delayed({"x": range(5000)}, objective, npartitions=2)
    table = pd.concat(dask.compute(*chunks, scheduler="sync"))
    assert table["score"].tolist() == list(range(0, 10_000, 2))


def test_keys_read_well_on_the_dashboard(thread_session: Session) -> None:
    (chunk,) = ParallelOptimizer().to_delayed(SPACE, objective, npartitions=1)
    assert chunk.key[0].startswith("optimize-")
    client: Client = thread_session.client
    (future,) = client.compute([chunk])
    assert len(future.result()) == len(SPACE.get_combinations())
    future.release()


@pytest.mark.parametrize("parts", [0, -1])
def test_a_bag_needs_a_partition(parts: int) -> None:
    with pytest.raises(ValueError, match="npartitions must be at least 1"):
        SPACE.to_bag(npartitions=parts)
