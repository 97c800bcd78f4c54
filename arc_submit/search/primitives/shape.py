"""Shape primitives: crops, halves, symmetries and moves, which change an image's size or place.

Every function takes the place of the corner (y, x) and cells of shape (h, w), int8, and returns the same three; cells of
shape (0, 0) mean that there is no result.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import commonest

Placed = tuple[int, int, Grid]
Flags = npt.NDArray[np.bool_]


@jit
def nothing() -> Grid:
    """Cells that stand for no result."""
    return np.zeros((0, 0), np.int8)


@jit
def crop(y: int, x: int, cells: Grid) -> Placed:
    """The smallest rectangle that holds every painted cell, at its place."""
    h, w = cells.shape
    top, bottom, left, right = h, -1, w, -1
    for i in range(h):
        for j in range(w):
            if cells[i, j] != 0:
                top, bottom = min(top, i), max(bottom, i)
                left, right = min(left, j), max(right, j)
    if bottom < 0:
        return y, x, nothing()
    return y + top, x + left, cells[top : bottom + 1, left : right + 1].copy()


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
    if side == 0:
        return part(y, x, cells, 0, 0, h // 2, w)
    if side == 1:
        return part(y, x, cells, h - h // 2, 0, h // 2, w)
    if side == 2:
        return part(y, x, cells, 0, 0, h, w // 2)
    return part(y, x, cells, 0, w - w // 2, h, w // 2)


@jit
def turn(cells: Grid, symmetry: int) -> Grid:
    """One of the 7 symmetries of the square that change something.

    0 left-right mirror, 1 up-down mirror, 2 half turn, 3 transpose, 4 other diagonal, 5 quarter turn left, 6 quarter turn right.
    """
    h, w = cells.shape
    out = np.zeros((h, w) if symmetry < 3 else (w, h), np.int8)
    for i in range(h):
        for j in range(w):
            if symmetry == 0:
                out[i, w - 1 - j] = cells[i, j]
            elif symmetry == 1:
                out[h - 1 - i, j] = cells[i, j]
            elif symmetry == 2:
                out[h - 1 - i, w - 1 - j] = cells[i, j]
            elif symmetry == 3:
                out[j, i] = cells[i, j]
            elif symmetry == 4:
                out[w - 1 - j, h - 1 - i] = cells[i, j]
            elif symmetry == 5:
                out[w - 1 - j, i] = cells[i, j]
            else:
                out[j, h - 1 - i] = cells[i, j]
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
def drop_blank_lines(cells: Grid) -> Grid:
    """Rows and columns without a painted cell taken out."""
    h, w = cells.shape
    rows, columns = np.zeros(h, np.bool_), np.zeros(w, np.bool_)
    for i in range(h):
        for j in range(w):
            if cells[i, j] != 0:
                rows[i] = True
                columns[j] = True
    return _selected(cells, rows, columns)


@jit
def drop_repeated_lines(cells: Grid) -> Grid:
    """Rows equal to the row before, and columns equal to the column before, taken out."""
    h, w = cells.shape
    rows, columns = np.zeros(h, np.bool_), np.zeros(w, np.bool_)
    for i in range(h):
        for j in range(w):
            if i == 0 or cells[i, j] != cells[i - 1, j]:
                rows[i] = True
            if j == 0 or cells[i, j] != cells[i, j - 1]:
                columns[j] = True
    return _selected(cells, rows, columns)


@jit
def _selected(cells: Grid, rows: Flags, columns: Flags) -> Grid:
    h, w = cells.shape
    out = np.zeros((rows.sum(), columns.sum()), np.int8)
    a = 0
    for i in range(h):
        if rows[i]:
            b = 0
            for j in range(w):
                if columns[j]:
                    out[a, b] = cells[i, j]
                    b += 1
            a += 1
    return out


@jit_into_callers
def apply_shape(variant: int, y: int, x: int, cells: Grid) -> Placed:
    """Shape primitive number `variant` (the order of SHAPE_NAMES)."""
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
    if variant == 16:
        return y, x, drop_blank_lines(cells)
    if variant == 17:
        return y, x, drop_repeated_lines(cells)
    if variant == 18:
        return y - 1, x, cells.copy()
    if variant == 19:
        return y + 1, x, cells.copy()
    if variant == 20:
        return y, x - 1, cells.copy()
    return y, x + 1, cells.copy()


SHAPE_NAMES = (
    "crop",
    "to_origin",
    "inner",
    "top_half",
    "bottom_half",
    "left_half",
    "right_half",
    "mirror_left_right",
    "mirror_up_down",
    "half_turn",
    "transpose",
    "other_transpose",
    "turn_left",
    "turn_right",
    "hull",
    "centre",
    "drop_blank_lines",
    "drop_repeated_lines",
    "move_up",
    "move_down",
    "move_left",
    "move_right",
)
