"""Features of cells by what is beside them: the nearest object, marks near by and in each quarter, middles, squares and rectangles.

A mark is a single cell of its colour. A quarter of a cell has the cells above it or below it, and to the left or to the right of it. A
middle is a free cell as far from a cell of one colour as from one of the same colour on the other side. This module does not know outputs.
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
            marks = np.argwhere((own.sum(axis=1)[labels] == 1) & (labels > 0))
            marks = marks if len(marks) <= MAX_STARTS else marks[:0]  # more marks are noise
            _quarters(out, grid, marks)
            _nearest_mark(out, grid, marks)
        own[:, background] = 0
        _nearest_box(out, f"beside_{name}", grid, boxes[1:], own[1:])
    _middles(out, grid)
    out.add("own_square", own_squares(grid))
    out.add("largest_free_rectangle", largest_rectangle(grid == background))
    return out.table()


def _nearest_box(out: FeatureColumns, name: str, grid: Grid, boxes: Array, own: Array) -> None:
    """Where a cell is from the nearest box of some objects, and copies of its cells; of equally near boxes the larger, then the first.

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
    colours = (own > 0).sum(axis=1)[nearest]
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
        "steps_less_colours": far - colours + _MIDDLE,
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
    # The cell of the box that is nearest, and that cell after the box is flipped; the box repeated and mirrored without end.
    y, x = rows - dy, columns - dx
    flipped_y, flipped_x = top + bottom - y, left + right - x
    copies = {
        "nearest": (y, x),
        "flipped_down": (flipped_y, x),
        "flipped_across": (y, flipped_x),
        "opposite": (flipped_y, flipped_x),
        "repeated": (top + (rows - top) % height, left + (columns - left) % width),
        "mirrored": (top + _back_and_forth(rows - top, height), left + _back_and_forth(columns - left, width)),
    }
    for key, place in copies.items():
        out.add(f"{name}_{key}", np.zeros(out.shape, np.int8) if many else grid[place], True)


def _back_and_forth(steps: Array, length: Array) -> Array:
    """The places 0, 1, ... length - 1, length - 1, ... 1, 0, 0, 1, ... reached after so many steps from 0."""
    place = steps % (2 * length)
    return np.asarray(np.minimum(place, 2 * length - 1 - place))


def _quarters(out: FeatureColumns, grid: Grid, marks: Array) -> None:
    """The colour of the nearest mark in each quarter of a cell, and in all of them."""
    rows, columns = np.indices(out.shape)
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


def _nearest_mark(out: FeatureColumns, grid: Grid, marks: Array) -> None:
    """The colour of the mark with fewest steps in four directions, 0 where marks of two colours are as near, and how far it is."""
    colours = grid[marks[:, 0], marks[:, 1]]
    if not len(marks):
        marks, colours = np.full((1, 2), -FAR), np.zeros(1, np.int8)
    rows, columns = np.indices(out.shape)
    dy, dx = np.abs(rows[..., None] - marks[:, 0]), np.abs(columns[..., None] - marks[:, 1])
    steps = dy + dx
    nearest = steps.argmin(axis=2)
    tied = ((steps == steps.min(axis=2)[..., None]) & (colours != colours[nearest][..., None])).any(axis=2)
    far = np.take_along_axis(np.maximum(dy, dx), nearest[..., None], 2)[..., 0]
    out.add("nearest_mark_colour", np.where(tied, 0, colours[nearest]), True)
    out.add("nearest_mark_steps_4", steps.min(axis=2))
    out.add("nearest_mark_steps_8", far)
    out.add("nearest_mark_steps_8_mod_2", far % 2)


def own_squares(grid: Grid) -> Array:
    """The side of the largest square of one colour around each cell, int64 (h, w)."""
    h, w = grid.shape
    out = np.ones((h, w), np.int64)
    plain = np.ones((h, w), np.bool_)  # squares of the present side by their top left cell
    for side in range(2, min(h, w) + 1):
        # Four squares of one colour that overlap, or for a side of 2 touch, make the larger one.
        same = (grid[:-1, :-1] == grid[1:, :-1]) & (grid[:-1, :-1] == grid[:-1, 1:]) & (grid[:-1, :-1] == grid[1:, 1:])
        parts = plain[:-1, :-1] & plain[1:, :-1] & plain[:-1, 1:] & plain[1:, 1:]
        rows, columns = parts.shape
        plain = parts & same[:rows, :columns]
        for y, x in np.argwhere(plain).tolist():
            out[y : y + side, x : x + side] = side
        if not plain.any():
            break
    return out


def largest_rectangle(mask: Array) -> Array:
    """bool (h, w): the cells of the rectangles of marked cells that have the largest area, of at least two rows and two columns."""
    h, w = mask.shape
    total = np.zeros((h + 1, w + 1), np.int64)
    total[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    best = 4
    found: list[tuple[int, int, int, int]] = []
    for height in range(2, h + 1):
        for width in range(max(2, -(-best // height)), w + 1):
            inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
            places = np.argwhere(inside == height * width)
            if not len(places):
                break  # no wider one of this height either
            if height * width > best:
                best, found = height * width, []
            found += [(y, x, height, width) for y, x in places.tolist()]
    out = np.zeros((h, w), np.bool_)
    for y, x, height, width in found:
        out[y : y + height, x : x + width] = True
    return out
