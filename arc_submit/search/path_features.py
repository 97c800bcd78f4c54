"""Features of cells by paths and marks: which paths pass through a cell, and where the nearest mark is from it.

A mark is a single cell of its colour. Paths start at marks, at the ends of lines, at the corners of objects, at tips of objects and in gaps
of their outlines. They stop at obstacles, pass them, turn at them, step aside or bounce. This module does not know outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.features import DIRECTIONS, FAR, OUT, FeatureColumns, FeatureTable
from arc_submit.search.grid_tools import background_of, label_objects, painted_counts, rarest_index
from arc_submit.search.jit import jit
from arc_submit.search.primitives.line import STEPS
from arc_submit.search.primitives.splitting import component_boxes
from arc_submit.search.store import Array

Start = tuple[int, int, int, int, int]  # row, column, step down, step right, colour
MAX_STARTS = 40  # of one kind; a grid with more has noise, and no path of that kind
STOP, FLOOR, PASS, TURN_RIGHT, TURN_LEFT, EDGE_RIGHT, EDGE_LEFT, ASIDE_RIGHT, ASIDE_LEFT, BOUNCE_ACROSS, BOUNCE_DOWN, BOUNCE = range(12)
_STRAIGHT = {
    "stop": STOP, "pass": PASS, "turn_right": TURN_RIGHT, "turn_left": TURN_LEFT, "turn_right_at_edges": EDGE_RIGHT,
    "turn_left_at_edges": EDGE_LEFT, "aside_right": ASIDE_RIGHT, "aside_left": ASIDE_LEFT,
}  # fmt: skip
_DIAGONAL = {"stop": STOP, "pass": PASS, "bounce_at_sides": BOUNCE_ACROSS, "bounce_at_top": BOUNCE_DOWN, "bounce": BOUNCE}
GROUPS = ("marks", "mark paths", "rare paths", "object paths")
_STRAIGHT_SETS = {"straight": range(4), "column": (0, 1), "row": (2, 3)}
_DIAGONAL_SETS = {"diagonal": range(4, 8), "falling": (4, 7), "rising": (5, 6)}


@jit
def trace(grid: Grid, background: int, starts: Array, motion: int) -> tuple[Array, Array, Array]:
    """The paths from some starts; of paths that meet in a cell the one with fewer steps counts, and then the earlier start.

    Args:
        starts: int64 (starts, 5): row, column, step down, step right, colour.
        motion: what a path does at cells that are not background: STOP, PASS over them, turn (TURN_RIGHT, TURN_LEFT; EDGE_RIGHT and
            EDGE_LEFT at the edges too), step aside and go on (ASIDE_RIGHT, ASIDE_LEFT), or BOUNCE, diagonal steps only: at objects,
            BOUNCE_ACROSS at the left and right edges too, BOUNCE_DOWN at the upper and lower ones. FLOOR stops where the colour of its
            first cell ends.

    Returns:
        int64 (h, w) three times: the path's colour, OUT where there is none; the number of its steps; what it ends at, OUT for an edge.
    """
    h, w = grid.shape
    colours, steps, ends = np.full((h, w), OUT, np.int64), np.zeros((h, w), np.int64), np.full((h, w), OUT, np.int64)
    limit = 2 * (h + w)
    path = np.empty((limit, 2), np.int64)
    for k in range(len(starts)):
        y, x, dy, dx = starts[k, 0], starts[k, 1], starts[k, 2], starts[k, 3]
        free, end, length = background, OUT, 0
        if motion == FLOOR and 0 <= y + dy < h and 0 <= x + dx < w:
            free = grid[y + dy, x + dx]
        while length < limit:
            if motion >= BOUNCE_ACROSS:
                over_y, over_x = not 0 <= y + dy < h, not 0 <= x + dx < w
                if (over_y and motion != BOUNCE_DOWN) or (over_x and motion != BOUNCE_ACROSS):
                    break
                wall_y, wall_x = over_y or grid[y + dy, x] != free, over_x or grid[y, x + dx] != free
                if not wall_y and not wall_x and grid[y + dy, x + dx] != free:
                    wall_y, wall_x = True, True
                dy, dx = -dy if wall_y else dy, -dx if wall_x else dx
            a, b = y + dy, x + dx
            outside = not (0 <= a < h and 0 <= b < w)
            if (outside and motion in (EDGE_RIGHT, EDGE_LEFT)) or (not outside and grid[a, b] != free):
                if not outside:
                    end = grid[a, b]
                if motion in (TURN_RIGHT, EDGE_RIGHT):
                    dy, dx = dx, -dy
                    a, b = y + dy, x + dx
                elif motion in (TURN_LEFT, EDGE_LEFT):
                    dy, dx = -dx, dy
                    a, b = y + dy, x + dx
                elif motion == ASIDE_RIGHT:
                    a, b = y + dx, x - dy
                elif motion == ASIDE_LEFT:
                    a, b = y - dx, x + dy
            if not (0 <= a < h and 0 <= b < w) or (motion != PASS and grid[a, b] != free):
                break
            y, x = a, b
            path[length, 0], path[length, 1] = y, x
            length += 1
        for n in range(length):
            i, j = path[n, 0], path[n, 1]
            if colours[i, j] == OUT or n + 1 < steps[i, j]:
                colours[i, j], steps[i, j], ends[i, j] = starts[k, 4], n + 1, end
    return colours, steps, ends


def path_table(grid: Grid) -> FeatureTable:
    """All features of a grid's cells, in GROUPS."""
    grid = np.array(grid, np.int8, order="C")  # one type for the compiled code
    out = FeatureColumns((grid.shape[0], grid.shape[1]))
    background = background_of(grid)
    labels, count = label_objects(grid, background, True, True)
    boxes, sizes = component_boxes(labels, count), np.bincount(labels.ravel(), minlength=count + 1)
    marks = [(int(i), int(j)) for i, j in np.argwhere((sizes[labels] == 1) & (labels > 0))]
    _paths_of_marks(out, grid, background, marks)
    out.group = "object paths"
    _paths_of_objects(out, grid, background, _ends(grid, background), "end")
    _paths_of_objects(out, grid, background, _corners(grid, labels, boxes, False), "corner")
    _paths_of_objects(out, grid, background, _corners(grid, labels, boxes, True), "notch")
    _paths_of_objects(out, grid, background, _gaps(grid, labels), "gap")
    tips = _tips(grid, background, marks)
    _paths_of_objects(out, grid, background, tips, "tip")
    _add_paths(out, "tip_across", trace(grid, background, _starts([(i, j, -dy, -dx, colour) for i, j, dy, dx, colour in tips]), PASS))
    out.group = "marks"
    add_from_nearest(out, "mark", grid, np.array(marks, np.int64).reshape(-1, 2))
    add_from_nearest(out, "rarest", grid, np.argwhere(grid == rarest_index(painted_counts(grid))))
    _from_largest(out, boxes, sizes)
    return out.table()


