"""Rules for outputs that summarise a scene: the colours of some objects in an order, or a picture that depends on their number or on
what equal inputs have in common.

This module does not know changes of objects; every rule is evaluated on all train pairs, see selection.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, grid_id, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.features import mirror_code
from arc_submit.search.grid_tools import (
    background_of,
    block_side,
    bounding_box,
    inputs_of,
    keeps_size,
    oriented,
    painted_counts,
    rarest_index,
)
from arc_submit.search.solvers.objects.scenes import Segmentation, segmentations
from arc_submit.search.solvers.objects.selection import EvaluatedRule, answers_of
from arc_submit.search.solvers.objects.traits import make_tests, traits
from arc_submit.search.store import Array

ORDERS = (
    "left of it", "above it", "area", "height", "width", "cells of its colour", "of its colour", "holes", "larger boxes", "of its shape",
)  # fmt: skip
MAX_FILTERS = 60


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the cheapest rules that reproduce every train pair."""
    if keeps_size(task):
        return []
    found: list[EvaluatedRule] = []
    outputs = [pair.output for pair in task.train]
    lines = all(min(output.shape) == 1 < max(output.shape) for output in outputs) and len({o.shape[0] == 1 for o in outputs}) == 2
    few = len({grid_id(output) for output in outputs}) < len(outputs) or len({output.shape for output in outputs}) == 1
    for segmentation in segmentations(inputs_of(task)):
        found += _sequences(outputs, segmentation)
        if lines:
            found += _sequences_along(outputs, segmentation)
        if few:
            found += _counts(outputs, segmentation)
    if few:
        found += _classes(task)
    return answers_of(task, found)


def _uniform_rows(output: Array) -> bool:
    """Whether every row has one colour."""
    return bool((output == output[:, :1]).all())


def _sequences(outputs: list[Grid], segmentation: Segmentation) -> Iterator[EvaluatedRule]:
    """Rules that list the colours of the objects that pass a test, ordered by a trait, in one of several layouts."""
    pairs = len(outputs)
    scenes, starts = segmentation.scenes, segmentation.starts()
    layouts = list(_layouts(outputs, int(scenes[0].blank)))
    if not layouts:
        return
    tests = make_tests(segmentation, pairs)
    tables = [traits(scene) for scene in scenes]
    colours = [np.array([o.colour for o in scene.objects]) for scene in scenes]
    for t in range(min(len(tests.names), MAX_FILTERS)):
        chosen = np.split(tests.passed[t], starts[1:-1])
        for once in (True, False):
            counts = [len(set(c[row].tolist())) if once else int(row.sum()) for c, row in zip(colours, chosen, strict=True)]
            fitting = [layout for layout in layouts if layout.fits(counts[:pairs])]
            for number, order in enumerate(ORDERS if fitting else ()):
                for sign in (1, -1):
                    lists = [_sequence(sign * tables[k][order][row], colours[k][row], once) for k, row in enumerate(chosen)]
                    for layout in fitting:
                        grids = [layout.draw(colours_in_order) for colours_in_order in lists]
                        right = np.array([same_grid(grid, output) for grid, output in zip(grids, outputs, strict=False)])
                        if right.sum() >= max(1, pairs - 1):
                            by = f"{'' if sign > 0 else 'falling '}{order}"
                            text = f"colours of {segmentation.name} with {tests.names[t]} by {by}{layout.name}"
                            cost = 2.0 + segmentation.cost + tests.costs[t] + 0.3 * number + 0.2 * (not once) + layout.cost
                            yield EvaluatedRule(text, float(cost), right, tuple(grids[pairs:]))


@dataclass(frozen=True)
class _Layout:
    """How a list of colours becomes a grid.

    Attributes:
        cells: for each train output the number of colours that it shows in this layout.
        exact: whether that number is known, or only its largest value.
        draw: returns None for a list that does not fit.
    """

    name: str
    cost: float
    cells: tuple[int, ...]
    exact: bool
    draw: Callable[[list[int]], Grid | None]

    def fits(self, counts: list[int]) -> bool:
        """Whether lists of these lengths may give all train outputs but one."""
        good = sum(n == m or (not self.exact and 0 < n < m) for n, m in zip(counts, self.cells, strict=True))
        return good >= max(1, len(counts) - 1)


