"""Rules about related objects and outputs put together from parts: each kind is learned from a small made-up task."""

from __future__ import annotations

import numpy as np
import pytest

from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.search import task_search
from arc_submit.search.answers import SolverAnswer, rank_answers
from arc_submit.search.ranking import WEIGHTS
from arc_submit.search.solvers import arranged, related
from arc_submit.search.solvers.objects.scenes import segmentations
from arc_submit.search.solvers.related.conditions import relational_traits
from arc_submit.search.solvers.related.relations import larger_one, reference, scaled_key, turned_key
from arc_submit.search.solvers.related.relations import related as table_of
from arc_submit.search.task_search import EFFORTS, SOLVERS, TaskSearch

PLUS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
CORNER = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 0]])
BLOCK = np.array([[1, 1], [1, 1]])
BAR = np.array([[1, 1, 1]])


def made(pairs):
    """A task of (input, output) pairs, of which the last is the test, and its output."""
    grids = [(frozen(a), frozen(b)) for a, b in pairs]
    return Task("made", tuple(Pair(a, b) for a, b in grids[:-1]), (grids[-1][0],)), grids[-1][1]


def with_shapes(side, shapes):
    """An empty square grid with shapes at places: (mask, colour, top, left)."""
    grid = np.zeros((side, side), np.int8)
    for mask, colour, top, left in shapes:
        grid[top : top + mask.shape[0], left : left + mask.shape[1]][mask > 0] = colour
    return grid


def first(module, task):
    return rank_answers(module.solve(task), 1)[0][0]


def scene(grid):
    return next(segmentations([frozen(grid)])).scenes[0]


def test_enclosed_objects_and_copies_of_other_sizes_are_related():
    frame = np.ones((6, 6), np.int8)
    frame[1:5, 1:5] = 0
    one = scene(with_shapes(12, [(frame, 5, 0, 0), (PLUS, 2, 1, 1), (np.kron(PLUS, np.ones((2, 2), np.int8)), 3, 6, 6)]))
    frame_place, plus, large = (next(k for k, o in enumerate(one.objects) if o.colour == c) for c in (5, 2, 3))
    assert np.argwhere(table_of(one, "encloses")).tolist() == [[frame_place, plus]]
    assert np.argwhere(table_of(one, "is enclosed by")).tolist() == [[plus, frame_place]]
    assert reference(one, "the one that is enclosed") == plus
    assert not table_of(one, "has the turned shape of")[plus, large]
    assert table_of(one, "has the scaled shape of")[plus, large]
    assert reference(one, "the one of colour 7") == -1
    found = relational_traits(one)
    assert found["has the shape of the one that is enclosed (2: is it)"][[frame_place, plus, large]].tolist() == [0, 2, 0]
    assert found["has the scaled shape of the one that is enclosed (2: is it)"][[frame_place, plus, large]].tolist() == [0, 2, 1]
    assert larger_one(one, plus, "is enclosed by") == frame_place
    assert larger_one(one, frame_place, "encloses") == -1


def test_turned_and_scaled_shapes_have_equal_keys():
    one = scene(with_shapes(14, [(CORNER, 1, 0, 0), (CORNER[::-1], 2, 5, 0), (np.kron(CORNER, np.ones((2, 2), np.int8)), 3, 5, 5)]))
    keys = [turned_key(o) for o in one.objects]
    assert keys[0] == keys[1] != keys[2]
    assert len({scaled_key(o) for o in one.objects}) == 1


def key_pair(key, colour, places, other):
    """Objects of the shape in the frame take its colour, but not a larger copy; two objects of another shape have two colours."""
    frame = np.ones((5, 5), np.int8)
    frame[1:4, 1:4] = 0
    fixed = [(frame, 5, 0, 0), (key, colour, 1, 1), (other, 1, 1, 8), (other, 7, 6, 9)]
    if key is BLOCK:
        fixed.append((np.ones((4, 4), np.int8), 1, 9, 5))
    return (with_shapes(14, fixed + [(key, c, *place) for place in places]) for c in (1, colour))


def test_objects_of_the_shape_of_a_key_take_its_colour():
    task, truth = made([
        key_pair(BLOCK, 2, [(6, 1), (10, 10)], CORNER),
        key_pair(CORNER, 3, [(7, 3)], BLOCK),
        key_pair(BAR, 4, [(7, 1), (12, 3)], PLUS),
        key_pair(PLUS, 6, [(8, 2), (10, 10)], BAR),
    ])  # fmt: skip
    answer = first(related, task)
    assert same_grid(answer.grid, truth)
    assert (answer.solver, answer.explained) == ("related", 1)
    assert "shape of the one that" in answer.program


def line_pair(colour, rows, dots):
    """Dots in their line's rows or columns move beside it; dots of another colour vanish."""
    grid = np.zeros((10, 10), np.int8)
    grid[:, 4] = colour
    out = grid.copy()
    for y, x, of_line in dots:
        grid[y, x] = colour if of_line else rows
        if of_line:
            out[y, 3 if x < 4 else 5] = colour
    return grid, out


