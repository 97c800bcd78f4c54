"""Rules that draw: a forest predicts the colour of every output cell from the input and from the output cells drawn before it.

Cells are drawn in reading order, once in each of four orientations, so that a rule can continue a pattern, which no rule over the input
alone can. The trees are trained with the true output above and to the left, and tested on held-out pairs with their own drawing. Applies
where an output has its input's size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.colours import recolourings
from arc_submit.search.features import OUT, FeatureTable, cell_table
from arc_submit.search.grid_tools import held_out_folds, inputs_of, keeps_size, output_cells
from arc_submit.search.jit import jit
from arc_submit.search.solvers.cells import Forest, describe_tree, fit_forest
from arc_submit.search.store import Array
from arc_submit.search.tree import passes

NAME = "scan"
TREES = 3
MAX_ROWS = 6000  # cells of all train outputs
_GROUPS = ("near", "parts", "lines", "drawn")
_STEPS = np.array([[-1, 0], [0, -1], [-1, -1], [-1, 1], [-2, 0], [0, -2]])  # to cells drawn before
_STEP_NAMES = ("up", "left", "up_left", "up_right", "two_up", "two_left")
_COLUMN_NAMES = tuple(f"drawn_{n}" for n in _STEP_NAMES) + tuple(
    f"{kind}_{n}" for kind in ("new", "line", "since") for n in _STEP_NAMES[:4]
)
_ORDERS = ("down and right", "down and left", "up and right", "up and left")


def solve(task: Task) -> list[SolverAnswer]:
    """An answer for each order of drawing that reproduces every train pair."""
    if not keeps_size(task) or output_cells(task) > MAX_ROWS:
        return []
    version = recolourings(task)[0]
    answers = [answer for order in range(len(_ORDERS)) for answer in _solve_order(version.task, order)]
    return [replace(a, grid=version.undo(a.test, a.grid), cost=a.cost + version.cost) for a in answers]


def _solve_order(task: Task, order: int) -> list[SolverAnswer]:
    inputs = [_flip(grid, order) for grid in inputs_of(task)]
    outputs = [_flip(pair.output, order) for pair in task.train]
    pairs = len(outputs)
    static = [cell_table(grid).only(_GROUPS) for grid in inputs]
    tables = [_with_drawn(table, grid, out) for table, grid, out in zip(static, inputs, outputs, strict=False)]
    forest = fit_forest(tables, outputs, TREES)
    first = forest.trees[0]
    if first.errors or not any(tree.nodes[:, 0].max() >= static[0].features.shape[1] for tree in forest.trees):
        return []  # a rule that uses no drawn cell belongs to the solver "cells"
    predicted = 0
    for train, (k,) in held_out_folds(pairs):
        trained = fit_forest([tables[i] for i in train], [outputs[i] for i in train], TREES)
        predicted += same_grid(_draw(trained, static[k], inputs[k]), outputs[k])
    text = f"draw {_ORDERS[order]}: {describe_tree(first, tables[0])}"
    cost = 30 + 4 * first.leaves
    grids = [_flip(_draw(forest, table, grid), order) for table, grid in zip(static[pairs:], inputs[pairs:], strict=True)]
    return [SolverAnswer(k, grid, NAME, text, predicted / pairs, cost) for k, grid in enumerate(grids)]


def _flip(grid: Grid, order: int) -> Grid:
    """The grid with its rows, its columns or both reversed; its own inverse."""
    return frozen(grid[:: -1 if order >= 2 else 1, :: -1 if order % 2 else 1])


def _with_drawn(table: FeatureTable, grid: Grid, output: Grid) -> FeatureTable:
    """The table with the columns of `drawn_features`, of which the last four are distances and the others colours."""
    return FeatureTable(
        np.concatenate([table.features, drawn_features(grid, output)], axis=1),
        table.shape,
        table.names + _COLUMN_NAMES,
        np.concatenate([table.is_colour, np.arange(18) < 14]),
        table.groups + ("drawn",) * 18,
    )


def _draw(forest: Forest, table: FeatureTable, grid: Grid) -> Grid:
    nodes = np.full((len(forest.trees), max(len(tree.nodes) for tree in forest.trees), 5), -1, np.int64)
    for k, tree in enumerate(forest.trees):
        nodes[k, : len(tree.nodes)] = tree.nodes
    return frozen(draw(nodes, forest.fixed, table.features, grid))


@jit
def _look_back(grid: Grid, output: Grid, state: Array, i: int, j: int, row: Array) -> None:
    """Fill `row` with the features of the cells drawn around a cell, and update `state` for the cell.

    state: int64 (h, w, 4, 2), for each cell and direction the last painted colour and its distance (0: none).
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
    """The features of the finished output above and to the left of every cell, uint8 (cells, 18), named _COLUMN_NAMES."""
    h, w = grid.shape
    out = np.zeros((h * w, 18), np.uint8)
    state = np.zeros((h, w, 4, 2), np.int64)
    for i in range(h):
        for j in range(w):
            _look_back(grid, output, state, i, j, out[i * w + j])
    return out


@jit
def draw(nodes: Array, fixed: Array, features: Array, grid: Grid) -> Grid:
    """The grid that trees draw cell by cell in reading order, by majority; the first tree decides ties.

    Args:
        nodes: int64 (trees, nodes, 5), as in tree.Tree, padded with -1.
        fixed: bool (10,), colours that never change.
        features: uint8 (cells, columns), the features of the input.
    """
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
            _look_back(grid, output, state, i, j, row[columns:])
            if fixed[grid[i, j]]:
                output[i, j] = grid[i, j]
                continue
            votes[:] = 0
            for t in range(nodes.shape[0]):
                node = 0
                while nodes[t, node, 0] >= 0:
                    node = nodes[t, node, 2] if passes(row[nodes[t, node, 0]], nodes[t, node, 1]) else nodes[t, node, 3]
                option = nodes[t, node, 4]
                votes[option if option < 10 else row[option - 10]] += 3 if t == 0 else 2
            output[i, j] = votes[:10].argmax()
    return output
