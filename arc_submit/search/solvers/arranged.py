"""Outputs that are put together from parts: objects side by side or over one another, copies by a number, bars of counted
lengths.

A rule names the parts (the objects that pass a test), their order or number, and their places. Every rule is evaluated on all train pairs,
see objects/selection.py. This module does not know changes of objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import commonest_colour, inputs_of, keeps_size
from arc_submit.search.solvers.objects.scenes import Object, Scene, Segmentation, segmentations
from arc_submit.search.solvers.objects.selection import EvaluatedRule, answers_of
from arc_submit.search.solvers.objects.traits import ObjectTests, make_tests, traits
from arc_submit.search.store import Array

NAME = "arranged"
MAX_FILTERS = 60  # tests that choose the parts
MAX_PARTS = 30  # objects of one output
MAX_EQUAL_CHOICES = 3  # tests that the same train objects pass
MAX_DRAWN = 400_000  # parts drawn for one task
MAX_DRAWN_OF_SEGMENTATION = 200_000
ORDERS = ("left of it", "above it", "area", "height", "width", "cells of its colour", "of its colour", "holes", "of its turned shape")


@dataclass(frozen=True)
class Parts:
    """The objects that pass one test, in every scene.

    Attributes:
        text, cost: of the choice.
        chosen: for each scene the indices of its objects.
    """

    text: str
    cost: float
    chosen: tuple[Array, ...]


class Budget:
    """The parts that may still be drawn."""

    def __init__(self, parts: int):
        self.parts = parts

    @property
    def spent(self) -> bool:
        return self.parts < 0


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the cheapest rules that reproduce every train pair."""
    bars = _shows_bars(task, 0) or _shows_bars(task, 1)
    if keeps_size(task) and not bars:
        return []
    found: list[EvaluatedRule] = []
    left = MAX_DRAWN
    for segmentation in segmentations(inputs_of(task)):
        rows = not keeps_size(task) and _may_be_rows(task, segmentation)
        copies = not keeps_size(task) and _may_be_copies(task, segmentation)
        overlays = not keeps_size(task) and _may_be_overlays(task, segmentation)
        if not (bars or rows or copies or overlays):
            continue
        values = [traits(scene) for scene in segmentation.scenes]
        given = min(left, MAX_DRAWN_OF_SEGMENTATION)
        budget = Budget(given)
        for parts in _choices(segmentation, len(task.train)):
            found += _bars(task, segmentation, parts, values, budget) if bars else ()
            found += _side_by_side(task, segmentation, parts, values, budget) if rows else ()
            found += _overlaid(task, segmentation, parts, values, budget) if overlays else ()
            found += _copies(task, segmentation, parts, budget) if copies else ()
            if budget.spent:
                break
        left -= given - budget.parts
        if left <= 0:
            break
    return [replace(answer, solver=NAME) for answer in answers_of(task, found)]


def _shows_bars(task: Task, axis: int) -> bool:
    """Whether every row (axis 0) or column of every train output has at most one colour besides the background of its input."""
    for pair in task.train:
        blanks = {0, commonest_colour(pair.input)}
        lines = [set(line.tolist()) for line in (pair.output if axis == 0 else pair.output.T)]
        if not any(all(len(line - {blank}) <= 1 for line in lines) for blank in blanks):
            return False
    return True


def _choices(segmentation: Segmentation, pairs: int) -> Iterator[Parts]:
    """The first tests that some object of every scene passes, and at most MAX_PARTS; few that the same train objects pass."""
    tests: ObjectTests = make_tests(segmentation, pairs)
    starts = segmentation.starts()[1:-1]
    train = segmentation.owners() < pairs
    seen: set[bytes] = set()
    equal: Counter[bytes] = Counter()
    for t in range(min(len(tests.names), MAX_FILTERS)):
        chosen = tuple(np.flatnonzero(row) for row in np.split(tests.passed[t], starts))
        if all(0 < len(row) <= MAX_PARTS for row in chosen) and tests.passed[t].tobytes() not in seen:
            seen.add(tests.passed[t].tobytes())
            trained = tests.passed[t][train].tobytes()
            equal[trained] += 1
            if equal[trained] > MAX_EQUAL_CHOICES:
                continue  # the train pairs do not tell it from plainer ones
            yield Parts(f"{segmentation.name} with {tests.names[t]}", segmentation.cost + float(tests.costs[t]), chosen)


