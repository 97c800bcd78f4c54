"""Rules for outputs that summarise a scene: the colours of some objects in an order, or a picture that depends on their number.

This module does not know changes of objects; every rule is evaluated on all train pairs, see selection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, grid_id, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import inputs_of, keeps_size
from arc_submit.search.solvers.objects.scenes import Segmentation, segmentations
from arc_submit.search.solvers.objects.selection import EvaluatedRule, answers_of
from arc_submit.search.solvers.objects.traits import make_tests, traits
from arc_submit.search.store import Array

ORDERS = (
    "left of it", "above it", "area", "height", "width", "cells of its colour", "of its colour", "holes", "larger boxes", "of its shape",
)  # fmt: skip
MAX_FILTERS = 60


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the cheapest rules that reproduce every train pair."""
    if keeps_size(task):
        return []
    found: list[EvaluatedRule] = []
    outputs = [pair.output for pair in task.train]
    striped = all(_uniform_rows(output) or _uniform_rows(output.T) for output in outputs)
    lines = all(min(output.shape) == 1 < max(output.shape) for output in outputs) and len({o.shape[0] == 1 for o in outputs}) == 2
    few = len({grid_id(output) for output in outputs}) < len(outputs) or len({output.shape for output in outputs}) == 1
    for segmentation in segmentations(inputs_of(task)):
        if striped:
            found += _sequences(outputs, segmentation)
        if lines:
            found += _sequences_along(outputs, segmentation)
        if few:
            found += _counts(outputs, segmentation)
    return answers_of(task, found)


def _uniform_rows(output: Array) -> bool:
    """Whether every row has one colour."""
    return bool((output == output[:, :1]).all())


def _sequences(outputs: list[Grid], segmentation: Segmentation) -> Iterator[EvaluatedRule]:
    """Rules that list the colours of the objects that pass a test, ordered by a trait, as stripes."""
    pairs = len(outputs)
    scenes, starts = segmentation.scenes, segmentation.starts()
    tests = make_tests(segmentation, pairs)
    tables = [traits(scene) for scene in scenes]
    colours = [np.array([o.colour for o in scene.objects]) for scene in scenes]
    tall = all(_uniform_rows(output) for output in outputs)
    thicknesses = {output.shape[1] if tall else output.shape[0] for output in outputs}
    if len(thicknesses) > 1:
        return
    thickness = thicknesses.pop()
    for number, order in enumerate(ORDERS):
        for sign in (1, -1):
            for once in (True, False):
                for t in range(min(len(tests.names), MAX_FILTERS)):
                    grids = [
                        _stripes(_sequence(sign * tables[k][order][chosen], colours[k][chosen], once), tall, thickness)
                        for k, chosen in enumerate(np.split(tests.passed[t], starts[1:-1]))
                    ]
                    right = np.array([same_grid(grid, output) for grid, output in zip(grids, outputs, strict=False)])
                    if right.sum() >= max(1, pairs - 1):
                        text = f"colours of {segmentation.name} with {tests.names[t]} by {'' if sign > 0 else 'falling '}{order}"
                        cost = 2.0 + segmentation.cost + tests.costs[t] + 0.3 * number + 0.2 * (not once)
                        yield EvaluatedRule(text, float(cost), right, tuple(grids[pairs:]))


def _sequences_along(outputs: list[Grid], segmentation: Segmentation) -> Iterator[EvaluatedRule]:
    """Rules that list the colours of the objects that pass a test along the axis on which their middles are further apart."""
    pairs = len(outputs)
    scenes, starts = segmentation.scenes, segmentation.starts()
    tests = make_tests(segmentation, pairs)
    middles = [np.array([(o.rows.mean(), o.columns.mean()) for o in scene.objects]) for scene in scenes]
    colours = [np.array([o.colour for o in scene.objects]) for scene in scenes]
    for once in (True, False):
        for t in range(min(len(tests.names), MAX_FILTERS)):
            grids: list[Grid | None] = []
            for k, chosen in enumerate(np.split(tests.passed[t], starts[1:-1])):
                places = middles[k][chosen]
                axis = int(np.ptp(places, axis=0).argmax()) if len(places) else 0
                keys = places[:, axis] if len(places) else np.zeros(0)
                grids.append(_stripes(_sequence(keys, colours[k][chosen], once), axis == 0, 1))
            right = np.array([same_grid(grid, output) for grid, output in zip(grids, outputs, strict=False)])
            if right.sum() >= max(1, pairs - 1):
                text = f"colours of {segmentation.name} with {tests.names[t]} along the axis of their middles"
                yield EvaluatedRule(text, float(3.0 + segmentation.cost + tests.costs[t] + 0.2 * (not once)), right, tuple(grids[pairs:]))


