"""Rules over several crops at once: each output cell is told from what the crops of the input show there, as they are, scaled or tiled.

One crop may be the pattern, another the mask that says where, a third the colours: an output that is one crop set down in the places of
another is a tree of two tests. Works where the output's size is that of a crop, or the product of the sizes of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, grid_id
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.crops import crops
from arc_submit.search.features import Columns
from arc_submit.search.solvers.cells import Table, answers_from_tables, make_table
from arc_submit.search.store import Array

NAME = "pieces"
MAX_SIZES = 2
Size = tuple[int, int]


def solve(task: Task) -> list[Answer]:
    """Answers under the first hypotheses on the output's size."""
    if all(pair.input.shape == pair.output.shape for pair in task.train):
        return []
    pieces = _pieces([pair.input for pair in task.train] + list(task.tests))
    answers: list[Answer] = []
    for sizes in _sizes(pieces, [pair.output for pair in task.train]):
        tables = _tables(pieces, sizes)
        if tables is not None:
            answers += [replace(answer, solver=NAME) for answer in answers_from_tables(task, tables)]
    return answers


def _pieces(inputs: list[Grid]) -> dict[str, list[Grid]]:
    """The input itself and every different crop that applies to all inputs, by name."""
    pieces = {"the input": inputs}
    seen = {tuple(grid_id(grid) for grid in inputs)}
    for name, crop in crops():
        cut: list[Grid] = []
        for grid in inputs:
            part = crop(grid)
            if part is None:
                break
            cut.append(part)
        ids = tuple(grid_id(grid) for grid in cut)
        if len(cut) == len(inputs) and ids not in seen:
            seen.add(ids)
            pieces[name] = cut
    return pieces


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


def _tables(pieces: dict[str, list[Grid]], sizes: list[Size]) -> list[Table] | None:
    """A column for each piece of the output's size, and two, scaled and tiled, for each whose sides divide the output's."""
    columns = [Columns(size) for size in sizes]
    used = 0
    for name, grids in pieces.items():
        if any(size[k] % grid.shape[k] or grid.size == 1 for grid, size in zip(grids, sizes, strict=True) for k in (0, 1)):
            continue
        used += 1
        whole = all(grid.shape == size for grid, size in zip(grids, sizes, strict=True))
        for out, grid, size in zip(columns, grids, sizes, strict=True):
            scale = (size[0] // grid.shape[0], size[1] // grid.shape[1])
            out.add(f"tiled {name}", np.tile(grid, scale), True)
            out.add(f"scaled {name}", np.kron(grid, np.ones(scale, np.int8)), True)
            if whole:
                out.add(f"mirrored {name}", grid[:, ::-1], True)
                out.add(f"upside down {name}", grid[::-1], True)
    if used < 2:
        return None
    for out, grid in zip(columns, pieces["the input"], strict=True):
        _add_colours(out, grid)
    return [make_table(out) for out in columns]


def _add_colours(out: Columns, grid: Grid) -> None:
    counts: Array = np.bincount(grid.ravel(), minlength=COLOURS)
    counts[0] = 0
    out.add("commonest", np.array(counts.argmax()), True)
    out.add("rarest", np.array(np.where(counts > 0, counts, 10**6).argmin()), True)
