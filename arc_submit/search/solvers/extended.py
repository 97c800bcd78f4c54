"""Outputs larger than their inputs that show the input, whole, at one place: the cells around it continue its pattern.

The pattern continues by one shift, by the symmetries and periods of the completion, or by a rule for the cells beside the input and one for
those at its corners. The input may be recoloured.
This module does not know outputs that show the input twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import Size, commonest_colour, inputs_of, keeps_size
from arc_submit.search.sizes import formula_sizes
from arc_submit.search.solvers.completion import PLANS, complete
from arc_submit.search.store import Array

NAME = "extended"
MAX_SIZES = 4
SHOWN = 0.3  # share of the painted visible cells that a shift maps to visible cells
# Twice the share of the free rows above the input, and of the free columns left of it.
PLACES = {"top left": (0, 0), "bottom left": (2, 0), "top right": (0, 2), "bottom right": (2, 2), "middle": (1, 1)}


@dataclass(frozen=True)
class Canvas:
    """An output of which only the input's cells are known.

    Attributes:
        grid: int8 (h, w), the input on its background.
        hidden: bool (h, w), the cells outside the input.
        place: rows above the input, and columns left of it.
        source: the input with the colours of the output.
    """

    grid: Grid
    hidden: Array
    place: tuple[int, int]
    source: Grid


Continue = Callable[[Canvas], Grid | None]


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of every continuation that reproduces all train pairs."""
    if keeps_size(task):
        return []
    answers: list[SolverAnswer] = []
    pairs = len(task.train)
    for hypothesis in formula_sizes(task)[:MAX_SIZES]:
        for name, canvases in _canvases(task, hypothesis.sizes):
            for number, (text, continued) in enumerate(_continuations()):
                if all(same_grid(continued(c), pair.output) for c, pair in zip(canvases, task.train, strict=False)):
                    for test, canvas in enumerate(canvases[pairs:]):
                        out = continued(canvas)
                        if out is not None:
                            cost = 12.0 + number / 2 + hypothesis.cost
                            answers.append(SolverAnswer(test, out, NAME, f"around the input, {name}, {text}", 1.0, cost))
            answers += _by_sides(task, canvases, f"around the input, {name}", 14.0 + hypothesis.cost)
    return answers


