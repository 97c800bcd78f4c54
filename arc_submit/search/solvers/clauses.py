"""Lists of clauses: a clause gives the cells that pass a few tests one colour or a copy of a feature; the other cells keep their colour.

A tree divides all cells with every test; a clause has only the tests that tell its own cells from those where it would be wrong. Clauses
are added greedily, each with the tests that reach most of the changed cells for their cost, until every changed cell of every train pair is
reached. No clause is wrong on any train pair. Learning again without each train pair in turn measures how reliable the list is.
Applies where an output has its input's size. This module does not know the meaning of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.beside_features import GROUP, beside_table
from arc_submit.search.colours import recolourings
from arc_submit.search.features import FeatureTable, cell_table, joined
from arc_submit.search.grid_tools import fixed_colours_of, inputs_of, keeps_size, output_cells
from arc_submit.search.path_features import GROUPS, path_table
from arc_submit.search.solvers.growth import Literals, make_literals
from arc_submit.search.store import Array

NAME = "clauses"
MAX_CELLS = 3000  # of all train outputs
MAX_CLAUSES = 8
MAX_TESTS = 4  # of one clause
MAX_COPIES = 10  # columns that a clause may copy
MAX_STARTS = 24  # clauses that are extended by one more test, of one choice at most MAX_STARTS_OF_CHOICE
MAX_STARTS_OF_CHOICE = 6
COPY = 10  # a choice from here on copies the column of its number less 10
# The cells that change in a pair weigh as much together as those of any other pair. Sums of whole weights are exact in float32.
_PAIR_WEIGHT = 2520
_GROUPS = (("near", "parts", "lines", "whole", "mirrors"), ("near", *GROUPS), ("near", GROUP, "parts", "lines"))


@dataclass(frozen=True)
class Clause:
    """One clause.

    Attributes:
        takes: the colour that a cell takes, or COPY + the column that it copies.
        literals: indices of the tests that the cell must pass.
        cost: of the choice and its tests.
    """

    takes: int
    literals: tuple[int, ...]
    cost: float


@dataclass(frozen=True)
class OpenCells:
    """The cells of one example that may change.

    Attributes:
        places: bool (cells of the grid,), which cells these are.
        features: uint8 (cells, columns).
        passed: float32 (cells, literals), 0 or 1.
        target: int64 (cells,), the output's colours; those of the input where there is no output.
    """

    places: Array
    features: Array
    passed: Array
    target: Array


@dataclass(frozen=True)
class _Choice:
    """What a clause may give its cells: `takes` as in Clause, and the colour for each open cell, int64 (cells,)."""

    takes: int
    cost: float
    values: Array


@dataclass(frozen=True)
class _Evidence:
    """The open cells of all training examples.

    Attributes:
        right, wrong: float32 (choices, cells), the weight of missing cells that a choice gives their colour, and of all cells that it gives
            another colour than the output's; else 0.
        costs: float64 (choices,).
        passed: float32 (cells, literals), 0 or 1.
        test_costs: float64 (literals,).
    """

    right: Array
    wrong: Array
    costs: Array
    passed: Array
    test_costs: Array


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the lists that reproduce every train pair, one list for each set of groups of features."""
    if not keeps_size(task) or output_cells(task) > MAX_CELLS:
        return []
    version = recolourings(task)[0]
    tables = [joined((cell_table(grid), path_table(grid), beside_table(grid))) for grid in inputs_of(version.task)]
    answers = [answer for groups in _GROUPS for answer in _solve_with(version.task, [_in_order(table, groups) for table in tables])]
    return [version.restore(answer) for answer in answers]


def _in_order(table: FeatureTable, groups: Sequence[str]) -> FeatureTable:
    """The columns of some groups in this order: later columns cost more, and their tests are the first that the bounds leave out."""
    return joined([table.only((group,)) for group in groups])