def _add_paths(out: FeatureColumns, name: str, traced: tuple[Array, Array, Array]) -> None:
    _add_colours(out, name, traced[0])
    out.add(f"path_{name}_steps", traced[1])
    out.add(f"path_{name}_steps_mod_2", traced[1] % 2)


def _add_colours(out: FeatureColumns, name: str, colours: Array) -> None:
    """No path is 0, so that a test tells it from all colours, also those that no train pair has."""
    out.add(f"path_{name}", np.where(colours == OUT, 0, colours), True)


def _starts(rows: Sequence[Start]) -> Array:
    return np.array(rows if len(rows) <= MAX_STARTS else [], np.int64).reshape(-1, 5)


def _paths_of_marks(out: FeatureColumns, grid: Grid, background: int, marks: list[tuple[int, int]]) -> None:
    """Paths in every direction alone, of all marks and of those of the rarest colour, and in several directions together."""
    rarest = int(rarest_index(painted_counts(grid)))
    kinds = {"mark": marks, "rare": [(i, j) for i, j in np.argwhere(grid == rarest).tolist()] if rarest else []}
    for kind, cells in kinds.items():
        out.group = f"{kind} paths"
        some = cells if len(cells) <= MAX_STARTS else []
        for numbers, motions, joined in ((range(4), _STRAIGHT, _STRAIGHT_SETS), (range(4, 8), _DIAGONAL, _DIAGONAL_SETS)):
            traced: dict[tuple[int, int], tuple[Array, Array, Array]] = {}
            for k in numbers:
                starts = _starts([(i, j, int(STEPS[k, 0]), int(STEPS[k, 1]), int(grid[i, j])) for i, j in some])
                for name, motion in motions.items():
                    traced[k, motion] = trace(grid, background, starts, motion)
                    _add_colours(out, f"{kind}_{DIRECTIONS[k]}_{name}", traced[k, motion][0])
                out.add(f"path_{kind}_{DIRECTIONS[k]}_ends_at", np.where(traced[k, STOP][0] == OUT, 0, traced[k, STOP][2]))
            for name, motion in motions.items():
                for text, together in joined.items():
                    nearest = _nearest([traced[k, motion] for k in together])
                    if len(together) == 4:
                        _add_paths(out, f"{kind}_{text}_{name}", nearest)
                    elif motion in (STOP, PASS):
                        _add_colours(out, f"{kind}_{text}_{name}", nearest[0])
    out.group = "mark paths"
    single = [(i, j) for i in range(grid.shape[0]) for j in range(grid.shape[1]) if not _has_neighbour(grid, i, j)]
    for k in range(8):
        starts = _starts([(i, j, int(STEPS[k, 0]), int(STEPS[k, 1]), int(grid[i, j])) for i, j in single])
        out.add(f"path_single_{DIRECTIONS[k]}_floor", trace(grid, background, starts, FLOOR)[0], True)


