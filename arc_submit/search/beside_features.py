"""Features of cells by the objects beside them: the place beside the nearest object, the marks in each quarter, and middles.

A quarter of a cell has the cells above it or below it, and to the left or to the right of it. A middle is a free cell as far from a cell of
one colour as from one of the same colour on the other side. This module does not know outputs.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.search.features import FAR, FeatureColumns, FeatureTable, component_table, lines_of_sight
from arc_submit.search.grid_tools import background_of, label_objects, rarest_index
from arc_submit.search.path_features import MAX_STARTS, add_from_nearest
from arc_submit.search.store import Array

GROUP = "beside"
_MIDDLE = FAR // 2  # the value of a signed step of 0
_QUARTERS = {"up_left": (-1, -1), "up_right": (-1, 1), "down_left": (1, -1), "down_right": (1, 1)}


def beside_table(grid: Grid) -> FeatureTable:
    """All features of a grid's cells, in one group."""
    grid = np.array(grid, np.int8, order="C")  # one type for the compiled code
    out = FeatureColumns((grid.shape[0], grid.shape[1]))
    out.group = GROUP
    background = background_of(grid)
    for name, one_colour in (("part", True), ("object", False)):
        labels, count = label_objects(grid, background, True, one_colour)
        boxes, own, _ = component_table(labels, count, grid)
        if one_colour:
            _quarters(out, grid, np.argwhere((own.sum(axis=1)[labels] == 1) & (labels > 0)))
        own[:, background] = 0
        _nearest_box(out, f"beside_{name}", boxes[1:], own[1:])
    _middles(out, grid)
    return out.table()


def _nearest_box(out: FeatureColumns, name: str, boxes: Array, own: Array) -> None:
    """Where a cell is from the nearest box of some objects; the larger of equally near ones, and then the first one.

    Args:
        boxes: int64 (objects, 4): top, left, bottom, right.
        own: int64 (objects, 10), the cells of each colour.
    """
    many = not 0 < len(boxes) <= MAX_STARTS
    if many:  # noise, or nothing: no object is beside a cell
        boxes, own = np.full((1, 4), -FAR), np.zeros((1, COLOURS), np.int64)
    rows, columns = np.indices(out.shape)
    top, left, bottom, right = boxes.T
    dy = rows[..., None] - np.clip(rows[..., None], top, bottom)
    dx = columns[..., None] - np.clip(columns[..., None], left, right)
    sizes = own.sum(axis=1)
    steps = np.maximum(np.abs(dy), np.abs(dx)) * 128 + np.abs(dy) + np.abs(dx)
    order = np.argsort(-sizes, kind="stable")
    nearest = order[steps[..., order].argmin(axis=2)]
    dy, dx = (np.take_along_axis(part, nearest[..., None], 2)[..., 0] for part in (dy, dx))
    top, left, bottom, right = (side[nearest] for side in (top, left, bottom, right))
    height, width, far = bottom - top + 1, right - left + 1, np.maximum(np.abs(dy), np.abs(dx))
    values = {
        "steps_8": far,
        "steps_4": np.abs(dy) + np.abs(dx),
        "down": dy + _MIDDLE,
        "right": dx + _MIDDLE,
        "rows": np.abs(dy),
        "columns": np.abs(dx),
        "from_diagonal": np.abs(np.abs(dy) - np.abs(dx)),
        "from_top": rows - top + _MIDDLE,
        "from_bottom": bottom - rows + _MIDDLE,
        "from_left": columns - left + _MIDDLE,
        "from_right": right - columns + _MIDDLE,
        "row_middle": np.abs(2 * rows - top - bottom),
        "column_middle": np.abs(2 * columns - left - right),
        "steps_less_height": far - height + _MIDDLE,
        "steps_less_width": far - width + _MIDDLE,
        "steps_less_half": 2 * far - np.minimum(height, width) + _MIDDLE,
        "height": height,
        "width": width,
        "size": sizes[nearest],
        "larger": (sizes[None] > sizes[:, None]).sum(axis=1)[nearest],
        "smaller": (sizes[None] < sizes[:, None]).sum(axis=1)[nearest],
    }
    for key, column in values.items():
        out.add(f"{name}_{key}", np.where(many, FAR, column))
    out.add(f"{name}_commonest", own.argmax(axis=1)[nearest], True)
    out.add(f"{name}_rarest", rarest_index(own)[nearest], True)


def _quarters(out: FeatureColumns, grid: Grid, marks: Array) -> None:
    """The colour of the nearest mark in each quarter of a cell, and in all of them."""
    rows, columns = np.indices(out.shape)
    if not 0 < len(marks) <= MAX_STARTS:
        marks = np.zeros((0, 2), np.int64)
    dy, dx = marks[:, 0] - rows[..., None], marks[:, 1] - columns[..., None]
    colours = np.append(grid[marks[:, 0], marks[:, 1]], 0)  # the last one where a quarter has no mark
    for name, (down, right) in _QUARTERS.items():
        steps = np.where((dy * down > 0) & (dx * right > 0), np.abs(dy) + np.abs(dx), FAR)
        none = np.full((*out.shape, 1), FAR - 1)
        out.add(f"quarter_{name}", colours[np.concatenate([steps, none], axis=2).argmin(axis=2)], True)


def _middles(out: FeatureColumns, grid: Grid) -> None:
    """By how much a cell is nearer to one of two cells of one colour in its row or column, and where it is from the nearest middle."""
    seen, distance, _ = lines_of_sight(grid)
    middle = np.zeros(grid.shape, np.bool_)
    for name, a, b in (("column", 0, 1), ("row", 2, 3)):
        between = (seen[a] == seen[b]) & (seen[a] > 0)
        out.add(f"middle_of_{name}", np.where(between, distance[a] - distance[b] + _MIDDLE, FAR))
        middle |= between & (distance[a] == distance[b]) & (distance[a] > 1) & (grid == 0)
    add_from_nearest(out, "middle", grid, np.argwhere(middle))
