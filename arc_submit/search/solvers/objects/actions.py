"""Actions: what a rule can do with one object: recolour, move, turn or delete it, draw from it, fill in and around it.

An action looks only at the input's scene, so that the effects on all objects can be worked out before any rule is chosen. Knows nothing
about outputs, except which kinds of change a caller says there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.jit import jit
from arc_submit.search.primitives.region import outside
from arc_submit.search.primitives.splitting import label
from arc_submit.search.solvers.objects.scenes import Object, Scene
from arc_submit.search.store import Array


class Effect(NamedTuple):
    """What an action does to a grid, cells as numbers in reading order.

    Attributes:
        erased: int64, cells that become background unless something is painted there.
        painted: int64, cells that are painted, each once.
        colours: int8, with which colours.
    """

    erased: Array
    painted: Array
    colours: Array


@dataclass(frozen=True)
class Action:
    """A named change to one object; `run(scene, k)` gives its effect on object k, or None where it cannot be done."""

    name: str
    cost: float
    run: Callable[[Scene, int], Effect | None]


@dataclass(frozen=True)
class Changes:
    """What the outputs of a task change about its inputs; actions that make no such change are not tried.

    Attributes:
        erases: somewhere a cell becomes background.
        draws: somewhere background becomes something else.
        recolours: somewhere a painted cell becomes another colour.
        colours: the colours of changed cells in the outputs, background left out.
    """

    erases: bool
    draws: bool
    recolours: bool
    colours: tuple[int, ...]


Cells = Callable[[Scene, int], Array]
Painter = tuple[str, float, Callable[[Scene, int], int | None]]
NONE = np.zeros(0, np.int64)
_DRAWN_WITH = ("its colour", "its rarest colour", "the colour nearest to it", "the colour of what its box holds")
UP, DOWN, LEFT, RIGHT = (-1, 0), (1, 0), (0, -1), (0, 1)
SIDES = {"up": UP, "down": DOWN, "left": LEFT, "right": RIGHT}
CORNERS = {"up-left": (-1, -1), "up-right": (-1, 1), "down-left": (1, -1), "down-right": (1, 1)}
DIRECTIONS = {**SIDES, **CORNERS}
# Sets of directions that rules draw in, the plainest first.
_FANS: dict[str, tuple[tuple[int, int], ...]] = {
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
# What a ray does at the first painted cell that is not its own object's.
THROUGH, STOP, OVER, REACH, REACH_LIKE, REACH_EDGE, REACH_COLOUR = range(7)  # REACH_COLOUR + c: only where colour c is met
_RAYS = (
    ("rays", 0.0, STOP), ("rays behind others", 0.5, THROUGH), ("rays over others", 0.5, OVER), ("links", 0.3, REACH),
    ("links to its like", 0.3, REACH_LIKE), ("rays where the edge is reached", 1.0, REACH_EDGE),
)  # fmt: skip


def library(changes: Changes) -> list[Action]:
    """All actions that could make such changes, the plainest first."""
    painters = list(_painters(changes))
    out: list[Action] = []
    if changes.recolours or changes.draws:
        out += _recolour(painters)
    if changes.erases:
        out.append(Action("delete", 1.0, lambda scene, k: Effect(own(scene, k), NONE, NONE)))
        out += list(_moves())
        out += list(_turns())
    if changes.recolours:
        out.append(Action("swap its two colours", 3.0, _swap))
    drawing = [p for p in painters if p[0] in _DRAWN_WITH or p[0].isdigit()]
    out += list(_fill(drawing))
    if changes.draws:
        out += list(_draw(drawing))
        out += list(_links(changes))
        out += list(_copies())
    return out


def own(scene: Scene, k: int) -> Array:
    """The cells of an object."""
    o = scene.objects[k]
    return np.asarray(o.rows * scene.grid.shape[1] + o.columns)


def _painted(scene: Scene, k: int, cells_of: Cells, painter: Callable[[Scene, int], int | None]) -> Effect | None:
    colour = painter(scene, k)
    if colour is None:
        return None
    cells = cells_of(scene, k)
    return Effect(NONE, cells, np.full(len(cells), colour, np.int8))


# --- Colours: what a rule may paint with ---------------------------------------------------------------------------------------------


def _painters(changes: Changes) -> Iterator[Painter]:
    yield "its colour", 0.0, lambda scene, k: scene.objects[k].colour
    for colour in changes.colours:
        yield f"{colour}", 0.0, partial(_always, colour=colour)
    yield "its rarest colour", 0.5, lambda scene, k: scene.objects[k].rarest
    yield "the colour of what it touches", 1.5, _colour_of_touched
    yield "the colour nearest to it", 1.5, _colour_of_nearest
    yield "the colour of what its box holds", 1.5, _colour_within
    yield "the colour of what lies around it", 1.5, _colour_around
    yield "the colour of its shape elsewhere", 2.0, _colour_of_its_shape
    yield "the colour of the largest", 2.0, lambda scene, k: _colour_of(scene, _largest(scene), k)
    yield "the colour of the smallest", 2.0, lambda scene, k: _colour_of(scene, _smallest(scene), k)
    yield "the colour after its own in a pair", 2.0, lambda scene, k: _partner(scene, k, True)
    yield "the colour before its own in a pair", 2.0, lambda scene, k: _partner(scene, k, False)
    for name, (dy, dx) in SIDES.items():
        yield f"the colour seen {name}", 2.0, partial(_colour_seen, dy=dy, dx=dx)
    yield "the colour of the upper left corner", 3.0, lambda scene, k: int(scene.grid[0, 0])
    yield "the commonest colour painted", 3.0, lambda scene, k: _commonest_painted(scene, False)
    yield "the rarest colour painted", 3.0, lambda scene, k: _commonest_painted(scene, True)


def _always(scene: Scene, k: int, colour: int) -> int:
    return colour


def _colour_of(scene: Scene, which: int | None, k: int) -> int | None:
    return None if which is None or which == k else scene.objects[which].colour


def _only(colours: set[int]) -> int | None:
    return colours.pop() if len(colours) == 1 else None


def _largest(scene: Scene) -> int | None:
    areas = [o.area for o in scene.objects]
    return areas.index(max(areas)) if areas.count(max(areas)) == 1 else None


def _smallest(scene: Scene) -> int | None:
    areas = [o.area for o in scene.objects]
    return areas.index(min(areas)) if areas.count(min(areas)) == 1 else None


def _colour_of_touched(scene: Scene, k: int) -> int | None:
    """The only colour beside an object, background apart."""
    h, w = scene.grid.shape
    o = scene.objects[k]
    colours = set()
    for dy, dx in DIRECTIONS.values():
        ys, xs = o.rows + dy, o.columns + dx
        inside = (ys >= 0) & (ys < h) & (xs >= 0) & (xs < w)
        ys, xs = ys[inside], xs[inside]
        colours.update(scene.grid[ys, xs][scene.labels[ys, xs] != k].tolist())
    return _only(colours - {scene.background})


def gaps_between(scene: Scene) -> Array:
    """int64 (objects, objects): how far the boxes of two objects are apart, in rows and columns together."""
    if "gaps" not in scene.notes:
        box = np.array([(o.top, o.left, o.top + o.height, o.left + o.width) for o in scene.objects])
        vertical = np.maximum(box[:, None, 0] - box[None, :, 2], box[None, :, 0] - box[:, None, 2])
        across = np.maximum(box[:, None, 1] - box[None, :, 3], box[None, :, 1] - box[:, None, 3])
        scene.notes["gaps"] = np.maximum(vertical, 0) + np.maximum(across, 0)
    return scene.notes["gaps"]


def _colour_of_nearest(scene: Scene, k: int) -> int | None:
    gaps = gaps_between(scene)[k].copy()
    colour = scene.objects[k].colour
    for j, other in enumerate(scene.objects):
        if other.colour == colour:
            gaps[j] = 10**6
    nearest = gaps.min()
    return None if nearest == 10**6 else _only({scene.objects[j].colour for j in np.flatnonzero(gaps == nearest)})


def _colour_within(scene: Scene, k: int) -> int | None:
    o = scene.objects[k]
    box = (slice(o.top, o.top + o.height), slice(o.left, o.left + o.width))
    return _only(set(scene.grid[box][scene.labels[box] != k].tolist()) - {scene.background})


def _colour_around(scene: Scene, k: int) -> int | None:
    """The colour of the smallest object whose box holds this object's."""
    o = scene.objects[k]
    holders = [
        p
        for j, p in enumerate(scene.objects)
        if j != k and p.top <= o.top and p.left <= o.left and p.top + p.height >= o.top + o.height and p.left + p.width >= o.left + o.width
    ]
    return min(holders, key=lambda p: p.height * p.width).colour if holders else None


