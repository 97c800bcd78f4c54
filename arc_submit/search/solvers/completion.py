"""Completion: hidden cells filled in from the symmetries and periods of the visible cells.

The hidden cells are those of one colour, which may differ between inputs. Every mirror axis, diagonal and shift that the visible cells
agree with joins cells into classes, and a class takes the one colour seen in it. The answer is the whole grid or only the hidden box, as
in the train pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import bounding_box, commonest_colour, inputs_of, keeps_size, rarest_index
from arc_submit.search.jit import jit
from arc_submit.search.store import Array

NAME = "completion"
# Which relations may join cells, and the share of all cells that must be visible on both sides and agree; the plainest first.
PLANS = (
    ("mirrors", 0.3),
    ("shifts", 0.3),
    ("mirrors and shifts", 0.3),
    ("shifts", 0.1),
    ("mirrors", 0.1),
    ("mirrors and shifts", 0.1),
    ("quarter turns about a centre", 0.0),
    ("mirrors about a centre", 0.0),
    ("all symmetries about a centre", 0.0),
    ("half turn about a centre", 0.0),
    ("quarter turns about a colour's centre", 0.0),
    ("mirrors about a colour's centre", 0.0),
    ("all symmetries about a colour's centre", 0.0),
    ("periods of rows", 0.0),
    ("periods of columns", 0.0),
    ("one shift across", 0.02),
    ("one shift down", 0.02),
    ("shifts", 0.02),
)
# Symmetries about a centre, as matrices (a, b, c, d): the cell at (i, j) from the centre maps to (a i + b j, c i + d j).
_MIRRORS = ((1, 0, 0, -1), (-1, 0, 0, 1), (-1, 0, 0, -1))
_TURNS = {
    "quarter turns": ((0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)),
    "mirrors": _MIRRORS,
    "half turn": ((-1, 0, 0, -1),),
    "all symmetries": (*_MIRRORS, (0, 1, 1, 0), (0, -1, -1, 0), (0, 1, -1, 0), (0, -1, 1, 0)),
}


def solve(task: Task) -> list[SolverAnswer]:
    """Answers from every plan that reproduces all train pairs, at a lower cost for the plainer plan."""
    answers: list[SolverAnswer] = []
    whole, pairs = keeps_size(task), len(task.train)
    for name, extra, colours in _hidden_colours(task, whole):
        for number, (plan, overlap) in enumerate(PLANS):
            outputs = [_answer(pair.input, colour, plan, overlap, whole) for pair, colour in zip(task.train, colours, strict=False)]
            for paint in (-1, *(_new_colours(task) if whole else ())):
                if not all(same_grid(_repaint(pair.input, out, paint), pair.output) for pair, out in zip(task.train, outputs, strict=True)):
                    continue
                for test, (grid, colour) in enumerate(zip(task.tests, colours[pairs:], strict=True)):
                    out = _repaint(grid, _answer(grid, colour, plan, overlap, whole), paint)
                    if out is not None:
                        text = f"fill {name} by {plan}{'' if whole else ', cut out'}{'' if paint < 0 else f', in colour {paint}'}"
                        answers.append(SolverAnswer(test, out, NAME, text, 1.0, 14.0 + extra + number))
    return answers


def _new_colours(task: Task) -> list[int]:
    """The one colour of all cells that change, where there is one."""
    colours = {int(c) for pair in task.train for c in pair.output[pair.input != pair.output]}
    return list(colours) if len(colours) == 1 else []


def _repaint(grid: Grid, filled: Grid | None, colour: int) -> Grid | None:
    """A completion with all its filled cells in one colour, or unchanged for a colour below 0."""
    return filled if filled is None or colour < 0 else frozen(np.where(grid != filled, colour, filled))


def _hidden_colours(task: Task, whole: bool) -> Iterator[tuple[str, float, list[int]]]:
    """(Name, cost, the colour in each input) of the colours that may mark hidden cells; roles only where no colour fits all pairs."""
    grids = inputs_of(task)
    constant = [[colour] * len(grids) for colour in range(COLOURS)]
    fitting = [colours for colours in constant if _may_be_hidden(task, colours, whole)]
    for colours in fitting:
        yield f"colour {colours[0]}", 0.0, colours
    for number, (name, colour_of) in enumerate(_ROLES if not fitting else ()):
        colours = [colour_of(grid) for grid in grids]
        if _may_be_hidden(task, colours, whole):
            yield name, 2.0 + number, colours


def _may_be_hidden(task: Task, colours: list[int], whole: bool) -> bool:
    """Whether in every train pair its colour is the only one that changes, or has a box of the output's size."""
    for pair, colour in zip(task.train, colours, strict=False):
        hidden = pair.input == colour
        if whole:
            if not (hidden | (pair.input == pair.output)).all() or not (pair.output[hidden] != colour).any():
                return False
        else:
            box = bounding_box(hidden)
            if box is None or pair.input[box].shape != pair.output.shape:
                return False
    return True


