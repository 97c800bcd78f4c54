"""Outputs of another size than their inputs: inputs that are continued, panels that are chosen, panels as cells, crops."""

from __future__ import annotations

import numpy as np
import pytest

from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.search import task_search
from arc_submit.search.answers import SolverAnswer, rank_answers
from arc_submit.search.crops import crops
from arc_submit.search.grid_tools import enlarged, find_unequal_panels
from arc_submit.search.ranking import WEIGHTS
from arc_submit.search.reductions import reductions
from arc_submit.search.solvers import arranged, assembly, extended, fitted, panels, pieces
from arc_submit.search.solvers.objects import selection, summary
from arc_submit.search.task_search import EFFORTS, SOLVERS, TaskSearch


def make_task(rule, inputs):
    """The last input is the test input."""
    grids = [frozen(grid) for grid in inputs]
    outputs = [frozen(rule(grid)) for grid in grids]
    return Task("made", tuple(Pair(a, b) for a, b in zip(grids[:-1], outputs[:-1], strict=True)), (grids[-1],)), outputs[-1]


def is_best(solve, rule, inputs):
    task, expected = make_task(rule, inputs)
    row = rank_answers(solve(task), 1)[0]
    return bool(row) and same_grid(row[0].grid, expected)


def stairs(step, first, height, width):
    """Bars of two cells that step aside every `step` rows; the ground is colour 3, so that colour 0 is no ground."""
    grid = np.full((height, width), 3, np.int8)
    for i in range(height):
        j = first + i // step * 2
        grid[i, j : j + 2] = 0 if i % step else 5
    return grid


@pytest.mark.parametrize("place", ["top left", "bottom left"])
def test_a_pattern_goes_on_outside_of_the_input(place):
    numbers = [(3, 0, 7, 14), (2, 1, 6, 13), (2, 0, 7, 12), (2, 2, 6, 15)]
    wholes = [stairs(step, first, 11, width) for step, first, _, width in numbers]
    inputs = [whole[:height] if place == "top left" else whole[-height:] for whole, (_, _, height, _) in zip(wholes, numbers, strict=True)]
    pairs = tuple(Pair(frozen(a), frozen(b)) for a, b in zip(inputs[:-1], wholes[:-1], strict=True))
    row = rank_answers(extended.solve(Task("made", pairs, (frozen(inputs[-1]),))), 1)[0]
    assert same_grid(row[0].grid, frozen(wholes[-1]))
    assert row[0].program == f"around the input, {place}, by one shift"


def test_the_cells_around_the_input_follow_a_rule():
    def framed(grid):
        out = np.pad(grid, 2, mode="edge")
        out[np.ix_([0, 1, -2, -1], [0, 1, -2, -1])] = 7
        return np.where(out == 1, 4, out)  # the input's colour 1 becomes 4

    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 4, shape) for shape in ((2, 3), (3, 3), (4, 2), (3, 5))]
    assert is_best(extended.solve, framed, inputs)


def panelled(seed, odd, gap):
    """Five panels of 3 x 4 cells, side by side or one above the other, one of them with a mark of two colours; and that panel."""
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(5):
        part = np.where(rng.random((3, 4)) < 0.5, 2, 0)
        part[1, 1] = 6 if k == odd else 2
        parts.append(part)
    line = np.full((gap, 4), 5)
    grid = np.concatenate([piece for part in parts for piece in (part, line)][: None if gap == 0 else -1])
    return grid, parts[odd]


@pytest.mark.parametrize("gap", [0, 1])
def test_the_panel_that_differs_is_the_output(gap):
    made = [panelled(seed, odd, gap) for seed, odd in enumerate((1, 4, 0, 2))]
    pairs = tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1])
    row = rank_answers(panels.solve(Task("made", pairs, (frozen(made[-1][0]),))), 1)[0]
    assert same_grid(row[0].grid, frozen(made[-1][1]))


