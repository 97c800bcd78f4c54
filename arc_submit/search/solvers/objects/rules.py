"""Rules for outputs of the input's size: actions on selected objects.

A rule is a short list of conditional actions "every object that passes this test is changed by this action". A conditional action must
never be wrong: every cell that it paints in a train pair has that colour in the output. They are added greedily, the one that explains
most changed cells first, the plainer one on a tie, until every changed cell of every train pair is explained. Training again without each
train pair in turn measures how reliable the rule is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import held_out_folds, inputs_of, keeps_size
from arc_submit.search.solvers.objects.actions import NONE, Action, Cells, Changes, Effect, Painter, Painting, library
from arc_submit.search.solvers.objects.scenes import Scene, Segmentation, segmentations
from arc_submit.search.solvers.objects.stamps import stamps
from arc_submit.search.solvers.objects.traits import ObjectTests, make_tests
from arc_submit.search.solvers.objects.trust import NAME, cost_of
from arc_submit.search.store import Array

MAX_PARTS = 4  # conditional actions of a rule
MAX_CANDIDATES = 400  # conditional actions whose cells are computed in one round
EQUAL_TESTS, EQUAL_ACTIONS = 3, 2  # tests and actions with the same results on the known objects
MAX_EFFECTS = 60_000  # effects computed for a task
MAX_BYTES = 100_000_000  # of the tables of a task
_EARLY = 2  # pairs in which an action must explain something, unless it recolours
_MIXED, _NOT_SEEN = -2, -3  # in place of a colour: cells of several colours, and none or not looked at
_POPCOUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


@dataclass(frozen=True)
class ActionTable:
    """One segmentation with the results of every test and every useful action for the train objects.

    Attributes:
        pair: int64 (objects,), the train pair of an object.
        wrong: bool (actions, objects), the action paints a cell that differs from the output.
        gain: int64 (actions, objects), the number of changed cells that the action explains.
        cells: uint8 (actions, objects, bytes), the changed cells of all pairs that it explains, as bits.
    """

    segmentation: Segmentation
    tests: ObjectTests
    actions: tuple[Action, ...]
    pair: Array
    wrong: Array
    gain: Array
    cells: Array


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


class Budget:
    """The effects that may still be computed and the bytes that their tables may still take."""

    def __init__(self) -> None:
        self.effects = MAX_EFFECTS
        self.bytes = MAX_BYTES

    @property
    def spent(self) -> bool:
        return self.effects < 0 or self.bytes < 0


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
            answers += [SolverAnswer(k, apply(rule, pairs + k), name, text, 1.0, cost) for k in range(len(task.tests))]
    return answers


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
        tables.append(_table(task, segmentation, actions, make_tests, budget))
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
        further = _table(task, segmentation, vocabulary.actions(_changes(task, segmentation)), tests_of, budget)
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


def _table(
    task: Task, segmentation: Segmentation, actions: list[Action], tests_of: Callable[[Segmentation, int], ObjectTests], budget: Budget
) -> ActionTable | None:
    pairs = len(task.train)
    scenes = segmentation.scenes[:pairs]
    first_cell = np.cumsum([0] + [pair.input.size for pair in task.train])
    first_object = segmentation.starts()
    objects = first_object[pairs]
    # The pairs with fewest objects come first: an action without use in two pairs is abandoned, except recolouring, because each pair may
    # show another colour.
    order = sorted(range(pairs), key=lambda k: len(scenes[k].objects))
    starts = [slice(first_object[k], first_object[k + 1]) for k in range(pairs)]
    before = [pair.input.ravel() for pair in task.train]
    after = [pair.output.ravel() for pair in task.train]
    painters = dict.fromkeys(action.run.painter for action in actions if isinstance(action.run, Painting))
    paintings = _Paintings(list(painters), scenes, order, [(before[k], after[k], starts[k], first_cell[k]) for k in range(pairs)])
    useful, wrongs, gains, cells = [], [], [], []
    for action in actions:
        recolours = action.name.startswith("recolour")
        if isinstance(action.run, Painting):
            abandoned = not recolours and not paintings.gains_early(action.run)
            budget.effects -= sum(len(scenes[k].objects) for k in (order[:_EARLY] if abandoned else order))
            if not abandoned:
                wrong, gain, right = paintings.of(action.run)
        else:
            abandoned = False
            wrong, gain = np.zeros(objects, np.bool_), np.zeros(objects, np.int64)
            right = [NONE] * objects
            for place, k in enumerate(order):
                budget.effects -= len(scenes[k].objects)
                for number in range(len(scenes[k].objects)):
                    effect = action.run(scenes[k], number)
                    if effect is None:
                        continue
                    explained = _explained_cells(effect, before[k], after[k], scenes[k].background)
                    wrong[first_object[k] + number] = explained is None
                    if explained is not None:
                        gain[first_object[k] + number], right[first_object[k] + number] = len(explained), first_cell[k] + explained
                if abandoned := place + 1 == _EARLY and not gain.any() and not recolours:
                    break
        if not abandoned and gain.any():
            useful.append(action)
            wrongs.append(wrong)
            gains.append(gain)
            bits = np.zeros((objects, first_cell[-1]), np.bool_)
            for number in np.flatnonzero(gain):
                bits[number, right[number]] = True
            cells.append(np.packbits(bits, axis=1))
            budget.bytes -= cells[-1].nbytes
        if budget.spent:
            return None
    if not useful:
        return None
    tests, owners = tests_of(segmentation, pairs), segmentation.owners()[:objects]
    return ActionTable(segmentation, tests, tuple(useful), owners, np.stack(wrongs), np.stack(gains), np.stack(cells))


class _Shown:
    """What the outputs have in some cells of each object, for the pairs that were looked at.

    Attributes:
        pairs: how many were.
        only: int64 (objects,), the one colour of all these cells, _MIXED, or _NOT_SEEN.
        counts: int64 (objects,), the changed cells among them, where they have one colour.
        right: int64 for each object, those cells, numbered over all pairs.
    """

    def __init__(self, objects: int):
        self.pairs, self.only, self.counts = 0, np.full(objects, _NOT_SEEN), np.zeros(objects, np.int64)
        self.right = [NONE] * objects


class _Paintings:
    """What the outputs show where objects could be painted: looked up once for each choice of cells, for all painters together.

    Args:
        order: the pairs; those after the first _EARLY are looked at only where they are asked for.
        grids: input and output of each pair in reading order, the place of its objects among all, and that of its first cell.
    """

    def __init__(
        self, painters: list[Painter], scenes: Sequence[Scene], order: Sequence[int], grids: list[tuple[Array, Array, slice, int]]
    ):
        self._rows, self._scenes, self._order, self._grids = {painter: row for row, painter in enumerate(painters)}, scenes, order, grids
        self._colours = np.full((len(painters), sum(len(scene.objects) for scene in scenes)), -1)
        for row, painter in enumerate(painters):
            for scene, (_, _, own, _) in zip(scenes, grids, strict=True):
                colours = [painter.colour_of(scene, number) for number in range(len(scene.objects))]
                self._colours[row, own] = [-1 if colour is None else colour for colour in colours]
        self._shown: dict[Cells, _Shown] = {}
        self._gains_early: dict[Cells, list[bool]] = {}
        self._found: dict[Cells, tuple[Array, Array]] = {}

    def gains_early(self, action: Painting) -> bool:
        """Whether an action explains a cell in the first _EARLY pairs."""
        if action.cells_of not in self._gains_early:
            _, gain = self._compared(self._look_at(action.cells_of, _EARLY))
            self._gains_early[action.cells_of] = gain.any(axis=1).tolist()
        return self._gains_early[action.cells_of][self._rows[action.painter]]

    def of(self, action: Painting) -> tuple[Array, Array, list[Array]]:
        """What an action does to each object of all pairs.

        Returns:
            wrong: bool (objects,), it paints a cell that has another colour in the output.
            gain: int64 (objects,), the changed cells that it explains.
            right: int64 for each object, those cells, numbered over all pairs.
        """
        shown = self._look_at(action.cells_of, len(self._order))
        if action.cells_of not in self._found:
            self._found[action.cells_of] = self._compared(shown)
        wrong, gain = self._found[action.cells_of]
        row = self._rows[action.painter]
        return wrong[row], gain[row], shown.right

    def _look_at(self, cells_of: Cells, pairs: int) -> _Shown:
        """What the first pairs of the order show."""
        if cells_of not in self._shown:
            self._shown[cells_of] = _Shown(self._colours.shape[1])
        shown = self._shown[cells_of]
        for k in self._order[shown.pairs : pairs]:
            before, after, own, first_cell = self._grids[k]
            for number in range(own.stop - own.start):
                cells = cells_of(self._scenes[k], number)
                if not len(cells):
                    continue
                colours, place = after[cells], own.start + number
                one = (colours == colours[0]).all()
                shown.only[place] = colours[0] if one else _MIXED
                if one:
                    shown.right[place] = first_cell + cells[before[cells] != colours[0]]
                    shown.counts[place] = len(shown.right[place])
        shown.pairs = max(shown.pairs, pairs)
        return shown

    def _compared(self, shown: _Shown) -> tuple[Array, Array]:
        """bool and int64 (painters, objects): where a painter is wrong, and the changed cells that it explains."""
        paints = (self._colours >= 0) & (shown.only != _NOT_SEEN)
        agrees = paints & (self._colours == shown.only)
        return paints & ~agrees, np.where(agrees, shown.counts, 0)


def _explained_cells(effect: Effect, before: Array, after: Array, background: int) -> Array | None:
    """The changed cells that an effect explains, or None where it is wrong.

    An erased cell must be background in the output or have changed, because another object may move there.
    """
    erased, painted, colours = effect
    if len(painted) and (after[painted] != colours).any():
        return None
    right = painted[before[painted] != colours]
    if len(erased):
        unpainted = np.setdiff1d(erased, painted)
        cleared = after[unpainted] == background
        if (~cleared & (after[unpainted] == before[unpainted])).any():
            return None
        right = np.concatenate([right, unpainted[cleared]])
    return np.asarray(right)


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


def apply(rule: Rule, example: int) -> Grid:
    """The output of a rule for an example, train pairs first: everything is erased before anything is painted."""
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
    return frozen(grid.reshape(source.shape))
