"""Task augmentation: new tasks from old ones by a reversible change of only the inputs or only the outputs.

A view changes both sides alike and keeps the rule. A change of one side makes another rule, which can be learned as well as the old one,
because every change is reversible and so loses nothing. Does not know prompts or files.

The idea is from the arc24 solution (Barbadillo, ARC Prize 2024), which trained on such tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen
from arc_submit.arc.task import Pair

KINDS = ("rotate", "flip", "pad", "upscale", "mirror")
_TRIES = 8  # changes that are drawn until one keeps every grid within 30 x 30


@dataclass(frozen=True)
class GridChange:
    """One reversible change of a grid.

    Attributes:
        kind: rotate (by `first` quarter turns, counter-clockwise), flip (left to right, or top to bottom where `first` is 1), pad (a
            border of `first` cells of colour `second`), upscale (each cell becomes `first` by `second` cells), mirror (the grid with its
            mirror image on its right where `first` is 1, and below where `second` is 1).
        first, second: parameters of the kind.
    """

    kind: str
    first: int
    second: int = 0

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The shape that a grid of this shape becomes."""
        if self.kind == "rotate":
            return (width, height) if self.first % 2 else (height, width)
        if self.kind == "pad":
            return height + 2 * self.first, width + 2 * self.first
        if self.kind == "upscale":
            return height * self.first, width * self.second
        if self.kind == "mirror":
            return height * (1 + self.second), width * (1 + self.first)
        return height, width

    def apply(self, grid: Grid) -> Grid:
        """The changed grid."""
        if self.kind == "rotate":
            return frozen(np.rot90(grid, self.first))
        if self.kind == "flip":
            return frozen(grid[::-1] if self.first else grid[:, ::-1])
        if self.kind == "pad":
            return frozen(np.pad(grid, self.first, constant_values=self.second))
        if self.kind == "upscale":
            return frozen(grid.repeat(self.first, axis=0).repeat(self.second, axis=1))
        wide = np.concatenate([grid, grid[:, ::-1]], axis=1) if self.first else grid
        return frozen(np.concatenate([wide, wide[::-1]], axis=0) if self.second else wide)

    def undo(self, grid: Grid) -> Grid:
        """The inverse of `apply`."""
        if self.kind == "rotate":
            return frozen(np.rot90(grid, -self.first))
        if self.kind == "flip":
            return self.apply(grid)
        if self.kind == "pad":
            return frozen(grid[self.first : -self.first, self.first : -self.first])
        if self.kind == "upscale":
            return frozen(grid[:: self.first, :: self.second])
        height, width = grid.shape
        return frozen(grid[: height // (1 + self.second), : width // (1 + self.first)])


@dataclass(frozen=True)
class TaskChange:
    """Changes of one side of every pair, in this order."""

    side: Literal["input", "output"]
    steps: tuple[GridChange, ...]

    def grid(self, grid: Grid) -> Grid:
        """A grid of that side, changed."""
        for step in self.steps:
            grid = step.apply(grid)
        return grid

    def pair(self, pair: Pair) -> Pair:
        """The pair with its side changed."""
        return Pair(self.grid(pair.input), pair.output) if self.side == "input" else Pair(pair.input, self.grid(pair.output))


def random_change(rng: np.random.Generator) -> GridChange:
    """A change drawn uniformly by kind; never one that leaves every grid as it is."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    if kind == "rotate":
        return GridChange(kind, int(rng.integers(1, 4)))
    if kind == "flip":
        return GridChange(kind, int(rng.integers(2)))
    if kind == "pad":
        return GridChange(kind, int(rng.integers(1, 4)), int(rng.integers(COLOURS)))
    sides = ((1, 2), (2, 1), (2, 2), (3, 3)) if kind == "upscale" else ((1, 0), (0, 1), (1, 1))
    first, second = sides[int(rng.integers(len(sides)))]
    return GridChange(kind, first, second)


def random_task_change(rng: np.random.Generator, pairs: Sequence[Pair]) -> TaskChange | None:
    """A change of one side by one step, or in a third of the cases by two, that keeps every grid within 30 x 30.

    Returns None where none is found, as for large grids, which only changes that keep the shape leave within the limit.
    """
    side: Literal["input", "output"] = "input" if rng.random() < 0.5 else "output"
    shapes = {(pair.input if side == "input" else pair.output).shape for pair in pairs}
    for _ in range(_TRIES):
        steps = tuple(random_change(rng) for _ in range(2 if rng.random() < 1 / 3 else 1))
        if len(steps) == 2 and steps[0].kind == steps[1].kind:
            continue  # two flips or turns could undo each other
        if all(_fits(steps, *shape) for shape in shapes):
            return TaskChange(side, steps)
    return None


def _fits(steps: tuple[GridChange, ...], height: int, width: int) -> bool:
    for step in steps:
        height, width = step.shape(height, width)
    return height <= MAX_SIDE and width <= MAX_SIDE
