"""Object-level rules: changes of selected objects of a grid, learned from the train pairs by matching objects with outputs."""

from __future__ import annotations

from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.solvers.objects import rules, selection, summary, templates


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of every kind of rule."""
    return rules.solve(task) + selection.solve(task) + summary.solve(task) + templates.solve(task)
