"""Sphinx: pages in Markdown, the reference from docstrings. Build with `sphinx-build -W -b html docs docs/_build`."""

from __future__ import annotations

import re
from typing import Any

import admf_dask

project = "admf_dask"
author = copyright = "the admf_dask authors"
version = release = admf_dask.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"admf_dask {release}"
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True


def fences(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written as people read them in a terminal; a fenced block and the title of a section become what
    Sphinx calls them. What stands below `Parameters` is a definition list as it is.
    """
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


def setup(app: Any) -> None:
    """Docstrings are changed on their way."""
    app.connect("autodoc-process-docstring", fences)
