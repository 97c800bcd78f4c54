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

import numpy as np

from arc_submit.arc.grid import Grid, grid_id, same_grid
from arc_submit.arc.ranking import best_first
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer

# What each feature adds to a score, in nats; a solver that is not named here has offset 0.
WEIGHTS = {
    "solver programs": -1.54,
    "solver mirrored": -1.63,
    "solver outer": 1.16,
    "solver cells": 0.83,
    "solver reduced": -1.42,
    "solver choice": 0.88,
    "solver completion": 0.35,
    "cost": -0.58,
    "pairs not explained": -3.12,
    "pairs not predicted": -0.34,
    "explains all": 2.54,
    "layers": -0.5,
    "stack": -0.09,
    "support": 0.26,
    "rules": 1.15,
    "other solvers": 0.45,
    "is the input": -1.1,
    "one colour": -1.75,
    "lacks a colour of every output": -1.55,
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
    rules: dict[tuple[int, bytes], dict[tuple[str, str], Answer]] = {}
    for answer in answers:
        same = rules.setdefault((answer.test, grid_id(answer.grid)), {})
        key = (answer.solver, answer.program)
        if key not in same or answer.score > same[key].score:
            same[key] = answer
    found: list[list[Ranked]] = [[] for _ in task.tests]
    for (test, _), same in rules.items():
        found[test].append(_ranked(task, list(same.values())))
    return [best_first(row, lambda r: r.score, lambda r: r.grid)[:keep] for row in found]


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
        "layers": float(rule.layers - 1),
        "stack": float(rule.layers > 1),
        "support": math.log1p(rule.support),
        "pairs not predicted": 1 - (rule.explained if rule.predicted is None else rule.predicted),
    }


def grid_features(task: Task, rules: list[Answer]) -> dict[str, float]:
    """What speaks for or against the grid that some rules give: their number, and how it compares with the train outputs."""
    grid, shown = rules[0].grid, task.tests[rules[0].test]
    outputs = [pair.output for pair in task.train]
    colours = set(np.unique(grid).tolist())
    constant = set.intersection(*[set(np.unique(out).tolist()) for out in outputs])
    unchanged = any(same_grid(pair.input, pair.output) for pair in task.train)
    plain = any(len(np.unique(out)) == 1 for out in outputs)
    return {
        "rules": math.log(len({rule.program for rule in rules})),
        "other solvers": float(len({rule.solver for rule in rules}) - 1),
        "is the input": float(same_grid(grid, shown) and not unchanged),
        "one colour": float(len(colours) == 1 and not plain),
        "lacks a colour of every output": float(bool(constant - colours)),
    }
