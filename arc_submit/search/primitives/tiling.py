"""Tiling primitives: scaling, repeating, mirroring, and those that aim at the expected size of the output.

Every function takes int8 cells (0 is transparent) and returns cells of shape (0, 0) where it has no result.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit, jit_into_callers
from arc_submit.search.primitives.colour import cell_count, nothing
from arc_submit.search.primitives.shape import turn


@jit
def stretch(cells: Grid, height: int, width: int) -> Grid:
    """Each cell becomes a block, so that the result has the given size; nothing where that is no multiple of the image's."""
    h, w = cells.shape
    if height % h != 0 or width % w != 0:
        return nothing()
    out = np.zeros((height, width), np.int8)
    for i in range(height):
        for j in range(width):
            out[i, j] = cells[i // (height // h), j // (width // w)]
    return out


@jit
def repeat(cells: Grid, height: int, width: int, mirrored: bool) -> Grid:
    """The image repeated from the corner until the given size is full; `mirrored`: with every second copy mirrored."""
    h, w = cells.shape
    out = np.zeros((height, width), np.int8)
    for i in range(height):
        for j in range(width):
            a, b = i % h, j % w
            if mirrored and i // h % 2 == 1:
                a = h - 1 - a
            if mirrored and j // w % 2 == 1:
                b = w - 1 - b
            out[i, j] = cells[a, b]
    return out


@jit
def wrap(cells: Grid, height: int, width: int, painted_only: bool) -> Grid:
    """Cells in reading order (all, or the painted ones) written into the given size; nothing where they do not fit."""
    h, w = cells.shape
    count = cell_count(cells) if painted_only else h * w
    if count > height * width or count == 0:
        return nothing()
    out = np.zeros((height, width), np.int8)
    k = 0
    for i in range(h):
        for j in range(w):
            if not painted_only or cells[i, j] != 0:
                out[k // width, k % width] = cells[i, j]
                k += 1
    return out


@jit
def embed(y: int, x: int, cells: Grid, height: int, width: int) -> Grid:
    """The image at its place on a canvas of the given size, cut off at the edges."""
    out = np.zeros((height, width), np.int8)
    for i in range(max(0, -y), min(cells.shape[0], height - y)):
        for j in range(max(0, -x), min(cells.shape[1], width - x)):
            out[y + i, x + j] = cells[i, j]
    return out


@jit
def fractal(cells: Grid, inverted: bool) -> Grid:
    """A copy of the image in place of each painted (or, inverted, each transparent) cell; nothing beyond 30 by 30."""
    h, w = cells.shape
    if h * h > 30 or w * w > 30:
        return nothing()
    out = np.zeros((h * h, w * w), np.int8)
    for i in range(h * h):
        for j in range(w * w):
            if (cells[i // h, j // w] != 0) != inverted:
                out[i, j] = cells[i % h, j % w]
    return out


@jit
def rosette(cells: Grid) -> Grid:
    """A square image with its quarter turns, clockwise: the image, turned right, half turned, turned left; nothing for others."""
    h, w = cells.shape
    if h != w:
        return nothing()
    out = np.zeros((2 * h, 2 * w), np.int8)
    for i in range(h):
        for j in range(w):
            out[i, j] = cells[i, j]
            out[j, 2 * w - 1 - i] = cells[i, j]
            out[2 * h - 1 - i, 2 * w - 1 - j] = cells[i, j]
            out[2 * h - 1 - j, i] = cells[i, j]
    return out


@jit
def bar(count: int, form: int, colour: int) -> Grid:
    """`count` cells of a colour: a row (0), a column (1), a square (2) or a diagonal (3); nothing for counts outside 1..30."""
    if count < 1 or count > 30 or colour == 0:
        return nothing()
    if form == 3:
        out = np.zeros((count, count), np.int8)
        for i in range(count):
            out[i, i] = colour
        return out
    return np.full((1 if form == 0 else count, 1 if form == 1 else count), colour, np.int8)


@jit_into_callers
def apply_tiling(variant: int, argument: int, y: int, x: int, cells: Grid, height: int, width: int) -> Grid:
    """Tiling primitive number `variant` in TILING_NAMES; height 0 means that the output size is not known."""
    h, w = cells.shape
    if variant == 0:
        return stretch(cells, argument * h, argument * w)
    if variant <= 4:
        down = variant % 2 == 0
        return repeat(cells, argument * h if down else h, w if down else argument * w, variant >= 3)
    if variant == 5:
        return fractal(cells, argument == 1)
    if variant == 6:
        return rosette(cells)
    if height == 0:
        return nothing()
    if variant == 7:
        return embed(y, x, cells, height, width)
    if variant == 8:
        return stretch(cells, height, width)
    if variant <= 10:
        return repeat(cells, height, width, variant == 10)
    if variant == 11:
        return wrap(cells, height, width, argument == 1)
    # The mirrored copies start below the image: flip, mirror once, flip back.
    return repeat(turn(repeat(turn(cells, 1), 2 * h, 2 * w, True), 1), height, width, False)


TILING_NAMES = (
    "scale", "repeat_right", "repeat_down", "mirror_right", "mirror_down", "fractal", "rosette", "embed",  # 0..7
    "stretch_to_size", "repeat_to_size", "mirror_to_size", "wrap_to_size", "mirror_from_below_to_size",  # 8..12
)  # fmt: skip
