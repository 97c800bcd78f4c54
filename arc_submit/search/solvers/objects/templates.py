"""Templates: an object of several colours whose partial copies elsewhere in the grid are completed.

A copy may be turned, mirrored and enlarged, and one of its colours may differ from the template's. The train pairs decide which of these
are allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import commonest_colour, enlarged, keeps_size, label_objects, oriented
from arc_submit.search.solvers.objects.scenes import Object, scene_of
from arc_submit.search.solvers.objects.trust import NAME
from arc_submit.search.store import Array

MAX_CELLS = 100  # of a template
MAX_SCALE = 4


@dataclass(frozen=True)
class Variation:
    """The allowed differences between a template and its copies.

    Attributes:
        turns: the number of orientations to try, 1 or 8.
        scales: the maximum scale.
        recolours: the template's commonest colour may be another one in a copy.
        removes: the template itself vanishes.
    """

    turns: int
    scales: int
    recolours: bool
    removes: bool
    cost: float

    @property
    def text(self) -> str:
        words = ["turned"] * (self.turns > 1) + ["enlarged"] * (self.scales > 1) + ["recoloured"] * self.recolours
        return (
            f"complete partial copies of a template{' (' + ', '.join(words) + ')' if words else ''}{', which goes' if self.removes else ''}"
        )


VARIATIONS = tuple(
    Variation(turns, scales, recolours, removes, 2.0 * (turns > 1) + 2.0 * (scales > 1) + 3.0 * recolours + 1.0 * removes)
    for removes in (False, True)
    for recolours in (False, True)
    for scales in (1, MAX_SCALE)
    for turns in (1, 8)
)


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the two simplest variations that reproduce every train pair."""
    if not keeps_size(task):
        return []
    answers: list[SolverAnswer] = []
    found = 0
    for variation in sorted(VARIATIONS, key=lambda v: v.cost):
        if all(same_grid(complete(pair.input, variation), pair.output) for pair in task.train):
            found += 1
            for test, grid in enumerate(task.tests):
                out = complete(grid, variation)
                if out is not None:
                    answers.append(SolverAnswer(test, out, NAME, variation.text, 1.0, 10.0 + variation.cost))
        if found == 2:
            break
    return answers


def complete(grid: Grid, variation: Variation) -> Grid | None:
    """The grid with every partial copy completed, or None where some painted cell belongs to neither a template nor a copy."""
    background = commonest_colour(grid)
    labels, count = label_objects(grid, background, True, False)
    if not 1 < count <= 30:
        return None
    objects = scene_of(grid, background, labels - 1, count).objects
    several = [o for o in objects if o.colour_count > 1 and o.area <= MAX_CELLS]
    if not several:
        return None
    most = max(o.colour_count for o in several)
    several = sorted((o for o in several if o.colour_count == most), key=lambda o: -o.area)[:4]
    # All of the objects with most colours may be templates, or one of them, and the others partial copies of it.
    for templates in [several] + [[o] for o in several] * (len(several) > 1):
        out = _complete_copies(grid, background, templates, variation)
        if out is not None:
            return out
    return None


def _complete_copies(grid: Grid, background: int, templates: list[Object], variation: Variation) -> Grid | None:
    out = grid.copy()
    open_cells = grid != background
    for o in templates:
        open_cells[o.rows, o.columns] = False
        if variation.removes:
            out[o.rows, o.columns] = background
    if not open_cells.any():
        return None
    places = []
    for o in templates:
        for number, picture in enumerate(_pictures(o, variation)):
            free_colour = o.colour if variation.recolours else -1
            for lost, hits, place in _places(grid, open_cells, picture, background, free_colour):
                places.append((lost, -hits, number, place))
    # Places completely inside the grid come first, then those with most visible cells, then the plainest picture.
    for _, _, _, (ys, xs, colours) in sorted(places, key=lambda place: place[:3]):
        if open_cells[ys, xs].any():
            out[ys, xs] = colours
            open_cells[ys, xs] = False
    return None if open_cells.any() else frozen(out)


def _pictures(o: Object, variation: Variation) -> Iterator[Array]:
    """The different pictures of the template's copies, the plainest first; -1 where they are transparent."""
    seen: set[bytes] = set()
    for scale in range(1, variation.scales + 1):
        for turn in range(variation.turns):
            picture = enlarged(oriented(o.picture, turn), scale)
            key = bytes(picture.shape) + picture.tobytes()
            if key not in seen and max(picture.shape) <= MAX_SIDE:
                seen.add(key)
                yield picture


Place = tuple[Array, Array, Array]  # rows, columns, colours


def _places(grid: Grid, open_cells: Array, picture: Array, background: int, free_colour: int) -> Iterator[tuple[int, int, Place]]:
    """The places where a picture fits: it shows all cells of at least one of its colours, and no other painted cell contradicts.

    Args:
        free_colour: the colour of the picture that may be another one in a copy, or -1.

    Yields:
        the number of its cells outside the grid, the number of visible ones, and the cells to paint.
    """
    (h, w), (height, width) = grid.shape, picture.shape
    ys, xs = np.nonzero(picture >= 0)
    colours = picture[ys, xs]
    # Outside the grid -1, templates -2, background COLOURS; `seen` is (picture cells, rows, columns) over all places of the picture.
    visible = np.where(open_cells, grid, np.where(grid == background, COLOURS, -2)).astype(np.int8)
    padded = np.pad(visible, ((height, height), (width, width)), constant_values=-1)
    rows, columns = h + height + 1, w + width + 1
    seen = np.stack([padded[y : y + rows, x : x + columns] for y, x in zip(ys, xs, strict=True)])
    match = seen == colours[:, None, None]
    fixed = colours != free_colour
    if free_colour >= 0:
        other = (seen >= 0) & (seen < COLOURS) & ~fixed[:, None, None]
        first = np.where(other, seen, -1).max(axis=0)
        match |= other & (seen == first)
    clash = (~match & (seen != COLOURS) & (seen != -1)).any(axis=0)
    hits = match.sum(axis=0)
    # At least one colour of the picture must be visible in full, apart from cells outside the grid.
    full = np.zeros(hits.shape, np.bool_)
    for c in np.unique(colours):
        full |= (match | (seen == -1))[colours == c].all(axis=0) & match[colours == c].any(axis=0)
    fits = full & ~clash
    if free_colour >= 0:
        fits &= match[fixed].any(axis=0) & match[~fixed].any(axis=0)
    for a, b in np.argwhere(fits).tolist():
        y, x = ys + a - height, xs + b - width
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        paint = colours.copy()
        if free_colour >= 0:
            paint[~fixed] = np.where(match[:, a, b] & ~fixed, seen[:, a, b], -1).max()
        yield int((~inside).sum()), int(hits[a, b]), (y[inside], x[inside], paint[inside])
