"""Canonical colours: a task with the colours of each example renamed, so that one program fits examples that differ in colours.

Two renamings are tried beside the task itself: the commonest colour of each input becomes 0, and the colours that vary between inputs are
ordered by their number of cells. This module does not know programs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import commonest_colour, inputs_of

Permutation = tuple[int, ...]
IDENTITY: Permutation = tuple(range(COLOURS))


@dataclass(frozen=True)
class RecolouredTask:
    """A task with renamed colours and how to rename answers back.

    Attributes:
        task: the renamed task.
        back: for each test input the permutation that undoes its renaming: colour c of an answer becomes back[test][c].
        name: the prefix of a program's text; empty for the task itself.
        cost: in tenths of a step.
    """

    task: Task
    back: tuple[Permutation, ...]
    name: str
    cost: int

    @classmethod
    def unchanged(cls, task: Task) -> RecolouredTask:
        """The task itself."""
        return cls(task, (IDENTITY,) * len(task.tests), "", 0)

    def undo(self, test: int, grid: Grid) -> Grid:
        """An answer in the task's own colours."""
        return _rename(grid, self.back[test])

    def describe(self, program: str) -> str:
        """The text of a program with the name of the renaming."""
        return f"{self.name}: {program}" if self.name else program

    def restore(self, answer: SolverAnswer) -> SolverAnswer:
        """An answer to the renamed task as an answer to the original one."""
        grid, program = self.undo(answer.test, answer.grid), self.describe(answer.program)
        return replace(answer, grid=grid, program=program, cost=answer.cost + self.cost)


def recolourings(task: Task) -> list[RecolouredTask]:
    """The task itself, unless no example uses colour 0, and the renamings that change something, the most promising first."""
    background = _background_maps(task)
    ordered = _ordered_maps(task)
    out = []
    if background is not None:
        out.append(_recolour(task, background, "background to 0", 2))
    if background is None or any((grid == 0).any() for grid in inputs_of(task)):
        out.append(RecolouredTask.unchanged(task))
    if ordered is not None:
        out.append(_recolour(task, ordered, "colours in order", 5))
    return out


def _rename(grid: Grid, permutation: Permutation) -> Grid:
    return frozen(np.array(permutation, dtype=np.int8)[grid])


def _recolour(task: Task, maps: list[Permutation], name: str, cost: int) -> RecolouredTask:
    pairs = tuple(Pair(_rename(p.input, m), _rename(p.output, m)) for p, m in zip(task.train, maps, strict=False))
    test_maps = maps[len(task.train) :]
    tests = tuple(_rename(test, m) for test, m in zip(task.tests, test_maps, strict=True))
    back = tuple(tuple(int(c) for c in np.argsort(m)) for m in test_maps)
    return RecolouredTask(Task(task.id, pairs, tests), back, name, cost)


def _background_maps(task: Task) -> list[Permutation] | None:
    """For each input the exchange of 0 and its commonest colour; None where that is 0 in at least half of the inputs."""
    maps = []
    for grid in inputs_of(task):
        colour = commonest_colour(grid)
        # An exchange, so that an output's own 0 stays visible where 0 is a colour like any other.
        permutation = list(IDENTITY)
        permutation[0], permutation[colour] = colour, 0
        maps.append(tuple(permutation))
    if all(m == IDENTITY for m in maps) or sum(m == IDENTITY for m in maps) * 2 > len(maps):
        return None
    return maps


def _ordered_maps(task: Task) -> list[Permutation] | None:
    """For each input the varying colours renamed in order of their counts; None where none vary or the order changes nothing."""
    counts = [np.bincount(grid.ravel(), minlength=COLOURS) for grid in inputs_of(task)]
    present = [{c for c in range(1, COLOURS) if count[c]} for count in counts]
    new = [{int(c) for c in np.unique(pair.output)} - {int(c) for c in np.unique(pair.input)} for pair in task.train]
    constant = set.intersection(*present) | set.intersection(*new)
    # The stable sort orders equally frequent colours by number.
    varying = [
        [int(c) for c in np.argsort(-n, kind="stable") if c in colours - constant] for colours, n in zip(present, counts, strict=True)
    ]
    longest = max(len(colours) for colours in varying)
    if longest == 0 or longest > 4 or all(colours == varying[0] for colours in varying):
        return None
    names = [c for c in range(1, COLOURS) if c not in constant][:longest]
    maps = []
    for colours in varying:
        permutation = dict(zip(colours, names, strict=False))
        free_names = [c for c in range(COLOURS) if c not in permutation.values()]
        rest = [c for c in range(COLOURS) if c not in permutation]
        # Colours that need not move stay, so that constants keep their names.
        for colour in [c for c in rest if c in free_names]:
            permutation[colour] = colour
            free_names.remove(colour)
        for colour in [c for c in rest if c not in permutation]:
            permutation[colour] = free_names.pop(0)
        maps.append(tuple(permutation[c] for c in range(COLOURS)))
    return maps