def _sequence(keys: Array, colours: Array, once: bool) -> list[int]:
    """Colours in the order of a key, each once or one for every object; empty where the key leaves the order open."""
    order = np.argsort(keys, kind="stable")
    keys, colours = keys[order], colours[order]
    if ((keys[1:] == keys[:-1]) & (colours[1:] != colours[:-1])).any():
        return []
    return list(dict.fromkeys(colours.tolist())) if once else colours.tolist()


def _stripes(colours: list[int], tall: bool, thickness: int) -> Grid | None:
    if not 0 < len(colours) <= MAX_SIDE:
        return None
    rows = np.repeat(np.array(colours)[:, None], thickness, axis=1)
    return frozen(rows if tall else rows.T)


def _counts(outputs: list[Grid], segmentation: Segmentation) -> Iterator[EvaluatedRule]:
    """Pictures by the number of objects that pass a test: those of the train pairs, or so many cells painted in reading order."""
    pairs = len(outputs)
    tests = make_tests(segmentation, pairs)
    for t in range(min(len(tests.names), MAX_FILTERS)):
        counts = np.add.reduceat(tests.passed[t].astype(int), segmentation.starts()[:-1]).tolist()
        cost = 4.0 + segmentation.cost + tests.costs[t]
        text = f"the number of {segmentation.name} with {tests.names[t]}"
        if len(set(counts)) > 1 and len(set(counts[:pairs])) < pairs:
            seen: dict[int, Grid] = {}
            for count, output in zip(counts, outputs, strict=False):
                seen.setdefault(count, output)
            right = np.array([same_grid(seen[count], output) for count, output in zip(counts, outputs, strict=False)])
            if right.all():
                # A pair with a unique number is not predicted by the others.
                unique = np.array([counts[:pairs].count(count) == 1 for count in counts[:pairs]])
                grids = tuple(seen.get(count) for count in counts[pairs:])
                yield EvaluatedRule(f"picture for {text}", cost + 3.0 + 6.0 * float(unique.mean()), right, grids)
        for name, extra, picture_of in _fills(outputs):
            pictures = [picture_of(count) for count in counts]
            right = np.array([same_grid(a, b) for a, b in zip(pictures, outputs, strict=False)])
            if right.sum() >= max(1, pairs - 1) and len(set(counts[:pairs])) > 1:
                yield EvaluatedRule(f"{name} for {text}", cost + extra, right, tuple(pictures[pairs:]))


def _fills(outputs: list[Grid]) -> Iterator[tuple[str, float, Callable[[int], Grid | None]]]:
    """(Name, cost, function) of ways to paint a number of cells in the colours of the train outputs."""
    colours = {int(c) for output in outputs for c in np.unique(output)}
    shapes = {output.shape for output in outputs}
    if len(colours) == 1:
        colour = colours.pop()
        yield "a row", 0.5, lambda n: _full(1, n, colour)
        yield "a column", 0.5, lambda n: _full(n, 1, colour)
        yield "a square", 1.0, lambda n: _full(n, n, colour)
    elif len(colours) == 2 and len(shapes) == 1:
        places = np.arange(outputs[0].size).reshape(outputs[0].shape)
        orders = (
            ("cells in reading order", places.ravel()),
            ("every other cell", places.ravel()[::2]),
            ("cells by column", places.T.ravel()),
            ("cells of the diagonal", places.ravel()[:: outputs[0].shape[1] + 1]),
        )
        for colour in sorted(colours):
            other = (colours - {colour}).pop()
            for name, cells in orders:
                yield name, 1.0, partial(_first_cells, shape=outputs[0].shape, cells=cells, colour=colour, other=other)


def _full(h: int, w: int, colour: int) -> Grid | None:
    return frozen(np.full((h, w), colour)) if 0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE else None


def _first_cells(count: int, shape: tuple[int, ...], cells: Array, colour: int, other: int) -> Grid:
    grid = np.full(shape, other)
    grid.ravel()[cells[:count]] = colour
    return frozen(grid)
