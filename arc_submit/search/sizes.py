"""Output sizes: hypotheses on the size of each example's output, from the train pairs alone or from images that a search found.

A hypothesis fits every train pair; the simplest comes first. This module does not know the content of outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid
from arc_submit.arc.task import Task
from arc_submit.search.explore import Exploration
from arc_submit.search.grid_tools import Size
from arc_submit.search.jit import jit
from arc_submit.search.store import Array, Store


@dataclass(frozen=True)
class SizeHypothesis:
    """The sizes of the test outputs under one rule that fits every train pair.

    Attributes:
        sizes: (height, width) for each test input.
        cost: in tenths of a step, comparable with the cost of a program.
    """

    sizes: tuple[Size, ...]
    cost: int


def formula_sizes(task: Task) -> list[SizeHypothesis]:
    """Hypotheses in which each side of the output is a constant or an affine function of a side of the input, simplest first."""
    rules = [_side_rules(task, axis) for axis in (0, 1)]
    found: dict[tuple[Size, ...], SizeHypothesis] = {}
    for height_cost, heights in rules[0]:
        for width_cost, widths in rules[1]:
            sizes = tuple(zip(heights, widths, strict=True))
            cost = height_cost + width_cost
            if sizes not in found or cost < found[sizes].cost:
                found[sizes] = SizeHypothesis(sizes, cost)
    return sorted(found.values(), key=lambda hypothesis: hypothesis.cost)


def _side_rules(task: Task, axis: int) -> list[tuple[int, list[int]]]:
    """(cost, one length per test input) for one side of the output."""
    lengths = [pair.output.shape[axis] for pair in task.train]
    rules = []
    if len(set(lengths)) == 1:
        rules.append((5, lengths[:1] * len(task.tests)))
    for source in (axis, 1 - axis):
        sides = [pair.input.shape[source] for pair in task.train]
        for numerator, denominator in ((1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (1, 2), (1, 3), (1, 4)):
            if len(set(sides)) == 1 and numerator * sides[0] % denominator:
                continue
            offset = lengths[0] - sides[0] * numerator // denominator
            test_lengths = [test.shape[source] * numerator // denominator + offset for test in task.tests]
            fits = all(side * numerator // denominator + offset == length for side, length in zip(sides, lengths, strict=True))
            if fits and all(1 <= length <= MAX_SIDE for length in test_lengths):
                cost = (0 if source == axis else 4) + (0 if numerator == denominator else 3) + (0 if offset == 0 else 3)
                rules.append((cost, test_lengths))
    return rules


def multiples(inputs: list[Grid], outputs: list[Grid]) -> list[Size] | None:
    """The ratios of output to input height and width: constant, the input's own sides, or a count in the input."""
    rules: list[Callable[[Grid], Size]] = [
        lambda grid: (outputs[0].shape[0] // inputs[0].shape[0], outputs[0].shape[1] // inputs[0].shape[1]),
        lambda grid: (grid.shape[0], grid.shape[1]),
        lambda grid: (len(np.unique(grid[grid != 0])),) * 2,
        lambda grid: (int((grid != 0).sum()),) * 2,
        lambda grid: (int((grid == 0).sum()),) * 2,
        lambda grid: (len(np.unique(grid)),) * 2,
    ]
    for rule in rules:
        times = [rule(grid) for grid in inputs]
        fits = all((g.shape[0] * a, g.shape[1] * b) == out.shape for g, (a, b), out in zip(inputs, times, outputs, strict=False))
        if fits and all(a * b > 0 for a, b in times) and any(a * b > 1 for a, b in times):
            return times
    return None


def found_sizes(task: Task, store: Store, exploration: Exploration) -> list[SizeHypothesis]:
    """Hypotheses from the images of a search that have the output's size in every train pair, cheapest first."""
    outputs = np.array([pair.output.shape for pair in task.train], dtype=np.int64)
    found: dict[tuple[Size, ...], SizeHypothesis] = {}
    for state in matching_sizes(store, exploration, outputs):
        nodes = exploration.states[state, len(task.train) :]
        shapes = store.images[store.nodes[nodes, 0], 2:4]
        sizes = tuple((int(h), int(w)) for h, w in shapes)
        if sizes not in found and max(max(size) for size in sizes) <= MAX_SIDE:
            found[sizes] = SizeHypothesis(sizes, int(exploration.info[state, 0]))
    return list(found.values())


@jit
def matching_sizes(store: Store, exploration: Exploration, sizes: Array) -> Array:
    """The image states (int64 indices, cheapest first) that have the given sizes in the first examples.

    Args:
        sizes: int64 (examples, 2); it may cover fewer examples than the exploration has.
    """
    count = exploration.counters[0]
    found = np.empty(count, np.int64)
    n = 0
    for state in range(count):
        fits = exploration.info[state, 3] == 0
        for k in range(sizes.shape[0]):
            if not fits:
                break
            image = store.nodes[exploration.states[state, k], 0]
            fits = store.images[image, 2] == sizes[k, 0] and store.images[image, 3] == sizes[k, 1]
        if fits:
            found[n] = state
            n += 1
    return found[:n].copy()