def _solve_with(task: Task, tables: list[FeatureTable]) -> list[SolverAnswer]:
    """Answers of the list with the features of these tables."""
    pairs = len(task.train)
    fixed = fixed_colours_of(task)
    open_cells = [~fixed[grid] for grid in inputs_of(task)]
    literals = make_literals(tables[:pairs], open_cells[:pairs])
    if not literals.names:
        return []
    examples = []
    for k, (table, cells) in enumerate(zip(tables, open_cells, strict=True)):
        places, final = cells.ravel(), (task.train[k].output if k < pairs else task.tests[k - pairs]).ravel()
        features = table.features[places]
        examples.append(OpenCells(places, features, literals.passed(table)[places].astype(np.float32), final[places].astype(np.int64)))
    copied = np.flatnonzero(tables[0].is_colour)
    rule = learn(examples[:pairs], literals, copied)
    if rule is None:
        return []
    predicted = 0
    for k in range(pairs if pairs > 1 else 0):
        trained = learn([examples[i] for i in range(pairs) if i != k], literals, copied)
        predicted += trained is not None and same_grid(paint(task.train[k].input, examples[k], trained), task.train[k].output)
    cost = 14 + 2 * sum(clause.cost for clause in rule)
    text = "; ".join(describe_clause(clause, literals, tables[0].names) for clause in rule)
    return [
        SolverAnswer(test, paint(grid, examples[pairs + test], rule), NAME, text, predicted / pairs, cost)
        for test, grid in enumerate(task.tests)
    ]


def paint(grid: Grid, cells: OpenCells, rule: Sequence[Clause]) -> Grid:
    """The grid with its open cells changed by a list; where two clauses disagree the first one wins."""
    colours = np.asarray(grid).ravel()[cells.places]
    free = np.ones(len(colours), np.bool_)
    for clause in rule:
        fires = free & (cells.passed[:, list(clause.literals)] > 0).all(axis=1)
        values = cells.features[:, clause.takes - COPY] if clause.takes >= COPY else np.full(len(colours), clause.takes)
        fires &= values < COPY  # a place outside the grid has no colour to copy
        colours[fires] = values[fires]
        free &= ~fires
    out = np.array(grid, np.int8).ravel()
    out[cells.places] = colours
    return frozen(out.reshape(grid.shape))


