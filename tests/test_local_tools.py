"""The pool of threads, the queue of tasks and the dictionary for threads: their laws, and their behaviour under many threads."""

from __future__ import annotations

import copy
import faulthandler
import operator
import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import fault_work as work
import pytest

from admf_dask import Session, SessionClosed, TaskFailed, TaskQueue, ThreadPool, ThreadSafeDict, WorkerDied
from admf_dask.local import tasks


def test_views_are_snapshots_and_iteration_survives_writers() -> None:
    ours = ThreadSafeDict(a=1, b=2)
    keys, items = ours.keys(), ours.items()
    for key in ours:
        ours[key + key] = 0
    assert list(keys) == ["a", "b"]
    assert dict(items) == {"a": 1, "b": 2}
    assert list(reversed(ours)) == ["bb", "aa", "b", "a"]


def test_what_a_dict_can_do() -> None:
    ours = ThreadSafeDict([("a", 1)], b=2)
    assert ours == {"a": 1, "b": 2}
    assert ours == {"a": 1, "b": 2}
    assert ours | {"c": 3} == {"a": 1, "b": 2, "c": 3}
    assert {"a": 0} | ours == {"a": 1, "b": 2}
    assert isinstance({"a": 0} | ours, ThreadSafeDict)
    ours |= {"d": 4}
    assert ours.copy() == ours
    assert copy.copy(ours) is not ours
    assert ours.setdefault("a", 9) == 1
    assert ours.pop("zz", None) is None
    assert ours.popitem() == ("d", 4)
    assert repr(ours) == "ThreadSafeDict({'a': 1, 'b': 2})"
    ours["self"] = ours
    assert repr(ours) == "ThreadSafeDict({'a': 1, 'b': 2, 'self': ...})"
    with pytest.raises(TypeError, match="unhashable"):
        hash(ours)
    with pytest.raises(TypeError, match=r"use session\.shared_dict"):
        pickle.dumps(ours)


