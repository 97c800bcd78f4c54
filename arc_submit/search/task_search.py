"""The search of one task in passes: every solver in turn, with the answers of all of them ranked together.

The first pass takes a fraction of a second, so that every task of a run soon has its first answers; the last one has the long solvers.
Effort is counted work: the same effort gives the same answers on any machine. This module does not know files or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from arc_submit.arc.task import Task
from arc_submit.search import programs
from arc_submit.search.answers import SolverAnswer, rank_answers
from arc_submit.search.divisions import divisions, join_answers
from arc_submit.search.mirrored import MIRRORS, unmirrored, with_mirrored_pairs
from arc_submit.search.programs import Effort
from arc_submit.search.ranking import Ranked, Ranking, certainty
from arc_submit.search.reductions import Reduction, reductions, turns
from arc_submit.search.solvers import (
    arranged,
    cells,
    clauses,
    completion,
    extended,
    fitted,
    growth,
    objects,
    outer,
    panels,
    paths,
    pieces,
    related,
    scan,
    staged,
)

EFFORTS = {
    "quick": Effort(work=30_000_000, size_work=5_000_000, pieces=20_000, enough=0.95),
    "normal": Effort(work=200_000_000, size_work=10_000_000, pieces=40_000, enough=0.95),
    "long": Effort(work=1_000_000_000, size_work=50_000_000, pieces=80_000, sizes=3, mirrored=True),
}
SOLVERS = (
    "completion", "cells", "scan", "paths", "clauses", "growth", "pieces", "panels", "extended", "fitted", "objects", "related", "arranged",
    "staged", "divided", "turned", "reduced", "outer", "programs", "mirrored",
)  # fmt: skip
_DIRECT: dict[str, Callable[[Task], list[SolverAnswer]]] = {
    "completion": completion.solve,
    "cells": cells.solve,
    "scan": scan.solve,
    "paths": paths.solve,
    "clauses": clauses.solve,
    "growth": growth.solve,
    "pieces": pieces.solve,
    "panels": panels.solve,
    "extended": extended.solve,
    "fitted": fitted.solve,
    "objects": objects.solve,
    "related": related.solve,
    "arranged": arranged.solve,
}
FIRST_WORK, SECOND_WORK = 4_000_000, 16_000_000  # of the programs in the first two passes, at most
ENOUGH_BEFORE_LAST = 0.9  # the last pass takes most of the time, and finds little for a task whose answer is so probable
_ON_REDUCED = ("completion", "cells", "objects")  # the direct solvers for a reduced task, in addition to programs
_REDUCED_DIVISOR = 8  # of the work, because a reduced task is smaller
_MIRRORED_DIVISOR = 3  # of the work, for each mirror
_LIGHT = (3, 4)  # trees and folds of the per-cell rules for the many divided and turned tasks
# A rule that explains every pair at this cost or below is right more often than not: then nothing is staged, divided or turned.
_SURE_COST = 40
_PLAIN_COST = 25  # of a rule about objects of one part, which held-out pairs confirm


@dataclass(frozen=True)
class PassInput:
    """What a pass goes by.

    Attributes:
        task, effort, solvers: as for `TaskSearch`.
        found: the answers of the passes before.
    """

    task: Task
    effort: Effort
    solvers: Sequence[str]
    found: Sequence[SolverAnswer]


class TaskSearch:
    """The search of one task, pass by pass. A pass depends on the task, the effort and the passes before it alone.

    Args:
        effort: bounds on the work.
        solvers: a subset of SOLVERS.
        limit: number of grids for each test input.

    Attributes:
        ranking: all answers so far.
        passes: number of passes done.
        finished: no pass follows: all are done, or the best grids are probable enough (`effort.enough`; before the last pass
            ENOUGH_BEFORE_LAST), so that more work seldom finds better ones.
    """

    def __init__(self, task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS, limit: int = 10):
        self.task, self._effort, self._solvers, self._limit = task, effort, solvers, limit
        self.ranking = Ranking(task)
        self.passes = 0
        self.finished = False

    def next_pass(self) -> Iterator[tuple[list[SolverAnswer], list[list[Ranked]]]]:
        """Each batch with what all batches so far come to: for each test input its `limit` best grids, best first."""
        found = [answer for rules in self.ranking.rules.values() for answer in rules.values()]
        given = PassInput(self.task, self._effort, self._solvers, found)
        rows: list[list[Ranked]] = [[]]
        for batch in _PASSES[self.passes](given):
            self.ranking.add(batch)
            rows = self.ranking.best(self._limit)
            yield batch, rows
            if self._effort.enough is not None and certainty(rows) >= self._effort.enough:
                self.finished = True
                break
        self.passes += 1
        before_last = self.passes == len(_PASSES) - 1 and self._effort.enough is not None
        self.finished |= self.passes == len(_PASSES) or (before_last and certainty(rows) >= ENOUGH_BEFORE_LAST)


def search_task(task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS, limit: int = 10) -> list[list[Ranked]]:
    """For each test input the different grids of all passes, best first."""
    best: list[list[Ranked]] = [[] for _ in task.tests]
    for _, rows in ranked_batches(task, effort, solvers, limit):
        best = rows
    return best


def ranked_batches(
    task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS, limit: int = 10
) -> Iterator[tuple[list[SolverAnswer], list[list[Ranked]]]]:
    """The batches of all passes, see `TaskSearch`."""
    search = TaskSearch(task, effort, solvers, limit)
    while not search.finished:
        yield from search.next_pass()


def batches(task: Task, effort: Effort, solvers: Sequence[str] = SOLVERS) -> Iterator[list[SolverAnswer]]:
    """The answers of all passes in batches as they are found, however probable they are; a later batch may have better ones."""
    return (batch for batch, _ in ranked_batches(task, replace(effort, enough=None), solvers))


# --- The passes --------------------------------------------------------------------------------------------------------------------------


def _first_pass(given: PassInput) -> Iterator[list[SolverAnswer]]:
    """What is found in a tenth of a second: programs of about two steps, and the cheapest solvers."""
    yield from _direct(given, "completion", "pieces", "panels", "extended", "fitted")
    if "programs" in given.solvers:
        yield from programs.solve(given.task, given.effort.at_most(FIRST_WORK))


def _second_pass(given: PassInput) -> Iterator[list[SolverAnswer]]:
    """Solvers of tenths of a second, and programs with more work."""
    # Where the per-cell rules agree with a program the search often ends, before more programs speak against it.
    yield from _direct(given, "scan", "cells", "paths", "clauses")
    if "programs" in given.solvers and given.effort.work > FIRST_WORK and not _is_simple(given.found):
        yield from programs.solve(given.task, given.effort.at_most(SECOND_WORK))


def _third_pass(given: PassInput) -> Iterator[list[SolverAnswer]]:
    """The other solvers of the task as it is."""
    found: list[SolverAnswer] = []
    for batch in _direct(given, "arranged", "objects"):
        found += batch
        yield batch
    # A plain rule about objects alone is right more often than one about related objects, which would take as long again.
    if not any(a.explained == 1 and a.cost <= _PLAIN_COST for a in found):
        for batch in _direct(given, "related"):
            found += batch
            yield batch
    # In the pass of the solver of objects, whose tables are held for one task.
    if staged.NAME in given.solvers and not _is_sure([*given.found, *found]):
        stage = staged.first_stage(given.task)
        if stage is not None:
            yield _lifted(stage, clauses.solve(stage.task) + objects.solve(stage.task), staged.NAME)
    yield from _direct(given, "growth")


def _last_pass(given: PassInput) -> Iterator[list[SolverAnswer]]:
    """Solvers of the task restated in other ways, and programs with all the work."""
    task, effort, solvers = given.task, given.effort, given.solvers
    sure = _is_sure(given.found)
    if "divided" in solvers and not sure:
        for division in divisions(task):
            yield join_answers(_light_cells(division.task) + objects.solve(division.task), division)
    if "turned" in solvers and not sure:
        for turn in turns(task):
            yield _lifted(turn, _light_cells(turn.task), "turned")
    part_effort = effort.share(_REDUCED_DIVISOR)
    if "reduced" in solvers:
        for reduction in reductions(task):
            if reduction.light:
                yield _lifted(reduction, _light_cells(reduction.task) + objects.solve(reduction.task))
                if reduction.with_clauses:
                    yield _lifted(reduction, clauses.solve(reduction.task))
                continue
            for name in _ON_REDUCED:
                yield _lifted(reduction, _DIRECT[name](reduction.task))
            for batch in programs.solve(reduction.task, part_effort):
                yield _lifted(reduction, batch)
    if "outer" in solvers:

        def solve_part(part: Task) -> list[list[SolverAnswer]]:
            return rank_answers([a for batch in programs.solve(part, part_effort) for a in batch], len(part.tests))

        yield outer.solve(task, solve_part)
    simple = _is_simple(given.found)
    if "programs" in solvers and effort.work > SECOND_WORK and not simple:
        for batch in programs.solve(task, effort):
            simple = simple or _is_simple(batch)
            yield batch
    if "mirrored" in solvers and effort.mirrored and not simple:
        for mirror in MIRRORS:
            for batch in programs.solve(with_mirrored_pairs(task, mirror), effort.share(_MIRRORED_DIVISOR)):
                yield unmirrored(batch, task, mirror)


_PASSES: tuple[Callable[[PassInput], Iterator[list[SolverAnswer]]], ...] = (_first_pass, _second_pass, _third_pass, _last_pass)


def _direct(given: PassInput, *names: str) -> Iterator[list[SolverAnswer]]:
    """The answers of the solvers with these names that a search has."""
    for name in names:
        if name in given.solvers:
            yield _DIRECT[name](given.task)


def _is_sure(answers: Sequence[SolverAnswer]) -> bool:
    """Whether a cheap rule for the task as it is explains every pair."""
    return any(a.explained == 1 and a.cost <= _SURE_COST and a.solver in _DIRECT for a in answers)


def _is_simple(answers: Sequence[SolverAnswer]) -> bool:
    """Whether a simple program explains every pair, so that the exploration has ended with it."""
    return any(a.explained == 1 and a.cost <= programs.GOOD_COST and a.solver == programs.NAME for a in answers)


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
