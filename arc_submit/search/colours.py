"""Canonical colours: the same task with the colours of each example renamed, so that one program fits examples that differ in colours.

Two renamings are tried beside the task as it is: the commonest colour of each input becomes 0, and the colours that vary from input to
input are put in an order by how many cells they have. Knows nothing about programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen
from arc_submit.arc.task import Pair, Task

Permutation = tuple[int, ...]
IDENTITY: Permutation = tuple(range(COLOURS))


@dataclass(frozen=True)
class Recoloured:
    """A task with renamed colours and how to rename answers back.

    Attributes:
        task: the renamed task.
        back: for each test input the permutation that undoes its renaming: colour c of an answer becomes back[test][c].
        name: what a program prints before its own text; empty for the task as it is.
        cost: in tenths of a step.
    """

    task: Task
    back: tuple[Permutation, ...]
    name: str
    cost: int

    def undo(self, test: int, grid: Grid) -> Grid:
        """An answer in the task's own colours."""
        return frozen(np.array(self.back[test], dtype=np.int8)[grid])


def recolourings(task: Task) -> list[Recoloured]:
    """The task as it is, unless no example uses colour 0, and the renamings that change something, the most promising first."""
    background = _background_maps(task)
    ordered = _ordered_maps(task)
    out = []
    plain = Recoloured(task, (IDENTITY,) * len(task.tests), "", 0)
    if background is not None:
        out.append(_recolour(task, background, "background to 0", 2))
        if any((grid == 0).any() for grid in [pair.input for pair in task.train] + list(task.tests)):
            out.append(plain)
    else:
        out.append(plain)
    if ordered is not None:
        out.append(_recolour(task, ordered, "colours in order", 5))
    return out


def _recolour(task: Task, maps: list[Permutation], name: str, cost: int) -> Recoloured:
    def renamed(grid: Grid, permutation: Permutation) -> Grid:
        return frozen(np.array(permutation, dtype=np.int8)[grid])

    pairs = tuple(Pair(renamed(p.input, m), renamed(p.output, m)) for p, m in zip(task.train, maps, strict=False))
    test_maps = maps[len(task.train) :]
    tests = tuple(renamed(test, m) for test, m in zip(task.tests, test_maps, strict=True))
    back = tuple(tuple(int(c) for c in np.argsort(m)) for m in test_maps)
    return Recoloured(Task(task.id, pairs, tests), back, name, cost)


def _background_maps(task: Task) -> list[Permutation] | None:
    """For each input the exchange of 0 and its commonest colour; None where that is 0 in every input."""
    maps = []
    for grid in [pair.input for pair in task.train] + list(task.tests):
        colour = int(np.bincount(grid.ravel(), minlength=COLOURS).argmax())
        # An output's own 0 must not be hidden by the exchange where 0 is a colour like any other.
        permutation = list(IDENTITY)
        permutation[0], permutation[colour] = colour, 0
        maps.append(tuple(permutation))
    if all(m == IDENTITY for m in maps) or sum(m == IDENTITY for m in maps) * 2 > len(maps):
        return None
    return maps


def _ordered_maps(task: Task) -> list[Permutation] | None:
    """For each input the varying colours renamed in order of their counts; None where no order separates them or none vary."""
    inputs = [pair.input for pair in task.train] + list(task.tests)
    counts = [np.bincount(grid.ravel(), minlength=COLOURS) for grid in inputs]
    present = [{c for c in range(1, COLOURS) if count[c]} for count in counts]
    constant = set.intersection(*present)
    made = [{int(c) for c in np.unique(pair.output)} - {int(c) for c in np.unique(pair.input)} for pair in task.train]
    constant |= set.intersection(*made) if made else set()
    # A stable sort by descending count leaves equally frequent colours in the order of their numbers.
    varying = [
        [int(c) for c in np.argsort(-n, kind="stable") if c in colours - constant] for colours, n in zip(present, counts, strict=True)
    ]
    longest = max(len(colours) for colours in varying)
    if longest == 0 or longest > 4 or all(colours == varying[0] for colours in varying):
        return None
    names = [c for c in range(1, COLOURS) if c not in constant][:longest]
    maps = []
    for colours in varying:
        permutation = {colour: names[i] for i, colour in enumerate(colours)}
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