def learn(examples: Sequence[OpenCells], literals: Literals, copied: Array) -> list[Clause] | None:
    """Clauses that are never wrong and together reach every changed cell, or None.

    Args:
        copied: int64, the columns that a clause may copy; the first one is the cell's own colour.
    """
    features = np.concatenate([example.features for example in examples])
    target = np.concatenate([example.target for example in examples])
    passed = np.concatenate([example.passed for example in examples])
    missing: Array = features[:, 0] != target
    counts = [int((example.features[:, 0] != example.target).sum()) for example in examples]
    weight = np.concatenate([np.full(len(e.target), max(1, _PAIR_WEIGHT // max(1, n))) for e, n in zip(examples, counts, strict=True)])
    rule: list[Clause] = []
    while missing.any():
        if len(rule) == MAX_CLAUSES:
            return None
        choices = _choices(features, target, missing, copied)
        given = np.array([choice.values for choice in choices])
        right = (missing & (given == target)) * weight.astype(np.float32)
        wrong = ((given != target) * weight).astype(np.float32)
        costs = np.array([choice.cost for choice in choices])
        found = _best_clause(_Evidence(right, wrong, costs, passed, literals.costs))
        if found is None:
            return None
        k, tests = found
        rule.append(Clause(choices[k].takes, tests, float(costs[k] + sum(literals.costs[a] for a in tests))))
        missing &= ~((given[k] == target) & (passed[:, list(tests)] > 0).all(axis=1))
    return rule or None


def _choices(features: Array, target: Array, missing: Array, copied: Array) -> list[_Choice]:
    """Each colour of the missing cells, and the columns that give most of them their colour."""
    out = [_Choice(int(c), 1.0, np.full(len(target), c)) for c in np.unique(target[missing])]
    hits = (features[missing][:, copied] == target[missing, None]).sum(axis=0)
    seen: set[bytes] = set()
    for k in np.argsort(-hits, kind="stable"):
        column = features[:, copied[k]]
        if hits[k] and len(seen) < MAX_COPIES and column.tobytes() not in seen:
            seen.add(column.tobytes())
            out.append(_Choice(COPY + int(copied[k]), 1.2 + 0.003 * int(copied[k]), column.astype(np.int64)))
    return out


def _best_clause(evidence: _Evidence) -> tuple[int, tuple[int, ...]] | None:
    """The choice and the tests that reach most missing cells for their cost and are never wrong, found one test at a time."""
    passed, test_costs = evidence.passed, evidence.test_costs
    states: list[tuple[int, tuple[int, ...]]] = [(k, ()) for k in range(len(evidence.costs))]
    right, wrong = evidence.right, evidence.wrong
    best: tuple[int, tuple[int, ...]] | None = None
    best_score = 0.0
    for state, reached, missed in zip(states, right.sum(axis=1), wrong.sum(axis=1), strict=True):
        score = float(reached) / (1 + float(evidence.costs[state[0]]))
        if missed == 0 and score > best_score + 1e-9:
            best, best_score = state, score
    for number in range(MAX_TESTS):
        # The weights of cells for every clause with every further test, (clauses, literals).
        reached, missed = (right @ passed).astype(np.float64), (wrong @ passed).astype(np.float64)
        cost = np.array([float(evidence.costs[k] + sum(test_costs[a] for a in tests)) for k, tests in states])
        score = reached / (1 + cost[:, None] + test_costs[None])
        pure = np.where(missed == 0, score, 0)
        k, a = (int(v) for v in np.unravel_index(pure.argmax(), pure.shape))
        if pure[k, a] > best_score + 1e-9:
            best, best_score = (states[k][0], (*states[k][1], a)), float(pure[k, a])
        if number == MAX_TESTS - 1:
            break
        # A clause is extended only where one more test, without a loss, would make it the best one.
        open_ended = (missed > 0) & (reached / (2 + cost[:, None] + test_costs[None]) > best_score)
        hope = np.where(open_ended, reached * reached / np.maximum(1, reached + missed) / (1 + 0.3 * test_costs[None]), 0)
        chosen = _starts(hope, states)
        if not chosen:
            break
        right, wrong = (np.stack([some[k] * passed[:, a] for k, a in chosen]) for some in (right, wrong))
        states = [(states[k][0], (*states[k][1], a)) for k, a in chosen]
    return best


def _starts(hope: Array, states: list[tuple[int, tuple[int, ...]]]) -> list[tuple[int, int]]:
    """(state, test) of the most hopeful clauses, each set of tests once."""
    chosen: list[tuple[int, int]] = []
    seen: set[tuple[int, tuple[int, ...]]] = set()
    of_choice: dict[int, int] = {}
    for place in np.argsort(-hope, axis=None, kind="stable")[: 10 * MAX_STARTS].tolist():
        k, a = divmod(place, hope.shape[1])
        choice, tests = states[k]
        key = (choice, tuple(sorted((*tests, a))))
        if hope[k, a] <= 0 or len(chosen) == MAX_STARTS:
            break
        if key not in seen and of_choice.get(choice, 0) < MAX_STARTS_OF_CHOICE:
            seen.add(key)
            of_choice[choice] = of_choice.get(choice, 0) + 1
            chosen.append((k, a))
    return chosen


def describe_clause(clause: Clause, literals: Literals, names: Sequence[str]) -> str:
    """A clause in words."""
    takes = names[clause.takes - COPY] if clause.takes >= COPY else str(clause.takes)
    tests = " and ".join(literals.names[a] for a in clause.literals)
    return f"{takes} where {tests or 'anywhere'}"
