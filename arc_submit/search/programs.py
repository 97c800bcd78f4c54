"""The core solver: explore programs over images for one task, keep those of the output's size, and stack them into answers.

Reads top to bottom: sizes, exploration with a size, pieces, stacks, answers. Knows nothing about other solvers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.colours import Recoloured, recolourings
from arc_submit.search.explore import DONE, Capacity, Exploration, program, run, start
from arc_submit.search.features import Columns
from arc_submit.search.sizes import SizeHypothesis, formula_sizes, found_sizes, matching_sizes
from arc_submit.search.solvers.cells import answers_from_tables, make_table
from arc_submit.search.stacking import Pieces, Stack, find_stacks, lay, make_pieces, node_cells
from arc_submit.search.store import FULL, Array, Store

GOOD_COST = 18  # a program of two steps that explains every pair is seldom beaten by a longer search
CHOSEN_PIECES = 60  # among so many a tree chooses


@dataclass(frozen=True)
class Effort:
    """Bounds in counted work, so that the same effort gives the same answers on any machine.

    Attributes:
        work: cells that the exploration with a size may touch; about 50 million a second.
        size_work: the same for the exploration without a size.
        sizes: how many size hypotheses are followed.
        pieces: most pieces that are stacked.
        mirrored: whether the task is searched again with mirrored pairs.
    """

    work: int = 60_000_000
    size_work: int = 10_000_000
    sizes: int = 2
    pieces: int = 40_000
    mirrored: bool = False

    @property
    def capacity(self) -> Capacity:
        """Room for what so much work can make."""
        # Twice what small grids, which make most nodes for their work, were seen to need; bounded so that a task stays below 4 GB.
        nodes = min(10_000_000, self.work // 100 + 100_000)
        cells = min(700_000_000, self.work // 2 + 1_000_000)
        return Capacity(cells=cells, nodes=nodes, states=nodes, children=14 * nodes)


def solve(task: Task, effort: Effort) -> Iterator[list[Answer]]:
    """Answers for every test input in batches: a first one early, better ones as the work goes on.

    Stops before its work is used up once a simple program explains every train pair.
    """
    versions = recolourings(task)
    plans = [(version, hypothesis) for version in versions for hypothesis in _sizes(version.task, effort)[: effort.sizes]]
    for k, (version, hypothesis) in enumerate(plans):
        # Later plans are less likely: each gets half of what is left, the last one what the one before it got.
        share = effort.work // 2 ** min(k + 1, len(plans) - 1) if len(plans) > 1 else effort.work
        best = yield from _follow(version, hypothesis, effort, share)
        if best <= GOOD_COST:
            return


def _follow(version: Recoloured, hypothesis: SizeHypothesis, effort: Effort, work: int) -> Generator[list[Answer], None, float]:
    """Answers from one version of the task and one size; returns the least cost of a program that explains every pair."""
    task = version.task
    frames = frames_of(task, hypothesis)
    store, exploration = start(inputs_of(task), [pair.output for pair in task.train], effort.capacity)
    best = float("inf")
    for milestone in (work // 12, work // 3, work):
        run(store, exploration, frames, limits_of(task), milestone)
        states = matching_sizes(store, exploration, frames[:, :2].copy())
        pieces = make_pieces(store, exploration, states, [pair.output for pair in task.train], effort.pieces)
        stacks = find_stacks(pieces)
        yield [a for k, stack in enumerate(stacks) for a in _answers(version, store, exploration, pieces, stack, hypothesis, k)]
        best = min([best] + [stack.cost for stack in stacks if all(stack.solved)])
        if best <= GOOD_COST or exploration.counters[DONE] or store.counters[FULL]:
            break
    if best > GOOD_COST:
        yield _chosen_cells(version, hypothesis, store, exploration, pieces)
    return best


def _chosen_cells(version: Recoloured, hypothesis: SizeHypothesis, store: Store, exploration: Exploration, pieces: Pieces) -> list[Answer]:
    """Answers that choose for each cell among the cheapest pieces by a decision tree."""
    task = version.task
    states = [int(state) for state in pieces.states[:CHOSEN_PIECES]]
    if len(states) < 2:
        return []
    names = [" | ".join(["input", *program(exploration, state)]) for state in states]
    tables = []
    for example in range(len(task.train) + len(task.tests)):
        images = [node_cells(store, int(exploration.states[state, example])) for state in states]
        columns = Columns((images[0].shape[0], images[0].shape[1]))
        for name, cells in zip(names, images, strict=True):
            columns.add(name, cells, True)
        tables.append(make_table(columns))
    answers = answers_from_tables(task, tables)
    name = f"{version.name}: " if version.name else ""
    return [
        replace(
            answer,
            grid=version.undo(answer.test, answer.grid),
            solver="choice",
            program=name + answer.program,
            cost=answer.cost + hypothesis.cost + version.cost,
        )
        for answer in answers
    ]


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
    # Where no formula fits there is no other way to a size.
    work = effort.size_work if hypotheses else max(effort.size_work, effort.work // 4)
    store, exploration = start(inputs_of(task), [pair.output for pair in task.train], replace(effort, work=work).capacity)
    run(store, exploration, frames_of(task, None), limits_of(task), work)
    merged: dict[tuple[tuple[int, int], ...], SizeHypothesis] = {}
    for hypothesis in sorted(hypotheses + found_sizes(task, store, exploration), key=lambda h: h.cost):
        merged.setdefault(hypothesis.sizes, hypothesis)
    return list(merged.values())


def _answers(
    version: Recoloured, store: Store, exploration: Exploration, pieces: Pieces, stack: Stack, hypothesis: SizeHypothesis, place: int
) -> list[Answer]:
    """The answers of one stack; of stacks that cost the same the one in the earlier place is a little simpler: it was reached first."""
    task = version.task
    chains = [" | ".join(["input", *program(exploration, int(pieces.states[k]))]) for k in stack.layers]
    text = " over ".join(chains)
    return [
        Answer(
            test,
            version.undo(test, lay(store, exploration, pieces, stack, len(task.train) + test)),
            "programs",
            f"{version.name}: {text}" if version.name else text,
            sum(stack.solved) / len(stack.solved),
            stack.cost + hypothesis.cost + version.cost + place / 100,
            len(stack.layers),
            min(float(exploration.support[pieces.states[k]]) for k in stack.layers),
            stack.predicted,
        )
        for test in range(len(task.tests))
    ]
