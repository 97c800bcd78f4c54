"""Traits: small integers that say what an object is like, alone and among the objects of its scene, and the tests made from them.

Knows nothing about actions and outputs. Traits come in the order of how plain they are: a rule takes the first of equally good tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.primitives.lists import hole_count
from arc_submit.search.solvers.objects.scenes import Object, Scene
from arc_submit.search.store import Array

# Values of these only name something: they are tested for equality alone.
NOMINAL = ("colour", "rarest colour")
# Where an object is among the others is seldom what a rule is about.
PLACES = ("above it", "below it", "left of it", "right of it")
MAX_TESTS = 400


@dataclass(frozen=True)
class Tests:
    """Yes-or-no questions about the objects of all scenes of a task.

    Attributes:
        names: in readable form; the first test is passed by all.
        costs: float (tests,).
        passed: bool (tests, objects), the objects of all scenes one after the other.
    """

    names: tuple[str, ...]
    costs: Array
    passed: Array


def traits(scene: Scene) -> dict[str, Array]:
    """int64 (objects,) for each trait, plainest first."""
    objects = scene.objects
    h, w = scene.grid.shape
    out: dict[str, Array] = {}

    def put(name: str, values: Sequence[int] | Array) -> None:
        out[name] = np.asarray(values, np.int64)

    put("colour", [o.colour for o in objects])
    put("area", [o.area for o in objects])
    put("larger ones", _rank(-out["area"]))
    put("smaller ones", _rank(out["area"]))
    put("height", [o.height for o in objects])
    put("width", [o.width for o in objects])
    put("colours", [int((o.counts > 0).sum()) for o in objects])
    put("of its colour", _like(out["colour"]))
    put("of its area", _like(out["area"]))
    shapes = [_shape_id(o) for o in objects]
    put("of its shape", [sum(a[0] == b[0] for b in shapes) for a in shapes])
    put("of its turned shape", [sum(a[1] == b[1] for b in shapes) for a in shapes])
    put("full", [o.area == o.height * o.width for o in objects])
    put("line", [min(o.height, o.width) == 1 for o in objects])
    put("square", [o.height == o.width for o in objects])
    put("holes", [hole_count(o.mask.astype(np.int8)) for o in objects])
    put("at top", [o.top == 0 for o in objects])
    put("at bottom", [o.top + o.height == h for o in objects])
    put("at left", [o.left == 0 for o in objects])
    put("at right", [o.left + o.width == w for o in objects])
    put("at edge", out["at top"] | out["at bottom"] | out["at left"] | out["at right"])
    put("mirrored left-right", [bool((o.mask == o.mask[:, ::-1]).all()) for o in objects])
    put("mirrored up-down", [bool((o.mask == o.mask[::-1]).all()) for o in objects])
    put("symmetric", out["mirrored left-right"] | out["mirrored up-down"])
    put("picture mirrored left-right", [bool((o.picture == o.picture[:, ::-1]).all()) for o in objects])
    put("above it", _rank(np.array([o.top for o in objects])))
    put("below it", _rank(np.array([-o.top - o.height for o in objects])))
    put("left of it", _rank(np.array([o.left for o in objects])))
    put("right of it", _rank(np.array([-o.left - o.width for o in objects])))
    put("rarest colour", [o.rarest for o in objects])
    put("touched", _touching(scene))
    boxes = np.array([(o.top, o.left, o.top + o.height, o.left + o.width) for o in objects])
    within = (boxes[:, None, :2] >= boxes[None, :, :2]).all(axis=2) & (boxes[:, None, 2:] <= boxes[None, :, 2:]).all(axis=2)
    put("boxes around", within.sum(axis=1) - 1)
    put("boxes within", within.sum(axis=0) - 1)
    put("taller ones", _rank(-out["height"]))
    put("wider ones", _rank(-out["width"]))
    put("longest side", np.maximum(out["height"], out["width"]))
    put("larger boxes", _rank(-out["height"] * out["width"]))
    put("more colours", _rank(-out["colours"]))
    put("cells of rarest colour", [int(o.counts[o.rarest]) for o in objects])
    put("more cells of rarest colour", _rank(-out["cells of rarest colour"]))
    put("more holes", _rank(-out["holes"]))
    put("odd area", out["area"] % 2)
    put("taller than wide", np.sign(out["height"] - out["width"]) + 1)
    cells = np.bincount(scene.grid.ravel(), minlength=COLOURS)
    put("cells of its colour", cells[out["colour"]])
    put("commoner colours", [len({int(c) for c in out["colour"] if cells[c] > cells[own]}) for own in out["colour"]])
    put("rarer colours", [len({int(c) for c in out["colour"] if cells[c] < cells[own]}) for own in out["colour"]])
    put("missing from its box", out["height"] * out["width"] - out["area"])
    put("rows shared", _overlap(boxes[:, 0], boxes[:, 2]))
    put("columns shared", _overlap(boxes[:, 1], boxes[:, 3]))
    put("largest area of its colour", [max(out["area"][out["colour"] == c]) for c in out["colour"]])
    put(
        "larger ones of its colour",
        [int(((out["colour"] == c) & (out["area"] > a)).sum()) for c, a in zip(out["colour"], out["area"], strict=True)],
    )
    put("other colours' cells in its box", [_foreign(scene, k) for k in range(len(objects))])
    put("more of other colours in the box", _rank(-out["other colours' cells in its box"]))
    put("more of its shape", _rank(-out["of its turned shape"]))
    put("more of its colour", _rank(-out["of its colour"]))
    put("objects", np.full(len(objects), len(objects)))
    return out


def make_tests(scenes: Sequence[Scene], train: int) -> Tests:
    """All tests whose answer is not the same for every object, plainest first, those with equal answers once.

    Args:
        train: how many of the scenes are of train pairs; thresholds are taken from these.
    """
    tables = [traits(scene) for scene in scenes]
    known = sum(len(scene.objects) for scene in scenes[:train])
    total = sum(len(scene.objects) for scene in scenes)
    names, costs, rows = ["every"], [0.0], [np.ones(total, np.bool_)]
    seen = {rows[0].tobytes()}
    for number, name in enumerate(tables[0]):
        values = np.concatenate([table[name] for table in tables])
        levels = np.unique(values[:known])[:12]
        binary = len(levels) == 2
        options = [(f"{name} = {v}", 0.0, values == v) for v in levels]
        if name not in NOMINAL and not binary:
            options += [(f"{name} > {v}", 0.5, values > v) for v in levels[:-1]] + [
                (f"{name} <= {v}", 0.5, values <= v) for v in levels[:-1]
            ]
        if not binary:
            options += [(f"{name} != {v}", 0.7, values != v) for v in levels]
        for text, cost, row in options:
            key = row.tobytes()
            if key not in seen and row[:known].any() and len(names) < MAX_TESTS:
                seen.add(key)
                names.append(text)
                costs.append(2.0 + cost + 0.08 * number + (1.5 if name in PLACES else 0.0))
                rows.append(row)
    return Tests(tuple(names), np.array(costs), np.stack(rows))


def _rank(values: Array) -> Array:
    """For each how many are strictly lower."""
    return np.asarray((values[None, :] < values[:, None]).sum(axis=1))


def _like(values: Array) -> Array:
    return np.asarray((values[None, :] == values[:, None]).sum(axis=1))


def _overlap(begin: Array, end: Array) -> Array:
    shared = (begin[:, None] < end[None, :]) & (begin[None, :] < end[:, None])
    return np.asarray(shared.sum(axis=1) - 1)


def _shape_id(o: Object) -> tuple[bytes, bytes]:
    """A key of the shape, and one that all its turned and mirrored copies share."""
    keys = []
    for mask in (o.mask, o.mask.T):
        for turned in (mask, mask[::-1], mask[:, ::-1], mask[::-1, ::-1]):
            keys.append(bytes(turned.shape) + turned.tobytes())
    return keys[0], min(keys)


def _foreign(scene: Scene, k: int) -> int:
    o = scene.objects[k]
    box = scene.grid[o.top : o.top + o.height, o.left : o.left + o.width]
    return int(((box != o.colour) & (box != scene.background)).sum())


def _touching(scene: Scene) -> Array:
    """How many other objects have a cell beside or diagonally beside one of its own."""
    labels = scene.labels
    n = len(scene.objects)
    pairs = np.zeros((n, n), np.bool_)
    h, w = labels.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = labels[: h - dy, max(0, -dx) : w - max(0, dx)]
        b = labels[dy:, max(0, dx) : w + min(0, dx)]
        both = (a >= 0) & (b >= 0) & (a != b)
        pairs[a[both], b[both]] = True
        pairs[b[both], a[both]] = True
    return np.asarray(pairs.sum(axis=1))
