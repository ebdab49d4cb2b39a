"""Shared data: exact, read-only, once on a machine, gone with its session; and honest accounts of it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shared_work as work

from admf_dask import Machine, ParallelOptimizer, ParameterSpace, Session, batch_objective
from admf_dask.errors import ResourceError, SessionClosed, SessionError, TaskError
from admf_dask.runtime.accounts import private_and_shared, private_memory
from admf_dask.runtime.leases import Lease, new_folder, sweep
from admf_dask.runtime.pack import HeavyCallWarning
from admf_dask.runtime.shared import SharedStore, arrival, parcel
from admf_dask.runtime.shared import store as store_module
from admf_dask.throttle import Throttle

ROWS = 200_000


def big(seed: int = 0, rows: int = ROWS) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(rows, 4))
    return pd.DataFrame(values, columns=list("abcd"), index=pd.date_range("2001", periods=rows, freq="min", tz="UTC"))


@pytest.fixture
def store() -> Iterator[SharedStore]:
    store = SharedStore()
    yield store
    store.close()


def _with_attributes() -> pd.DataFrame:
    frame = pd.DataFrame({"close": [1.0, 2.0]})
    frame.attrs["source"] = {"name": "a file"}
    return frame


def odd_things() -> dict[str, Any]:
    n = 50
    frame = pd.DataFrame(
        {
            "time": pd.date_range("2020-01-01", periods=n, freq="D", tz="America/New_York"),
            "naive": pd.date_range("2020-01-01", periods=n, freq="s"),
            "delta": pd.to_timedelta(np.arange(n), unit="h"),
            "symbol": pd.Categorical(["AAPL", "IBM"] * (n // 2), categories=["IBM", "AAPL", "X"], ordered=True),
            "text": [f"t{i}" for i in range(n)],
            "maybe": pd.array([1, None] * (n // 2), dtype="Int32"),
            "flag": pd.array([True, None] * (n // 2), dtype="boolean"),
            "arrow": pd.array([1.5, None] * (n // 2), dtype="float64[pyarrow]"),
            "words": pd.array(["a", None] * (n // 2), dtype="string[pyarrow]"),
            "period": pd.period_range("2000-01", periods=n, freq="M"),
            "small": np.arange(n, dtype="int8"),
            "object": [{"a": i} for i in range(n)],
        }
    )
    levels = pd.MultiIndex.from_product([["x", "y"], range(25)], names=["side", None])
    return {
        "every dtype": frame,
        "multi index": frame.set_index(levels)[["small", "time"]],
        "two levels of columns": pd.DataFrame(np.ones((3, 2)), columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        "series": frame["time"].rename("when"),
        "index with freq": pd.Series(1.0, index=pd.date_range("2020", periods=9, freq="QE")),
        "every second row": pd.DataFrame(np.arange(4000.0).reshape(1000, 4))[::2],
        "no rows": frame.iloc[:0],
        "no columns": frame[[]],
        "array": np.arange(1000.0),
        "column of a table": np.arange(4000.0).reshape(1000, 4)[:, 1],
        "fortran order": np.asfortranarray(np.arange(4000.0).reshape(1000, 4)),
        "records": np.zeros(100, dtype=[("a", "f8"), ("b", "i4")]),
        "one number": np.array(3.5),
        "times": frame["naive"].to_numpy(),
        "table of times": np.arange(1000).reshape(100, 10).astype("M8[s]")[:, ::2],
        "records with times": np.zeros(100, dtype=[("t", "M8[ns]"), ("p", "f8")])[::2],
        "recarray": np.rec.array(np.zeros(100, dtype=[("a", "f8"), ("b", "i4")])),
        "repeated texts": pd.DataFrame({c: pd.Series(["IBM", "X"] * 25, dtype=object) for c in "ab"}),
        "texts and nothing": pd.Series([None, float("nan"), "a", "a", pd.NA] * 10, dtype=object),
        "numbers as objects": pd.Series([0.0, -0.0, 1, True, "a"] * 10, dtype=object),
        "columns that are no texts": pd.DataFrame(np.ones((3, 3)), columns=[1, ("a", 2), pd.Timestamp("2001")]),
        "columns of one name": pd.DataFrame(np.ones((3, 2)), columns=["a", "a"]),
        "attributes": _with_attributes(),
        "mapping": {"AAPL": frame[["small"]], "IBM": frame[["time"]]},
    }


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right) or isinstance(left, dict)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left, right, check_freq=True, check_exact=True)
        assert left.attrs == right.attrs
    elif isinstance(left, pd.Series):
        pd.testing.assert_series_equal(left, right, check_freq=True, check_exact=True)
        if left.dtype == object:
            assert [(type(one), repr(one)) for one in left] == [(type(one), repr(one)) for one in right]
    else:
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("kind", odd_things())
def test_what_comes_out_is_what_went_in(store: SharedStore, kind: str) -> None:
    thing = odd_things()[kind]
    handle = store.share(thing)
    assert_same(handle.value, thing)
    assert_same(pickle.loads(pickle.dumps(handle)).value, thing)
    assert len(pickle.dumps(handle)) < 1000


def prices_with_all_kinds(rows: int = 100_000) -> pd.DataFrame:
    times = pd.date_range("2001", periods=rows, freq="min", tz="UTC")
    symbols = pd.MultiIndex.from_product([["A", "B"], times[: rows // 2]], names=["symbol", "time"])
    return pd.DataFrame(
        {
            "close": np.arange(rows, dtype="float32"),
            "when": times.tz_convert("America/New_York"),
            "held": pd.to_timedelta(np.arange(rows), unit="s"),
            "count": pd.array(np.arange(rows), dtype="Int64"),
            "words": pd.array(["a", "b"] * (rows // 2), dtype="string[pyarrow]"),
            "venue": pd.Categorical(["X", "Y"] * (rows // 2)),
        },
        index=symbols,
    )


@pytest.mark.parametrize("index", ["time", "symbols"])
def test_two_maps_of_a_table_cost_no_private_memory(store: SharedStore, index: str) -> None:
    table = prices_with_all_kinds()
    table = table if index == "symbols" else table.set_index(pd.DatetimeIndex(table["when"], name="time"))
    handle = store.share(table)
    assert len(parcel.Parcel.of(table).head) < 20_000  # nothing that has a length of rows is inside
    first, second = parcel.load(handle.path), parcel.load(handle.path)
    for value in (first, second):
        pd.testing.assert_frame_equal(value, table, check_exact=True)
        times = value.index.levels[1] if index == "symbols" else value.index
        columns = [value["close"].array, value["when"].array, value["held"].array, times.array]
        for array in [np.asarray(columns[0]), *(column.view("i8") for column in columns[1:])]:
            assert not array.flags.writeable
            assert isinstance(owner(array), memoryview)  # of the file, not an array of this process


def owner(array: Any) -> Any:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_texts_that_repeat_are_one_object_each(store: SharedStore) -> None:
    texts = pd.Series([f"S{i % 7}" for i in range(1000)], dtype=object)
    value = store.share(texts).value
    assert len({id(one) for one in value}) == 7
    assert len({id(one) for one in texts}) == 1000


@pytest.mark.parametrize(
    "kind", ["array", "column of a table", "fortran order", "every second row", "times", "recarray", "records"]
)
def test_nothing_that_comes_out_can_be_written(store: SharedStore, kind: str) -> None:
    value = store.share(odd_things()[kind]).value
    array = value if isinstance(value, np.ndarray) else value.iloc[:, 0].to_numpy(copy=False)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = array[1]


def test_the_same_content_is_there_once_and_other_content_beside_it(store: SharedStore) -> None:
    frame = (
        big().copy()
    )  # pandas 2 leaves an array's memory in its own order, and a copy of that frame is laid out anew
    first, again, other = store.share(frame), store.share(frame.copy()), store.share(big(1))
    assert first == again
    assert first != other
    assert store.share(first) is first
    assert len(os.listdir(Path(first.path).parent)) == 3  # two files and the lease


def test_a_frame_changed_after_it_was_shared_is_other_content(store: SharedStore) -> None:
    frame = big()
    first = store.share(frame)
    before = first.value.iloc[0, 0]
    frame.iloc[0, 0] = before + 1
    assert store.share(frame) != first
    assert first.value.iloc[0, 0] == before


def test_a_thing_that_cannot_be_pickled_is_named(store: SharedStore) -> None:
    with pytest.raises(TaskError, match="generator cannot be shared, because it cannot be pickled"):
        store.share(i for i in range(3))


# -- room ------------------------------------------------------------------------------------------------------------


def test_a_small_tmpfs_sends_the_file_to_disk(store: SharedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = {store_module.IN_MEMORY: 64 * 2**10}
    real = store_module._room
    monkeypatch.setattr(store_module, "_room", lambda home: rooms.get(home, real(home)))
    handle = store.share(big())
    assert not handle.path.startswith("/dev/shm")
    assert store.in_memory == 0
    assert handle.value.equals(big())


def test_a_tmpfs_that_is_full_after_all_sends_the_file_to_disk(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parcel.Parcel.write

    def refuse(self: Any, path: Path) -> str:
        if str(path).startswith("/dev/shm"):
            raise OSError(28, "No space left on device")
        return real(self, path)

    monkeypatch.setattr(parcel.Parcel, "write", refuse)
    assert not store.share(big()).path.startswith("/dev/shm")


def test_no_room_anywhere_says_what_to_do(store: SharedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_room", lambda home: 1000)
    with pytest.raises(ResourceError, match=r"no room to share 7\.63 MiB .*set TMPDIR to a larger disk"):
        store.share(big())


# -- in a session ------------------------------------------------------------------------------------------------------


def test_every_mode_computes_the_same_from_a_handle_and_from_the_data(any_session: Session) -> None:
    frame = big()
    handle = any_session.share(frame)
    expected = [float(frame.iloc[:, i].sum()) for i in range(4)]
    for data in (frame, handle):
        assert any_session.map(work.total, range(4), data=data, progress=False).values() == expected


def test_large_data_is_shared_unasked_and_mapped_once_in_a_process(hybrid_session: Session) -> None:
    seen = hybrid_session.map(work.where, range(40), data=big(2), progress=False).values()
    by_process: dict[int, set[int]] = {}
    for pid, writeable, identity in seen:
        assert not writeable
        by_process.setdefault(pid, set()).add(identity)
    assert all(len(identities) == 1 for identities in by_process.values())


def test_writing_names_copy(process_session: Session) -> None:
    with pytest.raises(TaskError, match="read-only") as caught:
        process_session.map(work.write, [0, 1], data=big(3), progress=False)
    assert isinstance(caught.value.__cause__, ValueError)
    assert any("data = data.copy()" in note for note in caught.value.__cause__.__notes__)
    assert any("assignment destination" in note for note in caught.value.__cause__.__notes__)


def test_a_handle_in_a_closure_and_in_a_dask_task(process_session: Session) -> None:
    handle = process_session.share(np.arange(300_000.0))
    expected = float(np.arange(300_000.0).sum())
    assert process_session.map(lambda _: float(handle.value.sum()), [0], progress=False).values() == [expected]
    assert process_session.client.submit(work.handle_total, 0, handle).result() == expected


def test_a_mapping_of_frames(process_session: Session) -> None:
    tables = {f"S{i}": pd.DataFrame({"close": np.full(20_000, float(i))}) for i in range(20)}
    totals = process_session.map(work.of_symbol, list(tables), data=tables, progress=False).values()
    assert totals == [20_000.0 * i for i in range(20)]


def test_a_heavy_closure_is_answered_with_the_line_to_write(process_session: Session) -> None:
    frame = big(rows=400_000)

    def sum_of(i: int) -> float:
        return float(frame.iloc[:, i].sum())

    with pytest.warns(
        HeavyCallWarning, match=r"`sum_of` carries DataFrame 400,000 x 4 .* as `frame`; give it as data=frame"
    ):
        found = process_session.map(sum_of, range(4), progress=False)
    assert found.values() == [float(frame.iloc[:, i].sum()) for i in range(4)]


def test_an_optimizer_and_a_batch_objective_take_handles(process_session: Session) -> None:
    handle = process_session.share(big())
    space = ParameterSpace({"n": [1, 2, 3]})
    optimizer = ParallelOptimizer(session=process_session)
    by_frame = optimizer.optimize(space, work.score, data=big(), progress=False)
    by_handle = optimizer.optimize(space, work.score, data=handle, progress=False)
    assert by_frame.frame[["n", "score"]].equals(by_handle.frame[["n", "score"]])

    @batch_objective
    def column(columns: Any, frame: Any) -> Any:
        return np.cumsum(frame["a"].to_numpy())[columns["n"] - 1]

    batch = optimizer.optimize(space, column, data=handle, progress=False)
    assert np.allclose(batch.frame["score"], by_frame.frame["score"])


def test_a_journal_knows_shared_data_by_its_content(process_session: Session, tmp_path: Path) -> None:
    frame = big()
    first = process_session.map(work.total, range(3), data=frame, journal=tmp_path, progress=False)
    handle = process_session.share(frame)
    again = process_session.map(work.total, range(4), data=handle, journal=tmp_path, progress=False)
    assert [outcome.worker for outcome in again][:3] == [outcome.worker for outcome in first]
    assert again.values()[:3] == first.values()


# -- life --------------------------------------------------------------------------------------------------------------


def test_files_vanish_with_the_session() -> None:
    with Session(mode="thread", workers=1, dashboard=None) as session:
        handle = session.share(big())
        assert Path(handle.path).exists()
    assert not Path(handle.path).parent.exists()
    with pytest.raises(SessionError, match="the shared DataFrame 200,000 x 4 is not on this machine"):
        pickle.loads(pickle.dumps(handle)).value  # noqa: B018
    with pytest.raises(SessionClosed):
        session.share(big())


def test_a_killed_driver_leaves_files_that_the_next_one_sweeps() -> None:
    code = (
        "import numpy as np, os, signal\nfrom admf_dask import Session\n"
        "session = Session(mode='thread', workers=1, dashboard=None).open()\n"
        "print(session.share(np.arange(1e6)).path, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    left = Path(killed.stdout.strip())
    assert left.exists()
    with Session(mode="thread", workers=1, dashboard=None) as living:
        alive = Path(living.share(np.arange(1e6)).path)
        assert not left.exists()
        sweep(alive.parent.parent, arrival.PREFIX)
        assert alive.exists()


def test_a_folder_is_swept_when_its_last_holder_lets_go(tmp_path: Path) -> None:
    first = new_folder(tmp_path, "x-")
    second = Lease(first.folder)
    first.release()
    sweep(tmp_path, "x-")
    assert first.folder.exists()
    second.release()
    sweep(tmp_path, "x-")
    assert not first.folder.exists()


# -- another machine ---------------------------------------------------------------------------------------------------


def test_pieces_arrive_and_are_dropped(store: SharedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(arrival, "PIECE", 100_000)
    handle = store.share(big())
    content = Path(handle.path).read_bytes()
    elsewhere = handle.path.replace("/dev/shm", "/nowhere")
    assert not arrival.is_here(elsewhere, handle.size)
    pieces = list(arrival.pieces(handle.path))
    assert len(pieces) > 10
    for offset, piece in pieces:
        assert not arrival.is_here(elsewhere, handle.size)
        arrival.receive(elsewhere, handle.size, offset, piece)
    assert arrival.is_here(elsewhere, handle.size)
    arrived = arrival.local_path(elsewhere, handle.size)
    assert Path(arrived).read_bytes() == content
    assert parcel.load(arrived).equals(big())
    arrival.drop(str(Path(elsewhere).parent))
    assert not arrival.is_here(elsewhere, handle.size)


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_shared_pages_count_apart_and_end_nobody() -> None:
    array = np.random.default_rng(0).normal(size=60_000_000)  # 458 MiB, more than the limit
    with Session(mode="process", workers=2, memory_limit="400MiB", dashboard=None) as session:
        handle = session.share(array)
        expected = float(array.sum())
        assert session.map(work.read_all, range(6), data=handle, progress=False).values() == [expected] * 6
        table = session.memory()
        workers = table[table.index.str.startswith("worker")]
        assert len(workers) == 2
        assert (workers["shared"] > array.nbytes).all()
        assert (workers["private"] < 300 * 2**20).all()
        assert (workers["limit"] == 400 * 2**20).all()
        assert table.loc["shared data", "total"] >= array.nbytes
        # Once, however many map it.
        own = workers["private"].sum() + table.loc["driver", "private"]
        assert table.loc["used by us", "total"] < own + 1.5 * array.nbytes
        assert 0 < table.loc["free", "total"] < table.loc["machine", "total"]
        assert table.loc["driver", "pid"] == os.getpid()


def test_private_memory_of_a_process_that_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(ProcessLookupError):
        private_memory(ended.pid)
    private, shared = private_and_shared(os.getpid())
    assert private > 0
    assert shared > 0


def test_a_memory_limit_beyond_the_allowance_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"2 x 9\d+ TiB are more than the .* left there; write memory_limit="):
        Session(mode="process", workers=2, memory_limit=10**15, dashboard=None).open()


# -- a machine that gets full ------------------------------------------------------------------------------------------


def machine(percent: float) -> Machine:
    return Machine(8, 1000 * 2**20, int((100 - percent) * 10 * 2**20), 0.0)


def test_a_full_machine_is_fed_less_and_an_empty_one_more() -> None:
    throttle = Throttle(80, 16)
    said = [
        (throttle.look(machine(percent)), throttle.allowed)
        for percent in (50, 85, 85, 85, 85, 85, 79, 76, 70, 70, 70, 70)
    ]
    assert [allowed for _, allowed in said] == [16, 8, 4, 2, 1, 1, 1, 2, 4, 8, 16, 16]
    words = [words for words, _ in said if words]
    assert len(words) == 2
    assert words[0].startswith("memory is short: 85 % of 0.977 GiB is in use and max_memory_percent is 80")
    assert words[1].startswith("memory has room again")


def test_a_run_on_a_full_machine_goes_on_and_says_so_once(
    process_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from admf_dask.events import Event, Notice
    from admf_dask.runtime import driver

    looks: list[float] = []
    clock: Callable[[], float] = time.monotonic

    class Full:
        @staticmethod
        def probe(*, interval: float) -> Machine:
            looks.append(clock())
            return machine(95 if len(looks) < 4 else 20)

    class Ear:
        def __init__(self) -> None:
            self.notices: list[str] = []

        def on_event(self, event: Event) -> None:
            if isinstance(event, Notice):
                self.notices.append(event.text)

    monkeypatch.setattr(driver, "Machine", Full)
    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.0)
    ear = Ear()
    found = process_session.map(lambda i: time.sleep(0.01) or i, range(200), progress=ear)
    assert found.values() == list(range(200))
    assert [words.split(":")[0].split("(")[0].strip() for words in ear.notices] == [
        "memory is short", "memory has room again",
    ]  # fmt: skip
