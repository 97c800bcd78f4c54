"""Actions: the possible changes of one object: recolour, move, turn or delete it, draw from it, fill in and around it.

An action depends only on the input's scene, so that its effects on all objects can be computed before any rule is chosen. This module does
not know outputs, except for the kinds of change between input and output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.grid_tools import label_objects, rarest_index
from arc_submit.search.jit import jit
from arc_submit.search.primitives.region import enclosed
from arc_submit.search.solvers.objects.scenes import Object, Scene
from arc_submit.search.store import Array


class Effect(NamedTuple):
    """The changes of a grid by an action; cells are indices in reading order.

    Attributes:
        erased: int64, cells that become background unless they are painted.
        painted: int64, cells that are painted, without duplicates.
        colours: int8, their new colours.
    """

    erased: Array
    painted: Array
    colours: Array


@dataclass(frozen=True)
class Action:
    """A named change of one object; `run(scene, k)` returns its effect on object k, or None where it is impossible."""

    name: str
    cost: float
    run: Callable[[Scene, int], Effect | None]


@dataclass(frozen=True)
class Changes:
    """The kinds of change between inputs and outputs of a task; actions that make no such change are not tried.

    Attributes:
        erases: some cell becomes background.
        draws: some background cell becomes something else.
        recolours: some painted cell becomes another colour.
        colours: the colours of changed cells in the outputs, without the background.
    """

    erases: bool
    draws: bool
    recolours: bool
    colours: tuple[int, ...]


class Painter(NamedTuple):
    """A named choice of a colour for an object; `colour_of(scene, k)` is None where it does not apply."""

    name: str
    cost: float
    colour_of: Callable[[Scene, int], int | None]


Cells = Callable[[Scene, int], Array]


@dataclass(frozen=True)
class Painting:
    """The effect of painting an object's cells, or some around it, in one colour; None where the painter does not apply.

    Equal choices of cells have equal `cells_of`, so that what the outputs show there is looked up once for all painters.
    """

    cells_of: Cells
    painter: Painter

    def __call__(self, scene: Scene, k: int) -> Effect | None:
        colour = self.painter.colour_of(scene, k)
        if colour is None:
            return None
        cells = self.cells_of(scene, k)
        return Effect(NONE, cells, np.full(len(cells), colour, np.int8))


Turn = Callable[[Array], Array]
Step = tuple[int, int]  # rows, columns
NONE = np.zeros(0, np.int64)
_DRAWN_WITH = ("its colour", "its rarest colour", "the colour nearest to it", "the colour of what its box holds")
UP, DOWN, LEFT, RIGHT = (-1, 0), (1, 0), (0, -1), (0, 1)
SIDES = {"up": UP, "down": DOWN, "left": LEFT, "right": RIGHT}
CORNERS = {"up-left": (-1, -1), "up-right": (-1, 1), "down-left": (1, -1), "down-right": (1, 1)}
DIRECTIONS = {**SIDES, **CORNERS}
# Sets of directions to draw in, the plainest first.
_FANS: dict[str, tuple[Step, ...]] = {
    **{name: (step,) for name, step in SIDES.items()},
    "left and right": (LEFT, RIGHT),
    "up and down": (UP, DOWN),
    "to all sides": tuple(SIDES.values()),
    **{name: (step,) for name, step in CORNERS.items()},
    "to all corners": tuple(CORNERS.values()),
    "all ways": tuple(DIRECTIONS.values()),
    "up-left and down-right": ((-1, -1), (1, 1)),
    "up-right and down-left": ((-1, 1), (1, -1)),
}
# The behaviour of a ray at the first painted cell of another object; REACH_COLOUR + c draws only rays that meet colour c.
THROUGH, STOP, OVER, REACH, REACH_LIKE, REACH_EDGE, REACH_COLOUR = range(7)
_RAYS = (
    ("rays", 0.0, STOP), ("rays behind others", 0.5, THROUGH), ("rays over others", 0.5, OVER), ("links", 0.3, REACH),
    ("links to its like", 0.3, REACH_LIKE), ("rays where the edge is reached", 1.0, REACH_EDGE),
)  # fmt: skip
_ORIGINS = (("it", 0.0), ("its middle", 0.5), ("its corner", 0.7))
_TURNS: tuple[tuple[str, Turn], ...] = (
    ("mirror left-right", lambda a: a[:, ::-1]),
    ("mirror up-down", lambda a: a[::-1]),
    ("half turn", lambda a: a[::-1, ::-1]),
    ("transpose", lambda a: a.T),
    ("quarter turn", lambda a: np.rot90(a, -1)),
    ("quarter turn back", lambda a: np.rot90(a)),
)


@lru_cache(maxsize=8)  # the segmentations of a task mostly have the same changes
def library(changes: Changes) -> tuple[Action, ...]:
    """All actions that can make such changes, the plainest first."""
    painters = list(_painters(changes))
    drawing = [p for p in painters if p.name in _DRAWN_WITH or p.name.isdigit()]
    out: list[Action] = []
    if changes.recolours or changes.draws:
        out += [Action(f"recolour to {p.name}", 1.0 + p.cost, Painting(own, p)) for p in painters]
    if changes.erases:
        out.append(Action("delete", 1.0, lambda scene, k: Effect(own(scene, k), NONE, NONE)))
        out += _move_actions()
        out += [Action(f"{name} in its place", 3.0, partial(_turn, turn=turn)) for name, turn in _TURNS]
    if changes.recolours:
        out.append(Action("swap its two colours", 3.0, _swap))
    out += _fill_actions(drawing)
    if changes.draws:
        out += _draw_actions(drawing)
        out += _link_actions([p for p in painters if p.name == "its colour" or p.name.isdigit()])
        out += _copy_actions()
    return tuple(out)


# --- Effects -----------------------------------------------------------------------------------------------------------------------------


def own(scene: Scene, k: int) -> Array:
    """The cells of an object."""
    o = scene.objects[k]
    return scene.cell_numbers(o.rows, o.columns)


def painted_at(scene: Scene, rows: Array, columns: Array, colours: Array, erased: Array = NONE) -> Effect:
    """The effect that paints places, without those outside the grid."""
    inside = scene.inside(rows, columns)
    return Effect(erased, scene.cell_numbers(rows[inside], columns[inside]), colours[inside])


def _picture_at(scene: Scene, picture: Array, top: int, left: int, erased: Array = NONE) -> Effect:
    ys, xs = np.nonzero(picture >= 0)
    return painted_at(scene, ys + top, xs + left, picture[ys, xs], erased)


def on_background(scene: Scene, effect: Effect) -> Effect:
    """An effect that paints only background cells."""
    free = scene.grid.ravel()[effect.painted] == scene.background
    return Effect(effect.erased, effect.painted[free], effect.colours[free])


# --- Colours to paint with ---------------------------------------------------------------------------------------------------------------


def _painters(changes: Changes) -> Iterator[Painter]:
    yield Painter("its colour", 0.0, lambda scene, k: scene.objects[k].colour)
    for colour in changes.colours:
        yield Painter(f"{colour}", 0.0, partial(_constant, colour=colour))
    yield Painter("its rarest colour", 0.5, lambda scene, k: scene.objects[k].rarest)
    yield Painter("the colour of what it touches", 1.5, _colour_of_touched)
    yield Painter("the colour nearest to it", 1.5, _colour_of_nearest)
    yield Painter("the colour of what its box holds", 1.5, _colour_within)
    yield Painter("the colour of what lies around it", 1.5, _colour_around)
    yield Painter("the colour of its shape elsewhere", 2.0, _colour_of_its_shape)
    yield Painter("the colour of the largest", 2.0, partial(_colour_of_extreme, extreme=max))
    yield Painter("the colour of the smallest", 2.0, partial(_colour_of_extreme, extreme=min))
    yield Painter("the colour after its own in a pair", 2.0, partial(_colour_of_partner, after=True))
    yield Painter("the colour before its own in a pair", 2.0, partial(_colour_of_partner, after=False))
    for name, (dy, dx) in SIDES.items():
        yield Painter(f"the colour seen {name}", 2.0, partial(_colour_seen, dy=dy, dx=dx))
    yield Painter("the colour of the upper left corner", 3.0, lambda scene, k: int(scene.grid[0, 0]))
    yield Painter("the commonest colour painted", 3.0, partial(_commonest_painted, rarest=False))
    yield Painter("the rarest colour painted", 3.0, partial(_commonest_painted, rarest=True))


def _constant(scene: Scene, k: int, colour: int) -> int:
    return colour


def _only(colours: set[int]) -> int | None:
    return colours.pop() if len(colours) == 1 else None


def _colour_of_extreme(scene: Scene, k: int, extreme: Callable[[list[int]], int]) -> int | None:
    """The colour of the one largest or smallest object, where that is another one."""
    areas = [o.area for o in scene.objects]
    best = extreme(areas)
    return None if areas.count(best) > 1 or areas[k] == best else scene.objects[areas.index(best)].colour


def _other_colour(scene: Scene, k: int, rows: Array, columns: Array) -> int | None:
    """The only colour at some places besides the object and the background."""
    inside = scene.inside(rows, columns)
    places = rows[inside], columns[inside]
    return _only(set(scene.grid[places][scene.labels[places] != k].tolist()) - {scene.background})


def _colour_of_touched(scene: Scene, k: int) -> int | None:
    return _other_colour(scene, k, *_shifted(scene.objects[k], DIRECTIONS))


def _shifted(o: Object, directions: dict[str, Step]) -> tuple[Array, Array]:
    """The places one step from an object's cells."""
    rows, columns = ([cells + step[axis] for step in directions.values()] for axis, cells in enumerate((o.rows, o.columns)))
    return np.concatenate(rows), np.concatenate(columns)


