"""Colour primitives: keep, erase, paint and count colours. They keep an image's shape and place, except those that return a single cell.

Every function takes cells of shape (h, w), int8, and returns new cells; 0 is transparent and no colour.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.store import Array


@jit
def nothing() -> Grid:
    """The cells that stand for no result, shape (0, 0)."""
    return np.zeros((0, 0), np.int8)


@jit
def colour_counts(cells: Grid) -> Array:
    """The number of cells of each colour, int64 (10,); index 0 counts the transparent cells."""
    counts = np.zeros(10, np.int64)
    for value in cells.flat:
        counts[value] += 1
    return counts


@jit
def commonest(cells: Grid) -> int:
    """The colour with most cells, the lowest on a tie; 0 for a blank image."""
    counts = colour_counts(cells)
    counts[0] = 0
    return int(counts.argmax())


@jit
def rarest(cells: Grid) -> int:
    """The present colour with fewest cells, the lowest on a tie; 0 for a blank image."""
    counts = colour_counts(cells)
    best = 0
    for colour in range(1, 10):
        if counts[colour] > 0 and (best == 0 or counts[colour] < counts[best]):
            best = colour
    return best


@jit
def any_painted(cells: Grid) -> bool:
    """Whether there is a painted cell."""
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] != 0:
                return True
    return False


@jit
def colour_count(cells: Grid) -> int:
    """The number of different colours."""
    return int((colour_counts(cells)[1:] > 0).sum())


@jit
def cell_count(cells: Grid) -> int:
    """The number of painted cells."""
    count = 0
    for value in cells.flat:
        if value != 0:
            count += 1
    return count


@jit
def look_up(cells: Grid, palette: Array) -> Grid:
    """The image with each colour c replaced by palette[c]; `palette` is int8 (10,)."""
    out = np.empty(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            out[i, j] = palette[cells[i, j]]
    return out


@jit
def keep(cells: Grid, colour: int) -> Grid:
    """The cells of one colour only."""
    palette = np.zeros(10, np.int8)
    palette[colour] = colour
    return look_up(cells, palette)


@jit
def erase(cells: Grid, colour: int) -> Grid:
    """All cells except those of one colour."""
    palette = np.arange(10).astype(np.int8)
    palette[colour] = 0
    return look_up(cells, palette)


@jit
def paint(cells: Grid, colour: int) -> Grid:
    """Every painted cell in one colour."""
    palette = np.full(10, colour, np.int8)
    palette[0] = 0
    return look_up(cells, palette)


@jit
def fill_background(cells: Grid, colour: int) -> Grid:
    """Every transparent cell in one colour, the others unchanged."""
    palette = np.arange(10).astype(np.int8)
    palette[0] = colour
    return look_up(cells, palette)


@jit
def invert(cells: Grid) -> Grid:
    """Transparent cells in the commonest colour, painted cells transparent."""
    palette = np.zeros(10, np.int8)
    palette[0] = commonest(cells)
    return look_up(cells, palette)


@jit
def swap_two(cells: Grid) -> Grid:
    """The two colours of a two-coloured image exchanged; nothing for any other number of colours."""
    if colour_count(cells) != 2:
        return nothing()
    first = commonest(cells)
    second = commonest(erase(cells, first))
    palette = np.zeros(10, np.int8)
    palette[first], palette[second] = second, first
    return look_up(cells, palette)


@jit
def single_cell(colour: int) -> Grid:
    """One cell of a colour, shape (1, 1); nothing for colour 0."""
    return np.full((1, 1), colour, np.int8) if colour != 0 else nothing()


@jit_into_callers
def apply_colour(variant: int, argument: int, cells: Grid) -> Grid:
    """Colour primitive number `variant` in COLOUR_NAMES; `argument` is the colour of those that take one."""
    kind, colour = variant, argument
    if 3 <= variant < 9:
        kind, colour = (variant - 3) // 2, commonest(cells) if variant % 2 == 1 else rarest(cells)
    if kind == 0:
        return keep(cells, colour)
    if kind == 1:
        return erase(cells, colour)
    if kind == 2:
        return paint(cells, colour)
    if variant == 9:
        return fill_background(cells, commonest(cells))
    if variant == 10:
        return invert(cells)
    if variant == 11:
        return swap_two(cells)
    if variant == 12:
        return single_cell(commonest(cells))
    if variant == 13:
        return single_cell(rarest(cells))
    return fill_background(cells, argument)


COLOUR_NAMES = (
    "keep", "erase", "paint",  # 0..2
    "keep_commonest", "keep_rarest", "erase_commonest", "erase_rarest", "paint_commonest", "paint_rarest",  # 3..8
    "fill_background_commonest", "invert", "swap_two_colours", "cell_of_commonest", "cell_of_rarest", "fill_background",  # 9..14
)  # fmt: skip
