"""Rules that grow: lines that stop, floods and patterns are learned and drawn, compared with plain definitions."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.search.features import cell_table
from arc_submit.search.solvers import growth


def make_task(rule, inputs):
    grids = [frozen(np.asarray(grid)) for grid in inputs]
    return Task("made", tuple(Pair(g, frozen(rule(g))) for g in grids[:-1]), (grids[-1],)), frozen(rule(grids[-1]))


def seeds_and_walls(seed, count, shape=(9, 10), seeds=2, walls=6):
    rng = np.random.default_rng(seed)
    grids = []
    for _ in range(count):
        grid = np.zeros(shape, int)
        grid.ravel()[rng.permutation(grid.size)[:walls]] = 5
        grid.ravel()[rng.choice(np.flatnonzero(grid.ravel() == 0), seeds, replace=False)] = 2
        grids.append(grid)
    return grids


def rays(steps):
    def rule(grid):
        out = np.array(grid)
        for i, j in np.argwhere(grid == 2):
            for dy, dx in steps:
                y, x = i + dy, j + dx
                while 0 <= y < grid.shape[0] and 0 <= x < grid.shape[1] and grid[y, x] == 0:
                    out[y, x] = 2
                    y, x = y + dy, x + dx
        return out

    return rule


def flood(grid):
    out = np.array(grid)
    todo = [tuple(p) for p in np.argwhere(grid == 2)]
    while todo:
        i, j = todo.pop()
        for y, x in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if 0 <= y < grid.shape[0] and 0 <= x < grid.shape[1] and out[y, x] == 0:
                out[y, x] = 2
                todo.append((y, x))
    return out


def rooms(seed, count):
    """A seed in one of several rooms with walls between them."""
    rng = np.random.default_rng(seed)
    grids = []
    for _ in range(count):
        grid = np.zeros((9, 9), int)
        grid[int(rng.integers(2, 7))] = 5
        grid[:, int(rng.integers(2, 7))] = 5
        free = np.flatnonzero(grid.ravel() == 0)
        grid.ravel()[rng.choice(free)] = 2
        grids.append(grid)
    return grids


@pytest.mark.parametrize(
    ("rule", "inputs"),
    [
        (rays([(1, 0)]), seeds_and_walls(1, 5)),
        (rays([(0, 1), (0, -1)]), seeds_and_walls(2, 5)),
        (rays([(1, 1)]), seeds_and_walls(3, 5)),
        (flood, rooms(4, 5)),
    ],
    ids=["down to a wall", "to both sides", "diagonally", "flood"],
)
def test_growth_from_seeds_is_learned(rule, inputs):
    task, solution = make_task(rule, inputs)
    answers = growth.solve(task)
    assert any(same_grid(answer.grid, solution) and answer.explained > 0.5 for answer in answers), [a.program for a in answers]


def test_a_colour_that_only_the_test_input_has_may_change_where_all_painted_colours_do():
    def alternating(grid):
        out = np.zeros_like(grid)
        for i, j in np.argwhere(grid):
            out[i, j] = 2 if j and out[i, j - 1] == 1 else 1
        return out

    rng = np.random.default_rng(1)
    grids = []
    for colours in ((3, 4, 5, 6, 7),) * 4 + ((3, 4, 5, 6, 7, 8, 9),):
        starts, lengths = rng.integers(0, 3, (2, 7))
        runs = np.array([[s <= j <= s + 3 + n for j in range(8)] for s, n in zip(starts, lengths, strict=True)])
        grids.append(np.where(runs, rng.permutation(np.resize(colours, 56)).reshape(7, 8), 0))
    task, solution = make_task(alternating, grids)
    answers = growth.solve(task)
    assert any(same_grid(answer.grid, solution) for answer in answers), [a.program for a in answers]


def test_a_rule_without_growth_gives_no_answer():
    task, _ = make_task(lambda g: np.where(g == 2, 3, g), seeds_and_walls(5, 4))
    assert growth.solve(task) == []


def test_unpredictable_pairs_do_not_count_as_explained():
    rng = np.random.default_rng(6)
    task, _ = make_task(lambda g: np.where((rng.random(g.shape) < 0.2) & (g == 0), 3, g), seeds_and_walls(7, 4))
    assert all(answer.explained == 0 for answer in growth.solve(task))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_growth_is_the_least_fixed_point_of_its_clauses(seed):
    """Growth one cell and one clause at a time, in any order, reaches the same cells."""
    rng = np.random.default_rng(seed)
    grid = frozen(rng.integers(0, 3, (6, 7)) * (rng.random((6, 7)) < 0.3))
    table = cell_table(grid)
    literals = growth.make_literals([table], [grid == 0])
    chosen = tuple(int(k) for k in rng.integers(0, len(literals.names), 1))
    neighbours = rng.integers(0, len(growth._OFFSETS), 2)
    rule = [growth.Clause(int(neighbours[0]), -1, False, chosen, 7, 1.0), growth.Clause(int(neighbours[1]), -1, True, (), 7, 1.0)]
    field = growth.GrowthField(grid, grid == 0, literals.passed(table))

    out, grown = np.array(grid), np.zeros(grid.shape, bool)
    may = field.passed[:, chosen[0]].reshape(grid.shape)
    steps = [list(growth._OFFSETS.values())[k] for k in neighbours]
    cells = [(i, j) for i in range(6) for j in range(7)]
    for _ in range(60):
        rng.shuffle(cells)
        for i, j in cells:
            if grid[i, j] == 0 and not grown[i, j]:
                seen = [(i + dy, j + dx) for dy, dx in steps]
                inside = [0 <= y < 6 and 0 <= x < 7 for y, x in seen]
                if (may[i, j] and inside[0] and out[seen[0]] != 0) or (inside[1] and grown[seen[1]]):
                    out[i, j], grown[i, j] = 7, True
    assert same_grid(growth.grow(field, rule), frozen(out))


def test_literals_agree_with_their_names():
    grid = frozen(np.random.default_rng(0).integers(0, 4, (6, 6)))
    table = cell_table(grid)
    literals = growth.make_literals([table], [np.ones(grid.shape, bool)])
    passed = literals.passed(table)
    for k, name in enumerate(literals.names):
        column, relation, value = name.split(" ")
        values = table.features[:, table.names.index(column)]
        plain = {"=": values == int(value), "<=": values <= int(value), ">": values > int(value)}[relation]
        assert (passed[:, k] == plain).all(), name
        assert plain.any()
        assert not plain.all()


def test_a_random_task_ends_soon():
    rng = np.random.default_rng(0)
    pairs = tuple(Pair(*(frozen(rng.integers(0, 10, (30, 30))) for _ in range(2))) for _ in range(10))
    assert growth.solve(Task("noise", pairs, (frozen(rng.integers(0, 10, (30, 30))),))) == []
    most = tuple(Pair(*(frozen(rng.integers(0, 10, (20, 19))) for _ in range(2))) for _ in range(10))
    started = time.process_time()
    growth.solve(Task("noise", most, (frozen(rng.integers(0, 10, (20, 20))),)))
    assert time.process_time() - started < 60


def test_grids_of_one_cell_have_no_rule_of_growth():
    """All cells have the same features, so that no test tells them apart."""
    cells = [frozen(np.full((1, 1), colour)) for colour in (0, 1, 2)]
    task = Task("one", (Pair(cells[0], cells[0]), Pair(cells[1], cells[2])), (cells[0],))
    assert growth.solve(task) == []