def _evaluated(
    task: Task, parts: Parts, text: str, cost: float, draw: Callable[[int], Grid | None], budget: Budget
) -> Iterator[EvaluatedRule]:
    """The rule with the results of `draw` for each scene, unless more than one train pair contradicts it.

    Most rules are wrong, so drawing ends at the second wrong pair, and test scenes are drawn only where all pairs are right.
    """
    if budget.spent:
        return
    right = np.zeros(len(task.train), np.bool_)
    for k, pair in enumerate(task.train):
        budget.parts -= 1 + len(parts.chosen[k])
        right[k] = same_grid(draw(k), pair.output)
        if k + 1 - right.sum() > min(1, len(right) - 1):
            return
    tests: tuple[Grid | None, ...] = (None,) * len(task.tests)
    if right.all():
        budget.parts -= sum(1 + len(row) for row in parts.chosen[len(right) :])
        tests = tuple(draw(k) for k in range(len(right), len(parts.chosen)))
    yield EvaluatedRule(text, cost, right, tests)


Order = Callable[[int], Array]  # the chosen objects of a scene in an order


def _orders(values: list[dict[str, Array]], parts: Parts) -> Iterator[tuple[str, float, Order]]:
    """(Text, cost, order) of every order without ties in its scenes, except for equal places."""
    for number, name in enumerate(ORDERS):
        for sign in (1, -1):
            yield f"by {'' if sign > 0 else 'falling '}{name}", 0.3 * number, _order(values, parts, name, sign)


def _order(values: list[dict[str, Array]], parts: Parts, name: str, sign: int) -> Order:
    @cache
    def ordered(k: int) -> Array:
        row = parts.chosen[k]
        return row[np.argsort(sign * values[k][name][row], kind="stable")]

    return ordered


# --- Objects side by side ----------------------------------------------------------------------------------------------------------------


def _box(scene: Scene, o: Object) -> Grid:
    return scene.grid[o.box]


def _alone(scene: Scene, o: Object) -> Grid:
    return np.where(o.mask, o.picture, scene.blank)


Picture = Callable[[Scene, Object], Grid]
_PICTURES: tuple[tuple[str, float, Picture], ...] = (("boxes", 0.0, _box), ("pictures", 0.2, _alone))


def _may_be_rows(task: Task, segmentation: Segmentation) -> bool:
    """Whether along one axis every train output is as wide as two objects and not longer than all such objects with gaps."""
    return any(
        all(_may_be_row(scene, pair.output.shape, axis) for pair, scene in zip(task.train, segmentation.scenes, strict=False))
        for axis in (0, 1)
    )


def _may_be_row(scene: Scene, shape: tuple[int, ...], axis: int) -> bool:
    sizes = [(o.height, o.width) for o in scene.objects]
    along = [size[axis] for size in sizes if size[1 - axis] == shape[1 - axis]]
    return len(along) > 1 and sum(along) + len(along) > shape[axis]


def _side_by_side(
    task: Task, segmentation: Segmentation, parts: Parts, values: list[dict[str, Array]], budget: Budget
) -> Iterator[EvaluatedRule]:
    """Boxes of the parts in a row or a column, with or without lines of background between them."""
    scenes, pairs = segmentation.scenes, len(task.train)
    if all(len(row) < 2 for row in parts.chosen[:pairs]):
        return
    for axis, word in ((1, "in a row"), (0, "in a column")):
        for gap in (0, 1):
            if not all(_fits(scenes[k], parts.chosen[k], task.train[k].output.shape, axis, gap) for k in range(pairs)):
                continue
            for picture_name, picture_cost, picture in _PICTURES:
                for order, order_cost, ordered in _orders(values, parts):

                    def draw(k: int, ordered: Order = ordered, picture: Picture = picture, axis: int = axis, gap: int = gap) -> Grid | None:
                        return _joined(scenes[k], ordered(k), picture, axis, gap)

                    text = f"{picture_name} of {parts.text} {word} {order}{' with gaps' * gap}"
                    cost = 3.0 + parts.cost + picture_cost + order_cost + 0.3 * gap
                    yield from _evaluated(task, parts, text, cost, draw, budget)


