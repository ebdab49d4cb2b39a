"""Colours and CSS of the page, light and dark. Bokeh 3 puts each model into a shadow root, so each gets the sheet."""

from __future__ import annotations

from dataclasses import dataclass

FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Palette:
    """What figures need; the rest is CSS."""

    soft: str
    line: str
    blue: str
    orange: str
    empty: str
    few: tuple[str, ...]
    """To tell a few lines apart, the first the most."""


LIGHT = Palette(
    "#667085",
    "#e4e7ec",
    "#2f5fe0",
    "#e8590c",
    "#eef1f6",
    ("#e8590c", "#2f5fe0", "#0e9f6e", "#8a5cd1", "#98a2b3"),
)
DARK = Palette(
    "#98a2b3",
    "#333b49",
    "#7aa2ff",
    "#ff9a4d",
    "#242d3b",
    ("#ff9a4d", "#7aa2ff", "#3ccf97", "#b692f6", "#667085"),
)

CSS = """
:host {
  --ink: #101828; --soft: #667085; --line: #e4e7ec; --card: #ffffff; --page: #f4f6fb; --blue: #2f5fe0; --orange: #e8590c;
  --red: #d92d20; --green: #0e9f6e; --bar: #e9edf4; --shade: #f7f8fb;
  font-family: Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif; color: var(--ink); font-size: 13px;
}
@media (prefers-color-scheme: dark) {
  :host {
    --ink: #f2f4f7; --soft: #98a2b3; --line: #333b49; --card: #1a212d; --page: #10151e; --blue: #7aa2ff; --orange: #ff9a4d;
    --red: #ff7a70; --green: #3ccf97; --bar: #2a3342; --shade: #202938;
  }
}
.bk-clearfix { display: block; width: 100%; }
h1 { font-size: 20px; margin: 0; display: inline-block; letter-spacing: -0.01em; }
h2 { font-size: 14px; font-weight: 600; margin: 0 0 10px; }
.soft { color: var(--soft); }
.small { font-size: 12px; }
.red { color: var(--red); }
.orange { color: var(--orange); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; box-sizing: border-box; }
.tiles { display: grid; grid-template-columns: 2fr 1fr 1fr 1.15fr 1.5fr 1fr; gap: 12px; }
.tiles .card { min-width: 0; }
.label { font-size: 11px; font-weight: 600; letter-spacing: 0.05em; text-transform: uppercase; color: var(--soft); }
.label b { color: var(--blue); font-weight: 600; }
.figure { font-size: 24px; font-weight: 650; margin: 4px 0; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
          font-variant-numeric: tabular-nums; letter-spacing: -0.02em; }
.note { color: var(--soft); font-size: 12px; overflow: hidden; min-height: 32px; line-height: 16px; max-height: 32px; }
.bar { display: flex; height: 8px; background: var(--bar); border-radius: 4px; overflow: hidden; }
.bar span { display: block; height: 100%; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.fixed { table-layout: fixed; margin-top: 6px; }
th { text-align: right; font-size: 12px; font-weight: 600; color: var(--soft); padding: 4px 8px; white-space: nowrap; }
td { text-align: right; padding: 5px 8px; border-top: 1px solid var(--line); white-space: nowrap; max-width: 260px;
     overflow: hidden; text-overflow: ellipsis; }
th.left, td.left { text-align: left; }
td.wide { width: 40%; min-width: 90px; }
.pill { display: inline-block; padding: 1px 8px; border-radius: 9px; font-size: 12px; background: var(--shade);
  color: var(--soft); }
.pill.running { color: var(--blue); } .pill.finished { color: var(--green); }
.pill.failed, .pill.killed, .pill.driver-gone { color: var(--red); } .pill.interrupted { color: var(--orange); }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 320px; overflow: auto; background: var(--shade); padding: 10px;
      border-radius: 6px; margin: 6px 0 0; }
.cells { display: flex; flex-wrap: wrap; gap: 3px; margin-top: 10px; }
.cells i { height: 18px; border-radius: 3px; background: var(--bar); flex: 1 1 11px; max-width: 44px; }
.cells i.done { background: var(--green); } .cells i.failed { background: var(--red); }
.cells i.running { background: var(--blue); }
.legend { float: right; font-weight: 400; font-size: 12px; color: var(--soft); }
.legends { line-height: 20px; margin-top: -4px; }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 5px; margin-right: 5px; }
h2 + .small { margin: -4px 0 8px; }
.worker { border-top: 1px solid var(--line); padding: 7px 0; }
.worker .bar { margin: 4px 0; }
.sides { display: flex; justify-content: space-between; gap: 8px; font-variant-numeric: tabular-nums; }
.cut { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; min-height: 16px; }
.empty { color: var(--soft); padding: 18px 0; text-align: center; }
.notice { border-left: 3px solid var(--orange); padding-left: 8px; margin-top: 6px; }
"""

PAGE = """
:host { background: #f4f6fb; padding: 12px 16px 28px; box-sizing: border-box; }
@media (prefers-color-scheme: dark) { :host { background: #10151e; } }
"""

AROUND = """
html { background: #f4f6fb; }
body { padding-left: 0; padding-right: 0; padding-bottom: 0; }
@media (prefers-color-scheme: dark) {
  html { background: #10151e; }
  .navbar ul { background-color: #1a212d; }
  .navbar li a { color: #f2f4f7; }
  .navbar li.active { background-color: rgba(234, 170, 109, 0.45); }
}
"""
"""What is around our models: the document, and on a scheduler Dask's navigation."""

CARD = """
:host { background: #ffffff; border: 1px solid #e4e7ec; border-radius: 10px; padding: 10px 14px; box-sizing: border-box; }
@media (prefers-color-scheme: dark) { :host { background: #1a212d; border-color: #333b49; } }
"""

# Bokeh clears a canvas from half a pixel on, so what was drawn in its first column before the layout was known stays there; it is
# the second one where a card begins at a fraction of a pixel.
FIGURE = ":host { clip-path: inset(2px -600px -600px 2px); }"

SELECT = """
:host { font-family: Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif; }
select.bk-input, select { border-radius: 7px; border-color: #d0d5dd; background-color: #ffffff; color: #101828; font-size: 13px;
  min-height: 30px; }
@media (prefers-color-scheme: dark) {
  select.bk-input, select { background: #202938; color: #f2f4f7; border-color: #333b49; appearance: auto; color-scheme: dark; }
}
"""
