"""Splitting primitives: they take an image apart and push the parts into the store, each at its place.

Every function takes the place (y, x) and the cells of an image; it pushes nothing where it has no result.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import keep
from arc_submit.search.primitives.region import enclosed
from arc_submit.search.primitives.shape import crop
from arc_submit.search.store import Array, Store, push


@jit
def label(cells: Grid, diagonal: bool, one_colour: bool) -> tuple[Array, int]:
    """Connected components of painted cells, numbered from 1 in reading order of their first cell.

    Returns:
        labels, int64 (h, w), 0 for transparent cells; and the number of components.
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
def component_boxes(labels: Array, count: int) -> Array:
    """The bounding box of every component: int64 (count + 1, 4), top, left, bottom, right, inclusive; row 0 is for unlabelled cells."""
    boxes = np.zeros((count + 1, 4), np.int64)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = labels.shape[0], labels.shape[1], -1, -1
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            k = labels[i, j]
            boxes[k, 0], boxes[k, 1] = min(boxes[k, 0], i), min(boxes[k, 1], j)
            boxes[k, 2], boxes[k, 3] = max(boxes[k, 2], i), max(boxes[k, 3], j)
    return boxes


@jit
def components(store: Store, y: int, x: int, cells: Grid, diagonal: bool, one_colour: bool, whole_box: bool) -> None:
    """Each connected component cropped to its bounding box, alone or with everything in the box."""
    labels, count = label(cells, diagonal, one_colour)
    if count > 200:
        return
    boxes = component_boxes(labels, count)
    for k in range(1, count + 1):
        top, left = boxes[k, 0], boxes[k, 1]
        part = cells[top : boxes[k, 2] + 1, left : boxes[k, 3] + 1].copy()
        if not whole_box:
            for i in range(part.shape[0]):
                for j in range(part.shape[1]):
                    if labels[top + i, left + j] != k:
                        part[i, j] = 0
        if not push(store, y + top, x + left, part):
            return


@jit
def colours(store: Store, y: int, x: int, cells: Grid) -> None:
    """For each colour in ascending order, its cells cropped to their bounding box."""
    for colour in range(1, 10):
        top, left, part = crop(y, x, keep(cells, colour))
        if part.shape[0] > 0 and not push(store, top, left, part):
            return


@jit
def equal_parts(store: Store, y: int, x: int, cells: Grid, rows: int, columns: int) -> None:
    """rows x columns equal parts, without the single separator lines that the size may imply; nothing for any other size."""
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
    """The colour of the first row, or else column, that has one painted colour from end to end; 0 where there is none."""
    h, w = cells.shape
    for i in range(h):
        if cells[i, 0] != 0 and (cells[i] == cells[i, 0]).all():
            return int(cells[i, 0])
    for j in range(w):
        if cells[0, j] != 0 and (cells[:, j] == cells[0, j]).all():
            return int(cells[0, j])
    return 0


@jit
def panels(store: Store, y: int, x: int, cells: Grid) -> None:
    """The rectangles between the separator lines (full rows and columns of the separator's colour), in reading order."""
    colour = separator(cells)
    if colour == 0:
        return
    h, w = cells.shape
    rows, columns = np.zeros(h, np.bool_), np.zeros(w, np.bool_)
    for i in range(h):
        rows[i] = (cells[i] == colour).all()
    for j in range(w):
        columns[j] = (cells[:, j] == colour).all()
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
    """Connected transparent regions (all, or the enclosed ones), each in colour 1, cropped."""
    mark = enclosed(cells, False) if closed_only else (cells == 0).astype(np.int8)
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
    """Splitting primitive number `variant` in SPLIT_NAMES."""
    if variant < 6:
        components(store, y, x, cells, variant % 2 == 1, variant < 2, variant >= 4)
    elif variant == 6:
        colours(store, y, x, cells)
    elif variant <= 8:
        lines(store, y, x, cells, variant == 7)
    elif variant == 9:
        equal_parts(store, y, x, cells, 2, 1)
    elif variant == 10:
        equal_parts(store, y, x, cells, 1, 2)
    elif variant == 11:
        equal_parts(store, y, x, cells, 2, 2)
    elif variant == 12:
        equal_parts(store, y, x, cells, 3, 1)
    elif variant == 13:
        equal_parts(store, y, x, cells, 1, 3)
    elif variant == 14:
        panels(store, y, x, cells)
    else:
        background_parts(store, y, x, cells, variant == 16)


SPLIT_NAMES = (
    "components_straight", "components", "objects_straight", "objects", "boxes_straight", "boxes",  # 0..5
    "split_colours", "split_rows", "split_columns", "two_rows", "two_columns", "quarters", "three_rows", "three_columns",  # 6..13
    "panels", "background_parts", "hole_parts",  # 14..16
)  # fmt: skip
