"""Shapes on a grid: what each covers, the text of a drawing, and its normal form.

A drawing is a list of shapes that are laid on a blank grid one after the other. Its text has one shape a line:

    row column pixel colour
    row column hline colour column2
    row column vline colour row2
    row column line colour row2 column2
    row column rect colour row2 column2
    row column box colour row2 column2

A hline runs along a row, a vline along a column, a line between any two cells; a rect is filled and a box is the border of a rect. All
numbers are 0..29 and both ends belong to a shape. Does not know tasks or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arc_submit.arc.grid import COLOURS, MAX_SIDE
from arc_submit.programs.interface import ProgramError, Refusal

KINDS = ("pixel", "hline", "vline", "line", "rect", "box")
MAX_SHAPES = 256
HAS_ROW2 = frozenset({"vline", "line", "rect", "box"})
HAS_COLUMN2 = frozenset({"hline", "line", "rect", "box"})
_TOKENS = {kind: 5 + (kind in HAS_ROW2) + (kind in HAS_COLUMN2) for kind in KINDS}  # with the end of the line
_NUMBERS = {str(number): number for number in range(MAX_SIDE)}  # "07" and "+7" are no numbers of the language

Canvas = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Shape:
    """One shape. A kind without a second row or column repeats the first."""

    row: int
    column: int
    kind: str
    colour: int
    row2: int
    column2: int

    @property
    def tokens(self) -> int:
        """Length of the shape's line in tokens, with the end of the line."""
        return _TOKENS[self.kind]


def parse_drawing(text: str) -> list[Shape]:
    """The shapes of a text; no shapes for an empty text.

    Raises:
        ProgramError: SYNTAX where a line is no shape, VALUE for a colour above 9, STEPS for more than MAX_SHAPES lines.
    """
    if len(text) > 32 * MAX_SHAPES:
        raise ProgramError(Refusal.STEPS, f"a text of {len(text)} characters; a drawing has at most {MAX_SHAPES} lines")
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > MAX_SHAPES:
        raise ProgramError(Refusal.STEPS, f"{len(lines)} lines, at most {MAX_SHAPES} are allowed")
    return [_parse_line(number, line.split()) for number, line in enumerate(lines)]


def _parse_line(number: int, words: list[str]) -> Shape:
    kind = words[2] if len(words) > 2 else ""
    if kind not in KINDS:
        raise ProgramError(Refusal.SYNTAX, f"line {number}: the third word is one of {', '.join(KINDS)}")
    if len(words) != _TOKENS[kind] - 1:
        raise ProgramError(Refusal.SYNTAX, f"line {number}: a {kind} has {_TOKENS[kind] - 1} words, not {len(words)}")
    numbers = [_NUMBERS.get(word) for word in (*words[:2], *words[3:])]
    found = [one for one in numbers if one is not None]
    if len(found) < len(numbers):
        raise ProgramError(Refusal.SYNTAX, f"line {number}: a word is no number 0..{MAX_SIDE - 1}")
    row, column, colour, *ends = found
    if colour >= COLOURS:
        raise ProgramError(Refusal.VALUE, f"line {number}: colour {colour}, the last is {COLOURS - 1}")
    row2 = ends.pop(0) if kind in HAS_ROW2 else row
    column2 = ends.pop(0) if kind in HAS_COLUMN2 else column
    return Shape(row, column, kind, colour, row2, column2)


def print_drawing(shapes: Sequence[Shape]) -> str:
    """The text of shapes, one a line, without an end of line behind the last."""
    lines = []
    for one in shapes:
        ends = [one.row2] * (one.kind in HAS_ROW2) + [one.column2] * (one.kind in HAS_COLUMN2)
        lines.append(" ".join(map(str, (one.row, one.column, one.kind, one.colour, *ends))))
    return "\n".join(lines)


def draw(shapes: Sequence[Shape], height: int, width: int) -> Canvas:
    """The shapes on a blank grid (int8, shape (height, width)).

    Raises:
        ProgramError: VALUE where a shape leaves the grid.
    """
    canvas: Canvas = np.zeros((height, width), dtype=np.int8)
    for number, one in enumerate(shapes):
        if max(one.row, one.row2) >= height or max(one.column, one.column2) >= width:
            raise ProgramError(Refusal.VALUE, f"line {number}: the {one.kind} leaves the grid of {height} rows and {width} columns")
        _lay(canvas, one, one.colour)
    return canvas


