"""Sphinx: pages in Markdown, the reference from docstrings. Build with `sphinx-build -W -b html docs docs/_build`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import admf_dask

sys.path.insert(0, str(Path(__file__).parent))
from notebook_pages import write_pages

project = "admf_dask"
author = copyright = "the admf_dask authors"
version = release = admf_dask.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"admf_dask {release}"
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
add_module_names = False
INNER = {"Session.run", "Outcomes.gather", "SharedData.identity_parts", "SharedData.taking", "Journal.begin"}
INNER |= {"BacktestResults.warn_if_all_equal", "GridBacktest.identity_parts", "GridBacktest.check_parameters"}
INNER |= {f"{kind}.values" for kind in ("IntRange", "FloatRange", "LogRange", "Choice")}
INNER |= {
    f"Combinable.{name}" for name in ("columns", "rows", "pick", "mask", "describe_rejection", "without_constraints")
}
INNER |= {f"ParameterGrid.{name}" for name in ("take", "with_constraints")}
"""Methods for other rooms of the house."""
MADE = {"Outcome", "Outcomes", "SharedData", "OptimizationResult", "BacktestResult", "BacktestResults", "SymbolResults"}
MADE |= {"Replay", "Audit", "SharedDict", "RunStatus", "ProgressStatistics", "CleaningReport"}
"""Results: made by calls, so nobody needs their signature."""
PLAIN = {
    r"\b_NotGiven \| ": "",
    r" \| _NotGiven\b": "",
    r"\b_NOT_GIVEN\b|<object object>": "...",
    r"~?\b(collections\.abc|typing)\.": "",
    r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]": r"NDArray[\1]",
}
"""What signatures are rid of."""


def fences(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written as people read them in a terminal; a fenced block and the title of a section become what
    Sphinx calls them. What stands below `Parameters` is a definition list as it is.
    """
    if what == "function" and not inspect.isroutine(thing):
        lines[:] = inspect.getdoc(type(thing).__call__).splitlines()  # an object that is called like a function
    out: list[str] = []
    inside = False
    for line in lines:
        bare = line.strip()
        if bare and set(bare) == {"-"} and out:
            title = out.pop()
            out += [f"{title[: len(title) - len(title.lstrip())]}.. rubric:: {title.strip()}", ""]
            continue
        if bare.startswith("```"):
            indent = line[: len(line) - len(line.lstrip())]
            out += [] if inside else ["", f"{indent}.. code-block:: {bare[3:] or 'text'}", ""]
            inside = not inside
            if not inside:
                out.append("")
        else:
            out.append(f"    {line}" if inside else escaped(line))
    lines[:] = out


def escaped(line: str) -> str:
    """`**options` in prose is no beginning of bold type."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"(?<![\w*])\*\*(?=\w)", r"\\*\\*", part) for part in parts[::2]]
    return "`".join(parts)


def signature(app: Any, what: str, name: str, thing: Any, options: Any, given: str | None, back: str | None) -> Any:
    """As one would write the call; none where only other calls make such an object."""
    if what == "class" and thing.__name__ in MADE:
        return "", None
    for pattern, plain in PLAIN.items():
        given, back = (text and re.sub(pattern, plain, text) for text in (given, back))
    return given, back


def skip(app: Any, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Whether a member is for other rooms of the house; None leaves it to Sphinx."""
    return True if getattr(thing, "__qualname__", "") in INNER else None


def setup(app: Any) -> None:
    """Docstrings and signatures are changed on their way; notebooks become pages."""
    app.connect("autodoc-process-docstring", fences)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir).parent / "notebooks", Path(app.srcdir)))
