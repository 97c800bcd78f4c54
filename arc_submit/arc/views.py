"""Views: invertible augmentations of a task, each identified by a short key from which it can be rebuilt.

A view is a geometry (the 8 symmetries of the square), a permutation of the colours and an order of the train pairs. A prediction carries
the key of its view, so that the view can be undone later: "r90.f.c3120456789.p201" turns every grid by 90 degrees counter-clockwise,
mirrors it left to right, maps colour 0 to 3, 1 to 1, 2 to 2, 3 to 0 ..., and shows train pair 2 first, then 0, then 1. The idea of an
augmentation in the key is from da-fr/arc-prize-2024. Does not know prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import DataError

_KEY = re.compile(r"r(0|90|180|270)(\.f)?\.c([0-9]{10})\.p([0-9]{1,10}|[0-9]{1,4}(?:-[0-9]{1,4}){10,})")
IDENTITY_COLOURS = tuple(range(COLOURS))


@dataclass(frozen=True)
class View:
    """One invertible augmentation.

    Attributes:
        quarter_turns: counter-clockwise quarter turns, 0..3, applied first.
        flip: mirror left to right after the turns.
        colours: a permutation; colour c becomes colours[c].
        order: a permutation of the train pairs; the pair shown at place i is train[order[i]].
    """

    quarter_turns: int
    flip: bool
    colours: tuple[int, ...]
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.quarter_turns not in (0, 1, 2, 3):
            raise DataError(f"view: {self.quarter_turns} quarter turns, not 0..3")
        if sorted(self.colours) != list(range(COLOURS)):
            raise DataError(f"view: {self.colours} is not a permutation of the {COLOURS} colours")
        if not self.order or sorted(self.order) != list(range(len(self.order))):
            raise DataError(f"view: {self.order} is not an order of train pairs")

    @property
    def key(self) -> str:
        """The text from which `parse_view` rebuilds this view; an order of more than 10 pairs has dashes between its numbers."""
        order = ("" if len(self.order) <= 10 else "-").join(map(str, self.order))
        return f"r{self.quarter_turns * 90}{'.f' if self.flip else ''}.c{''.join(map(str, self.colours))}.p{order}"

    def apply(self, grid: Grid) -> Grid:
        """The grid under this view."""
        turned = np.rot90(np.array(self.colours, dtype=np.int8)[grid], self.quarter_turns)
        return frozen(turned[:, ::-1] if self.flip else turned)

    def undo(self, grid: Grid) -> Grid:
        """The inverse of `apply`."""
        turned = np.rot90(grid[:, ::-1] if self.flip else grid, -self.quarter_turns)
        return frozen(np.argsort(np.array(self.colours)).astype(np.int8)[turned])

    def apply_task(self, task: Task) -> Task:
        """The task under this view, with the same id.

        Raises:
            DataError: where the view is for another number of train pairs.
        """
        if len(self.order) != len(task.train):
            raise DataError(f"view {self.key}: orders {len(self.order)} train pairs, task {task.id} has {len(task.train)}")
        train = tuple(Pair(self.apply(task.train[i].input), self.apply(task.train[i].output)) for i in self.order)
        return Task(task.id, train, tuple(self.apply(test) for test in task.tests))


def parse_view(key: str) -> View:
    """Rebuild a view from its key.

    Raises:
        DataError: where the text is not the key of a view.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise DataError(f"view key {key[:80]!r} is not of the form r90.f.c0123456789.p012")
    degrees, flip, colours, order = match.groups()
    pairs = order.split("-") if "-" in order else list(order)
    view = View(int(degrees) // 90, flip is not None, tuple(map(int, colours)), tuple(map(int, pairs)))
    if view.key != key:
        raise DataError(f"view key {key!r} is not written as {view.key!r}")
    return view


def identity_view(train_pairs: int) -> View:
    """The view without any change."""
    return View(0, False, IDENTITY_COLOURS, tuple(range(train_pairs)))


def random_view(rng: np.random.Generator, train_pairs: int, keep_background: bool = False) -> View:
    """A uniformly random view.

    Args:
        keep_background: colour 0 stays 0.
    """
    return _draw_view(rng, int(rng.integers(8)), train_pairs, keep_background)


def choose_views(train_pairs: int, count: int, seed: int, keep_background: bool = False) -> list[View]:
    """`count` different views, the same for the same arguments; the first is the identity.

    The first eight views have all eight geometries, and so have the next eight; colours and order are random. A longer list begins with
    the shorter one, so that a run can add views later and reuse its predictions.

    Args:
        train_pairs: number of train pairs of the task.
        count: number of views, at least 1.
        keep_background: colour 0 stays 0.
    """
    views = [identity_view(train_pairs)]
    seen = {views[0]}
    rng = np.random.default_rng(seed)
    geometries: list[int] = list(rng.permutation(np.arange(1, 8)))
    while len(views) < count:
        if not geometries:
            geometries = list(rng.permutation(8))
        view = _draw_view(rng, int(geometries.pop()), train_pairs, keep_background)
        if view not in seen:  # there are at least 9! colourings, so that repeats are rare
            seen.add(view)
            views.append(view)
    return views[:count]


def _draw_view(rng: np.random.Generator, geometry: int, train_pairs: int, keep_background: bool) -> View:
    colours = rng.permutation(COLOURS) if not keep_background else np.append(0, 1 + rng.permutation(COLOURS - 1))
    order = rng.permutation(train_pairs)
    return View(geometry % 4, geometry >= 4, tuple(colours.tolist()), tuple(order.tolist()))
