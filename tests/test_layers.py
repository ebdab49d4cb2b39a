"""Arrows point down, there are no circles, and Dask is imported in two rooms only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "admf_dask"
WORDS = {
    "functions",
    "identity",
    "endings",
    "errors",
    "text",
    "rich",
    "above",
    "outcomes",
    "objectives",
    "ranking",
    "events",
    "weights",
    "yamlfile",
}
DECISIONS = {"admission", "spread", "policy", "throttle", "config", "machine", "resources", "space"}
OBSERVERS = {"journal", "progress"}
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(WORDS, WORDS),
    **dict.fromkeys(DECISIONS, WORDS | DECISIONS),
    "engine": WORDS,
    "steps": WORDS,
    "local": WORDS | {"resources"},
    **dict.fromkeys(OBSERVERS, WORDS | DECISIONS),
    "page": WORDS | DECISIONS | {"progress"},
    # An isolated call is how an item is done again, alone: the column of local tools is below the runtime.
    "runtime": WORDS | DECISIONS | OBSERVERS | {"local", "page"},
    **dict.fromkeys(
        ("optimize", "backtests", "symbols"),
        WORDS | DECISIONS | OBSERVERS | {"runtime", "engine", "local", "steps", "page"},
    ),
}
DOORS = {"", "__main__", "cli", "dashboard", "datasets", "study", "testing"}
MAY_IMPORT_DASK = {"runtime", "dashboard"}
TYPES = "from typing import TYPE_CHECKING"


def imports(package: Path, *, for_types: bool = True) -> dict[str, set[str]]:
    """Module -> modules it imports, dotted and absolute, wherever the import stands; `for_types`: also for type checkers."""
    found: dict[str, set[str]] = {}
    modules = {path: _name(package, path) for path in package.rglob("*.py")}
    for path, name in modules.items():
        targets = found.setdefault(name, set())
        for node in _nodes(ast.parse(path.read_text()), for_types):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} uses a relative import"
                targets |= {f"{node.module}.{alias.name}" for alias in node.names}
    known = set(modules.values())
    return {name: {_module(target, known) for target in targets} - {name} for name, targets in found.items()}


def _nodes(tree: ast.AST, for_types: bool) -> Iterator[ast.AST]:
    """Every node; without `for_types` leaves out the body of `if TYPE_CHECKING:`."""
    yield tree
    guarded = isinstance(tree, ast.If) and ast.unparse(tree.test).rpartition(".")[2] == "TYPE_CHECKING"
    children = tree.orelse if guarded and not for_types else ast.iter_child_nodes(tree)
    for child in children:
        yield from _nodes(child, for_types)


def _name(package: Path, path: Path) -> str:
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(target: str, known: set[str]) -> str:
    """`package.module.name` is the module if the name is not a module itself."""
    parent = target.rpartition(".")[0]
    return parent if target not in known and parent in known else target


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def upward_arrows(graph: dict[str, set[str]]) -> list[str]:
    wrong = []
    for module, targets in graph.items():
        here = room(module)
        for target in targets:
            if not target.startswith("admf_dask"):
                continue
            there = room(target)
            if here != there and here not in DOORS and there not in ALLOWED[here]:
                wrong.append(f"{module} -> {target}")
    return sorted(wrong)


def imports_of_dask(graph: dict[str, set[str]]) -> list[str]:
    return sorted(
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if room(module) not in MAY_IMPORT_DASK and target.split(".")[0] in ("dask", "distributed")
    )


def circles(graph: dict[str, set[str]]) -> list[str]:
    ours = {name: {target for target in targets if target in graph} for name, targets in graph.items()}
    found: list[str] = []
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for target in sorted(ours[name]):
            if state.get(target) == 1:
                found.append(" -> ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[name] = 2

    for name in sorted(ours):
        if name not in state:
            visit(name, [name])
    return found


def test_every_room_is_known() -> None:
    assert {room(module) for module in imports(PACKAGE)} <= ALLOWED.keys() | DOORS


def test_arrows_point_down() -> None:
    assert upward_arrows(imports(PACKAGE)) == []


def test_there_is_no_circle() -> None:
    assert circles(imports(PACKAGE)) == []


def test_dask_is_imported_in_two_rooms_only() -> None:
    # Annotations of public methods may name Dask's types; that imports nothing.
    assert imports_of_dask(imports(PACKAGE, for_types=False)) == []


@pytest.mark.parametrize(
    ("files", "arrow", "circle"),
    [
        ({"optimize/a.py": "x = 1", "space/a.py": "if True:\n    import admf_dask.optimize.a"}, 1, 0),
        ({"text.py": "from admf_dask import version", "__init__.py": "version = 1"}, 1, 0),
        ({"space/__init__.py": "from admf_dask.space.a import x", "space/a.py": "from admf_dask.space import x"}, 0, 1),
        ({"space/__init__.py": "from admf_dask.space.a import x", "space/a.py": "x = 1"}, 0, 0),
        (
            {
                "space/a.py": f"{TYPES}\nif TYPE_CHECKING:\n    from admf_dask.space.b import y",
                "space/b.py": "def y():\n    from admf_dask.space.c import z",
                "space/c.py": "from admf_dask.space import a",
            },
            0,
            1,
        ),
        ({"errors.py": "from admf_dask.runtime import Session", "runtime/__init__.py": ""}, 1, 0),
        ({"runtime/a.py": "from admf_dask.runtime import b", "runtime/b.py": "import admf_dask.runtime.a"}, 0, 1),
        ({"space/a.py": "def f():\n    from admf_dask.optimize import x", "optimize/__init__.py": "x = 1"}, 1, 0),
        ({"cli/a.py": "from admf_dask.errors import x", "errors.py": "x = 1"}, 0, 0),
    ],
)
def test_the_test_sees_what_it_should(tmp_path: Path, files: dict[str, str], arrow: int, circle: int) -> None:
    package = tmp_path / "admf_dask"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    graph = imports(package)
    assert len(upward_arrows(graph)) == arrow
    assert len(circles(graph)) == circle


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("space/a.py", "import dask.bag", ["admf_dask.space.a -> dask.bag"]),
        ("space/a.py", "def f():\n    from distributed import Client", ["admf_dask.space.a -> distributed.Client"]),
        ("space/a.py", f"{TYPES}\nif TYPE_CHECKING:\n    import dask", []),
        ("space/a.py", f"{TYPES}\nif TYPE_CHECKING:\n    x = 1\nelse:\n    import dask", ["admf_dask.space.a -> dask"]),
        ("runtime/a.py", "import dask", []),
        ("space/a.py", "import dasking", []),
    ],
)
def test_the_test_sees_an_import_of_dask(tmp_path: Path, file: str, text: str, found: list[str]) -> None:
    path = tmp_path / "admf_dask" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert imports_of_dask(imports(tmp_path / "admf_dask", for_types=False)) == found
