"""The search of one task: every solver in turn, with the answers of all of them ranked together.

The cheap solvers come first, so that an interrupted search has answers. Effort is counted work: the same effort gives the same answers on
any machine. This module does not know files or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from arc_submit.arc.task import Task
from arc_submit.search import programs
from arc_submit.search.answers import SolverAnswer, rank_answers
from arc_submit.search.divisions import divisions, join_answers
from arc_submit.search.mirrored import MIRRORS, unmirrored, with_mirrored_pairs
from arc_submit.search.programs import Effort
from arc_submit.search.ranking import Ranked, Ranking, certainty
from arc_submit.search.reductions import Reduction, reductions, turns
from arc_submit.search.solvers import cells, completion, growth, objects, outer, pieces, scan

EFFORTS = {
    "quick": Effort(work=30_000_000, size_work=5_000_000, pieces=20_000, enough=0.95),
    "normal": Effort(work=200_000_000, size_work=10_000_000, pieces=40_000, enough=0.95),
    "long": Effort(work=1_000_000_000, size_work=50_000_000, pieces=80_000, sizes=3, mirrored=True),
}
SOLVERS = ("completion", "cells", "scan", "growth", "pieces", "objects", "divided", "turned", "reduced", "outer", "programs", "mirrored")
_DIRECT: dict[str, Callable[[Task], list[SolverAnswer]]] = {
    "completion": completion.solve,
    "cells": cells.solve,
    "scan": scan.solve,
    "growth": growth.solve,
    "pieces": pieces.solve,
    "objects": objects.solve,
}
_ON_REDUCED = ("completion", "cells", "objects")  # the direct solvers for a reduced task, in addition to programs
_REDUCED_DIVISOR = 8  # of the work, because a reduced task is smaller
_MIRRORED_DIVISOR = 3  # of the work, for each mirror
_LIGHT = (3, 4)  # trees and folds of the per-cell rules for the many divided and turned tasks
# A rule that explains every pair at this cost or below is right more often than not: then no example is divided or turned.
_SURE_COST = 40


def search_task(task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS, limit: int = 10) -> list[list[Ranked]]:
    """For each test input the different grids of all solvers, best first.

    Args:
        effort: bounds on the work.
        solvers: a subset of SOLVERS.
        limit: number of grids for each test input.
    """
    best: list[list[Ranked]] = [[] for _ in task.tests]
    for _, rows in ranked_batches(task, effort, solvers, limit):
        best = rows
    return best


def ranked_batches(
    task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS, limit: int = 10
) -> Iterator[tuple[list[SolverAnswer], list[list[Ranked]]]]:
    """Each batch with what all batches so far come to: for each test input its `limit` best grids, best first.

    Ends when the best grids are probable enough (`effort.enough`): later solvers then seldom find a better one.
    """
    ranking = Ranking(task)
    for batch in batches(task, effort, solvers):
        ranking.add(batch)
        rows = ranking.best(limit)
        yield batch, rows
        if effort.enough is not None and certainty(rows) >= effort.enough:
            return


def batches(task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS) -> Iterator[list[SolverAnswer]]:
    """Answers in batches as they are found; a later batch may have better ones."""
    sure = False
    for name, solve in _DIRECT.items():
        if name in solvers:
            found = solve(task)
            sure = sure or any(a.explained == 1 and a.cost <= _SURE_COST for a in found)
            yield found
    if "divided" in solvers and not sure:
        for division in divisions(task):
            yield join_answers(_light_cells(division.task) + objects.solve(division.task), division)
    if "turned" in solvers and not sure:
        for turn in turns(task):
            yield _lifted(turn, _light_cells(turn.task), "turned")
    if "reduced" in solvers:
        for reduction in reductions(task):
            for name in _ON_REDUCED:
                yield _lifted(reduction, _DIRECT[name](reduction.task))
            for batch in programs.solve(reduction.task, effort.share(_REDUCED_DIVISOR)):
                yield _lifted(reduction, batch)
    if "outer" in solvers:

        def solve_part(part: Task) -> list[list[SolverAnswer]]:
            return rank_answers([a for batch in programs.solve(part, effort.share(_REDUCED_DIVISOR)) for a in batch], len(part.tests))

        yield outer.solve(task, solve_part)
    simple = False
    if "programs" in solvers:
        for batch in programs.solve(task, effort):
            simple = simple or any(a.explained == 1 and a.cost <= programs.GOOD_COST for a in batch)
            yield batch
    if "mirrored" in solvers and effort.mirrored and not simple:
        for mirror in MIRRORS:
            for batch in programs.solve(with_mirrored_pairs(task, mirror), effort.share(_MIRRORED_DIVISOR)):
                yield unmirrored(batch, task, mirror)


def _light_cells(task: Task) -> list[SolverAnswer]:
    """Answers of the per-cell rules with reduced work, only where a first forest predicts something."""
    return cells.solve(task, *_LIGHT) if cells.is_predictive(task, *_LIGHT) else []


def _lifted(reduction: Reduction, answers: list[SolverAnswer], solver: str = "reduced") -> list[SolverAnswer]:
    """Answers to a restated task as answers to the original one."""
    out = []
    for answer in answers:
        grid = reduction.lift(answer.test, answer.grid)
        if grid is not None:
            text = f"{reduction.name}: {answer.solver}: {answer.program}"
            out.append(replace(answer, grid=grid, solver=solver, program=text, cost=answer.cost + reduction.cost))
    return out