def test_compute_is_one_step_and_an_error_changes_nothing() -> None:
    ours: ThreadSafeDict[str, int] = ThreadSafeDict(a=1)
    assert ours.compute("a", lambda value: (value or 0) + 1) == 2
    assert ours.compute("b", lambda value: 5 if value is None else 0) == 5
    with pytest.raises(ZeroDivisionError):
        ours.compute("a", lambda value: 1 // 0)
    assert ours == {"a": 2, "b": 5}


def together(count: int, work: Callable[[int], Any]) -> None:
    """Run in `count` threads that begin at the same moment; raises what one of them raised."""
    gate = threading.Barrier(count)
    errors: list[BaseException] = []

    def begin(number: int) -> None:
        try:
            gate.wait(30)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a deadlock"
    if errors:
        raise errors[0]


def test_a_hundred_thousand_operations_from_sixteen_threads() -> None:
    faulthandler.dump_traceback_later(100, exit=False)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    ours: ThreadSafeDict[Any, int] = ThreadSafeDict()
    try:

        def work(number: int) -> None:
            for step in range(1_300):
                ours.compute("count", lambda value: (value or 0) + 1)
                ours[number, step % 50] = step
                assert ours.get((number, step % 50)) == step
                ours.setdefault(step % 7, 0)
                ours.pop((number, (step + 25) % 50), None)
                assert len(ours.keys()) >= 1

        together(16, work)
    finally:
        sys.setswitchinterval(switch)
        faulthandler.cancel_dump_traceback_later()
    assert ours["count"] == 16 * 1_300
    assert {key for key in ours if isinstance(key, int)} == set(range(7))


# -- the pool ----------------------------------------------------------------------------------------------------------


def test_results_are_in_item_order_and_all_threads_work() -> None:
    gate = threading.Barrier(3)
    with ThreadPool(3) as pool:
        assert pool.running
        assert pool.map(lambda x: (gate.wait(30), x)[1], [2, 0, 1]) == [2, 0, 1]
        assert pool.map(operator.neg, range(1_000)) == [-x for x in range(1_000)]
        assert pool.map(operator.neg, []) == []
    assert not pool.running
    assert pool.map(operator.neg, [1, 2]) == [-1, -2], "a pool that is not running serves a single map"
    assert pool.start().map(operator.neg, [3]) == [-3]
    pool.stop()
    pool.stop()


@pytest.mark.parametrize("second", ["returns", "fails"])
def test_the_first_error_is_raised_and_the_rest_is_left_out(second: str) -> None:
    begun, first, gate = [], [], threading.Barrier(2)

    def fail(x: int) -> int:
        begun.append(x)
        gate.wait(30)
        if x == 0:
            first.append(threading.get_ident())
            raise LookupError("the first")
        while not first or "_help" in calls_of(first[0]):
            pass
        if second == "fails":
            raise LookupError("the second")
        return x

    with ThreadPool(2) as pool:
        with pytest.raises(LookupError, match="the first"):
            pool.map(fail, range(10_000))
        assert sorted(begun) == [0, 1]
        assert pool.map(operator.neg, [1]) == [-1], "the pool goes on"


def calls_of(thread: int) -> set[str]:
    """The functions that a thread is in."""
    frame = sys._current_frames().get(thread)
    names = set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_stopping_a_pool_lets_what_is_under_way_finish() -> None:
    pool, both, ends, stopped = ThreadPool(2).start(), threading.Barrier(3), threading.Event(), threading.Event()
    found: list[list[bool]] = []
    caller = threading.Thread(target=lambda: found.append(pool.map(lambda _: (both.wait(60), ends.wait(60))[1], "ab")))
    stopper = threading.Thread(target=lambda: (pool.stop(), stopped.set()))
    caller.start()
    both.wait(60)
    stopper.start()
    assert not stopped.wait(0.1), "that it goes on to wait can only be waited for"
    ends.set()
    stopper.join(60)
    caller.join(60)
    assert found == [[True, True]]
    assert not pool.running


def test_nested_and_concurrent_maps_do_not_wait_for_each_other() -> None:
    with ThreadPool(2) as pool:

        def nested(depth: int) -> int:
            return 1 if depth == 0 else sum(pool.map(nested, [depth - 1] * 3))

        together(6, lambda number: operator.eq(nested(4), 81) or pytest.fail("wrong sum"))
        together(
            8, lambda number: pool.map(operator.neg, range(500)) == [-x for x in range(500)] or pytest.fail("wrong")
        )


def test_inner_threads_are_bounded_and_restored() -> None:
    import numpy as np
    import threadpoolctl

    np.dot(np.eye(2), np.eye(2))

    def inner(_: int = 0) -> list[int]:
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]

    before = inner()
    with ThreadPool(64) as pool:
        assert all(set(found) <= {1} for found in pool.map(inner, range(4)))
    assert inner() == before


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_worker_counts_below_one_are_refused(workers: Any) -> None:
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1"):
        ThreadPool(workers)


def test_a_value_where_a_function_belongs() -> None:
    with pytest.raises(TypeError, match=r"write pool.map\(function, items\)"):
        ThreadPool(1).map(abs(-1), [1])  # type: ignore[arg-type]


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_tasks_run_and_results_are_asked_for_by_id() -> None:
    queue = TaskQueue()
    assert queue.add_task("a", operator.add, 1, 2) == "a"
    queue.add_task("b", int, "x")
    queue.add_task("c", dict, task_id=1)
    assert len(queue) == 3
    assert queue.process_tasks(worker_count=2) == 3
    assert queue.get_result("a") == 3
    assert queue.get_result("c") == {"task_id": 1}
    with pytest.raises(ValueError, match="invalid literal"):
        queue.get_result("b")
    with pytest.raises(KeyError, match="no task 'd' was added"):
        queue.get_result("d")
    assert queue.process_tasks() == 0


def test_ids_are_unique_and_functions_are_functions() -> None:
    queue = TaskQueue()
    queue.add_task(1, abs, -1)
    with pytest.raises(ValueError, match="1 was added before"):
        queue.add_task(1, abs, -2)
    with pytest.raises(TypeError, match="expected a function"):
        queue.add_task(2, abs(-2))  # type: ignore[arg-type]
    queue.process_tasks()
    with pytest.raises(ValueError, match="was added before"):
        queue.add_task(1, abs, -2)
    assert queue.get_result(1, forget=True) == 1
    queue.add_task(1, abs, -2)
    queue.clear()
    assert len(queue) == 0
    with pytest.raises(KeyError):
        queue.get_result(1)


