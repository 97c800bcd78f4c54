"""Rules about paths and marks: a forest predicts the colour of every cell from the paths that pass it and its place beside marks.

The paths and marks are those of path_features.py. A rule that uses none of them belongs to the solver "cells". Applies where an output has
its input's size.
"""

from __future__ import annotations

import re
from dataclasses import replace

from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.colours import recolourings
from arc_submit.search.features import cell_table, joined
from arc_submit.search.grid_tools import inputs_of, keeps_size, output_cells
from arc_submit.search.path_features import GROUPS, path_table
from arc_submit.search.solvers.cells import answers_from_tables

NAME = "paths"
TREES = 3
MAX_ROWS = 4000  # cells of all train outputs
_GROUPS = (*(("near", group) for group in GROUPS), ("near", "parts", "lines", *GROUPS))


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of forests with each set of groups that reproduce every train pair."""
    if not keeps_size(task) or output_cells(task) > MAX_ROWS:
        return []
    version = recolourings(task)[0]
    tables = [joined((cell_table(grid), path_table(grid))) for grid in inputs_of(version.task)]
    answers = []
    for groups in _GROUPS:
        answers += answers_from_tables(version.task, [table.only(groups) for table in tables], TREES)
    new = {name for name, group in zip(tables[0].names, tables[0].groups, strict=True) if group in GROUPS}
    return [version.restore(replace(a, solver=NAME)) for a in answers if new.intersection(re.findall(r"\w+", a.program))]
