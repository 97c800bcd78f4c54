"""Scenes: a grid divided into objects, in one of several ways.

An object is a set of cells: a connected component of one colour or of any, all cells of a colour, or a gap in the background. A grid with
too many objects is rejected, which bounds all later work. This module does not know rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.search.grid_tools import commonest_colour, label_objects, rarest_index
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

MAX_OBJECTS = 48


@dataclass(frozen=True, eq=False)
class Object:
    """One object.

    Attributes:
        rows, columns: int64 (cells,), the places of its cells, in reading order.
        values: int8 (cells,), their colours.
        top, left, height, width: its bounding box.
    """

    rows: Array
    columns: Array
    values: Array
    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row below the box."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column right of the box."""
        return self.left + self.width

    @property
    def box(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @cached_property
    def mask(self) -> Array:
        """bool (height, width)."""
        return np.asarray(self.picture >= 0)

    @cached_property
    def picture(self) -> Grid:
        """int8 (height, width), -1 for cells of the box that are not the object's."""
        out = np.full((self.height, self.width), -1, np.int8)
        out[self.rows - self.top, self.columns - self.left] = self.values
        return out

    @cached_property
    def counts(self) -> Array:
        """The number of cells of each colour, int64 (10,)."""
        return np.bincount(self.values, minlength=COLOURS)

    @cached_property
    def colour(self) -> int:
        """Its commonest colour."""
        return int(self.counts.argmax())

    @cached_property
    def rarest(self) -> int:
        """Its rarest colour; the commonest one where it has only one."""
        return int(rarest_index(self.counts))

    @cached_property
    def colour_count(self) -> int:
        """The number of its colours."""
        return int((self.counts > 0).sum())

    @property
    def area(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Scene:
    """A grid and its objects.

    Attributes:
        labels: int64 (h, w), the index of each cell's object, -1 where there is none.
        background: the colour between objects; COLOURS where every cell is in an object.
        cache: arrays that actions compute once per scene, by key.
    """

    grid: Grid
    background: int
    labels: Array
    objects: tuple[Object, ...]
    cache: dict[Hashable, Array] = field(default_factory=dict)

    @property
    def blank(self) -> np.int8:
        """The colour around an object that is shown alone."""
        return np.int8(self.background % COLOURS)

    def cached(self, key: Hashable, compute: Callable[[], Array]) -> Array:
        if key not in self.cache:
            self.cache[key] = compute()
        return self.cache[key]

    def inside(self, rows: Array, columns: Array) -> Array:
        """Which places are inside the grid, bool."""
        h, w = self.grid.shape
        return np.asarray((rows >= 0) & (rows < h) & (columns >= 0) & (columns < w))

    def cell_numbers(self, rows: Array, columns: Array) -> Array:
        """The indices of places in reading order."""
        return np.asarray(rows * self.grid.shape[1] + columns)


@dataclass(frozen=True)
class Segmentation:
    """One way to divide the inputs of a task into objects, and its scenes, train inputs first."""

    name: str
    cost: float
    scenes: tuple[Scene, ...]

    def starts(self) -> Array:
        """int64 (scenes + 1,), the index of each scene's first object among the objects of all scenes."""
        return np.cumsum([0] + [len(scene.objects) for scene in self.scenes])

    def owners(self) -> Array:
        """int64 (objects,), the scene of each object of all scenes."""
        return np.repeat(np.arange(len(self.scenes)), [len(scene.objects) for scene in self.scenes])


def segmentations(grids: list[Grid]) -> Iterator[Segmentation]:
    """Every way that finds at least one and at most MAX_OBJECTS objects in each grid, the plainest first, without duplicates."""
    seen: set[bytes] = set()
    for background_name, backgrounds in _backgrounds(grids):
        for name, cost, labels_of in _METHODS if backgrounds[0] != COLOURS else _METHODS_WITHOUT_BACKGROUND:
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
    commonest = [commonest_colour(grid) for grid in grids]
    out = []
    if sum(bool((grid == 0).any()) for grid in grids) * 2 >= len(grids):
        out.append(("", [0] * len(grids)))
    if any(commonest):
        out.append((" on the commonest colour", commonest))
    out.append((" on no background", [COLOURS] * len(grids)))
    return out


def scene_of(grid: Grid, background: int, labels: Array, count: int) -> Scene:
    """The scene of labels that number the objects from 0, with -1 for cells without an object."""
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
    return Scene(grid, background, labels, tuple(objects))


def _by_colour(grid: Grid, background: int) -> tuple[Array, int]:
    present = [c for c in range(COLOURS) if c != background and (grid == c).any()]
    number = np.zeros(COLOURS, np.int64)
    number[present] = np.arange(1, len(present) + 1)
    return number[grid], len(present)


def _gaps(grid: Grid, background: int) -> tuple[Array, int]:
    return label((grid == background).astype(np.int8), False, True)


_METHODS: tuple[tuple[str, float, Callable[[Grid, int], tuple[Array, int]]], ...] = (
    ("object of one colour", 0.0, partial(label_objects, diagonal=True, one_colour=True)),
    ("object of one colour joined by sides", 0.5, partial(label_objects, diagonal=False, one_colour=True)),
    ("object", 0.2, partial(label_objects, diagonal=True, one_colour=False)),
    ("object joined by sides", 0.7, partial(label_objects, diagonal=False, one_colour=False)),
    ("colour", 1.0, _by_colour),
    ("gap", 1.0, _gaps),
)
_METHODS_WITHOUT_BACKGROUND = (_METHODS[1], _METHODS[4])
