"""Outputs that are a part of the input on which the objects from outside of it are laid, each where it fits.

An object is laid as it is, mirrored, turned or enlarged, where most of its cells have the colours of the part below them; where it covers
nothing, beside cells of its colours, then as large and as near to the middle as possible. Objects that have one cell of a colour each are
laid on each other at that cell; objects that together fill a rectangle or a frame are put together, see assembly. This module does not know
which part of the input is meant: it tries those of the output's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import (
    CLEAR,
    bounding_box,
    commonest_colour,
    inputs_of,
    keeps_size,
    label_objects,
    object_pictures,
    oriented,
)
from arc_submit.search.primitives.line import STEPS
from arc_submit.search.solvers import assembly
from arc_submit.search.store import Array

NAME = "fitted"
MAX_OBJECTS = 8
MAX_PARTS = 4  # parts of the output's size that are tried
MAX_TIMES = 8  # the side of the blocks of an enlarged object
Box = tuple[slice, slice]
Part = tuple[Box, int]  # with the colour that objects may cover
PartOf = Callable[[Grid], Part | None]
Rule = Callable[[Grid], Grid | None]


@dataclass(frozen=True)
class _Way:
    """How an object may be laid.

    Attributes:
        turns: the orientations of `oriented`.
        enlarged: each cell as a block; a square one unless `stretched`.
        covers: it may cover cells of its colours.
    """

    name: str
    turns: tuple[int, ...] = (0,)
    enlarged: bool = False
    stretched: bool = False
    covers: bool = True


_WAYS = (
    _Way("as they are"),
    _Way("enlarged", enlarged=True),
    _Way("stretched", enlarged=True, stretched=True),
    _Way("mirrored, beside what is there", (0, 7, 5, 2), covers=False),
    _Way("turned", tuple(range(8))),
    _Way("turned and enlarged", tuple(range(8)), enlarged=True),
)


@dataclass(frozen=True)
class _Place:
    """A place for an object.

    Attributes:
        key: larger for a better place: cells of the part below that have the object's colour, colours that it has beside the same one,
            its size (less is better where it covers cells), and how near it is to the middle.
        picture: int8 (h, w), with CLEAR.
        corner: (row, column) of its first cell.
    """

    key: tuple[int, int, int, int]
    picture: Array
    corner: tuple[int, int]


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the rules that reproduce every train pair."""
    if keeps_size(task):
        return []
    answers: list[SolverAnswer] = []
    for cost, (name, rule) in enumerate(_rules(task)):
        if not all((out := rule(pair.input)) is not None and same_grid(out, pair.output) for pair in task.train):
            continue
        grids = [rule(grid) for grid in task.tests]
        answers += [SolverAnswer(k, grid, NAME, name, 1.0, 20.0 + cost) for k, grid in enumerate(grids) if grid is not None]
    return answers


def _rules(task: Task) -> Iterator[tuple[str, Rule]]:
    """Name and function of the rules that give all train outputs their size."""
    yield "the objects laid on each other at the colour of which each has one cell", _assembled
    yield from _fillings([pair.output for pair in task.train])
    for name, part_of in _parts(task):
        for way in _WAYS:
            yield f"{name}, the other objects laid on it {way.name}", partial(_laid, part_of=part_of, way=way)


def _fillings(outputs: list[Grid]) -> Iterator[tuple[str, Rule]]:
    """Name and function of the rules that put all objects together, to outputs of one size where all of these have one."""
    shapes = {(output.shape[0], output.shape[1]) for output in outputs}
    shape = shapes.pop() if len(shapes) == 1 else None
    for frame in (False, True):
        if all(assembly.is_filled(output, frame) for output in outputs):
            for one_colour in (True, False):
                name = f"{'' if one_colour else 'many-coloured '}objects put together to a {'frame' if frame else 'rectangle'}"
                yield name, partial(assembly.assembled, frame=frame, one_colour=one_colour, shape=shape)


# --- Objects laid on a part of the input -------------------------------------------------------------------------------------------------


