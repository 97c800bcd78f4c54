"""Lists of clauses: rules learned from made-up pairs, and the promises of learning and painting on small tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.search.beside_features import GROUP, beside_table, largest_rectangle, own_squares
from arc_submit.search.features import FAR
from arc_submit.search.grid_tools import output_cells
from arc_submit.search.solvers import clauses
from arc_submit.search.solvers.clauses import COPY, Clause, OpenCells, learn, paint
from arc_submit.search.solvers.growth import Literals
from arc_submit.search.store import Array

CORNERS = {(-1, -1): 1, (-1, 2): 2, (2, -1): 3, (2, 2): 4}


def blocks(places: list[tuple[int, int]]) -> Grid:
    """Squares of two by two cells of colour 5."""
    grid = np.zeros((9, 9), np.int8)
    for y, x in places:
        grid[y : y + 2, x : x + 2] = 5
    return frozen(grid)


def coloured_corners(grid: Grid) -> Array:
    """The diagonal neighbours of each square, where they are inside the grid, in a colour for each corner."""
    out = np.array(grid)
    for y, x in np.argwhere(grid == 5):
        if (grid[y : y + 2, x : x + 2] == 5).sum() == 4:
            for (dy, dx), colour in CORNERS.items():
                if 0 <= y + dy < 9 and 0 <= x + dx < 9:
                    out[y + dy, x + dx] = colour
    return out


def solved(rule: Callable[[Grid], Array], inputs: list[Grid]) -> tuple[list[clauses.SolverAnswer], Grid]:
    pairs = tuple(Pair(grid, frozen(rule(grid))) for grid in inputs[:-1])
    return clauses.solve(Task("made", pairs, (inputs[-1],))), frozen(rule(inputs[-1]))


def test_a_colour_for_each_place_beside_an_object_is_learned() -> None:
    answers, solution = solved(
        coloured_corners, [blocks([(2, 3)]), blocks([(1, 1), (6, 5)]), blocks([(0, 4), (5, 1)]), blocks([(7, 7), (3, 2)])]
    )
    assert same_grid(answers[0].grid, solution)
    assert answers[0].explained == 1
    assert answers[0].program.count(";") == 3, "a clause for each corner"


def test_a_copied_colour_is_learned_for_colours_that_no_pair_has() -> None:
    def line_to_the_right(grid: Grid) -> Array:
        out = np.array(grid)
        ((y, x),) = np.argwhere(grid)
        out[y, x:] = grid[y, x]
        return out

    inputs = []
    for k, (y, x) in enumerate([(1, 2), (4, 0), (2, 4), (3, 3)]):
        grid = np.zeros((6, 7), np.int8)
        grid[y, x] = (2, 7, 4, 9)[k]
        inputs.append(frozen(grid))
    answers, solution = solved(line_to_the_right, inputs)
    assert any(same_grid(answer.grid, solution) and answer.explained == 1 for answer in answers)


def test_a_colour_that_only_the_test_input_has_changes_where_all_colours_change() -> None:
    inputs = [np.array([[a, 0, b], [0, a, 0], [b, b, a]]) for a, b in ((1, 2), (2, 3), (3, 1), (8, 9))]
    answers, solution = solved(lambda grid: np.asarray(grid[::-1]), [frozen(grid) for grid in inputs])
    assert any(same_grid(answer.grid, solution) for answer in answers)


def test_other_sizes_and_large_tasks_have_no_answer() -> None:
    large = np.zeros((30, 30), np.int8)
    other = Pair(frozen(large), frozen(large[:2]))
    assert clauses.solve(Task("other", (other, other), (frozen(large),))) == []
    changed = large.copy()
    changed[0, 0] = 1
    task = Task("large", (Pair(frozen(large), frozen(changed)),) * 4, (frozen(large),))
    assert output_cells(task) > clauses.MAX_CELLS
    assert clauses.solve(task) == []


def example(rows: list[tuple[int, int, int]], target: list[int]) -> OpenCells:
    """Cells with the features colour, a second colour and a number; the tests are "the number is 1" and "the number is above 0"."""
    features = np.array(rows, np.uint8)
    passed = np.stack([features[:, 2] == 1, features[:, 2] > 0], axis=1).astype(np.float32)
    return OpenCells(np.ones(len(rows), np.bool_), features, passed, np.array(target, np.int64))


LITERALS = Literals(("one", "some"), np.array([2, 2]), np.array([65, 128]), np.array([1.0, 1.5]))
COPIED = np.array([0, 1])


def test_a_clause_is_never_wrong_and_the_list_reaches_every_change() -> None:
    rows = [(0, 3, 0), (0, 3, 1), (0, 3, 2), (0, 3, 2)]
    rule = learn([example(rows, [0, 3, 6, 6])], LITERALS, COPIED)
    assert rule is None, "no test tells the cells with a 2 from the one with a 1"
    rule = learn([example(rows, [0, 3, 3, 3])], LITERALS, COPIED)
    assert rule is not None
    assert [(clause.takes, clause.literals) for clause in rule] == [(3, (1,))], "a colour costs less than a copy"
    rule = learn([example(rows, [0, 3, 3, 3]), example([(0, 7, 1), (0, 7, 0)], [7, 0])], LITERALS, COPIED)
    assert rule is not None
    assert [(clause.takes, clause.literals) for clause in rule] == [(COPY + 1, (1,))], "only a copy is right in both pairs"


def test_equal_cells_with_different_outputs_have_no_list() -> None:
    assert learn([example([(0, 0, 1), (0, 0, 1)], [2, 0])], LITERALS, COPIED) is None


def test_the_first_clause_wins_and_a_place_outside_is_not_copied() -> None:
    cells = example([(0, 10, 1), (0, 4, 1), (0, 4, 2)], [0, 0, 0])
    rule = [Clause(COPY + 1, (0,), 1.0), Clause(8, (1,), 1.0)]
    assert paint(frozen(np.zeros((1, 3), int)), cells, rule).tolist() == [[8, 4, 8]]


def test_places_beside_objects_are_features() -> None:
    grid = np.zeros((7, 9), np.int8)
    grid[2:4, 3:5] = 5
    grid[0, 0], grid[6, 8] = 3, 4
    table = beside_table(frozen(grid))
    columns = {name: table.features[:, k].reshape(grid.shape).tolist() for k, name in enumerate(table.names)}
    assert columns["quarter_up_left"][3][3] == 3
    assert columns["quarter_down_right"][2][4] == 4
    assert columns["quarter_up_right"][3][3] == 0, "no mark there"
    assert columns["beside_part_steps_8"][2][6] == 2
    assert columns["beside_part_commonest"][2][6] == 5
    assert columns["beside_part_size"][2][6] == 4
    assert columns["beside_part_down"][5][3] - columns["beside_part_down"][2][3] == 2
    assert set(table.groups) == {GROUP}


def test_the_middle_of_two_marks_is_a_feature() -> None:
    grid = np.zeros((5, 9), np.int8)
    grid[2, 1] = grid[2, 7] = 6
    table = beside_table(frozen(grid))
    steps = table.features[:, table.names.index("middle_steps_4")].reshape(grid.shape)
    assert [steps[2, 4], steps[1, 4], steps[2, 2], steps[4, 3]] == [0, 1, 2, 3]


def test_without_objects_or_with_noise_nothing_is_beside_a_cell() -> None:
    noise = np.indices((10, 10)).sum(axis=0) % 2 * 3 + np.indices((10, 10))[0] % 2
    for grid in (np.zeros((3, 4), int), noise):
        table = beside_table(frozen(grid))
        assert (table.features[:, table.names.index("beside_part_steps_8")] == FAR).all()
        assert (table.features[:, table.names.index("quarter_up_left")] == 0).all()


def test_copies_of_the_nearest_object_s_cells() -> None:
    grid = np.zeros((6, 8), np.int8)
    grid[2:4, 2:5] = [[1, 2, 3], [4, 5, 6]]
    table = beside_table(frozen(grid))
    copies = ("nearest", "flipped_down", "flipped_across", "opposite", "repeated", "mirrored")

    def colours(y: int, x: int) -> list[int]:
        return [int(table.features[y * 8 + x, table.names.index(f"beside_object_{name}")]) for name in copies]

    assert colours(2, 2) == [1, 4, 3, 6, 1, 1]
    assert colours(1, 1) == [1, 4, 3, 6, 6, 1]
    assert colours(5, 7) == [6, 3, 4, 1, 6, 1]
    assert colours(0, 0) == [1, 4, 3, 6, 2, 5]
    assert all(table.is_colour[table.names.index(f"beside_part_{name}")] for name in copies)


def test_each_cell_of_an_object_may_take_the_colour_of_the_mark_in_its_quarter() -> None:
    def rule(grid: Grid) -> Array:
        out = np.where(grid == 8, 8, 0)
        for (y, x), (quarter_y, quarter_x) in zip(np.argwhere(grid == 8), itertools.product((0, 5), (0, 5)), strict=True):
            part = grid[quarter_y : quarter_y + 5, quarter_x : quarter_x + 5]
            out[y, x] = part[(part > 0) & (part != 8)][0]
        return out

    rng = np.random.default_rng(3)
    inputs = []
    for _ in range(5):
        grid = np.zeros((10, 10), np.int8)
        grid[4:6, 4:6] = 8
        colours = rng.permutation([1, 2, 3, 4, 6, 7, 9])
        for k, (y, x) in enumerate(itertools.product((0, 5), (0, 5))):
            dy, dx = rng.integers(0, 3, 2)
            grid[y + dy + (y > 0) * 2, x + dx + (x > 0) * 2] = colours[k]
        inputs.append(frozen(grid))
    answers, solution = solved(rule, inputs)
    assert any(same_grid(answer.grid, solution) for answer in answers), [a.program for a in answers]


def test_the_largest_square_of_one_colour_around_a_cell() -> None:
    grid = frozen([[1, 1, 2, 2, 2], [1, 1, 2, 2, 2], [1, 3, 2, 2, 2]])
    assert own_squares(grid).tolist() == [[2, 2, 3, 3, 3], [2, 2, 3, 3, 3], [1, 1, 3, 3, 3]]


def test_the_largest_free_rectangle_has_two_rows_and_columns_at_least() -> None:
    rows = ["....1...", "1...1111", "1...1...", "11111..."]
    mask = np.array([[c == "." for c in row] for row in rows])
    largest = largest_rectangle(mask)
    assert largest.sum() == 9
    assert largest[:3, 1:4].all()
    assert not largest_rectangle(np.eye(4) == 1).any()


def test_the_nearest_mark_has_no_colour_where_two_are_as_near() -> None:
    grid = np.zeros((1, 7), np.int8)
    grid[0, 0], grid[0, 6] = 1, 2
    table = beside_table(frozen(grid))
    assert table.features[:, table.names.index("nearest_mark_colour")].tolist() == [1, 1, 1, 0, 2, 2, 2]
    assert table.features[:, table.names.index("nearest_mark_steps_4")].tolist() == [0, 1, 2, 3, 2, 1, 0]
