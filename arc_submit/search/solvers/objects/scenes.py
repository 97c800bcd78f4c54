"""Scenes: a grid taken apart into objects, in one of several ways.

An object is a set of cells; which sets count as objects is what the ways differ in: connected cells of one colour or of any, all cells of
a colour, the gaps that the background leaves. A grid with too many objects is refused, which bounds all work that follows. Knows nothing
about rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

MAX_OBJECTS = 48


@dataclass(frozen=True, eq=False)
class Object:
    """One object.

    Attributes:
        rows, columns: int64 (cells,), where its cells are, in reading order.
        values: int8 (cells,), their colours.
        top, left, height, width: its box.
    """

    rows: Array
    columns: Array
    values: Array
    top: int
    left: int
    height: int
    width: int

    @cached_property
    def mask(self) -> Array:
        """bool (height, width)."""
        out = np.zeros((self.height, self.width), np.bool_)
        out[self.rows - self.top, self.columns - self.left] = True
        return out

    @cached_property
    def picture(self) -> Grid:
        """int8 (height, width), -1 where the box is not the object's own."""
        out = np.full((self.height, self.width), -1, np.int8)
        out[self.rows - self.top, self.columns - self.left] = self.values
        return out

    @cached_property
    def counts(self) -> Array:
        return np.bincount(self.values, minlength=COLOURS)

    @cached_property
    def colour(self) -> int:
        """Its commonest colour."""
        return int(self.counts.argmax())

    @cached_property
    def rarest(self) -> int:
        """Its rarest colour: the same one where it has only one."""
        return int(np.where(self.counts > 0, self.counts, 10**6).argmin())

    @property
    def area(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Scene:
    """A grid and its objects.

    Attributes:
        labels: int64 (h, w), the number of the object a cell is in, -1 where it is in none.
        background: the colour on which objects stand; COLOURS where every cell is in an object.
        notes: what rules compute once for a scene and keep, by name.
    """

    grid: Grid
    background: int
    labels: Array
    objects: tuple[Object, ...]
    notes: dict[str, Array]

    @property
    def blank(self) -> np.int8:
        """The colour of an object's surroundings where it stands alone."""
        return np.int8(self.background % COLOURS)


@dataclass(frozen=True)
class Segmentation:
    """One way to take the inputs of a task apart, and the scenes it gives, train inputs first."""

    name: str
    cost: float
    scenes: tuple[Scene, ...]


def segmentations(grids: list[Grid]) -> Iterator[Segmentation]:
    """Every way that gives each grid at least one object and none too many, the plainest first, each result once."""
    seen: set[bytes] = set()
    for background_name, backgrounds in _backgrounds(grids):
        for name, cost, labels_of in _WAYS if backgrounds[0] != COLOURS else _WAYS_WITHOUT:
            scenes = []
            for grid, background in zip(grids, backgrounds, strict=True):
                labels, count = labels_of(grid, background)
                if not 0 < count <= MAX_OBJECTS:
                    break
                scenes.append(scene_of(grid, background, labels - 1, count))
            if len(scenes) < len(grids):
                continue
            key = b"".join(scene.labels.tobytes() + bytes([scene.background]) for scene in scenes)
            if key not in seen:
                seen.add(key)
                yield Segmentation(f"{name}{background_name}", cost, tuple(scenes))


def _backgrounds(grids: list[Grid]) -> list[tuple[str, list[int]]]:
    """The background of each grid: colour 0, the commonest colour where that is another, or none."""
    commonest = [int(np.bincount(grid.ravel(), minlength=COLOURS).argmax()) for grid in grids]
    out = []
    if sum(bool((grid == 0).any()) for grid in grids) * 2 >= len(grids):
        out.append(("", [0] * len(grids)))
    if any(commonest):
        out.append((" on the commonest colour", commonest))
    out.append((" on no background", [COLOURS] * len(grids)))
    return out


def scene_of(grid: Grid, background: int, labels: Array, count: int) -> Scene:
    """The scene of labels that number the objects from 0, with -1 where there is none."""
    rows, columns = np.nonzero(labels >= 0)
    owner = labels[rows, columns]
    order = np.argsort(owner, kind="stable")
    rows, columns, owner = rows[order], columns[order], owner[order]
    bounds = np.searchsorted(owner, np.arange(count + 1))
    objects = []
    for begin, end in itertools.pairwise(bounds):
        ys, xs = rows[begin:end], columns[begin:end]
        top, left = int(ys.min()), int(xs.min())
        height, width = int(ys.max()) - top + 1, int(xs.max()) - left + 1
        objects.append(Object(ys, xs, grid[ys, xs], top, left, height, width))
    return Scene(grid, background, labels, tuple(objects), {})


Labels = tuple[Array, int]


def _connected(diagonal: bool, one_colour: bool) -> Callable[[Grid, int], Labels]:
    def labels_of(grid: Grid, background: int) -> Labels:
        return label(np.where(grid == background, 0, grid + 1).astype(np.int8), diagonal, one_colour)

    return labels_of


def _colours(grid: Grid, background: int) -> Labels:
    present = [c for c in range(COLOURS) if c != background and (grid == c).any()]
    number = np.zeros(COLOURS, np.int64)
    number[present] = np.arange(1, len(present) + 1)
    return number[grid], len(present)


def _gaps(grid: Grid, background: int) -> Labels:
    return label((grid == background).astype(np.int8), False, True)


_WAYS: tuple[tuple[str, float, Callable[[Grid, int], Labels]], ...] = (
    ("object of one colour", 0.0, _connected(True, True)),
    ("object of one colour joined by sides", 0.5, _connected(False, True)),
    ("object", 0.2, _connected(True, False)),
    ("object joined by sides", 0.7, _connected(False, False)),
    ("colour", 1.0, _colours),
    ("gap", 1.0, _gaps),
)
_WAYS_WITHOUT = (_WAYS[1], _WAYS[4])