def test_a_full_queue_blocks_in_time_and_until_one_is_taken() -> None:
    queue = TaskQueue(max_size=1)
    queue.add_task("a", abs, -1)
    with pytest.raises(TimeoutError, match=r"the queue is full \(1 tasks wait\)"):
        queue.try_add_task(0.01, "b", abs, -2)
    producer = threading.Thread(target=queue.add_task, args=("b", abs, -2))
    producer.start()
    assert queue.process_tasks() >= 1
    producer.join(30)
    queue.process_tasks()
    assert [queue.get_result(name) for name in "ab"] == [1, 2]


def test_results_are_waited_for_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = TaskQueue()
    queue.add_task("a", abs, -1)
    with pytest.raises(
        TimeoutError, match=r"no result after 0.01 seconds; nothing is being processed: call process_tasks"
    ):
        queue.get_result("a", timeout=0.01)
    monkeypatch.setattr(tasks, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(TimeoutError, match="call process_tasks"):
        queue.get_result("a")
    monkeypatch.undo()
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(queue.get_result("a")))
    waiter.start()
    queue.process_tasks()
    waiter.join(30)
    assert found == [1]


def test_a_result_is_waited_for_while_its_task_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PATIENCE_SECONDS", 0.02)
    queue, begun, ends = TaskQueue(), threading.Event(), threading.Event()
    queue.add_task("long", lambda: begun.set() or ends.wait(60))
    worker, end = threading.Thread(target=queue.process_tasks), threading.Timer(0.2, ends.set)
    worker.start()
    begun.wait(60)
    end.start()
    assert queue.get_result("long") is True
    end.join()
    worker.join()


def test_ctrl_c_leaves_what_waits_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, begun, joined, join = TaskQueue(), threading.Barrier(3), threading.Event(), threading.Thread.join

    def task(number: int) -> int:
        if number < 3:
            begun.wait(30)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            # The others are at their first until they are waited for.
            joined.wait(30)
        return number

    def join_them(thread: threading.Thread) -> None:
        joined.set()
        join(thread)

    monkeypatch.setattr(threading.Thread, "join", join_them)
    for number in range(50):
        queue.add_task(number, task, number)
    with pytest.raises(KeyboardInterrupt):
        queue.process_tasks(worker_count=3)
    assert len(queue) == 47
    assert queue.process_tasks(worker_count=3) == 47


def test_ctrl_c_in_a_task_ends_the_processing() -> None:
    queue = TaskQueue()
    queue.add_task("stop", work.act, "keyboard interrupt")
    queue.add_task("later", abs, -1)
    with pytest.raises(KeyboardInterrupt):
        queue.process_tasks()
    with pytest.raises(KeyboardInterrupt):
        queue.get_result("stop")
    assert len(queue) == 1
    assert queue.process_tasks() == 1


def test_tasks_may_add_tasks_and_process_them() -> None:
    queue = TaskQueue()

    def grow(depth: int) -> int:
        if depth:
            queue.add_task(("more", depth), grow, depth - 1)
        return depth

    def nested(name: str) -> int:
        queue.add_task((name, "inner"), abs, -3)
        queue.process_tasks()
        value: int = queue.get_result((name, "inner"), timeout=30)
        return value

    queue.add_task("a", grow, 20)
    assert queue.process_tasks(worker_count=3) == 21
    for name in "xyz":
        queue.add_task(name, nested, name)
    queue.process_tasks(worker_count=3)
    assert [queue.get_result(name, timeout=30) for name in "xyz"] == [3, 3, 3]


def test_producers_consumers_and_processors_in_many_threads() -> None:
    queue = TaskQueue(max_size=5)
    processed: list[int] = []
    produced = threading.Semaphore(0)

    def produce(number: int) -> None:
        for step in range(400):
            queue.add_task((number, step), operator.mul, number, step)
        produced.release()

    def process(_: int) -> None:
        # Until all producers are done and nothing waits: progress, not time.
        while sum(processed) < 6 * 400:
            processed.append(queue.process_tasks(2))

    def consume(number: int) -> None:
        produced.acquire()
        for step in range(0, 400, 7):
            queue.add_task(("seen", number, step), abs, -step)
            assert queue.get_result(("seen", number, step), timeout=60) == step

    roles = [produce] * 6 + [process] * 6
    together(12, lambda number: roles[number](number))
    assert sum(processed) == 2_400
    assert [queue.get_result((3, step), timeout=1) for step in range(400)] == [3 * step for step in range(400)]
    stop = threading.Event()
    helper = threading.Thread(target=lambda: [queue.process_tasks() for _ in iter(stop.is_set, True)])
    helper.start()
    together(4, consume)
    stop.set()
    helper.join(30)


