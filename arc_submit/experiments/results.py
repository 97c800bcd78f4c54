"""The two things that an experiment leaves: a table, as text and as JSON, and a picture. Does not know where figures come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.files import write_json
from arc_submit.arc.pictures import save_picture
from arc_submit.experiments.frame import Row

SCORES = ("accuracy", "pass_n", "vote_2")
_MARKED = 30  # points of a line, up to which each is marked
_PER_CENT = {*SCORES, "correct_pixels", "correct_size", "unanswered", "lowest", "highest"}


@dataclass(frozen=True)
class Line:
    """One line of a panel: its points by x, each with its deviation where there is one."""

    label: str
    points: Sequence[tuple[float, float, float | None]]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        x, y: what they show, with the unit.
        log: the base of a logarithmic x axis; None for a linear one.
    """

    x: str
    y: str
    lines: Sequence[Line]
    log: int | None = None


def score_line(rows: Sequence[Row], x: str, figure: str, label: str | None = None) -> Line:
    """A figure of rows against one of their settings, shares in per cent."""
    factor = 100.0 if figure in _PER_CENT else 1.0
    points = []
    for row in rows:
        mean, deviation = row.figures[figure]
        points.append((float(row.setting[x]), factor * mean, None if deviation is None else factor * deviation))
    return Line(label or figure, sorted(points))


def score_panels(rows: Sequence[Row], x: str, label: str, log: int | None = None) -> list[Panel]:
    """The scores against a setting, and beside them correct_pixels, which would press them flat.

    Args:
        label: of the x axis.
    """
    groups = (SCORES, ("correct_pixels",))
    return [Panel(label, "% of outputs", [score_line(rows, x, name) for name in names], log) for names in groups]


def score_lines(rows: Sequence[Row], by: str, x: str, figure: str) -> list[Line]:
    """A line of `score_line` for each value of the setting `by`, in the order of the rows."""
    values = dict.fromkeys(row.setting[by] for row in rows)
    return [score_line([row for row in rows if row.setting[by] == value], x, figure, f"{by} {value}") for value in values]


def row_table(rows: Sequence[Row], figures: Sequence[str]) -> str:
    """A line for each row: its setting, its runs and these figures, shares in per cent."""
    names = list(dict.fromkeys(name for row in rows for name in row.setting))
    several = any(row.runs > 1 for row in rows)
    lines = [[*names, *(["runs"] if several else []), *figures]]
    for row in rows:
        cells = [_figure_cell(name, row.figures.get(name)) for name in figures]
        lines.append([*(str(row.setting.get(name, "-")) for name in names), *([str(row.runs)] if several else []), *cells])
    return text_table(lines)


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, aligned on the right; the first line is the header."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)


def _figure_cell(name: str, value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "-"
    factor, digits = (100.0, 1) if name in _PER_CENT else (1.0, 3 if name.endswith("loss") else 0)
    mean, deviation = value
    return f"{factor * mean:.{digits}f}" + ("" if deviation is None else f" ± {factor * deviation:.{digits}f}")


def write_results(out: Path, text: str, panels: Sequence[Panel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Write table.txt, results.json and picture.png, print the table and where they are; returns the figures of the command."""
    (out / "table.txt").write_text(text + "\n", encoding="utf-8")
    picture = plot_panels(out / "picture.png", panels)
    figures = {**values, "table": str(out / "table.txt"), "picture": str(picture)}
    write_json(out / "results.json", figures)
    print(text)
    print(f"{out / 'table.txt'}, {picture}")
    return figures


def plot_panels(path: Path, panels: Sequence[Panel]) -> Path:
    """A PNG file with the panels side by side."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    figure = Figure(figsize=(6 * len(panels), 4), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        marker = "o" if all(len(line.points) <= _MARKED for line in panel.lines) else ""
        for line in panel.lines:
            xs, ys = [x for x, _, _ in line.points], [y for _, y, _ in line.points]
            drawn = axis.plot(xs, ys, marker=marker, markersize=4, label=line.label)[0]
            if all(deviation is not None for _, _, deviation in line.points):
                low, high = ([y + sign * (deviation or 0.0) for _, y, deviation in line.points] for sign in (-1, 1))
                axis.fill_between(xs, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
        if panel.log is not None:
            axis.set_xscale("log", base=panel.log)
            ticks = sorted({x for line in panel.lines for x, _, _ in line.points})
            axis.xaxis.set_major_locator(FixedLocator(ticks))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axis.set_ylim(bottom=0, top=1.05 * max((y for line in panel.lines for _, y, _ in line.points), default=0.0) or 1.0)
        axis.set_xlabel(panel.x)
        axis.set_ylabel(panel.y)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.legend(fontsize=8, frameon=False)
    return save_picture(figure, path, dpi=110)
