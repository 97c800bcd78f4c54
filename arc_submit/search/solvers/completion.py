"""Completion: cells that something hides are filled in from the symmetries and periods of what can be seen.

The hidden cells are those of one colour. Every mirror axis, diagonal and shift that the visible cells agree with joins cells into
classes, and a class takes the one colour seen in it. Answers the whole grid or only the hidden box, whichever the train pairs ask
for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.store import Array

NAME = "completion"
# Which relations may join cells, with how many of all cells must be seen to agree; the plainer the earlier.
_PLANS = (("mirrors", 0.3), ("shifts", 0.3), ("mirrors and shifts", 0.3), ("shifts", 0.1), ("mirrors", 0.1), ("mirrors and shifts", 0.1))


def solve(task: Task) -> list[Answer]:
    """Answers from the first plans that reproduce every train pair."""
    answers: list[Answer] = []
    whole = all(pair.input.shape == pair.output.shape for pair in task.train)
    for colour in _hidden_colours(task, whole):
        for number, (plan, overlap) in enumerate(_PLANS):
            if not all(same_grid(_answer(pair.input, colour, plan, overlap, whole), pair.output) for pair in task.train):
                continue
            for test, grid in enumerate(task.tests):
                out = _answer(grid, colour, plan, overlap, whole)
                if out is not None:
                    text = f"fill colour {colour} by {plan}{'' if whole else ', cut out'}"
                    answers.append(Answer(test, out, NAME, text, 1.0, 14.0 + number))
    return answers


def _hidden_colours(task: Task, whole: bool) -> list[int]:
    """Colours that can be what hides: the only ones that change, or whose box has the output's size, in every train pair."""
    colours = []
    for colour in range(10):
        fits = True
        for pair in task.train:
            hidden = pair.input == colour
            if whole:
                fits = fits and bool((hidden | (pair.input == pair.output)).all()) and bool((pair.output[hidden] != colour).any())
            else:
                box = _box(hidden)
                fits = fits and box is not None and pair.input[box].shape == pair.output.shape
        if fits:
            colours.append(colour)
    return colours


def _box(mask: Array) -> tuple[slice, slice] | None:
    ys, xs = np.nonzero(mask)
    return None if len(ys) == 0 else (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))


def _answer(grid: Grid, colour: int, plan: str, overlap: float, whole: bool) -> Grid | None:
    filled = complete(grid, grid == colour, plan, overlap)
    if filled is None or whole:
        return filled
    box = _box(grid == colour)
    return None if box is None else frozen(filled[box])


def complete(grid: Grid, hidden: Array, plan: str, overlap: float) -> Grid | None:
    """The grid with its hidden cells filled where the relations reach them, or None where no relation holds.

    Args:
        hidden: bool (h, w).
        plan: which relations may join cells.
        overlap: share of all cells that must be visible on both sides of a relation.
    """
    parent = np.arange(grid.size)
    found = False
    for a, b in _relations(grid.shape, plan):
        seen = ~hidden.ravel()[a] & ~hidden.ravel()[b]
        if seen.sum() >= overlap * grid.size and (grid.ravel()[a][seen] == grid.ravel()[b][seen]).all():
            found = True
            for p, q in zip(a.tolist(), b.tolist(), strict=True):
                parent[_root(parent, p)] = _root(parent, q)
    if not found:
        return None
    out = np.array(grid).ravel()
    roots = np.array([_root(parent, k) for k in range(grid.size)])
    colour_of: dict[int, int] = {}
    for k in np.flatnonzero(~hidden.ravel()):
        # Relations each agree with what is seen but may contradict each other once joined: then the class stays open.
        colour_of[roots[k]] = int(out[k]) if colour_of.get(roots[k], int(out[k])) == out[k] else -1
    for k in np.flatnonzero(hidden.ravel()):
        if colour_of.get(roots[k], -1) >= 0:
            out[k] = colour_of[roots[k]]
    return frozen(out.reshape(grid.shape))


def _root(parent: Array, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = int(parent[k])
    return k


def _relations(shape: tuple[int, ...], plan: str) -> Iterator[tuple[Array, Array]]:
    """Pairs of index arrays: cell a[k] and cell b[k] should be equal if the relation holds. Only the smallest shifts are of use."""
    h, w = shape
    i, j = np.indices((h, w))

    def pair(a: Array, b: Array) -> tuple[Array, Array]:
        inside = (a >= 0) & (a < h) & (b >= 0) & (b < w)
        return (i * w + j)[inside], (a * w + b)[inside]

    if "mirrors" in plan:
        for total in sorted(range(w // 2, w + w // 2), key=lambda t: abs(t - (w - 1))):
            yield pair(i, total - j)
        for total in sorted(range(h // 2, h + h // 2), key=lambda t: abs(t - (h - 1))):
            yield pair(total - i, j)
        for shift in range(-2, 3):
            yield pair(j + shift, i - shift)
            yield pair(min(h, w) - 1 - j + shift, min(h, w) - 1 - i + shift)
    if "shifts" in plan:
        for dx in range(1, w):
            yield pair(i, j + dx)
        for dy in range(1, h):
            yield pair(i + dy, j)
        for dy in range(1, h):
            for dx in range(-min(3, w - 1), min(4, w)):
                if dx:
                    yield pair(i + dy, j + dx)
