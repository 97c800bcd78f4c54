"""Region primitives: holes, borders, outlines, noise, separator lines, symmetry completion and falling cells. They keep shape and place.

Every function takes cells of shape (h, w), int8, and returns new cells of that shape; 0 is transparent.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import commonest, nothing
from arc_submit.search.primitives.shape import turn


@jit
def outside(cells: Grid, diagonal: bool) -> Grid:
    """1 for each transparent cell with a path of transparent cells (4 or 8 neighbours) to the border, 0 elsewhere."""
    h, w = cells.shape
    mark = np.zeros((h, w), np.int8)
    stack = np.empty((h * w, 2), np.int64)
    top = 0
    for i in range(h):
        for j in range(w):
            if (i == 0 or j == 0 or i == h - 1 or j == w - 1) and cells[i, j] == 0:
                mark[i, j] = 1
                stack[top, 0], stack[top, 1] = i, j
                top += 1
    while top > 0:
        top -= 1
        i, j = stack[top, 0], stack[top, 1]
        for a in range(max(0, i - 1), min(h, i + 2)):
            for b in range(max(0, j - 1), min(w, j + 2)):
                if (diagonal or a == i or b == j) and cells[a, b] == 0 and mark[a, b] == 0:
                    mark[a, b] = 1
                    stack[top, 0], stack[top, 1] = a, b
                    top += 1
    return mark


@jit
def enclosed(cells: Grid, diagonal: bool) -> Grid:
    """1 for each transparent cell without such a path to the border, 0 elsewhere."""
    mark = outside(cells, diagonal)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            mark[i, j] = cells[i, j] == 0 and mark[i, j] == 0
    return mark


@jit
def holes(cells: Grid, with_image: bool, diagonal: bool) -> Grid:
    """Enclosed cells in the commonest colour, with or without the image itself."""
    mark = enclosed(cells, diagonal)
    colour = commonest(cells)
    out = cells.copy() if with_image else np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if mark[i, j]:
                out[i, j] = colour
    return out


@jit
def rim(cells: Grid, keep_rim: bool) -> Grid:
    """Painted cells with (or without) a transparent cell or the outside of the image among their 8 neighbours."""
    h, w = cells.shape
    out = np.zeros((h, w), np.int8)
    for i in range(h):
        for j in range(w):
            if cells[i, j] != 0:
                at_rim = i == 0 or j == 0 or i == h - 1 or j == w - 1
                for a in range(max(0, i - 1), min(h, i + 2)):
                    for b in range(max(0, j - 1), min(w, j + 2)):
                        at_rim = at_rim or cells[a, b] == 0
                if at_rim == keep_rim:
                    out[i, j] = cells[i, j]
    return out


@jit
def grow(cells: Grid, diagonal: bool, with_image: bool) -> Grid:
    """Transparent cells beside painted ones take the highest colour among those neighbours; with or without the image itself."""
    h, w = cells.shape
    out = cells.copy() if with_image else np.zeros((h, w), np.int8)
    for i in range(h):
        for j in range(w):
            if cells[i, j] == 0:
                for a in range(max(0, i - 1), min(h, i + 2)):
                    for b in range(max(0, j - 1), min(w, j + 2)):
                        if diagonal or a == i or b == j:
                            out[i, j] = max(out[i, j], cells[a, b])
    return out


@jit
def isolated(cells: Grid, keep_isolated: bool) -> Grid:
    """Painted cells with no (or at least one) cell of the same colour among their 8 neighbours."""
    h, w = cells.shape
    out = np.zeros((h, w), np.int8)
    for i in range(h):
        for j in range(w):
            if cells[i, j] != 0:
                same = 0  # counts the cell itself
                for a in range(max(0, i - 1), min(h, i + 2)):
                    for b in range(max(0, j - 1), min(w, j + 2)):
                        same += cells[a, b] == cells[i, j]
                if (same == 1) == keep_isolated:
                    out[i, j] = cells[i, j]
    return out


@jit
def full_lines(cells: Grid, keep_lines: bool) -> Grid:
    """Cells on (or off) the rows and columns that have one painted colour from end to end."""
    h, w = cells.shape
    out = np.zeros((h, w), np.int8)
    rows, columns = np.ones(h, np.bool_), np.ones(w, np.bool_)
    for i in range(h):
        for j in range(w):
            if cells[i, j] == 0 or cells[i, j] != cells[i, 0]:
                rows[i] = False
            if cells[i, j] == 0 or cells[i, j] != cells[0, j]:
                columns[j] = False
    for i in range(h):
        for j in range(w):
            if (rows[i] or columns[j]) == keep_lines:
                out[i, j] = cells[i, j]
    return out


@jit
def symmetrise(cells: Grid, symmetry: int) -> Grid:
    """Transparent cells filled from the mirrored image (the numbers of `turn`); nothing where a diagonal meets no square."""
    if symmetry >= 3 and cells.shape[0] != cells.shape[1]:
        return nothing()
    other = turn(cells, symmetry)
    out = cells.copy()
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if out[i, j] == 0:
                out[i, j] = other[i, j]
    return out


@jit
def fall(cells: Grid, direction: int) -> Grid:
    """Every painted cell falls up, down, left or right (0..3) as far as the other cells allow."""
    vertical, forward = direction < 2, direction % 2 == 0
    out = np.zeros(cells.shape, np.int8)
    length, lines = cells.shape if vertical else (cells.shape[1], cells.shape[0])
    for line in range(lines):
        place = 0 if forward else length - 1
        for k in range(length):
            along = k if forward else length - 1 - k
            value = cells[along, line] if vertical else cells[line, along]
            if value != 0:
                out[place if vertical else line, line if vertical else place] = value
                place += 1 if forward else -1
    return out


@jit
def parity(cells: Grid, kind: int) -> Grid:
    """Cells in even rows (0), odd rows (1), even columns (2), odd columns (3), or with an even (4) or odd (5) sum of both."""
    out = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            value = i if kind < 2 else j if kind < 4 else i + j
            if value % 2 == kind % 2:
                out[i, j] = cells[i, j]
    return out


@jit_into_callers
def apply_region(variant: int, cells: Grid) -> Grid:
    """Region primitive number `variant` in REGION_NAMES."""
    if variant < 4:
        return holes(cells, variant % 2 == 0, variant >= 2)
    if variant < 6:
        return rim(cells, variant == 4)
    if variant < 10:
        return grow(cells, variant % 2 == 1, variant < 8)
    if variant < 12:
        return isolated(cells, variant == 10)
    if variant < 14:
        return full_lines(cells, variant == 12)
    if variant < 20:
        return symmetrise(cells, variant - 14)
    if variant < 24:
        return fall(cells, variant - 20)
    return parity(cells, variant - 24)


REGION_NAMES = (
    "fill_holes", "holes", "fill_closed_holes", "closed_holes", "rim", "inside",  # 0..5
    "grow_straight", "grow", "outline_straight", "outline",  # 6..9
    "lonely_cells", "drop_lonely_cells", "full_lines", "drop_full_lines",  # 10..13
    "symmetrise_left_right", "symmetrise_up_down", "symmetrise_half_turn", "symmetrise_transpose",
    "symmetrise_other_transpose", "symmetrise_quarter_turn",  # 14..19
    "fall_up", "fall_down", "fall_left", "fall_right",  # 20..23
    "even_rows", "odd_rows", "even_columns", "odd_columns", "even_squares", "odd_squares",  # 24..29
)  # fmt: skip
