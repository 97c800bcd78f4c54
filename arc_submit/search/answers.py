"""Answers: the common result type of all solvers, and the order of one solver's answers.

This module does not know how an answer was found; it has only the share of train pairs that the rule explains and the rule's simplicity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from arc_submit.arc.best_first import best_first
from arc_submit.arc.grid import Grid


@dataclass(frozen=True, eq=False)
class SolverAnswer:
    """One grid for one test input, with the rule that gives it.

    Attributes:
        test: index of the test input.
        grid: int8 (h, w).
        solver: name of the solver.
        program: the rule in readable form.
        explained: share of the train pairs that the rule reproduces.
        cost: complexity in tenths of a step, comparable between solvers.
        layers: number of images that the rule stacks.
        support: other programs with the same result in every example, each weighted by its simplicity relative to this one.
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
        """The score of the rule alone, 0 for a free rule that explains all pairs; a pair less explained outweighs any simplicity."""
        return -(10.0 * (1.0 - self.explained) + self.cost / 1000.0)


def rank_answers(answers: Iterable[SolverAnswer], tests: int, limit: int = 10) -> list[list[SolverAnswer]]:
    """For each test input the different grids of one solver, best first, each with its best rule; ranking.py ranks all solvers together."""
    rows: list[list[SolverAnswer]] = [[] for _ in range(tests)]
    for answer in answers:
        rows[answer.test].append(answer)
    return [best_first(row, lambda a: a.score, lambda a: a.grid)[:limit] for row in rows]
