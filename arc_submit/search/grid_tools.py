"""Helpers on tasks and grids that several parts of the search share. This module does not know programs or solvers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen
from arc_submit.arc.task import Task
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

CLEAR = -1  # a cell of an object's box that is not of the object
Size = tuple[int, int]  # height, width
Span = tuple[int, int]  # first row or column, and the one behind the last


def inputs_of(task: Task) -> list[Grid]:
    """The inputs of all examples, train pairs first."""
    return [pair.input for pair in task.train] + list(task.tests)


def keeps_size(task: Task) -> bool:
    """Whether every train output has its input's size."""
    return all(pair.input.shape == pair.output.shape for pair in task.train)


def output_cells(task: Task) -> int:
    """The number of cells of all train outputs."""
    return sum(pair.output.size for pair in task.train)


def held_out_folds(pairs: int, folds: int | None = None) -> Iterator[tuple[list[int], list[int]]]:
    """(Pairs to learn from, pairs left out), each pair left out once: one by one, or in `folds` groups of more pairs; none for one pair."""
    folds = pairs if folds is None else min(folds, pairs)
    for fold in range(folds if pairs > 1 else 0):
        yield [k for k in range(pairs) if k % folds != fold], list(range(fold, pairs, folds))


def fixed_colours(before: Array, after: Array) -> Array:
    """Colours that no cell of some examples changes; a colour that none of them shows is fixed where a painted one that they show is.

    Args:
        before, after: integers (cells,), the colours of the same cells in inputs and outputs.

    Returns:
        bool (10,).
    """
    shown = np.zeros(COLOURS, np.bool_)
    shown[before] = True
    fixed = shown.copy()
    fixed[before[before != after]] = False
    return fixed | (~shown & fixed[1:].any())


def fixed_colours_of(task: Task) -> Array:
    """`fixed_colours` of all train pairs of a task that keeps its inputs' sizes."""
    before, after = (np.concatenate([getattr(pair, side).ravel() for pair in task.train]) for side in ("input", "output"))
    return fixed_colours(before, after)


def painted_counts(grid: Array) -> Array:
    """The number of cells of each colour, int64 (10,), with 0 for colour 0."""
    counts = np.bincount(grid.ravel(), minlength=COLOURS)
    counts[0] = 0
    return counts


def rarest_index(counts: Array) -> Array:
    """The index of the smallest positive count along the last axis, 0 where there is none."""
    return np.asarray(np.where(counts > 0, counts, 10**6).argmin(axis=-1))


def commonest_colour(grid: Grid) -> int:
    """The colour with most cells, colour 0 included."""
    return int(np.bincount(grid.ravel(), minlength=COLOURS).argmax())


def background_of(grid: Grid) -> int:
    """Colour 0 where the grid shows it, else the commonest colour."""
    return 0 if (grid == 0).any() else commonest_colour(grid)


def label_objects(grid: Grid, background: int, diagonal: bool, one_colour: bool) -> tuple[Array, int]:
    """`label` for cells of other colours than the background, colour 0 included."""
    return label(np.where(grid == background, 0, grid + 1).astype(np.int8), diagonal, one_colour)


def object_pictures(grid: Grid, background: int, one_colour: bool, most: int) -> list[Array]:
    """The box of each object, int8, with CLEAR where it has no cell; none where there are more than `most` objects."""
    labels, count = label_objects(grid, background, True, one_colour)
    boxes = [bounding_box(labels == k) for k in range(1, count + 1)] if count <= most else []
    return [np.where(labels[box] == k, grid[box], np.int8(CLEAR)) for k, box in enumerate(boxes, 1) if box is not None]


def bounding_box(mask: Array) -> tuple[slice, slice] | None:
    """The smallest rectangle that contains every marked cell; None where there is none."""
    ys, xs = np.nonzero(mask)
    return None if len(ys) == 0 else (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))


def distinct_lines(grid: Grid) -> Grid:
    """The grid without the rows and columns that repeat the one before."""
    grid = grid[np.concatenate([[True], (grid[1:] != grid[:-1]).any(axis=1)])]
    return np.asarray(grid[:, np.concatenate([[True], (grid[:, 1:] != grid[:, :-1]).any(axis=0)])])


def block_side(grid: Grid) -> int:
    """The largest side of equal square blocks of one colour that the grid consists of; 1 where there are none."""
    for k in range(min(grid.shape), 1, -1):
        if grid.shape[0] % k == 0 and grid.shape[1] % k == 0 and (enlarged(grid[::k, ::k], k) == grid).all():
            return k
    return 1


def enlarged(grid: Array, times: int) -> Array:
    """Each cell as a square block."""
    return np.kron(grid, np.ones((times, times), np.int8))


def oriented(grid: Array, k: int) -> Grid:
    """The grid in one of eight orientations: transposed for k of 4 and more, then turned left by k % 4 quarters."""
    return frozen(np.rot90(grid if k < 4 else grid.T, k % 4))


def unoriented(grid: Array, k: int) -> Grid:
    """The inverse of `oriented`."""
    out = np.rot90(grid, -(k % 4))
    return frozen(out if k < 4 else out.T)


def find_panels(grid: Grid) -> tuple[list[Span], list[Span], int] | None:
    """Row spans, column spans and line colour where full lines of one colour divide a grid into at least two equal panels."""
    best = None
    for colour in range(COLOURS):
        mask = grid == colour
        lines_i, lines_j = np.flatnonzero(mask.all(axis=1)), np.flatnonzero(mask.all(axis=0))
        if 2 * len(lines_i) >= grid.shape[0] or 2 * len(lines_j) >= grid.shape[1]:
            continue
        spans_i, spans_j = spans_between(lines_i, grid.shape[0]), spans_between(lines_j, grid.shape[1])
        equal = len({b - a for a, b in spans_i}) == 1 and len({b - a for a, b in spans_j}) == 1
        # Painted lines are intentional; transparent ones may be free by chance.
        if equal and len(spans_i) * len(spans_j) > 1 and (best is None or (best[2] == 0 and colour > 0)):
            best = (spans_i, spans_j, colour)
    return best


def find_unequal_panels(grid: Grid) -> tuple[list[Span], list[Span]] | None:
    """Row spans and column spans between the full lines of one colour, of which none are neighbours: the colour with most lines."""
    best: tuple[int, tuple[list[Span], list[Span]]] | None = None
    for colour in range(COLOURS):
        mask = grid == colour
        rows, columns = np.flatnonzero(mask.all(axis=1)), np.flatnonzero(mask.all(axis=0))
        spans = spans_between(rows, grid.shape[0]), spans_between(columns, grid.shape[1])
        number = len(rows) + len(columns)
        apart = (np.diff(rows) > 1).all() and (np.diff(columns) > 1).all()
        if apart and len(spans[0]) * len(spans[1]) > 1 and (best is None or number > best[0]):
            best = number, spans
    return None if best is None else best[1]


def spans_between(lines: Array, length: int) -> list[Span]:
    """The runs of rows or columns between lines."""
    edges = [-1, *(int(k) for k in lines), length]
    return [(a + 1, b) for a, b in itertools.pairwise(edges) if b - a > 1]