def gaps_between(scene: Scene) -> Array:
    """int64 (objects, objects): the distance between the boxes of two objects, rows plus columns."""

    def compute() -> Array:
        box = np.array([(o.top, o.left, o.bottom, o.right) for o in scene.objects])
        down = np.maximum(box[:, None, 0] - box[None, :, 2], box[None, :, 0] - box[:, None, 2])
        across = np.maximum(box[:, None, 1] - box[None, :, 3], box[None, :, 1] - box[:, None, 3])
        return np.asarray(np.maximum(down, 0) + np.maximum(across, 0))

    return scene.cached("gaps", compute)


def _colour_of_nearest(scene: Scene, k: int) -> int | None:
    """The colour of the nearest objects of another colour."""
    colours = np.array([o.colour for o in scene.objects])
    gaps = gaps_between(scene)[k][colours != colours[k]]
    nearest = colours[colours != colours[k]][gaps == gaps.min()] if gaps.size else gaps
    return _only(set(nearest.tolist()))


def _colour_within(scene: Scene, k: int) -> int | None:
    box = scene.objects[k].box
    return _only(set(scene.grid[box][scene.labels[box] != k].tolist()) - {scene.background})


def _colour_around(scene: Scene, k: int) -> int | None:
    """The colour of the smallest object whose box contains this object's."""
    o = scene.objects[k]
    holders = [
        p
        for j, p in enumerate(scene.objects)
        if j != k and p.top <= o.top and p.left <= o.left and p.bottom >= o.bottom and p.right >= o.right
    ]
    return min(holders, key=lambda p: p.height * p.width).colour if holders else None


