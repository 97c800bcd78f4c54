"""List primitives: measure the images of a list, pick one, keep some, sort, move, and join them into one image.

Functions over lists take the store, the number of the first image and how many there are; what they make is pushed into the store.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import cell_count, colour_count, commonest
from arc_submit.search.primitives.region import outside
from arc_submit.search.primitives.shape import turn
from arc_submit.search.primitives.splitting import label
from arc_submit.search.primitives.tiling import bar
from arc_submit.search.store import Array, Store, image_cells, push

MEASURE_NAMES = (
    "cells",
    "area",
    "height",
    "width",
    "colours",
    "parts",
    "top",
    "left",
    "holes",
    "copies",
    "symmetries",
    "fullness",
    "colour_copies",
    "rare_cells",
)


@jit
def hole_count(cells: Grid) -> int:
    """How many connected transparent regions the border does not reach."""
    reached = outside(cells, False)
    mark = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == 0 and reached[i, j] == 0:
                mark[i, j] = 1
    return int(label(mark, False, True)[1])


@jit
def symmetry_count(cells: Grid) -> int:
    """How many of the 7 symmetries leave the cells as they are."""
    count = 0
    for symmetry in range(7):
        other = turn(cells, symmetry)
        if other.shape == cells.shape:
            same = True
            for i in range(cells.shape[0]):
                for j in range(cells.shape[1]):
                    same = same and other[i, j] == cells[i, j]
            if same:
                count += 1
    return count


@jit
def same_shape(a: Grid, b: Grid, with_colours: bool) -> bool:
    """True where two images have one size and the same cells painted (in the same colours)."""
    if a.shape != b.shape:
        return False
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            if (a[i, j] != b[i, j]) if with_colours else ((a[i, j] == 0) != (b[i, j] == 0)):
                return False
    return True


@jit
def measure(store: Store, first: int, count: int, criterion: int) -> Array:
    """A number for each image of a list, int64 (count,); `criterion` is a place in MEASURE_NAMES."""
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
        elif criterion == 6:
            values[k] = store.images[first + k, 0]
        elif criterion == 7:
            values[k] = store.images[first + k, 1]
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
def in_order(values: Array) -> Array:
    """Places of numbers in rising order, equal ones in the order in which they come; np.argsort would take seconds to compile."""
    order = np.empty(values.size, np.int64)
    for k in range(values.size):
        place = k
        while place > 0 and values[order[place - 1]] > values[k]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = k
    return order


@jit
def pick(store: Store, first: int, count: int, criterion: int, largest: bool, several: int) -> None:
    """Keep by a criterion: the one image with the extreme value (0), all with it (1), or all others (2).

    Nothing where one is asked for and two share the extreme value, or where the criterion does not separate the list.
    """
    if count < 2:
        return
    values = measure(store, first, count, criterion)
    extreme = values[0]
    for value in values:
        extreme = max(extreme, value) if largest else min(extreme, value)
    ties = 0
    for k in range(count):
        ties += values[k] == extreme
    if (several == 0 and ties != 1) or ties == count:
        return
    for k in range(count):
        if (values[k] == extreme) != (several == 2) and not _push_again(store, first + k):
            return


@jit
def _push_again(store: Store, image: int) -> bool:
    return push(store, store.images[image, 0], store.images[image, 1], image_cells(store, image))


@jit
def sort(store: Store, first: int, count: int, criterion: int, descending: bool) -> None:
    """The list in order of a criterion, equal ones in their old order."""
    values = measure(store, first, count, criterion)
    if descending:
        for k in range(count):
            values[k] = -values[k]
    for k in in_order(values):
        if not _push_again(store, first + k):
            return


@jit
def compose(store: Store, first: int, count: int, last_on_top: bool, at_origin: bool) -> None:
    """The images over each other on the box of all of them, at their places or all at one corner."""
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
    """Images of one size, cell by cell, in the first one's commonest colour (1 where it has none).

    Kinds: painted in all (0), painted in exactly one (1), painted in none (2), painted in the first alone (3).
    Nothing where the sizes differ.
    """
    shape = image_cells(store, first).shape
    total = np.zeros(shape, np.int64)
    for k in range(first, first + count):
        cells = image_cells(store, k)
        if cells.shape != shape:
            return
        for i in range(shape[0]):
            for j in range(shape[1]):
                total[i, j] += cells[i, j] != 0
    colour = max(1, commonest(image_cells(store, first)))
    start = image_cells(store, first)
    out = np.zeros(shape, np.int8)
    for i in range(shape[0]):
        for j in range(shape[1]):
            n = total[i, j]
            if (n == count if kind == 0 else n == 1 if kind == 1 else n == 0) if kind < 3 else (n == 1 and start[i, j] != 0):
                out[i, j] = colour
    push(store, 0, 0, out)


@jit
def line_up(store: Store, first: int, count: int, down: bool, gap: int) -> None:
    """The images side by side (or one below the other) in the order of the list, each at the start of its strip."""
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
    dy, dx = (-1, 0) if direction == 0 else (1, 0) if direction == 1 else (0, -1) if direction == 2 else (0, 1)
    keys = np.zeros(count, np.int64)
    for k in range(count):
        y, x, h, w = store.images[first + k, 0], store.images[first + k, 1], store.images[first + k, 2], store.images[first + k, 3]
        if y < 0 or x < 0 or y + h > height or x + w > width:
            return
        keys[k] = y if direction == 0 else -(y + h) if direction == 1 else x if direction == 2 else -(x + w)
    taken = np.zeros((height, width), np.bool_)
    for k in in_order(keys):
        cells = image_cells(store, first + k)
        y, x = store.images[first + k, 0], store.images[first + k, 1]
        free = cell_count(cells) > 0  # a blank image would move for ever
        while free:
            for i in range(cells.shape[0]):
                for j in range(cells.shape[1]):
                    if cells[i, j] != 0 and free:
                        a, b = y + dy + i, x + dx + j
                        free = 0 <= a < height and 0 <= b < width and not taken[a, b]
            if free:
                y += dy
                x += dx
        for i in range(cells.shape[0]):
            for j in range(cells.shape[1]):
                if cells[i, j] != 0 and 0 <= y + i < height and 0 <= x + j < width:
                    taken[y + i, x + j] = True
        if not push(store, y, x, cells):
            return


@jit_into_callers
def apply_list(variant: int, argument: int, store: Store, first: int, count: int, height: int, width: int) -> None:
    """List primitive number `variant` (the order of LIST_NAMES); height and width are those of the example's input."""
    if variant < 6:
        pick(store, first, count, argument, variant % 2 == 0, variant // 2)
    elif variant < 8:
        sort(store, first, count, argument, variant == 7)
    elif variant == 8:
        _push_again(store, first)
    elif variant == 9:
        _push_again(store, first + count - 1)
    elif variant < 14:
        compose(store, first, count, variant % 2 == 1, variant >= 12)
    elif variant == 14:
        logic(store, first, count, argument)
    elif variant < 19:
        line_up(store, first, count, variant % 2 == 0, (variant - 15) // 2)
    elif variant == 19:
        slide(store, first, count, argument, height, width)
    elif variant == 20:
        colour = commonest(image_cells(store, first))
        out = bar(count, argument, max(1, colour))
        if out.shape[0] > 0:
            push(store, 0, 0, out)
    elif count > 1:
        for k in range(count):
            if not _push_again(store, first + count - 1 - k):
                return


LIST_NAMES = (
    "most",
    "least",
    "all_most",
    "all_least",
    "all_but_most",
    "all_but_least",
    "sort_up",
    "sort_down",
    "first",
    "last",
    "compose_first_on_top",
    "compose_last_on_top",
    "overlay_first_on_top",
    "overlay_last_on_top",
    "logic",
    "beside",
    "below",
    "beside_with_gap",
    "below_with_gap",
    "slide",
    "count_bar",
    "reverse",
)