def _colour_of_its_shape(scene: Scene, k: int) -> int | None:
    o = scene.objects[k]
    like = {p.colour for j, p in enumerate(scene.objects) if j != k and p.mask.shape == o.mask.shape and (p.mask == o.mask).all()}
    return _only(like - {o.colour})


def _colour_seen(scene: Scene, k: int, dy: int, dx: int) -> int | None:
    """The colour of the first cell met by the object moving that way."""
    steps, met = _slide(scene, k, dy, dx)
    if met < 0:
        return None
    o = scene.objects[k]
    ys, xs = o.rows + dy * (steps + 1), o.columns + dx * (steps + 1)
    inside = (ys >= 0) & (ys < scene.grid.shape[0]) & (xs >= 0) & (xs < scene.grid.shape[1])
    ys, xs = ys[inside], xs[inside]
    seen = scene.grid[ys, xs][scene.labels[ys, xs] != k]
    return _only(set(seen.tolist()) - {scene.background})


def _partner(scene: Scene, k: int, after: bool) -> int | None:
    """The colour that a pair of cells standing alone, side by side or one above the other, shows beside the object's colour."""
    if "pairs" not in scene.notes:
        labels, count = label(np.where(scene.grid == scene.background, 0, scene.grid + 1).astype(np.int8), True, False)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        ys, xs = np.nonzero((sizes[labels] == 2) & (labels > 0))
        order = np.argsort(labels[ys, xs], kind="stable")
        scene.notes["pairs"] = scene.grid[ys, xs][order].reshape(-1, 2)
    pairs = scene.notes["pairs"]
    mine, theirs = (0, 1) if after else (1, 0)
    colour = scene.objects[k].colour
    return _only({int(c) for c in pairs[pairs[:, mine] == colour, theirs]} - {colour})


