"""Rules about paths and marks: each kind of path on a small grid, and made-up tasks whose rule is learned from three pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.search import path_features
from arc_submit.search.path_features import path_table, trace
from arc_submit.search.solvers import paths
from arc_submit.search.store import Array

Rule = Callable[[Grid], Array]


def drawn(rows: str, start: tuple[int, int, int, int], motion: int) -> str:
    """The cells of the path from `start` as #, in rows; a digit is an obstacle of that colour."""
    grid = np.array([[int(c) for c in row.replace(".", "0")] for row in rows.split()], np.int8)
    colours, _, _ = trace(grid, 0, np.array([[*start, 7]]), motion)
    cells = np.where(colours == 7, "#", np.where(grid == 0, ".", grid.astype(str)))
    return " ".join("".join(row) for row in cells)


@pytest.mark.parametrize(
    ("rows", "start", "motion", "expected"),
    [
        ("....5. ......", (0, 0, 0, 1), path_features.STOP, ".###5. ......"),
        ("....5. ......", (0, 0, 0, 1), path_features.PASS, ".##### ......"),
        ("2333.. ......", (0, 0, 0, 1), path_features.FLOOR, "2###.. ......"),
        ("....5. ......", (0, 0, 0, 1), path_features.TURN_RIGHT, ".###5. ...#.."),
        ("...... ....5.", (1, 0, 0, 1), path_features.TURN_LEFT, "...#.. .###5."),
        ("....5. ......", (1, 0, 0, 1), path_features.EDGE_LEFT, "....5# .#####"),
        ("....5. ......", (0, 0, 0, 1), path_features.ASIDE_RIGHT, ".###5. ...###"),
        ("...... ....5.", (1, 0, 0, 1), path_features.ASIDE_LEFT, "...### .###5."),
        ("... ... ... ...", (3, 0, -1, 1), path_features.BOUNCE_ACROSS, ".#. ..# .#. ..."),
        ("..... ..... 55555", (0, 0, 1, 1), path_features.BOUNCE, "..#.. .#... 55555"),
        ("..... ..... .....", (0, 0, 1, 1), path_features.BOUNCE_DOWN, "....# .#.#. ..#.."),
    ],
)
def test_a_path_goes_as_its_kind_says(rows: str, start: tuple[int, int, int, int], motion: int, expected: str) -> None:
    assert drawn(rows, start, motion) == expected


def test_the_shorter_path_counts_and_knows_its_steps_and_its_end() -> None:
    grid = np.array([[1, 0, 0, 0, 2]], np.int8)
    colours, steps, ends = trace(grid, 0, np.array([[0, 0, 0, 1, 1], [0, 4, 0, -1, 2]]), path_features.STOP)
    assert colours[0].tolist()[1:4] == [1, 1, 2]
    assert steps[0].tolist()[1:4] == [1, 2, 1]
    assert ends[0].tolist()[1:4] == [2, 2, 1]


def with_path(motion: int, step: tuple[int, int], colour: int = 0) -> Rule:
    """Every cell of colour 3 shoots a path."""

    def rule(grid: Grid) -> Array:
        starts = np.array([[i, j, *step, colour or 3] for i, j in np.argwhere(grid == 3)])
        colours, _, _ = trace(np.asarray(grid, np.int8), 0, starts, motion)
        return np.where(colours < 10, colours, grid)

    return rule


def zigzag(grid: Grid) -> Array:
    """A row of alternating colours to the right of a mark, and its diagonal above."""
    out = np.array(grid)
    (i,), (j,) = np.nonzero(grid)
    out[i, j + 1 :] = [4 if k % 2 else 6 for k in range(grid.shape[1] - j - 1)]
    for k in range(1, min(i + 1, grid.shape[1] - j)):
        out[i - k, j + k] = 8
    return out


def cut_corners(seed: int) -> list[Grid]:
    """Squares of two by two cells that lack one, of different colours."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(4):
        grid = np.zeros((9, 9), int)
        y, x = rng.integers(2, 6, 2)
        grid[y : y + 2, x : x + 2] = (2, 7, 4, 9)[k]
        grid[y + k % 2, x + (k // 2 + k) % 2] = 0
        out.append(frozen(grid))
    return out


def out_of_the_corner(grid: Grid) -> Array:
    """A diagonal line in the object's colour from the corner that it lacks."""
    out = np.array(grid)
    ys, xs = np.nonzero(grid)
    for i, j in itertools.product({*ys}, {*xs}):
        if grid[i, j] == 0:
            dy, dx = (-1 if i == ys.min() else 1), (-1 if j == xs.min() else 1)
            for n in range(1, 9):
                if 0 <= i + n * dy < 9 and 0 <= j + n * dx < 9:
                    out[i + n * dy, j + n * dx] = grid.max()
    return out