def _with_most_blocks(grid: Grid) -> int:
    """The colour with most squares of two by two cells; the first of equal ones."""
    corner = grid[:-1, :-1]
    same = (corner == grid[1:, :-1]) & (corner == grid[:-1, 1:]) & (corner == grid[1:, 1:])
    return int(np.bincount(corner[same], minlength=COLOURS).argmax())


# What the hidden cells may be called where each input has them in another colour.
_ROLES: tuple[tuple[str, Callable[[Grid], int]], ...] = (
    ("the colour of most blocks", _with_most_blocks),
    ("the commonest colour", commonest_colour),
    ("the rarest colour", lambda grid: int(rarest_index(np.bincount(grid.ravel(), minlength=COLOURS)))),
)


def _answer(grid: Grid, colour: int, plan: str, overlap: float, whole: bool) -> Grid | None:
    filled = complete(grid, grid == colour, plan, overlap)
    if filled is None or whole:
        return filled
    box = bounding_box(grid == colour)
    return None if box is None else frozen(filled[box])


def complete(grid: Grid, hidden: Array, plan: str, overlap: float) -> Grid | None:
    """The grid with its hidden cells filled where the relations reach them, or None where no relation holds.

    Args:
        hidden: bool (h, w).
        plan: which relations may join cells.
        overlap: share of all cells that must be visible on both sides of a relation.
    """
    symmetries, _, centre = plan.partition(" about a ")
    if centre or plan.startswith("periods"):
        if centre:
            filled = about_centre(grid, hidden, np.array(_TURNS[symmetries]), centre == "colour's centre")
        else:
            filled = by_row_periods(grid, hidden) if plan.endswith("rows") else by_row_periods(grid.T, hidden.T).T
        return frozen(filled) if (filled != grid).any() else None
    cells, visible = np.array(grid).ravel(), ~hidden.ravel()
    parent = np.arange(grid.size)  # a union-find forest of cells
    found = False
    for a, b in _relations(grid.shape, plan):
        seen = visible[a] & visible[b]
        if seen.sum() >= overlap * grid.size and (cells[a][seen] == cells[b][seen]).all():
            found = True
            for p, q in zip(a.tolist(), b.tolist(), strict=True):
                parent[_root(parent, p)] = _root(parent, q)
            if plan.startswith("one"):
                break
    if not found:
        return None
    roots = np.array([_root(parent, k) for k in range(grid.size)])
    colour_of: dict[int, int] = {}
    for k in np.flatnonzero(visible):
        # Relations that agree with the visible cells one by one may contradict each other once joined: then the class stays open.
        colour_of[roots[k]] = int(cells[k]) if colour_of.get(roots[k], int(cells[k])) == cells[k] else -1
    for k in np.flatnonzero(~visible):
        if colour_of.get(roots[k], -1) >= 0:
            cells[k] = colour_of[roots[k]]
    return frozen(cells.reshape(grid.shape))