def _parts(task: Task) -> Iterator[tuple[str, PartOf]]:
    """Name and function of the parts that every input has, with the outputs' sizes; equal ones once."""
    seen: set[str] = set()
    kinds: list[tuple[str, PartOf]] = [
        ("the largest object", _largest),
        ("the box with corners of one colour", _cornered),
        ("the plainer half", _plainer_half),
    ]
    kinds += [(f"the box of colour {colour}", partial(_box_of, colour=colour)) for colour in range(1, COLOURS)]
    for name, part_of in kinds:
        parts = [part_of(grid) for grid in inputs_of(task)]
        fits = all(p is not None and pair.input[p[0]].shape == pair.output.shape for p, pair in zip(parts, task.train, strict=False))
        if fits and None not in parts and str(parts) not in seen and len(seen) < MAX_PARTS:
            seen.add(str(parts))
            yield name, part_of


def _box_of(grid: Grid, colour: int) -> Part | None:
    box = bounding_box(grid == colour)
    return None if box is None else (box, _commonest_outside(grid, box))


def _commonest_outside(grid: Grid, box: Box) -> int:
    outside = np.bincount(grid.ravel(), minlength=COLOURS) - np.bincount(grid[box].ravel(), minlength=COLOURS)
    return int(outside.argmax())


def _largest(grid: Grid) -> Part | None:
    """The box of the object with most cells; None on a tie."""
    background = commonest_colour(grid)
    labels, count = label_objects(grid, background, True, False)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    if count == 0 or (sizes == sizes.max()).sum() > 1:
        return None
    box = bounding_box(labels == 1 + int(sizes.argmax()))
    return None if box is None else (box, background)


def _cornered(grid: Grid) -> Part | None:
    """The largest box of a colour that has the colour at its four corners."""
    boxes = [box for c in range(COLOURS) if c != commonest_colour(grid) and (box := bounding_box(grid == c)) is not None]
    framed = [box for box in boxes if min(grid[box].shape) > 2 and len(np.unique(grid[box][[0, 0, -1, -1], [0, -1, 0, -1]])) == 1]
    box = max(framed, key=lambda b: grid[b].size, default=None)
    return None if box is None else (box, commonest_colour(grid))


