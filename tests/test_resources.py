"""Facts in, numbers out: the original rule, and layouts whose limits keep the promise about memory."""

from __future__ import annotations

import re
import threading
import warnings
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from admf_dask import resources
from admf_dask.errors import ConfigError, ResourceError
from admf_dask.resources import FLOOR, Layout, Machine, ResourceManager, ResourceShortage

GIB = 2**30
PERCENT = st.integers(1, 100) | st.floats(1, 100)
MODE = st.sampled_from(["process", "thread", "hybrid"])


@st.composite
def machines(draw: st.DrawFn, least: int = 0) -> Machine:
    total = draw(st.integers(least, 512 * GIB))
    available = draw(st.integers(0, total))
    return Machine(draw(st.integers(1, 256)), total, available, draw(st.just(0.0) | st.floats(0, 100)))


def original_rule(machine: Machine, max_memory_percent: float, max_cpu_percent: float) -> int:
    """`get_optimal_workers` as the original document has it, word for word."""
    cpu_count, memory_total, memory_available = machine.cpu_count, machine.memory_total, machine.memory_available
    if memory_total > 0:
        memory_percent = (memory_total - memory_available) / memory_total * 100
        memory_headroom = max_memory_percent - memory_percent
        if memory_headroom <= 0:
            return 1
        memory_workers = max(1, int(cpu_count * memory_headroom / max_memory_percent))
    else:
        memory_workers = cpu_count
    cpu_percent = machine.cpu_percent
    if cpu_percent > 0:
        cpu_headroom = max_cpu_percent - cpu_percent
        if cpu_headroom <= 0:
            return 1
        cpu_workers = max(1, int(cpu_count * cpu_headroom / max_cpu_percent))
    else:
        cpu_workers = cpu_count
    return min(memory_workers, cpu_workers)


@given(machines(), PERCENT, PERCENT)
def test_optimal_workers_follow_the_original_rule(machine: Machine, memory: float, cpu: float) -> None:
    assert ResourceManager(memory, cpu, machine=machine).get_optimal_workers() == original_rule(machine, memory, cpu)


@pytest.mark.parametrize(
    ("cpus", "free", "load", "workers", "slots"),
    [
        (2, 0.98, 0.0, 1, 2),
        (2, 0.98, 30.0, 1, 1),
        (16, 0.97, 1.0, 15, 15),
        (16, 0.98, 0.0, 15, 16),
        (4, 0.1, 0.0, 1, 1),
    ],
)
def test_an_automatic_plan_rounds_where_the_rule_cuts_off(
    cpus: int, free: float, load: float, workers: int, slots: int
) -> None:
    manager = ResourceManager(machine=Machine(cpus, 64 * GIB, int(free * 64 * GIB), load))
    assert manager.get_optimal_workers() == workers
    with warnings.catch_warnings(action="ignore", category=ResourceShortage):
        assert manager.plan("process").workers == slots


@pytest.mark.parametrize(
    ("machine", "workers"),
    [
        (Machine(8, 16 * GIB, 16 * GIB, 0), 8),
        (Machine(8, 16 * GIB, 8 * GIB, 0), 3),  # 50 % used of 80: 8 * 30 / 80
        (Machine(8, 16 * GIB, 16 * GIB, 45.0), 4),  # 45 % busy of 90
        (Machine(8, 16 * GIB, 3 * GIB, 0), 1),
        (Machine(8, 16 * GIB, 16 * GIB, 95.0), 1),
        (Machine(8, 0, 0, 0), 8),
    ],
)
def test_optimal_workers_by_hand(machine: Machine, workers: int) -> None:
    assert ResourceManager(machine=machine).get_optimal_workers() == workers


@given(machines(1), PERCENT, MODE, st.integers(0, 300), st.integers(0, 16), st.integers(0, 4 * GIB))
def test_all_limits_and_what_is_held_stay_within_the_percentage(
    machine: Machine, percent: float, mode: str, slots: int, threads: int, held: int
) -> None:
    manager = ResourceManager(percent, machine=machine)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            layout = manager.plan(mode, slots, threads, held=held)
        except (ConfigError, ResourceError):
            assume(False)
    allowed = machine.memory_total * percent / 100
    others_and_we = max(held, machine.memory_total - machine.memory_available)
    if any("memory" in str(warning.message).partition(";")[0] for warning in caught):
        assert layout.workers == 1
    else:
        assert layout.processes * layout.memory_limit + others_and_we <= allowed or layout.memory_limit == 0
    assert layout.workers <= (slots or (threads if mode == "thread" and threads else machine.cpu_count))
    assert mode == "thread" or layout.memory_limit >= FLOOR
    assert mode != "process" or layout.threads_per_process == 1
    assert mode != "thread" or layout.processes == 1


