"""Areas to fill: cells in and around an object.

Does not know colours to paint with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from arc_submit.search.primitives.region import enclosed
from arc_submit.search.solvers.objects.effects import DIRECTIONS, SIDES, Cells, Step, own, shifted
from arc_submit.search.solvers.objects.scenes import Object, Scene
from arc_submit.search.store import Array


def _background_cells(scene: Scene, rows: Array, columns: Array) -> Array:
    inside = scene.inside(rows, columns)
    rows, columns = rows[inside], columns[inside]
    return np.asarray(scene.cell_numbers(rows, columns)[scene.grid[rows, columns] == scene.background])


def _box_fill(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    ys, xs = np.indices((o.height, o.width))
    return _background_cells(scene, ys.ravel() + o.top, xs.ravel() + o.left)


def _holes(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    ys, xs = np.nonzero(enclosed(o.mask.astype(np.int8), False))
    return _background_cells(scene, ys + o.top, xs + o.left)


def _outline(scene: Scene, k: int) -> Array:
    """The frame one cell outside the box."""
    o = scene.objects[k]
    ys, xs = np.indices((o.height + 2, o.width + 2))
    frame = (ys == 0) | (ys == o.height + 1) | (xs == 0) | (xs == o.width + 1)
    return _background_cells(scene, ys[frame] + o.top - 1, xs[frame] + o.left - 1)


def _outline_corners(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    rows, columns = np.array([o.top - 1, o.bottom]), np.array([o.left - 1, o.right])
    return _background_cells(scene, np.repeat(rows, 2), np.tile(columns, 2))


def _touching(scene: Scene, k: int, directions: dict[str, Step]) -> Array:
    """Background cells beside the object."""
    return np.unique(_background_cells(scene, *shifted(scene.objects[k], directions)))


def _own_where(scene: Scene, k: int, condition: Callable[[Object], Array]) -> Array:
    return own(scene, k)[condition(scene.objects[k])]


def _rim_depth(o: Object) -> Array:
    """The distance of the object's cells from the rim of its box."""
    y, x = o.rows - o.top, o.columns - o.left
    return np.asarray(np.minimum(np.minimum(y, o.height - 1 - y), np.minimum(x, o.width - 1 - x)))


def _at_corner(o: Object) -> Array:
    return np.asarray(np.isin(o.rows, (o.top, o.bottom - 1)) & np.isin(o.columns, (o.left, o.right - 1)))


def _in_middle(o: Object) -> Array:
    near_row, near_column = np.abs(2 * o.rows - o.top - o.bottom + 1) <= 1, np.abs(2 * o.columns - o.left - o.right + 1) <= 1
    return np.asarray(near_row & near_column)


def _checkered(o: Object) -> Array:
    return np.asarray((o.rows - o.top + o.columns - o.left) % 2)


AREAS: tuple[tuple[str, float, Cells], ...] = (
    ("its box", 0.0, _box_fill),
    ("its holes", 0.0, _holes),
    ("the frame around it", 0.3, _outline),
    ("what touches it", 0.3, partial(_touching, directions=DIRECTIONS)),
    ("what touches its sides", 0.3, partial(_touching, directions=SIDES)),
    ("the corners around it", 0.8, _outline_corners),
    ("its inside", 0.5, partial(_own_where, condition=lambda o: _rim_depth(o) >= 1)),
    ("its rim", 0.5, partial(_own_where, condition=lambda o: _rim_depth(o) == 0)),
    ("its corners", 0.8, partial(_own_where, condition=_at_corner)),
    ("its middle", 0.8, partial(_own_where, condition=_in_middle)),
    ("every other cell", 1.0, partial(_own_where, condition=lambda o: _checkered(o) == 0)),
    ("every other cell, from the second", 1.0, partial(_own_where, condition=lambda o: _checkered(o) == 1)),
    ("every other ring", 1.0, partial(_own_where, condition=lambda o: _rim_depth(o) % 2 == 0)),
    ("every other ring, from the second", 1.0, partial(_own_where, condition=lambda o: _rim_depth(o) % 2 == 1)),
)
