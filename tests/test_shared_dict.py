"""One dictionary across driver and workers."""

from __future__ import annotations

from typing import Any

import pytest

from admf_dask import Session, SessionError
from admf_dask.runtime.shared_dict import SharedDict


def count(item: int, counts: Any) -> int:
    counts.compute("calls", lambda n: (n or 0) + 1)
    counts.compute("best", lambda best: item if best is None else max(best, item))
    counts[f"item {item % 3}"] = item
    return len(counts)


def test_workers_and_driver_share_one_dictionary(any_session: Session) -> None:
    counts = any_session.shared_dict("counts")
    counts.clear()
    any_session.map(count, range(60), data=counts, progress=False)
    assert counts["calls"] == 60, "a read-modify-write was lost"
    assert counts["best"] == 59
    assert set(counts) == {"calls", "best", "item 0", "item 1", "item 2"}
    assert any_session.shared_dict("counts")["calls"] == 60
    assert len(any_session.shared_dict("another")) == 0


def test_it_is_a_mapping(any_session: Session) -> None:
    ours = any_session.shared_dict("laws")
    ours.clear()
    ours.update({"a": 1, ("b", 2): [3]}, c=None)
    assert dict(ours) == {"a": 1, ("b", 2): [3], "c": None}
    assert ours == {"a": 1, ("b", 2): [3], "c": None}
    assert sorted(map(str, ours.keys())) == ["('b', 2)", "a", "c"]
    assert ours | {"a": 9, "z": 0} == {"a": 9, ("b", 2): [3], "c": None, "z": 0}
    assert {"a": 9, "z": 0} | ours == {"a": 1, ("b", 2): [3], "c": None, "z": 0}
    same = ours
    same |= {"c": None}
    assert same is ours
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = ours | [("a", 1)]
    assert ours.setdefault("a", 5) == 1
    assert ours.setdefault("d", 5) == 5
    assert ours.setdefault("c", 5) is None
    assert ours.popitem() == ("d", 5)
    assert ours.pop("a") == 1
    assert ours.pop("a", 0) == 0
    for missing in (lambda: ours["a"], lambda: ours.pop("a"), lambda: ours.__delitem__("a")):
        with pytest.raises(KeyError, match="a"):
            missing()
    assert "a" not in ours
    ours.clear()
    with pytest.raises(KeyError, match="empty"):
        ours.popitem()
    with pytest.raises(ZeroDivisionError):
        ours.compute("x", lambda value: 1 // 0)
    assert len(ours) == 0
    # Unlike a dict it tells these apart, so they cannot go through one.
    for key in (1, 1.0, True):
        ours[key] = type(key).__name__
    assert [ours[key] for key in (1, 1.0, True)] == ["int", "float", "bool"]
    assert len(ours) == 3


def test_misuse_is_told() -> None:
    with Session(mode="thread", workers=1, dashboard=None) as session:
        ours = session.shared_dict("x")
        with pytest.raises(TypeError, match="needs a name"):
            session.shared_dict("")
    with pytest.raises(SessionError, match="is closed, and the dictionary with it"):
        ours["a"] = 1


def test_an_update_is_one_step(process_session: Session) -> None:
    ours = process_session.shared_dict("pairs")
    ours.update(left=0, right=0)

    def write(number: int, pairs: SharedDict) -> list[bool]:
        seen = []
        for turn in range(30):
            pairs.update(left=(number, turn), right=(number, turn))
            now = pairs.copy()
            seen.append(now["left"] == now["right"])
        return seen

    assert all(all(seen) for seen in process_session.map(write, range(4), data=ours, progress=False).values())
