"""Mirrored pairs: a task with every pair repeated in a mirror, so that a program must work on both.

A program that fits only because all pairs have the same orientation no longer fits, so a rule that prefers no direction stands out. The
2020 winner of the competition did this with transposed pairs. This module does not know solvers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import SolverAnswer

NAME = "mirrored"
MIRRORS: dict[str, Callable[[Grid], Grid]] = {
    "transposed": lambda grid: frozen(grid.T),
    "left to right": lambda grid: frozen(grid[:, ::-1]),
}


def with_mirrored_pairs(task: Task, mirror: str) -> Task:
    """The task with a mirrored copy of each train pair and each test input."""
    reflect = MIRRORS[mirror]
    pairs = tuple(Pair(reflect(pair.input), reflect(pair.output)) for pair in task.train)
    return Task(task.id, task.train + pairs, task.tests + tuple(reflect(test) for test in task.tests))


def unmirrored(answers: list[SolverAnswer], task: Task, mirror: str) -> list[SolverAnswer]:
    """Answers to `with_mirrored_pairs(task, mirror)` as answers to the task: those to mirrored test inputs are mirrored back.

    The programs' texts stay, so that a program found both ways counts once.
    """
    out = []
    for answer in answers:
        grid = MIRRORS[mirror](answer.grid) if answer.test >= len(task.tests) else answer.grid
        out.append(replace(answer, test=answer.test % len(task.tests), grid=grid, solver=NAME))
    return out