def _lay(canvas: Canvas, one: Shape, value: int) -> None:
    top, bottom = sorted((one.row, one.row2))
    left, right = sorted((one.column, one.column2))
    if one.kind == "line":
        canvas[_cells_of_line(one)] = value
    elif one.kind == "box":
        canvas[top, left : right + 1] = canvas[bottom, left : right + 1] = value
        canvas[top : bottom + 1, left] = canvas[top : bottom + 1, right] = value
    else:
        canvas[top : bottom + 1, left : right + 1] = value


def _cells_of_line(one: Shape) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the cells between two ends: one for each step along the longer side, halves rounded up."""
    steps = max(abs(one.row2 - one.row), abs(one.column2 - one.column))
    along = np.arange(steps + 1)
    divisor = max(1, 2 * steps)
    rows = one.row + (2 * along * (one.row2 - one.row) + steps) // divisor
    columns = one.column + (2 * along * (one.column2 - one.column) + steps) // divisor
    return rows, columns


def normal_shapes(shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes of a drawing's normal form: without those that change nothing, each in its simplest kind, in reading order.

    A shape comes before another where its first cell does, reading row by row, unless they overlap in different colours: then they keep
    their order. The picture on a blank grid stays the same where all shapes lie within it. The size of the grid is not known here: `draw`
    refuses a shape that leaves the grid, and the normal form may lack such a shape where it changes nothing on the largest grid.
    """
    kept = [_simplest(one) for one in shapes]
    # What hid a line may go itself, and then the line changes nothing.
    while len(needed := _needed(kept)) < len(kept):
        kept = needed
    if len(kept) < 2:
        return kept
    masks = _masks(kept)
    colours = np.array([one.colour for one in kept])
    overlap = (masks.astype(np.float32) @ masks.T.astype(np.float32) > 0) & (colours[:, None] != colours)
    waits_for = [set(np.flatnonzero(overlap[i, :i]).tolist()) for i in range(len(kept))]
    order: list[int] = []
    left = sorted(range(len(kept)), key=lambda i: (kept[i].row, kept[i].column, i))
    placed: set[int] = set()
    while left:
        chosen = next(i for i in left if waits_for[i] <= placed)
        left.remove(chosen)
        placed.add(chosen)
        order.append(chosen)
    return [kept[i] for i in order]


def _simplest(one: Shape) -> Shape:
    """The same cells by the simplest kind, from the upper end (of one row: the left end)."""
    row, row2, column, column2 = one.row, one.row2, one.column, one.column2
    if one.kind == "line" and row != row2 and column != column2:
        # The cells of a line depend on its direction where it passes between two cells.
        turned = Shape(row2, column2, "line", one.colour, row, column)
        return turned if row2 < row and _same_cells(one, turned) else one
    (row, row2), (column, column2) = sorted((row, row2)), sorted((column, column2))
    kind = one.kind
    if kind == "box" and (row2 - row < 2 or column2 - column < 2):
        kind = "rect"
    if row == row2 and column == column2:
        kind = "pixel"
    elif row == row2:
        kind = "hline"
    elif column == column2:
        kind = "vline"
    return Shape(row, column, kind, one.colour, row2, column2)


def _same_cells(a: Shape, b: Shape) -> bool:
    return set(zip(*map(np.ndarray.tolist, _cells_of_line(a)), strict=True)) == set(
        zip(*map(np.ndarray.tolist, _cells_of_line(b)), strict=True)
    )


def _needed(shapes: list[Shape]) -> list[Shape]:
    """The shapes without those whose absence leaves the picture on a blank grid as it is."""
    masks = _masks(shapes)
    beneath = np.zeros((len(shapes), MAX_SIDE * MAX_SIDE), dtype=np.int8)  # the picture before each shape
    for i, one in enumerate(shapes[:-1]):
        beneath[i + 1] = np.where(masks[i], one.colour, beneath[i])
    covered = np.zeros(MAX_SIDE * MAX_SIDE, dtype=bool)
    kept = []
    for i in reversed(range(len(shapes))):
        visible = masks[i] & ~covered
        if (beneath[i][visible] != shapes[i].colour).any():
            kept.append(shapes[i])
            covered |= masks[i]
    return kept[::-1]


def _masks(shapes: Sequence[Shape]) -> npt.NDArray[np.bool_]:
    """The cells that each shape covers on the largest grid, bool (shapes, 900)."""
    masks = np.zeros((len(shapes), MAX_SIDE, MAX_SIDE), dtype=np.int8)
    for mask, one in zip(masks, shapes, strict=True):
        _lay(mask, one, 1)
    return masks.reshape(len(shapes), MAX_SIDE * MAX_SIDE) > 0