def _fits(scene: Scene, row: Array, shape: tuple[int, ...], axis: int, gap: int) -> bool:
    """Whether the boxes of some objects side by side have a shape."""
    sizes = [(scene.objects[k].height, scene.objects[k].width) for k in row]
    along = sum(size[axis] for size in sizes) + gap * (len(sizes) - 1)
    return along == shape[axis] and all(size[1 - axis] == shape[1 - axis] for size in sizes)


def _joined(scene: Scene, row: Array, picture: Picture, axis: int, gap: int) -> Grid | None:
    grids = [picture(scene, scene.objects[k]) for k in row]
    across = grids[0].shape[1 - axis]
    total = sum(grid.shape[axis] for grid in grids) + gap * (len(grids) - 1)
    if any(grid.shape[1 - axis] != across for grid in grids) or total > MAX_SIDE:
        return None
    line = np.full((across, 1) if axis else (1, across), scene.blank, np.int8)
    pieces = [piece for grid in grids for piece in ((line, grid) if gap else (grid,))]
    return frozen(np.concatenate(pieces[gap:], axis=axis))


def _may_be_overlays(task: Task, segmentation: Segmentation) -> bool:
    """Whether every train output shows two colours, and is as high as one of several objects and as wide as one.

    With one colour the last object would hide all others, and the rule would choose one object.
    """
    for pair, scene in zip(task.train, segmentation.scenes, strict=False):
        heights, widths = {o.height for o in scene.objects}, {o.width for o in scene.objects}
        shown = set(np.unique(pair.output).tolist()) - {int(scene.blank)}
        if len(shown) < 2 or len(scene.objects) < 2 or pair.output.shape[0] not in heights or pair.output.shape[1] not in widths:
            return False
    return True


def _overlaid(
    task: Task, segmentation: Segmentation, parts: Parts, values: list[dict[str, Array]], budget: Budget
) -> Iterator[EvaluatedRule]:
    """The pictures of the parts over one another with a common middle, on a ground as large as the largest of them."""
    scenes = segmentation.scenes
    chosen = [[scene.objects[k] for k in row] for scene, row in zip(scenes, parts.chosen, strict=True)]
    if any(len(objects) < 2 or _largest_box(objects) != pair.output.shape for objects, pair in zip(chosen, task.train, strict=False)):
        return
    for order, order_cost, ordered in _orders(values, parts):

        def draw(k: int, ordered: Order = ordered) -> Grid | None:
            return _over_one_another(scenes[k], [scenes[k].objects[n] for n in ordered(k)])

        text = f"pictures of {parts.text} over one another {order}"
        yield from _evaluated(task, parts, text, 3.5 + parts.cost + order_cost, draw, budget)


def _largest_box(objects: list[Object]) -> tuple[int, int]:
    return max(o.height for o in objects), max(o.width for o in objects)


def _over_one_another(scene: Scene, objects: list[Object]) -> Grid | None:
    """The last object on top; None where the middles cannot meet."""
    height, width = _largest_box(objects)
    out = np.full((height, width), scene.blank, np.int8)
    for o in objects:
        if (height - o.height) % 2 or (width - o.width) % 2:
            return None
        top, left = (height - o.height) // 2, (width - o.width) // 2
        box = out[top : top + o.height, left : left + o.width]
        box[o.mask] = o.picture[o.mask]
    return frozen(out)


# --- Copies by a number ------------------------------------------------------------------------------------------------------------------


