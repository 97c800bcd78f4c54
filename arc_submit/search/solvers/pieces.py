"""Rules over one or more crops at once: each output cell follows from the cells of the crops there, unchanged, scaled or tiled.

One crop may be the pattern, another the mask of its places, a third the colours: an output that repeats one crop in the places of another
is a tree of two tests. Applies where the output's size is that of a crop, or the product of the sizes of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.colours import recolourings
from arc_submit.search.crops import distinct_crops
from arc_submit.search.features import FeatureColumns, FeatureTable
from arc_submit.search.grid_tools import Size, inputs_of, keeps_size, painted_counts, rarest_index
from arc_submit.search.solvers.cells import answers_from_tables

NAME = "pieces"
MAX_SIZES = 2
MAX_VERSIONS = 2  # of the colours


def solve(task: Task) -> list[SolverAnswer]:
    """Answers under the first hypotheses on the output's size."""
    if keeps_size(task):
        return []
    return [version.restore(answer) for version in recolourings(task)[:MAX_VERSIONS] for answer in _solve_version(version.task)]


def _solve_version(task: Task) -> list[SolverAnswer]:
    inputs = inputs_of(task)
    pieces = {"the input": inputs}
    pieces |= {name: grids for name, grids in distinct_crops(inputs) if not all(map(same_grid, grids, inputs))}
    answers: list[SolverAnswer] = []
    for sizes in _sizes(pieces, [pair.output for pair in task.train]):
        tables = _tables(pieces, sizes)
        if tables is not None:
            answers += [replace(answer, solver=NAME) for answer in answers_from_tables(task, tables)]
    return answers


def _sizes(pieces: dict[str, list[Grid]], outputs: list[Grid]) -> Iterator[list[Size]]:
    """Sizes for every example, train first, that agree with the outputs: those of a piece, then products of two pieces' sizes."""
    shapes = [[(grid.shape[0], grid.shape[1]) for grid in grids] for grids in pieces.values()]
    hypotheses = [*shapes, *([(a[0] * b[0], a[1] * b[1]) for a, b in zip(s, t, strict=True)] for s in shapes for t in shapes)]
    found: list[list[Size]] = []
    for sizes in hypotheses:
        fits = all(size == out.shape for size, out in zip(sizes, outputs, strict=False)) and max(map(max, sizes)) <= MAX_SIDE
        if fits and sizes not in found:
            found.append(sizes)
            yield sizes
            if len(found) == MAX_SIZES:
                return


def _tables(pieces: dict[str, list[Grid]], sizes: list[Size]) -> list[FeatureTable] | None:
    """Columns for each piece whose sides divide the output's: tiled, scaled and, where it has the output's size, mirrored."""
    columns = [FeatureColumns(size) for size in sizes]
    used = 0
    for name, grids in pieces.items():
        if any(size[k] % grid.shape[k] or grid.size == 1 for grid, size in zip(grids, sizes, strict=True) for k in (0, 1)):
            continue
        used += 1
        has_output_size = all(grid.shape == size for grid, size in zip(grids, sizes, strict=True))
        for out, grid, size in zip(columns, grids, sizes, strict=True):
            scale = (size[0] // grid.shape[0], size[1] // grid.shape[1])
            out.add(f"tiled {name}", np.tile(grid, scale), True)
            out.add(f"scaled {name}", np.kron(grid, np.ones(scale, np.int8)), True)
            if has_output_size:
                out.add(f"mirrored {name}", grid[:, ::-1], True)
                out.add(f"upside down {name}", grid[::-1], True)
    if used == 0:
        return None
    for out, grid in zip(columns, pieces["the input"], strict=True):
        counts = painted_counts(grid)
        out.add("commonest", np.array(counts.argmax()), True)
        out.add("rarest", rarest_index(counts), True)
    return [out.table() for out in columns]