def _layouts(outputs: list[Grid], blank: int) -> Iterator[_Layout]:
    """The layouts that the sizes and lines of the train outputs allow."""
    for tall in (True, False):
        turned = [output if tall else output.T for output in outputs]
        if not all(_uniform_rows(output) for output in turned):
            continue
        lengths, thicknesses = tuple(len(output) for output in turned), {output.shape[1] for output in turned}
        if len(thicknesses) == 1:
            yield _Layout("", 0.0, lengths, False, partial(_stripes, tall=tall, thickness=thicknesses.pop()))
        elif all(output.shape[0] == output.shape[1] for output in turned):
            yield _Layout(", in a square", 0.3, lengths, True, lambda row, tall=tall: _stripes(row, tall, len(row)))  # type: ignore[misc]
    shapes = {output.shape for output in outputs}
    if len(shapes) == 1 and min(outputs[0].shape) > 1:
        shape = outputs[0].shape
        shown = tuple(int((output != blank).sum()) for output in outputs)
        for number, (name, places) in enumerate(_fillings(shape)):
            yield _Layout(f", {name}", 0.5 + 0.2 * number, shown, True, partial(_filled, shape=shape, places=places, blank=blank))


def _fillings(shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """(Name, indices of all cells in an order) of the ways to fill a grid."""
    numbers = np.arange(shape[0] * shape[1]).reshape(shape)
    yield "row by row", numbers.ravel()
    yield "column by column", numbers.T.ravel()
    yield "row by row, there and back", np.concatenate([row[:: -1 if k % 2 else 1] for k, row in enumerate(numbers)])
    yield "column by column, down and up", np.concatenate([row[:: -1 if k % 2 else 1] for k, row in enumerate(numbers.T)])
    yield "row by row from below", numbers[::-1].ravel()


def _filled(colours: list[int], shape: tuple[int, ...], places: Array, blank: int) -> Grid | None:
    if not 0 < len(colours) <= len(places):
        return None
    out = np.full(shape, blank, np.int8)
    out.ravel()[places[: len(colours)]] = colours
    return frozen(out)


def _sequences_along(outputs: list[Grid], segmentation: Segmentation) -> Iterator[EvaluatedRule]:
    """Rules that list the colours of the objects that pass a test along the axis on which their middles are further apart."""
    pairs = len(outputs)
    scenes, starts = segmentation.scenes, segmentation.starts()
    tests = make_tests(segmentation, pairs)
    middles = [np.array([(o.rows.mean(), o.columns.mean()) for o in scene.objects]) for scene in scenes]
    colours = [np.array([o.colour for o in scene.objects]) for scene in scenes]
    for once in (True, False):
        for t in range(min(len(tests.names), MAX_FILTERS)):
            grids: list[Grid | None] = []
            for k, chosen in enumerate(np.split(tests.passed[t], starts[1:-1])):
                places = middles[k][chosen]
                axis = int(np.ptp(places, axis=0).argmax()) if len(places) else 0
                keys = places[:, axis] if len(places) else np.zeros(0)
                grids.append(_stripes(_sequence(keys, colours[k][chosen], once), axis == 0, 1))
            right = np.array([same_grid(grid, output) for grid, output in zip(grids, outputs, strict=False)])
            if right.sum() >= max(1, pairs - 1):
                text = f"colours of {segmentation.name} with {tests.names[t]} along the axis of their middles"
                yield EvaluatedRule(text, float(3.0 + segmentation.cost + tests.costs[t] + 0.2 * (not once)), right, tuple(grids[pairs:]))


def _sequence(keys: Array, colours: Array, once: bool) -> list[int]:
    """Colours in the order of a key, each once or one for every object; empty where the key leaves the order open."""
    order = np.argsort(keys, kind="stable")
    keys, colours = keys[order], colours[order]
    if ((keys[1:] == keys[:-1]) & (colours[1:] != colours[:-1])).any():
        return []
    return list(dict.fromkeys(colours.tolist())) if once else colours.tolist()


def _stripes(colours: list[int], tall: bool, thickness: int) -> Grid | None:
    if not 0 < len(colours) <= MAX_SIDE:
        return None
    rows = np.repeat(np.array(colours)[:, None], thickness, axis=1)
    return frozen(rows if tall else rows.T)


def _counts(outputs: list[Grid], segmentation: Segmentation) -> Iterator[EvaluatedRule]:
    """Pictures by the number of objects that pass a test: those of the train pairs, or so many cells painted in reading order."""
    pairs = len(outputs)
    tests = make_tests(segmentation, pairs)
    for t in range(min(len(tests.names), MAX_FILTERS)):
        counts = np.add.reduceat(tests.passed[t].astype(int), segmentation.starts()[:-1]).tolist()
        cost = 4.0 + segmentation.cost + tests.costs[t]
        text = f"the number of {segmentation.name} with {tests.names[t]}"
        if len(set(counts)) > 1:
            yield from _picture_for(text, cost + 3.0, counts, outputs)
        for name, extra, picture_of in _fills(outputs):
            pictures = [picture_of(count) for count in counts]
            right = np.array([same_grid(a, b) for a, b in zip(pictures, outputs, strict=False)])
            if right.sum() >= max(1, pairs - 1) and len(set(counts[:pairs])) > 1:
                yield EvaluatedRule(f"{name} for {text}", cost + extra, right, tuple(pictures[pairs:]))


def _classes(task: Task) -> Iterator[EvaluatedRule]:
    """Pictures by what equal inputs have in common: the output of a train pair of the same class."""
    outputs = [pair.output for pair in task.train]
    pairs = len(outputs)
    for number, (name, class_of) in enumerate(_CLASSES):
        keys = [class_of(grid) for grid in inputs_of(task)]
        if len(set(keys[:pairs])) > 1:
            yield from _picture_for(name, 6.0 + 0.5 * number, keys, outputs)


def _picture_for(name: str, cost: float, keys: Sequence[Hashable], outputs: list[Grid]) -> Iterator[EvaluatedRule]:
    """The rule that gives an input the output of the train pairs with its key, where those agree and some pairs share a key."""
    pairs = len(outputs)
    seen: dict[Hashable, Grid] = {}
    for key, output in zip(keys, outputs, strict=False):
        if not same_grid(seen.setdefault(key, output), output):
            return
    if len(seen) < pairs:
        # A pair with a unique key is not predicted by the others.
        unique = np.array([keys[:pairs].count(key) == 1 for key in keys[:pairs]])
        grids = tuple(seen.get(key) for key in keys[pairs:])
        yield EvaluatedRule(f"picture for {name}", cost + 6.0 * float(unique.mean()), np.ones(pairs, np.bool_), grids)


def _painted(grid: Grid) -> Array:
    """bool: what is painted, cut out, with one cell for each block."""
    mask = grid != background_of(grid)
    box = bounding_box(mask)
    cut = mask[box] if box else mask
    side = block_side(cut.astype(np.int8))
    return np.asarray(cut[::side, ::side])


_CLASSES: tuple[tuple[str, Callable[[Grid], Hashable]], ...] = (
    ("the shape of what is painted", lambda grid: (_painted(grid).shape, _painted(grid).tobytes())),
    (
        "the turned shape of what is painted",
        lambda grid: min((m.shape, m.tobytes()) for k in range(8) for m in [_painted(oriented(grid, k))]),
    ),
    ("whether the input is its mirror image", lambda grid: mirror_code(grid) & 1),
    ("whether the input is its image upside down", lambda grid: mirror_code(grid) >> 1),
    ("the symmetries of what is painted", lambda grid: mirror_code(_painted(grid))),
    ("the symmetries of the input", mirror_code),
    ("the number of colours", lambda grid: len(np.unique(grid))),
    ("the commonest colour painted", lambda grid: int(painted_counts(grid).argmax())),
    ("the rarest colour painted", lambda grid: int(rarest_index(painted_counts(grid)))),
)


def _fills(outputs: list[Grid]) -> Iterator[tuple[str, float, Callable[[int], Grid | None]]]:
    """(Name, cost, function) of ways to paint a number of cells in the colours of the train outputs."""
    colours = {int(c) for output in outputs for c in np.unique(output)}
    shapes = {output.shape for output in outputs}
    if len(colours) == 1:
        colour = colours.pop()
        yield "a row", 0.5, lambda n: _full(1, n, colour)
        yield "a column", 0.5, lambda n: _full(n, 1, colour)
        yield "a square", 1.0, lambda n: _full(n, n, colour)
    elif len(colours) == 2 and len(shapes) == 1:
        places = np.arange(outputs[0].size).reshape(outputs[0].shape)
        orders = (
            ("cells in reading order", places.ravel()),
            ("every other cell", places.ravel()[::2]),
            ("cells by column", places.T.ravel()),
            ("cells of the diagonal", places.ravel()[:: outputs[0].shape[1] + 1]),
        )
        for colour in sorted(colours):
            other = (colours - {colour}).pop()
            for name, cells in orders:
                yield name, 1.0, partial(_first_cells, shape=outputs[0].shape, cells=cells, colour=colour, other=other)


def _full(h: int, w: int, colour: int) -> Grid | None:
    return frozen(np.full((h, w), colour)) if 0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE else None


def _first_cells(count: int, shape: tuple[int, ...], cells: Array, colour: int, other: int) -> Grid:
    grid = np.full(shape, other)
    grid.ravel()[cells[:count]] = colour
    return frozen(grid)
