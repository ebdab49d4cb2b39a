"""What an item does to the data it was given is gone before the next item, and nothing of it can be written; in every mode."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shared_work as work

from admf_dask import ParallelDataProcessor, ParallelOptimizer, ParameterSpace, Session, batch_objective
from admf_dask.errors import TaskError
from admf_dask.runtime.shared.guarded import Tables, guard_of, taking

ROWS = 200_000


def prices(rows: int = 20) -> pd.DataFrame:
    """Columns of several blocks, times with a name and a frequency."""
    times = pd.date_range("2001", periods=rows, freq="h", tz="UTC", name="time")
    table = pd.DataFrame({"b": np.arange(float(rows)), "a": np.arange(float(rows))[::-1]}, index=times)
    table["when"] = times
    table["venue"] = pd.Categorical(["X", "Y"] * (rows // 2))
    return table


def sort_in_place(frame: Any) -> None:
    frame.sort_values("a", inplace=True)


def name_the_index(frame: Any) -> None:
    frame.index.name = "bar"


def change_the_frequency(frame: Any) -> None:
    frame.index.freq = None


def rename_the_column_that_was_looked_at(frame: Any) -> None:
    frame["a"].name = "other"


def add_a_row(frame: Any) -> None:
    frame.loc[pd.Timestamp("2030", tz="UTC"), "a"] = 1.0


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a column is added": lambda frame: frame.insert(1, "x", 1.0),
    "a column is set": lambda frame: frame.__setitem__("a", 0),
    "a column is popped": lambda frame: frame.pop("a"),
    "columns are renamed in place": lambda frame: frame.rename(columns={"a": "x"}, inplace=True),
    "columns are set": lambda frame: setattr(frame, "columns", list("wxyz")),
    "columns get a name": lambda frame: setattr(frame.columns, "name", "x"),
    "the index is set": lambda frame: setattr(frame, "index", range(len(frame))),
    "the index is reset in place": lambda frame: frame.reset_index(inplace=True),
    "the index is named": name_the_index,
    "the frequency is changed": change_the_frequency,
    "rows are sorted in place": sort_in_place,
    "rows are dropped in place": lambda frame: frame.drop(frame.index[:5], inplace=True),
    "a row is added": add_a_row,
    "attributes are set": lambda frame: frame.attrs.__setitem__("source", "a file"),
    "a column that was looked at is renamed": rename_the_column_that_was_looked_at,
    "repeated labels are forbidden": lambda frame: setattr(frame.flags, "allows_duplicate_labels", False),
    "an attribute of Python is set": lambda frame: setattr(frame, "note", "x"),
}


def assert_as_it_was(frame: Any, was: Any) -> None:
    pd.testing.assert_frame_equal(frame, was, check_freq=True, check_exact=True)
    assert frame["a"].name == "a"
    assert (frame.attrs, frame.columns.name, frame.index.name) == (was.attrs, None, "time")
    assert frame.flags.allows_duplicate_labels
    assert not hasattr(frame, "note")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_frame_is_gone_at_the_next_look(change: str) -> None:
    own, was = prices(), prices()
    take = taking(own)
    first = take()
    assert take() is first
    CHANGES[change](first)
    for _ in range(2):
        assert_as_it_was(take(), was)
        CHANGES[change](take())
    assert_as_it_was(own, was)
    assert np.shares_memory(take()["b"].to_numpy(), own["b"].to_numpy())


@pytest.mark.parametrize("kind", ["frame", "series"])
def test_writing_is_refused_also_while_somebody_still_holds_a_column_that_an_item_looked_at(kind: str) -> None:
    take = taking(prices() if kind == "frame" else prices()["a"])
    held = take()["a"] if kind == "frame" else take()[:]
    with pytest.raises(ValueError, match="read-only"):
        take().iloc[0] = 1.0
    assert held.iloc[0] == prices()["a"].iloc[0]
    del held
    assert take() is take()


def test_an_index_is_kept_where_it_was_not_changed() -> None:
    take = taking(prices())
    first = take()
    index = first.index
    first["x"] = 1.0
    assert take().index is index
    index.name = "other"
    assert take().index is not index
    assert take().index.name == "time"
    periods = taking(pd.Series(1.0, index=pd.period_range("2000", periods=3, freq="M")))
    assert periods() is periods()


def test_names_of_levels_come_back() -> None:
    levels = pd.MultiIndex.from_product([["x", "y"], range(3)], names=["side", "n"])
    take = taking(pd.DataFrame({"a": range(6)}, index=levels))
    take().index.names = ["p", "q"]
    assert list(take().index.names) == ["side", "n"]


@pytest.mark.parametrize("attributes", [{"source": "a file"}, {"deep": {"list": [1]}}, {"lock": threading.Lock()}])
def test_attributes_are_as_they_were(attributes: dict[str, Any]) -> None:
    frame = prices()
    frame.attrs = dict(attributes)
    take = taking(frame)
    for _ in range(2):
        assert take().attrs == attributes
        take().attrs["more"] = 1
        take().attrs.get("deep", {}).clear()
    frame.attrs = {}


def test_a_series_is_as_it_was() -> None:
    take = taking(prices()["a"])
    take().name = "other"
    take().loc[pd.Timestamp("2030", tz="UTC")] = 1.0
    take().index.name = "bar"
    pd.testing.assert_series_equal(take(), prices()["a"], check_freq=True)
    with pytest.raises(ValueError, match="read-only"):
        take().iloc[0] = 1.0


def test_a_mapping_is_as_it_was_and_makes_ready_only_what_is_asked_for() -> None:
    plain = {"A": prices(), "B": prices()["a"], "C": np.arange(3.0), "D": {"deep": prices()}, "E": 5}
    take = taking(plain)
    tables = take()
    tables["A"]["x"] = 1.0
    assert "x" in tables["A"]  # throughout its item
    tables["D"]["deep"]["x"] = 1.0
    assert (tables["E"], tables.get("F", 0), len(tables), list(tables), "A" in tables) == (5, 0, 5, list("ABCDE"), True)
    again = take()
    assert again is tables
    assert_as_it_was(again["A"], prices())
    assert_as_it_was(again["D"]["deep"], prices())
    again["new"] = 1
    del again["E"]
    again |= {"more": 2}
    assert (again["new"], again["more"], "E" in again, again.pop("new")) == (1, 2, False, 1)
    assert list(take()) == list("ABCDE")
    assert list(plain) == list("ABCDE")


@pytest.mark.parametrize(
    "look",
    [
        lambda tables: tables["A"],
        lambda tables: tables.get("A"),
        lambda tables: next(iter(tables.values())),
        lambda tables: next(iter(tables.items()))[1],
        lambda tables: dict(tables)["A"],
        lambda tables: (lambda **named: named["A"])(**tables),
        lambda tables: {**tables}["A"],
        lambda tables: tables.copy()["A"],
        lambda tables: (tables | {})["A"],
        lambda tables: ({} | tables)["A"],
        lambda tables: tables.setdefault("A", None),
        lambda tables: tables.pop("A"),
    ],
)
def test_no_way_into_a_mapping_leads_to_what_others_have(look: Callable[[Any], Any]) -> None:
    own = {"A": prices()}
    take = taking(own)
    frame = look(take())
    frame["x"] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        frame.iloc[0, 0] = 5.0
    assert_as_it_was(take()["A"], prices())
    assert_as_it_was(own["A"], prices())
    assert type(pickle.loads(pickle.dumps(take()))) is dict


def test_what_is_no_table_is_given_as_it_is() -> None:
    class Handler:
        frame = prices()

    for value in (3, "text", {"fee": 0.1}, [1, 2], Handler(), np.float64(2)):
        assert guard_of(value) is None
        assert taking(value)() is value


def test_the_shape_of_an_array_is_as_it_was() -> None:
    array = np.arange(6.0)
    take = taking(array)
    take().shape = (2, 3)
    assert take().shape == (6,)
    assert array.flags.writeable


# -- in a session ------------------------------------------------------------------------------------------------------


def tables_of(rows: int) -> dict[str, Any]:
    frame = pd.DataFrame({"a": np.arange(float(rows)), "b": 1.0})
    return {"frame": frame, "series": frame["a"].copy(), "array": np.arange(float(rows)), "mapping": {"A": frame}}


@pytest.mark.parametrize("rows", [10, ROWS])
@pytest.mark.parametrize("kind", ["frame", "series", "array", "mapping"])
def test_writing_names_copy_in_every_mode_and_the_own_data_stay_writable(
    any_session: Session, kind: str, rows: int
) -> None:
    data = tables_of(rows)[kind]
    with pytest.raises(TaskError, match="read-only") as caught:
        any_session.map(work.write_into, [0, 1], data=data, progress=False)
    assert isinstance(caught.value.__cause__, ValueError)
    assert any("data = data.copy()" in note for note in caught.value.__cause__.__notes__)
    first = work.first_array(data)
    assert first[0] == 0.0
    work.write_into(0, data)  # here it is one's own
    assert work.first_array(data)[0] == 7.0


@pytest.mark.parametrize("rows", [10, ROWS])
def test_no_item_sees_what_another_did_to_the_frame(any_session: Session, rows: int) -> None:
    data = tables_of(rows)
    seen = any_session.map(work.columns_then_more, range(12), data=data["frame"], progress=False).values()
    assert seen == [["a", "b"]] * 12
    seen = any_session.map(work.columns_of_mapping_then_more, range(12), data=data["mapping"], progress=False).values()
    assert seen == [(["A"], ["a", "b"])] * 12
    assert list(data["frame"]) == ["a", "b"]


def test_a_copy_can_be_written(any_session: Session) -> None:
    data = tables_of(ROWS)["frame"]
    assert any_session.map(work.write_a_copy, range(3), data=data, progress=False).values() == [7.0] * 3


def test_no_copy_is_made_for_threads(thread_session: Session, inline_session: Session) -> None:
    data = tables_of(ROWS)
    for session in (thread_session, inline_session):
        for kind in ("frame", "mapping", "array"):
            (address,) = set(session.map(work.address, range(4), data=data[kind], progress=False).values())
            assert address == work.address(0, data[kind])


def test_every_job_gives_its_items_the_data_as_they_were(any_session: Session) -> None:
    data = tables_of(ROWS)

    @batch_objective
    def batch(columns: Any, frame: Any) -> Any:
        assert list(frame) == ["a", "b"]
        frame["x"] = 1.0
        return columns["n"] * 1.0

    space = ParameterSpace({"n": list(range(600))})
    optimizer = ParallelOptimizer(session=any_session)
    assert len(optimizer.optimize(space, batch, data=data["frame"], progress=False).frame) == 600
    seeded = any_session.map(work.columns_then_more, range(6), data=data["frame"], seed=1, progress=False)
    assert seeded.values() == [["a", "b"]] * 6
    processor = ParallelDataProcessor(session=any_session)
    tables = {f"S{i}": data["frame"] for i in range(6)}
    found = processor.process_symbols(list(tables), work.of_frame_then_more, data=tables, progress=False)
    assert [found[name] for name in tables] == [["a", "b"]] * 6
    with pytest.raises(TaskError, match="read-only"):
        processor.process_symbols(list(tables), work.write_into, data=tables, progress=False)


def test_the_same_name_given_twice_is_one_table_in_an_item() -> None:
    take = taking({"A": prices()})
    tables = take()
    assert isinstance(tables, Tables)
    assert tables["A"] is tables["A"]
