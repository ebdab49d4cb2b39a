"""Executed notebooks as pages of the documentation: Markdown, code, and the outputs as they were committed."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

FOLDER = "_notebooks"


def write_pages(notebooks: Path, docs: Path) -> None:
    """One page for each notebook, in a folder of the documentation that is made anew."""
    folder = docs / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in sorted(notebooks.glob("[0-9]_*.ipynb")):
        parts = []
        for place, cell in enumerate(json.loads(path.read_text())["cells"]):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(source.replace(".ipynb)", ".md)"))
                continue
            parts.append(fence("python", source))
            for number, output in enumerate(cell["outputs"]):
                parts.append(shown(output, folder, f"{path.stem}-{place}-{number}.png"))
        parts.append(f"*This page is `notebooks/{path.name}`, executed.*")
        (folder / f"{path.stem}.md").write_text("\n\n".join(filter(None, parts)) + "\n")


def shown(output: dict[str, Any], folder: Path, picture: str) -> str:
    """An output in Markdown; a picture becomes a file."""
    data = output.get("data", {})
    if "image/png" in data:
        (folder / picture).write_bytes(base64.b64decode("".join(data["image/png"])))
        words = "".join(data.get("text/plain", ())).partition(";")[0].strip("[]\n").replace("'", "")
        return f"![{words}]({picture})"
    if "text/html" in data:
        return fence("{raw} html", f'<div class="output">{"".join(data["text/html"])}</div>')
    return fence("text", "".join(output.get("text") or data.get("text/plain", ())).rstrip("\n"))


def fence(kind: str, text: str) -> str:
    """A fenced block; nothing for no text."""
    return f"`````{kind}\n{text}\n`````" if text else ""
