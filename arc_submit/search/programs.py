"""The core solver: explore programs over images for one task, select those of the output's size, and stack them into answers.

The order of work: sizes, exploration with a size, pieces, stacks, answers. This module does not know other solvers, except the trees of
the per-cell rules.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.colours import RecolouredTask, recolourings
from arc_submit.search.explore import DONE, Capacity, Exploration, explore, program_of, start
from arc_submit.search.features import FeatureColumns
from arc_submit.search.grid_tools import Size, inputs_of
from arc_submit.search.sizes import SizeHypothesis, formula_sizes, found_sizes, matching_sizes
from arc_submit.search.solvers.cells import answers_from_tables
from arc_submit.search.stacking import Pieces, Stack, find_stacks, make_pieces, node_cells, render
from arc_submit.search.store import FULL, Array, Store

NAME = "programs"
# For a task the costs of the operations, int64 (operations,), at least 1: the cheaper an operation, the sooner it is tried.
Propose = Callable[[Task], Array]
GOOD_COST = 18  # a program of two steps that explains every pair; a longer search seldom finds a better one
TREE_PIECES = 60  # the cheapest pieces that a tree chooses from


@dataclass(frozen=True)
class Effort:
    """Bounds in counted work, so that the same effort gives the same answers on any machine.

    Attributes:
        work: cells that the exploration with a size may touch.
        size_work: the same for the exploration without a size.
        sizes: the number of size hypotheses to follow.
        pieces: maximum number of pieces to stack.
        mirrored: whether the task is searched again with mirrored pairs.
        enough: the estimated probability of the best answers at which the search of the task ends; None: it never ends early.
        propose: sets the order in which programs are explored; None follows the costs in the operations' table.
    """

    work: int = 60_000_000
    size_work: int = 10_000_000
    sizes: int = 2
    pieces: int = 40_000
    mirrored: bool = False
    enough: float | None = None
    propose: Propose | None = None

    @property
    def capacity(self) -> Capacity:
        """Room for the results of so much work."""
        # Twice the need of small grids, which make most nodes for their work; bounded so that a task stays below 4 GB.
        nodes = min(10_000_000, self.work // 100 + 100_000)
        cells = min(700_000_000, self.work // 2 + 1_000_000)
        return Capacity(cells=cells, nodes=nodes, states=nodes, children=14 * nodes)

    def at_most(self, work: int) -> Effort:
        """The same effort with this work, and with the parts of it that fit, at most."""
        return replace(self, work=min(self.work, work), size_work=min(self.size_work, work // 4), pieces=min(self.pieces, work // 400))

    def share(self, divisor: int) -> Effort:
        """The same effort with a part of the work."""
        return replace(self, work=self.work // divisor, size_work=self.size_work // divisor)


@dataclass(frozen=True)
class _Plan:
    """One version of the task with one hypothesis on its output sizes."""

    version: RecolouredTask
    hypothesis: SizeHypothesis

    @property
    def cost(self) -> int:
        return self.hypothesis.cost + self.version.cost


def solve(task: Task, effort: Effort) -> Iterator[list[SolverAnswer]]:
    """Answers for every test input in batches: a first one early, better ones as the work goes on.

    Stops before the work is used up when a simple program explains every train pair.
    """
    plans = [_Plan(version, size) for version in recolourings(task) for size in _sizes(version.task, effort)[: effort.sizes]]
    for k, plan in enumerate(plans):
        # Later plans are less likely: each gets half of the remaining work, the last one as much as the one before it.
        work = effort.work // 2 ** min(k + 1, len(plans) - 1) if len(plans) > 1 else effort.work
        best = yield from _follow(plan, effort, work)
        if best <= GOOD_COST:
            return


def _follow(plan: _Plan, effort: Effort, work: int) -> Generator[list[SolverAnswer], None, float]:
    """Answers from one plan; returns the lowest cost of a program that explains every pair."""
    task = plan.version.task
    outputs = [pair.output for pair in task.train]
    frames = _frames(task, plan.hypothesis.sizes)
    store, exploration = start(inputs_of(task), outputs, effort.capacity, None if effort.propose is None else effort.propose(task))
    best = float("inf")
    for milestone in (work // 12, work // 3, work):
        explore(store, exploration, frames, _limits(task), milestone)
        states = matching_sizes(store, exploration, frames[:, :2].copy())
        pieces = make_pieces(store, exploration, states, outputs, effort.pieces)
        stacks = find_stacks(pieces)
        yield [a for k, stack in enumerate(stacks) for a in _answers(plan, store, exploration, pieces, stack, k)]
        best = min([best] + [stack.cost for stack in stacks if all(stack.solved)])
        if best <= GOOD_COST or exploration.counters[DONE] or store.counters[FULL]:
            break
    if best > GOOD_COST:
        yield _tree_answers(plan, store, exploration, pieces)
    return best


def _tree_answers(plan: _Plan, store: Store, exploration: Exploration, pieces: Pieces) -> list[SolverAnswer]:
    """Answers that choose among the cheapest pieces for each cell by a decision tree."""
    states = [int(state) for state in pieces.states[:TREE_PIECES]]
    if len(states) < 2:
        return []
    names = [program_of(exploration, state) for state in states]
    tables = []
    for nodes in exploration.states[states].T:
        images = [node_cells(store, int(node)) for node in nodes]
        columns = FeatureColumns((images[0].shape[0], images[0].shape[1]))
        for name, cells in zip(names, images, strict=True):
            columns.add(name, cells, True)
        tables.append(columns.table())
    answers = answers_from_tables(plan.version.task, tables)
    return [plan.version.restore(replace(a, solver="choice", cost=a.cost + plan.hypothesis.cost)) for a in answers]


def _frames(task: Task, test_sizes: tuple[Size, ...] | None) -> Array:
    """int64 (examples, 4): height and width of the output (0 where no sizes are given) and of the input."""
    inputs = [grid.shape for grid in inputs_of(task)]
    outputs = [pair.output.shape for pair in task.train] + list(test_sizes) if test_sizes else [(0, 0)] * len(inputs)
    return np.array([(*output, *shape) for output, shape in zip(outputs, inputs, strict=True)], dtype=np.int64)


def _limits(task: Task) -> Array:
    """Maximum cells of an image and of a list, in relation to the largest grid, and maximum images of a list; int64 (3,)."""
    largest = max(grid.size for grid in inputs_of(task) + [pair.output for pair in task.train])
    return np.array([2 * largest, 4 * largest, 100], dtype=np.int64)


def _sizes(task: Task, effort: Effort) -> list[SizeHypothesis]:
    hypotheses = formula_sizes(task)
    if hypotheses and hypotheses[0].cost == 0:
        return hypotheses[:1]
    # Where no formula fits, the exploration is the only source of sizes and gets more work.
    work = effort.size_work if hypotheses else max(effort.size_work, effort.work // 4)
    store, exploration = start(inputs_of(task), [pair.output for pair in task.train], replace(effort, work=work).capacity)
    explore(store, exploration, _frames(task, None), _limits(task), work)
    merged: dict[tuple[Size, ...], SizeHypothesis] = {}
    for hypothesis in sorted(hypotheses + found_sizes(task, store, exploration), key=lambda h: h.cost):
        merged.setdefault(hypothesis.sizes, hypothesis)
    return list(merged.values())


def _answers(plan: _Plan, store: Store, exploration: Exploration, pieces: Pieces, stack: Stack, place: int) -> list[SolverAnswer]:
    """The answers of one stack; of equally costly stacks the one in the earlier place, which was found first, counts as simpler."""
    version, states = plan.version, pieces.states[list(stack.layers)]
    pairs = len(version.task.train)
    return [
        SolverAnswer(
            test,
            version.undo(test, render(store, exploration, pieces, stack, pairs + test)),
            NAME,
            version.describe(" over ".join(program_of(exploration, int(state)) for state in states)),
            explained=sum(stack.solved) / len(stack.solved),
            cost=stack.cost + plan.cost + place / 100,
            layers=len(states),
            support=float(exploration.support[states].min()),
            predicted=stack.predicted,
        )
        for test in range(len(version.task.tests))
    ]
