"""Templates: an object of several colours, of which other places of the grid show only some cells, completed there.

The template may be turned, mirrored and made larger on its way, and one of its colours may be that of the place instead of its own. Which
of these are allowed is what the train pairs decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.primitives.splitting import label
from arc_submit.search.solvers.objects.scenes import Object, scene_of
from arc_submit.search.solvers.objects.trust import NAME
from arc_submit.search.store import Array

MAX_CELLS = 100  # of a template
MAX_SCALE = 4


@dataclass(frozen=True)
class Freedom:
    """What may happen to a template on its way to a place.

    Attributes:
        turns: how many of the eight orientations are tried.
        scales: up to how many times as large it may be.
        recolours: its commonest colour may be another one in another place.
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


FREEDOMS = tuple(
    Freedom(turns, scales, recolours, removes, 2.0 * (turns > 1) + 2.0 * (scales > 1) + 3.0 * recolours + 1.0 * removes)
    for removes in (False, True)
    for recolours in (False, True)
    for scales in (1, MAX_SCALE)
    for turns in (1, 8)
)


def solve(task: Task) -> list[Answer]:
    """Answers of the two least free ways that reproduce every train pair."""
    if any(pair.input.shape != pair.output.shape for pair in task.train):
        return []
    answers: list[Answer] = []
    found = 0
    for freedom in sorted(FREEDOMS, key=lambda f: f.cost):
        if all(same_grid(complete(pair.input, freedom), pair.output) for pair in task.train):
            found += 1
            for test, grid in enumerate(task.tests):
                out = complete(grid, freedom)
                if out is not None:
                    answers.append(Answer(test, out, NAME, freedom.text, 1.0, 10.0 + freedom.cost))
        if found == 2:
            break
    return answers


def complete(grid: Grid, freedom: Freedom) -> Grid | None:
    """The grid with every partial copy completed, or None where some painted cell is neither a template's nor a copy's."""
    background = int(np.bincount(grid.ravel(), minlength=COLOURS).argmax())
    labels, count = label(np.where(grid == background, 0, grid + 1).astype(np.int8), True, False)
    if not 1 < count <= 30:
        return None
    objects = scene_of(grid, background, labels - 1, count).objects
    several = [o for o in objects if (o.counts > 0).sum() > 1 and o.area <= MAX_CELLS]
    if not several:
        return None
    most = max(int((o.counts > 0).sum()) for o in several)
    several = sorted((o for o in several if (o.counts > 0).sum() == most), key=lambda o: -o.area)[:4]
    # All of the objects with most colours may be templates, or one of them, and the others partial copies of it.
    for templates in [several] + [[o] for o in several] * (len(several) > 1):
        out = _completed(grid, background, templates, freedom)
        if out is not None:
            return out
    return None


def _completed(grid: Grid, background: int, templates: list[Object], freedom: Freedom) -> Grid | None:
    out = grid.copy()
    open_cells = grid != background
    for o in templates:
        open_cells[o.rows, o.columns] = False
        if freedom.removes:
            out[o.rows, o.columns] = background
    if not open_cells.any():
        return None
    places = []
    for o in templates:
        for number, picture in enumerate(_pictures(o, freedom)):
            free_colour = o.colour if freedom.recolours else -1
            places += [(lost, -hits, number, place) for lost, hits, place in _places(grid, open_cells, picture, background, free_colour)]
    # Places wholly inside the grid come first, then those that most cells speak for, then the plainest picture.
    for _, _, _, (ys, xs, colours) in sorted(places, key=lambda place: place[:3]):
        if open_cells[ys, xs].any():
            out[ys, xs] = colours
            open_cells[ys, xs] = False
    return None if open_cells.any() else frozen(out)


def _pictures(o: Object, freedom: Freedom) -> Iterator[Array]:
    """The template as it can look, the plainest first; -1 where it is transparent."""
    seen: set[bytes] = set()
    for scale in range(1, freedom.scales + 1):
        for turn in range(freedom.turns):
            picture = np.rot90(o.picture if turn < 4 else o.picture.T, turn % 4)
            picture = np.kron(picture, np.ones((scale, scale), np.int8))
            key = bytes(picture.shape) + picture.tobytes()
            if key not in seen and max(picture.shape) <= 30:
                seen.add(key)
                yield picture


Place = tuple[Array, Array, Array]  # rows, columns, colours


def _places(grid: Grid, open_cells: Array, picture: Array, background: int, free_colour: int) -> Iterator[tuple[int, int, Place]]:
    """Where a picture fits: all its cells of one colour at least are seen, and no other painted cell contradicts.

    Args:
        free_colour: the colour of the picture that may be another one in a place, or -1.

    Yields:
        how many of its cells are outside the grid, how many are seen, and what to paint where.
    """
    h, w = grid.shape
    ys, xs = np.nonzero(picture >= 0)
    colours = picture[ys, xs]
    present = np.unique(colours).tolist()
    padded = np.full((h + 2 * picture.shape[0], w + 2 * picture.shape[1]), -1, np.int8)
    padded[picture.shape[0] : picture.shape[0] + h, picture.shape[1] : picture.shape[1] + w] = np.where(
        open_cells, grid, np.where(grid == background, COLOURS, -2)
    )
    rows, columns = padded.shape[0] - picture.shape[0] + 1, padded.shape[1] - picture.shape[1] + 1
    seen = np.stack([padded[y : y + rows, x : x + columns] for y, x in zip(ys, xs, strict=True)])
    wanted = colours[:, None, None]
    match = seen == wanted
    fixed = colours != free_colour
    if free_colour >= 0:
        other = (seen >= 0) & (seen < COLOURS) & ~fixed[:, None, None]
        first = np.where(other, seen, -1).max(axis=0)
        match |= other & (seen == first)
    clash = (~match & (seen != COLOURS) & (seen != -1)).any(axis=0)
    hits = match.sum(axis=0)
    # One colour of the picture at least must be seen in full (outside the grid nothing is seen).
    full = np.zeros(hits.shape, np.bool_)
    for c in present:
        full |= (match | (seen == -1))[colours == c].all(axis=0) & match[colours == c].any(axis=0)
    fits = full & ~clash
    if free_colour >= 0:
        fits &= match[fixed].any(axis=0) & match[~fixed].any(axis=0)
    for a, b in np.argwhere(fits).tolist():
        y, x = ys + a - picture.shape[0], xs + b - picture.shape[1]
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        paint = colours.copy()
        if free_colour >= 0:
            paint[~fixed] = np.where(match[:, a, b] & ~fixed, seen[:, a, b], -1).max()
        yield int((~inside).sum()), int(hits[a, b]), (y[inside], x[inside], paint[inside])