def _may_be_copies(task: Task, segmentation: Segmentation) -> bool:
    """Whether every train output has the size of copies, in some layout, of a cell, of the input or of one of its objects."""
    for pair, scene in zip(task.train, segmentation.scenes, strict=False):
        sizes = {(1, 1), (pair.input.shape[0], pair.input.shape[1])} | {(o.height, o.width) for o in scene.objects}
        numbers = [(pair.output.shape[0] / height, pair.output.shape[1] / width) for height, width in sizes]
        if not any(n.is_integer() and m.is_integer() and (n == m or min(n, m) == 1) for n, m in numbers):
            return False
    return True


def _copies(task: Task, segmentation: Segmentation, parts: Parts, budget: Budget) -> Iterator[EvaluatedRule]:
    """So many copies of a picture as there are parts: in a row, a column, a square or along a diagonal."""
    areas = [sum(scene.objects[k].area for k in row) for scene, row in zip(segmentation.scenes, parts.chosen, strict=True)]
    numbers = (("there are", 0.0, [len(row) for row in parts.chosen]), ("there are cells in", 0.5, areas))
    for source, source_cost, picture_of in _SOURCES:
        pictures = [picture_of(scene, row) for scene, row in zip(segmentation.scenes, parts.chosen, strict=True)]
        for words, number_cost, counts in numbers:
            train = list(zip(pictures, counts, task.train, strict=False))
            if len({n for _, n, _ in train}) < 2 or any(picture is None or n > MAX_SIDE for picture, n, _ in train):
                continue
            for layout, layout_cost, place in _LAYOUTS:

                def draw(k: int, pictures: list[Grid | None] = pictures, counts: list[int] = counts, place: Layout = place) -> Grid | None:
                    picture, n = pictures[k], counts[k]
                    if picture is None or n * max(picture.shape) > MAX_SIDE:
                        return None
                    return frozen(place(picture, n, segmentation.scenes[k].blank))

                text = f"{source} {layout} as often as {words} {parts.text}"
                cost = 4.0 + parts.cost + source_cost + number_cost + layout_cost
                yield from _evaluated(task, parts, text, cost, draw, budget)


def _one_cell(scene: Scene, row: Array) -> Grid | None:
    colours = {scene.objects[k].colour for k in row}
    return np.full((1, 1), colours.pop(), np.int8) if len(colours) == 1 else None


def _common_picture(scene: Scene, row: Array) -> Grid | None:
    pictures = [_alone(scene, scene.objects[k]) for k in row]
    return pictures[0] if all(same_grid(picture, pictures[0]) for picture in pictures) else None


def _whole(scene: Scene, row: Array) -> Grid | None:
    return scene.grid


def _diagonal(picture: Grid, n: int, blank: np.int8, other: bool = False) -> Array:
    places = np.eye(n, dtype=np.int8)[:: -1 if other else 1]
    return np.where(np.kron(places, np.ones_like(picture)) > 0, np.kron(places, picture), blank)


_SOURCES: tuple[tuple[str, float, Callable[[Scene, Array], Grid | None]], ...] = (
    ("a cell of their colour", 0.0, _one_cell),
    ("their picture", 0.5, _common_picture),
    ("the grid", 0.5, _whole),
)
Layout = Callable[[Grid, int, np.int8], Array]
_LAYOUTS: tuple[tuple[str, float, Layout], ...] = (
    ("in a row", 0.0, lambda picture, n, blank: np.tile(picture, (1, n))),
    ("in a column", 0.0, lambda picture, n, blank: np.tile(picture, (n, 1))),
    ("along the diagonal", 0.3, _diagonal),
    ("along the other diagonal", 0.5, partial(_diagonal, other=True)),
    ("in a square", 0.3, lambda picture, n, blank: np.tile(picture, (n, n))),
    ("enlarged", 0.5, lambda picture, n, blank: np.kron(picture, np.ones((n, n), np.int8))),
)


# --- Bars --------------------------------------------------------------------------------------------------------------------------------

# The lengths of bars, and whether there is one bar for each colour instead of one for each object.
_MEASURES = (("area", False), ("height", False), ("width", False), ("of its colour", True), ("cells of its colour", True))


