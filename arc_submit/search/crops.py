"""Crops: named ways to cut one smaller grid out of a grid, for tasks whose output is such a grid with some cells changed.

This module does not know tasks; a crop that does not apply to a grid returns None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid, frozen, grid_id
from arc_submit.search.features import at_edge, component_table
from arc_submit.search.grid_tools import (
    background_of,
    block_side,
    bounding_box,
    distinct_lines,
    find_panels,
    find_unequal_panels,
    painted_counts,
    rarest_index,
)
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

Crop = Callable[[Grid], Grid | None]


def crops() -> Iterator[tuple[str, Crop]]:
    """Name and function of every crop, the plainest first."""
    yield "the box of what is painted", lambda grid: _box(grid, grid != background_of(grid))
    yield "the inside of the frame", lambda grid: frozen(grid[1:-1, 1:-1]) if min(grid.shape) > 2 else None
    yield "one of each equal run of rows and columns", lambda grid: frozen(distinct_lines(grid))
    yield "the panels without lines", _without_lines
    yield "the blocks as cells", _blocks
    for key in ("largest", "smallest", "most colours", "fewest colours", "only one not touching the edge"):
        for diagonal in (False, True):
            yield f"the object: {key}{' (8)' if diagonal else ''}", partial(_object, key=key, diagonal=diagonal)
    for key in ("fullest", "emptiest", "odd", "most colours", "fewest colours", "first", "last"):
        yield f"the panel: {key}", partial(_panel, key=key)
    yield "the box of the rarest colour", lambda grid: _colour_box(grid, int(rarest_index(painted_counts(grid))))
    for colour in range(1, COLOURS):
        yield f"the box of colour {colour}", partial(_colour_box, colour=colour)
        yield f"inside the box of colour {colour}", partial(_colour_box, colour=colour, margin=1)
    for name, rows, columns, i, j in (
        ("top half", 2, 1, 0, 0), ("bottom half", 2, 1, 1, 0), ("left half", 1, 2, 0, 0), ("right half", 1, 2, 0, 1),
        ("top left quarter", 2, 2, 0, 0), ("top right quarter", 2, 2, 0, 1), ("bottom left quarter", 2, 2, 1, 0),
        ("bottom right quarter", 2, 2, 1, 1), ("first third down", 3, 1, 0, 0), ("first third across", 1, 3, 0, 0),
    ):  # fmt: skip
        yield f"the {name}", partial(_part, rows=rows, columns=columns, i=i, j=j)
    yield "the corners", lambda grid: frozen(grid[np.ix_([0, -1], [0, -1])])
    yield "all but the largest object", _without_largest
    for key in ("largest", "smallest"):
        yield f"the {key} object as cells", partial(_object_as_cells, key=key)
        yield f"the {key} panel of any size", partial(_unequal_panel, key=key)


def distinct_crops(inputs: list[Grid], outputs: list[Grid] | None = None) -> Iterator[tuple[str, list[Grid]]]:
    """The crops that apply to all inputs, each different result once, with the cropped grids.

    Args:
        outputs: where given, the outputs of the first inputs, whose sizes the cropped grids must have.
    """
    seen: set[tuple[bytes, ...]] = set()
    for name, crop in crops():
        cropped: list[Grid] = []
        for k, grid in enumerate(inputs):
            part = crop(grid)
            if part is None or (outputs and k < len(outputs) and part.shape != outputs[k].shape):
                break
            cropped.append(part)
        ids = tuple(grid_id(grid) for grid in cropped)
        if len(cropped) == len(inputs) and ids not in seen:
            seen.add(ids)
            yield name, cropped


def _box(grid: Grid, mask: Array, margin: int = 0) -> Grid | None:
    """The bounding box of the marked cells without a margin; None where nothing is left."""
    box = bounding_box(mask)
    if box is None:
        return None
    rows, columns = box
    out = grid[rows.start + margin : rows.stop - margin, columns.start + margin : columns.stop - margin]
    return frozen(out) if out.size else None


def _colour_box(grid: Grid, colour: int, margin: int = 0) -> Grid | None:
    return _box(grid, grid == colour, margin)


def _part(grid: Grid, rows: int, columns: int, i: int, j: int) -> Grid | None:
    height, width = grid.shape[0] // rows, grid.shape[1] // columns
    if height == 0 or width == 0:
        return None
    # The last part is flush with the far edge, so that a middle line belongs to neither half.
    top = grid.shape[0] - height if i else 0
    left = grid.shape[1] - width if j else 0
    return frozen(grid[top : top + height, left : left + width])


def _without_largest(grid: Grid) -> Grid | None:
    labels, count = label(np.array(grid), True, True)
    if count < 2:
        return None
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return _box(grid, (labels > 0) & (labels != int(sizes.argmax()) + 1))


def _without_lines(grid: Grid) -> Grid | None:
    found = find_panels(grid)
    if found is None:
        return None
    rows, columns = ([k for a, b in spans for k in range(a, b)] for spans in found[:2])
    return frozen(grid[np.ix_(rows, columns)])


def _blocks(grid: Grid) -> Grid | None:
    k = block_side(grid)
    return frozen(grid[::k, ::k]) if k > 1 else None


def _unique_extreme(scores: Array, smallest: bool) -> int | None:
    """The index of the best score, None on a tie."""
    best = scores.min() if smallest else scores.max()
    places = np.flatnonzero(scores == best)
    return int(places[0]) if len(places) == 1 else None


def _object(grid: Grid, key: str, diagonal: bool, alone: bool = False) -> Grid | None:
    """The box of the object that a property singles out, with other objects in it unless `alone`."""
    labels, count = label(np.array(grid), diagonal, False)
    if count == 0:
        return None
    boxes, own, _ = component_table(labels, count, np.array(grid))
    boxes, own = boxes[1:], own[1:]
    if key.startswith("only"):
        scores = at_edge(boxes, grid)
    else:
        scores = own.sum(axis=1) if key in ("largest", "smallest") else (own > 0).sum(axis=1)
    chosen = _unique_extreme(scores, key not in ("largest", "most colours"))
    if chosen is None:
        return None
    top, left, bottom, right = boxes[chosen]
    box = slice(top, bottom + 1), slice(left, right + 1)
    return frozen(np.where(labels[box] == chosen + 1, grid[box], 0).astype(np.int8) if alone else grid[box])


def _object_as_cells(grid: Grid, key: str) -> Grid | None:
    """One cell for each of the blocks that the object consists of."""
    picture = _object(grid, key, True, alone=True)
    return None if picture is None else _blocks(picture)


def _unequal_panel(grid: Grid, key: str) -> Grid | None:
    """The panel between lines with most or fewest cells, where the panels are not of one size."""
    found = find_unequal_panels(grid)
    if found is None:
        return None
    panels = [grid[a:b, c:d] for a, b in found[0] for c, d in found[1]]
    chosen = _unique_extreme(np.array([panel.size for panel in panels]), key == "smallest")
    return None if chosen is None else frozen(panels[chosen])


def _panel(grid: Grid, key: str) -> Grid | None:
    """One of the panels between lines, or of the squares side by side that a grid consists of."""
    found = find_panels(grid)
    side = min(grid.shape)
    if found is not None:
        panels = [grid[a:b, c:d] for a, b in found[0] for c, d in found[1]]
    elif max(grid.shape) > side > 1 and max(grid.shape) % side == 0:
        panels = [grid[a : a + side, c : c + side] for a in range(0, grid.shape[0], side) for c in range(0, grid.shape[1], side)]
    else:
        return None
    if key in ("first", "last"):
        return frozen(panels[0 if key == "first" else -1])
    if key == "odd":
        ids = [panel.tobytes() for panel in panels]
        scores = [ids.count(panel_id) for panel_id in ids]
    elif key.endswith("colours"):
        scores = [len(np.unique(panel)) for panel in panels]
    else:
        scores = [int((panel != 0).sum()) for panel in panels]
    chosen = _unique_extreme(np.array(scores), key in ("emptiest", "odd", "fewest colours"))
    return None if chosen is None else frozen(panels[chosen])
