"""Line primitives: rays, connections, and colours that spread through transparent cells. They keep an image's shape and place.

Every function takes cells of shape (h, w), int8, and returns new cells of that shape; 0 is transparent.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers

# Up, down, left, right, then the diagonals; a set of directions is an integer with one bit for each row.
STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=np.int64)
# Each row: the bit in the argument of `connect`, and the step.
_CONNECTIONS = np.array([[1, 1, 0], [2, 0, 1], [4, 1, 1], [4, 1, -1]], dtype=np.int64)


@jit
def rays(cells: Grid, directions: int) -> Grid:
    """Each painted cell shoots its colour through transparent cells up to the next painted cell or the edge.

    Args:
        directions: one bit for each row of STEPS. Where two rays meet, the later direction and then the later cell wins.
    """
    h, w = cells.shape
    out = cells.copy()
    for d in range(8):
        if directions >> d & 1:
            for i in range(h):
                for j in range(w):
                    if cells[i, j] != 0:
                        a, b = i + STEPS[d, 0], j + STEPS[d, 1]
                        while 0 <= a < h and 0 <= b < w and cells[a, b] == 0:
                            out[a, b] = cells[i, j]
                            a += STEPS[d, 0]
                            b += STEPS[d, 1]
    return out


@jit
def connect(cells: Grid, directions: int, with_image: bool) -> Grid:
    """Transparent cells between two painted cells of one colour in a line take that colour.

    Args:
        directions: bits 1 for columns, 2 for rows, 4 for diagonals; the later ones win.
        with_image: whether the result contains the image.
    """
    h, w = cells.shape
    out = cells.copy() if with_image else np.zeros((h, w), np.int8)
    for d in range(4):
        di, dj = _CONNECTIONS[d, 1], _CONNECTIONS[d, 2]
        if directions & _CONNECTIONS[d, 0]:
            for i in range(h):
                for j in range(w):
                    if cells[i, j] != 0:
                        a, b = i + di, j + dj
                        while 0 <= a < h and 0 <= b < w and cells[a, b] == 0:
                            a += di
                            b += dj
                        if 0 <= a < h and 0 <= b < w and cells[a, b] == cells[i, j]:
                            a -= di
                            b -= dj
                            while a != i or b != j:
                                out[a, b] = cells[i, j]
                                a -= di
                                b -= dj
    return out


@jit
def spread(cells: Grid, diagonal: bool) -> Grid:
    """Every transparent cell takes the colour of the nearest painted cell in steps; of equally near ones the higher colour."""
    h, w = cells.shape
    out = cells.copy()
    changed = True
    while changed:
        changed = False
        before = out.copy()
        for i in range(h):
            for j in range(w):
                if before[i, j] == 0:
                    for a in range(max(0, i - 1), min(h, i + 2)):
                        for b in range(max(0, j - 1), min(w, j + 2)):
                            if (diagonal or a == i or b == j) and before[a, b] != 0:
                                out[i, j] = max(out[i, j], before[a, b])
                                changed = True
    return out


@jit_into_callers
def apply_line(variant: int, argument: int, cells: Grid) -> Grid:
    """Line primitive number `variant` in LINE_NAMES."""
    if variant == 0:
        return rays(cells, argument)
    if variant <= 2:
        return connect(cells, argument, variant == 1)
    return spread(cells, argument == 1)


LINE_NAMES = ("rays", "connect", "connections", "spread")