def test_strips_lie_along_the_longer_side():
    made = [panelled(seed, odd, 0) for seed, odd in enumerate((1, 4, 0, 2))]
    made[1] = made[1][0].T, made[1][1].T
    pairs = tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1])
    row = rank_answers(panels.solve(Task("made", pairs, (frozen(made[-1][0]),))), 1)[0]
    assert row[0].program.endswith("colours = 3") or "strip" in row[0].program
    assert same_grid(row[0].grid, frozen(made[-1][1]))


def test_panels_of_different_sizes_become_cells():
    small = np.array([[1, 2, 4], [0, 3, 1]], np.int8)
    grid = np.full((9, 11), 7, np.int8)
    spans = [(0, 2), (3, 9)], [(0, 4), (5, 6), (7, 11)]
    for i, (a, b) in enumerate(spans[0]):
        for j, (c, d) in enumerate(spans[1]):
            grid[a:b, c:d] = small[i, j]
    assert find_unequal_panels(frozen(grid)) == spans
    pair = Pair(frozen(grid), frozen(small))
    restated = {r.name: r.task for r in reductions(Task("made", (pair, pair), (frozen(grid),)))}
    assert same_grid(restated["panels of any size as cells"].tests[0], frozen(small))


@pytest.mark.parametrize(
    ("name", "grow"), [("repeated", lambda g: np.tile(g, (2, 2))), ("enlarged", lambda g: np.kron(g, np.ones((2, 2))))]
)
def test_rules_of_equal_sizes_apply_to_enlarged_inputs(name, grow):
    def rule(grid):
        out = grow(grid)
        return np.where((np.roll(out, 1, axis=0) == 1) & (out == 0), 4, out)  # what has a cell of colour 1 above it

    rng = np.random.default_rng(2)
    task, expected = make_task(rule, [rng.integers(0, 3, (3, k + 3)) for k in range(4)])
    reduction = next(r for r in reductions(task) if r.name == f"on the input {name}")
    assert same_grid(reduction.task.tests[0], frozen(grow(task.tests[0])))
    assert same_grid(reduction.lift(0, expected), expected)


def test_crops_find_squares():
    by_name = dict(crops())
    squares = [np.array([[0, 3], [3, 3]]), np.array([[1, 2], [4, 0]]), np.array([[5, 5], [0, 0]])]
    assert same_grid(by_name["the panel: most colours"](frozen(np.concatenate(squares))), frozen(squares[1]))


def test_lists_of_clauses_are_tried_on_the_repeated_input_alone(monkeypatch):
    rng = np.random.default_rng(0)
    task, _ = make_task(lambda g: np.tile(g, (2, 2)), [rng.integers(0, 3, (3, k + 3)) for k in range(4)])
    monkeypatch.setattr(task_search, "reductions", lambda task: [reduction for reduction in reductions(task) if reduction.light])
    monkeypatch.setattr(task_search, "_light_cells", lambda _: [])
    monkeypatch.setattr(task_search.objects, "solve", lambda _: [])
    monkeypatch.setattr(task_search.clauses, "solve", lambda task: [SolverAnswer(0, task.tests[0], "clauses", "same", 1.0, 10.0)])
    row = task_search.search_task(task, EFFORTS["quick"], ["reduced"])[0]
    assert [answer.program for answer in row] == ["on the input repeated: clauses: same"]
    assert same_grid(row[0].grid, frozen(np.tile(task.tests[0], (2, 2))))


def best_pieces(pairs):
    """The first answer of `pieces` to the last of the pairs, and that pair's output."""
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in pairs[:-1]), (frozen(pairs[-1][0]),))
    return rank_answers(pieces.solve(task), 1)[0][0].grid, frozen(pairs[-1][1])


