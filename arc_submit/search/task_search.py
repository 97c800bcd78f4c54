"""The search of one task: every solver asked in turn, their answers ranked together, better ones as the work goes on.

The order goes from cheap to dear, so that a search that is cut short has something to show. Effort is counted work: the same effort gives
the same answers on any machine. Knows nothing about files and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.search import programs
from arc_submit.search.answers import Answer, rank
from arc_submit.search.divisions import divisions, joined
from arc_submit.search.mirrored import MIRRORS, undone, with_mirrored_pairs
from arc_submit.search.programs import Effort
from arc_submit.search.ranking import Ranked
from arc_submit.search.ranking import rank as rank_together
from arc_submit.search.reductions import Reduction, reductions, turns
from arc_submit.search.solvers import cells, completion, growth, objects, outer, pieces, scan

EFFORTS = {
    "quick": Effort(work=30_000_000, size_work=5_000_000, pieces=20_000),
    "normal": Effort(work=200_000_000, size_work=10_000_000, pieces=40_000),
    "long": Effort(work=1_000_000_000, size_work=50_000_000, pieces=80_000, sizes=3, mirrored=True),
}
SOLVERS = ("completion", "cells", "scan", "growth", "pieces", "objects", "divided", "turned", "reduced", "outer", "programs", "mirrored")
_REDUCED_SHARE = 8  # a restated task is smaller: it gets an eighth of the work
_REDUCED_SMALL = ("completion", "cells", "objects")  # asked again for a restatement, beside programs
_LIGHT = (3, 4)  # trees and folds of the rules about cells where they are asked again and again
_SURE_COST = 40  # a rule that explains every pair and costs no more is right more often than not: then no example is divided or turned
_MIRRORED_SHARE = 3  # for each mirror


@dataclass(frozen=True)
class Result:
    """What a search knows about a task.

    Attributes:
        ranked: for each test input, different grids, best first.
    """

    ranked: list[list[Ranked]]


def search_task(task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS, keep: int = 10) -> Result:
    """All answers to a task, ranked.

    Args:
        effort: bounds on the work.
        solvers: which of SOLVERS are asked.
        keep: how many different answers for each test input.
    """
    answers = [answer for batch in batches(task, effort, solvers) for answer in batch]
    return Result(rank_together(answers, task, keep))


def batches(task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS) -> Iterator[list[Answer]]:
    """Answers as they are found, in batches; a later batch may hold better ones."""
    small: dict[str, Callable[[Task], list[Answer]]] = {
        "completion": completion.solve,
        "cells": cells.solve,
        "scan": scan.solve,
        "growth": growth.solve,
        "pieces": pieces.solve,
        "objects": objects.solve,
    }
    sure = False
    for name, solve in small.items():
        if name in solvers:
            found = solve(task)
            sure = sure or any(a.explained == 1 and a.cost <= _SURE_COST for a in found)
            yield found
    if "divided" in solvers and not sure:
        for division in divisions(task):
            yield joined(_light_cells(division.task) + objects.solve(division.task), division)
    if "turned" in solvers and not sure:
        for turn in turns(task):
            yield _lifted(turn, _light_cells(turn.task), "turned")
    if "reduced" in solvers:
        for reduction in reductions(task):
            lesser = replace(effort, work=effort.work // _REDUCED_SHARE, size_work=effort.size_work // _REDUCED_SHARE)
            for name in _REDUCED_SMALL:
                yield _lifted(reduction, small[name](reduction.task))
            for batch in programs.solve(reduction.task, lesser):
                yield _lifted(reduction, batch)
    if "outer" in solvers:
        lesser = replace(effort, work=effort.work // _REDUCED_SHARE, size_work=effort.size_work // _REDUCED_SHARE)
        yield outer.solve(task, lambda part: rank([a for batch in programs.solve(part, lesser) for a in batch], len(task.tests)))
    simple = False
    if "programs" in solvers:
        for batch in programs.solve(task, effort):
            simple = simple or any(a.explained == 1 and a.cost <= programs.GOOD_COST for a in batch)
            yield batch
    if "mirrored" in solvers and effort.mirrored and not simple:
        lesser = replace(effort, work=effort.work // _MIRRORED_SHARE, size_work=effort.size_work // _MIRRORED_SHARE)
        for mirror in MIRRORS:
            for batch in programs.solve(with_mirrored_pairs(task, mirror), lesser):
                yield undone(batch, task, mirror)


def _light_cells(task: Task) -> list[Answer]:
    """Rules about the cells of a restated task, of which there are many: only where they foretell something."""
    return cells.solve(task, *_LIGHT) if cells.foretold(task, *_LIGHT) else []


def _lifted(reduction: Reduction, answers: list[Answer], solver: str = "reduced") -> list[Answer]:
    out = []
    for answer in answers:
        grid: Grid | None = reduction.lift(answer.test, answer.grid)
        if grid is not None:
            text = f"{reduction.name}: {answer.solver}: {answer.program}"
            out.append(replace(answer, grid=grid, solver=solver, program=text, cost=answer.cost + reduction.cost))
    return out
