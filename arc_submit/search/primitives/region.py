"""Region primitives: holes, borders, outlines, noise, separator lines, symmetry completion and falling cells; shape and place stay.

Every function takes cells of shape (h, w), int8, and returns new cells of that shape; 0 is transparent.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import commonest
from arc_submit.search.primitives.shape import nothing, turn


@jit
def outside(cells: Grid, diagonal: bool) -> Grid:
    """1 for each transparent cell that the border reaches through transparent cells (by 4 or 8 neighbours), 0 elsewhere."""
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
def holes(cells: Grid, with_image: bool, diagonal: bool) -> Grid:
    """Transparent cells that the border does not reach, in the commonest colour; with or without the image itself."""
    reached = outside(cells, diagonal)
    colour = commonest(cells)
    out = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == 0 and reached[i, j] == 0:
                out[i, j] = colour
            elif with_image:
                out[i, j] = cells[i, j]
    return out


@jit
def rim(cells: Grid, keep_rim: bool) -> Grid:
    """Painted cells with (or without) a transparent cell or the outside among their 8 neighbours."""
    h, w = cells.shape
    out = np.zeros((h, w), np.int8)
    for i in range(h):
        for j in range(w):
            if cells[i, j] != 0:
                open_side = i == 0 or j == 0 or i == h - 1 or j == w - 1
                for a in range(max(0, i - 1), min(h, i + 2)):
                    for b in range(max(0, j - 1), min(w, j + 2)):
                        open_side = open_side or cells[a, b] == 0
                if open_side == keep_rim:
                    out[i, j] = cells[i, j]
    return out


@jit
def grow(cells: Grid, diagonal: bool, with_image: bool) -> Grid:
    """Transparent cells next to painted ones take the highest colour among those neighbours; with or without the image itself."""
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
def lonely(cells: Grid, keep_lonely: bool) -> Grid:
    """Painted cells with no (or at least one) cell of the same colour among their 8 neighbours."""
    h, w = cells.shape
    out = np.zeros((h, w), np.int8)
    for i in range(h):
        for j in range(w):
            if cells[i, j] != 0:
                alone = True
                for a in range(max(0, i - 1), min(h, i + 2)):
                    for b in range(max(0, j - 1), min(w, j + 2)):
                        if (a != i or b != j) and cells[a, b] == cells[i, j]:
                            alone = False
                if alone == keep_lonely:
                    out[i, j] = cells[i, j]
    return out


@jit
def full_lines(cells: Grid, keep_lines: bool) -> Grid:
    """Cells on (or off) rows and columns painted in one colour from end to end."""
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
    """Transparent cells filled from the mirrored image (the numbers of `turn`); a diagonal needs a square, else nothing."""
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
    """Every painted cell falls up, down, left or right (0..3) as far as the others let it."""
    h, w = cells.shape
    out = np.zeros((h, w), np.int8)
    if direction < 2:
        for j in range(w):
            place = 0 if direction == 0 else h - 1
            for k in range(h):
                i = k if direction == 0 else h - 1 - k
                if cells[i, j] != 0:
                    out[place, j] = cells[i, j]
                    place += 1 if direction == 0 else -1
    else:
        for i in range(h):
            place = 0 if direction == 2 else w - 1
            for k in range(w):
                j = k if direction == 2 else w - 1 - k
                if cells[i, j] != 0:
                    out[i, place] = cells[i, j]
                    place += 1 if direction == 2 else -1
    return out


@jit
def parity(cells: Grid, kind: int) -> Grid:
    """Cells in even rows (0), odd rows (1), even columns (2), odd columns (3), or on an even sum of both (4) or an odd one (5)."""
    out = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            value = i if kind < 2 else j if kind < 4 else i + j
            if value % 2 == kind % 2:
                out[i, j] = cells[i, j]
    return out


@jit_into_callers
def apply_region(variant: int, cells: Grid) -> Grid:
    """Region primitive number `variant` (the order of REGION_NAMES)."""
    if variant < 4:
        return holes(cells, variant % 2 == 0, variant >= 2)
    if variant < 6:
        return rim(cells, variant == 4)
    if variant < 10:
        return grow(cells, variant % 2 == 1, variant < 8)
    if variant < 12:
        return lonely(cells, variant == 10)
    if variant < 14:
        return full_lines(cells, variant == 12)
    if variant < 20:
        return symmetrise(cells, variant - 14)
    if variant < 24:
        return fall(cells, variant - 20)
    return parity(cells, variant - 24)


REGION_NAMES = (
    "fill_holes",
    "holes",
    "fill_closed_holes",
    "closed_holes",
    "rim",
    "inside",
    "grow_straight",
    "grow",
    "outline_straight",
    "outline",
    "lonely_cells",
    "drop_lonely_cells",
    "full_lines",
    "drop_full_lines",
    "symmetrise_left_right",
    "symmetrise_up_down",
    "symmetrise_half_turn",
    "symmetrise_transpose",
    "symmetrise_other_transpose",
    "symmetrise_quarter_turn",
    "fall_up",
    "fall_down",
    "fall_left",
    "fall_right",
    "even_rows",
    "odd_rows",
    "even_columns",
    "odd_columns",
    "even_squares",
    "odd_squares",
)
