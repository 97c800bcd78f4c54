"""Rules for outputs of the input's size: what is done to which objects.

A rule is a short list of lines "every object that passes this test is changed by this action". A line must never be wrong: whatever it
paints in a train pair is so in the output. Lines are added greedily, the one that explains most changed cells first, the plainer of equals,
until every changed cell of every train pair is explained. Learning again without each train pair in turn tells how far to trust the rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.solvers.objects.actions import Action, Changes, Effect, library
from arc_submit.search.solvers.objects.scenes import Segmentation, segmentations
from arc_submit.search.solvers.objects.stamps import stamps
from arc_submit.search.solvers.objects.traits import Tests, make_tests
from arc_submit.search.solvers.objects.trust import NAME, cost_of
from arc_submit.search.store import Array

MAX_LINES = 4
MAX_CANDIDATES = 400  # lines whose cells are worked out in one round
MAX_EFFECTS = 60_000  # effects worked out for a task
MAX_BYTES = 100_000_000  # that the tables of a task may take


@dataclass(frozen=True)
class Table:
    """One segmentation: what every test says of the train objects, and what every useful action does to them.

    Attributes:
        pair: int64 (objects,), the train pair an object is of.
        wrong: bool (actions, objects), the action paints something that is not in the output.
        gain: int64 (actions, objects), how many changed cells the action explains.
        cells: uint8 (actions, objects, bytes), which changed cells of all pairs it explains, as bits.
    """

    segmentation: Segmentation
    tests: Tests
    actions: tuple[Action, ...]
    pair: Array
    wrong: Array
    gain: Array
    cells: Array


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a rule: its table, test and action by number, the cells it explains, and its cost."""

    table: Table
    test: int
    action: int
    cells: Array
    cost: float

    @property
    def text(self) -> str:
        return f"{self.table.actions[self.action].name}: {self.table.segmentation.name} with {self.table.tests.names[self.test]}"


class Budget:
    """Effects that may still be worked out, and bytes that may still be kept."""

    def __init__(self, effects: int = MAX_EFFECTS, size: int = MAX_BYTES):
        self.effects = effects
        self.bytes = size

    @property
    def spent(self) -> bool:
        return self.effects < 0 or self.bytes < 0


def solve(task: Task) -> list[Answer]:
    """Answers of the rules that explain every train pair."""
    if any(pair.input.shape != pair.output.shape for pair in task.train):
        return []
    changed = [pair.input != pair.output for pair in task.train]
    if not all(mask.any() for mask in changed):
        return []
    tables = make_tables(task)
    pairs = len(task.train)
    everything = _bits([mask.ravel() for mask in changed], range(pairs))
    rule = learn(tables, everything, np.ones(pairs, np.bool_))
    if not rule:
        return []
    held_out = 0
    for k in range(pairs if pairs > 1 else 0):
        rest = np.arange(pairs) != k
        lesson = learn(tables, _bits([mask.ravel() for mask in changed], np.flatnonzero(rest).tolist()), rest)
        held_out += bool(lesson) and _right(lesson[0], k, _bits([mask.ravel() for mask in changed], [k]))
    answers = []
    for lines in rule:
        cost = cost_of(sum(line.cost for line in lines), held_out, pairs)
        if all(_same(apply(lines, k), pair.output) for k, pair in enumerate(task.train)):
            text = "; ".join(line.text for line in lines)
            answers += [Answer(k, apply(lines, pairs + k), NAME, text, 1.0, cost) for k in range(len(task.tests))]
    return answers


def _same(a: Grid, b: Grid) -> bool:
    return bool((a == b).all())


def _bits(masks: list[Array], pairs: Iterable[int]) -> Array:
    """uint8: the cells of the masks of some pairs as bits, those of the others zero."""
    chosen = set(pairs)
    return np.packbits(np.concatenate([mask if k in chosen else np.zeros_like(mask) for k, mask in enumerate(masks)]))


def make_tables(task: Task) -> list[Table]:
    """A table for each segmentation under which some action explains something."""
    grids = [pair.input for pair in task.train] + list(task.tests)
    out = []
    budget = Budget()
    for segmentation in segmentations(grids):
        table = _table(task, segmentation, budget)
        if table is not None:
            out.append(table)
    return out


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


def _table(task: Task, segmentation: Segmentation, budget: Budget) -> Table | None:
    pairs = len(task.train)
    scenes = segmentation.scenes
    starts = np.concatenate([[0], np.cumsum([pair.input.size for pair in task.train])])
    owner = np.concatenate([np.full(len(scene.objects), k) for k, scene in enumerate(scenes[:pairs])])
    outputs = [pair.output.ravel() for pair in task.train]
    inputs = [pair.input.ravel() for pair in task.train]
    # The pairs with fewest objects are looked at first: an action that is of no use in two pairs is given up, except recolouring, where
    # each pair may show another colour.
    order = sorted(range(pairs), key=lambda k: len(scenes[k].objects))
    first = np.concatenate([[0], np.cumsum([len(scene.objects) for scene in scenes])])
    kept, wrongs, gains, cells = [], [], [], []
    for action in library(_changes(task, segmentation)) + stamps(task, segmentation):
        wrong, gain = np.zeros(len(owner), np.bool_), np.zeros(len(owner), np.int64)
        explained = np.zeros((len(owner), starts[-1]), np.bool_)
        for place, k in enumerate(order):
            budget.effects -= len(scenes[k].objects)
            for number in range(len(scenes[k].objects)):
                effect = action.run(scenes[k], number)
                if effect is None:
                    continue
                index = first[k] + number
                right = _judge(effect, inputs[k], outputs[k], scenes[k].background)
                if right is None:
                    wrong[index] = True
                else:
                    gain[index] = len(right)
                    explained[index, starts[k] + right] = True
            if place == 1 and not gain.any() and not action.name.startswith("recolour"):
                break
        if gain.any():
            kept.append(action)
            wrongs.append(wrong)
            gains.append(gain)
            cells.append(np.packbits(explained, axis=1))
            budget.bytes -= cells[-1].nbytes
        if budget.spent:
            return None
    if not kept:
        return None
    return Table(segmentation, make_tests(scenes, pairs), tuple(kept), owner, np.stack(wrongs), np.stack(gains), np.stack(cells))


