"""Shape primitives: crops, halves, symmetries and moves, which change an image's size or place.

Every function takes the place of the corner (y, x) and cells of shape (h, w), int8, and returns the same three; cells of
shape (0, 0) mean that there is no result.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import commonest, nothing
from arc_submit.search.primitives.line import STEPS
from arc_submit.search.store import Array

Placed = tuple[int, int, Grid]


@jit
def crop(y: int, x: int, cells: Grid) -> Placed:
    """The smallest rectangle that contains every painted cell, at its place."""
    h, w = cells.shape
    top, bottom, left, right = h, -1, w, -1
    for i in range(h):
        for j in range(w):
            if cells[i, j] != 0:
                top, bottom = min(top, i), max(bottom, i)
                left, right = min(left, j), max(right, j)
    return part(y, x, cells, top, left, bottom + 1 - top, right + 1 - left)


@jit
def part(y: int, x: int, cells: Grid, top: int, left: int, height: int, width: int) -> Placed:
    """A rectangle cut out at its place; nothing where it would be empty."""
    if height < 1 or width < 1:
        return y, x, nothing()
    return y + top, x + left, cells[top : top + height, left : left + width].copy()


@jit
def half(y: int, x: int, cells: Grid, side: int) -> Placed:
    """The top, bottom, left or right half (side 0..3); the middle line of an odd length belongs to neither."""
    h, w = cells.shape
    height, width = (h // 2, w) if side < 2 else (h, w // 2)
    return part(y, x, cells, h - height if side == 1 else 0, w - width if side == 3 else 0, height, width)


@jit
def turn(cells: Grid, symmetry: int) -> Grid:
    """One of the 7 symmetries of the square that are not the identity.

    0 left-right mirror, 1 up-down mirror, 2 half turn, 3 transpose, 4 other diagonal, 5 quarter turn left, 6 quarter turn right.
    """
    h, w = cells.shape
    height, width = (h, w) if symmetry < 3 else (w, h)
    flip_rows = symmetry in (1, 2, 4, 5)
    flip_columns = symmetry in (0, 2, 4, 6)
    out = np.zeros((height, width), np.int8)
    for i in range(h):
        for j in range(w):
            a, b = (i, j) if symmetry < 3 else (j, i)
            out[height - 1 - a if flip_rows else a, width - 1 - b if flip_columns else b] = cells[i, j]
    return out


@jit
def hull(cells: Grid) -> Grid:
    """The whole rectangle in the commonest colour."""
    return np.full(cells.shape, commonest(cells), np.int8)


@jit
def centre(y: int, x: int, cells: Grid) -> Placed:
    """The middle cell, or the middle two or four, in the commonest colour."""
    h, w = cells.shape
    height, width = 2 - h % 2, 2 - w % 2
    return y + (h - height) // 2, x + (w - width) // 2, np.full((height, width), commonest(cells), np.int8)


@jit
def drop_lines(cells: Grid, repeated: bool) -> Grid:
    """The image without its blank rows and columns, or without those that repeat the row or column before."""
    h, w = cells.shape
    rows, columns = np.zeros(h, np.bool_), np.zeros(w, np.bool_)
    for i in range(h):
        for j in range(w):
            if (i == 0 or cells[i, j] != cells[i - 1, j]) if repeated else cells[i, j] != 0:
                rows[i] = True
            if (j == 0 or cells[i, j] != cells[i, j - 1]) if repeated else cells[i, j] != 0:
                columns[j] = True
    return _select(cells, rows, columns)


@jit
def _select(cells: Grid, rows: Array, columns: Array) -> Grid:
    out = np.zeros((rows.sum(), columns.sum()), np.int8)
    a = 0
    for i in range(cells.shape[0]):
        if rows[i]:
            b = 0
            for j in range(cells.shape[1]):
                if columns[j]:
                    out[a, b] = cells[i, j]
                    b += 1
            a += 1
    return out


@jit_into_callers
def apply_shape(variant: int, y: int, x: int, cells: Grid) -> Placed:
    """Shape primitive number `variant` in SHAPE_NAMES."""
    h, w = cells.shape
    if variant == 0:
        return crop(y, x, cells)
    if variant == 1:
        return 0, 0, cells.copy()
    if variant == 2:
        return part(y, x, cells, 1, 1, h - 2, w - 2)
    if variant <= 6:
        return half(y, x, cells, variant - 3)
    if variant <= 13:
        return y, x, turn(cells, variant - 7)
    if variant == 14:
        return y, x, hull(cells)
    if variant == 15:
        return centre(y, x, cells)
    if variant <= 17:
        return y, x, drop_lines(cells, variant == 17)
    return y + STEPS[variant - 18, 0], x + STEPS[variant - 18, 1], cells.copy()


SHAPE_NAMES = (
    "crop", "to_origin", "inner", "top_half", "bottom_half", "left_half", "right_half",  # 0..6
    "mirror_left_right", "mirror_up_down", "half_turn", "transpose", "other_transpose", "turn_left", "turn_right",  # 7..13
    "hull", "centre", "drop_blank_lines", "drop_repeated_lines", "move_up", "move_down", "move_left", "move_right",  # 14..21
)  # fmt: skip
