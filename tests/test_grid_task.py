"""Grids and tasks: valid and invalid values, error messages, and that a Task has no test outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import grids, random_task, small_tasks, solid

from arc_submit.arc.grid import Grid, grid_id, grid_to_lists, make_grid, same_grid
from arc_submit.arc.output_shape import expected_output_shape, largest_output_shape
from arc_submit.arc.task import Pair, Task, solution_from_json, task_from_json, task_to_json
from arc_submit.errors import DataError


@given(grids())
@settings(max_examples=100)
def test_grid_to_lists_and_back(grid: Grid) -> None:
    again = make_grid(grid_to_lists(grid))
    assert same_grid(again, grid)
    assert again.dtype == np.int8
    assert again.flags.c_contiguous
    assert same_grid(make_grid(grid.astype(np.int64)), grid)


def test_a_grid_is_read_only() -> None:
    grid = make_grid([[1, 2]])
    with pytest.raises(ValueError, match="read-only"):
        grid[0, 0] = 3


def test_grids_of_minimum_and_maximum_size_are_valid() -> None:
    assert make_grid([[9] * 30] * 30).shape == (30, 30)
    assert make_grid([[0]]).shape == (1, 1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "non-empty list"),
        (None, "None"),
        ("012", "'012'"),
        ({"0": [1]}, "non-empty list"),
        ([[0]] * 31, "31 rows"),
        ([[0] * 31], "31 cells"),
        ([[]], "row 0"),
        ([[1, 2], [3]], "row 1 has 1 cells and row 0 has 2: a ragged grid"),
        ([[1, 2], 3], "row 1 is 3"),
        ([[0, 12]], "row 0, column 1 is 12"),
        ([[0], [-1]], "row 1, column 0 is -1"),
        ([[True]], "True"),
        ([[1.0]], "1.0"),
        ([["1"]], "'1'"),
        ([[float("nan")]], "nan"),
        ([[None]], "None"),
        ([[10**30]], "row 0, column 0"),
        (np.zeros((2, 2)), "float64"),
        (np.zeros(3, dtype=int), "shape"),
        (np.zeros((0, 3), dtype=int), "non-empty"),
    ],
)
def test_an_invalid_grid_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        make_grid(value, "f.json: task a: test[0].input")
    message = str(caught.value)
    assert message.startswith("f.json: task a: test[0].input: ")
    assert words in message
    assert "\n" not in message


def test_a_huge_or_deep_value_gives_a_short_message() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10**6, deep, [deep], [[deep]], [["y" * 10**6]]):
        with pytest.raises(DataError) as caught:
            make_grid(value)
        assert len(str(caught.value)) < 200


def test_grid_ids_differ_by_shape() -> None:
    assert grid_id(solid(2, 3)) != grid_id(solid(3, 2))
    assert not same_grid(solid(2, 3), solid(3, 2))
    assert not same_grid(None, None)
    assert grid_id(solid(2, 3, 4)) == grid_id(make_grid([[4, 4, 4]] * 2))


def test_task_to_json_and_back() -> None:
    rng = np.random.default_rng(0)
    for i in range(30):
        task = random_task(rng, f"t{i}", pairs=1 + i % 5, tests=1 + i % 3)
        again = task_from_json(task.id, task_to_json(task))
        assert again == task
        assert hash(again) == hash(task)


def test_the_digest_depends_on_the_grids_and_their_roles() -> None:
    a, b = solid(1, 1, 1), solid(1, 1, 2)
    task = Task("x", (Pair(a, b),), (a,))
    assert Task("y", task.train, task.tests).digest() == task.digest()
    assert Task("y", task.train, task.tests) != task
    assert Task("x", (Pair(b, a),), (a,)).digest() != task.digest()
    assert Task("x", (Pair(a, b), Pair(a, b)), (a,)).digest() != task.digest()
    assert Task("x", task.train, (b,)).digest() != task.digest()


def test_a_task_has_no_test_outputs() -> None:
    task = small_tasks()[0]
    value = task_to_json(task)
    value["test"][0]["output"] = [[7, 7]]
    read = task_from_json(task.id, value)
    assert read == task
    assert all("output" not in test for test in task_to_json(read)["test"])
    assert set(vars(read)) == {"id", "train", "tests"}
    assert same_grid(solution_from_json(value)[0], make_grid([[7, 7]]))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "a task is an object"),
        ({}, "train must be a non-empty list"),
        ({"train": [], "test": [{"input": [[1]]}]}, "train must be"),
        ({"train": [{"input": [[1]], "output": [[1]]}], "test": []}, "test must be"),
        ({"train": [{"input": [[1]]}], "test": [{"input": [[1]]}]}, "train[0] is not an object with input and output"),
        ({"train": [5], "test": [{"input": [[1]]}]}, "train[0]"),
        ({"train": [{"input": [[1]], "output": [[12]]}], "test": [{"input": [[1]]}]}, "train[0].output: row 0, column 0 is 12"),
        ({"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]]}, {}]}, "test[1] is not an object with input"),
    ],
)
def test_an_invalid_task_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        task_from_json("a", value, "f.json: task a")
    assert str(caught.value).startswith("f.json: task a: ")
    assert words in str(caught.value)


def test_solutions_without_outputs_are_refused() -> None:
    with pytest.raises(DataError, match=r"test\[0\] has no output"):
        solution_from_json({"test": [{"input": [[1]]}]})
    with pytest.raises(DataError, match="a task is an object"):
        solution_from_json([1])


def test_expected_shapes() -> None:
    def task(*shapes: tuple[tuple[int, int], tuple[int, int]]) -> Task:
        return Task("s", tuple(Pair(solid(*i), solid(*o)) for i, o in shapes), (solid(4, 6),))

    test = solid(4, 6)
    assert expected_output_shape(task(((3, 3), (3, 3)), ((2, 5), (2, 5))), test)[0] == (4, 6)
    assert expected_output_shape(task(((3, 3), (1, 2)), ((2, 5), (1, 2))), test)[0] == (1, 2)
    assert expected_output_shape(task(((3, 3), (6, 9)), ((1, 2), (2, 6))), test)[0] == (8, 18)
    assert expected_output_shape(task(((2, 2), (1, 1)), ((4, 4), (2, 2))), test)[0] == (2, 3)
    assert expected_output_shape(task(((3, 3), (2, 9)), ((5, 5), (7, 1))), test)[0] is None
    # Ten times the size would exceed 30x30.
    assert expected_output_shape(task(((1, 1), (10, 10)), ((2, 2), (20, 20))), test)[0] is None
    shape, reason = largest_output_shape(task(((3, 3), (2, 9)), ((5, 5), (7, 1))), test)
    assert shape == (7, 9)
    assert "largest" in reason