@pytest.mark.parametrize("ground", [0, 5])
def test_a_palette_is_shown_in_the_places_of_a_shape_of_blocks(ground):
    def made(side, seed):
        rng = np.random.default_rng(seed)
        shape = np.eye(3, dtype=np.int8)[rng.permutation(3)] | np.eye(3, dtype=np.int8)
        palette = rng.integers(1, 5, (3, 3)).astype(np.int8)
        grid = np.zeros((20, 21), np.int8)
        grid[1 : 1 + 3 * side, 2 : 2 + 3 * side] = 6 * enlarged(shape, side)
        grid[16:19, 17:20] = palette
        colours = np.arange(10, dtype=np.int8)
        colours[[0, ground]] = ground, 0
        return colours[grid], colours[palette * (shape > 0)]

    answer, expected = best_pieces([made(side, seed) for seed, side in enumerate((3, 4, 3, 4))])
    assert same_grid(answer, expected)


def test_a_shape_of_blocks_is_repeated_in_its_own_places():
    def made(side, cells):
        shape = np.zeros((3, 3), np.int8)
        shape.flat[cells] = 4
        grid = np.zeros((13, 14), np.int8)
        grid[0 : 3 * side, 1 : 1 + 3 * side] = enlarged(shape, side)
        return grid, np.kron(shape > 0, shape)

    answer, expected = best_pieces([made(2, [0, 1, 4, 5, 8]), made(3, [2, 4, 6, 7]), made(4, [0, 3, 4, 8]), made(3, [1, 2, 3, 4, 6])])
    assert same_grid(answer, expected)


def test_crops_find_panels_of_other_sizes_and_the_blocks_of_one_object_alone():
    grid = np.full((9, 11), 8, np.int8)
    grid[:2, :3], grid[3:, :3], grid[:2, 4:], grid[3:, 4:] = [[6, 1, 2], [0, 0, 7]], 3, 4, 5
    by_name = dict(crops())
    assert same_grid(by_name["the smallest panel of any size"](frozen(grid)), frozen(grid[:2, :3]))
    assert same_grid(by_name["the largest panel of any size"](frozen(grid)), frozen(grid[3:, 4:]))
    grid = np.zeros((10, 10), np.int8)
    shape = np.array([[3, 3, 0], [3, 0, 0], [3, 3, 3]], np.int8)
    grid[:9, :9] = enlarged(shape, 3)
    grid[4, 7] = 2  # another object within the box of the largest one
    assert same_grid(by_name["the largest object as cells"](frozen(grid)), frozen(shape))


def test_colours_are_listed_along_the_axis_of_their_regions():
    def regions(colours, across):
        grid = np.repeat(np.repeat(np.array(colours, np.int8), 4)[None], 5, axis=0)
        grid[2, 3:-1:4] = grid[2, 4::4]  # the borders are not straight
        return grid if across else grid.T

    made = [
        (regions(c, across), np.array([c]) if across else np.array([c]).T)
        for c, across in (([1, 2, 3], True), ([5, 4, 2], False), ([7, 1, 6, 2], True), ([3, 8, 1, 9], False))
    ]
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1]), (frozen(made[-1][0]),))
    assert same_grid(rank_answers(summary.solve(task), 1)[0][0].grid, frozen(made[-1][1]))


def test_the_blocks_of_one_object_become_cells_in_the_colour_of_the_others():
    rng = np.random.default_rng(1)
    inputs, outputs = [], []
    for colour in (3, 4, 6, 7):
        grid, shape = np.zeros((12, 12), np.int8), rng.random((3, 3)) < 0.6
        shape[1], shape[:, 1], shape[0, 0] = True, True, False
        shown = enlarged(shape, 2)
        grid[1 : 1 + len(shown), 1 : 1 + len(shown)] = 2 * shown
        grid[10, 2] = grid[9, 6] = colour
        inputs.append(grid)
        outputs.append(colour * shape)
    pairs = tuple(Pair(frozen(a), frozen(b)) for a, b in zip(inputs[:-1], outputs[:-1], strict=True))
    row = rank_answers(selection.solve(Task("made", pairs, (frozen(inputs[-1]),))), 1)[0]
    assert same_grid(row[0].grid, frozen(outputs[-1]))


