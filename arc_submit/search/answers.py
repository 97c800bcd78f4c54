"""Answers: what every solver of this room gives back, and how the answers of all of them are ranked together.

Knows nothing about how an answer was found, except how many train pairs its rule explains and how simple the rule is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from arc_submit.arc.grid import Grid, grid_id


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
    """

    test: int
    grid: Grid
    solver: str
    program: str
    explained: float
    cost: float

    @property
    def score(self) -> float:
        """At most 0: the best rule explains all pairs at no cost. A pair less explained outweighs any simplicity."""
        return -(10.0 * (1.0 - self.explained) + self.cost / 1000.0)


def rank(answers: Iterable[Answer], tests: int, keep: int = 10) -> list[list[Answer]]:
    """For each test input its different grids, best first, each with its best rule.

    Equal scores keep the order in which the answers came.
    """
    ranked: list[list[Answer]] = [[] for _ in range(tests)]
    for answer in sorted(answers, key=lambda a: -a.score):
        kept = ranked[answer.test]
        if len(kept) < keep and all(grid_id(answer.grid) != grid_id(other.grid) for other in kept):
            kept.append(answer)
    return ranked
