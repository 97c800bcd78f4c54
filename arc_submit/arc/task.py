"""Tasks and their solutions, kept apart.

A Task has train pairs and test inputs and NO test outputs, so that a solver cannot use them by accident. The outputs are in Solutions,
which only metrics and reports take. Converts one task from and to the JSON value in Kaggle's files. Does not know files (arc.datasets).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arc_submit.arc.grid import Grid, grid_id, grid_to_lists, make_grid
from arc_submit.errors import DataError


@dataclass(frozen=True, eq=False)
class Pair:
    """One train pair: an input grid and its output grid."""

    input: Grid
    output: Grid


@dataclass(frozen=True, eq=False)
class Task:
    """One task without its test outputs.

    Attributes:
        id: the key in the challenges file.
        train: at least one pair.
        tests: the test inputs, at least one.
    """

    id: str
    train: tuple[Pair, ...]
    tests: tuple[Grid, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.id == other.id and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash((self.id, self.digest()))

    @property
    def cells(self) -> int:
        """Number of cells of all grids, a measure of the cost of the task."""
        return sum(pair.input.size + pair.output.size for pair in self.train) + sum(test.size for test in self.tests)

    def digest(self) -> str:
        """Hash of the grids in order (16 hex digits); two copies of a task with different ids are equal."""
        hasher = hashlib.sha256()
        for pair in self.train:
            hasher.update(grid_id(pair.input) + b">" + grid_id(pair.output) + b";")
        for test in self.tests:
            hasher.update(grid_id(test) + b"?")
        return hasher.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Solutions:
    """Test outputs by task id; `outputs[task_id][i]` belongs to test input i. Only metrics and reports take this type."""

    outputs: Mapping[str, tuple[Grid, ...]]


def task_from_json(task_id: str, value: Any, where: str = "task") -> Task:
    """Build a task from the JSON value of one entry of a challenges file.

    Test outputs, which the original repository's files hold inside the task, are not read: see `solution_from_json`.

    Raises:
        DataError: naming `where` and the place of the first fault.
    """
    train = []
    for i, pair in enumerate(_entries(value, "train", where)):
        place = f"{where}: train[{i}]"
        if not isinstance(pair, dict) or "input" not in pair or "output" not in pair:
            raise DataError(f"{place} is not an object with input and output")
        train.append(Pair(make_grid(pair["input"], f"{place}.input"), make_grid(pair["output"], f"{place}.output")))
    tests = []
    for i, test in enumerate(_entries(value, "test", where)):
        place = f"{where}: test[{i}]"
        if not isinstance(test, dict) or "input" not in test:
            raise DataError(f"{place} is not an object with input")
        tests.append(make_grid(test["input"], f"{place}.input"))
    return Task(task_id, tuple(train), tuple(tests))


def solution_from_json(value: Any, where: str = "solution") -> tuple[Grid, ...]:
    """The outputs inside a task's own `test` list (layout of the original repository).

    Raises:
        DataError: naming `where` and the place of the first fault.
    """
    outputs = []
    for i, test in enumerate(_entries(value, "test", where)):
        if not isinstance(test, dict) or "output" not in test:
            raise DataError(f"{where}: test[{i}] has no output")
        outputs.append(make_grid(test["output"], f"{where}: test[{i}].output"))
    return tuple(outputs)


def task_to_json(task: Task) -> dict[str, Any]:
    """The JSON value that `task_from_json` reads back."""
    return {
        "train": [{"input": grid_to_lists(p.input), "output": grid_to_lists(p.output)} for p in task.train],
        "test": [{"input": grid_to_lists(test)} for test in task.tests],
    }


def _entries(value: Any, key: str, where: str) -> list[Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a task is an object with train and test, not {type(value).__name__}")
    entries = value.get(key)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{where}: {key} must be a non-empty list")
    return entries
