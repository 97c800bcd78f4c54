"""Actions and their effects: what changes in a grid when something is done to one object of a scene.

An action depends only on the input's scene, so that its effects on all objects can be computed before any rule is chosen. Does not know
which actions there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from arc_submit.search.jit import jit
from arc_submit.search.solvers.objects.scenes import Object, Scene
from arc_submit.search.store import Array

Step = tuple[int, int]  # rows, columns
NONE = np.zeros(0, np.int64)
UP, DOWN, LEFT, RIGHT = (-1, 0), (1, 0), (0, -1), (0, 1)
SIDES = {"up": UP, "down": DOWN, "left": LEFT, "right": RIGHT}
CORNERS = {"up-left": (-1, -1), "up-right": (-1, 1), "down-left": (1, -1), "down-right": (1, 1)}
DIRECTIONS = {**SIDES, **CORNERS}


class Effect(NamedTuple):
    """The changes of a grid by an action; cells are indices in reading order.

    Attributes:
        erased: int64, cells that become background unless they are painted.
        painted: int64, cells that are painted, without duplicates.
        colours: int8, their new colours.
    """

    erased: Array
    painted: Array
    colours: Array


@dataclass(frozen=True)
class Action:
    """A named change of one object; `run(scene, k)` returns its effect on object k, or None where it is impossible."""

    name: str
    cost: float
    run: Callable[[Scene, int], Effect | None]


@dataclass(frozen=True)
class Changes:
    """The kinds of change between inputs and outputs of a task; actions that make no such change are not tried.

    Attributes:
        erases: some cell becomes background.
        draws: some background cell becomes something else.
        recolours: some painted cell becomes another colour.
        colours: the colours of changed cells in the outputs, without the background.
    """

    erases: bool
    draws: bool
    recolours: bool
    colours: tuple[int, ...]


class Painter(NamedTuple):
    """A named choice of a colour for an object; `colour_of(scene, k)` is None where it does not apply."""

    name: str
    cost: float
    colour_of: Callable[[Scene, int], int | None]


Cells = Callable[[Scene, int], Array]


@dataclass(frozen=True)
class Painting:
    """The effect of painting an object's cells, or some around it, in one colour; None where the painter does not apply.

    Equal choices of cells have equal `cells_of`, so that what the outputs show there is looked up once for all painters.
    """

    cells_of: Cells
    painter: Painter

    def __call__(self, scene: Scene, k: int) -> Effect | None:
        colour = self.painter.colour_of(scene, k)
        if colour is None:
            return None
        cells = self.cells_of(scene, k)
        return Effect(NONE, cells, np.full(len(cells), colour, np.int8))


def own(scene: Scene, k: int) -> Array:
    """The cells of an object."""
    o = scene.objects[k]
    return scene.cell_numbers(o.rows, o.columns)


def painted_at(scene: Scene, rows: Array, columns: Array, colours: Array, erased: Array = NONE) -> Effect:
    """The effect that paints places, without those outside the grid."""
    inside = scene.inside(rows, columns)
    return Effect(erased, scene.cell_numbers(rows[inside], columns[inside]), colours[inside])


def picture_at(scene: Scene, picture: Array, top: int, left: int, erased: Array = NONE) -> Effect:
    """The effect that paints a picture, -1 where it has no cell, with its upper left corner at a place."""
    ys, xs = np.nonzero(picture >= 0)
    return painted_at(scene, ys + top, xs + left, picture[ys, xs], erased)


def on_background(scene: Scene, effect: Effect) -> Effect:
    """An effect that paints only background cells."""
    free = scene.grid.ravel()[effect.painted] == scene.background
    return Effect(effect.erased, effect.painted[free], effect.colours[free])


def shifted(o: Object, directions: dict[str, Step]) -> tuple[Array, Array]:
    """The places one step from an object's cells."""
    rows, columns = ([cells + step[axis] for step in directions.values()] for axis, cells in enumerate((o.rows, o.columns)))
    return np.concatenate(rows), np.concatenate(columns)


def slide(scene: Scene, k: int, dy: int, dx: int) -> tuple[int, int]:
    """The steps that an object can move in a direction, and the index of the object that stops it: -1 for the edge, -2 for no object."""

    def all_slides() -> Array:
        return np.array([
            free_steps(scene.grid, scene.labels, j, o.rows, o.columns, dy, dx, scene.background) for j, o in enumerate(scene.objects)
        ])  # fmt: skip

    steps, met = scene.cached(f"slide {dy} {dx}", all_slides)[k]
    return int(steps), int(met)


@jit
def free_steps(grid: Array, labels: Array, k: int, rows: Array, columns: Array, dy: int, dx: int, background: int) -> tuple[int, int]:
    """As `slide`, for object k with cells at these places."""
    h, w = grid.shape
    steps = 0
    while True:
        for r in range(rows.size):
            y, x = rows[r] + dy * (steps + 1), columns[r] + dx * (steps + 1)
            if y < 0 or y >= h or x < 0 or x >= w:
                return steps, -1
            if labels[y, x] != k and grid[y, x] != background:
                return steps, labels[y, x] if labels[y, x] >= 0 else -2
        steps += 1
