"""Pictures to learn from and to be asked for: random drawings of a few shapes, and grids of coloured squares.

Does not know models.
"""

from __future__ import annotations

import math

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import ConfigError
from arc_submit.programs.painter.shapes import Shape, normal_shapes

# How often a kind is drawn: filled rectangles as often as all lines together.
_SHARES = {"pixel": 0.1, "hline": 0.12, "vline": 0.12, "line": 0.11, "rect": 0.4, "box": 0.15}
_LONGEST_RANDOM_LINE = 0.3  # share of lines between any two cells; the others are diagonals


def random_drawing(rng: np.random.Generator, height: int, width: int, max_shapes: int = 5) -> list[Shape]:
    """The normal form of 1 to `max_shapes` random shapes on a grid of this size; at least one shape is left."""
    while True:
        count = int(rng.integers(1, max_shapes + 1))
        shapes = normal_shapes([_random_shape(rng, height, width) for _ in range(count)])
        if shapes:
            return shapes


def _random_shape(rng: np.random.Generator, height: int, width: int) -> Shape:
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    row, row2 = sorted(map(int, rng.integers(height, size=2)))
    column, column2 = map(int, rng.integers(width, size=2))
    if kind == "line":
        if rng.random() > _LONGEST_RANDOM_LINE:
            steps = min(row2 - row, abs(column2 - column))
            row2, column2 = row + steps, column + (steps if column2 > column else -steps)
    else:
        column, column2 = sorted((column, column2))
    colour = int(rng.integers(COLOURS))
    if kind in ("pixel", "hline"):
        row2 = row
    if kind in ("pixel", "vline"):
        column2 = column
    return Shape(row, column, kind, colour, row2, column2)


def squares_picture(squares: int, seed: int, side: int = MAX_SIDE) -> Grid:
    """A grid of side x side cells, divided into k x k squares (as nearly as the cells allow) of random colours, 0 among them.

    Args:
        squares: the square of k.

    Raises:
        ConfigError: where `squares` is no square number, or the grid has fewer rows than squares in a column.
    """
    k = math.isqrt(max(0, squares))
    if k < 1 or k * k != squares or k > side:
        raise ConfigError(f"--squares {squares}: give a square number from 1 to {side * side}, such as 25")
    colours = np.random.default_rng([seed, squares]).integers(COLOURS, size=(k, k))
    of_cell = np.arange(side) * k // side
    return frozen(colours[of_cell[:, None], of_cell])


def drawing_task(name: str, picture: Grid) -> Task:
    """The task to draw a picture: its one train pair leads from a blank grid to the picture."""
    blank = frozen(np.zeros_like(picture))
    return Task(name, (Pair(blank, picture),), (blank,))
