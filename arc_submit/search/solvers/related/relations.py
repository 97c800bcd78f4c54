"""Relations between the objects of a scene, and references: objects that a property singles out among all others of their scene.

A relation is a table "object i stands so to object j". This module does not know rules or outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.grid_tools import oriented
from arc_submit.search.primitives.region import enclosed
from arc_submit.search.solvers.objects.painters import gaps_between
from arc_submit.search.solvers.objects.scenes import Object, Scene
from arc_submit.search.solvers.objects.traits import touching
from arc_submit.search.store import Array

MAX_SHAPE = 400  # cells of a box whose shape is compared up to turns and scale
RELATIONS = ("touches", "encloses", "is enclosed by", "holds", "lies in", "shares rows with", "shares columns with", "is nearest to",
             "has the shape of", "has the turned shape of", "has the scaled shape of", "has the size of", "has the colour of",
             "shares a colour with")  # fmt: skip


def related(scene: Scene, relation: str) -> Array:
    """bool (objects, objects): whether object i stands in the relation to object j; never to itself."""

    def compute() -> Array:
        table = _TABLES[relation](scene)
        np.fill_diagonal(table, False)
        return table

    return scene.cached(f"related {relation}", compute)


def _boxes(scene: Scene) -> Array:
    """int64 (objects, 4): top, left, bottom, right of each object."""
    return scene.cached("boxes", lambda: np.array([(o.top, o.left, o.bottom, o.right) for o in scene.objects]))


def _holding(scene: Scene) -> Array:
    box = _boxes(scene)
    inside = (box[None, :, :2] >= box[:, None, :2]).all(axis=2) & (box[None, :, 2:] <= box[:, None, 2:]).all(axis=2)
    return np.asarray(inside & ~inside.T)


def _enclosing(scene: Scene) -> Array:
    """All cells of one object are in a hole of the other."""
    n = len(scene.objects)
    areas = np.array([o.area for o in scene.objects])
    table = np.zeros((n, n), np.bool_)
    for k, o in enumerate(scene.objects):
        holes = enclosed(o.mask.astype(np.int8), False).astype(np.bool_)
        inside = scene.labels[o.box][holes]
        table[k] = (np.bincount(inside[inside >= 0], minlength=n) == areas) if len(inside) else False
    return table


def _sharing(scene: Scene, axis: int) -> Array:
    box = _boxes(scene)
    begin, end = box[:, axis], box[:, axis + 2]
    return np.asarray((begin[:, None] < end[None, :]) & (begin[None, :] < end[:, None]))


def _sharing_colours(scene: Scene) -> Array:
    shown = np.array([o.counts > 0 for o in scene.objects]).astype(np.int64)
    return np.asarray(shown @ shown.T > 0)


def _nearest(scene: Scene) -> Array:
    gaps = gaps_between(scene) + 0
    np.fill_diagonal(gaps, 10**6)
    return np.asarray(gaps == gaps.min(axis=1, keepdims=True))


def _equal(key: Callable[[Object], object]) -> Callable[[Scene], Array]:
    def table(scene: Scene) -> Array:
        numbers: dict[object, int] = {}
        keys = np.array([numbers.setdefault(key(o), len(numbers)) for o in scene.objects])
        return np.asarray(keys[:, None] == keys[None, :])

    return table


def shape_key(o: Object) -> bytes:
    """Equal for objects of one shape."""
    return bytes(o.mask.shape) + o.mask.tobytes()


def turned_key(o: Object) -> bytes:
    """Equal for objects of one shape up to turns and mirrors."""
    return _least_turned(o.mask)


def scaled_key(o: Object) -> bytes:
    """Equal for objects of one shape up to turns, mirrors and scale."""
    mask, area = o.mask, int(o.area)
    for scale in range(min(mask.shape), 1, -1):
        small = mask[::scale, ::scale]
        whole = mask.shape[0] % scale == 0 and mask.shape[1] % scale == 0 and area == int(small.sum()) * scale * scale
        if whole and (np.kron(small, np.ones((scale, scale), np.bool_)) == mask).all():
            return _least_turned(small)
    return _least_turned(mask)


def _least_turned(mask: Array) -> bytes:
    if mask.size > MAX_SHAPE:
        return bytes(mask.shape) + mask.tobytes()
    turned = [oriented(mask, k) for k in range(8)]
    return min(bytes(one.shape) + one.tobytes() for one in turned)


_TABLES: dict[str, Callable[[Scene], Array]] = {
    "touches": touching,
    "encloses": _enclosing,
    "is enclosed by": lambda scene: _enclosing(scene).T.copy(),
    "holds": _holding,
    "lies in": lambda scene: _holding(scene).T.copy(),
    "shares rows with": lambda scene: _sharing(scene, 0),
    "shares columns with": lambda scene: _sharing(scene, 1),
    "is nearest to": _nearest,
    "has the shape of": _equal(shape_key),
    "has the turned shape of": _equal(turned_key),
    "has the scaled shape of": _equal(scaled_key),
    "has the size of": _equal(lambda o: (o.height, o.width)),
    "has the colour of": _equal(lambda o: o.colour),
    "shares a colour with": _sharing_colours,
}


# --- References --------------------------------------------------------------------------------------------------------------------------


def reference(scene: Scene, name: str) -> int:
    """The index of the object that a reference names, -1 where the scene has none or several."""
    return int(scene.cached("references", lambda: _find_references(scene))[_PLACES[name]])


def _find_references(scene: Scene) -> Array:
    objects = scene.objects
    areas = [o.area for o in objects]
    colours = [o.colour for o in objects]
    shapes = [turned_key(o) for o in objects]
    several = [o.colour_count for o in objects]
    enclosing, holding = related(scene, "encloses"), related(scene, "holds")
    held = holding.sum(axis=1).tolist()
    found = [
        _single([a == max(areas) for a in areas]),
        _single([a == min(areas) for a in areas]),
        _single([colours.count(c) == 1 for c in colours]),
        _single([shapes.count(s) == 1 for s in shapes]),
        _single([n == max(several) > min(several) for n in several]),
        _single([n == max(held) > min(held) for n in held]),
        _single([o.top == 0 and o.left == 0 for o in objects]),
        _single([n > 0 for n in enclosing.sum(axis=0).tolist()]),
        _single([n > 0 for n in enclosing.sum(axis=1).tolist()]),
        _single([n > 0 for n in holding.sum(axis=0).tolist()]),
        _single([n > 0 for n in holding.sum(axis=1).tolist()]),
    ]
    found += [_single([c == colour for c in colours]) for colour in range(COLOURS)]
    return np.array(found)


def larger_one(scene: Scene, k: int, relation: str) -> int:
    """The index of the only larger object to which object k stands in a relation, -1 where there is none or several."""
    area = scene.objects[k].area
    others = [j for j in np.flatnonzero(related(scene, relation)[k]).tolist() if scene.objects[j].area > area]
    return others[0] if len(others) == 1 else -1


REFERENCES = (
    "the largest",
    "the smallest",
    "the one of its own colour",
    "the one of its own shape",
    "the one with most colours",
    "the one that holds most",
    "the one in the corner",
    "the one that is enclosed",
    "the one that encloses others",
    "the one that lies in another",
    "the one that holds others",
    *(f"the one of colour {c}" for c in range(COLOURS)),
)
_PLACES = {name: place for place, name in enumerate(REFERENCES)}


def _single(marked: list[bool]) -> int:
    return marked.index(True) if marked.count(True) == 1 else -1