def _plainer_half(grid: Grid) -> Part | None:
    """Of two halves the one with fewer cells that are not of its commonest colour, where it is plainest divided; None on a tie."""
    h, w = grid.shape
    pairs = []
    if h % 2 == 0:
        pairs.append(((slice(0, h // 2), slice(0, w)), (slice(h // 2, h), slice(0, w))))
    if w % 2 == 0:
        pairs.append(((slice(0, h), slice(0, w // 2)), (slice(0, h), slice(w // 2, w))))

    def painted(box: Box) -> int:
        return int((grid[box] != commonest_colour(grid[box])).sum())

    if not pairs:
        return None
    first, second = min(pairs, key=lambda pair: painted(pair[0]) + painted(pair[1]))
    if painted(first) == painted(second):
        return None
    half = min(first, second, key=painted)
    return half, commonest_colour(grid[half])


def _laid(grid: Grid, part_of: PartOf, way: _Way) -> Grid | None:
    """The part with the other objects on it, the best fitting first; after that one only such as cover cells of their colours."""
    part = part_of(grid)
    if part is None:
        return None
    box, ground = part
    outside = np.ones(grid.shape, np.bool_)
    outside[box] = False
    if not outside.any():
        return None
    background = _commonest_outside(grid, box)
    objects = object_pictures(np.where(outside, grid, background).astype(np.int8), background, False, MAX_OBJECTS)
    out = np.array(grid[box])
    below = np.where(out == ground, CLEAR, out).astype(np.int8)
    marks = below  # what no object covers yet
    for number in range(len(objects)):
        places = [_best_place(below, marks, picture, way) for picture in objects]
        found = [place for place in places if place is not None]
        best = max(found, key=lambda place: place.key, default=None)
        if best is None or (number > 0 and best.key[0] == 0):
            break
        del objects[next(k for k, place in enumerate(places) if place is best)]
        whole = np.full(out.shape, CLEAR, np.int8)
        (y, x), (h, w) = best.corner, best.picture.shape
        whole[y : y + h, x : x + w] = best.picture
        out, below, marks = (
            np.where(whole == CLEAR, out, whole),
            np.where(whole == CLEAR, below, whole),
            np.where(whole == CLEAR, marks, CLEAR),
        )
    return frozen(out.astype(np.int8)) if (out != grid[box]).any() else None


def _best_place(below: Array, marks: Array, picture: Array, way: _Way) -> _Place | None:
    """The best place for an object where it covers no cell of another colour; None where there is none.

    Args:
        below: int8 (h, w), what an object must not cover with another colour, with CLEAR.
        marks: int8 (h, w), the cells of `below` that it should cover.
    """
    best: _Place | None = None
    height, width = below.shape
    beside = np.pad(below, 1, constant_values=CLEAR)
    around = [beside[1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in STEPS[:4]]
    for laid in _forms(picture, way, height, width):
        shape = laid.shape
        own = laid != CLEAR
        windows = sliding_window_view(below, shape)
        possible = ~(own & (windows != CLEAR) & (windows != (laid if way.covers else CLEAR))).any(axis=(2, 3))
        if not possible.any():
            continue
        covered = np.where(possible, (own & (sliding_window_view(marks, shape) == laid)).sum(axis=(2, 3)), 0)
        near = np.zeros(possible.shape, np.int64)
        for colour in (set(np.unique(laid)) & set(np.unique(below)) if not covered.any() else set()) - {CLEAR}:
            here = np.any([sliding_window_view(shifted == colour, shape) for shifted in around], axis=0)
            near += (here & (laid == colour)).any(axis=(2, 3))
        # What covers cells is as small as that allows.
        size = np.where(covered > 0, -laid.size, laid.size)
        y, x = np.indices(possible.shape)
        off_middle = abs(2 * y - (height - shape[0])) + abs(2 * x - (width - shape[1]))
        keys = np.stack([covered, near, size, -off_middle], axis=2)[possible]
        k = max(range(len(keys)), key=lambda n: tuple(keys[n]))
        key = (int(keys[k, 0]), int(keys[k, 1]), int(keys[k, 2]), int(keys[k, 3]))
        if best is None or key > best.key:
            best = _Place(key, laid, (int(y[possible][k]), int(x[possible][k])))
    return best


def _forms(picture: Array, way: _Way, height: int, width: int) -> Iterator[Array]:
    """The object in the orientations and sizes of a way that fit into height x width cells."""
    for turn in way.turns:
        turned = oriented(picture, turn)
        times = min(MAX_TIMES, height // turned.shape[0]), min(MAX_TIMES, width // turned.shape[1])
        if min(times) == 0:
            continue
        for a in range(1, times[0] + 1 if way.enlarged else 2):
            for b in range(1, times[1] + 1) if way.stretched else (a,):
                if b <= times[1]:
                    yield np.kron(turned, np.ones((a, b), np.int8))


# --- Objects laid on each other ----------------------------------------------------------------------------------------------------------


def _assembled(grid: Grid) -> Grid | None:
    """All objects with the cells of one colour at one place, the only colour of which each has one cell; None where colours disagree."""
    background = commonest_colour(grid)
    pictures = object_pictures(grid, background, False, MAX_OBJECTS)
    single = [c for c in range(COLOURS) if pictures and all((picture == c).sum() == 1 for picture in pictures)]
    if len(pictures) < 2 or len(single) != 1:
        return None
    centres = [np.argwhere(picture == single[0]) for picture in pictures]
    whole = np.full((2 * MAX_SIDE, 2 * MAX_SIDE), CLEAR, np.int8)
    for picture, centre in zip(pictures, centres, strict=True):
        y, x = MAX_SIDE - centre[0]
        window = whole[y : y + picture.shape[0], x : x + picture.shape[1]]
        if ((window != CLEAR) & (picture != CLEAR) & (window != picture)).any():
            return None
        window[picture != CLEAR] = picture[picture != CLEAR]
    box = bounding_box(whole != CLEAR)
    if box is None or max(whole[box].shape) > MAX_SIDE:
        return None
    return frozen(np.where(whole[box] == CLEAR, background, whole[box]).astype(np.int8))
