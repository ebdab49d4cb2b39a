"""Executes the notebooks, which are written as the `.py` files beside this one, in a real kernel.

    python notebooks/build.py                      writes every .ipynb anew, with outputs and pictures
    python notebooks/build.py 1_first_grid         writes that one
    python notebooks/build.py --check 1_first_grid executes and says where the outcome differs from the .ipynb there

What is committed opens without a network: a Bokeh figure, or the page in a frame, becomes a PNG of it as Chromium draws it and
a line of text that says what is in the figure. A check needs no browser and compares that line, and all other text, after
`settle` and `blurred` have taken out what differs between two honest executions: times, rates, sizes in memory, ports, process
ids, paths. A cell with the tag `measured` shows figures that no two executions share: there every number is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import difflib
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Protocol

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SOURCES = sorted(HERE.glob("[0-9]_*.py"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SECONDS_FOR_A_CELL = 120
QUIET = ["--IPKernelApp.log_level=40"]
"""Newer kernels warn of plain text on loopback, which every message of a local kernel is."""
BOKEH_LOAD, BOKEH_EXEC = (
    "application/vnd.bokehjs_load.v0+json",
    "application/vnd.bokehjs_exec.v0+json",
)
SCRIPT, HTML, TEXT, PICTURE = "application/javascript", "text/html", "text/plain", "image/png"
FRAME = re.compile(r'<iframe[^>]*?src="([^"]+)"', re.DOTALL)

PRIVATE = [
    (
        re.compile(r"""[^\s"'(<>]*ipykernel_\d+/\d+\.py"""),
        "notebook",
    ),  # the file that a cell pretends to be
    (
        re.compile(r"<dynamic-code>"),
        "notebook",
    ),  # the same once cloudpickle, from 3.1.3 on, has sent it to a worker
    (re.compile(r"""[^\s"'(<>]*/(?:site-packages|lib/python3\.\d+)/"""), ""),
    (re.compile(re.escape(f"{HERE.parent}{os.sep}")), ""),
    (re.compile(rf"{re.escape(tempfile.gettempdir())}/(tmp\w{{8}}/)?"), "/tmp/"),
    (re.compile(r"(http://127\.0\.0\.1):\d+"), r"\1:8787"),
    (re.compile(r"((?:tcp|tls)://127\.0\.0\.1):\d+"), r"\1:8786"),
    (re.compile(r"\b(worker|process|pid) \d{2,}\b"), r"\1 1234"),
]
"""What must not be in a committed output, and what stands there instead."""

VARYING = [
    (
        re.compile(
            r"\d+ (?:m \d+ s|h \d+ m|d \d+ h)\b|\d[\d,.]* ?(?:ns|µs|ms|s|min|h)\b(?: \d+ (?:s|min)\b)?"
        ),
        "N s",
    ),
    (re.compile(r"\d[\d,.]* ?/ ?(?:s|min)\b"), "N/s"),
    # What a process had when it was stopped, while it grew.
    (re.compile(r"(?<=it had )\d[\d,.]* ?(?:MiB|GiB)\b"), "N"),
    (re.compile(r"\d[\d,.]*(?= ?(?:B|KiB|MiB|GiB|TiB|kB|MB|GB)\b)"), "N"),
]
"""What differs between two executions wherever it stands."""


class Camera(Protocol):
    """Makes pictures of what only a browser can draw."""

    async def of_html(self, body: str) -> bytes:
        """A PNG of a fragment of HTML with BokehJS at hand."""
        ...

    async def of_address(self, address: str) -> bytes:
        """A PNG of a page."""
        ...


