"""Mirrored pairs: the same task with every pair given once more in a mirror, so that a program must work on both.

What fits only because all pairs lie the same way no longer fits, so a rule that favours no direction stands out. The 2020 winner
of the competition did this with transposed pairs. Knows nothing about how the task is then solved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import Answer

NAME = "mirrored"
MIRRORS: dict[str, Callable[[Grid], Grid]] = {
    "transposed": lambda grid: frozen(grid.T),
    "left to right": lambda grid: frozen(grid[:, ::-1]),
}


def with_mirrored_pairs(task: Task, mirror: str) -> Task:
    """The task with each train pair and each test input a second time, mirrored."""
    turn = MIRRORS[mirror]
    pairs = tuple(Pair(turn(pair.input), turn(pair.output)) for pair in task.train)
    return Task(task.id, task.train + pairs, task.tests + tuple(turn(test) for test in task.tests))


def undone(answers: list[Answer], task: Task, mirror: str) -> list[Answer]:
    """Answers to `with_mirrored_pairs(task, mirror)` as answers to the task itself: those to mirrored test inputs are mirrored back.

    The rules keep their text: a rule that is found both ways is one rule.
    """
    out = []
    for answer in answers:
        back = answer.test >= len(task.tests)
        grid = MIRRORS[mirror](answer.grid) if back else answer.grid
        out.append(replace(answer, test=answer.test % len(task.tests), grid=grid, solver=NAME))
    return out
