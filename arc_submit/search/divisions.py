"""Divisions: a task restated on parts of its grids, each part an example of its own: panels, objects, colours, rows or columns.

Where every part changes independently of the others, a few large examples become many small ones, and a rule need not find the parts. This
module does not know solvers; `Division.join` assembles the answers to the parts of a test input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, grid_id
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import background_of, find_panels, inputs_of, keeps_size, label_objects
from arc_submit.search.primitives.splitting import component_boxes
from arc_submit.search.store import Array

NAME = "divided"
MAX_PARTS = 16  # different examples of the restated task, train and test together
MAX_CELLS = 3000  # of all their outputs
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two exclusive
Part = tuple[Grid, Grid | None]  # input and output, None for a test
Join = Callable[[int, list[Grid]], Grid | None]


@dataclass(frozen=True)
class Division:
    """A task restated on parts.

    Attributes:
        task: the parts, without duplicates.
        parts: for each test input of the original task, the test inputs of `task` that it consists of.
        join: turns the index of a test input and its parts' answers into an answer to it, or None where they do not fit together.
        name: the prefix of a program's text.
        cost: in tenths of a step.
    """

    task: Task
    parts: tuple[tuple[int, ...], ...]
    join: Join
    name: str
    cost: int


def divisions(task: Task) -> Iterator[Division]:
    """Every division that applies to all examples and gives equal parts equal outputs, without duplicates."""
    seen: set[str] = set()
    for division in (_panels(task), *_objects(task), _colours(task), _lines(task, False), _lines(task, True)):
        if division is not None and division.task.digest() not in seen:
            seen.add(division.task.digest())
            yield division


def join_answers(answers: list[SolverAnswer], division: Division) -> list[SolverAnswer]:
    """Answers to the original task from rules that answer every part of a test input."""
    rules: dict[tuple[str, str], dict[int, SolverAnswer]] = {}
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


def _division(task: Task, parts: list[list[Part]], join: Join, name: str, cost: int) -> Division | None:
    """The division into these parts of each example; None where it would teach nothing, contradict itself or be too large."""
    pairs: dict[bytes, Pair] = {}
    for examples in parts[: len(task.train)]:
        for grid, output in examples:
            assert output is not None, "a train pair has an output"
            known = pairs.setdefault(grid_id(grid), Pair(frozen(grid), frozen(output)))
            if grid_id(known.output) != grid_id(output):
                return None
    test_parts = parts[len(task.train) :]
    tests = {grid_id(grid): frozen(grid) for examples in test_parts for grid, _ in examples}
    if all(len(examples) == 1 for examples in parts) or len(pairs) < 2 or len(pairs) + len(tests) > MAX_PARTS or not all(parts):
        return None
    if sum(pair.output.size for pair in pairs.values()) > MAX_CELLS:
        return None
    number = {key: k for k, key in enumerate(tests)}
    indices = tuple(tuple(number[grid_id(grid)] for grid, _ in examples) for examples in test_parts)
    return Division(Task(task.id, tuple(pairs.values()), tuple(tests.values())), indices, join, name, cost)


def _examples(task: Task) -> list[Part]:
    return [(pair.input, pair.output) for pair in task.train] + [(grid, None) for grid in task.tests]


def _same_shape(grids: list[Grid]) -> bool:
    return len({grid.shape for grid in grids}) == 1


def _boxed(task: Task, boxes: list[list[Box]], name: str, cost: int) -> Division | None:
    """Disjoint boxes of each input, outside of which nothing changes."""
    for pair, pair_boxes in zip(task.train, boxes, strict=False):
        changed_outside = pair.input != pair.output
        for a, b, c, d in pair_boxes:
            changed_outside[a:c, b:d] = False
        if changed_outside.any():
            return None
    parts: list[list[Part]] = [
        [(grid[a:c, b:d], None if out is None else out[a:c, b:d]) for a, b, c, d in grid_boxes]
        for (grid, out), grid_boxes in zip(_examples(task), boxes, strict=True)
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
    found = [find_panels(grid) for grid in inputs_of(task)]
    panels = [f for f in found if f is not None]
    if len(panels) < len(found):
        return None
    boxes = [[(a, c, b, d) for a, b in rows for c, d in columns] for rows, columns, _ in panels]
    if keeps_size(task):
        return _boxed(task, boxes, "each panel", 4)
    layouts = [(len(rows), len(columns)) for rows, columns, _ in panels]
    if any(pair.output.shape[0] % m or pair.output.shape[1] % n for pair, (m, n) in zip(task.train, layouts, strict=False)):
        return None
    parts: list[list[Part]] = []
    for (grid, out), grid_boxes, (m, n) in zip(_examples(task), boxes, layouts, strict=True):
        blocks: list[Grid | None] = [None] * len(grid_boxes)
        if out is not None:
            blocks = [block for row in np.split(out, m) for block in np.split(row, n, axis=1)]
        parts.append([(grid[a:c, b:d], block) for (a, b, c, d), block in zip(grid_boxes, blocks, strict=True)])

    def join(test: int, grids: list[Grid]) -> Grid | None:
        m, n = layouts[len(task.train) + test]
        if not _same_shape(grids) or m * grids[0].shape[0] > MAX_SIDE or n * grids[0].shape[1] > MAX_SIDE:
            return None
        return frozen(np.concatenate([np.concatenate(grids[i * n : (i + 1) * n], axis=1) for i in range(m)]))

    return _division(task, parts, join, "each panel as a block", 4)


def _objects(task: Task) -> Iterator[Division]:
    """The bounding boxes of connected objects, with or without a margin."""
    if not keeps_size(task):
        return
    inputs = inputs_of(task)
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
    labels, count = label_objects(grid, background_of(grid), diagonal, one_colour)
    return [(top, left, bottom + 1, right + 1) for top, left, bottom, right in component_boxes(labels, count)[1:].tolist()]


def _widened(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    return max(box[0] - margin, 0), max(box[1] - margin, 0), min(box[2] + margin, shape[0]), min(box[3] + margin, shape[1])


def _overlap(boxes: list[Box]) -> bool:
    """Whether any two boxes share a cell."""
    b = np.array(boxes).reshape(-1, 4)
    shared = (b[:, None, :2] < b[None, :, 2:]).all(axis=2) & (b[None, :, :2] < b[:, None, 2:]).all(axis=2)
    return bool(shared.sum() > len(b))


def _colours(task: Task) -> Division | None:
    """One part for each painted colour, in which it is 1 and all else 0."""
    if any(np.setdiff1d(pair.output, pair.input).any() for pair in task.train):
        return None
    present = [[int(c) for c in np.unique(grid) if c] for grid in inputs_of(task)]
    if max(len(colours) for colours in present) < 2 or not all(present):
        return None
    parts: list[list[Part]] = [
        [((grid == c).astype(np.int8), None if out is None else (out == c).astype(np.int8)) for c in colours]
        for (grid, out), colours in zip(_examples(task), present, strict=True)
    ]

    def join(test: int, grids: list[Grid]) -> Grid | None:
        if not _same_shape(grids) or (np.stack(grids) > 0).sum(axis=0).max() > 1:
            return None
        out = np.zeros(grids[0].shape, np.int8)
        for colour, grid in zip(present[len(task.train) + test], grids, strict=True):
            out[grid > 0] = colour
        return frozen(out)

    return _division(task, parts, join, "each colour", 5)


def _lines(task: Task, columns: bool) -> Division | None:
    """One part for each row, or column."""

    def upright(grid: Array) -> Array:
        return grid.T if columns else grid

    if any(upright(pair.input).shape[0] != upright(pair.output).shape[0] for pair in task.train):
        return None
    parts: list[list[Part]] = []
    for grid, out in _examples(task):
        rows = upright(grid)
        out_rows = [None] * len(rows) if out is None else upright(out)[:, None]
        parts.append([(a[None], b) for a, b in zip(rows, out_rows, strict=True)])

    def join(test: int, grids: list[Grid]) -> Grid | None:
        if not _same_shape(grids) or grids[0].shape[0] != 1:
            return None
        return frozen(upright(np.concatenate(grids)))

    return _division(task, parts, join, "each column" if columns else "each row", 5)
