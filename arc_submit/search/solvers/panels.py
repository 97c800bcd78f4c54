"""Outputs that are one panel of the input: the one that differs from the others, or that a property singles out.

A panel is a rectangle between lines of one colour, or one of equal parts of the grid. The panels are the objects of a scene, and the rules
those of objects/selection.py with more traits. This module does not know what is between panels.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.features import mirror_code
from arc_submit.search.grid_tools import (
    Span,
    bounding_box,
    commonest_colour,
    find_panels,
    find_unequal_panels,
    inputs_of,
    keeps_size,
    label_objects,
    oriented,
)
from arc_submit.search.primitives.lists import hole_count
from arc_submit.search.solvers.objects.scenes import MAX_OBJECTS, Scene, Segmentation, scene_of
from arc_submit.search.solvers.objects.selection import EvaluatedRule, answers_of, evaluate_rules
from arc_submit.search.solvers.objects.traits import count_equal, count_lower
from arc_submit.search.store import Array

NAME = "panels"
MAX_EQUAL = 6  # equal parts along a side
Spans = tuple[list[Span], list[Span]]  # of the panels' rows and columns


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the cheapest rules that reproduce every train pair."""
    if keeps_size(task) or all((pair.output == pair.output[0, 0]).all() for pair in task.train):
        return []
    found: list[EvaluatedRule] = []
    for segmentation in panel_scenes(inputs_of(task), [pair.output for pair in task.train]):
        found += evaluate_rules(task, segmentation, panel_traits)
    return [replace(answer, solver=NAME) for answer in answers_of(task, found)]


def panel_scenes(grids: list[Grid], outputs: list[Grid]) -> Iterator[Segmentation]:
    """Every way to divide all grids into at least two panels, at most MAX_OBJECTS, the plainest first."""
    for name, cost, spans_of in _ways(grids, outputs):
        scenes = []
        for grid in grids:
            spans = spans_of(grid)
            if spans is None or not 1 < len(spans[0]) * len(spans[1]) <= MAX_OBJECTS:
                break
            scenes.append(_scene(grid, spans))
        if len(scenes) == len(grids):
            yield Segmentation(name, cost, tuple(scenes))


def _ways(grids: list[Grid], outputs: list[Grid]) -> Iterator[tuple[str, float, Callable[[Grid], Spans | None]]]:
    """(Name, cost, function) of the ways to divide a grid."""
    yield "panel", 0.0, _between_lines
    yield "panel of any size", 0.5, find_unequal_panels
    yield "square", 0.5, _squares
    for rows, columns in itertools.product(range(1, MAX_EQUAL + 1), repeat=2):
        parts = [_equal_parts(grid, rows, columns) for grid in grids] if rows * columns > 1 else [None]
        if all(p is not None and _size(p) == out.shape for p, out in zip(parts, outputs, strict=False)):
            yield "part", 0.5, partial(_equal_parts, rows=rows, columns=columns)
    thickness = min(min(out.shape) for out in outputs)
    if thickness > 1 and all(thickness in out.shape for out in outputs):
        yield "strip", 0.5, partial(_strips, thickness=thickness)


def _size(spans: Spans) -> tuple[int, int]:
    return spans[0][0][1] - spans[0][0][0], spans[1][0][1] - spans[1][0][0]


def _between_lines(grid: Grid) -> Spans | None:
    found = find_panels(grid)
    return None if found is None else (found[0], found[1])


