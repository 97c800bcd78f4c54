"""Reductions: a task restated as a smaller or more regular one, whose answers are lifted back.

A grid of panels between separator lines, or of equal blocks, becomes a grid with one cell per panel or block; of an output that repeats or
mirrors itself a part is asked for; examples that lie in different ways are turned. Knows nothing about solvers: any of them may be asked
about the restated task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.features import spans
from arc_submit.search.store import Array


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
    """Every restatement as a smaller task that applies to all inputs and outputs, those that come to the same once."""
    return _different(task, _RESTATEMENTS)


def turns(task: Task) -> list[Reduction]:
    """The task with every example turned by what it shows, so that a rule need not know which way it lies."""
    return _different(task, _TURNS)


def _different(task: Task, restatements: Sequence[Callable[[Task], Reduction | None]]) -> list[Reduction]:
    found: dict[str, Reduction] = {}
    for restate in restatements:
        reduction = restate(task)
        if reduction is not None:
            found.setdefault(reduction.task.digest(), reduction)
    return list(found.values())


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

    def stood(grid: Grid, flag: bool) -> Grid:
        return grid.T if flag else grid

    inputs = [stood(grid, flag) for grid, flag in zip(_inputs(task), lying, strict=True)]
    outputs = [stood(pair.output, flag) for pair, flag in zip(task.train, lying, strict=False)]

    def lift(test: int, grid: Grid) -> Grid | None:
        return frozen(stood(grid, lying[len(task.train) + test]))

    return Reduction(_restate(task, inputs, outputs), lift, "upright", 6)


def _lies(grid: Grid) -> bool:
    """Whether a grid lies on its side: wider than high, or, for a square, with full lines of one painted colour across and none down."""
    if grid.shape[0] != grid.shape[1]:
        return bool(grid.shape[1] > grid.shape[0])
    across = bool(((grid == grid[:, :1]).all(axis=1) & (grid[:, 0] != 0)).any())
    down = bool(((grid == grid[:1]).all(axis=0) & (grid[0] != 0)).any())
    return across and not down


# --- Same rule, another way to lie ---------------------------------------------------------------------------------------------------


def _turned_by(name: str, mask_of: Callable[[Grid], Array]) -> Callable[[Task], Reduction | None]:
    """Every example is turned and mirrored so that what the mask marks lies as far down, and then as far right, as it can."""

    def reduction(task: Task) -> Reduction | None:
        turns = [_heaviest_below(mask_of(grid), grid) for grid in _inputs(task)]
        if len(set(turns)) == 1:
            return None
        inputs = [turned(grid, k) for grid, k in zip(_inputs(task), turns, strict=True)]
        outputs = [turned(pair.output, k) for pair, k in zip(task.train, turns, strict=False)]

        def lift(test: int, grid: Grid) -> Grid | None:
            return turned_back(grid, turns[len(task.train) + test])

        return Reduction(_restate(task, inputs, outputs), lift, f"turned: {name} below", 7)

    return reduction


def turned(grid: Array, k: int) -> Grid:
    """The grid in one of eight orientations: transposed for k of 4 and more, then turned by k % 4 quarters."""
    return frozen(np.rot90(grid if k < 4 else grid.T, k % 4))


def turned_back(grid: Array, k: int) -> Grid:
    """The grid whose `turned` is the given one."""
    out = np.rot90(grid, -(k % 4))
    return frozen(out if k < 4 else out.T)


def _heaviest_below(mask: Array, grid: Grid) -> int:
    """The turn by which the marked cells weigh most below, and then to the right; of equal ones one that equal grids share."""

    def weight(k: int) -> tuple[int, int, int, bytes, bytes]:
        marked = turned(mask, k)
        h, w = marked.shape
        rows, columns = np.nonzero(marked)
        return int((2 * rows - h + 1).sum()), int((2 * columns - w + 1).sum()), h, marked.tobytes(), turned(grid, k).tobytes()

    return max(range(8), key=weight)


def _painted(grid: Grid) -> Array:
    return np.asarray(grid != 0)


def _rarest(grid: Grid) -> Array:
    counts = np.bincount(grid.ravel(), minlength=COLOURS)
    counts[0] = 0
    return np.asarray(grid == np.where(counts > 0, counts, 10**6).argmin())


# --- Outputs that repeat themselves ---------------------------------------------------------------------------------------------------


def _repeated(task: Task) -> Reduction | None:
    """Every output is a smaller grid so many times side by side and one above the other."""
    outputs = [pair.output for pair in task.train]
    times = [max(n for n in range(1, MAX_SIDE + 1) if all(_repeats(out if axis == 0 else out.T, n) for out in outputs)) for axis in (0, 1)]
    if times == [1, 1]:
        return None
    parts = [out[: out.shape[0] // times[0], : out.shape[1] // times[1]] for out in outputs]

    def lift(_: int, grid: Grid) -> Grid | None:
        fits = grid.shape[0] * times[0] <= MAX_SIDE and grid.shape[1] * times[1] <= MAX_SIDE
        return frozen(np.tile(grid, times)) if fits else None

    return Reduction(_restate(task, _inputs(task), parts), lift, f"{times[0]} x {times[1]} times", 4)


def _repeats(grid: Array, times: int) -> bool:
    h = grid.shape[0] // times
    return h * times == grid.shape[0] and bool((grid == np.tile(grid[:h], (times, 1))).all())


def _enlarged(task: Task) -> Reduction | None:
    """Every output consists of blocks of one size, its input does not: one cell for each block."""
    factors = [_factor(pair.output) for pair in task.train]
    k = int(np.gcd.reduce(factors))
    if k < 2 or all(_factor(pair.input) % k == 0 for pair in task.train):
        return None

    def lift(_: int, grid: Grid) -> Grid | None:
        return None if max(grid.shape) * k > MAX_SIDE else frozen(np.kron(grid, np.ones((k, k), np.int8)))

    return Reduction(_restate(task, _inputs(task), [pair.output[::k, ::k] for pair in task.train]), lift, f"enlarged {k} times", 4)


def _symmetric(task: Task) -> Reduction | None:
    """Every output is its own mirror image, left to right, top to bottom or both: a half or quarter of it tells the rest."""
    outputs = [pair.output for pair in task.train]
    if _same_sizes(task) or all(_mirrors(pair.input) == _mirrors(pair.output) for pair in task.train):
        return None
    axes = [axis for axis in (0, 1) if all(out.shape[axis] > 1 and (out == np.flip(out, axis)).all() for out in outputs)]
    odd = {axis: {out.shape[axis] % 2 for out in outputs} for axis in axes}
    if not axes or any(len(odd[axis]) > 1 for axis in axes):
        return None
    parts = outputs
    for axis in axes:
        parts = [out[: (out.shape[0] + 1) // 2] if axis == 0 else out[:, : (out.shape[1] + 1) // 2] for out in parts]

    def lift(_: int, grid: Grid) -> Grid | None:
        out = np.array(grid)
        for axis in axes:
            back = np.flip(out, axis)
            if 1 in odd[axis]:
                back = back[1:] if axis == 0 else back[:, 1:]
            out = np.concatenate([out, back], axis=axis)
        return frozen(out) if max(out.shape) <= MAX_SIDE else None

    return Reduction(_restate(task, _inputs(task), parts), lift, "a part of a symmetric output", 4)


def _mirrors(grid: Grid) -> tuple[bool, bool]:
    return bool((grid == grid[::-1]).all()), bool((grid == grid[:, ::-1]).all())


def _same_sizes(task: Task) -> bool:
    return all(pair.input.shape == pair.output.shape for pair in task.train)


_RESTATEMENTS: tuple[Callable[[Task], Reduction | None], ...] = (
    _blocks,
    _panel_cells,
    _panel_colours,
    _upright,
    _repeated,
    _enlarged,
    _symmetric,
)
_TURNS = (_turned_by("what is painted", _painted), _turned_by("the rarest colour", _rarest))
