"""List primitives: measure the images of a list, select, sort and move them, and join them into one image.

A function on a list takes the store, the index of its first image and the number of images; it pushes its result into the store.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import cell_count, colour_count, commonest
from arc_submit.search.primitives.line import STEPS
from arc_submit.search.primitives.region import enclosed
from arc_submit.search.primitives.shape import turn
from arc_submit.search.primitives.splitting import label
from arc_submit.search.primitives.tiling import bar
from arc_submit.search.store import Array, Store, image_cells, push

MEASURE_NAMES = (
    "cells", "area", "height", "width", "colours", "parts", "top", "left",  # 0..7
    "holes", "copies", "symmetries", "fullness", "colour_copies", "rare_cells",  # 8..13
)  # fmt: skip


@jit
def hole_count(cells: Grid) -> int:
    """The number of connected transparent regions that do not reach the border."""
    return int(label(enclosed(cells, False), False, True)[1])


@jit
def symmetry_count(cells: Grid) -> int:
    """How many of the 7 symmetries of `turn` leave the cells unchanged."""
    count = 0
    for symmetry in range(7):
        count += same_shape(turn(cells, symmetry), cells, True)
    return count


@jit
def same_shape(a: Grid, b: Grid, with_colours: bool) -> bool:
    """Whether two images have one size and the same cells painted (in the same colours)."""
    if a.shape != b.shape:
        return False
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            if (a[i, j] != b[i, j]) if with_colours else ((a[i, j] == 0) != (b[i, j] == 0)):
                return False
    return True


@jit
def measure(store: Store, first: int, count: int, criterion: int) -> Array:
    """A number for each image of a list, int64 (count,); `criterion` is an index in MEASURE_NAMES."""
    values = np.zeros(count, np.int64)
    for k in range(count):
        cells = image_cells(store, first + k)
        h, w = cells.shape
        if criterion == 0:
            values[k] = cell_count(cells)
        elif criterion == 1:
            values[k] = h * w
        elif criterion == 2:
            values[k] = h
        elif criterion == 3:
            values[k] = w
        elif criterion == 4:
            values[k] = colour_count(cells)
        elif criterion == 5:
            values[k] = label(cells, True, True)[1]
        elif criterion <= 7:
            values[k] = store.images[first + k, criterion - 6]
        elif criterion == 8:
            values[k] = hole_count(cells)
        elif criterion == 9:
            for other in range(count):
                values[k] += same_shape(cells, image_cells(store, first + other), False)
        elif criterion == 10:
            values[k] = symmetry_count(cells)
        elif criterion == 11:
            values[k] = cell_count(cells) * 1000 // (h * w)
        elif criterion == 12:
            for other in range(count):
                values[k] += commonest(cells) == commonest(image_cells(store, first + other))
        else:
            values[k] = cell_count(cells)
            colour = commonest(cells)
            for value in cells.flat:
                values[k] -= value == colour
    return values


@jit
def stable_argsort(values: Array) -> Array:
    """Indices in ascending order of the values; np.argsort takes seconds to compile."""
    order = np.empty(values.size, np.int64)
    for k in range(values.size):
        place = k
        while place > 0 and values[order[place - 1]] > values[k]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = k
    return order


@jit
def pick(store: Store, first: int, count: int, criterion: int, largest: bool, mode: int) -> None:
    """Select by a criterion: the one image with the extreme value (mode 0), all with it (1), or all others (2).

    Nothing where mode 0 finds a tie, or where all images have the same value.
    """
    if count < 2:
        return
    values = measure(store, first, count, criterion)
    extreme = values.max() if largest else values.min()
    ties = (values == extreme).sum()
    if (mode == 0 and ties != 1) or ties == count:
        return
    for k in range(count):
        if (values[k] == extreme) != (mode == 2) and not _push_copy(store, first + k):
            return


@jit
def _push_copy(store: Store, image: int) -> bool:
    return push(store, store.images[image, 0], store.images[image, 1], image_cells(store, image))


@jit
def sort(store: Store, first: int, count: int, criterion: int, descending: bool) -> None:
    """The list sorted by a criterion, stable."""
    values = measure(store, first, count, criterion)
    for k in stable_argsort(-values if descending else values):
        if not _push_copy(store, first + k):
            return


@jit
def compose(store: Store, first: int, count: int, last_on_top: bool, at_origin: bool) -> None:
    """The images stacked on the bounding box of all of them, at their places or all at one corner."""
    top, left, bottom, right = 10**6, 10**6, -(10**6), -(10**6)
    for k in range(first, first + count):
        y, x = (0, 0) if at_origin else (store.images[k, 0], store.images[k, 1])
        top, left = min(top, y), min(left, x)
        bottom, right = max(bottom, y + store.images[k, 2]), max(right, x + store.images[k, 3])
    if bottom - top > 60 or right - left > 60:
        return
    out = np.zeros((bottom - top, right - left), np.int8)
    for k in range(first, first + count):
        cells = image_cells(store, k)
        y, x = (0, 0) if at_origin else (store.images[k, 0] - top, store.images[k, 1] - left)
        for i in range(cells.shape[0]):
            for j in range(cells.shape[1]):
                if cells[i, j] != 0 and (last_on_top or out[y + i, x + j] == 0):
                    out[y + i, x + j] = cells[i, j]
    push(store, top, left, out)


@jit
def logic(store: Store, first: int, count: int, kind: int) -> None:
    """Images of one size combined cell by cell, in the first one's commonest colour (1 where it is blank).

    Kinds: painted in all (0), painted in exactly one (1), painted in none (2), painted only in the first (3).
    Nothing where the sizes differ.
    """
    start = image_cells(store, first)
    shape = start.shape
    total = np.zeros(shape, np.int64)
    for k in range(first, first + count):
        cells = image_cells(store, k)
        if cells.shape != shape:
            return
        for i in range(shape[0]):
            for j in range(shape[1]):
                total[i, j] += cells[i, j] != 0
    colour = max(1, commonest(start))
    out = np.zeros(shape, np.int8)
    for i in range(shape[0]):
        for j in range(shape[1]):
            n = total[i, j]
            if (n == count if kind == 0 else n == 1 if kind == 1 else n == 0) if kind < 3 else (n == 1 and start[i, j] != 0):
                out[i, j] = colour
    push(store, 0, 0, out)


@jit
def concatenate(store: Store, first: int, count: int, down: bool, gap: int) -> None:
    """The images side by side (or one below the other) in list order, aligned at the top (or left)."""
    length, breadth = gap * (count - 1), 0
    for k in range(first, first + count):
        length += store.images[k, 2 if down else 3]
        breadth = max(breadth, store.images[k, 3 if down else 2])
    if length > 60:
        return
    out = np.zeros((length, breadth) if down else (breadth, length), np.int8)
    place = 0
    for k in range(first, first + count):
        cells = image_cells(store, k)
        for i in range(cells.shape[0]):
            for j in range(cells.shape[1]):
                out[(place if down else 0) + i, (0 if down else place) + j] = cells[i, j]
        place += cells.shape[0 if down else 1] + gap
    push(store, 0, 0, out)


@jit
def slide(store: Store, first: int, count: int, direction: int, height: int, width: int) -> None:
    """Each image moves up, down, left or right (0..3) until it meets another one or the edge of the frame (height, width)."""
    dy, dx = STEPS[direction, 0], STEPS[direction, 1]
    keys = np.zeros(count, np.int64)
    for k in range(count):
        y, x, h, w = store.images[first + k, 0], store.images[first + k, 1], store.images[first + k, 2], store.images[first + k, 3]
        if y < 0 or x < 0 or y + h > height or x + w > width:
            return
        keys[k] = y if direction == 0 else -(y + h) if direction == 1 else x if direction == 2 else -(x + w)
    occupied = np.zeros((height, width), np.bool_)
    for k in stable_argsort(keys):
        cells = image_cells(store, first + k)
        y, x = store.images[first + k, 0], store.images[first + k, 1]
        free = cell_count(cells) > 0  # a blank image would move forever
        while free:
            for i in range(cells.shape[0]):
                for j in range(cells.shape[1]):
                    if cells[i, j] != 0 and free:
                        a, b = y + dy + i, x + dx + j
                        free = 0 <= a < height and 0 <= b < width and not occupied[a, b]
            if free:
                y += dy
                x += dx
        for i in range(cells.shape[0]):
            for j in range(cells.shape[1]):
                if cells[i, j] != 0 and 0 <= y + i < height and 0 <= x + j < width:
                    occupied[y + i, x + j] = True
        if not push(store, y, x, cells):
            return


@jit_into_callers
def apply_list(variant: int, argument: int, store: Store, first: int, count: int, height: int, width: int) -> None:
    """List primitive number `variant` in LIST_NAMES; height and width are those of the example's input."""
    if variant < 6:
        pick(store, first, count, argument, variant % 2 == 0, variant // 2)
    elif variant < 8:
        sort(store, first, count, argument, variant == 7)
    elif variant < 10:
        _push_copy(store, first if variant == 8 else first + count - 1)
    elif variant < 14:
        compose(store, first, count, variant % 2 == 1, variant >= 12)
    elif variant == 14:
        logic(store, first, count, argument)
    elif variant < 19:
        concatenate(store, first, count, variant % 2 == 0, (variant - 15) // 2)
    elif variant == 19:
        slide(store, first, count, argument, height, width)
    elif variant == 20:
        out = bar(count, argument, max(1, commonest(image_cells(store, first))))
        if out.shape[0] > 0:
            push(store, 0, 0, out)
    elif count > 1:
        for k in range(count):
            if not _push_copy(store, first + count - 1 - k):
                return


LIST_NAMES = (
    "most", "least", "all_most", "all_least", "all_but_most", "all_but_least", "sort_up", "sort_down", "first", "last",  # 0..9
    "compose_first_on_top", "compose_last_on_top", "overlay_first_on_top", "overlay_last_on_top", "logic",  # 10..14
    "beside", "below", "beside_with_gap", "below_with_gap", "slide", "count_bar", "reverse",  # 15..21
)  # fmt: skip
