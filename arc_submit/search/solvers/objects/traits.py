"""Traits: integers that describe an object, alone and among the objects of its scene, and the tests derived from them.

This module does not know actions or outputs. The plainest traits come first, because a rule takes the first of equally good tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.features import mirror_code
from arc_submit.search.primitives.lists import hole_count
from arc_submit.search.solvers.objects.scenes import Object, Scene, Segmentation
from arc_submit.search.store import Array

NOMINAL = ("colour", "rarest colour")  # tested for equality only
PLACES = ("above it", "below it", "left of it", "right of it")  # rules seldom depend on the order of objects in the grid
MAX_TESTS = 400
FURTHER_COST = 4.0  # of the first of further traits


@dataclass(frozen=True)
class ObjectTests:
    """Boolean tests of the objects of all scenes of a task.

    Attributes:
        names: in readable form; every object passes the first test.
        costs: float64 (tests,).
        passed: bool (tests, objects), the objects of all scenes, concatenated.
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
    put("larger ones", count_lower(-out["area"]))
    put("smaller ones", count_lower(out["area"]))
    put("height", [o.height for o in objects])
    put("width", [o.width for o in objects])
    put("colours", [o.colour_count for o in objects])
    put("of its colour", count_equal(out["colour"]))
    put("of its area", count_equal(out["area"]))
    shapes = [_shape_id(o) for o in objects]
    put("of its shape", [sum(a[0] == b[0] for b in shapes) for a in shapes])
    put("of its turned shape", [sum(a[1] == b[1] for b in shapes) for a in shapes])
    put("full", [o.area == o.height * o.width for o in objects])
    put("line", [min(o.height, o.width) == 1 for o in objects])
    put("square", [o.height == o.width for o in objects])
    put("holes", [hole_count(o.mask.astype(np.int8)) for o in objects])
    put("at top", [o.top == 0 for o in objects])
    put("at bottom", [o.bottom == h for o in objects])
    put("at left", [o.left == 0 for o in objects])
    put("at right", [o.right == w for o in objects])
    put("at edge", out["at top"] | out["at bottom"] | out["at left"] | out["at right"])
    put("mirrored left-right", [mirror_code(o.mask) & 1 for o in objects])
    put("mirrored up-down", [mirror_code(o.mask) >> 1 for o in objects])
    put("symmetric", out["mirrored left-right"] | out["mirrored up-down"])
    put("picture mirrored left-right", [mirror_code(o.picture) & 1 for o in objects])
    boxes = np.array([(o.top, o.left, o.bottom, o.right) for o in objects])
    put("above it", count_lower(boxes[:, 0]))
    put("below it", count_lower(-boxes[:, 2]))
    put("left of it", count_lower(boxes[:, 1]))
    put("right of it", count_lower(-boxes[:, 3]))
    put("rarest colour", [o.rarest for o in objects])
    put("touched", touching(scene).sum(axis=1))
    within = (boxes[:, None, :2] >= boxes[None, :, :2]).all(axis=2) & (boxes[:, None, 2:] <= boxes[None, :, 2:]).all(axis=2)
    put("boxes around", within.sum(axis=1) - 1)
    put("boxes within", within.sum(axis=0) - 1)
    put("taller ones", count_lower(-out["height"]))
    put("wider ones", count_lower(-out["width"]))
    put("longest side", np.maximum(out["height"], out["width"]))
    put("larger boxes", count_lower(-out["height"] * out["width"]))
    put("more colours", count_lower(-out["colours"]))
    put("cells of rarest colour", [int(o.counts[o.rarest]) for o in objects])
    put("more cells of rarest colour", count_lower(-out["cells of rarest colour"]))
    put("more holes", count_lower(-out["holes"]))
    put("odd area", out["area"] % 2)
    put("taller than wide", np.sign(out["height"] - out["width"]) + 1)
    cells = np.bincount(scene.grid.ravel(), minlength=COLOURS)
    put("cells of its colour", cells[out["colour"]])
    put("commoner colours", [len({int(c) for c in out["colour"] if cells[c] > cells[own]}) for own in out["colour"]])
    put("rarer colours", [len({int(c) for c in out["colour"] if cells[c] < cells[own]}) for own in out["colour"]])
    put("missing from its box", out["height"] * out["width"] - out["area"])
    put("rows shared", _overlap(boxes[:, 0], boxes[:, 2]))
    put("columns shared", _overlap(boxes[:, 1], boxes[:, 3]))
    same_colour = out["colour"][:, None] == out["colour"][None, :]
    put("largest area of its colour", np.where(same_colour, out["area"][None, :], 0).max(axis=1))
    put("larger ones of its colour", (same_colour & (out["area"][None, :] > out["area"][:, None])).sum(axis=1))
    put("other colours' cells in its box", [_foreign_cells(scene, o) for o in objects])
    put("more of other colours in the box", count_lower(-out["other colours' cells in its box"]))
    put("more of its shape", count_lower(-out["of its turned shape"]))
    put("more of its colour", count_lower(-out["of its colour"]))
    put("objects", np.full(len(objects), len(objects)))
    return out