def read(source: Path) -> nbformat.NotebookNode:
    """The notebook of a percent-format file, without outputs; ids and metadata are the same every time."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    for place, cell in enumerate(notebook.cells):
        cell.id = f"cell-{place}"
    return notebook


async def execute(notebook: nbformat.NotebookNode, camera: Camera | None = None) -> None:
    """Run all cells in a fresh kernel; outputs are settled cell by cell, while what they link to is still there."""
    client = NotebookClient(
        notebook,
        timeout=SECONDS_FOR_A_CELL,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=QUIET,
    )
    with private_folders():
        async with client.async_setup_kernel(cwd=str(HERE)):
            for place, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, place)
                if cell.cell_type == "code":
                    cell.outputs = await settle(cell.outputs, camera)


@contextlib.contextmanager
def private_folders() -> Any:
    """Jupyter's and IPython's files go to a temporary folder, and the kernel finds this checkout."""
    with tempfile.TemporaryDirectory(prefix="admf-dask-notebooks-") as folder:
        names = ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")
        paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        changes = {
            **dict.fromkeys(names, folder),
            "PYTHONPATH": paths,
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


async def settle(outputs: Iterable[Any], camera: Camera | None) -> list[Any]:
    """Outputs as they are committed: streams joined, pictures still, nothing that belongs to one machine."""
    settled: list[Any] = []
    for output in outputs:
        data = output.get("data", {})
        if BOKEH_LOAD in data:
            continue
        if BOKEH_EXEC in data:
            # The empty place came in the output before; the script that fills it is this one.
            place = settled.pop()
            words = describe(documents(data[SCRIPT]))
            draw = f"{place['data'][HTML]}<script>{data[SCRIPT]}</script>"
            settled.append(picture(words, await camera.of_html(draw) if camera else None))
        elif HTML in data and (frame := FRAME.search(data[HTML])):
            words = clean(f"[the page at {frame[1]}]")
            settled.append(
                picture(words, await camera.of_address(frame[1]) if camera else None)
            )
        elif (
            output.output_type == "stream"
            and settled
            and settled[-1].get("name") == output.name
        ):
            settled[-1]["text"] += clean(output.text)
        else:
            settled.append(clean_all(output))
    return settled


def picture(words: str, png: bytes | None) -> Any:
    """An output with words, and the picture where there is one."""
    image = {} if png is None else {PICTURE: base64.b64encode(png).decode() + "\n"}
    return nbformat.v4.new_output("display_data", data={TEXT: words, **image})


def documents(script: str) -> list[dict[str, Any]]:
    """The Bokeh documents inside the script that draws them."""
    found = re.search(r"const docs_json = (\{.*\});\n", script)
    assert found, "Bokeh's script holds no document"
    return list(json.loads(found[1]).values())


def describe(given: list[dict[str, Any]]) -> str:
    """What is in a figure: its title, and what each layer draws from which numbers."""
    from bokeh.document import Document
    from bokeh.models import GlyphRenderer, Plot

    words = []
    for one in given:
        for plot in Document.from_json(one).select({"type": Plot}):
            layers = [layer for layer in plot.renderers if isinstance(layer, GlyphRenderer)]
            words.append(
                f"[figure: {plot.title.text}; {'; '.join(sorted(map(layer_words, layers)))}]"
            )
    return "\n".join(sorted(words))  # a document does not keep its plots in an order


def layer_words(layer: Any) -> str:
    """`Rect of 2,530: score -0.12 to 1.24, x 10 to 50`: the kind, how many, and the ends of each column."""
    columns = layer.data_source.data
    size = max((len(column) for column in columns.values()), default=0)
    ends = [f"{name} {end_words(columns[name])}" for name in sorted(columns)]
    return f"{type(layer.glyph).__name__} of {size:,}: {', '.join(ends)}"


def end_words(column: Any) -> str:
    """The smallest and the largest, or the first and the last of what are no numbers."""
    import numpy as np

    values = np.asarray(column)
    if values.dtype.kind not in "iuf":
        return f"{values[0]} to {values[-1]}" if len(values) else "empty"
    values = values[np.isfinite(values)]
    return f"{values.min():.5g} to {values.max():.5g}" if len(values) else "empty"


def clean(text: str) -> str:
    """`text` without the paths, ports and process ids of this machine."""
    for pattern, instead in PRIVATE:
        text = pattern.sub(instead, text)
    return text


def clean_all(value: Any) -> Any:
    """`clean` for every text in an output."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return nbformat.from_dict({key: clean_all(inner) for key, inner in value.items()})
    return [clean_all(inner) for inner in value] if isinstance(value, list) else value


def blurred(text: str, *, measured: bool = False) -> str:
    """`text` without what two executions need not share; with `measured` without any number."""
    for pattern, instead in VARYING:
        text = pattern.sub(instead, text)
    if measured:
        text = re.sub(r"[ \t]+", " ", re.sub(r"-?\d[\d,.:e+-]*", "N", text))
    return text


def text_of(notebook: nbformat.NotebookNode) -> list[str]:
    """A notebook as lines to compare: each cell's source, and the text of its outputs, blurred."""
    lines: list[str] = []
    for place, cell in enumerate(notebook.cells):
        lines += [f"# cell {place} ({cell.cell_type})", *cell.source.splitlines()]
        measured = "measured" in cell.metadata.get("tags", ())
        for output in cell.get("outputs", ()):
            lines.append(f"# output ({output.output_type} {output.get('name', '')})")
            texts = [output.text] if output.output_type == "stream" else texts_of(output)
            for text in texts:
                lines += blurred(text, measured=measured).splitlines()
    return lines


def texts_of(output: Any) -> list[str]:
    """The texts of an output, by kind; a picture counts for nothing, so that no browser is needed to compare."""
    data = output.get("data", {})
    return [f"{kind}:\n{data[kind]}" for kind in sorted(data) if kind != PICTURE]


def differences(committed: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> list[str]:
    """Lines of a unified diff; none where the two say the same."""
    texts = text_of(committed), text_of(fresh)
    return list(difflib.unified_diff(*texts, "committed", "executed now", lineterm="", n=2))


async def check(source: Path) -> bool:
    """Execute, compare with what is committed, and say where they differ."""
    fresh = read(source)
    await execute(fresh)
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    found = differences(committed, fresh)
    print("\n".join(found) or f"{source.stem}: as committed")
    if found:
        print(f"If the new outcome is right, type: python notebooks/build.py {source.stem}")
    return not found


async def build(sources: list[Path]) -> None:
    """Execute, take pictures, write."""
    async with chromium() as camera:
        for source in sources:
            notebook = read(source)
            await execute(notebook, camera)
            nbformat.validate(notebook)
            target = source.with_suffix(".ipynb")
            nbformat.write(notebook, target)
            print(f"{target.name}: {target.stat().st_size / 1000:,.0f} kB")


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Camera]:
    """A browser for pictures."""
    import camera

    async with camera.open_camera() as ready:
        yield ready


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Execute the notebooks; write them, or compare them with what is there."
    )
    parser.add_argument(
        "names",
        nargs="*",
        choices=[[], *(source.stem for source in SOURCES)],
        help="none: all of them",
    )
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    options = parser.parse_args(arguments)
    sources = [
        source for source in SOURCES if source.stem in options.names or not options.names
    ]
    if options.check:
        outcomes = [asyncio.run(check(source)) for source in sources]
        return 0 if all(outcomes) else 1
    asyncio.run(build(sources))
    return 0


if __name__ == "__main__":
    sys.exit(main())