def _bars(task: Task, segmentation: Segmentation, parts: Parts, values: list[dict[str, Array]], budget: Budget) -> Iterator[EvaluatedRule]:
    """A bar for each part or for each of their colours, as long as a trait of it, in an order, from one edge of the output."""
    scenes, pairs = segmentation.scenes, len(task.train)
    if all(len(row) < 2 for row in parts.chosen[:pairs]):
        return
    for measure, once in _MEASURES:
        lengths = [value[measure] for value in values]
        unordered = [_bar_list(scenes[k], parts.chosen[k], lengths[k], once) for k in range(pairs)]
        if all(n == 1 for bars in unordered for _, n in bars):
            continue  # a list of colours, see objects/summary.py
        painted = [sum(n for _, n in bars) for bars in unordered]
        if any((pair.output != scene.blank).sum() != n for pair, scene, n in zip(task.train, scenes, painted, strict=False)):
            continue
        for order, order_cost, ordered in _orders(values, parts):
            lists = _bar_lists(scenes, ordered, lengths, once)
            for frame, sizes in _frames(task):
                for axis in (0, 1):
                    for far in range(8):

                        def draw(k: int, lists: Bars = lists, sizes: Sizes = sizes, axis: int = axis, far: int = far) -> Grid | None:
                            return _draw(lists(k), sizes[k], axis, far, scenes[k].blank)

                        text = f"bars as long as {measure} of {parts.text} {order} {_places(axis, far)}{frame}"
                        yield from _evaluated(task, parts, text, 4.0 + parts.cost + order_cost + 0.1 * far, draw, budget)


def _places(axis: int, far: int) -> str:
    return f"{_EDGES[axis][far & 1]}{', reversed' * (far >> 1 & 1)}{', at the end' * (far >> 2)}"


_EDGES = (
    ("from the top", "from the bottom"),
    ("from the left", "from the right"),
)


Bars = Callable[[int], list[tuple[int, int]]]  # those of a scene
Sizes = list[tuple[int, int] | None]  # of the outputs of all scenes


def _bar_lists(scenes: tuple[Scene, ...], ordered: Order, lengths: list[Array], once: bool) -> Bars:
    return cache(lambda k: _bar_list(scenes[k], ordered(k), lengths[k], once))


def _frames(task: Task) -> list[tuple[str, Sizes]]:
    """Sizes of all outputs: just as large as the bars, as the input, or always the same."""
    grids = inputs_of(task)
    found: list[tuple[str, Sizes]] = []
    shapes = {pair.output.shape for pair in task.train}
    if keeps_size(task):
        return [(" in the grid", [(g.shape[0], g.shape[1]) for g in grids])]
    found.append(("", [None] * len(grids)))
    if len(shapes) == 1:
        height, width = shapes.pop()
        found.append((" in a frame", [(height, width)] * len(grids)))
    return found


def _bar_list(scene: Scene, row: Array, length: Array, once: bool) -> list[tuple[int, int]]:
    """(Colour, length) of each bar; `once`: of the first object of each colour."""
    bars = [(scene.objects[k].colour, int(length[k])) for k in row]
    return list({colour: (colour, n) for colour, n in bars[::-1]}.values())[::-1] if once else bars


def _draw(bars: list[tuple[int, int]], size: tuple[int, int] | None, axis: int, far: int, blank: np.int8) -> Grid | None:
    """Bars along an axis (0: columns); `far` & 1: from the far edge, & 2: the last bar first, & 4: no bar behind the last."""
    longest = max((n for _, n in bars), default=0)
    along, across = (size[axis], size[1 - axis]) if size else (longest, len(bars))
    if not bars or longest > along or len(bars) > across or max(along, across) > MAX_SIDE:
        return None
    out = np.full((across, along), blank, np.int8)
    first = across - len(bars) if far & 4 else 0
    for k, (colour, n) in enumerate(bars[::-1] if far & 2 else bars):
        out[k + first, along - n if far & 1 else 0 : along if far & 1 else n] = colour
    return frozen(out.T if axis == 0 else out)
