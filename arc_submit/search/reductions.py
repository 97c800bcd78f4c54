"""Reductions: a task restated as a smaller or more regular one, whose answers are lifted back to the task.

A grid of panels between separator lines, or of equal blocks, becomes a grid with one cell per panel or block. Of an output that repeats or
mirrors itself the restated task has only a part. Examples of different orientation are turned. This module does not know solvers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.features import mirror_code
from arc_submit.search.grid_tools import (
    Span,
    block_side,
    enlarged,
    find_unequal_panels,
    inputs_of,
    keeps_size,
    oriented,
    painted_counts,
    rarest_index,
    spans_between,
    unoriented,
)
from arc_submit.search.sizes import multiples
from arc_submit.search.store import Array


@dataclass(frozen=True)
class Reduction:
    """A restated task.

    Attributes:
        task: the restated task.
        lift: turns the index of a test input and an answer to it into an answer for the original task, or None where it cannot.
        name: the prefix of a program's text.
        cost: in tenths of a step.
        light: worth rules about objects and small forests alone, because programs make this restatement themselves.
        with_clauses: worth lists of clauses too.
    """

    task: Task
    lift: Callable[[int, Grid], Grid | None]
    name: str
    cost: int
    light: bool = False
    with_clauses: bool = False


def reductions(task: Task) -> list[Reduction]:
    """Every restatement as a smaller task that applies to all examples, without duplicates."""
    return _distinct(task, _RESTATEMENTS)


def turns(task: Task) -> list[Reduction]:
    """The task with every example turned by its own content, so that a rule need not know its orientation."""
    return _distinct(task, _TURNS)


def _distinct(task: Task, restatements: Sequence[Callable[[Task], Reduction | None]]) -> list[Reduction]:
    found: dict[str, Reduction] = {}
    for restate in restatements:
        reduction = restate(task)
        if reduction is not None:
            found.setdefault(reduction.task.digest(), reduction)
    return list(found.values())


def _restate(task: Task, inputs: list[Grid], outputs: list[Grid]) -> Task:
    pairs = tuple(Pair(frozen(a), frozen(b)) for a, b in zip(inputs, outputs, strict=False))
    return Task(task.id, pairs, tuple(frozen(grid) for grid in inputs[len(pairs) :]))


def _blocks(task: Task) -> Reduction | None:
    """Every input consists of square blocks: one cell for each; the same for outputs where they do, and answers are enlarged back."""
    sides = [block_side(grid) for grid in inputs_of(task)]
    if min(sides) < 2:
        return None
    inputs = [grid[::k, ::k] for grid, k in zip(inputs_of(task), sides, strict=True)]
    outputs = [pair.output for pair in task.train]
    blocky_outputs = all(block_side(out) % k == 0 for out, k in zip(outputs, sides, strict=False))
    if blocky_outputs:
        outputs = [out[::k, ::k] for out, k in zip(outputs, sides, strict=False)]

    def lift(test: int, grid: Grid) -> Grid | None:
        return _enlarged_or_none(grid, sides[len(task.train) + test] if blocky_outputs else 1)

    return Reduction(_restate(task, inputs, outputs), lift, "blocks as cells", 4)


def _enlarged_or_none(grid: Grid, times: int) -> Grid | None:
    return None if max(grid.shape) * times > MAX_SIDE else frozen(enlarged(grid, times))


# --- Panels of one colour between separator lines --------------------------------------------------------------------------------------

Panels = tuple[list[Span], list[Span]]  # by row and by column


def _find_panels(grid: Grid) -> Panels | None:
    """Equal panels in at least two rows and two columns."""
    for colour in range(COLOURS):
        mask = grid == colour
        rows, columns = np.flatnonzero(mask.all(axis=1)), np.flatnonzero(mask.all(axis=0))
        row_spans, column_spans = spans_between(rows, grid.shape[0]), spans_between(columns, grid.shape[1])
        if len(row_spans) > 1 and len(column_spans) > 1 and len(rows) < grid.shape[0] // 2:
            sizes = {(b - a, d - c) for a, b in row_spans for c, d in column_spans}
            if len(sizes) == 1 and max(sizes.pop()) > 1:
                return row_spans, column_spans
    return None


def _panel_colours(grid: Grid, panels: Panels) -> Grid | None:
    """One cell per panel where each panel has one colour, else None."""
    parts = [[grid[a:b, c:d] for c, d in panels[1]] for a, b in panels[0]]
    if any((part != part[0, 0]).any() for row in parts for part in row):
        return None
    return np.array([[part[0, 0] for part in row] for row in parts], np.int8)


def _panels_as_cells(task: Task) -> Reduction | None:
    """The inputs, or inputs and outputs, are grids of one-coloured panels between lines: one cell per panel."""
    panels: list[Panels] = []
    inputs: list[Grid] = []
    for grid in inputs_of(task):
        found = _find_panels(grid)
        small = None if found is None else _panel_colours(grid, found)
        if found is None or small is None:
            return None
        panels.append(found)
        inputs.append(small)
    if all(pair.input.shape != pair.output.shape for pair in task.train):
        outputs = [pair.output for pair in task.train]
        return Reduction(_restate(task, inputs, outputs), lambda _, grid: grid, "panels of the input as cells", 4)
    small_outputs = [_panel_colours(pair.output, p) for pair, p in zip(task.train, panels, strict=False)] if keeps_size(task) else [None]
    if any(grid is None for grid in small_outputs):
        return None

    def lift(test: int, grid: Grid) -> Grid | None:
        rows, columns = panels[len(task.train) + test]
        if grid.shape != (len(rows), len(columns)):
            return None
        out = np.array(task.tests[test])
        for i, (a, b) in enumerate(rows):
            for j, (c, d) in enumerate(columns):
                out[a:b, c:d] = grid[i, j]
        return frozen(out)

    return Reduction(_restate(task, inputs, [g for g in small_outputs if g is not None]), lift, "panels as cells", 4)


# --- Panels of different sizes -----------------------------------------------------------------------------------------------------------


def _unequal_panels_as_cells(task: Task) -> Reduction | None:
    """Every input is divided by lines into panels of any size, and no output has its input's size: one cell per panel."""
    if any(pair.input.shape == pair.output.shape for pair in task.train):
        return None
    inputs = [_panel_cells(grid) for grid in inputs_of(task)]
    small = [grid for grid in inputs if grid is not None]
    if len(small) < len(inputs):
        return None
    outputs = [pair.output for pair in task.train]
    return Reduction(_restate(task, small, outputs), lambda _, grid: grid, "panels of any size as cells", 5)