def _colour_of_its_shape(scene: Scene, k: int) -> int | None:
    o = scene.objects[k]
    colours = {p.colour for p in scene.objects if p.mask.shape == o.mask.shape and (p.mask == o.mask).all()}
    return _only(colours - {o.colour})


def _colour_seen(scene: Scene, k: int, dy: int, dx: int) -> int | None:
    """The colour of the first cell that the object meets when it moves in a direction."""
    steps, met = _slide(scene, k, dy, dx)
    if met < 0:
        return None
    o = scene.objects[k]
    return _other_colour(scene, k, o.rows + dy * (steps + 1), o.columns + dx * (steps + 1))


def _colour_of_partner(scene: Scene, k: int, after: bool) -> int | None:
    """The colour beside the object's colour in isolated pairs of cells."""

    def pairs_of_cells() -> Array:
        labels, count = label_objects(scene.grid, scene.background, True, False)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        ys, xs = np.nonzero((sizes[labels] == 2) & (labels > 0))
        order = np.argsort(labels[ys, xs], kind="stable")
        return scene.grid[ys, xs][order].reshape(-1, 2)

    pairs = scene.cached("pairs", pairs_of_cells)
    colour = scene.objects[k].colour
    return _only({int(c) for c in pairs[pairs[:, 1 - after] == colour, int(after)]} - {colour})


def _commonest_painted(scene: Scene, k: int, rarest: bool) -> int | None:
    counts = np.bincount(scene.grid.ravel(), minlength=COLOURS + 1)
    counts[scene.background] = 0
    if not counts.any():
        return None
    return int(rarest_index(counts) if rarest else counts.argmax())