def _root(parent: Array, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = int(parent[k])
    return k


def _relations(shape: tuple[int, ...], plan: str) -> Iterator[tuple[Array, Array]]:
    """Pairs of index arrays: cell a[k] equals cell b[k] if the relation holds. Long diagonal shifts are left out."""
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
    if "shifts" in plan or "across" in plan:
        for dx in range(1, w):
            yield pair(i, j + dx)
    if "shifts" in plan or "down" in plan:
        for dy in range(1, h):
            yield pair(i + dy, j)
    if "shifts" in plan:
        for dy in range(1, h):
            for dx in range(-min(3, w - 1), min(4, w)):
                if dx:
                    yield pair(i + dy, j + dx)


@jit
def about_centre(grid: Grid, hidden: Array, turns: Array, whole_colours: bool) -> Grid:
    """The grid with its hidden cells filled by symmetries about the centre that most visible cells agree with and none contradicts.

    Args:
        hidden: bool (h, w).
        turns: int64 (symmetries, 4), matrices.
        whole_colours: count only colours of which every cell agrees, such as that of a mark in the centre.
    """
    h, w = grid.shape
    quarter = False
    for t in range(len(turns)):
        quarter = quarter or turns[t, 1] != 0
    best, best_y, best_x = 2, -1, -1
    agreed, open_cells = np.zeros(COLOURS, np.int64), np.zeros(COLOURS, np.int64)
    # (y, x) is twice the centre's place, so that a centre may be between cells; a quarter turn needs an even sum to map cells to cells.
    for y in range(2 * h - 1):
        for x in range(2 * w - 1):
            if quarter and (y + x) % 2:
                continue
            agreed[:] = 0
            open_cells[:] = 0
            fits = True
            for i in range(h):
                for j in range(w):
                    if hidden[i, j] or not fits:
                        continue
                    for t in range(len(turns)):
                        a, b = _map_cell(i, j, y, x, turns[t])
                        if not (0 <= a < h and 0 <= b < w) or hidden[a, b]:
                            open_cells[grid[i, j]] += 1
                        elif grid[a, b] != grid[i, j]:
                            fits = False
                            break
                        elif a != i or b != j:
                            agreed[grid[i, j]] += 1
            total = 0
            for colour in range(COLOURS):
                if fits and not (whole_colours and open_cells[colour] > 0):
                    total += agreed[colour]
            if total > best:
                best, best_y, best_x = total, y, x
    out = grid.copy()
    if best_y >= 0:
        for i in range(h):
            for j in range(w):
                for t in range(len(turns)):
                    a, b = _map_cell(i, j, best_y, best_x, turns[t])
                    if hidden[i, j] and 0 <= a < h and 0 <= b < w and not hidden[a, b]:
                        out[i, j] = grid[a, b]
    return out


@jit
def _map_cell(i: int, j: int, y: int, x: int, turn: Array) -> tuple[int, int]:
    """The image of cell (i, j) under a symmetry about (y / 2, x / 2)."""
    p, q = 2 * i - y, 2 * j - x
    return (turn[0] * p + turn[1] * q + y) // 2, (turn[2] * p + turn[3] * q + x) // 2


@jit
def by_row_periods(grid: Grid, hidden: Array) -> Grid:
    """The grid with the hidden cells of each row filled by the row's smallest period that its visible cells show and do not contradict."""
    h, w = grid.shape
    out = grid.copy()
    tile = np.empty(w, np.int64)
    for i in range(h):
        for p in range(1, w):
            tile[:] = -1
            agreed, fits = 0, True
            for j in range(w):
                if hidden[i, j]:
                    continue
                if tile[j % p] < 0:
                    tile[j % p] = grid[i, j]
                elif tile[j % p] == grid[i, j]:
                    agreed += 1
                else:
                    fits = False
                    break
            if fits and agreed > 0 and tile[:p].min() >= 0:
                for j in range(w):
                    if hidden[i, j]:
                        out[i, j] = tile[j % p]
                break
    return out