def _panel_cells(grid: Grid) -> Grid | None:
    """The commonest colour of each panel between lines, 0 only where a panel has no other."""
    found = find_unequal_panels(grid)
    if found is None:
        return None
    counts = [[np.bincount(grid[a:b, c:d].ravel(), minlength=COLOURS) for c, d in found[1]] for a, b in found[0]]
    return np.asarray((np.array(counts) * (np.arange(COLOURS) > 0)).argmax(axis=2), np.int8)


# --- Examples of different orientation -------------------------------------------------------------------------------------------------


def _reorient(task: Task, orientations: list[int], name: str, cost: int) -> Reduction | None:
    """Each example in its orientation; None where all are the same."""
    if len(set(orientations)) == 1:
        return None
    inputs = [oriented(grid, k) for grid, k in zip(inputs_of(task), orientations, strict=True)]
    outputs = [oriented(pair.output, k) for pair, k in zip(task.train, orientations, strict=False)]

    def lift(test: int, grid: Grid) -> Grid | None:
        return unoriented(grid, orientations[len(task.train) + test])

    return Reduction(_restate(task, inputs, outputs), lift, name, cost)


def _upright(task: Task) -> Reduction | None:
    """Every input that lies on its side is transposed."""
    return _reorient(task, [4 * _lies_on_side(grid) for grid in inputs_of(task)], "upright", 6)


def _lies_on_side(grid: Grid) -> bool:
    """Whether a grid is wider than high, or, for a square, has full lines of one painted colour across and none down."""
    if grid.shape[0] != grid.shape[1]:
        return bool(grid.shape[1] > grid.shape[0])
    across = bool(((grid == grid[:, :1]).all(axis=1) & (grid[:, 0] != 0)).any())
    down = bool(((grid == grid[:1]).all(axis=0) & (grid[0] != 0)).any())
    return across and not down


def _turned_by(name: str, mask_of: Callable[[Grid], Array]) -> Callable[[Task], Reduction | None]:
    """Every example is oriented so that the marked cells are as low, and then as far right, as possible."""
    return lambda task: _reorient(task, [_heaviest_below(mask_of(grid), grid) for grid in inputs_of(task)], f"turned: {name} below", 7)


def _heaviest_below(mask: Array, grid: Grid) -> int:
    """The orientation with most weight of the marked cells below, and then to the right; equal grids share the choice on a tie."""

    def weight(k: int) -> tuple[int, int, int, bytes, bytes]:
        marked = oriented(mask, k)
        h, w = marked.shape
        rows, columns = np.nonzero(marked)
        return int((2 * rows - h + 1).sum()), int((2 * columns - w + 1).sum()), h, marked.tobytes(), oriented(grid, k).tobytes()

    return max(range(8), key=weight)


