"""Rules for outputs of the input's size: actions on selected objects.

A rule is a short list of conditional actions "every object that passes this test is changed by this action". A conditional action must
never be wrong: every cell that it paints in a train pair has that colour in the output. They are added greedily, the one that explains
most changed cells first, the plainer one on a tie, until every changed cell of every train pair is explained. Training again without each
train pair in turn measures how reliable the rule is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import held_out_folds, inputs_of, keeps_size
from arc_submit.search.solvers.objects.action_table import ActionTable, Budget, make_table
from arc_submit.search.solvers.objects.actions import library
from arc_submit.search.solvers.objects.effects import Action, Changes
from arc_submit.search.solvers.objects.scenes import Scene, Segmentation, segmentations
from arc_submit.search.solvers.objects.stamps import stamps
from arc_submit.search.solvers.objects.traits import make_tests
from arc_submit.search.solvers.objects.trust import NAME, cost_of
from arc_submit.search.store import Array

MAX_PARTS = 4  # conditional actions of a rule
MAX_CANDIDATES = 400  # conditional actions whose cells are computed in one round
EQUAL_TESTS, EQUAL_ACTIONS = 3, 2  # tests and actions with the same results on the known objects


_POPCOUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


@dataclass(frozen=True, eq=False)
class ConditionalAction:
    """One part of a rule: an action for the objects that pass a test.

    Attributes:
        test, action: indices in the table.
        cells: uint8, the needed cells that it explains, as bits.
    """

    table: ActionTable
    test: int
    action: int
    cells: Array
    cost: float

    @property
    def text(self) -> str:
        return f"{self.table.actions[self.action].name}: {self.table.segmentation.name} with {self.table.tests.names[self.test]}"


Rule = list[ConditionalAction]
Group = list[ConditionalAction]  # that explain the same cells, the cheapest first


@dataclass(frozen=True)
class Vocabulary:
    """Actions and traits that complete those of objects alone.

    Attributes:
        name: of the solver.
        actions: further actions that can make some changes.
        traits: further traits.
    """

    name: str
    actions: Callable[[Changes], list[Action]]
    traits: Callable[[Scene], dict[str, Array]]


def solve(task: Task, vocabulary: Vocabulary | None = None) -> list[SolverAnswer]:
    """Answers of the rules that explain every train pair, about objects alone or with a vocabulary that completes them."""
    if not keeps_size(task):
        return []
    changed = [(pair.input != pair.output).ravel() for pair in task.train]
    if not all(mask.any() for mask in changed):
        return []
    tables = make_tables(task, vocabulary) if vocabulary else plain_tables(task)
    pairs = len(task.train)
    name = vocabulary.name if vocabulary else NAME
    rules = learn(tables, _bits(changed, range(pairs)), np.ones(pairs, np.bool_))
    if not rules:
        return []
    predicted = 0
    for train, (k,) in held_out_folds(pairs):
        trained = learn(tables, _bits(changed, train), np.arange(pairs) != k)
        predicted += bool(trained) and _predicts(trained[0], k, _bits(changed, [k]))
    answers = []
    for rule in rules:
        cost = cost_of(sum(part.cost for part in rule), predicted, pairs)
        if all(same_grid(apply(rule, k), pair.output) for k, pair in enumerate(task.train)):
            text = "; ".join(part.text for part in rule)
            grids = [apply(rule, pairs + k) for k in range(len(task.tests))]
            answers += [SolverAnswer(k, grid, name, text, 1.0, cost) for k, grid in enumerate(grids) if grid is not None]
    return answers


def leading_part(task: Task) -> tuple[ConditionalAction, float] | None:
    """The conditional action about objects alone that explains most changed cells for its cost, with its share of all changed cells.

    It is never wrong on any train pair and explains cells of every one. None where there is none.
    """
    if not keeps_size(task):
        return None
    changed = [(pair.input != pair.output).ravel() for pair in task.train]
    if not all(mask.any() for mask in changed):
        return None
    needed, pairs = [_bits(changed, [k]) for k in range(len(changed))], np.ones(len(changed), np.bool_)
    candidates = _candidates(plain_tables(task), np.bitwise_or.reduce(needed), pairs)
    parts = [group[0] for group in candidates if all((group[0].cells & cells).any() for cells in needed)]
    if not parts:
        return None
    best = max(parts, key=lambda part: _POPCOUNT[part.cells].sum() / (part.cost + 1))
    return best, float(_POPCOUNT[best.cells].sum() / sum(int(mask.sum()) for mask in changed))


def _bits(masks: list[Array], pairs: Iterable[int]) -> Array:
    """uint8: the cells of the masks of some pairs as bits, with zeros for the other pairs."""
    chosen = set(pairs)
    return np.packbits(np.concatenate([mask if k in chosen else np.zeros_like(mask) for k, mask in enumerate(masks)]))


@lru_cache(maxsize=1)
def plain_tables(task: Task) -> list[ActionTable]:
    """A table for each segmentation under which some action explains something; kept for the vocabulary that completes them."""
    budget = Budget()
    tables = []
    for segmentation in segmentations(inputs_of(task)):
        changes = _changes(task, segmentation)
        actions = [*library(changes), *stamps(task, segmentation)]
        tables.append(make_table(task, segmentation, actions, make_tests, budget))
    return [table for table in tables if table is not None]


def make_tables(task: Task, vocabulary: Vocabulary) -> list[ActionTable]:
    """The plain tables with further tests, and a table of the further actions for each segmentation."""
    budget = Budget()
    plain = {table.segmentation.name: table for table in plain_tables(task)}
    tests_of = partial(make_tests, further=vocabulary.traits)
    tables: list[ActionTable] = []
    for segmentation in segmentations(inputs_of(task)):
        known = plain.get(segmentation.name)
        segmentation = known.segmentation if known else segmentation
        further = make_table(task, segmentation, vocabulary.actions(_changes(task, segmentation)), tests_of, budget)
        tests = further.tests if further else tests_of(segmentation, len(task.train)) if known else None
        tables += [replace(table, tests=tests) for table in (known, further) if table is not None and tests is not None]
        if budget.spent:
            break
    return tables


def _changes(task: Task, segmentation: Segmentation) -> Changes:
    erases = draws = recolours = False
    colours: set[int] = set()
    for pair, scene in zip(task.train, segmentation.scenes, strict=False):
        changed = pair.input != pair.output
        to_background, from_background = pair.output == scene.background, pair.input == scene.background
        erases = erases or bool((changed & to_background).any())
        draws = draws or bool((changed & from_background).any())
        recolours = recolours or bool((changed & ~to_background & ~from_background).any())
        colours.update(pair.output[changed & ~to_background].tolist())
    return Changes(erases, draws, recolours, tuple(sorted(colours)))


def learn(tables: list[ActionTable], needed: Array, pairs: Array) -> list[Rule]:
    """Rules that explain all needed cells of some pairs, best first; they differ in parts that are equivalent on these pairs.

    Args:
        needed: uint8, the changed cells of these pairs as bits.
        pairs: bool (pairs,), which pairs are known.
    """
    candidates = _candidates(tables, needed, pairs)
    covers = [cover for cover in (_cover(candidates, needed, per_cost) for per_cost in (False, True)) if cover]
    if not covers:
        return []
    chosen = min(covers, key=lambda cover: sum(group[0].cost for group in cover))
    plain = [group[0] for group in chosen]
    return [plain] + [[*plain[:k], other, *plain[k + 1 :]] for k, group in enumerate(chosen) for other in group[1:]]


def _cover(candidates: list[Group], needed: Array, per_cost: bool) -> list[Group]:
    """A greedy set cover: groups of equivalent conditional actions that together explain all needed cells, none of them redundant.

    Args:
        per_cost: take the group that explains most for its cost instead of the one that explains most.

    Returns:
        the groups, an empty list where they explain too little.
    """
    chosen: list[Group] = []
    remaining = needed.copy()
    while remaining.any() and len(chosen) < MAX_PARTS:
        best: Group = []
        best_key = (0.0, 0.0)
        for group in candidates:
            count, cost = int(_POPCOUNT[group[0].cells & remaining].sum()), group[0].cost
            key = (count / (cost + 1) if per_cost else float(count), -cost)
            if count and key > best_key:
                best, best_key = group, key
        if not best:
            return []
        chosen.append(best)
        remaining = remaining & ~best[0].cells
    if remaining.any():
        return []
    for group in chosen[::-1]:
        others = [other[0].cells for other in chosen if other is not group]
        if others and not (needed & ~np.bitwise_or.reduce(others)).any():
            chosen.remove(group)
    return chosen


def _candidates(tables: list[ActionTable], needed: Array, pairs: Array) -> list[Group]:
    """Conditional actions that are never wrong, in groups of at most three; the groups with most cells come first."""
    found: list[tuple[int, float, ActionTable, int, int]] = []
    for table in tables:
        known = pairs[table.pair]
        tests, actions = _different(table, known)
        passed = table.tests.passed[tests, : len(table.pair)][:, known].astype(np.float32)
        wrong = passed @ table.wrong[actions][:, known].T.astype(np.float32)
        # Erasing background is no gain, although tables count it for gaps; otherwise such actions would leave no room for others.
        gains = _POPCOUNT[table.cells[actions] & needed].sum(axis=2)
        gain = passed @ gains[:, known].T.astype(np.float32)
        for a, b in np.argwhere((wrong == 0) & (gain > 0)).tolist():
            test, action = int(tests[a]), int(actions[b])
            cost = table.segmentation.cost + table.tests.costs[test] + table.actions[action].cost
            found.append((int(gain[a, b]), float(cost), table, test, action))
    found.sort(key=lambda f: (-f[0], f[1]))
    groups: dict[bytes, Group] = {}
    for _, cost, table, test, action in found[:MAX_CANDIDATES]:
        selected = table.tests.passed[test, : len(table.pair)] & pairs[table.pair]
        cells = np.bitwise_or.reduce(table.cells[action][selected], axis=0) & needed
        groups.setdefault(cells.tobytes(), []).append(ConditionalAction(table, test, action, cells, cost))
    return [sorted(group, key=lambda part: part.cost)[:3] for group in groups.values()]


def _different(table: ActionTable, known: Array) -> tuple[Array, Array]:
    """The tests and the actions that differ on the known objects: of those with equal results only the cheapest.

    Otherwise they would leave no room for others among the conditional actions. A few of each stay, because they differ on unknown objects.
    """
    costs = np.array([action.cost for action in table.actions])
    shown = np.concatenate([table.wrong[:, known], table.gain[:, known] > 0], axis=1)
    results = [a.tobytes() + b.tobytes() for a, b in zip(shown, table.cells[:, known], strict=True)]
    tests = _first_of_kind([row.tobytes() for row in table.tests.passed[:, : len(table.pair)][:, known]], table.tests.costs, EQUAL_TESTS)
    return tests, _first_of_kind(results, costs, EQUAL_ACTIONS)


def _first_of_kind(keys: list[bytes], costs: Array, limit: int) -> Array:
    """int64: the indices of the `limit` cheapest of each key, ascending."""
    counts: dict[bytes, int] = {}
    kept = []
    for k in np.argsort(costs, kind="stable").tolist():
        counts[keys[k]] = counts.get(keys[k], 0) + 1
        if counts[keys[k]] <= limit:
            kept.append(k)
    return np.array(sorted(kept))


def _predicts(rule: Rule, pair: int, needed: Array) -> bool:
    """Whether a rule trained without a pair is right about it."""
    remaining = needed.copy()
    for part in rule:
        selected = part.table.tests.passed[part.test, : len(part.table.pair)] & (part.table.pair == pair)
        if part.table.wrong[part.action][selected].any():
            return False
        if selected.any():
            remaining &= ~np.bitwise_or.reduce(part.table.cells[part.action][selected], axis=0)
    return not remaining.any()


def apply(rule: Rule, example: int) -> Grid | None:
    """The output of a rule for an example, train pairs first: everything is erased before anything is painted.

    None where a cell is erased in a scene without a background and not painted: it has no colour.
    """
    source = rule[0].table.segmentation.scenes[example].grid
    grid = np.array(source).ravel()
    effects = []
    for part in reversed(rule):  # the first part paints on top
        scene = part.table.segmentation.scenes[example]
        start = part.table.segmentation.starts()[example]
        for k in np.flatnonzero(part.table.tests.passed[part.test, start : start + len(scene.objects)]).tolist():
            effect = part.table.actions[part.action].run(scene, k)
            if effect is not None:
                effects.append(effect)
                grid[effect.erased] = scene.background
    for effect in effects:
        grid[effect.painted] = effect.colours
    return None if (grid == COLOURS).any() else frozen(grid.reshape(source.shape))