def _swap(scene: Scene, k: int) -> Effect | None:
    values = scene.objects[k].values
    if scene.objects[k].colour_count != 2:
        return None
    # Not the commonest and the rarest colour: those are the same one where both have as many cells.
    return Effect(NONE, own(scene, k), (values.min() + values.max() - values).astype(np.int8))


# --- Moving and turning ----------------------------------------------------------------------------------------------------------------


def _move_actions() -> Iterator[Action]:
    for name, (dy, dx) in DIRECTIONS.items():
        cost = 2.0 if name in SIDES else 2.5
        yield Action(f"move {name} as far as it goes", cost, partial(_move_until_stopped, dy=dy, dx=dx, needs_object=False))
        yield Action(f"move {name} to what it meets", cost, partial(_move_until_stopped, dy=dy, dx=dx, needs_object=True))
    for distance in range(1, 11):
        for name, (dy, dx) in DIRECTIONS.items():
            yield Action(f"move {name} by {distance}", 2.0, partial(_move, dy=dy * distance, dx=dx * distance))
    for name, (dy, dx) in DIRECTIONS.items():
        yield Action(f"move {name} by its size", 2.5, partial(_move_by_size, dy=dy, dx=dx))
    for name, select in (("nearest", _select_nearest), ("largest", _select_largest), ("of its colour", _select_like)):
        yield Action(f"move to the {name} in line with it", 2.5, partial(_move_towards, select=select))
    for name, (dy, dx) in SIDES.items():
        yield Action(f"fall {name}", 2.2, partial(_fall, dy=dy, dx=dx))