def test_the_solvers_have_a_place_in_the_first_pass_and_in_the_ranking():
    made = [panelled(seed, odd, 1) for seed, odd in enumerate((1, 4, 0, 2))]
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1]), (frozen(made[-1][0]),))
    search = TaskSearch(task, EFFORTS["quick"], ["panels", "extended", "fitted"])
    assert next(answer.solver for batch, _ in search.next_pass() for answer in batch) == "panels"
    assert {"panels", "extended", "fitted"} <= set(SOLVERS)
    assert {"solver panels", "solver extended", "solver fitted"} <= set(WEIGHTS)


def best_fitted(pairs):
    """The first answer of `fitted` to the last of the pairs, and its rule."""
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in pairs[:-1]), (frozen(pairs[-1][0]),))
    best = rank_answers(fitted.solve(task), 1)[0][0]
    return best, frozen(pairs[-1][1])


@pytest.mark.parametrize("stretch", [(1, 1), (2, 2), (1, 3)])
def test_an_object_is_laid_into_a_frame_in_the_size_that_fits(stretch):
    def framed(shape, colour, place):
        shape = np.array(shape, np.int8)
        large = np.kron(shape, np.ones(stretch, np.int8))
        grid = np.zeros((20, 21), np.int8)
        out = np.pad(large, 1, constant_values=colour)
        grid[10 : 10 + out.shape[0], place : place + out.shape[1]] = np.pad(0 * large, 1, constant_values=colour)
        grid[1 : 1 + shape.shape[0], 4 : 4 + shape.shape[1]] = shape
        return grid, out

    shapes = [[[0, 5, 0], [5, 5, 5], [0, 5, 5]], [[6, 6], [0, 6]], [[5, 0, 4], [5, 5, 5]], [[3, 3, 0], [0, 3, 3], [0, 3, 0]]]
    best, expected = best_fitted([framed(shape, 1 + k % 2, 2 + k) for k, shape in enumerate(shapes)])
    assert same_grid(best.grid, expected)
    assert best.program.endswith({(1, 1): "as they are", (2, 2): "enlarged", (1, 3): "stretched"}[stretch])


def test_objects_cover_the_cells_of_their_colours_and_the_others_are_left_out():
    def halves(seed):
        rng = np.random.default_rng(seed)
        shapes = [np.array([[4, 6, 6], [4, 4, 4]]), np.array([[4, 4], [7, 4], [4, 9]]), np.array([[8, 4], [4, 4]])]
        left, right = np.full((14, 9), 1, np.int8), np.full((14, 9), 2, np.int8)
        out = right.copy()
        for k, shape in enumerate(shapes):
            (h, w), x, y = shape.shape, rng.integers(6, size=2), rng.integers(5 * k, 5 * k + 2)
            left[y : y + h, x[0] : x[0] + w] = shape
            if k < 2:  # the last one has no cells below
                right[y : y + h, x[1] : x[1] + w][shape != 4] = shape[shape != 4]
                out[y : y + h, x[1] : x[1] + w] = shape
        return np.concatenate([left, right] if seed % 2 else [right, left], axis=1), out

    best, expected = best_fitted([halves(seed) for seed in range(4)])
    assert same_grid(best.grid, expected)
    assert best.program == "the plainer half, the other objects laid on it as they are"


