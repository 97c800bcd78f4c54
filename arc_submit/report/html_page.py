"""One HTML page of tables, charts and pictures of tasks, which needs no other file and no network.

All text is escaped. Does not know how its contents were computed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from arc_submit.arc.grid import Grid

# The colours of the ten values on the ARC-AGI site.
PALETTE = ("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00", "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25")

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5d646d; --page: #f6f7f9; --card: #ffffff; --line: #dfe3e8;
  --good: #1a7f37; --bad: #b35900; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8ea; --soft: #9aa3ad; --page: #15181c; --card: #1e2227; --line: #343a41; --good: #57c77b; --bad: #f0a05a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 68rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p, .soft { color: var(--soft); margin: .2rem 0 .6rem; }
.cards { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; min-width: 8.5rem; }
.card b { display: block; font-size: 1.35rem; line-height: 1.3; } .card span { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin-bottom: .8rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .35rem .6rem; text-align: right; border-top: 1px solid var(--line); }
td { white-space: nowrap; } td.text { white-space: normal; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tr.used td { font-weight: 600; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; background: #ffffff; border-radius: .5rem; border: 1px solid var(--line); }
details { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; padding: .5rem .9rem; }
summary { cursor: pointer; } summary code { font-weight: 600; }
.row { display: flex; flex-wrap: wrap; gap: .9rem; align-items: flex-start; margin: .5rem 0 1rem; }
.grid { display: inline-block; } .grid svg { display: block; margin-bottom: .2rem; }
.grid span { color: var(--soft); font-size: .75rem; display: block; max-width: 11rem; }
.right span:first-of-type { color: var(--good); font-weight: 600; } .wrong span:first-of-type { color: var(--bad); }
pre { overflow-x: auto; font-size: .82rem; }
.pair { display: flex; gap: .35rem; align-items: center; }
"""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: of its section; empty continues the section before.
        header: names of the columns.
        rows: cells as text; the first column is left aligned, and so is every column named in `texts`.
        used: numbers of the rows to highlight.
        note: a sentence below the title.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    used: frozenset[int] = frozenset()
    note: str = ""
    texts: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class CaptionedGrid:
    """A grid with lines below it; `right` is whether it equals the solution, None where that is unknown or does not apply."""

    grid: Grid
    captions: Sequence[str]
    right: bool | None = None


@dataclass(frozen=True, eq=False)
class TaskSection:
    """One task as pictures.

    Attributes:
        id: task id.
        summary: one line beside the id.
        pairs: train pairs.
        rows: grids below them, each row with a title.
        text: below them, as it is.
    """

    id: str
    summary: str
    pairs: Sequence[tuple[Grid, Grid]]
    rows: Sequence[tuple[str, Sequence[CaptionedGrid]]]
    text: str = ""


@dataclass
class Page:
    """The contents of the page, from top to bottom.

    Attributes:
        title, subtitle: its head.
        cards: figures that stand out, (value, caption).
        tables, notes: tables, and sentences below them.
        figures: PNG files with a title for each.
        tasks: with the title of their section and a sentence.
        programs: tasks that programs answer, with their text.
        appendix: folded tables at the end.
    """

    title: str
    subtitle: str
    cards: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: Sequence[str] = ()
    figures: Sequence[tuple[str, Path]] = ()
    tasks_title: str = ""
    tasks_note: str = ""
    tasks: list[TaskSection] = field(default_factory=list)
    programs: list[TaskSection] = field(default_factory=list)
    appendix: list[Table] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as HTML."""
    cards = "".join(f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in page.cards)
    notes = "".join(f"<p>{escape(note)}</p>" for note in page.notes)
    images = [(escape(title), base64.b64encode(path.read_bytes()).decode("ascii")) for title, path in page.figures]
    figures = "".join(f'<h2>{t}</h2><figure><img alt="{t}" src="data:image/png;base64,{data}"></figure>' for t, data in images)
    tasks = f"<h2>{escape(page.tasks_title)}</h2><p>{escape(page.tasks_note)}</p>{''.join(map(_task, page.tasks))}" if page.tasks else ""
    if page.programs:
        tasks += f"<h2>Programs that reproduce all train pairs: {len(page.programs)}</h2>{''.join(map(_task, page.programs))}"
    folded = "".join(f"<details><summary>{escape(table.title)}</summary>{_table(table, titled=False)}</details>" for table in page.appendix)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(page.title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(page.title)}</h1><p>{escape(page.subtitle)}</p><div class=cards>{cards}</div>"
        f"{''.join(map(_table, page.tables))}{notes}{figures}{tasks}{f'<h2>Every task</h2>{folded}' if folded else ''}</body></html>\n"
    )


def svg_grid(grid: Grid, largest: float = 150.0) -> str:
    """A grid in the usual colours with lines between its cells, as an SVG element of at most `largest` pixels on its longer side."""
    height, width = grid.shape
    cell = min(22.0, largest / max(height, width))
    runs: Mapping[int, list[str]] = {colour: [] for colour in range(len(PALETTE))}
    for y, row in enumerate(np.asarray(grid)):
        ends = np.flatnonzero(np.append(row[1:] != row[:-1], True)) + 1
        begin = 0
        for end in ends.tolist():
            runs[int(row[begin])].append(f"M{begin} {y}h{end - begin}v1H{begin}z")
            begin = end
    paths = "".join(f'<path fill="{PALETTE[colour]}" d="{"".join(parts)}"/>' for colour, parts in runs.items() if parts)
    lines = "".join(f"M{x} 0V{height}" for x in range(width + 1)) + "".join(f"M0 {y}H{width}" for y in range(height + 1))
    stroke = min(0.08, 0.6 / cell)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{cell * width:.0f}" height="{cell * height:.0f}" role="img">'
        f'<g shape-rendering="crispEdges">{paths}</g><path d="{lines}" stroke="#555" stroke-width="{stroke:.3f}" fill="none"/></svg>'
    )


def _table(table: Table, titled: bool = True) -> str:
    def cell(name: str, value: str, tag: str) -> str:
        return f"<{tag}{' class=text' if name in table.texts else ''}>{escape(value)}</{tag}>"

    names = {name: name.replace("_", "_\u200b") if len(name) > 8 else name for name in table.header}  # a long name may be broken there
    head = "".join(cell(name, names[name], "th") for name in table.header)
    rows = "".join(
        f"<tr{' class=used' if number in table.used else ''}>"
        + "".join(cell(name, value, "td") for name, value in zip(table.header, row, strict=True))
        + "</tr>"
        for number, row in enumerate(table.rows)
    )
    title = f"<h2>{escape(table.title)}</h2>" if titled and table.title else ""
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return f"{title}{note}<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _task(task: TaskSection) -> str:
    pairs = "".join(f"<div class=pair>{svg_grid(a, 110)}<span>&rarr;</span>{svg_grid(b, 110)}</div>" for a, b in task.pairs)
    rows = "".join(f"<p>{escape(title)}</p><div class=row>{''.join(map(_captioned, grids))}</div>" for title, grids in task.rows)
    return (
        f"<details><summary><code>{escape(task.id)}</code> <span class=soft>{escape(task.summary)}</span></summary>"
        f"<div class=row>{pairs}</div>{rows}{f'<pre>{escape(task.text)}</pre>' if task.text else ''}</details>"
    )


def _captioned(item: CaptionedGrid) -> str:
    kind = "" if item.right is None else " right" if item.right else " wrong"
    return f"<div class='grid{kind}'>{svg_grid(item.grid)}{''.join(f'<span>{escape(caption)}</span>' for caption in item.captions)}</div>"
