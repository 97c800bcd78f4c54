"""Features: what a task's train pairs, and one step of each operation on them, say about the program behind the task.

One step of every operation is applied to the inputs and to the outputs. What it leaves as it is, and how much of the outputs it gives, is
evidence for or against that operation. This module does not know networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen
from arc_submit.arc.task import Pair
from arc_submit.search.explore import Capacity, Exploration, explore, start
from arc_submit.search.grid_tools import Size
from arc_submit.search.jit import jit
from arc_submit.search.operations import OPERATIONS
from arc_submit.search.store import Array, Store

STEP_FEATURES = 7  # of each operation: 5 of its results on the inputs, 2 on the outputs
_RATIOS = (1.0, 2.0, 3.0, 0.5, 1 / 3)
# One step of each operation on grids of at most 900 cells; lists have at most four times as many.
_CAPACITY = Capacity(cells=6_000_000, nodes=8_000, states=1_000, children=8_000)


def features_of(pairs: Sequence[Pair]) -> tuple[Array, Array]:
    """The features of a task.

    Args:
        pairs: its train pairs, one at least.

    Returns:
        float32 (features,) of the task as a whole, and float32 (operations, STEP_FEATURES) of one step of each operation.
    """
    inputs, outputs = [pair.input for pair in pairs], [pair.output for pair in pairs]
    sizes = [(grid.shape[0], grid.shape[1]) for grid in outputs]
    on_inputs = _one_step(inputs, outputs, sizes, outputs)
    itself = _one_step(inputs, outputs, sizes, inputs)[:, 1]
    on_outputs = _one_step(outputs, outputs, sizes, outputs)
    steps = np.concatenate([on_inputs, itself[:, None], on_outputs[:, [0, 1]]], axis=1)
    return task_features(pairs), steps.astype(np.float32)


def _one_step(grids: Sequence[Grid], outputs: Sequence[Grid], sizes: Sequence[Size], targets: Sequence[Grid]) -> Array:
    """float64 (operations, 4): each operation's results on the grids against the targets, see `_compare`; 0 where it has none."""
    store, exploration = start(list(grids), list(outputs), _CAPACITY, np.ones(len(OPERATIONS), np.int64))
    frames = np.array([(*size, *grid.shape) for size, grid in zip(sizes, grids, strict=True)], dtype=np.int64)
    largest = max(grid.size for grid in [*grids, *outputs])
    # The first state is expanded in any case, and the work is used up after it.
    explore(store, exploration, frames, np.array([2 * largest, 4 * largest, 100], dtype=np.int64), 1)
    cells = np.concatenate([grid.ravel() for grid in targets]).astype(np.int8)
    starts = np.cumsum([0] + [grid.size for grid in targets]).astype(np.int64)
    shapes = np.array([grid.shape for grid in targets], dtype=np.int64)
    out = np.zeros((len(OPERATIONS), 4))
    _compare(store, exploration, cells, starts, shapes, out)
    return out


@jit
def _compare(store: Store, exploration: Exploration, cells: Array, starts: Array, shapes: Array, out: Array) -> None:
    """Fill `out` for each operation with means over the examples: size is right, all cells right, share of cells right, nothing wrong.

    "Nothing wrong" holds where each painted cell of the result is right and there is one at least: a piece of the output.

    Args:
        cells: int8, of all targets, concatenated.
        starts: int64 (examples + 1,), where each target begins in `cells`.
        shapes: int64 (examples, 2), of the targets.
    """
    examples = shapes.shape[0]
    for k in range(exploration.operations.size):
        for example in range(examples):
            row = exploration.rows[exploration.states[0, example], 0] - 1
            if row < 0:
                continue
            node = exploration.children[row + k]
            if node < 0 or store.nodes[node, 2] != 0:
                continue
            image = store.nodes[node, 0]
            if store.images[image, 2] != shapes[example, 0] or store.images[image, 3] != shapes[example, 1]:
                continue
            size, source = starts[example + 1] - starts[example], store.images[image, 4]
            right, painted, painted_right = 0, 0, 0
            for i in range(size):
                value = store.cells[source + i]
                same = value == cells[starts[example] + i]
                right += same
                painted += value != 0
                painted_right += same and value != 0
            operation = exploration.operations[k]
            out[operation, 0] += 1 / examples
            out[operation, 1] += (right == size) / examples
            out[operation, 2] += right / size / examples
            out[operation, 3] += (painted > 0 and painted == painted_right) / examples


def task_features(pairs: Sequence[Pair]) -> Array:
    """float32 (features,): sizes, colours, symmetries, connected parts, periods and differences, as means over the pairs."""
    rows = np.array([_pair_features(pair) for pair in pairs])
    outputs = {pair.output.shape for pair in pairs}
    return np.concatenate([rows.mean(axis=0), rows.min(axis=0), [len(outputs) == 1, len(pairs) / 5]]).astype(np.float32)


def task_features_count() -> int:
    """The length of `task_features`."""
    grid = frozen(np.zeros((1, 1)))
    return len(task_features([Pair(grid, grid)]))


def _pair_features(pair: Pair) -> list[float]:
    before, after = pair.input, pair.output
    values: list[float] = [float(before.shape == after.shape), float(before.shape == after.shape[::-1]), float(after.size == 1)]
    for axis in (0, 1):
        ratio = after.shape[axis] / before.shape[axis]
        values += [float(abs(ratio - one) < 1e-6) for one in _RATIOS] + [min(ratio, 4.0), after.shape[axis] / 30, before.shape[axis] / 30]
    counts = [np.bincount(grid.ravel(), minlength=COLOURS) for grid in (before, after)]
    present = [count > 0 for count in counts]
    values += [float(flag) for flags in present for flag in flags]
    values += [present[0].sum() / 10, present[1].sum() / 10, (present[1] & ~present[0]).sum() / 5, (present[0] & ~present[1]).sum() / 5]
    values += [counts[0][0] / before.size, counts[1][0] / after.size, counts[1].max() / after.size]
    for grid in (before, after):
        values += [float(view.shape == grid.shape and bool((view == grid).all())) for view in (grid[::-1], grid[:, ::-1], grid.T)]
        values += [_periods(grid), _periods(grid.T), _parts(grid) / 20, _full_lines(grid), _full_lines(grid.T)]
    if before.shape == after.shape:
        changed = before != after
        values += [float(changed.mean()), float((before[changed] == 0).all()), float((after[changed] == 0).all())]
    else:
        values += [0.0, 0.0, 0.0]
    return values


def _periods(grid: Grid) -> float:
    """Whether the rows repeat with a period of at most half of the height."""
    return float(any(bool((grid[period:] == grid[:-period]).all()) for period in range(1, grid.shape[0] // 2 + 1)))


def _full_lines(grid: Grid) -> float:
    """The share of rows of one painted colour."""
    return float(((grid == grid[:, :1]).all(axis=1) & (grid[:, 0] != 0)).mean())


def _parts(grid: Grid) -> float:
    """The Euler number of the painted cells: parts that touch by sides, less their holes."""
    on = np.pad(grid != 0, 1).astype(np.int64)
    edges = (on[1:] * on[:-1]).sum() + (on[:, 1:] * on[:, :-1]).sum()
    squares = (on[1:, 1:] * on[:-1, 1:] * on[1:, :-1] * on[:-1, :-1]).sum()
    return float(on.sum() - edges + squares)