@given(machines(GIB), PERCENT, st.sampled_from(["process", "hybrid"]), st.integers(1, 300), st.integers(0, 8))
def test_the_values_that_a_refusal_names_would_do(
    machine: Machine, percent: float, mode: str, slots: int, threads: int
) -> None:
    try:
        ResourceManager(percent, machine=machine).plan(mode, slots, threads, held=0)
    except ConfigError:
        assume(False)
    except ResourceError as error:
        named = dict(re.findall(r"(max_workers|max_memory_percent)=(\d+)", str(error)))
        fewer, more = int(named["max_workers"]), int(named.get("max_memory_percent", 0))
        used = machine.memory_total - machine.memory_available
        if fewer:
            assert ResourceManager(percent, machine=machine).plan(mode, fewer, threads, held=0).workers <= fewer < slots
        if more:
            assert more > percent
            enough = ResourceManager(more, machine=machine).plan(mode, slots, threads, held=0)
            assert enough.memory_limit >= FLOOR
            assert enough.processes * FLOOR > int(machine.memory_total * (more - 1) / 100) - used


def test_a_refusal_reads_well_and_counts_what_this_process_holds() -> None:
    manager = ResourceManager(machine=Machine(4, 4 * GIB, 3 * GIB, 0))
    with pytest.raises(ResourceError) as caught:
        manager.plan("process", 12, held=2 * GIB)
    assert str(caught.value) == (
        "12 processes need at least 256 MiB of memory each, but only 1.2 GiB are left below 80 % of 4 GiB (in use: 50 %); "
        "write max_workers=4"
    )
    assert manager.plan("process", 4, held=2 * GIB).memory_limit == (int(4 * GIB * 0.8) - 2 * GIB) // 4
    with pytest.raises(ResourceError, match=r"write max_workers=8 or max_memory_percent=88$"):
        manager.plan("process", 10, held=0)


