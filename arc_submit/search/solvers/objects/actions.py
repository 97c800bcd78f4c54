"""The library of actions: recolour an object, move, turn or delete it, draw from it, fill in and around it, copy it.

This module does not know outputs, except for the kinds of change between input and output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.solvers.objects.areas import AREAS
from arc_submit.search.solvers.objects.effects import (
    DIRECTIONS,
    NONE,
    SIDES,
    Action,
    Changes,
    Effect,
    Painter,
    Painting,
    Step,
    free_steps,
    on_background,
    own,
    painted_at,
    picture_at,
    slide,
)
from arc_submit.search.solvers.objects.painters import painters
from arc_submit.search.solvers.objects.rays import FANS, ORIGINS, POINTED_RAYS, RAYS, REACH_COLOUR, Rays
from arc_submit.search.solvers.objects.scenes import Scene
from arc_submit.search.store import Array

_DRAWN_WITH = ("its colour", "its rarest colour", "the colour nearest to it", "the colour of what its box holds")
Turn = Callable[[Array], Array]
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
    every = list(painters(changes))
    drawing = [p for p in every if p.name in _DRAWN_WITH or p.name.isdigit()]
    out: list[Action] = []
    if changes.recolours or changes.draws:
        out += [Action(f"recolour to {p.name}", 1.0 + p.cost, Painting(own, p)) for p in every]
    if changes.erases:
        out.append(Action("delete", 1.0, lambda scene, k: Effect(own(scene, k), NONE, NONE)))
        out += _move_actions()
        out += [Action(f"{name} in its place", 3.0, partial(_turn, turn=turn)) for name, turn in _TURNS]
    if changes.recolours:
        out.append(Action("swap its two colours", 3.0, _swap))
    out += _fill_actions(drawing)
    if changes.draws:
        out += _draw_actions(drawing)
        out += _link_actions([p for p in every if p.name == "its colour" or p.name.isdigit()])
        out += _copy_actions()
    return tuple(out)


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


def _move_by_size(scene: Scene, k: int, dy: int, dx: int) -> Effect:
    o = scene.objects[k]
    return _move(scene, k, dy * o.height, dx * o.width)


def _move_until_stopped(scene: Scene, k: int, dy: int, dx: int, needs_object: bool) -> Effect | None:
    steps, met = slide(scene, k, dy, dx)
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
    contacts = [_Contact(*slide(scene, k, dy, dx), (dy, dx)) for dy, dx in SIDES.values()]
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
                steps, _ = free_steps(grid, labels, j, ys, xs, dy, dx, scene.background)
                grid[ys, xs], labels[ys, xs] = scene.background, -1
                grid[ys + dy * steps, xs + dx * steps], labels[ys + dy * steps, xs + dx * steps] = o.values, j
                moved[j] += steps
        return moved

    steps = int(scene.cached(f"fall {dy} {dx}", falls)[k])
    return _move(scene, k, dy * steps, dx * steps)


def _turn(scene: Scene, k: int, turn: Turn) -> Effect | None:
    o = scene.objects[k]
    picture = turn(o.picture)
    return picture_at(scene, picture, o.top, o.left, own(scene, k)) if picture.shape == o.picture.shape else None


# --- Drawing ---------------------------------------------------------------------------------------------------------------------------


def _fill_actions(chosen: list[Painter]) -> Iterator[Action]:
    for painter in chosen:
        for name, cost, cells_of in AREAS:
            run = Painting(cells_of, painter)
            yield Action(f"fill {name} with {painter.name}", 1.5 + cost + painter.cost, run)


def _draw_actions(chosen: list[Painter]) -> Iterator[Action]:
    for painter in chosen:
        for name, cells_of in POINTED_RAYS:
            run = Painting(cells_of, painter)
            yield Action(f"ray {name} its odd cell in {painter.name}", 2.5 + painter.cost, run)
        for mode_name, mode_cost, mode in RAYS:
            for number, (fan_name, fan) in enumerate(FANS.items()):
                for origin, origin_cost in ORIGINS:
                    run = Painting(Rays(fan, mode, origin), painter)
                    cost = 1.5 + mode_cost + origin_cost + painter.cost + 0.05 * number
                    yield Action(f"{mode_name} {fan_name} from {origin} in {painter.name}", cost, run)


def _link_actions(chosen: list[Painter]) -> Iterator[Action]:
    """Rays that reach a certain colour, in the object's own or in a fixed colour."""
    for target in range(COLOURS):
        for number, (fan_name, fan) in enumerate(FANS.items()):
            if len(fan) > 1:
                cells_of = Rays(fan, REACH_COLOUR + target, "it")
                for painter in chosen:
                    run = Painting(cells_of, painter)
                    yield Action(f"links {fan_name} to {target} in {painter.name}", 2.5 + 0.05 * number, run)


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
    return on_background(scene, picture_at(scene, picture, o.top + dy * o.height, o.left + dx * o.width))


def _add_turned(scene: Scene, k: int, turn: Turn) -> Effect | None:
    o = scene.objects[k]
    picture = turn(o.picture)
    return on_background(scene, picture_at(scene, picture, o.top, o.left)) if picture.shape == o.picture.shape else None


def _symmetrise(scene: Scene, k: int, quarter_turns: bool) -> Effect | None:
    o = scene.objects[k]
    if quarter_turns and o.height != o.width:
        return None
    a = o.picture
    turned = [np.rot90(a, n) for n in range(4)] if quarter_turns else [a, a[::-1], a[:, ::-1], a[::-1, ::-1]]
    return on_background(scene, picture_at(scene, np.maximum.reduce(turned), o.top, o.left))
