"""Ranking of the answers of all solvers together.

A rule's score depends on its solver, its cost and the train pairs it explains. A grid's score is that of its best rule, plus a bonus for
other rules with the same grid, minus a penalty where the grid does not look like an output of the task. The weights are those of a
conditional logit (which of the grids, or none, is right?) fitted by benchmarks/ranking.py on the training split, those of the laws also on
fresh examples of its tasks. A new answer never lowers the score of a grid, so a file to which better scores are appended needs no
correction. This module does not know solvers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from arc_submit.arc.best_first import best_first
from arc_submit.arc.grid import Grid, grid_id, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import keeps_size
from arc_submit.search.laws import Laws, broken_laws, laws_of
from arc_submit.search.scores import best_probability, odds_of_scores
from arc_submit.search.store import Array

# The weight of each feature, in nats; a solver without an entry has offset 0.
WEIGHTS = {
    "solver programs": -2.14,
    "solver cells": 0.64,
    "solver objects": -0.3,
    "solver related": -0.3,
    "solver arranged": -0.3,
    "solver reduced": -2.03,
    "solver staged": -0.43,  # that of divided: rules of other solvers for a part of the task
    "solver divided": -0.43,
    "solver turned": 0.3,
    "solver scan": 1.07,
    "solver paths": 0.64,  # that of cells: rules of the same form, wrong as often where they explain all pairs
    "solver clauses": 0.0,  # that of growth: lists of clauses with the same costs
    "solver growth": 0.0,
    "solver choice": 1.66,
    "solver pieces": -0.15,
    "solver panels": -0.3,  # that of objects: the same rules
    "solver extended": 0.64,  # that of cells
    "solver fitted": -0.3,  # that of objects
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
    "laws broken": -2.48,
    "loose laws broken": -1.82,
}


@dataclass(frozen=True, eq=False)
class Ranked:
    """A grid for a test input with its score.

    Attributes:
        test: index of the test input.
        grid: int8 (h, w).
        score: in nats, comparable between the grids of one test input.
        solver, program: of the rule with the highest score.
        explained: share of the train pairs that this rule reproduces.
    """

    test: int
    grid: Grid
    score: float
    solver: str
    program: str
    explained: float = 0.0


def rank(answers: Iterable[SolverAnswer], task: Task, limit: int = 10) -> list[list[Ranked]]:
    """For each test input its `limit` best grids, best first."""
    ranking = Ranking(task)
    ranking.add(answers)
    return ranking.best(limit)


class Ranking:
    """The incremental ranking of a task's answers: only grids with new rules are scored again."""

    def __init__(self, task: Task):
        self.task = task
        # For each test input and grid its rules by solver and program.
        self.rules: dict[tuple[int, bytes], dict[tuple[str, str], SolverAnswer]] = {}
        self._looks: dict[tuple[int, bytes], float] = {}
        self._ranked: dict[tuple[int, bytes], Ranked] = {}
        self._changed: set[tuple[int, bytes]] = set()

    def add(self, answers: Iterable[SolverAnswer]) -> None:
        """Add answers; of two with the same grid and rule the one with the higher score stays."""
        for answer in answers:
            grid, rule = (answer.test, grid_id(answer.grid)), (answer.solver, answer.program)
            rules = self.rules.setdefault(grid, {})
            if rule not in rules or _score(rule_features(answer)) > _score(rule_features(rules[rule])):
                rules[rule] = answer
                self._changed.add(grid)

    def best(self, limit: int) -> list[list[Ranked]]:
        """For each test input its `limit` best grids, best first."""
        for grid in self._changed:
            rules = list(self.rules[grid].values())
            if grid not in self._looks:
                self._looks[grid] = _score(look_features(self.task, rules[0].test, rules[0].grid))
            self._ranked[grid] = _rank_grid(rules, self._looks[grid])
        self._changed.clear()
        rows: list[list[Ranked]] = [[] for _ in self.task.tests]
        for ranked in self._ranked.values():
            rows[ranked.test].append(ranked)
        return [best_first(row, lambda r: r.score, lambda r: r.grid)[:limit] for row in rows]


def certainty(rows: Iterable[Sequence[Ranked]]) -> float:
    """The probability that the best grid of a test input is right, for the least certain test input; 0 where one has no grid."""
    return min((best_probability(odds_of_scores(one.score for one in row)) for row in rows), default=1.0)