def test_a_refusal_where_not_even_one_fits() -> None:
    manager = ResourceManager(machine=Machine(4, 4 * GIB, GIB // 2, 0))
    with pytest.raises(
        ResourceError, match=r"max_workers=0 \(automatic: one worker and a warning\) or max_memory_perc"
    ):
        manager.plan("process", 1, held=0)


@pytest.mark.parametrize(
    ("slots", "shape"),
    [(1, (1, 1)), (2, (2, 1)), (3, (3, 1)), (4, (2, 2)), (6, (3, 2)), (8, (4, 2)), (12, (4, 3)), (16, (4, 4))],
)
def test_hybrid_shapes(slots: int, shape: tuple[int, int]) -> None:
    manager = ResourceManager(machine=Machine(1, 64 * GIB, 64 * GIB, 0))
    layout = manager.plan("hybrid", slots, held=0)
    assert (layout.processes, layout.threads_per_process) == shape


@given(st.integers(1, 200), st.integers(1, 200))
def test_hybrid_law(slots: int, threads: int) -> None:
    manager = ResourceManager(100, machine=Machine(1, 512 * GIB, 512 * GIB, 0))
    automatic = manager.plan("hybrid", slots, held=0)
    assert slots - automatic.threads_per_process < automatic.workers <= slots
    assert automatic.threads_per_process <= automatic.processes
    assume(threads <= slots)
    chosen = manager.plan("hybrid", slots, threads, held=0)
    assert (chosen.processes, chosen.threads_per_process) == (slots // threads, threads)


def test_threads_and_workers_are_one_number_in_thread_mode() -> None:
    manager = ResourceManager(machine=Machine(2, 8 * GIB, 8 * GIB, 0))
    assert manager.plan("thread", held=0).workers == 2
    assert (
        manager.plan("thread", 5, held=0)
        == manager.plan("thread", 0, 5, held=0)
        == manager.plan("thread", 5, 5, held=0)
    )
    with pytest.raises(ConfigError, match="leave out threads_per_process"):
        manager.plan("thread", 4, 2)


def test_an_automatic_plan_has_fewer_processes_where_memory_is_short() -> None:
    manager = ResourceManager(machine=Machine(32, 2 * GIB, 2 * GIB, 0))
    assert manager.plan(held=0).processes == int(2 * GIB * 0.8) // FLOOR == 6
    assert manager.plan("hybrid", held=0).processes == 6


@pytest.mark.parametrize("mode", ["process", "thread", "hybrid"])
@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (
            Machine(8, 16 * GIB, 3 * GIB, 0),
            "81 % of 16 GiB memory is in use and max_memory_percent is 80, which leaves 0 B",
        ),
        (Machine(8, 16 * GIB, 16 * GIB, 90.0), "the 8 CPUs are 90 % busy and max_cpu_percent is 90; set max_workers"),
        (Machine(8, 16 * GIB, GIB, 97.0), r"memory is in use .* and the 8 CPUs are 97 % busy"),
    ],
)
def test_without_headroom_one_worker_and_a_warning_that_says_why(machine: Machine, why: str, mode: str) -> None:
    with pytest.warns(ResourceShortage, match=f"no headroom, so one worker is used: .*{why}") as caught:
        assert ResourceManager(machine=machine).plan(mode, held=0).workers == 1
    assert caught[0].filename == __file__


def test_a_process_that_holds_everything_itself_is_a_shortage_too() -> None:
    manager = ResourceManager(machine=Machine(8, 16 * GIB, 16 * GIB, 0))
    for mode in ("process", "thread"):
        with pytest.warns(ResourceShortage, match=r"88 % of 16 GiB"):
            assert manager.plan(mode, held=14 * GIB).workers == 1


def test_no_warning_for_a_number_that_was_asked_for_or_a_machine_of_one_cpu() -> None:
    busy = ResourceManager(machine=Machine(8, 16 * GIB, 16 * GIB, 100.0))
    assert busy.plan("process", 6, held=0).workers == 6
    assert busy.plan("thread", 6, held=0).workers == 6
    assert ResourceManager(machine=Machine(1, 16 * GIB, 16 * GIB, 100.0)).plan(held=0).workers == 1


def test_more_workers_than_cpus_are_given_when_asked_for() -> None:
    manager = ResourceManager(50, machine=Machine(2, 16 * GIB, 12 * GIB, 0))
    assert manager.plan("process", 8, held=0) == Layout("process", 8, 1, 4 * GIB // 8)


def test_where_memory_is_unknown_there_is_no_limit() -> None:
    layout = ResourceManager(machine=Machine(4, 0, 0, 0)).plan(held=0)
    assert layout == Layout("process", 4, 1, 0)
    assert str(layout) == "4 processes x 1 thread, no memory limit"


def test_what_this_process_holds_is_measured_when_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def memory_info(self) -> Any:
            return type("Info", (), {"rss": 3 * GIB})

    monkeypatch.setattr(resources.psutil, "Process", Process)
    manager = ResourceManager(100, machine=Machine(2, 16 * GIB, 14 * GIB, 0))
    assert manager.plan("process", 2) == Layout("process", 2, 1, (16 - 3) * GIB // 2)


def test_the_machine_is_measured_once_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    gate = threading.Barrier(4)

    def probe() -> Machine:
        calls.append(1)
        return Machine(4, GIB, GIB, 0)

    def ask() -> None:
        gate.wait(10)
        manager.get_optimal_workers()

    monkeypatch.setattr(Machine, "probe", probe)
    manager = ResourceManager()
    assert calls == []
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("proces",), "must be one of process, thread or hybrid, but is 'proces'; did you mean 'process'?"),
        (("process", -1), "`max_workers` must be a whole number"),
        (("process", True), "`max_workers` must be a whole number"),
        (("process", 2.0), "`max_workers` must be a whole number"),
        (("process", 2, 2), "write mode='hybrid'"),
        (("hybrid", 2, 4), "write max_workers=4 or threads_per_process=2"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ResourceManager(machine=Machine(4, GIB, GIB, 0)).plan(*arguments)


@pytest.mark.parametrize("percent", [0, -1, 101, float("nan"), True, "80"])
def test_percentages_are_checked(percent: Any) -> None:
    with pytest.raises(ConfigError, match="`max_memory_percent` must be a number above 0 and up to 100"):
        ResourceManager(percent)
    with pytest.raises(ConfigError, match="`max_cpu_percent` must be"):
        ResourceManager(80, percent)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout("process", 4, 1, int(2.1 * GIB)), "4 processes x 1 thread, 2.1 GiB each"),
        (Layout("process", 1, 1, GIB), "1 process x 1 thread, 1 GiB each"),
        (Layout("hybrid", 2, 3, GIB), "2 processes x 3 threads, 1 GiB each"),
        (Layout("thread", 1, 8, GIB), "this process x 8 threads"),
    ],
)
def test_a_layout_in_words(layout: Layout, words: str) -> None:
    assert str(layout) == words
    assert words in layout._repr_html_()
    assert eval(repr(layout)) == layout
    assert layout.workers == layout.processes * layout.threads_per_process
