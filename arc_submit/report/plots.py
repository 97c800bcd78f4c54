"""Pictures of a task: with its attempts, and with every source's answers and their votes.

Every function writes one PNG file and returns its path. Does not change matplotlib's global state, which belongs to the notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from arc_submit.arc.grid import COLOURS, Grid, same_grid
from arc_submit.arc.pictures import save_picture
from arc_submit.arc.task import Task
from arc_submit.ensemble.voting import RankedSources
from arc_submit.report.html_page import PALETTE

SHOWN = 5  # answers of each source
_MOST_PAIRS = 10  # more would be too small to see
_FILLED = 0.84  # fraction of a cell that a grid's longer side fills
_INCHES = 1.8  # side of a cell

Cell = tuple[Grid, str]  # a grid and the line above it


def plot_task(path: Path, task: Task, attempts: Sequence[Sequence[Grid]], solutions: Sequence[Grid] | None) -> Path:
    """Train pairs above, then for each test input the attempts and, where known, the solution."""
    shown = task.train[:_MOST_PAIRS]
    rows: list[list[Cell]] = [[]]
    for i, pair in enumerate(shown):
        rows[0] += [(pair.input, f"train {i} input"), (pair.output, f"train {i} output")]
    for test, grid in enumerate(task.tests):
        row = [(grid, f"test {test} input")]
        for number, attempt in enumerate(attempts[test][:2]):
            verdict = "" if solutions is None else ": right" if same_grid(attempt, solutions[test]) else ": wrong"
            row.append((attempt, f"attempt {number + 1}{verdict}"))
        rows.append([*row, *([(solutions[test], "solution")] if solutions is not None else [])])
    return _draw(path, rows, task.id if len(shown) == len(task.train) else f"{task.id} ({len(shown)} of {len(task.train)} train pairs)")


def plot_candidates(path: Path, task: Task, votes: RankedSources, solutions: Sequence[Grid] | None = None) -> Path:
    """A row for each source and test input: the test input, the solution where known, and the source's best answers."""
    rows: list[list[Cell]] = []
    for source, outputs in sorted(votes.items()):
        for (_, test), answers in sorted(outputs.items()):
            row = [(task.tests[test], f"{source}: test {test} input")]
            if solutions is not None:
                row.append((solutions[test], "solution"))
            for answer in answers[:SHOWN]:
                value = f"{answer.mean_logprob:.1f}"
                row.append((answer.grid, f"score {value}" if answer.basis == "score" else f"{answer.votes} votes, log p {value}"))
            rows.append(row)
    return _draw(path, rows, task.id)


def _draw(path: Path, rows: Sequence[Sequence[Cell]], title: str) -> Path:
    """Rows of grids in the usual colours with lines between their cells, all in one pair of axes: laying out many pairs takes seconds."""
    columns, height = max([4, *map(len, rows)]), max(1, len(rows))
    figure = Figure(figsize=(_INCHES * columns, _INCHES * height + 0.4))
    top = _INCHES * height / (_INCHES * height + 0.4)
    axis = figure.add_axes((0.0, 0.0, 1.0, top))
    axis.set(xlim=(0, columns), ylim=(height, 0))
    axis.axis("off")
    colours = ListedColormap(PALETTE)
    for y, row in enumerate(rows):
        for x, (grid, title_above) in enumerate(row):
            size = _FILLED / max(grid.shape)
            h, w = size * grid.shape[0], size * grid.shape[1]
            left, above = x + (1 - w) / 2, y + 0.14 + (_FILLED - h) / 2
            axis.imshow(grid, cmap=colours, vmin=0, vmax=COLOURS - 1, interpolation="nearest", extent=(left, left + w, above + h, above))
            across = [[(left, v), (left + w, v)] for v in np.linspace(above, above + h, grid.shape[0] + 1)]
            down = [[(u, above), (u, above + h)] for u in np.linspace(left, left + w, grid.shape[1] + 1)]
            axis.add_collection(LineCollection([*across, *down], colors="#555555", linewidths=0.4))
            axis.text(x + 0.5, y + 0.12, title_above, fontsize=7, ha="center", va="bottom")
    axis.set(xlim=(0, columns), ylim=(height, 0), aspect="auto")
    figure.suptitle(title, fontsize=10, y=0.99, va="top")
    return save_picture(figure, path)