def test_objects_move_beside_the_larger_one_of_their_colour():
    task, truth = made([
        line_pair(3, 8, [(1, 0, True), (5, 8, True), (3, 2, False)]),
        line_pair(6, 1, [(2, 1, True), (7, 7, True), (4, 9, False), (8, 1, False)]),
        line_pair(2, 4, [(8, 0, True), (3, 9, False)]),
        line_pair(7, 3, [(1, 9, True), (6, 2, True), (3, 0, False)]),
    ])  # fmt: skip
    answer = first(related, task)
    assert same_grid(answer.grid, truth)


def copy_pair(pattern, at, markers):
    """The pattern moves to the middle of each marker."""
    grid = with_shapes(13, [(np.ones((1, 1)), 5, *place) for place in markers])
    out = np.zeros_like(grid)
    grid[at[0] : at[0] + 3, at[1] : at[1] + 3] = pattern
    for y, x in markers:
        out[y - 1 : y + 2, x - 1 : x + 2] = pattern
    return grid, out


def test_an_object_is_copied_to_markers():
    patterns = [
        np.array(p) for p in ([[1, 2, 1], [2, 3, 2], [1, 2, 1]], [[4, 0, 4], [0, 6, 0], [4, 4, 4]], [[7, 7, 7], [1, 2, 3], [7, 7, 7]])
    ]
    task, truth = made([
        copy_pair(patterns[0], (0, 0), [(5, 5), (9, 2)]),
        copy_pair(patterns[1], (8, 8), [(2, 9), (4, 2)]),
        copy_pair(patterns[2], (0, 9), [(6, 3), (10, 8)]),
    ])  # fmt: skip
    answer = first(related, task)
    assert same_grid(answer.grid, truth)
    assert "copy the" in answer.program


def test_an_object_moves_into_the_rows_of_another():
    def pair(place, other, left):
        shapes = [(CORNER, 3, place, left), (BLOCK, 2, 0, 8)]
        return with_shapes(12, [*shapes, (PLUS, 8, other, 5)]), with_shapes(
            12, [(CORNER, 3, other, left), (BLOCK, 2, 0, 8), (PLUS, 8, other, 5)]
        )

    task, truth = made([pair(0, 3, 1), pair(1, 8, 0), pair(9, 4, 2), pair(2, 7, 1)])
    answer = first(related, task)
    assert same_grid(answer.grid, truth)
    assert "to the rows of the one of colour 8" in answer.program


def most_red_pair(places):
    """The rectangle with most cells of colour 2 is cut out; a place has top, left, height, width, colour and this number."""
    grid = np.zeros((14, 14), np.int8)
    for top, left, height, width, colour, reds in places:
        grid[top : top + height, left : left + width] = colour
        # Every rectangle has seven foreign cells, so that no other number singles one out.
        for k in range(7):
            grid[top + k // width, left + k % width] = 2 if k < reds else 9
    top, left, height, width, *_ = max(places, key=lambda place: place[5])
    return grid, grid[top : top + height, left : left + width]


def test_the_object_with_most_cells_of_a_colour_is_cut_out():
    task, truth = made([
        most_red_pair([(0, 0, 3, 4, 1, 3), (6, 1, 4, 3, 3, 2), (5, 8, 3, 5, 8, 5)]),
        most_red_pair([(0, 0, 5, 5, 1, 5), (6, 1, 3, 3, 8, 3), (7, 8, 4, 5, 4, 4)]),
        most_red_pair([(0, 5, 4, 3, 4, 2), (6, 1, 5, 5, 8, 3), (7, 8, 3, 4, 1, 4)]),
        most_red_pair([(0, 2, 6, 4, 4, 4), (7, 1, 3, 3, 8, 2), (7, 8, 5, 4, 1, 6)]),
    ])  # fmt: skip
    answer = first(related, task)
    assert same_grid(answer.grid, truth)
    assert "cells of colour" in answer.program


def bar_pair(cells):
    """Colours with their numbers of cells, as bars from the top, the longest first."""
    grid = np.zeros((6, 6), np.int8)
    grid.ravel()[: sum(cells.values())] = np.random.default_rng(len(cells)).permutation(np.repeat(list(cells), list(cells.values())))
    out = np.zeros((max(cells.values()), len(cells)), np.int8)
    for k, (colour, n) in enumerate(sorted(cells.items(), key=lambda item: -item[1])):
        out[:n, k] = colour
    return grid, out


def overlaid_pair(seed, colours):
    """Rings of sides 5 and 3 and a single cell, scattered, come to lie around one middle."""
    sides = (5, 3, 1)
    grid, out = np.zeros((12, 12), np.int8), np.zeros((5, 5), np.int8)
    for k, (side, colour) in enumerate(zip(sides, colours, strict=True)):
        ring = np.ones((side, side), np.int8)
        ring[1:-1, 1:-1] = 0
        place = ((0, seed), (6, 8 - seed), (9, seed))[k]
        grid[place[0] : place[0] + side, place[1] : place[1] + side] += ring * np.int8(colour)
        out[k : 5 - k, k : 5 - k] += ring * np.int8(colour)
    return grid, out


def diagonal_pair(colour, count, ground=0):
    """A cell on the diagonal for each scattered cell, on the ground of the grid."""
    grid = np.full((5, 7), ground)
    grid.ravel()[: 4 * count : 4] = colour
    return grid, np.where(np.eye(count) > 0, colour, ground)


def sorted_pair(bars):
    """Blocks of height 2 side by side, the narrowest first."""
    grid = np.zeros((12, 9), np.int8)
    for k, (colour, width) in enumerate(bars):
        grid[3 * k : 3 * k + 2, k : k + width] = colour
    ordered = sorted(bars, key=lambda bar: bar[1])
    return grid, np.concatenate([np.full((2, width), colour) for colour, width in ordered], axis=1)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([bar_pair({1: 5, 2: 3, 4: 2}), bar_pair({3: 4, 8: 7}), bar_pair({6: 2, 5: 6, 2: 4, 1: 3}), bar_pair({7: 8, 4: 3, 9: 1})], "bars"),
        ([overlaid_pair(k, colours) for k, colours in enumerate([(1, 2, 3), (4, 3, 6), (7, 8, 2), (5, 6, 1)])], "over one another"),
        ([diagonal_pair(3, 2), diagonal_pair(4, 4), diagonal_pair(3, 3, 8), diagonal_pair(6, 5, 8)], "diagonal"),
        (
            [sorted_pair(bars) for bars in ([(1, 3), (2, 2), (3, 4)], [(4, 1), (2, 3), (3, 2)], [(5, 4), (6, 1)], [(1, 2), (8, 1)])],
            "in a row",
        ),
    ],
)  # fmt: skip
def test_outputs_are_put_together_from_parts(pairs, words):
    task, truth = made(pairs)
    answer = first(arranged, task)
    assert same_grid(answer.grid, truth)
    assert words in answer.program
    assert answer.solver == "arranged"