def make_tests(segmentation: Segmentation, train: int, further: Callable[[Scene], dict[str, Array]] | None = None) -> ObjectTests:
    """All tests whose result differs between objects, plainest first, without duplicates.

    Args:
        train: the number of train scenes, which determine the thresholds.
        further: more traits, whose tests cost more and come after those of `traits`.
    """
    names, costs, rows = ["every"], [0.0], [np.ones(segmentation.starts()[-1], np.bool_)]
    seen = {rows[0].tobytes()}
    known = segmentation.starts()[train]
    for extra, traits_of in enumerate((traits, further)):
        if traits_of is None:
            continue
        tables = [traits_of(scene) for scene in segmentation.scenes]
        for number, name in enumerate(tables[0]):
            base = 2.0 + 0.08 * number + (1.5 if name in PLACES else 0.0) if extra == 0 else FURTHER_COST + 0.01 * number
            for text, cost, row in _options(name, np.concatenate([table[name] for table in tables]), known):
                key = row.tobytes()
                if key not in seen and row[:known].any() and len(names) < MAX_TESTS * (1 + extra):
                    seen.add(key)
                    names.append(text)
                    costs.append(base + cost)
                    rows.append(row)
    return ObjectTests(tuple(names), np.array(costs), np.stack(rows))


def _options(name: str, values: Array, known: int) -> list[tuple[str, float, Array]]:
    """(Text, cost, objects that pass) of the tests of one trait; the values of the first `known` objects are the thresholds."""
    levels = np.unique(values[:known])[:12]
    binary = len(levels) == 2
    options = [(f"{name} = {v}", 0.0, values == v) for v in levels]
    if name not in NOMINAL and not binary:
        options += [(f"{name} > {v}", 0.5, values > v) for v in levels[:-1]]
        options += [(f"{name} <= {v}", 0.5, values <= v) for v in levels[:-1]]
    if not binary:
        options += [(f"{name} != {v}", 0.7, values != v) for v in levels]
    return options


def count_lower(values: Array) -> Array:
    """For each value the number of strictly lower ones."""
    return np.asarray((values[None, :] < values[:, None]).sum(axis=1))


def count_equal(values: Array) -> Array:
    """For each value the number of equal ones, itself among them."""
    return np.asarray((values[None, :] == values[:, None]).sum(axis=1))


def _overlap(begin: Array, end: Array) -> Array:
    """For each interval the number of others that it overlaps."""
    shared = (begin[:, None] < end[None, :]) & (begin[None, :] < end[:, None])
    return np.asarray(shared.sum(axis=1) - 1)


def _shape_id(o: Object) -> tuple[bytes, bytes]:
    """A key of the shape, and a key that all its turned and mirrored copies share."""
    keys = []
    for mask in (o.mask, o.mask.T):
        for turned in (mask, mask[::-1], mask[:, ::-1], mask[::-1, ::-1]):
            keys.append(bytes(turned.shape) + turned.tobytes())
    return keys[0], min(keys)


def _foreign_cells(scene: Scene, o: Object) -> int:
    """The number of cells in the box of other colours than the object's and the background."""
    box = scene.grid[o.box]
    return int(((box != o.colour) & (box != scene.background)).sum())


def touching(scene: Scene) -> Array:
    """bool (objects, objects): a cell of one is among the 8 neighbours of a cell of the other."""
    labels, n = scene.labels, len(scene.objects)
    table = np.zeros((n, n), np.bool_)
    h, w = labels.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = labels[: h - dy, max(0, -dx) : w - max(0, dx)]
        b = labels[dy:, max(0, dx) : w + min(0, dx)]
        both = (a >= 0) & (b >= 0) & (a != b)
        table[a[both], b[both]] = table[b[both], a[both]] = True
    return table