def _squares(grid: Grid) -> Spans | None:
    side = min(grid.shape)
    return None if max(grid.shape) % side else _equal_parts(grid, grid.shape[0] // side, grid.shape[1] // side)


def _strips(grid: Grid, thickness: int) -> Spans | None:
    """Strips across the longer side that has room for some."""
    h, w = grid.shape
    down, across = h % thickness == 0, w % thickness == 0
    if down and (h > w or not across):
        return _equal_parts(grid, h // thickness, 1)
    return _equal_parts(grid, 1, w // thickness) if across else None


def _equal_parts(grid: Grid, rows: int, columns: int) -> Spans | None:
    """Parts side by side, or with one cell between them."""
    sides = []
    for length, parts in zip(grid.shape, (rows, columns), strict=True):
        gap = 0 if length % parts == 0 else 1
        side, rest = divmod(length - gap * (parts - 1), parts)
        if rest or side < 1:
            return None
        sides.append([(k * (side + gap), k * (side + gap) + side) for k in range(parts)])
    return sides[0], sides[1]


def _scene(grid: Grid, spans: Spans) -> Scene:
    labels = np.full(grid.shape, -1, np.int64)
    for number, (row, column) in enumerate((row, column) for row in spans[0] for column in spans[1]):
        labels[slice(*row), slice(*column)] = number
    return scene_of(grid, COLOURS, labels, len(spans[0]) * len(spans[1]))


def panel_traits(scene: Scene) -> dict[str, Array]:
    """int64 (panels,) for each trait of what is painted in a panel; the colour that most cells of all panels have is not painted."""
    pictures = [scene.grid[o.box] for o in scene.objects]
    ground = 0 if any((p == 0).any() for p in pictures) else commonest_colour(np.concatenate([p.ravel() for p in pictures]))
    masks = [np.asarray(p != ground) for p in pictures]
    painted = np.array([int(mask.sum()) for mask in masks])
    shapes = [_cut(mask) for mask in masks]
    boxes = [shape.size for shape in shapes]
    out = {
        "equal panels": _repeats([p.tobytes() for p in pictures]),
        "painted cells": painted,
        "more painted panels": count_lower(-painted),
        "less painted panels": count_lower(painted),
        "equally painted panels": _repeats([mask.tobytes() for mask in masks]),
        "equally turned panels": _repeats([min(oriented(p, k).tobytes() for k in range(8)) for p in pictures]),
        "panels of its painted shape": _repeats([bytes(shape.shape) + shape.tobytes() for shape in shapes]),
        "panels with as many painted cells": count_equal(painted),
        "painted colours": np.array([len(np.unique(p[mask])) for p, mask in zip(pictures, masks, strict=True)]),
        "parts": np.array([label_objects(p, ground, True, True)[1] for p in pictures]),
        "parts joined by sides": np.array([label_objects(p, ground, False, True)[1] for p in pictures]),
        "holes": np.array([hole_count(mask.astype(np.int8)) for mask in masks]),
        "mirror": np.array([mirror_code(p) for p in pictures]),
        "own mirror image": np.array([mirror_code(p) > 0 for p in pictures]),
        "own transpose": np.array([_is_transpose(p) for p in pictures]),
        "mirror of the shape": np.array([mirror_code(shape) if shape.size else 0 for shape in shapes]),
        "full box": np.array([n == size for n, size in zip(painted, boxes, strict=True)]),
        "empty": painted == 0,
    }
    out["symmetric"] = out["own mirror image"] | out["own transpose"]
    for name in ("painted colours", "parts", "holes"):
        out[f"panels with more {name}"] = count_lower(-out[name])
        out[f"panels with fewer {name}"] = count_lower(out[name])
        out[f"panels with as many {name}"] = count_equal(out[name])
    return {name: np.asarray(values, np.int64) for name, values in out.items()}


def _cut(mask: Array) -> Array:
    box = bounding_box(mask)
    return mask[:0, :0] if box is None else mask[box]


def _repeats(keys: Sequence[bytes]) -> Array:
    """For each key the number of equal ones, itself among them."""
    counts = Counter(keys)
    return np.array([counts[key] for key in keys])


def _is_transpose(picture: Grid) -> bool:
    if picture.shape[0] != picture.shape[1]:
        return False
    return bool((picture == picture.T).all() or (picture == picture[::-1, ::-1].T).all())