def _rank_grid(rules: list[SolverAnswer], look: float) -> Ranked:
    """The grid that all these rules give, with its score; `look` is the part that does not depend on rules."""
    score, _, _, k = max((_score(rule_features(rule)), rule.solver, rule.program, k) for k, rule in enumerate(rules))
    score += _score(number_features(rules)) + look
    return Ranked(rules[k].test, rules[k].grid, round(score, 6), rules[k].solver, rules[k].program, rules[k].explained)


def _score(features: dict[str, float]) -> float:
    return math.fsum(WEIGHTS.get(name, 0.0) * value for name, value in features.items())


def rule_features(rule: SolverAnswer) -> dict[str, float]:
    """The features of one rule by name."""
    return {
        f"solver {rule.solver}": 1.0,
        "cost": rule.cost / 30,
        "pairs not explained": 1 - rule.explained,
        "explains all": float(rule.explained == 1),
        "stack": float(rule.layers > 1),
        "support": math.log1p(rule.support),
        "pairs not predicted": 1 - (rule.explained if rule.predicted is None else rule.predicted),
    }


def number_features(rules: list[SolverAnswer]) -> dict[str, float]:
    """The features of the number of rules that give a grid."""
    return {
        "rules": math.log(len({rule.program for rule in rules})),
        "other solvers": float(len({rule.solver for rule in rules}) - 1),
    }


def look_features(task: Task, test: int, grid: Grid) -> dict[str, float]:
    """The features of a grid beside the train pairs, whatever rule gives it."""
    strict, loose = broken_laws(_laws(task), task.tests[test], grid)
    laws = {"laws broken": math.log1p(len(strict)), "loose laws broken": math.log1p(len(loose))}
    return laws | implausibilities(grid, task.tests[test], common_traits(task))


@lru_cache(maxsize=4)
def _laws(task: Task) -> Laws:
    return laws_of(task)


@dataclass(frozen=True, eq=False)
class CommonTraits:
    """The properties that the train outputs of a task share.

    Attributes:
        constant: colours in every output.
        changed: colours of cells that change, where all outputs have their inputs' sizes, else None.
        plain: some output has one colour only.
        unchanged: some output is its input.
        symmetries: names of the symmetries that every output has.
    """

    constant: frozenset[int]
    changed: frozenset[int] | None
    plain: bool
    unchanged: bool
    symmetries: frozenset[str]


@lru_cache(maxsize=4)
def common_traits(task: Task) -> CommonTraits:
    """The properties that the train outputs of a task share."""
    outputs = [pair.output for pair in task.train]
    palettes = [_colours(out) for out in outputs]
    return CommonTraits(
        constant=frozenset.intersection(*palettes),
        changed=frozenset.union(*[_changed(pair.input, pair.output) for pair in task.train]) if keeps_size(task) else None,
        plain=any(len(palette) == 1 for palette in palettes),
        unchanged=any(same_grid(pair.input, pair.output) for pair in task.train),
        symmetries=frozenset.intersection(*[_symmetries(out) for out in outputs]),
    )


def implausibilities(grid: Grid, test: Grid, common: CommonTraits) -> dict[str, float]:
    """The ways in which a grid for the test input `test` does not look like an output of its task, each 0 or 1."""
    colours = _colours(grid)
    new_changes = common.changed is not None and grid.shape == test.shape and bool(_changed(test, grid) - common.changed)
    return {
        "is the input": float(same_grid(grid, test) and not common.unchanged),
        "one colour": float(len(colours) == 1 and not common.plain),
        "lacks a colour of every output": float(bool(common.constant - colours)),
        "changes what never changes": float(new_changes),
        "lacks a symmetry of every output": float(bool(common.symmetries - _symmetries(grid))),
    }


def _colours(grid: Array) -> frozenset[int]:
    return frozenset(np.flatnonzero(np.bincount(grid.ravel())).tolist())


def _changed(before: Grid, after: Grid) -> frozenset[int]:
    """The colours of the cells that change."""
    return _colours(before[before != after])


def _symmetries(grid: Grid) -> frozenset[str]:
    views = {"left to right": grid[:, ::-1], "top to bottom": grid[::-1], "diagonal": grid.T, "other diagonal": grid[::-1, ::-1].T}
    return frozenset(name for name, view in views.items() if view.shape == grid.shape and (view == grid).all())
