"""Restated tasks: on parts of their grids, on a part of the output, and turned; joining or lifting must restore the original."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.arc.grid import frozen, grid_id, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.search.divisions import MAX_CELLS, MAX_PARTS, divisions, join_answers
from arc_submit.search.grid_tools import oriented, unoriented
from arc_submit.search.programs import Effort
from arc_submit.search.reductions import reductions, turns
from arc_submit.search.solvers import cells
from arc_submit.search.solvers.staged import first_stage
from arc_submit.search.task_search import batches

SMALL = Effort(work=2_000_000, size_work=500_000, pieces=5_000)


def make_task(rule, inputs):
    grids = [frozen(np.asarray(grid)) for grid in inputs]
    return Task("made", tuple(Pair(g, frozen(rule(g))) for g in grids[:-1]), (grids[-1],)), frozen(rule(grids[-1]))


def scattered(seed, count, shape=(7, 8), colours=4, share=0.3):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, colours, shape) * (rng.random(shape) < share) for _ in range(count)]


def panelled(seed, count, colours=4):
    rng = np.random.default_rng(seed)
    grids = []
    for _ in range(count):
        grid = np.full((7, 7), 5)
        for i, j in ((0, 0), (0, 4), (4, 0), (4, 4)):
            grid[i : i + 3, j : j + 3] = rng.integers(0, colours, (3, 3))
        grids.append(grid)
    return grids


def each_panel(change):
    def rule(grid):
        out = np.array(grid)
        for i, j in ((0, 0), (0, 4), (4, 0), (4, 4)):
            out[i : i + 3, j : j + 3] = change(grid[i : i + 3, j : j + 3])
        return out

    return rule


def squares(seed, count):
    """Framed squares of different sizes that do not touch."""
    rng = np.random.default_rng(seed)
    grids = []
    for _ in range(count):
        grid = np.zeros((12, 12), int)
        for i, j in ((0, 0), (0, 6), (6, 1), (6, 7)):
            side = int(rng.integers(3, 6))
            grid[i : i + side, j : j + side] = 3
            grid[i + 1 : i + side - 1, j + 1 : j + side - 1] = rng.integers(0, 3, (side - 2, side - 2))
        grids.append(grid)
    return grids


def each_square(grid):
    out = np.array(grid)
    for i, j in ((0, 0), (0, 6), (6, 1), (6, 7)):
        side = 3
        while i + side < 12 and j + side < 12 and grid[i, j + side] == 3:
            side += 1
        out[i : i + side, j : j + side] = grid[i : i + side, j : j + side][:, ::-1]
    return out


def bars(seed):
    """A row in which each colour has one cell."""
    row = np.zeros((1, 6), int)
    row[0, np.random.default_rng(seed).permutation(6)[:3]] = [1, 2, 4]
    return row


CASES = {
    "each panel": (each_panel(lambda p: p[::-1]), panelled(1, 3)),
    "each panel as a block": (lambda g: each_panel(lambda p: p.T)(g)[np.ix_([0, 1, 2, 4, 5, 6], [0, 1, 2, 4, 5, 6])], panelled(2, 3)),
    "each object": (each_square, squares(3, 3)),
    "each colour": (lambda g: np.where(g > 0, g, np.max(g, axis=0)), [np.concatenate([bars(k), np.zeros((4, 6), int)]) for k in range(4)]),
    "each row": (lambda g: np.sort(g, axis=1), [np.random.default_rng(k).integers(0, 4, (3, 5)) for k in range(4)]),
    "each column": (lambda g: np.sort(g, axis=0), [np.random.default_rng(k).integers(0, 4, (5, 3)) for k in range(4)]),
}


@pytest.mark.parametrize("name", CASES)
def test_right_answers_to_all_parts_join_to_the_right_grid(name):
    rule, inputs = CASES[name]
    task, solution = make_task(rule, inputs)
    division = next(d for d in divisions(task) if d.name == name)
    # With the test input as a train pair too, the outputs of its parts are known.
    known = Task("known", (*task.train, Pair(task.tests[0], solution)), task.tests)
    whole = next((d for d in divisions(known) if d.name == name), None)
    assert whole is not None
    outputs = {grid_id(pair.input): pair.output for pair in whole.task.train}
    parts = [outputs[grid_id(division.task.tests[p])] for p in division.parts[0]]
    assert same_grid(division.join(0, parts), solution)
    assert len(division.task.train) + len(division.task.tests) <= MAX_PARTS


def test_a_rule_on_panels_is_found_by_a_solver_without_panels():
    task, solution = make_task(each_panel(lambda p: p[:, ::-1]), panelled(4, 4))
    division = next(d for d in divisions(task) if d.name == "each panel")
    answers = join_answers(cells.solve(division.task, 3, 4), division)
    assert any(same_grid(answer.grid, solution) and answer.explained == 1 for answer in answers)


def test_no_division_where_equal_parts_differ_in_their_outputs_or_cells_outside_change():
    inputs = [np.array([[1, 2, 1, 3], [1, 2, 1, 3], [3, 3, 1, k]]) for k in (1, 2, 3, 4)]
    task, _ = make_task(lambda g: g + np.arange(len(g))[:, None] % 2, inputs)
    assert not [d.name for d in divisions(task) if d.name == "each row"]
    moved, _ = make_task(lambda g: np.roll(g, 1, axis=0), squares(5, 4))
    assert not [d.name for d in divisions(moved) if d.name.startswith("each object")]


def test_a_rule_without_an_answer_to_one_part_gives_no_answer():
    task, _ = make_task(*CASES["each panel"])
    division = next(d for d in divisions(task) if d.name == "each panel")
    answers = cells.solve(division.task, 3, 4)
    missing = division.parts[0][0]
    assert join_answers(answers, division)
    assert join_answers([a for a in answers if a.test != missing], division) == []


def test_divisions_of_random_tasks_are_bounded():
    rng = np.random.default_rng(0)
    pairs = tuple(Pair(*(frozen(rng.integers(0, 10, (30, 30))) for _ in range(2))) for _ in range(10))
    assert list(divisions(Task("noise", pairs, (frozen(rng.integers(0, 10, (30, 30))),)))) == []
    many, _ = make_task(lambda g: g[:, ::-1], [rng.integers(0, 10, (30, 30)) for _ in range(4)])
    for division in divisions(many):
        assert sum(pair.output.size for pair in division.task.train) <= MAX_CELLS


grids = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1)).map(
    lambda t: frozen(np.random.default_rng(t[2]).integers(0, 10, t[:2]))
)


@settings(max_examples=60, deadline=None)
@given(grids, st.integers(0, 7))
def test_unoriented_is_the_inverse_of_oriented(grid, k):
    assert same_grid(unoriented(oriented(grid, k), k), grid)
    assert len({(g.shape, g.tobytes()) for g in (oriented(frozen([[1, 2], [3, 4]]), j) for j in range(8))}) == 8


@settings(max_examples=60, deadline=None)
@given(grids, st.integers(1, 7))
def test_examples_of_different_orientation_are_turned_alike(grid, k):
    pairs = tuple(Pair(oriented(grid, j), oriented(grid[:, ::-1], j)) for j in (0, k))
    task = Task("made", pairs, (oriented(grid, 5),))
    own = len({(g.shape, g.tobytes()) for g in (oriented(grid, j) for j in range(8))}) == 8
    for turn in turns(task):
        assert same_grid(turn.task.train[0].input, turn.task.train[1].input)
        if own:  # a symmetric grid may be alike in several orientations
            assert same_grid(turn.task.train[0].output, turn.task.train[1].output)
            assert same_grid(turn.lift(0, turn.task.train[0].output), oriented(grid[:, ::-1], 5))


def test_a_rule_whose_direction_depends_on_the_input_is_found_turned():
    def rule(grid):
        """Every 2 falls to the full edge, below or to the right, and leaves a trail."""
        out = np.array(grid)
        below = grid[-1].min() > 0
        for i, j in np.argwhere(grid == 2):
            out[(slice(i, -1), j) if below else (i, slice(j, -1))] = 2
        return out

    inputs = []
    for seed in range(6):
        grid = np.zeros((7, 7), int)
        for row, column in enumerate(np.random.default_rng(seed).permutation(6)[:2]):
            grid[row + 1, column] = 2
        grid[-1] = 8
        inputs.append(grid if seed % 2 == 0 else grid.T)
    task, solution = make_task(rule, inputs)
    answers = [a for batch in batches(task, SMALL, ("turned",)) for a in batch]
    assert any(same_grid(a.grid, solution) and a.solver == "turned" and a.explained == 1 for a in answers)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("2 x 3 times", lambda g: np.tile(g[::-1], (2, 3))),
        ("enlarged 2 times", lambda g: np.kron(g.T, np.ones((2, 2), int))),
        ("a part of a symmetric output", lambda g: np.concatenate([g, g[:, ::-1]], axis=1)),
        ("a part of a symmetric output", lambda g: np.concatenate([g, g[:-1][::-1]])),
    ],
)
def test_of_a_repeating_output_only_a_part_is_predicted(name, rule):
    task, solution = make_task(rule, [grid + (np.indices(grid.shape).sum(axis=0) == 3) * 5 for grid in scattered(6, 4, (4, 4), share=0.8)])
    reduction = next(r for r in reductions(task) if r.name == name)
    assert all(small.output.size < pair.output.size for small, pair in zip(reduction.task.train, task.train, strict=True))
    for k, pair in enumerate(task.train):
        assert same_grid(reduction.lift(0, reduction.task.train[k].output), pair.output)
    answers = [a for batch in batches(task, SMALL, ("reduced",)) for a in batch]
    assert any(same_grid(a.grid, solution) for a in answers)


def fallers():
    """Objects of one colour above a wall."""
    shapes = (((0, 0), (0, 1), (1, 0)), ((0, 0), (1, 0), (2, 0), (1, 1)), ((0, 0), (0, 1)), ((0, 0), (1, 0), (1, 1)))
    grids = []
    for (row, column), shape in zip(((1, 2), (2, 4), (2, 1), (0, 5)), shapes, strict=True):
        grid = np.zeros((8, 8), int)
        grid[7] = 2
        for i, j in shape:
            grid[row + i, column + j] = 3
        grids.append(grid)
    return grids


def falls_and_is_covered(grid):
    """The object falls onto the wall, and a line is drawn above it, as wide as the object."""
    rows, columns = np.nonzero(grid == 3)
    out = np.where(grid == 3, 0, grid)
    steps = 6 - rows.max()
    out[rows.min() + steps - 1, columns.min() : columns.max() + 1] = 8
    out[rows + steps, columns] = 3
    return out


def test_what_an_action_on_objects_leaves_is_learnt_from_its_result():
    task, solution = make_task(falls_and_is_covered, fallers())
    stage = first_stage(task)
    for pair, left in zip(task.train, stage.task.train, strict=True):
        assert same_grid(left.input, frozen(np.where(pair.output == 8, 0, pair.output)))
    answers = [a for batch in batches(task, SMALL, ("staged",)) for a in batch]
    assert any(same_grid(a.grid, solution) and a.explained > 0.5 and a.program.startswith("after move down") for a in answers)
    assert not any(same_grid(a.grid, solution) for batch in batches(task, SMALL, ("objects",)) for a in batch)


def test_an_action_that_explains_everything_or_little_leaves_no_stage():
    whole, _ = make_task(lambda grid: np.where(falls_and_is_covered(grid) == 8, 0, falls_and_is_covered(grid)), fallers())
    little, _ = make_task(lambda grid: falls_and_is_covered(grid) + 8 * (np.indices(grid.shape)[1] == 7) * (grid == 0), fallers())
    assert first_stage(whole) is None
    assert first_stage(little) is None
