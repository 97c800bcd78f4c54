"""Ranking of the answers of all solvers together: what speaks for a grid, and how much.

Every rule that gives a grid has a weight by its solver, its cost, and the train pairs it explains; the grid has the weight of its best
rule, more for every other rule that gives the same grid, and less where it does not look like an output of the task. The weights are those
of a conditional logit (which of the grids found is right?) fitted on the training split by benchmarks/ranking.py. A new answer never
lowers the score of a grid, so a file to which better scores are appended needs no correction. Knows nothing about how answers are found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from arc_submit.arc.best_first import best_first
from arc_submit.arc.grid import Grid, grid_id, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer

# What each feature adds to a score, in nats; a solver that is not named here has offset 0.
WEIGHTS = {
    "solver programs": -2.14,
    "solver cells": 0.64,
    "solver objects": -0.3,
    "solver reduced": -2.03,
    "solver divided": -0.43,
    "solver turned": 0.3,
    "solver scan": 1.07,
    "solver growth": 0.0,
    "solver choice": 1.66,
    "solver pieces": -0.15,
    "solver completion": 1.95,
    "solver outer": -1.01,
    "cost": -0.88,
    "pairs not explained": -4.12,
    "explains all": 1.25,
    "stack": -0.43,
    "support": 0.46,
    "pairs not predicted": -0.74,
    "rules": 1.07,
    "other solvers": 0.22,
    "is the input": -2.3,
    "one colour": -2.47,
    "lacks a colour of every output": -0.62,
    "changes what never changes": -1.62,
    "lacks a symmetry of every output": -1.26,
}


@dataclass(frozen=True, eq=False)
class Ranked:
    """A grid for a test input with all that speaks for it.

    Attributes:
        test: index of the test input.
        grid: int8 (h, w).
        score: in nats, comparable between the grids of one test input.
        solver, program: of the rule with most weight.
    """

    test: int
    grid: Grid
    score: float
    solver: str
    program: str


def rank(answers: Iterable[Answer], task: Task, keep: int = 10) -> list[list[Ranked]]:
    """For each test input its `keep` best grids, best first."""
    ranking = Ranking(task)
    ranking.add(answers)
    return ranking.best(keep)


class Ranking:
    """The ranking of a task's answers while they come: only grids that got a new rule are scored again."""

    def __init__(self, task: Task):
        self.task = task
        # For each test input and grid its rules by solver and program.
        self.rules: dict[tuple[int, bytes], dict[tuple[str, str], Answer]] = {}
        self._ranked: dict[tuple[int, bytes], Ranked] = {}
        self._changed: set[tuple[int, bytes]] = set()

    def add(self, answers: Iterable[Answer]) -> None:
        """Take answers in; of a rule given twice for a grid the one that counts for more."""
        for answer in answers:
            grid, rule = (answer.test, grid_id(answer.grid)), (answer.solver, answer.program)
            same = self.rules.setdefault(grid, {})
            if rule not in same or _weighed(rule_features(answer)) > _weighed(rule_features(same[rule])):
                same[rule] = answer
                self._changed.add(grid)

    def best(self, keep: int) -> list[list[Ranked]]:
        """For each test input its `keep` best grids, best first."""
        for grid in self._changed:
            self._ranked[grid] = _ranked(self.task, list(self.rules[grid].values()))
        self._changed.clear()
        rows: list[list[Ranked]] = [[] for _ in self.task.tests]
        for ranked in self._ranked.values():
            rows[ranked.test].append(ranked)
        return [best_first(row, lambda r: r.score, lambda r: r.grid)[:keep] for row in rows]


def _ranked(task: Task, rules: list[Answer]) -> Ranked:
    weights = [_weighed(rule_features(rule)) for rule in rules]
    best = max(range(len(rules)), key=lambda k: (weights[k], rules[k].solver, rules[k].program))
    rule = rules[best]
    score = weights[best] + _weighed(grid_features(task, rules))
    return Ranked(rule.test, rule.grid, round(score, 6), rule.solver, rule.program)


def _weighed(features: dict[str, float]) -> float:
    return math.fsum(WEIGHTS.get(name, 0.0) * value for name, value in features.items())


def rule_features(rule: Answer) -> dict[str, float]:
    """What speaks for one rule."""
    return {
        f"solver {rule.solver}": 1.0,
        "cost": rule.cost / 30,
        "pairs not explained": 1 - rule.explained,
        "explains all": float(rule.explained == 1),
        "stack": float(rule.layers > 1),
        "support": math.log1p(rule.support),
        "pairs not predicted": 1 - (rule.explained if rule.predicted is None else rule.predicted),
    }


def grid_features(task: Task, rules: list[Answer]) -> dict[str, float]:
    """What speaks for or against the grid that some rules give: their number, and how it compares with the train outputs."""
    return {
        "rules": math.log(len({rule.program for rule in rules})),
        "other solvers": float(len({rule.solver for rule in rules}) - 1),
        **implausibilities(rules[0].grid, task.tests[rules[0].test], outputs_of(task)),
    }


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the train outputs of a task have in common.

    Attributes:
        constant: colours that every output shows.
        changed: colours of cells that change, where all outputs have their inputs' sizes, else None.
        plain: some output has one colour only; `unchanged`, some output is its input.
        symmetries: names of the symmetries that every output has.
    """

    constant: frozenset[int]
    changed: frozenset[int] | None
    plain: bool
    unchanged: bool
    symmetries: frozenset[str]


@lru_cache(maxsize=4)
def outputs_of(task: Task) -> Outputs:
    """What the train outputs of a task have in common."""
    outputs = [pair.output for pair in task.train]
    palettes = [_palette(out) for out in outputs]
    same_size = all(pair.input.shape == pair.output.shape for pair in task.train)
    changed = frozenset(int(c) for pair in task.train for c in pair.input[pair.input != pair.output]) if same_size else None
    return Outputs(
        constant=frozenset.intersection(*palettes),
        changed=changed,
        plain=any(len(palette) == 1 for palette in palettes),
        unchanged=any(same_grid(pair.input, pair.output) for pair in task.train),
        symmetries=frozenset.intersection(*[_symmetries(out) for out in outputs]),
    )


def implausibilities(grid: Grid, shown: Grid, outputs: Outputs) -> dict[str, float]:
    """In what a grid for the test input `shown` does not look like an output of its task."""
    colours = _palette(grid)
    changes = outputs.changed is not None and grid.shape == shown.shape
    return {
        "is the input": float(same_grid(grid, shown) and not outputs.unchanged),
        "one colour": float(len(colours) == 1 and not outputs.plain),
        "lacks a colour of every output": float(bool(outputs.constant - colours)),
        "changes what never changes": float(changes and bool({int(c) for c in shown[shown != grid]} - (outputs.changed or frozenset()))),
        "lacks a symmetry of every output": float(bool(outputs.symmetries - _symmetries(grid))),
    }


def _palette(grid: Grid) -> frozenset[int]:
    return frozenset(np.flatnonzero(np.bincount(grid.ravel())).tolist())


def _symmetries(grid: Grid) -> frozenset[str]:
    views = {"left to right": grid[:, ::-1], "top to bottom": grid[::-1], "diagonal": grid.T, "other diagonal": grid[::-1, ::-1].T}
    return frozenset(name for name, view in views.items() if view.shape == grid.shape and (view == grid).all())