@pytest.mark.parametrize("given", [{"max_size": -1}, {"max_size": 1.5}])
def test_sizes_and_counts_follow_their_rules(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_size must be"):
        TaskQueue(**given)
    with pytest.raises(ValueError, match="worker_count must be"):
        TaskQueue().process_tasks(0)


def test_with_a_session_tasks_run_there_under_their_ids(any_session: Session) -> None:
    queue, other = TaskQueue(session=any_session), TaskQueue(session=any_session)
    for number in range(6):
        queue.add_task(number, os.getpid)
        # Ids that print alike, and the same ids in another queue, are other tasks.
        queue.add_task(str(number), operator.neg, number)
        other.add_task(number, operator.add, number, 100)
    queue.add_task("bad", int, "x")
    queue.add_task("keywords", dict, task_id=1, key=2)
    assert queue.process_tasks(worker_count=3) == 14
    assert other.process_tasks(worker_count=3) == 6
    here = {queue.get_result(number) for number in range(6)} == {os.getpid()}
    assert here is (any_session.layout.mode == "thread")
    assert [queue.get_result(str(number)) for number in range(6)] == [-number for number in range(6)]
    assert [other.get_result(number) for number in range(6)] == [number + 100 for number in range(6)]
    assert queue.get_result("keywords") == {"task_id": 1, "key": 2}
    with pytest.raises(ValueError, match="invalid literal"):
        queue.get_result("bad")


@pytest.mark.cluster
def test_faults_of_tasks_elsewhere_are_theirs_alone(hybrid_session: Session) -> None:
    queue = TaskQueue(session=hybrid_session)
    faults: dict[str, tuple[type[BaseException], str | None]] = {
        "exit": (WorkerDied, "ended with exit code 3 while it ran task 'exit', twice, the last time alone"),
        "segfault": (WorkerDied, "was ended by SIGSEGV"),
        "recursion": (RecursionError, "maximum recursion"),
        "system exit": (SystemExit, "4"),
        "keyboard interrupt": (KeyboardInterrupt, None),
        "unpicklable result": (TaskFailed, "must survive pickling"),
        "unpicklable error": (TaskFailed, "HoldsALock: locked"),
    }
    for number in range(40):
        queue.add_task(number, work.sleeps, number % 5)
        if number % 6 == 0 and (names := list(faults)[number // 6 : number // 6 + 1]):
            queue.add_task(names[0], work.act, names[0])
    lock = threading.Lock()
    queue.add_task("cannot travel", operator.is_, lock, lock)
    assert queue.process_tasks(worker_count=6) == 40 + len(faults) + 1
    assert [queue.get_result(number) for number in range(40)] == [number % 5 for number in range(40)]
    for name, (kind, words) in faults.items():
        with pytest.raises(kind, match=words) as caught:
            queue.get_result(name)
        assert not isinstance(caught.value, WorkerDied) or caught.value.item == name
    with pytest.raises(TaskFailed, match="must survive pickling to reach a worker"):
        queue.get_result("cannot travel")


def test_in_threads_of_this_process_nothing_is_pickled(thread_session: Session) -> None:
    queue, lock = TaskQueue(session=thread_session), threading.Lock()
    queue.add_task("same", lambda: lock)
    queue.process_tasks()
    assert queue.get_result("same") is lock


def test_a_client_serves_too_and_what_is_none_is_refused(thread_session: Session) -> None:
    queue = TaskQueue(session=thread_session.client)
    queue.add_task("a", operator.add, 1, 2)
    queue.process_tasks()
    assert queue.get_result("a") == 3
    with pytest.raises(TypeError, match="session must be a Session or a distributed"):
        TaskQueue(session=3)
    with pytest.raises(SessionClosed, match="not open yet"):
        TaskQueue(session=Session(mode="thread"))
