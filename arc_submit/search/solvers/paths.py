"""Rules about paths and marks: a forest predicts the colour of every cell from the paths that pass it and its place beside marks.

The paths and marks are those of path_features.py. A rule that uses none of them belongs to the solver "cells". Applies where an output has
its input's size.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.colours import recolourings
from arc_submit.search.features import FeatureTable, cell_table
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
    tables = [_table(grid) for grid in inputs_of(version.task)]
    answers = []
    for groups in _GROUPS:
        answers += answers_from_tables(version.task, [table.only(groups) for table in tables], TREES)
    new = {name for name, group in zip(tables[0].names, tables[0].groups, strict=True) if group in GROUPS}
    return [version.restore(replace(a, solver=NAME)) for a in answers if new.intersection(re.findall(r"\w+", a.program))]


def _table(grid: Grid) -> FeatureTable:
    """The features of a grid's cells with those of paths and marks."""
    first, second = cell_table(grid), path_table(grid)
    features = np.concatenate([first.features, second.features], axis=1)
    is_colour = np.concatenate([first.is_colour, second.is_colour])
    return FeatureTable(features, first.shape, first.names + second.names, is_colour, first.groups + second.groups)