@pytest.mark.parametrize(("wrong", "drawn"), [((), [0, 1, 2, 3]), ((1,), [0, 1, 2]), ((0, 1), [0, 1])])
def test_scenes_are_drawn_until_a_rule_is_wrong(wrong, drawn):
    task, _ = made([domino_pair([1, 2]), domino_pair([3, 4]), domino_pair([5, 6]), domino_pair([7, 8])])
    parts = arranged.Parts("x", 1.0, tuple(np.arange(2) for _ in range(4)))
    asked = []

    def draw(k):
        asked.append(k)
        return None if k in wrong or k == 3 else task.train[k].output

    list(arranged._evaluated(task, parts, "x", 1.0, draw, arranged.Budget(100)))
    assert asked == drawn


def domino_pair(colours):
    """Equal dominoes, which many tests, measures and orders do not tell apart, and their bars."""
    grid = with_shapes(9, [(np.ones((1, 2), np.int8), colour, 3 * k, 2 * k) for k, colour in enumerate(colours)])
    return grid, np.array([[colour, colour] for colour in colours])


def test_the_drawn_parts_are_bounded(monkeypatch):
    many = with_shapes(30, [(np.ones((1 + k % 3, 2)), 1 + k % 9, 5 * (k // 6), 5 * (k % 6)) for k in range(30)])
    task, _ = made([domino_pair([1, 2, 3]), domino_pair([4, 5, 6]), (many, many)])
    drawn = []
    draw = arranged._draw

    def counted(bars, *arguments):
        drawn.append(len(bars) + 1)
        return draw(bars, *arguments)

    monkeypatch.setattr(arranged, "_draw", counted)
    assert arranged.solve(task)
    monkeypatch.setattr(arranged, "MAX_DRAWN", 2000)
    monkeypatch.setattr(arranged, "MAX_DRAWN_OF_SEGMENTATION", 1000)
    drawn.clear()
    arranged.solve(task)
    assert 1000 < sum(drawn) < 2100, "the last rule of all may be drawn to its end"


def test_lines_of_several_colours_are_no_bars():
    rng = np.random.default_rng(0)
    task, _ = made([(rng.integers(0, 4, (6, 6)), rng.integers(0, 4, (6, 6))) for _ in range(3)])
    assert arranged.solve(task) == []


@pytest.mark.parametrize(("cost", "called"), [(20.0, False), (40.0, True)])
def test_related_objects_are_tried_where_objects_alone_explain_too_little(monkeypatch, cost, called):
    task, truth = made([bar_pair({1: 5, 2: 3}), bar_pair({3: 4, 8: 7})])
    asked = []

    def related_solve(task):
        asked.append(task)
        return []

    monkeypatch.setitem(task_search._DIRECT, "objects", lambda task: [SolverAnswer(0, truth, "objects", "x", 1.0, cost)])
    monkeypatch.setitem(task_search._DIRECT, "related", related_solve)
    search = TaskSearch(task, EFFORTS["quick"], ("objects", "related"))
    for _ in range(3):
        list(search.next_pass())
    assert bool(asked) == called


def test_the_solvers_have_a_place_in_the_search_and_in_the_ranking():
    assert {"related", "arranged"} <= set(SOLVERS)
    assert {"solver related", "solver arranged"} <= set(WEIGHTS)
