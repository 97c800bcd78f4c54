"""Output sizes: hypotheses on how large the output of each example is, from the train pairs alone or from images that a search found.

A hypothesis fits every train pair; the simpler comes first. Knows nothing about what the output holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import MAX_SIDE
from arc_submit.arc.task import Task
from arc_submit.search.explore import Exploration
from arc_submit.search.jit import jit
from arc_submit.search.store import Array, Store


@dataclass(frozen=True)
class SizeHypothesis:
    """The sizes of the test outputs under one rule that fits every train pair.

    Attributes:
        sizes: (height, width) for each test input.
        cost: in tenths of a step, comparable with the cost of a program.
        rule: in words.
    """

    sizes: tuple[tuple[int, int], ...]
    cost: int
    rule: str


def formula_sizes(task: Task) -> list[SizeHypothesis]:
    """Hypotheses in which each side of the output is a constant or an affine function of a side of the input, simplest first."""
    inputs = [pair.input.shape for pair in task.train]
    outputs = [pair.output.shape for pair in task.train]
    tests = [test.shape for test in task.tests]
    sides = [_side_rules(inputs, [shape[axis] for shape in outputs], tests, axis) for axis in (0, 1)]
    found: dict[tuple[tuple[int, int], ...], SizeHypothesis] = {}
    for height_cost, height_rule, heights in sides[0]:
        for width_cost, width_rule, widths in sides[1]:
            sizes = tuple(zip(heights, widths, strict=True))
            cost = height_cost + width_cost
            if sizes not in found or cost < found[sizes].cost:
                found[sizes] = SizeHypothesis(sizes, cost, f"height {height_rule}, width {width_rule}")
    return sorted(found.values(), key=lambda hypothesis: hypothesis.cost)


def _side_rules(
    inputs: list[tuple[int, ...]], outputs: list[int], tests: list[tuple[int, ...]], axis: int
) -> list[tuple[int, str, list[int]]]:
    """(cost, rule, one length per test input) for one side of the output."""
    rules = []
    if len(set(outputs)) == 1:
        rules.append((5, f"is {outputs[0]}", [outputs[0]] * len(tests)))
    for source, name in ((axis, "the same side"), (1 - axis, "the other side")):
        given = [shape[source] for shape in inputs]
        for numerator, denominator in ((1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (1, 2), (1, 3), (1, 4)):
            if len(set(given)) == 1 and numerator * given[0] % denominator:
                continue
            offset = outputs[0] - given[0] * numerator // denominator
            lengths = [shape[source] * numerator // denominator + offset for shape in tests]
            fits = all(side * numerator // denominator + offset == out for side, out in zip(given, outputs, strict=True))
            if fits and all(1 <= length <= MAX_SIDE for length in lengths):
                cost = (0 if source == axis else 4) + (0 if numerator == denominator else 3) + (0 if offset == 0 else 3)
                rules.append((cost, f"is {name} x {numerator}/{denominator} + {offset}", lengths))
    return rules


def found_sizes(task: Task, store: Store, exploration: Exploration) -> list[SizeHypothesis]:
    """Hypotheses from the images of a search that have the output's size in every train pair, cheapest first."""
    outputs = np.array([pair.output.shape for pair in task.train], dtype=np.int64)
    states = matching_sizes(store, exploration, outputs)
    found: dict[tuple[tuple[int, int], ...], SizeHypothesis] = {}
    for state in states:
        nodes = exploration.states[state, len(task.train) :]
        shapes = store.images[store.nodes[nodes, 0], 2:4]
        sizes = tuple((int(h), int(w)) for h, w in shapes)
        if sizes not in found and max(max(size) for size in sizes) <= MAX_SIDE:
            found[sizes] = SizeHypothesis(sizes, int(exploration.info[state, 0]), f"that of image {state}")
    return list(found.values())


@jit
def matching_sizes(store: Store, exploration: Exploration, sizes: Array) -> Array:
    """The image states (int64 indices, cheapest first) that have given sizes in the first examples.

    Args:
        sizes: int64 (examples, 2); there may be fewer than the exploration has examples.
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
