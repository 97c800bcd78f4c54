"""Answers: what every solver of this room gives back, and how those of one solver are ordered.

Knows nothing about how an answer was found, except how many train pairs its rule explains and how simple the rule is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from arc_submit.arc.best_first import best_first
from arc_submit.arc.grid import Grid


@dataclass(frozen=True, eq=False)
class Answer:
    """One grid for one test input.

    Attributes:
        test: index of the test input.
        grid: int8 (h, w).
        solver: name of the solver.
        program: the rule in readable form.
        explained: share of the train pairs that the rule reproduces.
        cost: simplicity in tenths of a step, the lower the simpler; comparable between solvers.
        layers: how many images the rule lays over each other.
        support: other programs that do the same in every example, each counted by how simple it is against this one.
        predicted: share of the train pairs that rules of this kind, found from the other pairs, predict; None where that was not tried.
    """

    test: int
    grid: Grid
    solver: str
    program: str
    explained: float
    cost: float
    layers: int = 1
    support: float = 0.0
    predicted: float | None = None

    @property
    def score(self) -> float:
        """The rule by itself, at most 0: the best explains all pairs at no cost. A pair less explained outweighs any simplicity."""
        return -(10.0 * (1.0 - self.explained) + self.cost / 1000.0)


def rank(answers: Iterable[Answer], tests: int, keep: int = 10) -> list[list[Answer]]:
    """For each test input the different grids of one solver, best first, each with its best rule; ranking.py ranks those of all solvers."""
    rows: list[list[Answer]] = [[] for _ in range(tests)]
    for answer in answers:
        rows[answer.test].append(answer)
    return [best_first(row, lambda a: a.score, lambda a: a.grid)[:keep] for row in rows]
