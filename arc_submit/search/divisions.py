"""Divisions: a task restated on parts of its grids, each part an example of its own: panels, objects, colours, rows or columns.

Where the same thing happens to every part by itself, a few large examples become many small ones, and a rule need not find the parts
first. Knows nothing about solvers: a rule found for the parts of a test input is put together again by `join`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, grid_id
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import Answer
from arc_submit.search.features import find_panels
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

NAME = "divided"
MAX_PARTS = 16  # different examples of the restated task, train and test together
MAX_CELLS = 3000  # of all their outputs
Box = tuple[int, int, int, int]  # top, left, bottom, right, the last two behind


@dataclass(frozen=True)
class Division:
    """A task restated on parts.

    Attributes:
        task: the parts, each different one once.
        parts: for each test input of the original, which test inputs of `task` it consists of.
        join: turns an index of a test input and its parts' answers into an answer to it, or None where they do not fit together.
        name: what a program prints before its own text.
        cost: in tenths of a step.
    """

    task: Task
    parts: tuple[tuple[int, ...], ...]
    join: Callable[[int, list[Grid]], Grid | None]
    name: str
    cost: int


def divisions(task: Task) -> Iterator[Division]:
    """Every division that applies to all examples and gives equal parts equal outputs, each set of parts once."""
    seen: set[str] = set()
    for division in (_panels(task), *_objects(task), _colours(task), _lines(task, False), _lines(task, True)):
        if division is not None and division.task.digest() not in seen:
            seen.add(division.task.digest())
            yield division


def joined(answers: list[Answer], division: Division) -> list[Answer]:
    """Answers to the original task from rules that answer every part of a test input."""
    rules: dict[tuple[str, str], dict[int, Answer]] = {}
    for answer in answers:
        rules.setdefault((answer.solver, answer.program), {}).setdefault(answer.test, answer)
    out = []
    for (solver, program), by_part in rules.items():
        for test, parts in enumerate(division.parts):
            if all(part in by_part for part in parts):
                grid = division.join(test, [by_part[part].grid for part in parts])
                if grid is not None:
                    first = by_part[parts[0]]
                    text = f"{division.name}: {solver}: {program}"
                    out.append(replace(first, test=test, grid=grid, solver=NAME, program=text, cost=first.cost + division.cost))
    return out


def _division(
    task: Task, parts: list[list[tuple[Grid, Grid | None]]], join: Callable[[int, list[Grid]], Grid | None], name: str, cost: int
) -> Division | None:
    """The division into parts (input, output or None for a test) per example; None where it would teach nothing or contradict itself."""
    pairs: dict[bytes, Pair] = {}
    for k in range(len(task.train)):
        for a, b in parts[k]:
            assert b is not None, "a train pair has an output"
            known = pairs.setdefault(grid_id(a), Pair(frozen(a), frozen(b)))
            if grid_id(known.output) != grid_id(b):
                return None
    tests: dict[bytes, Grid] = {}
    for some in parts[len(task.train) :]:
        for a, _ in some:
            tests.setdefault(grid_id(a), frozen(a))
    if all(len(some) == 1 for some in parts) or len(pairs) < 2 or len(pairs) + len(tests) > MAX_PARTS or not all(parts):
        return None
    if sum(pair.output.size for pair in pairs.values()) > MAX_CELLS:
        return None
    order = {key: k for k, key in enumerate(tests)}
    where = tuple(tuple(order[grid_id(a)] for a, _ in some) for some in parts[len(task.train) :])
    return Division(Task(task.id, tuple(pairs.values()), tuple(tests.values())), where, join, name, cost)


def _examples(task: Task) -> list[tuple[Grid, Grid | None]]:
    return [(pair.input, pair.output) for pair in task.train] + [(grid, None) for grid in task.tests]


def _same_size(task: Task) -> bool:
    return all(pair.input.shape == pair.output.shape for pair in task.train)


def _boxed(task: Task, boxes: list[list[Box]], name: str, cost: int) -> Division | None:
    """Boxes of each input that do not overlap, outside of which nothing changes."""
    for pair, some in zip(task.train, boxes, strict=False):
        outside = pair.input != pair.output
        for a, b, c, d in some:
            outside[a:c, b:d] = False
        if outside.any():
            return None
    parts = [
        [(grid[a:c, b:d], None if out is None else out[a:c, b:d]) for a, b, c, d in some]
        for (grid, out), some in zip(_examples(task), boxes, strict=True)
    ]

    def join(test: int, grids: list[Grid]) -> Grid | None:
        out = np.array(task.tests[test])
        for (a, b, c, d), grid in zip(boxes[len(task.train) + test], grids, strict=True):
            if grid.shape != (c - a, d - b):
                return None
            out[a:c, b:d] = grid
        return frozen(out)

    return _division(task, parts, join, name, cost)


def _panels(task: Task) -> Division | None:
    """Equal panels between lines that do not change; or each panel becomes a block of an output without lines."""
    found = [find_panels(grid) for grid, _ in _examples(task)]
    panels = [f for f in found if f is not None]
    if len(panels) < len(found):
        return None
    boxes = [[(a, c, b, d) for a, b in rows for c, d in columns] for rows, columns, _ in panels]
    if _same_size(task):
        return _boxed(task, boxes, "each panel", 4)
    layouts = [(len(rows), len(columns)) for rows, columns, _ in panels]
    blocks = []
    for pair, (m, n) in zip(task.train, layouts, strict=False):
        h, w = pair.output.shape
        if h % m or w % n:
            return None
        blocks.append((h // m, w // n))
    parts: list[list[tuple[Grid, Grid | None]]] = []
    for k, ((grid, out), some) in enumerate(zip(_examples(task), boxes, strict=True)):
        if out is None:
            parts.append([(grid[a:c, b:d], None) for a, b, c, d in some])
        else:
            h, w = blocks[k]
            n = layouts[k][1]
            parts.append(
                [(grid[a:c, b:d], out[p // n * h : (p // n + 1) * h, p % n * w : (p % n + 1) * w]) for p, (a, b, c, d) in enumerate(some)]
            )

    def join(test: int, grids: list[Grid]) -> Grid | None:
        m, n = layouts[len(task.train) + test]
        if len({grid.shape for grid in grids}) > 1 or m * grids[0].shape[0] > MAX_SIDE or n * grids[0].shape[1] > MAX_SIDE:
            return None
        return frozen(np.concatenate([np.concatenate(grids[i * n : (i + 1) * n], axis=1) for i in range(m)]))

    return _division(task, parts, join, "each panel as a block", 4)


def _objects(task: Task) -> Iterator[Division]:
    """The boxes of connected objects, with or without a margin."""
    if not _same_size(task):
        return
    inputs = [grid for grid, _ in _examples(task)]
    for one_colour in (False, True):
        for diagonal in (True, False):
            boxes = [_boxes(grid, diagonal, one_colour) for grid in inputs]
            for margin in (0, 1):
                wider = [[_widened(box, margin, grid.shape) for box in some] for grid, some in zip(inputs, boxes, strict=True)]
                if any(_overlap(some) for some in wider):
                    break
                name = f"each object{' of one colour' if one_colour else ''}{'' if diagonal else ' joined by sides'}"
                division = _boxed(task, wider, name + (" with a margin" if margin else ""), 5 + margin)
                if division is not None:
                    yield division
                    break


def _boxes(grid: Grid, diagonal: bool, one_colour: bool) -> list[Box]:
    counts = np.bincount(grid.ravel(), minlength=COLOURS)
    background = 0 if counts[0] else int(counts.argmax())
    labels, count = label(np.where(grid == background, 0, grid + 1).astype(np.int8), diagonal, one_colour)
    boxes = []
    for k in range(1, count + 1):
        ys, xs = np.nonzero(labels == k)
        boxes.append((int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1))
    return boxes


def _widened(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    return max(box[0] - margin, 0), max(box[1] - margin, 0), min(box[2] + margin, shape[0]), min(box[3] + margin, shape[1])


def _overlap(boxes: list[Box]) -> bool:
    b = np.array(boxes).reshape(-1, 4)
    shared = (b[:, None, :2] < b[None, :, 2:]).all(axis=2) & (b[None, :, :2] < b[:, None, 2:]).all(axis=2)
    return bool(shared.sum() > len(b))


def _colours(task: Task) -> Division | None:
    """One part for each painted colour, in which it is 1 and all else 0."""
    if any(np.setdiff1d(pair.output, pair.input).any() for pair in task.train):
        return None
    present = [[int(c) for c in np.unique(grid) if c] for grid, _ in _examples(task)]
    if max(len(colours) for colours in present) < 2 or not all(present):
        return None
    parts = [
        [((grid == c).astype(np.int8), None if out is None else (out == c).astype(np.int8)) for c in colours]
        for (grid, out), colours in zip(_examples(task), present, strict=True)
    ]

    def join(test: int, grids: list[Grid]) -> Grid | None:
        if len({grid.shape for grid in grids}) > 1 or (np.stack(grids) > 0).sum(axis=0).max() > 1:
            return None
        out = np.zeros(grids[0].shape, np.int8)
        for colour, grid in zip(present[len(task.train) + test], grids, strict=True):
            out[grid > 0] = colour
        return frozen(out)

    return _division(task, parts, join, "each colour", 5)


def _lines(task: Task, columns: bool) -> Division | None:
    """One part for each row, or column."""

    def turned(grid: Array) -> Array:
        return grid.T if columns else grid

    if any(turned(pair.input).shape[0] != turned(pair.output).shape[0] for pair in task.train):
        return None
    parts = []
    for grid, out in _examples(task):
        given, made = turned(grid), None if out is None else turned(out)
        parts.append([(given[i : i + 1], None if made is None else made[i : i + 1]) for i in range(len(given))])

    def join(test: int, grids: list[Grid]) -> Grid | None:
        if len({grid.shape for grid in grids}) > 1 or grids[0].shape[0] != 1:
            return None
        return frozen(turned(np.concatenate(grids)))

    return _division(task, parts, join, "each column" if columns else "each row", 5)