def _judge(effect: Effect, before: Array, after: Array, background: int) -> Array | None:
    """The changed cells that an effect explains, or None where it is wrong.

    What is erased must be background in the output or have changed, because another object may come to lie there.
    """
    erased, painted, colours = effect
    if len(painted) and (after[painted] != colours).any():
        return None
    right = painted[before[painted] != colours]
    if len(erased):
        gone = np.setdiff1d(erased, painted)
        cleared = after[gone] == background
        if (~cleared & (after[gone] == before[gone])).any():
            return None
        right = np.concatenate([right, gone[cleared]])
    return np.asarray(right)


def learn(tables: list[Table], needed: Array, pairs: Array) -> list[list[Line]]:
    """Rules that explain all needed cells of some pairs, best first; they differ in the lines that are equal on these pairs.

    Args:
        needed: uint8, the changed cells of these pairs as bits.
        pairs: bool (pairs,), which pairs are known.
    """
    lines = _lines(tables, needed, pairs)
    rules = [rule for rule in (_cover(lines, needed, thrifty) for thrifty in (False, True)) if rule]
    if not rules:
        return []
    chosen = min(rules, key=lambda rule: sum(group[0].cost for group in rule))
    plain = [group[0] for group in chosen]
    return [plain] + [[*plain[:k], other, *plain[k + 1 :]] for k, group in enumerate(chosen) for other in group[1:]]


def _cover(lines: list[list[Line]], needed: Array, thrifty: bool) -> list[list[Line]]:
    """Lines that together explain all needed cells, none of them idle; empty where there are none.

    Args:
        thrifty: take the line that explains most for its cost, not the one that explains most.
    """
    chosen: list[list[Line]] = []
    left = needed.copy()
    while left.any() and len(chosen) < MAX_LINES:
        best: list[Line] = []
        best_key = (0.0, 0.0)
        for group in lines:
            count, cost = int(_COUNT[group[0].cells & left].sum()), group[0].cost
            key = (count / (cost + 1) if thrifty else float(count), -cost)
            if count and key > best_key:
                best, best_key = group, key
        if not best:
            return []
        chosen.append(best)
        left = left & ~best[0].cells
    if left.any():
        return []
    for group in chosen[::-1]:
        others = [other[0].cells for other in chosen if other is not group]
        if others and not (needed & ~np.bitwise_or.reduce(others)).any():
            chosen.remove(group)
    return chosen


_COUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


def _lines(tables: list[Table], needed: Array, pairs: Array) -> list[list[Line]]:
    """Lines that are never wrong, grouped by the cells they explain, the cheapest of a group first, at most three of each."""
    found: list[tuple[int, float, Table, int, int]] = []
    for table in tables:
        known = pairs[table.pair]
        passed = table.tests.passed[:, : len(table.pair)][:, known].astype(np.float32)
        wrong = passed @ table.wrong[:, known].T.astype(np.float32)
        gain = passed @ table.gain[:, known].T.astype(np.float32)
        for test, action in np.argwhere((wrong == 0) & (gain > 0)).tolist():
            cost = table.segmentation.cost + table.tests.costs[test] + table.actions[action].cost
            found.append((int(gain[test, action]), float(cost), table, test, action))
    found.sort(key=lambda f: (-f[0], f[1]))
    groups: dict[bytes, list[Line]] = {}
    for _, cost, table, test, action in found[:MAX_CANDIDATES]:
        mine = table.tests.passed[test, : len(table.pair)] & pairs[table.pair]
        cells = np.bitwise_or.reduce(table.cells[action][mine], axis=0) & needed
        groups.setdefault(cells.tobytes(), []).append(Line(table, test, action, cells, cost))
    return [sorted(group, key=lambda line: line.cost)[:3] for group in groups.values()]


def _right(lines: list[Line], pair: int, needed: Array) -> bool:
    """True where a rule that did not know a pair is right about it."""
    left = needed.copy()
    for line in lines:
        mine = line.table.tests.passed[line.test, : len(line.table.pair)] & (line.table.pair == pair)
        if line.table.wrong[line.action][mine].any():
            return False
        if mine.any():
            left &= ~np.bitwise_or.reduce(line.table.cells[line.action][mine], axis=0)
    return not left.any()


def apply(lines: list[Line], example: int) -> Grid:
    """The output of a rule for an example, train pairs first: all that is erased goes before anything is painted."""
    grid = np.array(lines[0].table.segmentation.scenes[example].grid).ravel()
    shape = lines[0].table.segmentation.scenes[example].grid.shape
    effects = []
    for line in reversed(lines):  # what the first line paints lies on top
        scenes = line.table.segmentation.scenes
        start = sum(len(scene.objects) for scene in scenes[:example])
        for k in range(len(scenes[example].objects)):
            if line.table.tests.passed[line.test, start + k]:
                effect = line.table.actions[line.action].run(scenes[example], k)
                if effect is not None:
                    effects.append(effect)
                    grid[effect.erased] = scenes[example].background
    for effect in effects:
        grid[effect.painted] = effect.colours
    return frozen(grid.reshape(shape))