def test_an_object_is_mirrored_so_that_its_colours_are_beside_the_same_ones():
    def between_bars(width, colours, mirrored):
        shape = np.repeat(np.array(colours, np.int8), (width, 2))[None].repeat(3, axis=0)
        shape[0, 0] = shape[2, width] = 0
        out = np.zeros((5, width + 4), np.int8)
        out[1:-1, 0], out[1:-1, -1], out[1:-1, 1:-1] = colours[0], colours[1], shape
        out[np.ix_([0, -1], [0, -1])] = 7
        grid = np.zeros((12, 14), np.int8)
        grid[6:11, 2 : 6 + width] = out
        grid[7:10, 3 : 5 + width] = 0
        grid[1:4, 5 : 7 + width] = shape[:, ::-1] if mirrored else shape
        return grid, out

    best, expected = best_fitted([between_bars(2, (3, 4), True), between_bars(3, (5, 3), False), between_bars(4, (6, 8), True)])
    assert same_grid(best.grid, expected)
    assert best.program.endswith("mirrored, beside what is there")


def test_objects_are_laid_on_each_other_at_the_cell_that_each_has():
    def scattered(seed):
        rng = np.random.default_rng(seed)
        out = np.full((3, 3), 5, np.int8)
        out[0], out[2], out[1, 0], out[1, 2] = rng.integers(1, 5, 3), rng.integers(6, 10, 3), 6, 3
        out[0, 1] = out[0, 0]
        grid = np.zeros((11, 12), np.int8)
        for k, rows in enumerate(([0], [1], [2])):
            y, x = 4 * k, int(rng.integers(9))
            grid[y : y + 3, x : x + 3][rows] = out[rows]
            grid[y + 1, x + 1] = 5
        return grid, out

    best, expected = best_fitted([scattered(seed) for seed in range(4)])
    assert same_grid(best.grid, expected)
    assert best.program.startswith("the objects laid on each other")


@pytest.mark.parametrize("frame", [False, True])
def test_objects_are_put_together_to_the_only_rectangle_or_frame_that_they_fill(frame):
    def scattered(height, width):
        """The columns from left to right, or the cells around a frame, divided into pieces of different colours."""
        cells = [(y, x) for x in range(width) for y in range(height)]
        cuts = (height + 1, 3 * height - 1)
        if frame:
            cells = [(0, x) for x in range(2, width)] + [(y, width - 1) for y in range(1, height)]
            cells += [(height - 1, x) for x in range(width - 2, -1, -1)] + [(y, 0) for y in range(height - 2, -1, -1)] + [(0, 1)]
            cuts = (width - 1, width + height - 2, 2 * width + height - 3)  # a piece for each corner
        grid, out = np.zeros((26, 26), np.int8), np.zeros((height, width), np.int8)
        for number, (begin, end) in enumerate(zip((0, *cuts), (*cuts, len(cells)), strict=True)):
            ys, xs = np.array(cells[begin:end]).T
            out[ys, xs] = 2 + number
            grid[ys - ys.min() + 9 * (number % 2) + 3, xs - xs.min() + 9 * (number // 2)] = 2 + number
        return grid, out

    pairs = [scattered(*size) for size in ((4, 5), (5, 6), (4, 6), (6, 5))]
    best, expected = best_fitted(pairs)
    assert same_grid(best.grid, expected)
    assert best.program == f"objects put together to a {'frame' if frame else 'rectangle'}"


def test_objects_that_fill_more_than_one_rectangle_give_none():
    grid = np.zeros((5, 9), np.int8)
    grid[0, :4], grid[2, :4] = 3, 4
    assert assembly.assembled(frozen(grid), False, True, None) is None  # on each other, either way, or behind one another
    grid[4, 3] = 4  # in the shape of an L
    assert assembly.assembled(frozen(grid), False, True, (3, 3)) is None


@pytest.mark.parametrize("layout", ["row by row, there and back", "column by column", "in a square"])
def test_colours_of_objects_are_listed_in_a_layout(layout):
    def listed(colours, seed):
        rng = np.random.default_rng(seed)
        grid, out = np.zeros((12, 12), np.int8), np.zeros((3, 3), np.int8)
        grid[rng.permutation(12)[: len(colours)], np.sort(rng.permutation(12)[: len(colours)])] = colours
        if layout == "in a square":
            return grid, np.repeat(np.array(colours, np.int8)[None], len(colours), axis=0)
        places = [0, 3, 6, 1, 4, 7, 2, 5, 8] if layout == "column by column" else [0, 1, 2, 5, 4, 3, 6, 7, 8]
        out.ravel()[places[: len(colours)]] = colours
        return grid, out

    made = [listed(colours, k) for k, colours in enumerate(([3, 1, 2, 5], [4, 2, 7, 6, 1], [9, 8, 2], [5, 3, 2, 1, 7, 4]))]
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1]), (frozen(made[-1][0]),))
    best = rank_answers(summary.solve(task), 1)[0][0]
    assert same_grid(best.grid, frozen(made[-1][1]))
    assert best.program.endswith(layout)


