"""Cells of rays: from an object in some directions, to the edge of the grid or to what they meet.

Does not know colours to paint with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from arc_submit.search.jit import jit
from arc_submit.search.solvers.objects.effects import CORNERS, DIRECTIONS, DOWN, LEFT, NONE, RIGHT, SIDES, UP, Step
from arc_submit.search.solvers.objects.scenes import Scene
from arc_submit.search.store import Array

# Sets of directions to draw in, the plainest first.
FANS: dict[str, tuple[Step, ...]] = {
    **{name: (step,) for name, step in SIDES.items()},
    "left and right": (LEFT, RIGHT),
    "up and down": (UP, DOWN),
    "to all sides": tuple(SIDES.values()),
    **{name: (step,) for name, step in CORNERS.items()},
    "to all corners": tuple(CORNERS.values()),
    "all ways": tuple(DIRECTIONS.values()),
    "up-left and down-right": ((-1, -1), (1, 1)),
    "up-right and down-left": ((-1, 1), (1, -1)),
}
# The behaviour of a ray at the first painted cell of another object; REACH_COLOUR + c draws only rays that meet colour c.
THROUGH, STOP, OVER, REACH, REACH_LIKE, REACH_EDGE, REACH_COLOUR = range(7)
RAYS = (
    ("rays", 0.0, STOP), ("rays behind others", 0.5, THROUGH), ("rays over others", 0.5, OVER), ("links", 0.3, REACH),
    ("links to its like", 0.3, REACH_LIKE), ("rays where the edge is reached", 1.0, REACH_EDGE),
)  # fmt: skip
ORIGINS = (("it", 0.0), ("its middle", 0.5), ("its corner", 0.7))


def _pointed_ray(scene: Scene, k: int, sign: int) -> Array:
    """The cells of a ray from the middle of the object towards its odd cell, or away from it, without its own."""
    o = scene.objects[k]
    odd = o.values == o.rarest
    if o.colour == o.rarest:
        return NONE
    y = 2 * int(o.rows[odd].sum()) - int(odd.sum()) * (2 * o.top + o.height - 1)
    x = 2 * int(o.columns[odd].sum()) - int(odd.sum()) * (2 * o.left + o.width - 1)
    if x == 0 and y == 0:
        return NONE
    return np.unique(_rays_one_way(scene, k, (sign * int(np.sign(y)), sign * int(np.sign(x))), STOP, "its middle"))


POINTED_RAYS = (("towards", partial(_pointed_ray, sign=1)), ("away from", partial(_pointed_ray, sign=-1)))


@dataclass(frozen=True)
class Rays:
    """The cells of rays from an object, without its own."""

    fan: tuple[Step, ...]
    mode: int
    origin: str

    def __call__(self, scene: Scene, k: int) -> Array:
        def cast() -> Array:
            covered = np.zeros(scene.grid.size, np.bool_)
            for step in self.fan:
                covered[_rays_one_way(scene, k, step, self.mode, self.origin)] = True
            return np.flatnonzero(covered)

        return scene.cached((self, k), cast)


def _rays_one_way(scene: Scene, k: int, step: Step, mode: int, origin: str) -> Array:
    def cast() -> Array:
        o = scene.objects[k]
        ys, xs = o.rows, o.columns
        if origin == "its middle":
            ys = np.unique([o.top + (o.height - 1) // 2, o.top + o.height // 2])
            xs = np.unique([o.left + (o.width - 1) // 2, o.left + o.width // 2])
            ys, xs = np.repeat(ys, len(xs)), np.tile(xs, len(ys))
        elif origin == "its corner":
            ys = np.array([o.bottom - 1 if step[0] > 0 else o.top])
            xs = np.array([o.right - 1 if step[1] > 0 else o.left])
        out = np.empty(scene.grid.size * 2, np.int64)
        count = _cast_rays(scene.grid, scene.labels, k, ys, xs, step[0], step[1], mode, scene.background, o.colour, out)
        return out[:count].copy()

    return scene.cached(("one way", step, mode, origin, k), cast)


@jit
def _cast_rays(
    grid: Array, labels: Array, k: int, rows: Array, columns: Array, dy: int, dx: int, mode: int, background: int, colour: int, out: Array
) -> int:
    """Write the cells of the rays that start at some cells into `out`; returns their number."""
    h, w = grid.shape
    count = 0
    for r in range(rows.size):
        y, x = rows[r] + dy, columns[r] + dx
        if 0 <= y < h and 0 <= x < w and labels[y, x] == k:
            continue
        begin = count
        met = -1
        while 0 <= y < h and 0 <= x < w and count < out.size:
            if grid[y, x] == background or mode == OVER:
                if labels[y, x] != k or mode != OVER:
                    out[count] = y * w + x
                    count += 1
            elif mode != THROUGH:
                met = grid[y, x]
                break
            y += dy
            x += dx
        if (
            (mode == REACH and met < 0)
            or (mode == REACH_LIKE and met != colour)
            or (mode == REACH_EDGE and met >= 0)
            or (mode >= REACH_COLOUR and met != mode - REACH_COLOUR)
        ):
            count = begin
    return count