def _move(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    """The object moved; cells that leave the grid are lost."""
    o = scene.objects[k]
    return painted_at(scene, o.rows + dy, o.columns + dx, o.values, own(scene, k))


def _slide(scene: Scene, k: int, dy: int, dx: int) -> tuple[int, int]:
    """The steps that an object can move in a direction, and the index of the object that stops it: -1 for the edge, -2 for no object."""

    def all_slides() -> Array:
        return np.array([
            _free_steps(scene.grid, scene.labels, j, o.rows, o.columns, dy, dx, scene.background) for j, o in enumerate(scene.objects)
        ])  # fmt: skip

    steps, met = scene.cached(f"slide {dy} {dx}", all_slides)[k]
    return int(steps), int(met)


@jit
def _free_steps(grid: Array, labels: Array, k: int, rows: Array, columns: Array, dy: int, dx: int, background: int) -> tuple[int, int]:
    h, w = grid.shape
    steps = 0
    while True:
        for r in range(rows.size):
            y, x = rows[r] + dy * (steps + 1), columns[r] + dx * (steps + 1)
            if y < 0 or y >= h or x < 0 or x >= w:
                return steps, -1
            if labels[y, x] != k and grid[y, x] != background:
                return steps, labels[y, x] if labels[y, x] >= 0 else -2
        steps += 1


def _move_by_size(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    o = scene.objects[k]
    return _move(scene, k, dy * o.height, dx * o.width)


def _move_until_stopped(scene: Scene, k: int, dy: int, dx: int, needs_object: bool) -> Effect | None:
    steps, met = _slide(scene, k, dy, dx)
    return None if needs_object and met == -1 else _move(scene, k, dy * steps, dx * steps)


class _Contact(NamedTuple):
    """The object that another one meets in a direction, and the free steps between them."""

    steps: int
    object: int
    step: Step


def _select_nearest(scene: Scene, k: int, contacts: list[_Contact]) -> list[_Contact]:
    return [c for c in contacts if c.steps == min(d.steps for d in contacts)]


def _select_largest(scene: Scene, k: int, contacts: list[_Contact]) -> list[_Contact]:
    areas = [scene.objects[c.object].area for c in contacts]
    return [c for c, area in zip(contacts, areas, strict=True) if area == max(areas) > scene.objects[k].area]


def _select_like(scene: Scene, k: int, contacts: list[_Contact]) -> list[_Contact]:
    return [c for c in contacts if scene.objects[c.object].colour == scene.objects[k].colour]


def _move_towards(scene: Scene, k: int, select: Callable[[Scene, int, list[_Contact]], list[_Contact]]) -> Effect | None:
    contacts = [_Contact(*_slide(scene, k, dy, dx), (dy, dx)) for dy, dx in SIDES.values()]
    selected = select(scene, k, [c for c in contacts if c.object >= 0])
    if len(selected) != 1:
        return None
    steps, (dy, dx) = selected[0].steps, selected[0].step
    return _move(scene, k, dy * steps, dx * steps)


def _fall(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    """The object at its final place when all objects fall together."""

    def falls() -> Array:
        moved = np.zeros(len(scene.objects), np.int64)
        grid, labels = scene.grid.copy(), scene.labels.copy()
        front = [dy * (o.bottom if dy > 0 else o.top) + dx * (o.right if dx > 0 else o.left) for o in scene.objects]
        # The foremost objects fall first; the second round moves those that others blocked in the first.
        for _ in range(2):
            for j in sorted(range(len(front)), key=lambda j: -front[j]):
                o = scene.objects[j]
                ys, xs = o.rows + dy * moved[j], o.columns + dx * moved[j]
                steps, _ = _free_steps(grid, labels, j, ys, xs, dy, dx, scene.background)
                grid[ys, xs], labels[ys, xs] = scene.background, -1
                grid[ys + dy * steps, xs + dx * steps], labels[ys + dy * steps, xs + dx * steps] = o.values, j
                moved[j] += steps
        return moved

    steps = int(scene.cached(f"fall {dy} {dx}", falls)[k])
    return _move(scene, k, dy * steps, dx * steps)


def _turn(scene: Scene, k: int, turn: Turn) -> Effect | None:
    o = scene.objects[k]
    picture = turn(o.picture)
    return _picture_at(scene, picture, o.top, o.left, own(scene, k)) if picture.shape == o.picture.shape else None


# --- Drawing ---------------------------------------------------------------------------------------------------------------------------


def _fill_actions(painters: list[Painter]) -> Iterator[Action]:
    for painter in painters:
        for name, cost, cells_of in AREAS:
            run = Painting(cells_of, painter)
            yield Action(f"fill {name} with {painter.name}", 1.5 + cost + painter.cost, run)


def _draw_actions(painters: list[Painter]) -> Iterator[Action]:
    for painter in painters:
        for name, cells_of in _POINTED_RAYS:
            run = Painting(cells_of, painter)
            yield Action(f"ray {name} its odd cell in {painter.name}", 2.5 + painter.cost, run)
        for mode_name, mode_cost, mode in _RAYS:
            for number, (fan_name, fan) in enumerate(_FANS.items()):
                for origin, origin_cost in _ORIGINS:
                    run = Painting(Rays(fan, mode, origin), painter)
                    cost = 1.5 + mode_cost + origin_cost + painter.cost + 0.05 * number
                    yield Action(f"{mode_name} {fan_name} from {origin} in {painter.name}", cost, run)


def _link_actions(painters: list[Painter]) -> Iterator[Action]:
    """Rays that reach a certain colour, in the object's own or in a fixed colour."""
    for target in range(COLOURS):
        for number, (fan_name, fan) in enumerate(_FANS.items()):
            if len(fan) > 1:
                cells_of = Rays(fan, REACH_COLOUR + target, "it")
                for painter in painters:
                    run = Painting(cells_of, painter)
                    yield Action(f"links {fan_name} to {target} in {painter.name}", 2.5 + 0.05 * number, run)


def _pointed_ray(scene: Scene, k: int, sign: int) -> Array:
    """The cells of a ray from the middle of the object towards its odd cell, or away from it, without its own."""
    o = scene.objects[k]
    odd = o.values == o.rarest
    if o.colour == o.rarest:
        return NONE
    y = 2 * int(o.rows[odd].sum()) - int(odd.sum()) * (2 * o.top + o.height - 1)
    x = 2 * int(o.columns[odd].sum()) - int(odd.sum()) * (2 * o.left + o.width - 1)
    if x == 0 and y == 0:
        return NONE
    return np.unique(_rays_one_way(scene, k, (sign * int(np.sign(y)), sign * int(np.sign(x))), STOP, "its middle"))


_POINTED_RAYS = (("towards", partial(_pointed_ray, sign=1)), ("away from", partial(_pointed_ray, sign=-1)))


@dataclass(frozen=True)
class Rays:
    """The cells of rays from an object, without its own."""

    fan: tuple[Step, ...]
    mode: int
    origin: str

    def __call__(self, scene: Scene, k: int) -> Array:
        def cast() -> Array:
            covered = np.zeros(scene.grid.size, np.bool_)
            for step in self.fan:
                covered[_rays_one_way(scene, k, step, self.mode, self.origin)] = True
            return np.flatnonzero(covered)

        return scene.cached((self, k), cast)


def _rays_one_way(scene: Scene, k: int, step: Step, mode: int, origin: str) -> Array:
    def cast() -> Array:
        o = scene.objects[k]
        ys, xs = o.rows, o.columns
        if origin == "its middle":
            ys = np.unique([o.top + (o.height - 1) // 2, o.top + o.height // 2])
            xs = np.unique([o.left + (o.width - 1) // 2, o.left + o.width // 2])
            ys, xs = np.repeat(ys, len(xs)), np.tile(xs, len(ys))
        elif origin == "its corner":
            ys = np.array([o.bottom - 1 if step[0] > 0 else o.top])
            xs = np.array([o.right - 1 if step[1] > 0 else o.left])
        out = np.empty(scene.grid.size * 2, np.int64)
        count = _cast_rays(scene.grid, scene.labels, k, ys, xs, step[0], step[1], mode, scene.background, o.colour, out)
        return out[:count].copy()

    return scene.cached(("one way", step, mode, origin, k), cast)


@jit
def _cast_rays(
    grid: Array, labels: Array, k: int, rows: Array, columns: Array, dy: int, dx: int, mode: int, background: int, colour: int, out: Array
) -> int:
    """Write the cells of the rays that start at some cells into `out`; returns their number."""
    h, w = grid.shape
    count = 0
    for r in range(rows.size):
        y, x = rows[r] + dy, columns[r] + dx
        if 0 <= y < h and 0 <= x < w and labels[y, x] == k:
            continue
        begin = count
        met = -1
        while 0 <= y < h and 0 <= x < w and count < out.size:
            if grid[y, x] == background or mode == OVER:
                if labels[y, x] != k or mode != OVER:
                    out[count] = y * w + x
                    count += 1
            elif mode != THROUGH:
                met = grid[y, x]
                break
            y += dy
            x += dx
        if (
            (mode == REACH and met < 0)
            or (mode == REACH_LIKE and met != colour)
            or (mode == REACH_EDGE and met >= 0)
            or (mode >= REACH_COLOUR and met != mode - REACH_COLOUR)
        ):
            count = begin
    return count


# --- Areas to fill -----------------------------------------------------------------------------------------------------------------------


def _background_cells(scene: Scene, rows: Array, columns: Array) -> Array:
    inside = scene.inside(rows, columns)
    rows, columns = rows[inside], columns[inside]
    return np.asarray(scene.cell_numbers(rows, columns)[scene.grid[rows, columns] == scene.background])


def _box_fill(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    ys, xs = np.indices((o.height, o.width))
    return _background_cells(scene, ys.ravel() + o.top, xs.ravel() + o.left)


def _holes(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    ys, xs = np.nonzero(enclosed(o.mask.astype(np.int8), False))
    return _background_cells(scene, ys + o.top, xs + o.left)


def _outline(scene: Scene, k: int) -> Array:
    """The frame one cell outside the box."""
    o = scene.objects[k]
    ys, xs = np.indices((o.height + 2, o.width + 2))
    frame = (ys == 0) | (ys == o.height + 1) | (xs == 0) | (xs == o.width + 1)
    return _background_cells(scene, ys[frame] + o.top - 1, xs[frame] + o.left - 1)


def _outline_corners(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    rows, columns = np.array([o.top - 1, o.bottom]), np.array([o.left - 1, o.right])
    return _background_cells(scene, np.repeat(rows, 2), np.tile(columns, 2))


def _touching(scene: Scene, k: int, directions: dict[str, Step]) -> Array:
    """Background cells beside the object."""
    return np.unique(_background_cells(scene, *_shifted(scene.objects[k], directions)))


def _own_where(scene: Scene, k: int, condition: Callable[[Object], Array]) -> Array:
    return own(scene, k)[condition(scene.objects[k])]


def _rim_depth(o: Object) -> Array:
    """The distance of the object's cells from the rim of its box."""
    y, x = o.rows - o.top, o.columns - o.left
    return np.asarray(np.minimum(np.minimum(y, o.height - 1 - y), np.minimum(x, o.width - 1 - x)))


def _at_corner(o: Object) -> Array:
    return np.asarray(np.isin(o.rows, (o.top, o.bottom - 1)) & np.isin(o.columns, (o.left, o.right - 1)))


def _in_middle(o: Object) -> Array:
    near_row, near_column = np.abs(2 * o.rows - o.top - o.bottom + 1) <= 1, np.abs(2 * o.columns - o.left - o.right + 1) <= 1
    return np.asarray(near_row & near_column)


def _checkered(o: Object) -> Array:
    return np.asarray((o.rows - o.top + o.columns - o.left) % 2)


AREAS: tuple[tuple[str, float, Cells], ...] = (
    ("its box", 0.0, _box_fill),
    ("its holes", 0.0, _holes),
    ("the frame around it", 0.3, _outline),
    ("what touches it", 0.3, partial(_touching, directions=DIRECTIONS)),
    ("what touches its sides", 0.3, partial(_touching, directions=SIDES)),
    ("the corners around it", 0.8, _outline_corners),
    ("its inside", 0.5, partial(_own_where, condition=lambda o: _rim_depth(o) >= 1)),
    ("its rim", 0.5, partial(_own_where, condition=lambda o: _rim_depth(o) == 0)),
    ("its corners", 0.8, partial(_own_where, condition=_at_corner)),
    ("its middle", 0.8, partial(_own_where, condition=_in_middle)),
    ("every other cell", 1.0, partial(_own_where, condition=lambda o: _checkered(o) == 0)),
    ("every other cell, from the second", 1.0, partial(_own_where, condition=lambda o: _checkered(o) == 1)),
    ("every other ring", 1.0, partial(_own_where, condition=lambda o: _rim_depth(o) % 2 == 0)),
    ("every other ring, from the second", 1.0, partial(_own_where, condition=lambda o: _rim_depth(o) % 2 == 1)),
)


# --- Copies ------------------------------------------------------------------------------------------------------------------------------


def _copy_actions() -> Iterator[Action]:
    for name, step in DIRECTIONS.items():
        yield Action(f"copy it next to itself {name}", 2.5, partial(_copy, steps=(step,), times=1))
        yield Action(f"copy it again and again {name}", 2.5, partial(_copy, steps=(step,), times=30))
    yield Action("copy it next to itself on all sides", 2.5, partial(_copy, steps=tuple(SIDES.values()), times=1))
    yield Action("copy it next to itself all around", 2.5, partial(_copy, steps=tuple(DIRECTIONS.values()), times=1))
    for name, step in DIRECTIONS.items():
        yield Action(f"copy it again and again {name} with gaps", 3.0, partial(_copy, steps=(step,), times=30, gap=1))
        yield Action(f"mirror it next to itself {name}", 2.5, partial(_mirror_beside, step=step))
    for name, turn in _TURNS:
        yield Action(f"add its {name} in its box", 2.5, partial(_add_turned, turn=turn))
    yield Action("complete its mirror images in its box", 2.5, partial(_symmetrise, quarter_turns=False))
    yield Action("complete its quarter turns in its box", 2.5, partial(_symmetrise, quarter_turns=True))


def _copy(scene: Scene, k: int, steps: tuple[Step, ...], times: int, gap: int = 0) -> Effect:
    o = scene.objects[k]
    parts = []
    for dy, dx in steps:
        for number in range(1, times + 1):
            rows, columns = o.rows + dy * number * (o.height + gap), o.columns + dx * number * (o.width + gap)
            parts.append(painted_at(scene, rows, columns, o.values))
            if not len(parts[-1].painted):
                break
    return on_background(scene, Effect(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))))


def _mirror_beside(scene: Scene, k: int, step: Step) -> Effect:
    o, (dy, dx) = scene.objects[k], step
    picture = o.picture[:: -1 if dy else 1, :: -1 if dx else 1]
    return on_background(scene, _picture_at(scene, picture, o.top + dy * o.height, o.left + dx * o.width))


def _add_turned(scene: Scene, k: int, turn: Turn) -> Effect | None:
    o = scene.objects[k]
    picture = turn(o.picture)
    return on_background(scene, _picture_at(scene, picture, o.top, o.left)) if picture.shape == o.picture.shape else None


def _symmetrise(scene: Scene, k: int, quarter_turns: bool) -> Effect | None:
    o = scene.objects[k]
    if quarter_turns and o.height != o.width:
        return None
    a = o.picture
    turned = [np.rot90(a, n) for n in range(4)] if quarter_turns else [a, a[::-1], a[:, ::-1], a[::-1, ::-1]]
    return on_background(scene, _picture_at(scene, np.maximum.reduce(turned), o.top, o.left))
