"""What is public, to the letter: nothing becomes public by accident, and every name works as users meet it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import admf_dask

PUBLIC = [
    "AdmfError",
    "BacktestResults",
    "BooksDisagree",
    "Choice",
    "ClusterLost",
    "Conditional",
    "ConfigError",
    "DataError",
    "EngineError",
    "FloatRange",
    "IntRange",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalMismatch",
    "Layout",
    "LogRange",
    "Machine",
    "NotSupported",
    "OptimizationResult",
    "Outcome",
    "Outcomes",
    "ParallelConfig",
    "ParallelDataProcessor",
    "ParallelOptimizer",
    "ParallelProgress",
    "ParameterSpace",
    "ResourceError",
    "ResourceManager",
    "SchedulerUnreachable",
    "Session",
    "SessionClosed",
    "SessionError",
    "SharedData",
    "SpaceError",
    "SymbolResults",
    "TaskError",
    "TaskFailed",
    "TaskQueue",
    "TaskTimeout",
    "ThreadPool",
    "ThreadSafeDict",
    "UnknownStrategy",
    "WorkerDied",
    "__version__",
    "backtest_objective",
    "batch_objective",
    "datasets",
    "engine",
    "run_isolated_process",
    "run_parallel_backtests",
    "steps",
]


def test_the_list_of_public_names() -> None:
    assert admf_dask.__all__ == PUBLIC == sorted(PUBLIC)


def test_dir_shows_exactly_the_public_names() -> None:
    assert dir(admf_dask) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there_and_calls_itself_by_its_public_name(name: str) -> None:
    value = getattr(admf_dask, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert (value.__module__, value.__qualname__) == ("admf_dask", name)
        assert inspect.getdoc(value), "a public name without a docstring"
    assert getattr(admf_dask, name) is value


def test_star_import_gives_the_same() -> None:
    names: dict[str, object] = {}
    exec("from admf_dask import *", names)
    assert set(PUBLIC) <= set(names)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "ParalelOptimizer",
            "module 'admf_dask' has no attribute 'ParalelOptimizer'; did you mean 'ParallelOptimizer'?",
        ),
        ("session", "module 'admf_dask' has no attribute 'session'; did you mean 'Session'?"),
        ("xyzzy_42", "module 'admf_dask' has no attribute 'xyzzy_42'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, message: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(admf_dask, wrong)
    assert str(caught.value) == message


def test_type_checkers_see_the_same_names() -> None:
    """The block for type checkers in `__init__` is written by hand; so it is compared.

    With `as`: strict checkers, and editors, take a name for private that a module only imports.
    """
    import ast
    from pathlib import Path

    tree = ast.parse(Path(admf_dask.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    seen = {
        alias.asname: f"{node.module}.{alias.name}".removeprefix("admf_dask.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted([*seen, "__version__"]) == PUBLIC
    rooms = {name: f"{room}.{name}" for name, room in admf_dask._HOME.items()}
    assert {name: seen[name] for name in rooms} == rooms


def test_a_class_of_ours_travels_by_its_public_name() -> None:
    """A worker that never imported the inner module finds it."""
    code = (
        "import pickle, sys; sys.stdout.buffer.write(pickle.dumps(__import__('admf_dask').Layout('process', 2, 1, 3)))"
    )
    sent = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    code = "import pickle, sys; print(repr(pickle.load(sys.stdin.buffer)))"
    back = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True).stdout
    assert eval(back, {"Layout": admf_dask.Layout}) == admf_dask.Layout("process", 2, 1, 3)
