"""An item done again, alone in a fresh process."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import cluster_work
import fault_work as work
import pytest

from admf_dask import ParallelOptimizer, Session, SpaceError, backtest_objective, datasets
from admf_dask.runtime import FailedItemsWarning


def test_what_depends_on_its_item_alone_agrees(any_session: Session) -> None:
    with pytest.warns(FailedItemsWarning):
        outcomes = any_session.map(work.act, ["a", 1.5, "raise", None], progress=False)
    assert outcomes.audit(10).agrees
    assert len(outcomes.audit(10)) == 4
    failed = outcomes.replay(2)
    assert failed.agrees
    assert failed.now.startswith("ValueError: invalid literal")
    assert "fault_work.py" in (failed.traceback or "")
    assert repr(outcomes.replay(-3)) == "<Replay of 1.5: agrees>"


@pytest.mark.cluster
def test_an_item_that_ends_its_process_does_so_again(process_session: Session) -> None:
    with pytest.warns(FailedItemsWarning):
        outcomes = process_session.map(work.act, [1, "exit", 2], progress=False)
    with pytest.warns(FailedItemsWarning):
        hung = process_session.map(work.act, [1, "python loop"], timeout=0.2, progress=False)
    assert outcomes.replay(1).agrees
    assert hung.replay(1).agrees


def test_state_that_leaks_between_items_is_found(inline_session: Session) -> None:
    work.remembers.__defaults__[0].clear()  # type: ignore[index]
    outcomes = inline_session.map(work.remembers, range(6), progress=False)
    found = outcomes.audit(6)
    assert not found.agrees
    assert [(replay.before, replay.now) for replay in found.disagreements] == [(n, 1) for n in range(2, 7)]
    assert found.frame.loc[0, "agrees"]
    assert "first <Replay of 1: DISAGREES: was 2, is 1>" in repr(found)


def test_chance_with_a_seed_agrees_and_without_does_not(any_session: Session) -> None:
    assert any_session.map(work.draws_in_all_ways, range(8), seed=1, progress=False).audit(4).agrees
    assert any_session.map(work.draws, range(8), seed=1, progress=False).replay(3).agrees
    assert not any_session.map(work.draws_in_all_ways, range(8), progress=False).audit(4).agrees
    assert not any_session.map(_now, range(2), progress=False).replay(0).agrees


def test_a_value_that_reads_like_an_error_is_none(inline_session: Session, tmp_path: Path) -> None:
    def changes(mark: str) -> str:
        if Path(mark).exists():
            raise ValueError("no")
        Path(mark).touch()
        return "ValueError: no"

    replayed = inline_session.map(changes, [str(tmp_path / "mark")], progress=False).replay(0)
    assert replayed.before == replayed.now == "ValueError: no"
    assert not replayed.agrees


def _now(_: int) -> float:
    return time.monotonic()


def test_combinations_can_be_done_again_too(inline_session: Session) -> None:
    optimizer = ParallelOptimizer(session=inline_session)
    prices = datasets.load_prices("FB")
    objective = backtest_objective("sma_crossover", prices, commission=0.001)
    space = {"fast": range(2, 20), "slow": range(5, 40, 3)}
    result = optimizer.optimize(space, objective, "fast < slow", score="sharpe_ratio", progress=False)
    assert result.audit(3).agrees
    best = int(result.top(1).index[0])
    assert result.replay(best).item == result.best_params
    with pytest.raises(IndexError, match="has no score in this result"):
        result.replay(10**6)
    back = pickle.loads(pickle.dumps(result))
    assert back.frame.equals(result.frame)
    with pytest.raises(SpaceError, match="without its objective"):
        back.replay(best)
    with pytest.warns(FailedItemsWarning):
        failing = optimizer.optimize({"a": range(9)}, cluster_work.fails_at_seven, progress=False)
    assert failing.replay(7).agrees


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_counts_are_whole_numbers(inline_session: Session, k: Any) -> None:
    outcomes = inline_session.map(work.act, [1], progress=False)
    with pytest.raises(ValueError, match="audit takes the number of items"):
        outcomes.audit(k)
    with pytest.raises(IndexError, match="no outcome of item 5"):
        outcomes.replay(5)
