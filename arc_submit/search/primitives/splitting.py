"""Splitting primitives: an image into a list of images, each pushed into the store at its place.

Every function takes the place (y, x) and cells of an image and appends to the store; nothing is appended where there is no result.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.region import outside
from arc_submit.search.primitives.shape import crop
from arc_submit.search.store import Array, Store, push


@jit
def label(cells: Grid, diagonal: bool, one_colour: bool) -> tuple[Array, int]:
    """Connected components of painted cells, numbered from 1 in reading order of their first cell.

    Returns:
        labels, int64 (h, w), 0 for transparent cells; and how many components there are.
    """
    h, w = cells.shape
    labels = np.zeros((h, w), np.int64)
    stack = np.empty((h * w, 2), np.int64)
    count = 0
    for i in range(h):
        for j in range(w):
            if cells[i, j] == 0 or labels[i, j] != 0:
                continue
            count += 1
            labels[i, j] = count
            stack[0, 0], stack[0, 1] = i, j
            top = 1
            while top > 0:
                top -= 1
                p, q = stack[top, 0], stack[top, 1]
                for a in range(max(0, p - 1), min(h, p + 2)):
                    for b in range(max(0, q - 1), min(w, q + 2)):
                        if (
                            (diagonal or a == p or b == q)
                            and cells[a, b] != 0
                            and labels[a, b] == 0
                            and (not one_colour or cells[a, b] == cells[p, q])
                        ):
                            labels[a, b] = count
                            stack[top, 0], stack[top, 1] = a, b
                            top += 1
    return labels, count


@jit
def components(store: Store, y: int, x: int, cells: Grid, diagonal: bool, one_colour: bool, whole_box: bool) -> None:
    """Each connected component cropped to its box, with all that lies in the box or alone."""
    labels, count = label(cells, diagonal, one_colour)
    h, w = cells.shape
    if count > 200:
        return
    boxes = np.empty((count, 4), np.int64)
    for k in range(count):
        boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = h, -1, w, -1
    for i in range(h):
        for j in range(w):
            k = labels[i, j] - 1
            if k >= 0:
                boxes[k, 0], boxes[k, 1] = min(boxes[k, 0], i), max(boxes[k, 1], i)
                boxes[k, 2], boxes[k, 3] = min(boxes[k, 2], j), max(boxes[k, 3], j)
    for k in range(count):
        top, left = boxes[k, 0], boxes[k, 2]
        part = cells[top : boxes[k, 1] + 1, left : boxes[k, 3] + 1].copy()
        if not whole_box:
            for i in range(part.shape[0]):
                for j in range(part.shape[1]):
                    if labels[top + i, left + j] != k + 1:
                        part[i, j] = 0
        if not push(store, y + top, x + left, part):
            return


@jit
def colours(store: Store, y: int, x: int, cells: Grid) -> None:
    """For each colour in order, its cells cropped to their box."""
    for colour in range(1, 10):
        alone = np.zeros(cells.shape, np.int8)
        for i in range(cells.shape[0]):
            for j in range(cells.shape[1]):
                if cells[i, j] == colour:
                    alone[i, j] = colour
        cy, cx, part = crop(y, x, alone)
        if part.shape[0] > 0 and not push(store, cy, cx, part):
            return


@jit
def strips(store: Store, y: int, x: int, cells: Grid, rows: int, columns: int) -> None:
    """A grid of rows x columns equal parts, leaving single separator lines out where the size asks for it; nothing otherwise."""
    h, w = cells.shape
    if h < rows or w < columns:
        return
    # A side of n parts either divides evenly or leaves exactly n - 1 cells for separators.
    row_gap = 0 if h % rows == 0 else 1
    column_gap = 0 if w % columns == 0 else 1
    height, width = (h - row_gap * (rows - 1)) // rows, (w - column_gap * (columns - 1)) // columns
    if height < 1 or width < 1 or height * rows + row_gap * (rows - 1) != h or width * columns + column_gap * (columns - 1) != w:
        return
    for i in range(rows):
        for j in range(columns):
            top, left = i * (height + row_gap), j * (width + column_gap)
            if not push(store, y + top, x + left, cells[top : top + height, left : left + width].copy()):
                return


@jit
def separator(cells: Grid) -> int:
    """The colour of the first row or column that is of one painted colour from end to end; 0 where there is none."""
    h, w = cells.shape
    for i in range(h):
        same = cells[i, 0] != 0
        for j in range(w):
            same = same and cells[i, j] == cells[i, 0]
        if same:
            return int(cells[i, 0])
    for j in range(w):
        same = cells[0, j] != 0
        for i in range(h):
            same = same and cells[i, j] == cells[0, j]
        if same:
            return int(cells[0, j])
    return 0


@jit
def panels(store: Store, y: int, x: int, cells: Grid) -> None:
    """The rectangles between the separator lines (full rows and columns of the separator's colour), in reading order."""
    colour = separator(cells)
    if colour == 0:
        return
    h, w = cells.shape
    rows, columns = np.ones(h, np.bool_), np.ones(w, np.bool_)
    for i in range(h):
        for j in range(w):
            if cells[i, j] != colour:
                rows[i] = False
                columns[j] = False
    i = 0
    while i < h:
        bottom = i
        while bottom < h and not rows[bottom]:
            bottom += 1
        j = 0
        while bottom > i and j < w:
            right = j
            while right < w and not columns[right]:
                right += 1
            if right > j and not push(store, y + i, x + j, cells[i:bottom, j:right].copy()):
                return
            j = right + 1
        i = bottom + 1


@jit
def background_parts(store: Store, y: int, x: int, cells: Grid, closed_only: bool) -> None:
    """Connected transparent regions (all, or those the border does not reach), each in colour 1, cropped."""
    reached = outside(cells, False)
    mark = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == 0 and (not closed_only or reached[i, j] == 0):
                mark[i, j] = 1
    components(store, y, x, mark, False, True, False)


@jit
def lines(store: Store, y: int, x: int, cells: Grid, rows: bool) -> None:
    """Every row (or column) as an image."""
    for k in range(cells.shape[0] if rows else cells.shape[1]):
        part = cells[k : k + 1].copy() if rows else cells[:, k : k + 1].copy()
        if not push(store, y + (k if rows else 0), x + (0 if rows else k), part):
            return


@jit_into_callers
def apply_split(variant: int, store: Store, y: int, x: int, cells: Grid) -> None:
    """Splitting primitive number `variant` (the order of SPLIT_NAMES)."""
    if variant < 6:
        components(store, y, x, cells, variant % 2 == 1, variant < 2, variant >= 4)
    elif variant == 6:
        colours(store, y, x, cells)
    elif variant == 7:
        lines(store, y, x, cells, True)
    elif variant == 8:
        lines(store, y, x, cells, False)
    elif variant == 9:
        strips(store, y, x, cells, 2, 1)
    elif variant == 10:
        strips(store, y, x, cells, 1, 2)
    elif variant == 11:
        strips(store, y, x, cells, 2, 2)
    elif variant == 12:
        strips(store, y, x, cells, 3, 1)
    elif variant == 13:
        strips(store, y, x, cells, 1, 3)
    elif variant == 14:
        panels(store, y, x, cells)
    elif variant == 15:
        background_parts(store, y, x, cells, False)
    else:
        background_parts(store, y, x, cells, True)


SPLIT_NAMES = (
    "components_straight",
    "components",
    "objects_straight",
    "objects",
    "boxes_straight",
    "boxes",
    "split_colours",
    "split_rows",
    "split_columns",
    "two_rows",
    "two_columns",
    "quarters",
    "three_rows",
    "three_columns",
    "panels",
    "background_parts",
    "hole_parts",
)
