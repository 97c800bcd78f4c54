"""Rules about objects and the objects related to them: conditions, colours, moves and copies that refer to another object."""

from __future__ import annotations

from dataclasses import replace

from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import inputs_of, keeps_size
from arc_submit.search.solvers.objects import rules, selection
from arc_submit.search.solvers.objects.scenes import segmentations
from arc_submit.search.solvers.related.conditions import relational_traits
from arc_submit.search.solvers.related.effects import relational_actions

NAME = "related"
_VOCABULARY = rules.Vocabulary(NAME, relational_actions, relational_traits)


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the rules that explain every train pair."""
    if keeps_size(task):
        return rules.solve(task, _VOCABULARY)
    found = [
        rule for segmentation in segmentations(inputs_of(task)) for rule in selection.evaluate_rules(task, segmentation, relational_traits)
    ]
    return [replace(answer, solver=NAME) for answer in selection.answers_of(task, found)]
