"""Rules for outputs that sum a scene up: the colours of some objects in an order, or a picture that depends on how many there are.

Knows nothing about how objects are changed; every candidate is judged on all train pairs, see selection.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, grid_id, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.solvers.objects.scenes import Scene, Segmentation, segmentations
from arc_submit.search.solvers.objects.selection import Candidate, ranked_answers
from arc_submit.search.solvers.objects.traits import make_tests, traits
from arc_submit.search.store import Array

ORDERS = (
    "left of it",
    "above it",
    "area",
    "height",
    "width",
    "cells of its colour",
    "of its colour",
    "holes",
    "larger boxes",
    "of its shape",
)
MAX_FILTERS = 60


def solve(task: Task) -> list[Answer]:
    """Answers of the cheapest rules that reproduce every train pair."""
    if all(pair.input.shape == pair.output.shape for pair in task.train):
        return []
    grids = [pair.input for pair in task.train] + list(task.tests)
    found: list[Candidate] = []
    striped = [_stripes(pair.output) for pair in task.train]
    few = len({grid_id(pair.output) for pair in task.train}) < len(task.train) or len({pair.output.shape for pair in task.train}) == 1
    for segmentation in segmentations(grids):
        if all(stripes is not None for stripes in striped):
            found += _sequences(task, segmentation)
        if few:
            found += _counts(task, segmentation)
    return ranked_answers(task, found)


def _stripes(output: Grid) -> list[int] | None:
    """The colours of the rows of an output whose rows have one colour each, or of its columns."""
    if (output == output[:, :1]).all():
        return [int(c) for c in output[:, 0]]
    if (output == output[:1]).all():
        return [int(c) for c in output[0]]
    return None


def _sequences(task: Task, segmentation: Segmentation) -> Iterator[Candidate]:
    pairs = len(task.train)
    scenes = segmentation.scenes
    tests = make_tests(scenes, pairs)
    starts = np.concatenate([[0], np.cumsum([len(scene.objects) for scene in scenes])])
    tables = [traits(scene) for scene in scenes]
    colours = [np.array([o.colour for o in scene.objects]) for scene in scenes]
    tall = all((pair.output == pair.output[:, :1]).all() for pair in task.train)
    across = {pair.output.shape[1] if tall else pair.output.shape[0] for pair in task.train}
    if len(across) > 1:
        return
    thickness = across.pop()
    for number, order in enumerate(ORDERS):
        for sign in (1, -1):
            for once in (True, False):
                for t in range(min(len(tests.names), MAX_FILTERS)):
                    lists = [
                        _sequence(tables[k][order], colours[k], tests.passed[t, starts[k] : starts[k + 1]], sign, once)
                        for k in range(len(scenes))
                    ]
                    grids = [None if row is None else _striped(row, tall, thickness) for row in lists]
                    right = np.array([same_grid(grid, pair.output) for grid, pair in zip(grids, task.train, strict=False)])
                    if right.sum() >= max(1, pairs - 1):
                        text = f"colours of {segmentation.name} with {tests.names[t]} by {'' if sign > 0 else 'falling '}{order}"
                        cost = 2.0 + segmentation.cost + tests.costs[t] + 0.3 * number + 0.2 * (not once)
                        yield Candidate(text, float(cost), right, tuple(grids[pairs:]))


def _sequence(keys: Array, colours: Array, chosen: Array, sign: int, once: bool) -> list[int] | None:
    """Colours in the order of a key, each once or one for every object; None where the key leaves the order open."""
    keys, colours = sign * keys[chosen], colours[chosen]
    order = np.argsort(keys, kind="stable")
    keys, colours = keys[order], colours[order]
    if ((keys[1:] == keys[:-1]) & (colours[1:] != colours[:-1])).any():
        return None
    row = [int(c) for c in colours]
    return list(dict.fromkeys(row)) if once else row


def _striped(row: list[int], tall: bool, thickness: int) -> Grid | None:
    if not 0 < len(row) <= MAX_SIDE:
        return None
    line = np.array(row)
    return frozen(np.repeat(line[:, None], thickness, axis=1) if tall else np.repeat(line[None], thickness, axis=0))


def _counts(task: Task, segmentation: Segmentation) -> Iterator[Candidate]:
    """Pictures by how many objects pass a test: as seen in the train pairs, or so many cells painted in reading order."""
    pairs = len(task.train)
    scenes = segmentation.scenes
    tests = make_tests(scenes, pairs)
    outputs = [pair.output for pair in task.train]
    for t in range(min(len(tests.names), MAX_FILTERS)):
        counts = _how_many(scenes, tests.passed[t])
        cost = 4.0 + segmentation.cost + tests.costs[t]
        text = f"the number of {segmentation.name} with {tests.names[t]}"
        if len(set(counts)) > 1 and len(set(counts[:pairs])) < pairs:
            seen: dict[int, Grid] = {}
            for count, output in zip(counts, outputs, strict=False):
                seen.setdefault(count, output)
            right = np.array([same_grid(seen[count], output) for count, output in zip(counts, outputs, strict=False)])
            if right.all():
                # A pair whose number is seen nowhere else is not foretold by the others.
                told = np.array([counts[:pairs].count(count) > 1 for count in counts[:pairs]])
                grids = tuple(seen.get(count) for count in counts[pairs:])
                yield Candidate(f"picture for {text}", cost + 3.0 + 6.0 * float((~told).mean()), right, grids)
        for name, extra, grids_of in _fills(outputs):
            made = [grids_of(count) for count in counts]
            right = np.array([same_grid(a, b) for a, b in zip(made, outputs, strict=False)])
            if right.sum() >= max(1, pairs - 1) and len(set(counts[:pairs])) > 1:
                yield Candidate(f"{name} for {text}", cost + extra, right, tuple(made[pairs:]))


def _how_many(scenes: tuple[Scene, ...], passed: Array) -> list[int]:
    starts = np.concatenate([[0], np.cumsum([len(scene.objects) for scene in scenes])])
    return [int(passed[a:b].sum()) for a, b in itertools.pairwise(starts)]


def _fills(outputs: list[Grid]) -> Iterator[tuple[str, float, Callable[[int], Grid | None]]]:
    """Ways to paint as many cells as were counted, in the two colours of the train outputs."""
    colours = {int(c) for output in outputs for c in np.unique(output)}
    shapes = {output.shape for output in outputs}
    if len(colours) == 1:
        colour = colours.pop()
        yield "a row", 0.5, lambda n: _full(1, n, colour)
        yield "a column", 0.5, lambda n: _full(n, 1, colour)
        yield "a square", 1.0, lambda n: _full(n, n, colour)
    elif len(colours) == 2 and len(shapes) == 1:
        shape = (outputs[0].shape[0], outputs[0].shape[1])
        places = np.arange(outputs[0].size)
        orders = (
            ("cells in reading order", places),
            ("every other cell", places[::2]),
            ("cells by column", places.reshape(shape).T.ravel()),
            ("cells of the diagonal", places[:: shape[1] + 1]),
        )
        for colour in sorted(colours):
            other = (colours - {colour}).pop()
            for name, cells in orders:
                yield name, 1.0, partial(_first_cells, shape=shape, cells=cells, colour=colour, other=other)


def _full(h: int, w: int, colour: int) -> Grid | None:
    return frozen(np.full((h, w), colour)) if 0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE else None


def _first_cells(count: int, shape: tuple[int, int], cells: Array, colour: int, other: int) -> Grid:
    grid = np.full(shape, other)
    grid.ravel()[cells[:count]] = colour
    return frozen(grid)