def scattered(seed: int, marks: int, walls: int, shape: tuple[int, int] = (9, 10), count: int = 4) -> list[Grid]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        grid = np.zeros(shape, int)
        grid.ravel()[rng.permutation(grid.size)[: marks + walls]] = [3] * marks + [5] * walls
        out.append(frozen(grid))
    return out


def task_of(rule: Rule, inputs: list[Grid]) -> tuple[Task, Grid]:
    return Task("made", tuple(Pair(g, frozen(rule(g))) for g in inputs[:-1]), (inputs[-1],)), frozen(rule(inputs[-1]))


@pytest.mark.parametrize(
    ("rule", "inputs"),
    [
        (with_path(path_features.ASIDE_RIGHT, (-1, 0)), scattered(1, 1, 12)),
        (with_path(path_features.BOUNCE_ACROSS, (-1, 1)), scattered(2, 1, 0)),
        (with_path(path_features.EDGE_RIGHT, (0, 1), 8), scattered(3, 1, 2)),
        (zigzag, scattered(5, 1, 0)),
        (out_of_the_corner, cut_corners(6)),
    ],
    ids=["steps aside", "bounces at the sides", "turns at the edge", "alternates along a line", "leaves a cut corner"],
)
def test_a_rule_is_learned_from_three_pairs(rule: Rule, inputs: list[Grid]) -> None:
    task, solution = task_of(rule, inputs)
    answers = paths.solve(task)
    assert any(same_grid(answer.grid, solution) and answer.explained > 0.5 for answer in answers), [a.program for a in answers]
    assert {answer.solver for answer in answers} == {"paths"}


def test_a_rule_without_paths_or_marks_is_left_to_other_solvers() -> None:
    task, _ = task_of(lambda grid: np.where(grid == 3, 8, grid), scattered(6, 8, 8))
    assert paths.solve(task) == []


def test_other_sizes_and_large_tasks_have_no_answer() -> None:
    task, _ = task_of(lambda grid: grid[1:], scattered(7, 1, 0))
    assert paths.solve(task) == []
    large, _ = task_of(zigzag, scattered(8, 1, 0, (30, 30), 6))
    assert paths.solve(large) == []


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("path_mark_row_pass", "..... 3.5.. .....", "..... 55355 ....."),
        ("path_mark_straight_stop", "..... .3... .....", ".3... 3.333 .3..."),
        ("path_rare_up_pass", "..... .3.55 .....", ".3... ..... ....."),
        ("path_end_stop", "..... .33.. .....", "..... 3..33 ....."),
        ("path_tip_stop", "..... 55... 553..", "..... ..... ...33"),
        ("path_tip_across", "..... 55... 553..", "..... ..... 33..."),
        ("path_corner_stop", "..... .44.. .44..", "4..4. ..... ....."),
        ("path_notch_stop", "..... ..... ..... .4... .44..", "..... ....4 ...4. ..... ....."),
        ("path_notch_stop", "..... ....7 ..... .4... .44..", "..... ..... ...4. ..... ....."),
        ("path_gap_stop", "44444. 4...4. 4...4. 4...4. 44444.", "...... ...... ...... ...... ......"),
        ("path_gap_stop", "44444. 4...4. 4..... 4...4. 44444.", "...... ...... .444.4 ...... ......"),
    ],
)
def test_a_column_has_the_paths_of_its_starts(name: str, rows: str, expected: str) -> None:
    table = path_table(frozen([[int(c) for c in row.replace(".", "0")] for row in rows.split()]))
    shown = table.features[:, table.names.index(name)].reshape(table.shape)
    assert " ".join("".join(str(c) if c else "." for c in row) for row in shown) == expected


def test_cells_know_where_the_nearest_mark_and_box_are() -> None:
    table = path_table(frozen([[3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 4, 4], [0, 0, 0, 0, 4, 4]]))
    cell = dict(zip(table.names, table.features[1 * 6 + 2].tolist(), strict=True))
    names = ("mark_rows", "mark_columns", "mark_steps_8", "mark_steps_4", "mark_down", "mark_columns_mod_2", "mark_colour")
    assert [cell[name] for name in names] == [1, 2, 2, 3, 32, 0, 3]
    assert [cell[name] for name in ("largest_rows", "largest_columns", "largest_sum")] == [1, 2, 28]


def test_noise_has_no_marks_to_start_from() -> None:
    noise = frozen(np.random.default_rng(9).integers(0, 10, (30, 30)))
    table = path_table(noise)
    columns = [k for k, name in enumerate(table.names) if name.startswith("path_mark") and table.is_colour[k]]
    assert (table.features[:, columns] == 0).all()
