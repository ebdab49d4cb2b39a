"""CPython's own suites for mappings, pools and queues, driven on ours where this Python came with them.

Debian and some builds leave them out; what they would show is shown by tests of our own in `test_local_tools` as well.
"""

from __future__ import annotations

import operator
import unittest
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from admf_dask import TaskQueue, ThreadPool, ThreadSafeDict
from admf_dask.runtime.shared_dict import SharedDict, Store


def cpythons(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip(f"test.{name}", reason="this Python came without CPython's own tests")


def run(case: type[unittest.TestCase], names: list[str], at_least: int) -> None:
    result = unittest.TestResult()
    unittest.TestSuite(case(name) for name in names).run(result)
    assert result.testsRun - len(result.skipped) >= at_least
    assert not result.errors + result.failures, result.errors + result.failures


def all_of(case: type[unittest.TestCase]) -> list[str]:
    return [name for name in unittest.TestLoader().getTestCaseNames(case) if callable(getattr(case, name))]


def test_a_dictionary_for_threads_is_a_mapping() -> None:
    class Dict(cpythons("mapping_tests").TestHashMappingProtocol):  # type: ignore[misc, name-defined]
        type2test = ThreadSafeDict

        def test_keys(self) -> None:
            # Views are snapshots here, so one that was taken before a change does not show it.
            assert list(self._full_mapping(self.reference).keys()) == list(self.reference)

        # It wants a dict's own text. What it wants beside that is in `test_local_tools`.
        test_repr = None

    run(Dict, all_of(Dict), 20)


def test_a_dictionary_for_workers_is_a_mapping() -> None:
    class Dict(cpythons("mapping_tests").BasicTestMappingProtocol):  # type: ignore[misc, name-defined]
        @staticmethod
        def type2test() -> SharedDict:
            return SharedDict("laws", store=Store())

    run(Dict, all_of(Dict), 14)


class Pool(ThreadPool):
    """With the verbs of `multiprocessing.Pool` that those tests use around `map`."""

    def map(self, func: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> list[Any]:
        return super().map(func, items)

    def terminate(self) -> None:
        self.stop()

    close = join = terminate


def test_the_pool_is_one() -> None:
    class Case(cpythons("_test_multiprocessing")._TestPool, unittest.TestCase):  # type: ignore[misc, name-defined]
        TYPE = "threads"
        Pool = Pool

    # Not `test_map_no_failfast`: here the first error stops the rest.
    run(Case, ["test_map", "test_map_handle_iterable_exception", "test_release_task_refs"], at_least=3)


def test_the_queue_blocks_as_queues_do() -> None:
    class Case(cpythons("test_queue").BlockingTestMixin, unittest.TestCase):  # type: ignore[misc, name-defined]
        def test_a_full_queue_blocks_until_one_is_taken(self) -> None:
            for size in (1, 5):
                queue = TaskQueue(size)
                for number in range(size):
                    queue.add_task(number, operator.neg, number)
                self.do_blocking_test(queue.add_task, ("last", abs, -1), queue.process_tasks, ())
                queue.process_tasks()
                assert queue.get_result("last") == 1
                for number in range(size):
                    queue.add_task((number,), operator.neg, number)
                self.do_blocking_test(queue.try_add_task, (30, "more", abs, -2), queue.process_tasks, ())

        def test_a_result_is_waited_for(self) -> None:
            queue = TaskQueue()
            queue.add_task("a", operator.neg, 5)
            assert self.do_blocking_test(queue.get_result, ("a",), queue.process_tasks, ()) == -5
            queue.add_task("b", operator.neg, 6)
            assert self.do_blocking_test(queue.get_result, ("b", 30), queue.process_tasks, (3,)) == -6

        def test_its_error_is_waited_for(self) -> None:
            queue = TaskQueue()
            queue.add_task("a", int, "x")
            with pytest.raises(ValueError, match="invalid literal"):
                self.do_exceptional_blocking_test(queue.get_result, ("a",), queue.process_tasks, (), ValueError)

        def test_tasks_run_in_the_order_of_their_adding(self) -> None:
            queue, seen = TaskQueue(), []
            for number in (111, 333, 222):
                queue.add_task(number, seen.append, number)
            queue.process_tasks()
            assert seen == [111, 333, 222]

    run(Case, all_of(Case), 4)