def _nearest(traced: Sequence[tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    """Several results of `trace` as one: where paths meet the one with fewer steps counts, and then the earlier one."""
    colours, steps, ends = (np.stack(parts) for parts in zip(*traced, strict=True))
    first = np.where(colours == OUT, np.iinfo(np.int64).max, steps).argmin(axis=0)[None]
    return tuple(np.take_along_axis(part, first, axis=0)[0] for part in (colours, steps, ends))


def _has_neighbour(grid: Grid, i: int, j: int) -> bool:
    """Whether one of the four neighbours has the same colour."""
    h, w = grid.shape
    return any(0 <= i + a < h and 0 <= j + b < w and grid[i + a, j + b] == grid[i, j] for a, b in STEPS[:4])


def _paths_of_objects(out: FeatureColumns, grid: Grid, background: int, rows: list[Start], name: str) -> None:
    """Paths with directions that objects give."""
    starts = _starts(rows)
    for motion_name, motion in (_STRAIGHT | _DIAGONAL).items():
        some = starts
        if motion >= BOUNCE_ACROSS:
            some = starts[(starts[:, 2] != 0) & (starts[:, 3] != 0)]
        _add_paths(out, f"{name}_{motion_name}", trace(grid, background, some, motion))


def _ends(grid: Grid, background: int) -> list[Start]:
    """The ends of lines: cells with exactly one neighbour of their colour, with the step away from it."""
    h, w = grid.shape
    out: list[Start] = []
    for i, j in np.argwhere(grid != background).tolist():
        same = [(a, b) for a, b in STEPS.tolist() if 0 <= i + a < h and 0 <= j + b < w and grid[i + a, j + b] == grid[i, j]]
        if len(same) == 1:
            out.append((i, j, -same[0][0], -same[0][1], int(grid[i, j])))
    return out


def _corners(grid: Grid, labels: Array, boxes: Array, cut_off: bool) -> list[Start]:
    """The corners of the boxes of objects of several cells that the object has, or that it lacks, with the diagonal step outwards."""
    out: list[Start] = []
    for k, (top, left, bottom, right) in enumerate(boxes.tolist()):
        own = np.argwhere(labels[top : bottom + 1, left : right + 1] == k)
        if k == 0 or len(own) == 1:
            continue
        colour = int(grid[top + own[0, 0], left + own[0, 1]])
        for y, x, dy, dx in ((top, left, -1, -1), (top, right, -1, 1), (bottom, left, 1, -1), (bottom, right, 1, 1)):
            if labels[y, x] == (0 if cut_off else k):
                out.append((y, x, dy, dx, colour))
    return out


def _gaps(grid: Grid, labels: Array) -> list[Start]:
    """Free cells between two cells of one object in a line, with both steps across that line."""
    out: list[Start] = []
    for dy, dx in ((1, 0), (0, 1)):
        before, middle, after = (
            labels[: -2 * dx or None, : -2 * dy or None],
            labels[dx : -dx or None, dy : -dy or None],
            labels[2 * dx :, 2 * dy :],
        )
        for i, j in np.argwhere((middle == 0) & (before > 0) & (before == after)).tolist():
            colour = int(grid[i, j])
            out += [(i + dx, j + dy, sign * dy, sign * dx, colour) for sign in (-1, 1)]
    return out


def _tips(grid: Grid, background: int, marks: list[tuple[int, int]]) -> list[Start]:
    """Marks beside exactly one cell of another object, with the step away from it."""
    h, w = grid.shape
    out: list[Start] = []
    for i, j in marks:
        beside = [(a, b) for a, b in STEPS[:4].tolist() if 0 <= i + a < h and 0 <= j + b < w and grid[i + a, j + b] != background]
        if len(beside) == 1:
            out.append((i, j, -beside[0][0], -beside[0][1], int(grid[i, j])))
    return out


def add_from_nearest(out: FeatureColumns, name: str, grid: Grid, places: Array) -> None:
    """Where a cell is from the nearest of some places, by the larger of the steps down and right."""
    index: Array = np.indices(grid.shape)
    rows, columns = index
    if not 0 < len(places) <= MAX_STARTS:
        _add_offsets(out, name, np.full(grid.shape, FAR), np.full(grid.shape, FAR))
        out.add(f"{name}_colour", np.array(0), True)
        return
    dy, dx = rows[..., None] - places[:, 0], columns[..., None] - places[:, 1]
    nearest = (np.maximum(np.abs(dy), np.abs(dx)) * 64 + np.abs(dy) + np.abs(dx)).argmin(axis=2)[..., None]
    _add_offsets(out, name, np.take_along_axis(dy, nearest, 2)[..., 0], np.take_along_axis(dx, nearest, 2)[..., 0])
    colours: Array = grid[places[:, 0], places[:, 1]]
    out.add(f"{name}_colour", colours[nearest[..., 0]], True)


def _from_largest(out: FeatureColumns, boxes: Array, sizes: Array) -> None:
    """Where a cell is from the box of the largest object: 0 in its rows or columns."""
    rows, columns = np.indices(out.shape)
    largest = int(sizes[1:].argmax()) + 1 if len(sizes) > 1 else 0
    top, left, bottom, right = boxes[largest].tolist()
    _add_offsets(out, "largest", rows - np.clip(rows, top, max(top, bottom)), columns - np.clip(columns, left, max(left, right)))


def _add_offsets(out: FeatureColumns, name: str, dy: Array, dx: Array) -> None:
    y, x = np.abs(dy), np.abs(dx)
    values = {"down": dy + FAR // 2, "right": dx + FAR // 2, "rows": y, "columns": x, "steps_4": y + x, "steps_8": np.maximum(y, x)}
    values |= {"sum": dy + dx + FAR // 2, "difference": dx - dy + FAR // 2, "from_diagonal": np.abs(y - x)}
    for key, column in values.items():
        out.add(f"{name}_{key}", column)
    for modulus in (2, 3, 4):
        for key, column in (("rows", y), ("columns", x), ("steps_8", np.maximum(y, x)), ("steps_4", y + x)):
            out.add(f"{name}_{key}_mod_{modulus}", column % modulus)
