"""The core solver: explore programs over images for one task, keep those of the output's size, and stack them into answers.

Reads top to bottom: sizes, exploration with a size, pieces, stacks, answers. Knows nothing about other solvers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.explore import Capacity, Exploration, program, run, start
from arc_submit.search.sizes import SizeHypothesis, formula_sizes, found_sizes, matching_sizes
from arc_submit.search.stacking import Pieces, Stack, find_stacks, lay, make_pieces
from arc_submit.search.store import Array, Store


@dataclass(frozen=True)
class Effort:
    """Bounds in counted work, so that the same effort gives the same answers on any machine.

    Attributes:
        work: cells that the exploration with a size may touch; about 50 million a second.
        size_work: the same for the exploration without a size.
        sizes: how many size hypotheses are followed.
        pieces: most pieces that are stacked.
    """

    work: int = 60_000_000
    size_work: int = 10_000_000
    sizes: int = 2
    pieces: int = 40_000

    @property
    def capacity(self) -> Capacity:
        """Room for what so much work can make."""
        nodes = min(20_000_000, self.work // 60 + 100_000)
        return Capacity(cells=min(self.work, 2_000_000_000), nodes=nodes, states=nodes, rows=nodes // 20 + 10_000)


def solve(task: Task, effort: Effort) -> list[Answer]:
    """Answers for every test input, several of each, in no order."""
    answers = []
    for hypothesis in _sizes(task, effort)[: effort.sizes]:
        frames = frames_of(task, hypothesis)
        store, exploration = start(inputs_of(task), effort.capacity)
        run(store, exploration, frames, limits_of(task), effort.work)
        states = matching_sizes(store, exploration, frames[:, :2].copy())
        pieces = make_pieces(store, exploration, states, [pair.output for pair in task.train], effort.pieces)
        for stack in find_stacks(pieces):
            answers += _answers(task, store, exploration, pieces, stack, hypothesis)
    return answers


def inputs_of(task: Task) -> list[Grid]:
    """The inputs of all examples, train pairs first."""
    return [pair.input for pair in task.train] + list(task.tests)


def frames_of(task: Task, hypothesis: SizeHypothesis | None) -> Array:
    """int64 (examples, 4): height and width of the output (0 where no hypothesis is given) and of the input."""
    if hypothesis is None:
        outputs = [(0, 0)] * (len(task.train) + len(task.tests))
    else:
        outputs = [(pair.output.shape[0], pair.output.shape[1]) for pair in task.train] + list(hypothesis.sizes)
    return np.array([(*out, *grid.shape) for out, grid in zip(outputs, inputs_of(task), strict=True)], dtype=np.int64)


def limits_of(task: Task) -> Array:
    """Most cells of an image, of a list, and most images of a list: what goes beyond twice the largest grid is not followed."""
    largest = max(grid.size for grid in inputs_of(task) + [pair.output for pair in task.train])
    return np.array([2 * largest, 4 * largest, 100], dtype=np.int64)


def _sizes(task: Task, effort: Effort) -> list[SizeHypothesis]:
    hypotheses = formula_sizes(task)
    if hypotheses and hypotheses[0].cost == 0:
        return hypotheses[:1]
    store, exploration = start(inputs_of(task), effort.capacity)
    run(store, exploration, frames_of(task, None), limits_of(task), effort.size_work)
    merged: dict[tuple[tuple[int, int], ...], SizeHypothesis] = {}
    for hypothesis in sorted(hypotheses + found_sizes(task, store, exploration), key=lambda h: h.cost):
        merged.setdefault(hypothesis.sizes, hypothesis)
    return list(merged.values())


def _answers(
    task: Task, store: Store, exploration: Exploration, pieces: Pieces, stack: Stack, hypothesis: SizeHypothesis
) -> list[Answer]:
    chains = [" | ".join(["input", *program(exploration, int(pieces.states[k]))]) for k in stack.layers]
    return [
        Answer(
            test,
            frozen(lay(store, exploration, pieces, stack, len(task.train) + test)),
            "programs",
            " over ".join(chains),
            sum(stack.solved) / len(stack.solved),
            stack.cost + hypothesis.cost,
        )
        for test in range(len(task.tests))
    ]