def _canvases(task: Task, test_sizes: tuple[Size, ...]) -> Iterator[tuple[str, list[Canvas]]]:
    """(Name, a canvas for each example) of every place at which all train outputs show their inputs."""
    inputs, sizes = inputs_of(task), [pair.output.shape for pair in task.train] + list(test_sizes)
    free = [(size[0] - grid.shape[0], size[1] - grid.shape[1]) for grid, size in zip(inputs, sizes, strict=True)]
    if any(min(rest) < 0 for rest in free) or not any(max(rest) for rest in free):
        return
    seen: list[list[tuple[int, int]]] = []
    for name, halves in PLACES.items():
        if name == "middle" and any(rest[k] % 2 for rest in free for k in (0, 1)):
            continue
        places = [(rest[0] * halves[0] // 2, rest[1] * halves[1] // 2) for rest in free]
        colours = _recolouring(task, places)
        if colours is not None and places not in seen:
            seen.append(places)
            yield name, [_canvas(colours[grid], place, size) for grid, place, size in zip(inputs, places, sizes, strict=True)]


def _recolouring(task: Task, places: list[tuple[int, int]]) -> Array | None:
    """The colour in the outputs of each colour of the inputs, int8 (10,); None where the outputs do not show their inputs."""
    colours = np.full(COLOURS, -1, np.int8)
    for pair, (top, left) in zip(task.train, places, strict=False):
        shown = pair.output[top : top + pair.input.shape[0], left : left + pair.input.shape[1]]
        for colour in np.unique(pair.input):
            values = np.unique(shown[pair.input == colour])
            if len(values) > 1 or colours[colour] not in (-1, values[0]):
                return None
            colours[colour] = values[0]
    return np.where(colours < 0, np.arange(COLOURS, dtype=np.int8), colours)


def _canvas(source: Grid, place: tuple[int, int], size: tuple[int, ...]) -> Canvas:
    box = slice(place[0], place[0] + source.shape[0]), slice(place[1], place[1] + source.shape[1])
    grid, hidden = np.full(size, commonest_colour(source), np.int8), np.ones(size, np.bool_)
    grid[box], hidden[box] = source, False
    return Canvas(frozen(grid), hidden, place, frozen(source))


# --- Continuations -----------------------------------------------------------------------------------------------------------------------


def _continuations() -> Iterator[tuple[str, Continue]]:
    yield "by one shift", by_one_shift
    for plan, overlap in PLANS:
        yield plan, lambda canvas, plan=plan, overlap=overlap: complete(canvas.grid, canvas.hidden, plan, overlap)  # type: ignore[misc]


def by_one_shift(canvas: Canvas) -> Grid | None:
    """The canvas continued by the shortest shift that no visible cell contradicts; None where there is none."""
    source = canvas.source
    h, w = source.shape
    painted = source != commonest_colour(source)
    shifts = [(dy, dx) for dy in range(h) for dx in range(1 - w, w) if dy or dx > 0]
    for dy, dx in sorted(shifts, key=lambda s: (abs(s[0]) + abs(s[1]), s)):
        a, b = source[: h - dy, max(0, -dx) : w - max(0, dx)], source[dy:, max(0, dx) : w + min(0, dx)]
        marked = painted[: h - dy, max(0, -dx) : w - max(0, dx)]
        if marked.sum() >= max(1, SHOWN * painted.sum()) and (a == b).all():
            return _continued(canvas, dy, dx)
    return None


def _continued(canvas: Canvas, dy: int, dx: int) -> Grid:
    """Each hidden cell takes the colour of the nearest visible cell that is whole shifts away."""
    (h, w), out = canvas.grid.shape, canvas.grid.copy()
    for i, j in np.argwhere(canvas.hidden).tolist():
        for step in (k for n in range(1, max(h, w)) for k in (n, -n)):
            p, q = i - step * dy, j - step * dx
            if 0 <= p < h and 0 <= q < w and not canvas.hidden[p, q]:
                out[i, j] = canvas.grid[p, q]
                break
    return frozen(out)


# --- A rule for the cells beside the input and one for those at its corners --------------------------------------------------------------


def _by_sides(task: Task, canvases: list[Canvas], text: str, cost: float) -> list[SolverAnswer]:
    """The answers of the plainest source that all train pairs show beside the input, and of the plainest at its corners."""
    pairs = len(task.train)
    outputs = [canvas.grid.copy() for canvas in canvases]
    for words, corners in (("beside it", False), ("at its corners", True)):
        places = [_outside(canvas) == 1 + corners for canvas in canvases]
        if not any(place.any() for place in places[:pairs]):
            continue
        number, source = next(((n, s) for n, s in enumerate(_SOURCES) if _shown(s, task, canvases, places)), (-1, None))
        if source is None:
            return []
        for out, canvas, place in zip(outputs, canvases, places, strict=True):
            out[place] = source.cells(canvas)[place]
        text, cost = f"{text}, {words} {source.name}", cost + number / 2
    return [SolverAnswer(k, frozen(out), NAME, text, 1.0, cost) for k, out in enumerate(outputs[pairs:])]


@dataclass(frozen=True)
class _Source:
    """Where hidden cells may have their colours from: an array of the canvas's shape."""

    name: str
    cells: Callable[[Canvas], Array]


def _shown(source: _Source, task: Task, canvases: list[Canvas], places: list[Array]) -> bool:
    """Whether all train outputs have the source's colours in these places."""
    train = zip(task.train, canvases, places, strict=False)
    return all((pair.output[place] == source.cells(canvas)[place]).all() for pair, canvas, place in train)


def _places_in_input(canvas: Canvas) -> tuple[Array, Array]:
    """The row and the column of each cell as seen from the input, negative above it and left of it."""
    rows, columns = np.indices(canvas.grid.shape)
    return np.asarray(rows - canvas.place[0]), np.asarray(columns - canvas.place[1])


def _outside(canvas: Canvas) -> Array:
    """For each cell 0 inside the input, 1 in its rows or columns, 2 at its corners."""
    rows, columns = (np.clip(k, 0, n - 1) != k for k, n in zip(_places_in_input(canvas), canvas.source.shape, strict=True))
    return np.asarray(rows.astype(int) + columns)


def _nearest(canvas: Canvas) -> Array:
    rows, columns = (np.clip(k, 0, n - 1) for k, n in zip(_places_in_input(canvas), canvas.source.shape, strict=True))
    return np.asarray(canvas.source[rows, columns])


def _repeated(canvas: Canvas) -> Array:
    rows, columns = (k % n for k, n in zip(_places_in_input(canvas), canvas.source.shape, strict=True))
    return np.asarray(canvas.source[rows, columns])


def _mirrored(canvas: Canvas, once: bool) -> Array:
    """The input mirrored at its edges; `once`: the edge itself occurs once."""
    rows, columns = (_folded(k, n, once) for k, n in zip(_places_in_input(canvas), canvas.source.shape, strict=True))
    return np.asarray(canvas.source[rows, columns])


def _folded(places: Array, length: int, once: bool) -> Array:
    period = max(1, 2 * (length - once))
    places = places % period
    return np.asarray(np.minimum(places, (period - places) % period if once else period - 1 - places))


def _commonest_near(canvas: Canvas) -> Array:
    """Beside the input the commonest colour of the row or the column, at the corners that of the input."""
    height, width = canvas.source.shape
    rows, columns = _places_in_input(canvas)
    by_row, by_column = (np.array([commonest_colour(line) for line in lines]) for lines in (canvas.source, canvas.source.T))
    in_rows, in_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    sides = np.where(in_columns, by_column[np.clip(columns, 0, width - 1)], commonest_colour(canvas.source))
    return np.asarray(np.where(in_rows, by_row[np.clip(rows, 0, height - 1)], sides))


def _constant(canvas: Canvas, colour: int) -> Array:
    return np.full(canvas.grid.shape, colour, np.int8)


_SOURCES = (
    _Source("the nearest cell", _nearest),
    _Source("the input again", _repeated),
    _Source("the input mirrored", partial(_mirrored, once=False)),
    _Source("the input mirrored about its edge", partial(_mirrored, once=True)),
    _Source("the commonest colour of the line", _commonest_near),
    _Source("the commonest colour", lambda canvas: _constant(canvas, commonest_colour(canvas.source))),
    *(_Source(f"colour {colour}", partial(_constant, colour=colour)) for colour in range(COLOURS)),
)
