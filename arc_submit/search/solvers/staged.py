"""Two stages: one action on objects makes a part of the changes, and what it leaves is a task of its own for other solvers.

The action is never wrong on any train pair and explains changed cells of every one, so that each input comes closer to its output. A rule
about objects alone must explain all changes; here the rest may be of another kind, such as lines from where an object comes to lie.
This module does not know which solvers follow.
"""

from __future__ import annotations

from arc_submit.arc.task import Pair, Task
from arc_submit.search.grid_tools import inputs_of, output_cells
from arc_submit.search.reductions import Reduction
from arc_submit.search.solvers.objects.rules import apply, leading_part

NAME = "staged"
MAX_CELLS = 2500  # of all train outputs
LEAST_SHARE = 0.4  # of the changed cells that the action must explain; a smaller part seldom belongs to the rule


def first_stage(task: Task) -> Reduction | None:
    """The task with its inputs changed by the action that explains most; None where it explains a small part, or all, or leaves no grid."""
    if output_cells(task) > MAX_CELLS:
        return None
    found = leading_part(task)
    if found is None or not LEAST_SHARE <= found[1] < 1:
        return None
    part = found[0]
    applied = [apply([part], k) for k in range(len(inputs_of(task)))]
    grids = [grid for grid in applied if grid is not None]
    if len(grids) < len(applied):
        return None
    pairs = tuple(Pair(grid, pair.output) for grid, pair in zip(grids, task.train, strict=False))
    left = Task(task.id, pairs, tuple(grids[len(pairs) :]))
    return Reduction(left, lambda _, grid: grid, f"after {part.text}", int(part.cost))
