"""Outputs that the objects of the input fill: all of them put together, as they are, to a full rectangle or to a frame.

The output has as many cells as the objects, so that its size follows from them where only one size can be filled. Where two different
results are possible there is none. This module does not know tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen
from arc_submit.search.grid_tools import CLEAR, Size, background_of, object_pictures
from arc_submit.search.store import Array

MAX_PIECES = 9
MAX_STEPS = 4000  # pieces that are tried at a cell, for one size; what is not found by then does not count


def is_filled(output: Grid, frame: bool) -> bool:
    """Whether an output has no cell of colour 0, or, for a frame, only in its inside, and there no other."""
    inside = np.zeros(output.shape, np.bool_)
    if frame:
        inside[1:-1, 1:-1] = True
        if not inside.any():
            return False
    return bool(((output == 0) == inside).all())


def assembled(grid: Grid, frame: bool, one_colour: bool, shape: Size | None) -> Grid | None:
    """The only rectangle or frame that the objects of a grid fill; None where there is none, or more than one.

    Args:
        one_colour: whether an object has one colour.
        shape: of the result, None for any.
    """
    pieces = object_pictures(grid, background_of(grid), one_colour, MAX_PIECES)
    if len(pieces) < 2:
        return None
    area = sum(int((piece != CLEAR).sum()) for piece in pieces)
    results: dict[bytes, Grid] = {}
    for size in _sizes(area, frame) if shape is None else [shape]:
        canvas = np.full(size, CLEAR, np.int8)  # CLEAR: a cell that no piece covers
        if frame:
            canvas[1:-1, 1:-1] = 0
        if int((canvas == CLEAR).sum()) == area:
            for filled in _fillings(canvas, pieces):
                results[bytes(filled.shape) + filled.tobytes()] = filled
                if len(results) > 1:
                    return None
    return next(iter(results.values()), None)


def _sizes(area: int, frame: bool) -> Iterator[Size]:
    """Every size of a rectangle or a frame of so many cells."""
    for height in range(1, MAX_SIDE + 1):
        width = area / height if not frame else area / 2 + 2 - height
        if width.is_integer() and (3 if frame else 1) <= width <= MAX_SIDE and (not frame or height > 2):
            yield height, int(width)


def _fillings(canvas: Array, pieces: Sequence[Array]) -> Iterator[Grid]:
    """The ways to cover all clear cells with all pieces: the first clear cell is the first cell of a piece."""
    firsts = [int(np.flatnonzero(piece[0] >= 0)[0]) for piece in pieces]
    steps = MAX_STEPS

    def fill(left: tuple[int, ...]) -> Iterator[Grid]:
        nonlocal steps
        clear = np.argwhere(canvas == CLEAR)
        if not len(clear) or not left:
            if not len(clear) and not left:
                yield frozen(canvas.copy())
            return
        top, column = int(clear[0, 0]), int(clear[0, 1])
        seen: set[bytes] = set()
        for k in left:
            piece, start = pieces[k], column - firsts[k]
            key = bytes(piece.shape) + piece.tobytes()
            box = canvas[top : top + piece.shape[0], max(start, 0) : start + piece.shape[1]]
            if steps <= 0 or key in seen or start < 0 or box.shape != piece.shape or (box[piece >= 0] != CLEAR).any():
                continue
            seen.add(key)
            steps -= 1
            box[piece >= 0] = piece[piece >= 0]
            yield from fill(tuple(other for other in left if other != k))
            box[piece >= 0] = CLEAR

    yield from fill(tuple(range(len(pieces))))
