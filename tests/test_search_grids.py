"""The solvers on whole grids and cells: trees, features compared with plain definitions, and rules that each solver must find."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from arc_submit.arc.grid import frozen, grid_id, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import rank_answers
from arc_submit.search.crops import crops
from arc_submit.search.features import DIRECTIONS, best_period, box_owners, cell_features, component_table, depths, lines_of_sight
from arc_submit.search.grid_tools import find_panels, fixed_colours
from arc_submit.search.primitives.splitting import label
from arc_submit.search.solvers import cells, completion, pieces, scan
from arc_submit.search.tree import fit, predict

STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def noise(seed, shape, colours=4, painted=0.5):
    rng = np.random.default_rng(seed)
    return (rng.integers(1, colours, shape) * (rng.random(shape) < painted)).astype(np.int8)


def make_task(rule, inputs):
    grids = [frozen(grid) for grid in inputs]
    return Task("made", tuple(Pair(g, frozen(rule(g))) for g in grids[:-1]), (grids[-1],)), frozen(rule(grids[-1]))


def best(solver, task):
    answers = rank_answers(solver.solve(task), len(task.tests))[0]
    assert answers, "no answer"
    return answers[0]


def test_a_tree_separates_one_colour_from_higher_and_lower_ones():
    colours = np.array([1, 2, 3, 5, 8, 9, 5, 8, 5, 8] * 3, dtype=np.uint8)
    labels = np.where(colours == 5, 8, np.where(colours == 8, 5, colours)).astype(np.int64)
    tree = fit(colours[:, None], labels, np.array([0]), np.array([True]))
    assert tree.errors == 0
    # Colours that the training data lacks are copied, not mapped to a neighbouring number.
    assert predict(tree, np.array([[4], [6], [7]], dtype=np.uint8)).tolist() == [4, 6, 7]


@pytest.mark.parametrize("seed", range(6))
def test_features_agree_with_plain_definitions(seed):
    h, w = np.random.default_rng(seed).integers(3, 9, 2)
    grid = noise(seed, (h, w), 4, (0.2, 0.5, 0.9)[seed % 3])
    seen, distance, other = lines_of_sight(grid)
    for name, (di, dj) in STEPS.items():
        k = DIRECTIONS.index(name)
        for i, j in itertools.product(range(h), range(w)):
            line = []
            a, b = i + di, j + dj
            while 0 <= a < h and 0 <= b < w:
                line.append(int(grid[a, b]))
                a, b = a + di, b + dj
            painted = [n for n, c in enumerate(line) if c]
            assert seen[k, i, j] == (line[painted[0]] if painted else 0)
            assert distance[k, i, j] == (painted[0] + 1 if painted else 0)
            assert other[k, i, j] == next((c for c in line if c and c != grid[i, j]), 0)
    labels, count = label(grid + 1, True, True)
    boxes, own, around = component_table(labels, count, grid)
    deep = depths(labels)
    for k in range(1, count + 1):
        ys, xs = np.nonzero(labels == k)
        assert boxes[k].tolist() == [ys.min(), xs.min(), ys.max(), xs.max()]
        assert own[k].tolist() == np.bincount(grid[ys, xs], minlength=10).tolist()
        touching = [
            grid[i + a, j + b]
            for i, j in zip(ys, xs, strict=True)
            for a, b in STEPS.values()
            if 0 <= i + a < h and 0 <= j + b < w and labels[i + a, j + b] != k
        ]
        assert around[k].tolist() == np.bincount(touching, minlength=10).tolist()
    padded = np.pad(labels, 1)
    for i, j in itertools.product(range(h), range(w)):
        # The distance, in steps in eight directions, to the nearest place outside the component.
        away = [
            max(abs(p - i - 1), abs(q - j - 1)) for p, q in itertools.product(range(h + 2), range(w + 2)) if padded[p, q] != labels[i, j]
        ]
        assert deep[i, j] == min(away)
    owner, nested = box_owners(boxes, count, h, w)
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    for i, j in itertools.product(range(h), range(w)):
        holding = [k for k in range(1, count + 1) if boxes[k, 0] <= i <= boxes[k, 2] and boxes[k, 1] <= j <= boxes[k, 3]]
        assert nested[i, j] == len(holding)
        assert areas[owner[i, j]] == min(areas[k] for k in holding)


def test_a_period_is_found_despite_faulty_cells_and_corrects_them():
    picture = np.tile(np.random.default_rng(0).integers(1, 9, (3, 4)), (4, 3)).astype(np.int8)
    damaged = picture.copy()
    damaged[[1, 5, 8], [2, 9, 4]] = 9
    height, width, votes = best_period(damaged, -1)
    assert (height, width) == (3, 4)
    np.testing.assert_array_equal(votes, picture)


def test_grids_of_all_sizes_have_the_same_feature_columns():
    names = [tuple(cell_features(frozen(noise(k, shape))).names) for k, shape in enumerate([(1, 1), (1, 7), (30, 30), (11, 11)])]
    assert len(set(names)) == 1
    panels = np.zeros((11, 11), np.int8)
    panels[[3, 7]] = panels[:, [3, 7]] = 5
    assert find_panels(panels) == ([(0, 3), (4, 7), (8, 11)], [(0, 3), (4, 7), (8, 11)], 5)
    assert tuple(cell_features(frozen(panels)).names) == names[0]


def test_drawn_features_agree_with_plain_definitions():
    grid, output = noise(1, (6, 7)), noise(2, (6, 7))
    features = scan.drawn_features(grid, output).reshape(6, 7, 18)
    for i, j in itertools.product(range(6), range(7)):
        for k, (di, dj) in enumerate([(-1, 0), (0, -1), (-1, -1), (-1, 1)]):
            line = []
            a, b = i + di, j + dj
            while 0 <= a < 6 and 0 <= b < 7:
                line.append((int(output[a, b]), int(grid[a, b])))
                a, b = a + di, b + dj
            painted = [n for n, (c, _) in enumerate(line) if c]
            assert features[i, j, k] == (line[0][0] if line else 10)
            assert features[i, j, 6 + k] == (line[0][0] if line and line[0][0] != line[0][1] else 0)
            assert features[i, j, 10 + k] == (line[painted[0]][0] if painted else 0)
            assert features[i, j, 14 + k] == (painted[0] + 1 if painted else 0)


def hanging(grid):
    """Below each painted cell of the first row its colour and 5 alternate, which only the cells drawn above determine."""
    out = np.array(grid)
    for j in np.flatnonzero(grid[0]):
        out[1::2, j] = 5
        out[2::2, j] = grid[0, j]
    return out


def test_a_rule_on_drawn_cells_is_found_in_any_direction():
    inputs = []
    for k, height in enumerate((8, 5, 7, 16)):
        grid = np.zeros((height, 6), np.int8)
        grid[0] = noise(k, 6, 5, 0.5)
        grid[0, k] = 1 + k
        inputs.append(grid)
    for turn in (lambda g: g, lambda g: g[::-1]):
        task, solution = make_task(lambda g, turn=turn: turn(hanging(turn(g))), [turn(g) for g in inputs])
        answer = best(scan, task)
        assert same_grid(answer.grid, solution), answer.program
        assert answer.explained == 1


def test_cell_rules_apply_to_a_crop_and_to_a_summary_of_panels():
    inputs = []
    for k in range(5):
        grid = np.zeros((12, 12), np.int8)
        grid[k : k + 5, 2 : 7 + k % 2] = noise(k, (5, 5 + k % 2), 4, 0.7)
        grid[k, 2] = grid[k + 4, 6 + k % 2] = 3
        inputs.append(grid)
    task, solution = make_task(lambda g: np.where(g == 0, 6, g)[np.ix_(g.any(axis=1), g.any(axis=0))], inputs)
    assert same_grid(best(cells, task).grid, solution)

    def panels(seed):
        grid = np.zeros((11, 11), np.int8)
        for i, j in itertools.product(range(3), range(3)):
            grid[4 * i : 4 * i + 3, 4 * j : 4 * j + 3] = noise(9 * seed + 3 * i + j, (3, 3), 2, (0.2, 0.8)[(seed + i * j) % 2])
        grid[[3, 7]] = grid[:, [3, 7]] = 5
        return grid

    def full(grid):
        return np.array([[4 * (np.sum(grid[4 * i : 4 * i + 3, 4 * j : 4 * j + 3] > 0) > 4) for j in range(3)] for i in range(3)])

    task, solution = make_task(full, [panels(k) for k in range(5)])
    answer = best(cells, task)
    assert same_grid(answer.grid, solution), answer.program
    assert "one cell for each panel" in answer.program


def test_cell_rules_apply_to_an_output_scaled_by_the_input_size():
    task, solution = make_task(lambda g: np.kron(g == 2, g), [noise(k, (k % 3 + 2, k % 2 + 3), 4, 0.8) for k in range(6)])
    assert same_grid(best(cells, task).grid, solution)


def test_a_colour_that_no_example_shows_is_fixed_where_a_painted_one_is():
    before = np.array([0, 0, 1, 2, 2])
    assert np.flatnonzero(~fixed_colours(before, np.array([0, 3, 1, 2, 2]))).tolist() == [0]
    assert np.flatnonzero(~fixed_colours(before, np.array([0, 0, 1, 2, 5]))).tolist() == [2]
    assert np.flatnonzero(fixed_colours(before, np.array([0, 0, 3, 3, 5]))).tolist() == [0], "no painted colour is fixed"
    assert not fixed_colours(before + 1, before).any()


def test_agreement_of_several_forests_lowers_the_cost():
    task, solution = make_task(lambda g: np.where(g == 2, 3, g), [noise(k, (6, 6)) for k in range(4)])
    answers = cells.solve(task)
    agreed = [a for a in answers if same_grid(a.grid, solution)]
    assert len(agreed) > len(answers) / 2
    # The minimum cost of an answer; one forest alone would cost more.
    assert 20 <= rank_answers(answers, 1)[0][0].cost < 20.1


def test_pieces_combine_a_pattern_with_a_mask_elsewhere_in_the_grid():
    def rule(grid):
        return np.kron(grid[:, 3:] != 0, grid[:, :3])

    task, solution = make_task(rule, [noise(k, (3, 6), 5, 0.6) for k in range(7)])
    answer = best(pieces, task)
    assert same_grid(answer.grid, solution), answer.program
    assert answer.explained > 0.5


@pytest.mark.parametrize("kind", ["mirrors", "quarter turns", "mark"])
@pytest.mark.parametrize("paint", [None, 7])
def test_completion_finds_a_centre_at_any_place(kind, paint):
    def picture(seed):
        rng = np.random.default_rng(seed)
        part = noise(seed, (4, 4), 4, 0.6)
        part[0, 3] = part[3, 0] = 1
        if kind == "mark":
            # A ring that almost agrees with a centre of its own.
            part = np.zeros((4, 4), np.int8)
            part[:3, :3] = 2 + seed % 3
            part[1, 1] = part[seed % 2, 0] = 0
            part[3, 3] = 8
        if kind == "quarter turns":
            half = np.concatenate([part, np.rot90(part, -1)], axis=1)
            whole = np.concatenate([half, np.rot90(half, 2)])
        else:
            half = np.concatenate([part, part[:, ::-1]], axis=1)
            whole = np.concatenate([half, half[::-1]])
        out = np.zeros((14, 15), np.int8)
        y, x = rng.integers(0, 6, 2)
        out[y : y + 8, x : x + 8] = whole
        shown = out.copy()
        if kind == "mark":
            # Only one quarter and the mark in the middle are visible.
            shown[y + 4 : y + 8, x : x + 8] = 0
            shown[y : y + 8, x + 4 : x + 8] = 0
            shown[y + 3 : y + 5, x + 3 : x + 5] = 8
        else:
            shown[y + 5 : y + 8, x + 4 : x + 8] = 0
        if paint is not None:
            out = np.where(out != shown, paint, out)
        return frozen(shown), frozen(out)

    examples = [picture(k) for k in range(4)]
    task = Task("centre", tuple(Pair(a, b) for a, b in examples[:3]), (examples[3][0],))
    assert same_grid(best(completion, task).grid, examples[3][1])


@pytest.mark.parametrize("down", [False, True])
def test_completion_continues_lines_of_different_periods_and_of_one_period(down):
    def lines(seed, period):
        rng = np.random.default_rng(seed)
        whole = np.zeros((5, 16), np.int8)
        shown = np.zeros((5, 16), np.int8)
        for i in (1, 3, 4):
            p = period or int(rng.integers(2, 4))
            tile = rng.permutation(np.arange(1, 7))[:p]
            if period:
                # A hole in the tile, and equal ends: the first and the last visible cell agree by chance.
                tile[3], tile[4] = 0, tile[0]
                if i == 4:
                    # The row above without the hole: rows must not be filled from each other.
                    tile = np.where(whole[3, :p] == 0, 9, whole[3, :p])
            whole[i] = np.resize(tile, 16)
            shown[i, : 2 * p + (period == 0)] = whole[i, : 2 * p + (period == 0)]
        return frozen(shown.T if down else shown), frozen(whole.T if down else whole)

    for period in (0, 5):
        examples = [lines(k, period) for k in range(4)]
        task = Task("lines", tuple(Pair(a, b) for a, b in examples[:3]), (examples[3][0],))
        assert same_grid(best(completion, task).grid, examples[3][1])


def test_crops_are_valid_grids_and_do_not_modify_their_input():
    for seed, shape in enumerate([(1, 1), (2, 5), (11, 11), (30, 30)]):
        grid = noise(seed, shape)
        before = grid.copy()
        for name, crop in crops():
            part = crop(frozen(grid))
            if part is not None:
                assert min(part.shape) > 0, name
                assert max(part.shape) <= 30, name
                assert part.dtype == np.int8
                assert set(np.unique(part)) <= set(np.unique(grid))
        np.testing.assert_array_equal(grid, before)


@pytest.mark.parametrize("solver", [cells, scan, completion, pieces])
def test_random_tasks_end_soon_and_are_deterministic(solver):
    def grids(seed, count, shape):
        return [frozen(np.random.default_rng(seed + k).integers(0, 10, shape)) for k in range(count)]

    for seed, (shape, out) in enumerate(
        [((30, 30), (30, 30)), ((30, 30), (28, 28)), ((10, 10), (30, 30)), ((1, 1), (1, 1)), ((1, 30), (2, 1))]
    ):
        pairs = tuple(Pair(a, b) for a, b in zip(grids(seed, 10, shape), grids(seed + 50, 10, out), strict=True))
        task = Task("noise", pairs, tuple(grids(99, 1, shape)))
        started = time.process_time()
        first = solver.solve(task)
        assert time.process_time() - started < 30  # about a second without compilation
        again = solver.solve(task)
        assert [(a.test, grid_id(a.grid), a.score) for a in first] == [(a.test, grid_id(a.grid), a.score) for a in again]
