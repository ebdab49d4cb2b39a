"""Two runs on one session at the same time: what one does to a process is not blamed on the other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_work
import fault_work as work
import pytest

from admf_dask import Outcomes, Session, TaskQueue, WorkerDied
from admf_dask.runtime import FailedItemsWarning
from admf_dask.runtime import company as company_module
from admf_dask.runtime.company import Company

pytestmark = pytest.mark.filterwarnings("ignore::admf_dask.runtime.mapping.FailedItemsWarning")

RUNS = {"one": "1" * 32, "other": "2" * 32}


def never() -> bool:
    return False


def test_who_is_alone_waits_for_the_others_and_holds_them_back() -> None:
    told: list[str] = []

    async def stay(company: Company, name: str, until: asyncio.Event, *, alone: bool = False) -> None:
        async with company.place(alone=alone, given_up=never):
            told.append(f"{name} in")
            await until.wait()
        told.append(f"{name} out")

    async def scene() -> None:
        company, first, suspect = Company(crowded=True), asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(stay(company, "a", first)), asyncio.create_task(stay(company, "b", first))]
        await asyncio.sleep(0)
        tasks += [
            asyncio.create_task(stay(company, "suspect", suspect, alone=True)),
            asyncio.create_task(stay(company, "late", first)),
            asyncio.create_task(stay(company, "another suspect", suspect, alone=True)),
        ]
        await asyncio.sleep(0)
        assert told == ["a in", "b in"]
        first.set()
        while "suspect in" not in told:
            await asyncio.sleep(0)
        assert told == ["a in", "b in", "a out", "b out", "suspect in"]
        suspect.set()
        await asyncio.gather(*tasks)
        assert sorted(told[5:]) == sorted(
            ["suspect out", "late in", "late out", "another suspect in", "another suspect out"]
        )

    asyncio.run(scene())


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that hangs keeps no suspect of another run from its test, and a suspect that hangs keeps no other run waiting."""
    monkeypatch.setattr(company_module, "PATIENCE", 0.05)

    async def scene() -> None:
        here, ends = Company(crowded=True), asyncio.Event()

        async def stay(*, alone: bool, inside: asyncio.Event) -> None:
            async with here.place(alone=alone, given_up=never):
                inside.set()
                await ends.wait()

        entered = [asyncio.Event() for _ in range(4)]
        stays = [
            asyncio.create_task(stay(alone=alone, inside=inside))
            for alone, inside in zip((False, True, True, False), entered, strict=True)
        ]
        await asyncio.gather(*(inside.wait() for inside in entered))
        ends.set()
        await asyncio.gather(*stays)

    asyncio.run(scene())


@pytest.mark.parametrize("alone", [True, False])
def test_who_is_given_up_does_not_wait_on(alone: bool) -> None:
    async def scene() -> None:
        company, given_up = Company(crowded=True), threading.Event()
        async with company.place(alone=not alone, given_up=never):

            async def wait() -> bool:
                async with company.place(alone=alone, given_up=given_up.is_set):
                    return given_up.is_set()

            waits = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert not waits.done()
            given_up.set()
            company.stir()
            assert await waits
        # The door is open again.
        async with company.place(alone=True, given_up=never):
            pass

    asyncio.run(scene())


def test_an_end_on_purpose_is_known_to_all_but_its_own_run() -> None:
    company = Company(crowded=False)
    company.ended[17] = RUNS["one"]
    assert company.ended_for_another(17, RUNS["other"])
    assert not company.ended_for_another(17, RUNS["one"])
    assert not company.ended_for_another(18, RUNS["one"])


# -- in real processes -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def beside(session: Session, function: Any, items: Any, **options: Any) -> Iterator[list[Outcomes]]:
    """A run in a thread of its own; what it came to is in the list afterwards."""
    found: list[Outcomes] = []

    def drive() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FailedItemsWarning)
            found.append(session.map(function, items, progress=False, **options))

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield found
    finally:
        thread.join()


