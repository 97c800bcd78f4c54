"""Rules that draw: a forest tells the colour of every output cell from the input and from the output cells that are already drawn.

Cells are drawn in reading order, in each of the orientations in turn, so that a rule can say "go on as above", which no rule over the
input alone can. The trees are taught with the true output above and to the left, and tested on pairs they were not shown with what they
drew themselves. Works where an output has its input's size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.colours import recolourings
from arc_submit.search.features import OUT, cell_features
from arc_submit.search.jit import jit
from arc_submit.search.solvers.cells import Forest, Table, describe, fit_forest, make_table
from arc_submit.search.store import Array
from arc_submit.search.tree import holds

NAME = "scan"
TREES = 3
MAX_ROWS = 6000  # cells of all train outputs
_GROUPS = ("near", "parts", "lines", "drawn")
_STEPS = np.array([[-1, 0], [0, -1], [-1, -1], [-1, 1], [-2, 0], [0, -2]])
_NAMES = ("up", "left", "up_left", "up_right", "two_up", "two_left")
_ORDERS = ("down and right", "down and left", "up and right", "up and left")


def solve(task: Task) -> list[Answer]:
    """An answer for each order of drawing that reproduces every train pair."""
    if any(p.input.shape != p.output.shape for p in task.train) or sum(p.output.size for p in task.train) > MAX_ROWS:
        return []
    answers: list[Answer] = []
    for version in recolourings(task)[:1]:
        for order in range(len(_ORDERS)):
            for answer in _solve_order(version.task, order):
                answers.append(replace(answer, grid=version.undo(answer.test, answer.grid), cost=answer.cost + version.cost))
    return answers


def _solve_order(task: Task, order: int) -> list[Answer]:
    inputs = [_turned(pair.input, order) for pair in task.train] + [_turned(grid, order) for grid in task.tests]
    outputs = [_turned(pair.output, order) for pair in task.train]
    pairs = len(outputs)
    static = [make_table(cell_features(grid)).only(_GROUPS) for grid in inputs]
    tables = [_with_drawn(table, grid, out) for table, grid, out in zip(static, inputs, outputs, strict=False)]
    forest = fit_forest(tables, outputs, TREES)
    first = forest.trees[0]
    if first.errors or not any(tree.nodes[:, 0].max() >= static[0].features.shape[1] for tree in forest.trees):
        return []  # a rule that looks at nothing drawn is one for the other solver
    held_out = 0
    for k in range(pairs if pairs > 1 else 0):
        rest = [i for i in range(pairs) if i != k]
        taught = fit_forest([tables[i] for i in rest], [outputs[i] for i in rest], TREES)
        held_out += same_grid(_draw(taught, static[k], inputs[k]), outputs[k])
    text = f"draw {_ORDERS[order]}: {describe(first, tables[0])}"
    cost = 30 + 4 * first.leaves
    return [
        Answer(k, _turned(_draw(forest, static[pairs + k], inputs[pairs + k]), order), NAME, text, held_out / pairs, cost)
        for k in range(len(task.tests))
    ]


def _turned(grid: Grid, order: int) -> Grid:
    """The grid with its rows, its columns or both reversed: its own inverse."""
    return frozen(grid[:: -1 if order >= 2 else 1, :: -1 if order % 2 else 1])


def _with_drawn(table: Table, grid: Grid, output: Grid) -> Table:
    drawn = drawn_features(grid, output)
    colours = [True] * 6 + [True] * 4 + [True] * 4 + [False] * 4
    first = _NAMES[:4]
    names = [f"drawn_{n}" for n in _NAMES] + [f"{kind}_{n}" for kind in ("new", "line", "since") for n in first]
    return Table(
        np.concatenate([table.features, drawn], axis=1),
        table.shape,
        (*table.names, *names),
        np.concatenate([table.colours, np.array(colours)]),
        (*table.groups, *(["drawn"] * len(names))),
    )


def _draw(forest: Forest, table: Table, grid: Grid) -> Grid:
    nodes = np.full((len(forest.trees), max(len(tree.nodes) for tree in forest.trees), 5), -1, np.int64)
    for k, tree in enumerate(forest.trees):
        nodes[k, : len(tree.nodes)] = tree.nodes
    return frozen(draw(nodes, forest.fixed, table.features, grid))


@jit
def _look(grid: Grid, output: Grid, state: Array, i: int, j: int, row: Array) -> None:
    """Fill a row with what is drawn around a cell, and note in the state what its lines hold so far.

    state: int64 (h, w, 4, 2), for each cell and direction the last painted colour and how far back it is (0: none).
    """
    h, w = grid.shape
    for k in range(6):
        a, b = i + _STEPS[k, 0], j + _STEPS[k, 1]
        inside = 0 <= a < h and 0 <= b < w
        row[k] = output[a, b] if inside else OUT
        if k < 4:
            row[6 + k] = output[a, b] if inside and output[a, b] != grid[a, b] else 0
            state[i, j, k, :] = 0
            if inside:
                if output[a, b] != 0:
                    state[i, j, k, 0], state[i, j, k, 1] = output[a, b], 1
                elif state[a, b, k, 1] > 0:
                    state[i, j, k, 0], state[i, j, k, 1] = state[a, b, k, 0], state[a, b, k, 1] + 1
            row[10 + k] = state[i, j, k, 0]
            row[14 + k] = state[i, j, k, 1]


@jit
def drawn_features(grid: Grid, output: Grid) -> Array:
    """uint8 (cells, 18): what every cell sees of the finished output above it and to its left."""
    h, w = grid.shape
    out = np.zeros((h * w, 18), np.uint8)
    state = np.zeros((h, w, 4, 2), np.int64)
    for i in range(h):
        for j in range(w):
            _look(grid, output, state, i, j, out[i * w + j])
    return out


@jit
def draw(nodes: Array, fixed: Array, features: Array, grid: Grid) -> Grid:
    """The grid that trees draw, cell by cell in reading order, by majority; the first tree decides ties."""
    h, w = grid.shape
    output = np.zeros((h, w), np.int8)
    state = np.zeros((h, w, 4, 2), np.int64)
    columns = features.shape[1]
    row = np.zeros(columns + 18, np.uint8)
    votes = np.zeros(OUT + 1, np.int64)
    for i in range(h):
        for j in range(w):
            for c in range(columns):
                row[c] = features[i * w + j, c]
            _look(grid, output, state, i, j, row[columns:])
            if fixed[grid[i, j]]:
                output[i, j] = grid[i, j]
                continue
            votes[:] = 0
            for t in range(nodes.shape[0]):
                node = 0
                while nodes[t, node, 0] >= 0:
                    node = nodes[t, node, 2] if holds(row[nodes[t, node, 0]], nodes[t, node, 1]) else nodes[t, node, 3]
                option = nodes[t, node, 4]
                votes[option if option < 10 else row[option - 10]] += 3 if t == 0 else 2
            output[i, j] = votes[:10].argmax()
    return output
