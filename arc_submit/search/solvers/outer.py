"""Outer products: outputs that repeat one tile in the places of a smaller shape, with tile and shape each found by a search of its own.

Either the tile has the colours and the shape the places, or the shape has the colours and the tile the painted cells of a block. This
module does not know the search for tile and shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import Size

NAME = "outer"


def solve(task: Task, solve_part: Callable[[Task], list[list[SolverAnswer]]]) -> list[SolverAnswer]:
    """Answers from every factorisation of the outputs.

    Args:
        solve_part: ranked answers to each test input of a task; called for the tiles and for the shapes.
    """
    answers: list[SolverAnswer] = []
    for sizes in _tile_sizes(task):
        for coloured_tile in (True, False):
            found = [_factor(pair.output, size, coloured_tile) for pair, size in zip(task.train, sizes, strict=True)]
            factors = [factor for factor in found if factor is not None]
            if len(factors) < len(found):
                continue
            shapes = solve_part(_with_outputs(task, [shape for shape, _ in factors]))
            tiles = solve_part(_with_outputs(task, [tile for _, tile in factors])) if any(shapes) else []
            for test in range(len(task.tests) if tiles else 0):
                for shape in shapes[test][:3]:
                    for tile in tiles[test][:3]:
                        grid = multiply(shape.grid, tile.grid, coloured_tile)
                        if grid is not None:
                            text = f"tile ({tile.program}) in the places of ({shape.program})"
                            explained = shape.explained * tile.explained
                            answers.append(SolverAnswer(test, grid, NAME, text, explained, shape.cost + tile.cost + 6))
            break
    return answers


def multiply(shape: Grid, tile: Grid, coloured_tile: bool) -> Grid | None:
    """The tile in place of each painted cell of the shape, in its own colours or in the cell's; None beyond 30 by 30."""
    if shape.shape[0] * tile.shape[0] > MAX_SIDE or shape.shape[1] * tile.shape[1] > MAX_SIDE:
        return None
    return frozen(np.kron(shape != 0, tile) if coloured_tile else np.kron(shape, tile != 0))


def _tile_sizes(task: Task) -> Iterator[list[Size]]:
    """For each train pair the size of a tile: its input's, the one that gives the shape its input's size, or one for all pairs."""
    inputs = [(pair.input.shape[0], pair.input.shape[1]) for pair in task.train]
    outputs = [(pair.output.shape[0], pair.output.shape[1]) for pair in task.train]
    rules = [inputs]
    if all(o[k] % i[k] == 0 for i, o in zip(inputs, outputs, strict=True) for k in (0, 1)):
        rules.append([(o[0] // i[0], o[1] // i[1]) for i, o in zip(inputs, outputs, strict=True)])
    rules += [[(k, k)] * len(inputs) for k in range(2, 6)]
    seen = []
    for sizes in rules:
        divides = all(o[k] % t[k] == 0 for o, t in zip(outputs, sizes, strict=True) for k in (0, 1))
        trivial = any(t == (1, 1) or t == o for o, t in zip(outputs, sizes, strict=True))
        if divides and not trivial and sizes not in seen:
            seen.append(sizes)
            yield sizes


def _factor(output: Grid, size: Size, coloured_tile: bool) -> tuple[Grid, Grid] | None:
    """Shape and tile whose product is the output, or None where there are none."""
    height, width = size
    rows, columns = output.shape[0] // height, output.shape[1] // width
    blocks = output.reshape(rows, height, columns, width).swapaxes(1, 2)
    painted = np.asarray(blocks.any(axis=(2, 3)))
    if not painted.any():
        return None
    tile = frozen(blocks[painted][0] if coloured_tile else np.minimum(blocks[painted][0], 1))
    shape = frozen(painted if coloured_tile else blocks.max(axis=(2, 3)))
    product = multiply(shape, tile, coloured_tile)
    return (shape, tile) if product is not None and (product == output).all() else None


def _with_outputs(task: Task, outputs: list[Grid]) -> Task:
    return Task(task.id, tuple(Pair(p.input, out) for p, out in zip(task.train, outputs, strict=True)), task.tests)