@pytest.fixture(scope="module")
def one_process() -> Iterator[Session]:
    """One process of two threads, so that two runs meet there."""
    with Session(mode="hybrid", workers=2, threads_per_process=2, dashboard=None) as session:
        session.map(work.sleeps, [50] * 4, progress=False)
        yield session


def leave_two_runs(session: Session, folder: Path) -> None:
    """One after the other, while an item of each hangs."""
    for number in range(2):
        for outcome in session.as_completed(work.begins_to_hang, [None, number], data=str(folder)):
            assert outcome.ok
            cluster_work.wait_for_file(str(folder / str(number)))
            break
        # Once there is a process again.
        session.map(work.sleeps, [30], progress=False)


@pytest.mark.cluster
def test_a_run_that_is_left_does_not_cost_another_its_item(one_process: Session, tmp_path: Path) -> None:
    """Each time the first run is left, the process is ended, and with it the item of the second."""
    with beside(one_process, work.sleeps, [1_800, 1, 2]) as found:
        leave_two_runs(one_process, tmp_path)
    (outcomes,) = found
    assert outcomes.values() == [1_800, 1, 2]
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 1]


@pytest.mark.cluster
def test_a_run_that_is_left_does_not_cost_a_queue_its_task(one_process: Session, tmp_path: Path) -> None:
    queue = TaskQueue(session=one_process)
    queue.add_task("long", work.sleeps, 1_800)
    worker = threading.Thread(target=queue.process_tasks)
    worker.start()
    try:
        leave_two_runs(one_process, tmp_path)
    finally:
        worker.join()
    assert queue.get_result("long") == 1_800


@pytest.mark.cluster
def test_a_timeout_in_one_run_does_not_cost_another_its_item(one_process: Session) -> None:
    items = ["c loop that holds the interpreter", 1, 2, 3]
    with beside(one_process, work.sleeps, [900] * 4) as found:
        hung = one_process.map(work.act, items, timeout=0.4, progress=False)
    (outcomes,) = found
    assert outcomes.values() == [900] * 4
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert [outcome.item for outcome in hung if not outcome.ok] == items[:1]


@pytest.mark.cluster
def test_a_timeout_of_one_run_is_none_for_what_its_threads_do_next(one_process: Session) -> None:
    """Both threads have worked for the run with a timeout, which goes on, when items of the other come that take longer."""
    threads: set[int] = set()
    with contextlib.closing(one_process.as_completed(work.sleeps_in_thread, [50] * 200, timeout=0.4)) as timed:
        while len(threads) < 2:
            threads.add(next(timed).value)
        with beside(one_process, work.sleeps_in_thread, [900] * 2) as found:
            while not found:
                next(timed)
    (outcomes,) = found
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert threads.issuperset(outcomes.values())


@pytest.mark.cluster
def test_the_deaths_of_one_run_are_not_blamed_on_another(one_process: Session) -> None:
    """Both have a guilty item: each is found, though each process that one of them ends has items of the other run in it."""
    items: list[Any] = [*range(20), "segfault", *range(20)]
    with beside(one_process, work.sleeps_or_acts, items) as found:
        other = one_process.map(work.sleeps_or_acts, [*items, "exit"], progress=False)
    (outcomes,) = found
    assert [outcome.item for outcome in outcomes if not outcome.ok] == ["segfault"]
    assert [outcome.item for outcome in other if not outcome.ok] == ["segfault", "exit"]
    for outcome in (*outcomes, *other):
        assert outcome.ok or isinstance(outcome.error, WorkerDied)


@pytest.mark.cluster
def test_a_suspect_that_only_waited_behind_anothers_killer_is_not_blamed(process_session: Session) -> None:
    items: list[Any] = [*range(8), "segfault", *range(8)]
    with beside(process_session, work.sleeps_or_acts, items) as found:
        other = process_session.map(work.sleeps_or_acts, items[::-1], progress=False)
    (outcomes,) = found
    for one in (outcomes, other):
        assert [outcome.item for outcome in one if not outcome.ok] == ["segfault"]
