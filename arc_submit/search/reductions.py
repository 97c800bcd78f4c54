"""Reductions: a task restated as a smaller or more regular one, whose answers are lifted back.

A grid of panels between separator lines, or of equal blocks, becomes a grid with one cell per panel or block; inputs that lie on
their side are transposed. Knows nothing about solvers: any of them may be asked about the restated task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.features import spans


@dataclass(frozen=True)
class Reduction:
    """A restated task.

    Attributes:
        task: the restated task.
        lift: turns an answer to its test input of that index into one for the original, or None where it cannot.
        name: what a program prints before its own text.
        cost: in tenths of a step.
    """

    task: Task
    lift: Callable[[int, Grid], Grid | None]
    name: str
    cost: int


def reductions(task: Task) -> list[Reduction]:
    """Every restatement that applies to all inputs and outputs of a task."""
    return [r for r in (_blocks(task), _panel_cells(task), _panel_colours(task), _upright(task)) if r is not None]


def _inputs(task: Task) -> list[Grid]:
    return [pair.input for pair in task.train] + list(task.tests)


def _restate(task: Task, inputs: list[Grid], outputs: list[Grid]) -> Task:
    pairs = tuple(Pair(frozen(a), frozen(b)) for a, b in zip(inputs, outputs, strict=False))
    return Task(task.id, pairs, tuple(frozen(grid) for grid in inputs[len(pairs) :]))


def _factor(grid: Grid) -> int:
    """The largest side of equal square blocks that the grid consists of."""
    for k in range(min(grid.shape), 1, -1):
        if grid.shape[0] % k == 0 and grid.shape[1] % k == 0 and (np.kron(grid[::k, ::k], np.ones((k, k), np.int8)) == grid).all():
            return k
    return 1


def _blocks(task: Task) -> Reduction | None:
    """Every input consists of square blocks: one cell for each; outputs too where they do, and then answers grow back."""
    factors = [_factor(grid) for grid in _inputs(task)]
    if min(factors) < 2:
        return None
    small = [grid[::k, ::k] for grid, k in zip(_inputs(task), factors, strict=True)]
    outputs = [pair.output for pair in task.train]
    grow = all(_factor(out) % k == 0 for out, k in zip(outputs, factors, strict=False))
    if grow:
        outputs = [out[::k, ::k] for out, k in zip(outputs, factors, strict=False)]

    def lift(test: int, grid: Grid) -> Grid | None:
        if not grow:
            return grid
        k = factors[len(task.train) + test]
        if max(grid.shape) * k > MAX_SIDE:
            return None
        return frozen(np.kron(grid, np.ones((k, k), np.int8)))

    return Reduction(_restate(task, small, outputs), lift, "blocks as cells", 4)


@dataclass(frozen=True)
class _Panels:
    """Where the panels of a grid with separator lines begin and end, by row and by column."""

    rows: list[tuple[int, int]]
    columns: list[tuple[int, int]]


def _find_panels(grid: Grid) -> _Panels | None:
    for colour in range(10):
        mask = grid == colour
        rows, columns = np.flatnonzero(mask.all(axis=1)), np.flatnonzero(mask.all(axis=0))
        row_spans, column_spans = spans(rows, grid.shape[0]), spans(columns, grid.shape[1])
        if len(row_spans) * len(column_spans) >= 4 and len(row_spans) > 1 and len(column_spans) > 1 and len(rows) < grid.shape[0] // 2:
            sizes = {(b - a, d - c) for a, b in row_spans for c, d in column_spans}
            if len(sizes) == 1 and max(sizes.pop()) > 1:
                return _Panels(row_spans, column_spans)
    return None


def _plain(grid: Grid, panels: _Panels) -> Grid | None:
    """One cell per panel where each panel has one colour, else None."""
    out = np.zeros((len(panels.rows), len(panels.columns)), np.int8)
    for i, (a, b) in enumerate(panels.rows):
        for j, (c, d) in enumerate(panels.columns):
            part = grid[a:b, c:d]
            if (part != part[0, 0]).any():
                return None
            out[i, j] = part[0, 0]
    return out


def _panel_cells(task: Task) -> Reduction | None:
    """Inputs and outputs are grids of one-coloured panels between the same lines: one cell per panel."""
    found = [_find_panels(grid) for grid in _inputs(task)]
    panels = [p for p in found if p is not None]
    if len(panels) < len(found) or any(pair.input.shape != pair.output.shape for pair in task.train):
        return None
    inputs = [_plain(grid, p) for grid, p in zip(_inputs(task), panels, strict=True)]
    outputs = [_plain(pair.output, p) for pair, p in zip(task.train, panels, strict=False)]
    if any(grid is None for grid in inputs + outputs):
        return None

    def lift(test: int, grid: Grid) -> Grid | None:
        p = panels[len(task.train) + test]
        if grid.shape != (len(p.rows), len(p.columns)):
            return None
        out = np.array(task.tests[test])
        for i, (a, b) in enumerate(p.rows):
            for j, (c, d) in enumerate(p.columns):
                out[a:b, c:d] = grid[i, j]
        return frozen(out)

    restated = _restate(task, [g for g in inputs if g is not None], [g for g in outputs if g is not None])
    return Reduction(restated, lift, "panels as cells", 4)


def _panel_colours(task: Task) -> Reduction | None:
    """Inputs are grids of one-coloured panels, outputs have none of the lines: the input becomes one cell per panel."""
    found = [_find_panels(grid) for grid in _inputs(task)]
    panels = [p for p in found if p is not None]
    if len(panels) < len(found) or any(pair.input.shape == pair.output.shape for pair in task.train):
        return None
    inputs = [_plain(grid, p) for grid, p in zip(_inputs(task), panels, strict=True)]
    if any(grid is None for grid in inputs):
        return None
    restated = _restate(task, [g for g in inputs if g is not None], [pair.output for pair in task.train])
    return Reduction(restated, lambda _, grid: grid, "panels of the input as cells", 4)


def _upright(task: Task) -> Reduction | None:
    """Inputs of different orientation are all made upright; None where all are upright or all are not."""
    lying = [_lies(grid) for grid in _inputs(task)]
    if all(lying) or not any(lying):
        return None

    def turned(grid: Grid, flag: bool) -> Grid:
        return grid.T if flag else grid

    inputs = [turned(grid, flag) for grid, flag in zip(_inputs(task), lying, strict=True)]
    outputs = [turned(pair.output, flag) for pair, flag in zip(task.train, lying, strict=False)]

    def lift(test: int, grid: Grid) -> Grid | None:
        return frozen(turned(grid, lying[len(task.train) + test]))

    return Reduction(_restate(task, inputs, outputs), lift, "upright", 6)


def _lies(grid: Grid) -> bool:
    """Whether a grid lies on its side: wider than high, or, for a square, with full lines of one painted colour across and none down."""
    if grid.shape[0] != grid.shape[1]:
        return bool(grid.shape[1] > grid.shape[0])
    across = bool(((grid == grid[:, :1]).all(axis=1) & (grid[:, 0] != 0)).any())
    down = bool(((grid == grid[:1]).all(axis=0) & (grid[0] != 0)).any())
    return across and not down
