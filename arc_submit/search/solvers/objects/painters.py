"""Colours to paint with: a painter chooses one for an object by what the input's scene shows.

Does not know what is painted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.grid_tools import label_objects, rarest_index
from arc_submit.search.solvers.objects.effects import DIRECTIONS, SIDES, Changes, Painter, shifted, slide
from arc_submit.search.solvers.objects.scenes import Scene
from arc_submit.search.store import Array


def painters(changes: Changes) -> Iterator[Painter]:
    """All painters that the outputs' changes can need, the plainest first."""
    yield Painter("its colour", 0.0, lambda scene, k: scene.objects[k].colour)
    for colour in changes.colours:
        yield Painter(f"{colour}", 0.0, partial(_constant, colour=colour))
    yield Painter("its rarest colour", 0.5, lambda scene, k: scene.objects[k].rarest)
    yield Painter("the colour of what it touches", 1.5, _colour_of_touched)
    yield Painter("the colour nearest to it", 1.5, _colour_of_nearest)
    yield Painter("the colour of what its box holds", 1.5, _colour_within)
    yield Painter("the colour of what lies around it", 1.5, _colour_around)
    yield Painter("the colour of its shape elsewhere", 2.0, _colour_of_its_shape)
    yield Painter("the colour of the largest", 2.0, partial(_colour_of_extreme, extreme=max))
    yield Painter("the colour of the smallest", 2.0, partial(_colour_of_extreme, extreme=min))
    yield Painter("the colour after its own in a pair", 2.0, partial(_colour_of_partner, after=True))
    yield Painter("the colour before its own in a pair", 2.0, partial(_colour_of_partner, after=False))
    for name, (dy, dx) in SIDES.items():
        yield Painter(f"the colour seen {name}", 2.0, partial(_colour_seen, dy=dy, dx=dx))
    yield Painter("the colour of the upper left corner", 3.0, lambda scene, k: int(scene.grid[0, 0]))
    yield Painter("the commonest colour painted", 3.0, partial(_commonest_painted, rarest=False))
    yield Painter("the rarest colour painted", 3.0, partial(_commonest_painted, rarest=True))


def _constant(scene: Scene, k: int, colour: int) -> int:
    return colour


def _only(colours: set[int]) -> int | None:
    return colours.pop() if len(colours) == 1 else None


def _colour_of_extreme(scene: Scene, k: int, extreme: Callable[[list[int]], int]) -> int | None:
    """The colour of the one largest or smallest object, where that is another one."""
    areas = [o.area for o in scene.objects]
    best = extreme(areas)
    return None if areas.count(best) > 1 or areas[k] == best else scene.objects[areas.index(best)].colour


def _other_colour(scene: Scene, k: int, rows: Array, columns: Array) -> int | None:
    """The only colour at some places besides the object and the background."""
    inside = scene.inside(rows, columns)
    places = rows[inside], columns[inside]
    return _only(set(scene.grid[places][scene.labels[places] != k].tolist()) - {scene.background})


def _colour_of_touched(scene: Scene, k: int) -> int | None:
    return _other_colour(scene, k, *shifted(scene.objects[k], DIRECTIONS))


def gaps_between(scene: Scene) -> Array:
    """int64 (objects, objects): the distance between the boxes of two objects, rows plus columns."""

    def compute() -> Array:
        box = np.array([(o.top, o.left, o.bottom, o.right) for o in scene.objects])
        down = np.maximum(box[:, None, 0] - box[None, :, 2], box[None, :, 0] - box[:, None, 2])
        across = np.maximum(box[:, None, 1] - box[None, :, 3], box[None, :, 1] - box[:, None, 3])
        return np.asarray(np.maximum(down, 0) + np.maximum(across, 0))

    return scene.cached("gaps", compute)


def _colour_of_nearest(scene: Scene, k: int) -> int | None:
    """The colour of the nearest objects of another colour."""
    colours = np.array([o.colour for o in scene.objects])
    gaps = gaps_between(scene)[k][colours != colours[k]]
    nearest = colours[colours != colours[k]][gaps == gaps.min()] if gaps.size else gaps
    return _only(set(nearest.tolist()))


def _colour_within(scene: Scene, k: int) -> int | None:
    box = scene.objects[k].box
    return _only(set(scene.grid[box][scene.labels[box] != k].tolist()) - {scene.background})


def _colour_around(scene: Scene, k: int) -> int | None:
    """The colour of the smallest object whose box contains this object's."""
    o = scene.objects[k]
    holders = [
        p
        for j, p in enumerate(scene.objects)
        if j != k and p.top <= o.top and p.left <= o.left and p.bottom >= o.bottom and p.right >= o.right
    ]
    return min(holders, key=lambda p: p.height * p.width).colour if holders else None


def _colour_of_its_shape(scene: Scene, k: int) -> int | None:
    o = scene.objects[k]
    colours = {p.colour for p in scene.objects if p.mask.shape == o.mask.shape and (p.mask == o.mask).all()}
    return _only(colours - {o.colour})


def _colour_seen(scene: Scene, k: int, dy: int, dx: int) -> int | None:
    """The colour of the first cell that the object meets when it moves in a direction."""
    steps, met = slide(scene, k, dy, dx)
    if met < 0:
        return None
    o = scene.objects[k]
    return _other_colour(scene, k, o.rows + dy * (steps + 1), o.columns + dx * (steps + 1))


def _colour_of_partner(scene: Scene, k: int, after: bool) -> int | None:
    """The colour beside the object's colour in isolated pairs of cells."""

    def pairs_of_cells() -> Array:
        labels, count = label_objects(scene.grid, scene.background, True, False)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        ys, xs = np.nonzero((sizes[labels] == 2) & (labels > 0))
        order = np.argsort(labels[ys, xs], kind="stable")
        return scene.grid[ys, xs][order].reshape(-1, 2)

    pairs = scene.cached("pairs", pairs_of_cells)
    colour = scene.objects[k].colour
    return _only({int(c) for c in pairs[pairs[:, 1 - after] == colour, int(after)]} - {colour})


def _commonest_painted(scene: Scene, k: int, rarest: bool) -> int | None:
    counts = np.bincount(scene.grid.ravel(), minlength=COLOURS + 1)
    counts[scene.background] = 0
    if not counts.any():
        return None
    return int(rarest_index(counts) if rarest else counts.argmax())