# --- Inputs enlarged to the size of the outputs ------------------------------------------------------------------------------------------


def _on_enlarged(task: Task, tiled: bool) -> Reduction | None:
    """Every output has a multiple of its input's sides: the input repeated, or with each cell as a block, is changed."""
    outputs = [pair.output for pair in task.train]
    times = multiples(inputs_of(task), outputs)
    if times is None:
        return None
    inputs = []
    for grid, (a, b) in zip(inputs_of(task), times, strict=True):
        if max(grid.shape[0] * a, grid.shape[1] * b) > MAX_SIDE:
            return None
        inputs.append(np.tile(grid, (a, b)) if tiled else np.kron(grid, np.ones((a, b), np.int8)))
    name = f"on the input {'repeated' if tiled else 'enlarged'}"
    return Reduction(_restate(task, inputs, outputs), lambda _, grid: grid, name, 4, light=True, with_clauses=tiled)


# --- Outputs that repeat themselves ---------------------------------------------------------------------------------------------------


def _repeated(task: Task) -> Reduction | None:
    """Every output is a smaller grid repeated side by side and one above the other."""
    outputs = [pair.output for pair in task.train]
    times = [max(n for n in range(1, MAX_SIDE + 1) if all(_repeats(out if axis == 0 else out.T, n) for out in outputs)) for axis in (0, 1)]
    if times == [1, 1]:
        return None
    parts = [out[: out.shape[0] // times[0], : out.shape[1] // times[1]] for out in outputs]

    def lift(_: int, grid: Grid) -> Grid | None:
        fits = grid.shape[0] * times[0] <= MAX_SIDE and grid.shape[1] * times[1] <= MAX_SIDE
        return frozen(np.tile(grid, times)) if fits else None

    return Reduction(_restate(task, inputs_of(task), parts), lift, f"{times[0]} x {times[1]} times", 4)


def _repeats(grid: Array, times: int) -> bool:
    h = grid.shape[0] // times
    return h * times == grid.shape[0] and bool((grid == np.tile(grid[:h], (times, 1))).all())


def _enlarged(task: Task) -> Reduction | None:
    """Every output consists of blocks of one size, some input does not: one cell for each block."""
    k = int(np.gcd.reduce([block_side(pair.output) for pair in task.train]))
    if k < 2 or all(block_side(pair.input) % k == 0 for pair in task.train):
        return None
    outputs = [pair.output[::k, ::k] for pair in task.train]
    return Reduction(_restate(task, inputs_of(task), outputs), lambda _, grid: _enlarged_or_none(grid, k), f"enlarged {k} times", 4)


def _symmetric(task: Task) -> Reduction | None:
    """Every output is its own mirror image, left to right, top to bottom or both: a half or quarter determines the rest."""
    outputs = [pair.output for pair in task.train]
    if keeps_size(task) or all(mirror_code(pair.input) == mirror_code(pair.output) for pair in task.train):
        return None
    axes = [axis for axis in (0, 1) if all(out.shape[axis] > 1 and (out == np.flip(out, axis)).all() for out in outputs)]
    parities = {axis: {out.shape[axis] % 2 for out in outputs} for axis in axes}
    if not axes or any(len(parities[axis]) > 1 for axis in axes):
        return None
    parts = outputs
    for axis in axes:
        parts = [out[: (out.shape[0] + 1) // 2] if axis == 0 else out[:, : (out.shape[1] + 1) // 2] for out in parts]

    def lift(_: int, grid: Grid) -> Grid | None:
        out = np.array(grid)
        for axis in axes:
            mirrored = np.flip(out, axis)
            if 1 in parities[axis]:  # the middle line occurs once
                mirrored = mirrored[1:] if axis == 0 else mirrored[:, 1:]
            out = np.concatenate([out, mirrored], axis=axis)
        return frozen(out) if max(out.shape) <= MAX_SIDE else None

    return Reduction(_restate(task, inputs_of(task), parts), lift, "a part of a symmetric output", 4)


_RESTATEMENTS = (
    _blocks,
    _panels_as_cells,
    _unequal_panels_as_cells,
    partial(_on_enlarged, tiled=True),
    partial(_on_enlarged, tiled=False),
    _upright,
    _repeated,
    _enlarged,
    _symmetric,
)
_TURNS = (
    _turned_by("what is painted", lambda grid: np.asarray(grid != 0)),
    _turned_by("the rarest colour", lambda grid: np.asarray(grid == rarest_index(painted_counts(grid)))),
)
