"""Notice a script that starts worker processes without `if __name__ == "__main__":`, before any process is started.

Worker processes are spawned, and a spawned child imports the main module again. Unguarded, that import would open a
session in the child, which would start children of its own.
"""

from __future__ import annotations

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType

from admf_dask.errors import SessionError

_ADVICE = """Worker processes import the script again, so what starts them must stand under a guard. Write

    def main():
        ...   # what is now at the top level, from here on

    if __name__ == "__main__":
        main()

or use mode="thread", which starts no processes."""


def refuse_unguarded_main() -> None:
    """Raise SessionError, with the lines to write, where worker processes would import the caller again.

    Cost: reads the main script once (well under a millisecond for usual sizes).
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SessionError(f"a session was opened while a worker process imported the main script. {_ADVICE}")
    line = _top_level_line(sys._getframe(1))
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path == "<stdin>":
        raise SessionError(
            "the program was read from standard input, and worker processes would have to import it again; write it to a file, "
            'or use `python -c`, or mode="thread", which starts no processes'
        )
    if line is None or path is None:
        return
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return
    if not _guarded(tree, line):
        raise SessionError(f"{Path(path).name}, line {line}, opens a session at the top level of the script. {_ADVICE}")


def _top_level_line(frame: FrameType | None) -> int | None:
    """The line of the main script's top level that led here; None in a notebook, a REPL, a test, a module."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            path = getattr(sys.modules.get("__main__"), "__file__", None)
            return frame.f_lineno if path is not None and frame.f_code.co_filename == path else None
        frame = frame.f_back
    return None


def _guarded(tree: ast.Module, line: int) -> bool:
    for node in tree.body:
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            return isinstance(node, ast.If) and any(
                isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
            )
    return True
