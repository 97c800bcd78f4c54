"""Colour primitives: keep, erase, paint and count colours. An image's shape and place stay, except for the single-cell answers.

Every function takes cells of shape (h, w), int8, and returns new cells; 0 is transparent and no colour.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers


@jit
def commonest(cells: Grid) -> int:
    """The colour with most cells, the lowest of equals; 0 where there is none."""
    counts = np.zeros(10, np.int64)
    for value in cells.flat:
        counts[value] += 1
    best = 0
    for colour in range(1, 10):
        if counts[colour] > 0 and (best == 0 or counts[colour] > counts[best]):
            best = colour
    return best


@jit
def rarest(cells: Grid) -> int:
    """The colour present with fewest cells, the lowest of equals; 0 where there is none."""
    counts = np.zeros(10, np.int64)
    for value in cells.flat:
        counts[value] += 1
    best = 0
    for colour in range(1, 10):
        if counts[colour] > 0 and (best == 0 or counts[colour] < counts[best]):
            best = colour
    return best


@jit
def painted(cells: Grid) -> bool:
    """Whether there is a painted cell."""
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] != 0:
                return True
    return False


@jit
def keep(cells: Grid, colour: int) -> Grid:
    """Only the cells of one colour."""
    out = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == colour:
                out[i, j] = colour
    return out


@jit
def erase(cells: Grid, colour: int) -> Grid:
    """All cells but those of one colour."""
    out = cells.copy()
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == colour:
                out[i, j] = 0
    return out


@jit
def paint(cells: Grid, colour: int) -> Grid:
    """Every painted cell in one colour."""
    out = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] != 0:
                out[i, j] = colour
    return out


@jit
def fill_background(cells: Grid, colour: int) -> Grid:
    """Every transparent cell in one colour, the others as they are."""
    out = cells.copy()
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == 0:
                out[i, j] = colour
    return out


@jit
def invert(cells: Grid) -> Grid:
    """Transparent cells in the commonest colour, painted cells transparent."""
    colour = commonest(cells)
    out = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == 0:
                out[i, j] = colour
    return out


@jit
def swap_two(cells: Grid) -> Grid:
    """The two colours of a two-coloured image exchanged; empty (0, 0) for any other number of colours."""
    first = commonest(cells)
    second = commonest(erase(cells, first)) if first else 0
    if second == 0 or commonest(erase(erase(cells, first), second)) != 0:
        return np.zeros((0, 0), np.int8)
    out = np.zeros(cells.shape, np.int8)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            if cells[i, j] == first:
                out[i, j] = second
            elif cells[i, j] == second:
                out[i, j] = first
    return out


@jit
def single_cell(colour: int) -> Grid:
    """One cell of a colour, shape (1, 1); empty (0, 0) for colour 0."""
    if colour == 0:
        return np.zeros((0, 0), np.int8)
    return np.full((1, 1), colour, np.int8)


@jit
def colour_count(cells: Grid) -> int:
    """How many colours there are."""
    seen = np.zeros(10, np.int64)
    for value in cells.flat:
        seen[value] = 1
    return int(seen[1:].sum())


@jit
def cell_count(cells: Grid) -> int:
    """How many painted cells there are."""
    count = 0
    for value in cells.flat:
        if value != 0:
            count += 1
    return count


@jit_into_callers
def apply_colour(variant: int, argument: int, cells: Grid) -> Grid:
    """Colour primitive number `variant` (the order of COLOUR_NAMES)."""
    if variant == 0:
        return keep(cells, argument)
    if variant == 1:
        return erase(cells, argument)
    if variant == 2:
        return paint(cells, argument)
    if variant == 3:
        return keep(cells, commonest(cells))
    if variant == 4:
        return keep(cells, rarest(cells))
    if variant == 5:
        return erase(cells, commonest(cells))
    if variant == 6:
        return erase(cells, rarest(cells))
    if variant == 7:
        return paint(cells, commonest(cells))
    if variant == 8:
        return paint(cells, rarest(cells))
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
    "keep",
    "erase",
    "paint",
    "keep_commonest",
    "keep_rarest",
    "erase_commonest",
    "erase_rarest",
    "paint_commonest",
    "paint_rarest",
    "fill_background_commonest",
    "invert",
    "swap_two_colours",
    "cell_of_commonest",
    "cell_of_rarest",
    "fill_background",
)
