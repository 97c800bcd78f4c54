"""The results of every test and every useful action for the train objects of one segmentation.

An action is useful where it explains a changed cell of some train pair. Results are looked up in bulk, because a task has thousands of
actions and dozens of objects. Does not know rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.search.solvers.objects.effects import NONE, Action, Cells, Effect, Painter, Painting
from arc_submit.search.solvers.objects.scenes import Scene, Segmentation
from arc_submit.search.solvers.objects.traits import ObjectTests
from arc_submit.search.store import Array

MAX_EFFECTS = 60_000  # effects computed for a task
MAX_BYTES = 100_000_000  # of the tables of a task
EARLY = 2  # pairs in which an action must explain something, unless it recolours: each pair may show another colour
_MIXED, _NOT_SEEN = -2, -3  # in place of a colour: cells of several colours, and none or not looked at


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


class Budget:
    """The effects that may still be computed and the bytes that their tables may still take."""

    def __init__(self) -> None:
        self.effects = MAX_EFFECTS
        self.bytes = MAX_BYTES

    @property
    def spent(self) -> bool:
        return self.effects < 0 or self.bytes < 0


@dataclass(frozen=True)
class _Pair:
    """One train pair.

    Attributes:
        before, after: int8, input and output in reading order.
        objects: the places of its objects among those of all pairs.
        first_cell: the number of its first cell among those of all pairs.
    """

    scene: Scene
    before: Array
    after: Array
    objects: slice
    first_cell: int


@dataclass(frozen=True)
class _Results:
    """What an action does to each object of all pairs.

    Attributes:
        wrong: bool (objects,), it paints a cell that has another colour in the output.
        gain: int64 (objects,), the changed cells that it explains.
        right: int64 for each object, those cells, numbered over all pairs.
    """

    wrong: Array
    gain: Array
    right: list[Array]


def make_table(
    task: Task, segmentation: Segmentation, actions: Sequence[Action], tests_of: Callable[[Segmentation, int], ObjectTests], budget: Budget
) -> ActionTable | None:
    """The table of one segmentation, or None where no action is useful or the budget is spent."""
    count = len(task.train)
    first_cell = [int(n) for n in np.cumsum([0] + [pair.input.size for pair in task.train])]
    starts = [int(n) for n in segmentation.starts()[: count + 1]]
    cells, objects = first_cell[-1], starts[-1]
    scenes = segmentation.scenes[:count]
    pairs = [
        _Pair(scene, pair.input.ravel(), pair.output.ravel(), slice(starts[k], starts[k + 1]), first_cell[k])
        for k, (scene, pair) in enumerate(zip(scenes, task.train, strict=True))
    ]
    # The pairs with fewest objects come first: an action that explains nothing in two of them is abandoned.
    pairs.sort(key=lambda pair: len(pair.scene.objects))
    of_early = sum(len(pair.scene.objects) for pair in pairs[:EARLY])
    paintings = _Paintings([action.run.painter for action in actions if isinstance(action.run, Painting)], pairs, objects)
    useful, wrongs, gains, explained = [], [], [], []
    for action in actions:
        results = paintings.results(action) if isinstance(action.run, Painting) else _results(action, pairs, objects)
        budget.effects -= objects if results else of_early
        if results is not None and results.gain.any():
            useful.append(action)
            wrongs.append(results.wrong)
            gains.append(results.gain)
            mask = np.zeros((objects, cells), np.bool_)
            for number in np.flatnonzero(results.gain):
                mask[number, results.right[number]] = True
            explained.append(np.packbits(mask, axis=1))
            budget.bytes -= explained[-1].nbytes
        if budget.spent:
            return None
    if not useful:
        return None
    tests, owners = tests_of(segmentation, count), segmentation.owners()[:objects]
    return ActionTable(segmentation, tests, tuple(useful), owners, np.stack(wrongs), np.stack(gains), np.stack(explained))


def _must_explain_early(action: Action) -> bool:
    return not action.name.startswith("recolour")


def _results(action: Action, pairs: Sequence[_Pair], objects: int) -> _Results | None:
    """What any action does, object by object; None where it is abandoned."""
    wrong, gain, right = np.zeros(objects, np.bool_), np.zeros(objects, np.int64), [NONE] * objects
    for place, pair in enumerate(pairs):
        for number in range(len(pair.scene.objects)):
            effect = action.run(pair.scene, number)
            if effect is None:
                continue
            one, cells = pair.objects.start + number, _explained_cells(effect, pair)
            wrong[one] = cells is None
            if cells is not None:
                gain[one], right[one] = len(cells), pair.first_cell + cells
        if place + 1 == EARLY and not gain.any() and _must_explain_early(action):
            return None
    return _Results(wrong, gain, right)


def _explained_cells(effect: Effect, pair: _Pair) -> Array | None:
    """The changed cells that an effect explains, or None where it is wrong.

    An erased cell must be background in the output or have changed, because another object may move there.
    """
    (erased, painted, colours), before, after = effect, pair.before, pair.after
    if len(painted) and (after[painted] != colours).any():
        return None
    right = painted[before[painted] != colours]
    if len(erased):
        unpainted = np.setdiff1d(erased, painted)
        cleared = after[unpainted] == pair.scene.background
        if (~cleared & (after[unpainted] == before[unpainted])).any():
            return None
        right = np.concatenate([right, unpainted[cleared]])
    return np.asarray(right)


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
    """Actions that paint: the outputs are looked at once for each choice of cells, and compared with all painters together."""

    def __init__(self, painters: Sequence[Painter], pairs: Sequence[_Pair], objects: int):
        self._pairs = pairs
        self._rows = {painter: row for row, painter in enumerate(dict.fromkeys(painters))}
        self._colours = np.full((len(self._rows), objects), -1)
        for painter, row in self._rows.items():
            for pair in pairs:
                colours = [painter.colour_of(pair.scene, number) for number in range(len(pair.scene.objects))]
                self._colours[row, pair.objects] = [-1 if colour is None else colour for colour in colours]
        self._shown: dict[Cells, _Shown] = {}
        self._gains_early: dict[Cells, Array] = {}
        self._found: dict[Cells, tuple[Array, Array]] = {}

    def results(self, action: Action) -> _Results | None:
        """What an action with a Painting does; None where it is abandoned."""
        assert isinstance(action.run, Painting)
        cells_of, row = action.run.cells_of, self._rows[action.run.painter]
        if _must_explain_early(action):
            if cells_of not in self._gains_early:
                _, gain = self._compared(self._look_at(cells_of, EARLY))
                self._gains_early[cells_of] = np.asarray(gain.any(axis=1))
            if not self._gains_early[cells_of][row]:
                return None
        shown = self._look_at(cells_of, len(self._pairs))
        if cells_of not in self._found:
            self._found[cells_of] = self._compared(shown)
        wrong, gain = self._found[cells_of]
        return _Results(wrong[row], gain[row], shown.right)

    def _look_at(self, cells_of: Cells, count: int) -> _Shown:
        """What the first `count` pairs show."""
        if cells_of not in self._shown:
            self._shown[cells_of] = _Shown(self._colours.shape[1])
        shown = self._shown[cells_of]
        for pair in self._pairs[shown.pairs : count]:
            for number in range(len(pair.scene.objects)):
                cells = cells_of(pair.scene, number)
                if not len(cells):
                    continue
                one, colours = pair.objects.start + number, pair.after[cells]
                alike = bool((colours == colours[0]).all())
                shown.only[one] = colours[0] if alike else _MIXED
                if alike:
                    shown.right[one] = pair.first_cell + cells[pair.before[cells] != colours[0]]
                    shown.counts[one] = len(shown.right[one])
        shown.pairs = max(shown.pairs, count)
        return shown

    def _compared(self, shown: _Shown) -> tuple[Array, Array]:
        """bool and int64 (painters, objects): where a painter is wrong, and the changed cells that it explains."""
        paints = (self._colours >= 0) & (shown.only != _NOT_SEEN)
        agrees = paints & (self._colours == shown.only)
        return paints & ~agrees, np.where(agrees, shown.counts, 0)