def test_the_picture_is_that_of_the_train_pair_whose_input_has_the_same_shape():
    shapes = [np.array(rows, np.int8) for rows in ([[1, 0], [1, 1]], [[1, 1, 0], [0, 1, 1]], [[0, 1], [1, 0]])]

    def shown(shape, colour, top, side):
        grid = np.zeros((10, 11), np.int8)
        large = enlarged(shapes[shape] * colour, side)
        grid[top : top + large.shape[0], 3 : 3 + large.shape[1]] = large
        return grid, np.array([[shape + 5, 1]])

    made = [shown(*one) for one in ((0, 2, 1, 1), (1, 3, 2, 2), (2, 4, 0, 1), (1, 2, 4, 1), (0, 6, 3, 2), (2, 9, 5, 2))]
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1]), (frozen(made[-1][0]),))
    row = rank_answers(summary.solve(task), 1)[0]
    assert same_grid(row[0].grid, frozen(made[-1][1]))
    assert row[0].program == "picture for the shape of what is painted"


def test_a_bar_for_each_of_the_largest_objects_where_a_pair_has_only_one():
    def bars(largest, small, length):
        grid = np.zeros((11, 11), np.int8)
        for k, (colour, area) in enumerate([(c, length) for c in largest] + [(c, 1 + n) for n, c in enumerate(small)]):
            grid[2 * k + k % 2, k : k + area] = colour
        return grid, np.repeat(np.array(largest, np.int8)[None], length, axis=0)

    made = [bars(*one) for one in (([4, 6], [2, 7], 4), ([3], [5, 2, 8], 5), ([7, 2, 5], [1], 3), ([9, 1], [3, 4], 5))]
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1]), (frozen(made[-1][0]),))
    assert same_grid(rank_answers(arranged.solve(task), 1)[0][0].grid, frozen(made[-1][1]))


def test_the_object_with_most_cells_of_a_colour():
    def objects(seed, right):
        rng = np.random.default_rng(seed)
        grid = np.zeros((4, 20), np.int8)
        counts = rng.permutation([1, 2, 1 + seed % 2])
        counts[right] = 3 + seed % 2
        for k, count in enumerate(counts):
            box = np.full(9, 1 + 2 * (k == seed % 3), np.int8)
            box[rng.permutation(9)[:count]] = 7
            grid[:3, 5 * k : 5 * k + 3] = box.reshape(3, 3)
        grid[:3, 15:18], grid[1, 15:18], grid[0, 15] = seed + 2, 8, 8  # more cells of its rarest colour than another one
        return grid, grid[:3, 5 * right : 5 * right + 3]

    made = [objects(seed, right) for seed, right in enumerate((1, 0, 2, 0))]
    task = Task("made", tuple(Pair(frozen(a), frozen(b)) for a, b in made[:-1]), (frozen(made[-1][0]),))
    row = rank_answers(selection.solve(task), 1)[0]
    assert same_grid(row[0].grid, frozen(made[-1][1]))
    assert "most cells of 7 = 1" in row[0].program
