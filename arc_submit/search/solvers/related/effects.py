"""Actions with related objects: colours taken from them, moves that go by them, and copies of one object in the place of others.

They complete the actions on an object alone (objects/actions.py). This module does not know outputs, except for the kinds of change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from arc_submit.arc.grid import COLOURS
from arc_submit.search.solvers.objects.areas import AREAS
from arc_submit.search.solvers.objects.effects import NONE, Action, Changes, Effect, Painter, Painting, own, painted_at
from arc_submit.search.solvers.objects.scenes import Object, Scene
from arc_submit.search.solvers.related.relations import larger_one, reference, related

_COLOUR_RELATIONS = ("has the turned shape of", "has the scaled shape of", "has the size of", "shares rows with", "shares columns with",
                     "touches", "encloses", "is enclosed by", "holds", "lies in", "is nearest to")  # fmt: skip
_COLOUR_KEYS = ("the one of its own colour", "the one of its own shape", "the one with most colours", "the one that holds most",
                "the one in the corner", "the one that lies in another")  # fmt: skip
_ALIGNED_WITH = ("the largest", "the smallest", "the one of its own colour", *(f"the one of colour {c}" for c in range(COLOURS)))
_COPIED = ("the largest", "the smallest", "the one with most colours", "the one of its own colour", "the one of its own shape",
           *(f"the one of colour {c}" for c in range(COLOURS)))  # fmt: skip
# The object that an action goes by: a reference, or the only larger object in a relation to the one that changes.
Target = Callable[[Scene, int], int]
_LARGER = (
    "has the colour of",
    "shares a colour with",
    "is nearest to",
    "has the scaled shape of",
    "shares rows with",
    "shares columns with",
)
_FILLED = ("its box", "its holes", "the frame around it", "what touches it", "its inside", "its rim")


def relational_actions(changes: Changes) -> list[Action]:
    """All actions that can make such changes, the plainest first."""
    out: list[Action] = []
    painters = list(_painters())
    if changes.recolours or changes.draws:
        out += [Action(f"recolour to {p.name}", 1.0 + p.cost, Painting(own, p)) for p in painters]
    for painter in painters:
        for name, cost, cells_of in AREAS:
            if name in _FILLED:
                out.append(Action(f"fill {name} with {painter.name}", 1.5 + cost + painter.cost, Painting(cells_of, painter)))
    if changes.erases:
        out += _alignments()
    if changes.draws or changes.recolours:
        out += _copies()
    return out


# --- Colours -----------------------------------------------------------------------------------------------------------------------------


def _painters() -> Iterator[Painter]:
    for relation in _COLOUR_RELATIONS:
        yield Painter(f"the colour of what it {relation}", 2.0, partial(_colour_of_related, relation=relation))
    for key in _COLOUR_KEYS:
        yield Painter(f"the colour of {key}", 2.0, partial(_colour_of_reference, key=key))
    for relation in ("holds", "touches"):
        yield Painter(f"the commonest colour that it {relation}", 2.5, partial(_commonest_of_related, relation=relation))


def _colour_of_related(scene: Scene, k: int, relation: str) -> int | None:
    """The only colour besides its own of the objects that it stands in a relation to."""
    others = np.flatnonzero(related(scene, relation)[k])
    colours = {scene.objects[j].colour for j in others} - {scene.objects[k].colour}
    return colours.pop() if len(colours) == 1 else None


def _commonest_of_related(scene: Scene, k: int, relation: str) -> int | None:
    """The colour of most cells of these objects, None for a tie."""
    others = np.flatnonzero(related(scene, relation)[k])
    if len(others) < 2:
        return None
    counts = np.sum([scene.objects[j].counts for j in others], axis=0)
    return int(counts.argmax()) if (counts == counts.max()).sum() == 1 else None


def _colour_of_reference(scene: Scene, k: int, key: str) -> int | None:
    j = reference(scene, key)
    return None if j in (-1, k) else scene.objects[j].colour


# --- Moves -------------------------------------------------------------------------------------------------------------------------------


def _reference(scene: Scene, k: int, key: str) -> int:
    j = reference(scene, key)
    return -1 if j == k else j


def _targets(keys: tuple[str, ...]) -> Iterator[tuple[str, float, Target]]:
    """(Name, cost, target) of references and of what an object is related to."""
    for key in keys:
        yield key, 0.0, partial(_reference, key=key)
    for relation in _LARGER:
        yield f"the larger one that it {relation}", 0.5, partial(larger_one, relation=relation)


def _alignments() -> Iterator[Action]:
    for target_name, target_cost, target in _targets(_ALIGNED_WITH):
        for name, cost, shift in _SHIFTS:
            yield Action(f"move {name} {target_name}", 2.5 + cost + target_cost, partial(_move_to, target=target, shift=shift))


def _move_to(scene: Scene, k: int, target: Target, shift: Callable[[Object, Object], tuple[int, int] | None]) -> Effect | None:
    j = target(scene, k)
    step = None if j < 0 else shift(scene.objects[k], scene.objects[j])
    if step is None:
        return None
    o = scene.objects[k]
    return painted_at(scene, o.rows + step[0], o.columns + step[1], o.values, own(scene, k))


def _middle_shift(begin: int, length: int, other: int, other_length: int) -> int | None:
    """The step that brings the middle of an interval to that of another one; None where no whole step does."""
    double = 2 * other + other_length - 2 * begin - length
    return double // 2 if double % 2 == 0 else None


def _beside(begin: int, end: int, other: int, other_end: int) -> int:
    """The step that brings an interval beside another one, 0 where they overlap."""
    return other - end if end <= other else other_end - begin if begin >= other_end else 0


def _centre(o: Object, p: Object) -> tuple[int, int] | None:
    down = _middle_shift(o.top, o.height, p.top, p.height)
    across = _middle_shift(o.left, o.width, p.left, p.width)
    return None if down is None or across is None else (down, across)


def _rows_only(o: Object, p: Object) -> tuple[int, int] | None:
    down = _middle_shift(o.top, o.height, p.top, p.height)
    return None if down is None else (down, 0)


def _columns_only(o: Object, p: Object) -> tuple[int, int] | None:
    across = _middle_shift(o.left, o.width, p.left, p.width)
    return None if across is None else (0, across)


def _beside_it(o: Object, p: Object) -> tuple[int, int]:
    return _beside(o.top, o.bottom, p.top, p.bottom), _beside(o.left, o.right, p.left, p.right)


def _one_step(o: Object, p: Object) -> tuple[int, int]:
    down, across = _beside_it(o, p)
    return int(np.sign(down)), int(np.sign(across))


_SHIFTS: tuple[tuple[str, float, Callable[[Object, Object], tuple[int, int] | None]], ...] = (
    ("beside", 0.0, _beside_it),
    ("one step towards", 0.5, _one_step),
    ("to the rows of", 0.5, _rows_only),
    ("to the columns of", 0.5, _columns_only),
    ("into the middle of", 0.5, _centre),
    ("to the top of", 1.0, lambda o, p: (p.top - o.top, 0)),
    ("to the bottom of", 1.0, lambda o, p: (p.bottom - o.bottom, 0)),
    ("to the left of", 1.0, lambda o, p: (0, p.left - o.left)),
    ("to the right of", 1.0, lambda o, p: (0, p.right - o.right)),
)


# --- Copies ------------------------------------------------------------------------------------------------------------------------------


def _copies() -> Iterator[Action]:
    for target_name, target_cost, target in _targets(_COPIED):
        for own_colour in (False, True):
            for erases in (False, True):
                words = f"{' in its colour' if own_colour else ''}{' instead of it' if erases else ''}"
                run = partial(_copy_here, target=target, own_colour=own_colour, erases=erases)
                yield Action(f"copy {target_name} to its middle{words}", 3.0 + target_cost + own_colour * 0.5 + erases * 0.3, run)
    yield Action("copy the larger one that it shares a colour with onto it", 3.5, _copy_over)


def _copy_here(scene: Scene, k: int, target: Target, own_colour: bool, erases: bool) -> Effect | None:
    """The target's picture around the middle of the object, behind the object where it stays."""
    j = target(scene, k)
    if j < 0:
        return None
    o, p = scene.objects[k], scene.objects[j]
    step = _centre(p, o)
    if step is None:
        return None
    values = np.full(p.area, o.colour, np.int8) if own_colour else p.values
    effect = painted_at(scene, p.rows + step[0], p.columns + step[1], values, own(scene, k) if erases else NONE)
    return effect if erases else _behind(scene, k, effect)


def _copy_over(scene: Scene, k: int) -> Effect | None:
    """The picture of the larger object with this one's colour, placed so that its cells of this colour are the object's own."""
    j = larger_one(scene, k, "shares a colour with")
    if j < 0 or scene.objects[k].colour_count > 1:
        return None
    o, p = scene.objects[k], scene.objects[j]
    same = p.values == o.colour
    down, across = int(o.rows[0] - p.rows[same][0]), int(o.columns[0] - p.columns[same][0])
    if same.sum() != o.area or (p.rows[same] + down != o.rows).any() or (p.columns[same] + across != o.columns).any():
        return None
    return painted_at(scene, p.rows + down, p.columns + across, p.values)


def _behind(scene: Scene, k: int, effect: Effect) -> Effect:
    """The effect without the cells of the object itself."""
    free = scene.labels.ravel()[effect.painted] != k
    return Effect(effect.erased, effect.painted[free], effect.colours[free])
