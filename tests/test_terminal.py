"""The bar on a real terminal, with items that print; and in a notebook's output as its file has it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LINES = 12
SCRIPT = """
import sys
from admf_dask import Session

def prints(number):
    print(f"item {number} says", "hello", file=sys.stdout if number % 2 else sys.stderr)
    return number

if __name__ == "__main__":
    with Session(mode=sys.argv[1], workers=2, dashboard=None) as session:
        total = sum(session.map(prints, range(12), name="talkative").values())
    assert type(sys.stdout).__name__ == type(sys.stderr).__name__ == "TextIOWrapper"
    print("sum", total)
"""


class Screen:
    """As much of a terminal as the bar uses: carriage return, line feed, and the emptying of a line."""

    def __init__(self) -> None:
        self.lines, self.column, self.seen = [""], 0, set[str]()

    def feed(self, text: str) -> None:
        for part in re.findall(r"\x1b\[K|\r|\n|[^\x1b\r\n]+|\x1b", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.seen.add(self.lines[-1])
                self.lines.append("")
                self.column = 0
            elif part == "\x1b[K":
                self.seen.add(self.lines[-1])
                self.lines[-1] = self.lines[-1][: self.column]
            else:
                line = self.lines[-1]
                self.lines[-1] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)


def on_a_terminal(command: list[str]) -> tuple[Screen, int]:
    """Run with a terminal of its own as stdin, stdout and stderr."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    taken = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break  # Linux's way to say that the last of them has closed it
            if not piece:
                break
            taken += piece
        code = process.wait(60)
    finally:
        process.kill()
        process.wait(60)
        os.close(ours)
    screen = Screen()
    screen.feed(taken.decode())
    return screen, code


@pytest.mark.cluster
@pytest.mark.parametrize("mode", ["process", "thread"])
def test_what_items_print_stands_above_the_bar_and_whole(mode: str, tmp_path: Path) -> None:
    script = tmp_path / "talk.py"
    script.write_text(SCRIPT)
    screen, code = on_a_terminal([sys.executable, str(script), mode])
    lines = [line.rstrip() for line in screen.lines if line.strip()]
    assert code == 0, "\n".join(lines)
    assert sorted(lines[:LINES]) == sorted(f"item {number} says hello" for number in range(LINES))
    assert re.fullmatch(r"talkative [█░#-]+ 12/12 \(100 %\), finished in .*", lines[LINES])
    assert lines[LINES + 1 :] == ["sum 66"]
    assert any(line.startswith("talkative ") for line in screen.seen)


@pytest.mark.cluster
def test_a_saved_notebook_shows_the_last_state_and_results(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = """
    from admf_dask import Session
    session = Session(mode="thread", workers=2, dashboard=None).open()
    session
    ---
    session.map(abs, range(-40, 0), name="<b>walk</b>")
    ---
    session.close()
    """
    texts = [textwrap.dedent(cell).strip() for cell in textwrap.dedent(cells).split("---")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in texts])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    nbformat.write(notebook, tmp_path / "saved.ipynb")
    saved = nbformat.read(tmp_path / "saved.ipynb", as_version=4)
    opened, ran = (cell.outputs for cell in saved.cells[:2])
    assert "<b>Session</b>" in opened[-1].data["text/html"]
    shown = [output for output in ran if "<progress" in output.get("data", {}).get("text/html", "")]
    assert len(shown) == 1, "one line that was updated, not one for each update"
    html = shown[0].data["text/html"]
    assert "&lt;b&gt;walk&lt;/b&gt;" in html
    assert 'value="1.0000"' in html
    assert "40/40 (100 %), finished in" in html
    assert "<b>Outcomes</b>" in ran[-1].data["text/html"]
    assert not [output for output in ran if output.output_type in ("stream", "error")]