def _commonest_painted(scene: Scene, rarest: bool) -> int | None:
    counts = np.bincount(scene.grid.ravel(), minlength=COLOURS + 1)
    counts[scene.background] = 0
    if not counts.any():
        return None
    return int(np.where(counts > 0, counts, 10**6).argmin()) if rarest else int(counts.argmax())


# --- Recolouring ---------------------------------------------------------------------------------------------------------------------


def _recolour(painters: list[Painter]) -> list[Action]:
    return [Action(f"recolour to {name}", 1.0 + cost, partial(_painted, cells_of=own, painter=p)) for name, cost, p in painters]


def _swap(scene: Scene, k: int) -> Effect | None:
    o = scene.objects[k]
    if (o.counts > 0).sum() != 2:
        return None
    return Effect(NONE, own(scene, k), (o.colour + o.rarest - o.values).astype(np.int8))


# --- Moving and turning ----------------------------------------------------------------------------------------------------------------


def _placed(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    """The object moved; what leaves the grid is lost."""
    h, w = scene.grid.shape
    o = scene.objects[k]
    ys, xs = o.rows + dy, o.columns + dx
    inside = (ys >= 0) & (ys < h) & (xs >= 0) & (xs < w)
    return Effect(own(scene, k), ys[inside] * w + xs[inside], o.values[inside])


def _slide(scene: Scene, k: int, dy: int, dx: int) -> tuple[int, int]:
    """How many steps an object can go that way, and which object stops it: its number, -1 for the edge, -2 for an unlabelled cell."""
    key = f"slide {dy} {dx}"
    if key not in scene.notes:
        found = [_steps(scene.grid, scene.labels, j, o.rows, o.columns, dy, dx, scene.background) for j, o in enumerate(scene.objects)]
        scene.notes[key] = np.array(found)
    steps, met = scene.notes[key][k]
    return int(steps), int(met)


@jit
def _steps(grid: Array, labels: Array, k: int, rows: Array, columns: Array, dy: int, dx: int, background: int) -> tuple[int, int]:
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


def _moves() -> Iterator[Action]:
    for name, (dy, dx) in DIRECTIONS.items():
        extra = 0.0 if dy == 0 or dx == 0 else 0.5
        yield Action(f"move {name} as far as it goes", 2.0 + extra, partial(_moved_on, dy=dy, dx=dx, needs_object=False))
        yield Action(f"move {name} to what it meets", 2.0 + extra, partial(_moved_on, dy=dy, dx=dx, needs_object=True))
    for distance in range(1, 11):
        for name, (dy, dx) in DIRECTIONS.items():
            yield Action(f"move {name} by {distance}", 2.0, partial(_placed, dy=dy * distance, dx=dx * distance))
    for name, (dy, dx) in DIRECTIONS.items():
        yield Action(f"move {name} by its size", 2.5, partial(_moved_by_size, dy=dy, dx=dx))
    for name, chosen in (("nearest", _nearest_met), ("largest", _largest_met), ("of its colour", _like_met)):
        yield Action(f"move to the {name} in line with it", 2.5, partial(_moved_towards, chosen=chosen))
    for name, (dy, dx) in SIDES.items():
        yield Action(f"fall {name}", 2.2, partial(_fallen, dy=dy, dx=dx))


def _moved_by_size(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    o = scene.objects[k]
    return _placed(scene, k, dy * o.height, dx * o.width)


def _moved_on(scene: Scene, k: int, dy: int, dx: int, needs_object: bool) -> Effect | None:
    steps, met = _slide(scene, k, dy, dx)
    return None if needs_object and met == -1 else _placed(scene, k, dy * steps, dx * steps)


Met = list[tuple[int, int, int, int]]  # (steps, object met, dy, dx)


def _nearest_met(scene: Scene, k: int, met: Met) -> Met:
    fewest = min(m[0] for m in met)
    return [m for m in met if m[0] == fewest]


def _largest_met(scene: Scene, k: int, met: Met) -> Met:
    most = max(scene.objects[m[1]].area for m in met)
    return [m for m in met if scene.objects[m[1]].area == most and most > scene.objects[k].area]


def _like_met(scene: Scene, k: int, met: Met) -> Met:
    return [m for m in met if scene.objects[m[1]].colour == scene.objects[k].colour]


def _moved_towards(scene: Scene, k: int, chosen: Callable[[Scene, int, Met], Met]) -> Effect | None:
    met = [(*_slide(scene, k, dy, dx), dy, dx) for dy, dx in SIDES.values()]
    met = [m for m in met if m[1] >= 0]
    met = chosen(scene, k, met) if met else []
    return _placed(scene, k, met[0][2] * met[0][0], met[0][3] * met[0][0]) if len(met) == 1 else None


def _fallen(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    """The object where it comes to rest when all objects fall together."""
    key = f"fallen {dy} {dx}"
    if key not in scene.notes:
        moved = np.zeros(len(scene.objects), np.int64)
        grid = scene.grid.copy()
        labels = scene.labels.copy()
        front = [dy * (o.top + (o.height if dy > 0 else 0)) + dx * (o.left + (o.width if dx > 0 else 0)) for o in scene.objects]
        # Whoever is in front falls first; a second round lets those move that were held up by others.
        for _ in range(2):
            for j in sorted(range(len(front)), key=lambda j: -front[j]):
                o = scene.objects[j]
                ys, xs = o.rows + dy * moved[j], o.columns + dx * moved[j]
                steps, _met = _steps(grid, labels, j, ys, xs, dy, dx, scene.background)
                grid[ys, xs], labels[ys, xs] = scene.background, -1
                grid[ys + dy * steps, xs + dx * steps], labels[ys + dy * steps, xs + dx * steps] = o.values, j
                moved[j] += steps
        scene.notes[key] = moved
    steps = int(scene.notes[key][k])
    return _placed(scene, k, dy * steps, dx * steps)


_TURNS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("mirror left-right", lambda a: a[:, ::-1]),
    ("mirror up-down", lambda a: a[::-1]),
    ("half turn", lambda a: a[::-1, ::-1]),
    ("transpose", lambda a: a.T),
    ("quarter turn", lambda a: np.rot90(a, -1)),
    ("quarter turn back", lambda a: np.rot90(a)),
)


def _turns() -> Iterator[Action]:
    for name, turn in _TURNS:
        yield Action(f"{name} in its place", 3.0, partial(_turned, turn=turn))


def _turned(scene: Scene, k: int, turn: Callable[[Array], Array]) -> Effect | None:
    o = scene.objects[k]
    picture = turn(o.picture)
    if picture.shape != o.picture.shape:
        return None
    ys, xs = np.nonzero(picture >= 0)
    return Effect(own(scene, k), (ys + o.top) * scene.grid.shape[1] + xs + o.left, picture[ys, xs])


# --- Drawing ---------------------------------------------------------------------------------------------------------------------------


def _fill(painters: list[Painter]) -> Iterator[Action]:
    for colour_name, colour_cost, painter in painters:
        for area_name, cost, cells_of in _AREAS:
            yield Action(
                f"fill {area_name} with {colour_name}",
                1.5 + cost + colour_cost,
                partial(_painted, cells_of=cells_of, painter=painter),
            )


def _draw(painters: list[Painter]) -> Iterator[Action]:
    for colour_name, colour_cost, painter in painters:
        for name, sign in (("towards", 1), ("away from", -1)):
            yield Action(
                f"ray {name} its odd cell in {colour_name}",
                2.5 + colour_cost,
                partial(_painted, cells_of=partial(_pointed, sign=sign), painter=painter),
            )
        for mode_name, mode_cost, mode in _RAYS:
            for number, (fan_name, fan) in enumerate(_FANS.items()):
                for origin_name, origin_cost, origin in _ORIGINS:
                    yield Action(
                        f"{mode_name} {fan_name} from {origin_name} in {colour_name}",
                        1.5 + mode_cost + origin_cost + colour_cost + 0.05 * number,
                        partial(_painted, cells_of=partial(rays, fan=fan, mode=mode, origin=origin), painter=painter),
                    )


def _pointed(scene: Scene, k: int, sign: int) -> Array:
    """The cells of a ray from the middle of the object towards its odd cell, or away from it, its own left out."""
    o = scene.objects[k]
    odd = o.values == o.rarest
    if o.colour == o.rarest:
        return NONE
    y = 2 * int(o.rows[odd].sum()) - int(odd.sum()) * (2 * o.top + o.height - 1)
    x = 2 * int(o.columns[odd].sum()) - int(odd.sum()) * (2 * o.left + o.width - 1)
    if x == 0 and y == 0:
        return NONE
    return np.unique(_one_way(scene, k, sign * int(np.sign(y)), sign * int(np.sign(x)), STOP, "its middle"))


def _links(changes: Changes) -> Iterator[Action]:
    """Links to what has a certain colour, in one's own or in a fixed colour."""
    painters: list[Painter] = [p for p in _painters(changes) if p[0] == "its colour" or p[0].isdigit()]
    for target in range(COLOURS):
        for number, (fan_name, fan) in enumerate(_FANS.items()):
            if len(fan) > 1:
                cells_of = partial(rays, fan=fan, mode=REACH_COLOUR + target, origin="it")
                for name, _, painter in painters:
                    run = partial(_painted, cells_of=cells_of, painter=painter)
                    yield Action(f"links {fan_name} to {target} in {name}", 2.5 + 0.05 * number, run)


def rays(scene: Scene, k: int, fan: tuple[tuple[int, int], ...], mode: int, origin: str) -> Array:
    """The cells of rays from an object, its own left out."""
    key = f"{fan}{mode}{origin}"
    notes = scene.notes
    if f"{key} {k}" not in notes:
        parts = [_one_way(scene, k, dy, dx, mode, origin) for dy, dx in fan]
        notes[f"{key} {k}"] = np.unique(np.concatenate(parts))
    return notes[f"{key} {k}"]


def _one_way(scene: Scene, k: int, dy: int, dx: int, mode: int, origin: str) -> Array:
    key = f"ray {dy} {dx} {mode} {origin} {k}"
    if key not in scene.notes:
        o = scene.objects[k]
        ys, xs = o.rows, o.columns
        if origin == "its middle":
            ys, xs = (
                np.unique([o.top + (o.height - 1) // 2, o.top + o.height // 2]),
                np.unique([o.left + (o.width - 1) // 2, o.left + o.width // 2]),
            )
            ys, xs = np.repeat(ys, len(xs)), np.tile(xs, len(ys))
        elif origin == "its corner":
            ys = np.array([o.top + (o.height - 1 if dy > 0 else 0)])
            xs = np.array([o.left + (o.width - 1 if dx > 0 else 0)])
        out = np.empty(scene.grid.size * 2, np.int64)
        count = _cast(scene.grid, scene.labels, k, ys, xs, dy, dx, mode, scene.background, o.colour, out)
        scene.notes[key] = out[:count].copy()
    return scene.notes[key]


@jit
def _cast(
    grid: Array, labels: Array, k: int, rows: Array, columns: Array, dy: int, dx: int, mode: int, background: int, colour: int, out: Array
) -> int:
    """Write the cells of the rays that start at some cells into `out`; returns how many."""
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


_ORIGINS = (("it", 0.0, "it"), ("its middle", 0.5, "its middle"), ("its corner", 0.7, "its corner"))


def _background_cells(scene: Scene, rows: Array, columns: Array) -> Array:
    h, w = scene.grid.shape
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    rows, columns = rows[inside], columns[inside]
    return np.asarray((rows * w + columns)[scene.grid[rows, columns] == scene.background])


def _box_fill(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    ys, xs = np.indices((o.height, o.width))
    return _background_cells(scene, ys.ravel() + o.top, xs.ravel() + o.left)


def _holes(scene: Scene, k: int) -> Array:
    """Cells that the object encloses."""
    o = scene.objects[k]
    ys, xs = np.nonzero(~outside(o.mask.astype(np.int8), False).astype(bool) & ~o.mask)
    return _background_cells(scene, ys + o.top, xs + o.left)


def _interior(scene: Scene, k: int) -> Array:
    """Own cells that are not at the rim of the box."""
    return _own_where(scene, k, _rim_depth(scene.objects[k]) >= 1)


def _rim(scene: Scene, k: int) -> Array:
    return _own_where(scene, k, _rim_depth(scene.objects[k]) == 0)


def _box_corners(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    return _own_where(scene, k, np.isin(o.rows - o.top, (0, o.height - 1)) & np.isin(o.columns - o.left, (0, o.width - 1)))


def _middle(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    near_row, near_column = np.abs(2 * (o.rows - o.top) - (o.height - 1)) <= 1, np.abs(2 * (o.columns - o.left) - (o.width - 1)) <= 1
    return _own_where(scene, k, near_row & near_column)


def _rim_depth(o: Object) -> Array:
    y, x = o.rows - o.top, o.columns - o.left
    return np.asarray(np.minimum(np.minimum(y, o.height - 1 - y), np.minimum(x, o.width - 1 - x)))


def _own_where(scene: Scene, k: int, chosen: Array) -> Array:
    return own(scene, k)[chosen]


def _outline(scene: Scene, k: int) -> Array:
    """The frame one cell outside the box."""
    o = scene.objects[k]
    ys, xs = np.indices((o.height + 2, o.width + 2))
    frame = (ys == 0) | (ys == o.height + 1) | (xs == 0) | (xs == o.width + 1)
    return _background_cells(scene, ys[frame] + o.top - 1, xs[frame] + o.left - 1)


def _around(diagonal: bool) -> Cells:
    """Background cells that touch the object."""
    steps = list(DIRECTIONS.values()) if diagonal else list(SIDES.values())

    def cells_of(scene: Scene, k: int) -> Array:
        o = scene.objects[k]
        ys, xs = np.concatenate([o.rows + dy for dy, _ in steps]), np.concatenate([o.columns + dx for _, dx in steps])
        return np.unique(_background_cells(scene, ys, xs))

    return cells_of


def _outline_corners(scene: Scene, k: int) -> Array:
    o = scene.objects[k]
    ys = np.array([o.top - 1, o.top - 1, o.top + o.height, o.top + o.height])
    xs = np.array([o.left - 1, o.left + o.width, o.left - 1, o.left + o.width])
    return _background_cells(scene, ys, xs)


def _parity(odd: int, from_edge: bool) -> Cells:
    """Own cells in every other place: by row and column counted from the corner of the box together."""

    def cells_of(scene: Scene, k: int) -> Array:
        o = scene.objects[k]
        depth = _rim_depth(o) if from_edge else o.rows - o.top + o.columns - o.left
        return _own_where(scene, k, depth % 2 == odd)

    return cells_of


_AREAS: tuple[tuple[str, float, Cells], ...] = (
    ("its box", 0.0, _box_fill),
    ("its holes", 0.0, _holes),
    ("the frame around it", 0.3, _outline),
    ("what touches it", 0.3, _around(True)),
    ("what touches its sides", 0.3, _around(False)),
    ("the corners around it", 0.8, _outline_corners),
    ("its inside", 0.5, _interior),
    ("its rim", 0.5, _rim),
    ("its corners", 0.8, _box_corners),
    ("its middle", 0.8, _middle),
    ("every other cell", 1.0, _parity(0, False)),
    ("every other cell, from the second", 1.0, _parity(1, False)),
    ("every other ring", 1.0, _parity(0, True)),
    ("every other ring, from the second", 1.0, _parity(1, True)),
)


def _copies() -> Iterator[Action]:
    for name, (dy, dx) in DIRECTIONS.items():
        yield Action(f"copy it next to itself {name}", 2.5, partial(_copied, steps=((dy, dx),), times=1))
        yield Action(f"copy it again and again {name}", 2.5, partial(_copied, steps=((dy, dx),), times=30))
    yield Action("copy it next to itself on all sides", 2.5, partial(_copied, steps=tuple(SIDES.values()), times=1))
    yield Action("copy it next to itself all around", 2.5, partial(_copied, steps=tuple(DIRECTIONS.values()), times=1))
    for name, (dy, dx) in DIRECTIONS.items():
        yield Action(f"copy it again and again {name} with gaps", 3.0, partial(_copied, steps=((dy, dx),), times=30, gap=1))
        yield Action(f"mirror it next to itself {name}", 2.5, partial(_mirrored, dy=dy, dx=dx))
    for name, turn in _TURNS:
        yield Action(f"add its {name} in its box", 2.5, partial(_added, turn=turn))
    yield Action("complete its mirror images in its box", 2.5, partial(_symmetrised, turning=False))
    yield Action("complete its quarter turns in its box", 2.5, partial(_symmetrised, turning=True))


def _behind(scene: Scene, cells: Array, colours: Array) -> Effect:
    """Painted where there is background."""
    free = scene.grid.ravel()[cells] == scene.background
    return Effect(NONE, cells[free], colours[free])


def _shifted(scene: Scene, rows: Array, columns: Array, colours: Array) -> tuple[Array, Array]:
    h, w = scene.grid.shape
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return rows[inside] * w + columns[inside], colours[inside]


def _copied(scene: Scene, k: int, steps: tuple[tuple[int, int], ...], times: int, gap: int = 0) -> Effect:
    o = scene.objects[k]
    cells, colours = [], []
    for dy, dx in steps:
        for number in range(1, times + 1):
            y, x = dy * number * (o.height + gap), dx * number * (o.width + gap)
            part, values = _shifted(scene, o.rows + y, o.columns + x, o.values)
            cells.append(part)
            colours.append(values)
            if not len(part):
                break
    return _behind(scene, np.concatenate(cells), np.concatenate(colours))


def _mirrored(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    o = scene.objects[k]
    picture = o.picture[:: -1 if dy else 1, :: -1 if dx else 1]
    ys, xs = np.nonzero(picture >= 0)
    return _behind(scene, *_shifted(scene, ys + o.top + dy * o.height, xs + o.left + dx * o.width, picture[ys, xs]))


def _added(scene: Scene, k: int, turn: Callable[[Array], Array]) -> Effect | None:
    o = scene.objects[k]
    picture = turn(o.picture)
    if picture.shape != o.picture.shape:
        return None
    ys, xs = np.nonzero(picture >= 0)
    return _behind(scene, (ys + o.top) * scene.grid.shape[1] + xs + o.left, picture[ys, xs])


def _symmetrised(scene: Scene, k: int, turning: bool) -> Effect | None:
    o = scene.objects[k]
    if turning and o.height != o.width:
        return None
    picture = o.picture
    turns = [np.rot90(picture, n) for n in range(4)] if turning else [picture, picture[::-1], picture[:, ::-1], picture[::-1, ::-1]]
    whole = np.maximum.reduce(turns)
    ys, xs = np.nonzero(whole >= 0)
    return _behind(scene, (ys + o.top) * scene.grid.shape[1] + xs + o.left, whole[ys, xs])
