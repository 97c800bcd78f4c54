"""Crops: named ways to cut or squeeze one smaller grid out of a grid, for tasks whose output is such a grid with some cells changed.

Knows nothing about tasks; a crop that does not apply to a grid gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen
from arc_submit.search.features import component_table, find_panels
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

Crop = Callable[[Grid], Grid | None]


def crops() -> Iterator[tuple[str, Crop]]:
    """Name and function of every crop, the plainest first."""
    yield "the box of what is painted", lambda grid: _box(grid, grid != _background(grid))
    yield "the inside of the frame", lambda grid: frozen(grid[1:-1, 1:-1]) if min(grid.shape) > 2 else None
    yield "one of each equal run of rows and columns", _without_repeats
    yield "the panels without lines", _without_lines
    yield "the blocks as cells", _blocks
    for key in ("largest", "smallest", "most colours", "fewest colours", "only one not touching the edge"):
        for diagonal in (False, True):
            yield f"the object: {key}{' (8)' if diagonal else ''}", _object(key, diagonal)
    for key in ("fullest", "emptiest", "odd", "most colours", "fewest colours", "first", "last"):
        yield f"the panel: {key}", _panel(key)
    yield "the box of the rarest colour", lambda grid: _box(grid, grid == _rarest(grid))
    for colour in range(1, COLOURS):
        yield f"the box of colour {colour}", _colour_box(colour, 0)
        yield f"inside the box of colour {colour}", _colour_box(colour, 1)
    for name, rows, columns, i, j in (
        ("top half", 2, 1, 0, 0), ("bottom half", 2, 1, 1, 0), ("left half", 1, 2, 0, 0), ("right half", 1, 2, 0, 1),
        ("top left quarter", 2, 2, 0, 0), ("top right quarter", 2, 2, 0, 1), ("bottom left quarter", 2, 2, 1, 0),
        ("bottom right quarter", 2, 2, 1, 1), ("first third down", 3, 1, 0, 0), ("first third across", 1, 3, 0, 0),
    ):  # fmt: skip
        yield f"the {name}", _part(rows, columns, i, j)
    yield "the corners", lambda grid: frozen(grid[np.ix_([0, -1], [0, -1])])
    yield "all but the largest object", _rest


def _background(grid: Grid) -> int:
    return 0 if (grid == 0).any() else int(np.bincount(grid.ravel()).argmax())


def _rarest(grid: Grid) -> int:
    counts = np.bincount(grid.ravel(), minlength=COLOURS)
    counts[0] = 0
    return int(np.where(counts > 0, counts, 10**6).argmin())


def _box(grid: Grid, mask: Array, margin: int = 0) -> Grid | None:
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return None
    out = grid[ys.min() + margin : ys.max() + 1 - margin, xs.min() + margin : xs.max() + 1 - margin]
    return frozen(out) if out.size else None


def _colour_box(colour: int, margin: int) -> Crop:
    return lambda grid: _box(grid, grid == colour, margin)


def _part(rows: int, columns: int, i: int, j: int) -> Crop:
    def crop(grid: Grid) -> Grid | None:
        height, width = grid.shape[0] // rows, grid.shape[1] // columns
        if height == 0 or width == 0:
            return None
        # The last part is flush with the far edge, so that a middle line belongs to no half.
        top = grid.shape[0] - height if i else 0
        left = grid.shape[1] - width if j else 0
        return frozen(grid[top : top + height, left : left + width])

    return crop


def _rest(grid: Grid) -> Grid | None:
    labels, count = label(np.array(grid), True, True)
    if count < 2:
        return None
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return _box(grid, (labels > 0) & (labels != int(sizes.argmax()) + 1))


def _without_repeats(grid: Grid) -> Grid:
    rows = [0, *(i for i in range(1, grid.shape[0]) if (grid[i] != grid[i - 1]).any())]
    grid = grid[rows]
    columns = [0, *(j for j in range(1, grid.shape[1]) if (grid[:, j] != grid[:, j - 1]).any())]
    return frozen(grid[:, columns])


def _without_lines(grid: Grid) -> Grid | None:
    found = find_panels(grid)
    if found is None:
        return None
    rows = [i for a, b in found[0] for i in range(a, b)]
    columns = [j for a, b in found[1] for j in range(a, b)]
    return frozen(grid[np.ix_(rows, columns)])


def _blocks(grid: Grid) -> Grid | None:
    for k in range(min(grid.shape), 1, -1):
        if grid.shape[0] % k == 0 and grid.shape[1] % k == 0 and (np.kron(grid[::k, ::k], np.ones((k, k), np.int8)) == grid).all():
            return frozen(grid[::k, ::k])
    return None


def _choose(scores: Array, smallest: bool) -> int | None:
    """The place of the one best score, None where two share it."""
    best = scores.min() if smallest else scores.max()
    places = np.flatnonzero(scores == best)
    return int(places[0]) if len(places) == 1 else None


def _object(key: str, diagonal: bool) -> Crop:
    def crop(grid: Grid) -> Grid | None:
        labels, count = label(np.array(grid), diagonal, False)
        if count == 0:
            return None
        boxes, own, _ = component_table(labels, count, np.array(grid))
        boxes, own = boxes[1:], own[1:]
        edge = (boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (boxes[:, 2] == grid.shape[0] - 1) | (boxes[:, 3] == grid.shape[1] - 1)
        scores = edge if key.startswith("only") else own.sum(axis=1) if key in ("largest", "smallest") else (own > 0).sum(axis=1)
        chosen = _choose(scores, key not in ("largest", "most colours"))
        if chosen is None:
            return None
        top, left, bottom, right = boxes[chosen]
        return frozen(grid[top : bottom + 1, left : right + 1])

    return crop


def _panel(key: str) -> Crop:
    def crop(grid: Grid) -> Grid | None:
        found = find_panels(grid)
        if found is None:
            return None
        panels = [grid[a:b, c:d] for a, b in found[0] for c, d in found[1]]
        if key in ("first", "last"):
            return frozen(panels[0 if key == "first" else -1])
        names = [panel.tobytes() for panel in panels]
        by_key = {
            "odd": [names.count(name) for name in names],
            "most colours": [len(np.unique(panel)) for panel in panels],
            "fewest colours": [len(np.unique(panel)) for panel in panels],
        }
        scores = np.array(by_key.get(key) or [int((panel != 0).sum()) for panel in panels])
        chosen = _choose(scores, key in ("emptiest", "odd", "fewest colours"))
        return None if chosen is None else frozen(panels[chosen])

    return crop
