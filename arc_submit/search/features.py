"""Features of cells: small integers for every cell of a grid that describe the cell, its surroundings, its lines and its component.

This module does not know outputs. The plainest columns come first, because a tree takes the first of equally good ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.search.grid_tools import find_panels, painted_counts, rarest_index
from arc_submit.search.jit import jit
from arc_submit.search.primitives.line import STEPS
from arc_submit.search.primitives.lists import hole_count
from arc_submit.search.primitives.region import outside
from arc_submit.search.primitives.splitting import component_boxes, label
from arc_submit.search.store import Array

OUT = 10  # the colour of places outside the grid
TABLES_HELD = 100  # more than a task has grids in all orientations; a fifth of a megabyte for the largest grid
FAR = 63  # the highest value of a feature: also "no such place"
DIRECTIONS = ("up", "down", "left", "right", "up_left", "up_right", "down_left", "down_right")  # in the order of STEPS
CORNERS = {"top_left": (0, 0), "top_right": (0, -1), "bottom_left": (-1, 0), "bottom_right": (-1, -1)}
_TWO_AWAY = (
    (-2, 0), (2, 0), (0, -2), (0, 2), (-2, -2), (-2, 2), (2, -2), (2, 2),
    (-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (1, -2), (-1, 2), (1, 2),
)  # fmt: skip


@dataclass(frozen=True)
class FeatureTable:
    """One example as rows of features, in reading order of the output's cells.

    Attributes:
        features: uint8 (cells, columns).
        shape: (height, width) of the output.
        names: of the columns.
        is_colour: bool (columns,), which columns contain colours, so that a rule may copy them.
        groups: of the columns, for rules that may use some groups only.
    """

    features: Array
    shape: tuple[int, int]
    names: tuple[str, ...]
    is_colour: Array
    groups: tuple[str, ...]

    def only(self, groups: Sequence[str]) -> FeatureTable:
        """The columns of some groups."""
        chosen = [k for k, group in enumerate(self.groups) if group in groups]
        names = tuple(self.names[k] for k in chosen)
        return FeatureTable(self.features[:, chosen], self.shape, names, self.is_colour[chosen], tuple(self.groups[k] for k in chosen))


def joined(tables: Sequence[FeatureTable]) -> FeatureTable:
    """The columns of several tables of one grid."""
    return FeatureTable(
        np.concatenate([table.features for table in tables], axis=1),
        tables[0].shape,
        tuple(name for table in tables for name in table.names),
        np.concatenate([table.is_colour for table in tables]),
        tuple(group for table in tables for group in table.groups),
    )


class FeatureColumns:
    """A feature table under construction: names, values clipped to 0..63, and which columns contain colours."""

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape
        self.names: list[str] = []
        self.values: list[Array] = []
        self.is_colour: list[bool] = []
        self.groups: list[str] = []
        self.group = ""  # of the columns that are added next

    def add(self, name: str, values: Array, is_colour: bool = False) -> None:
        """Add a column from an array that broadcasts to the grid's shape."""
        self.names.append(name)
        column = np.empty(self.shape, np.uint8)
        column[...] = values if values.dtype == np.bool_ else np.minimum(np.maximum(values, 0), FAR)
        self.values.append(column)
        self.is_colour.append(is_colour)
        self.groups.append(self.group)

    def table(self) -> FeatureTable:
        """The finished table."""
        features = np.stack([values.ravel() for values in self.values], axis=1)
        return FeatureTable(features, self.shape, tuple(self.names), np.array(self.is_colour), tuple(self.groups))


def cell_table(grid: Grid) -> FeatureTable:
    """`cell_features` as a table; several solvers ask for that of the same grid, and must not change it."""
    return _cell_table((grid.shape[0], grid.shape[1]), np.asarray(grid, np.int8).tobytes())


@lru_cache(maxsize=TABLES_HELD)
def _cell_table(shape: tuple[int, int], cells: bytes) -> FeatureTable:
    return cell_features(np.frombuffer(cells, np.int8).reshape(shape)).table()


def cell_features(grid: Grid) -> FeatureColumns:
    """All features of a grid's cells."""
    grid = np.array(grid)
    out = FeatureColumns((grid.shape[0], grid.shape[1]))
    for group, add in (
        ("near", _neighbours), ("parts", _components), ("lines", _in_line), ("places", _places), ("mirrors", _mirrors), ("whole", _whole),
        ("panels", _panels), ("periods", _periods),
    ):  # fmt: skip
        out.group = group
        add(out, grid)
    return out


def _neighbours(out: FeatureColumns, grid: Grid) -> None:
    h, w = grid.shape
    padded = np.pad(grid, 2, constant_values=OUT)
    around = np.stack([padded[2 + i : 2 + i + h, 2 + j : 2 + j + w] for i, j in STEPS])
    out.add("colour", grid, True)
    for name, neighbours in zip(DIRECTIONS, around, strict=True):
        out.add(name, neighbours, True)
    for i, j in _TWO_AWAY:
        out.add(f"at_{i}_{j}", padded[2 + i : 2 + i + h, 2 + j : 2 + j + w])
    out.add("same_around_4", (around[:4] == grid).sum(axis=0))
    out.add("same_around_8", (around == grid).sum(axis=0))
    painted = (around > 0) & (around < OUT)
    out.add("painted_around_4", painted[:4].sum(axis=0))
    out.add("painted_around_8", painted.sum(axis=0))
    out.add("highest_around_4", np.where(painted[:4], around[:4], 0).max(axis=0), True)
    out.add("highest_around_8", np.where(painted, around, 0).max(axis=0), True)


def _components(out: FeatureColumns, grid: Grid) -> None:
    """Features of a cell's component: of one colour (0 a colour like any other), then of painted cells of any colour."""
    out.add("outside", outside(grid, False))
    out.add("outside_diagonal", outside(grid, True))
    for name, cells, diagonal, one_colour in (
        ("part4", grid + 1, False, True),
        ("part8", grid + 1, True, True),
        ("object", grid, True, False),
    ):
        labels, count = label(cells.astype(np.int8), diagonal, one_colour)
        boxes, own, around = component_table(labels, count, grid)
        sizes, heights, widths = own.sum(axis=1), boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
        commonest = own.argmax(axis=1)
        shapes = [b""] * (count + 1)
        holes, mirrored = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
        for k in range(1, count + 1):
            mask = (labels[boxes[k, 0] : boxes[k, 2] + 1, boxes[k, 1] : boxes[k, 3] + 1] == k).astype(np.int8)
            shapes[k] = bytes(mask.shape) + mask.tobytes()
            holes[k] = hole_count(mask) if sizes[k] > 3 else 0
            mirrored[k] = mirror_code(mask)
        peers = (commonest[:, None] != 0) == (commonest[None, :] != 0)
        peers[:, 0] = False
        shape_counts = {shape: shapes.count(shape) for shape in set(shapes)}
        painted_around = around.copy()
        painted_around[:, 0] = 0
        values = {
            "size": sizes,
            "larger": (peers & (sizes[None, :] > sizes[:, None])).sum(axis=1),
            "smaller": (peers & (sizes[None, :] < sizes[:, None])).sum(axis=1),
            "equal": (peers & (sizes[None, :] == sizes[:, None])).sum(axis=1),
            "height": heights,
            "width": widths,
            "edge": at_edge(boxes, grid),
            "holes": holes,
            "full": sizes == heights * widths,
            "square": heights == widths,
            "mirrored": mirrored,
            "rarest": rarest_index(own),
            "commonest": commonest,
            "alike": np.array([shape_counts[shape] for shape in shapes]),
            "neighbour": painted_around.argmax(axis=1),
            "neighbours": (around > 0).sum(axis=1),
            "colours": (own > 0).sum(axis=1),
            "right_of": (peers & (boxes[None, :, 1] < boxes[:, None, 1])).sum(axis=1),
            "below": (peers & (boxes[None, :, 0] < boxes[:, None, 0])).sum(axis=1),
            "longer_side": np.maximum(heights, widths),
            "lying": np.sign(widths - heights) + 1,
        }
        for key, column in values.items():
            column = np.array(column, dtype=np.int64)
            column[0] = 0
            out.add(f"{name}_{key}", column[labels], key == "neighbour" or (key in ("rarest", "commonest") and name == "object"))
        rows, columns = np.indices(grid.shape)
        inside = labels > 0
        top, left, bottom, right = (boxes[labels][:, :, k] for k in range(4))
        out.add(f"{name}_from_top", np.where(inside, rows - top, FAR))
        out.add(f"{name}_from_left", np.where(inside, columns - left, FAR))
        out.add(f"{name}_from_bottom", np.where(inside, bottom - rows, FAR))
        out.add(f"{name}_from_right", np.where(inside, right - columns, FAR))
        if name != "object":
            out.add(f"{name}_depth", depths(labels))
        else:
            _boxes(out, grid, boxes, commonest, count)


def mirror_code(picture: Array) -> int:
    """1 for a picture that is its own left-right mirror image, plus 2 for one that is its own up-down mirror image."""
    return bool((picture == picture[:, ::-1]).all()) + 2 * bool((picture == picture[::-1]).all())


def at_edge(boxes: Array, grid: Grid) -> Array:
    """bool (boxes,): whether a box (top, left, bottom, right) touches the edge of the grid."""
    h, w = grid.shape
    return np.asarray((boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (boxes[:, 2] == h - 1) | (boxes[:, 3] == w - 1))


def _boxes(out: FeatureColumns, grid: Grid, boxes: Array, colours: Array, count: int) -> None:
    """The smallest bounding box of an object around a cell: its colour, the place in it and the cells that its mirrors map there."""
    h, w = grid.shape
    owner, nested = box_owners(boxes, count, h, w)
    rows, columns = np.indices((h, w))
    inside = owner > 0
    top, left, bottom, right = (boxes[owner][:, :, k] for k in range(4))
    out.add("box_colour", np.where(inside, colours[owner], 0), True)
    out.add("boxes", nested)
    edge = np.minimum(np.minimum(rows - top, bottom - rows), np.minimum(columns - left, right - columns))
    out.add("box_to_edge", np.where(inside, edge, FAR))
    out.add("box_diagonal", np.where(inside, np.abs((rows - top) - (columns - left)), FAR))
    out.add("box_other_diagonal", np.where(inside, np.abs((rows - top) - (right - columns)), FAR))
    out.add("box_row_middle", np.where(inside, np.abs(2 * rows - top - bottom), FAR))
    out.add("box_column_middle", np.where(inside, np.abs(2 * columns - left - right), FAR))
    across, down = np.where(inside, left + right - columns, columns), np.where(inside, top + bottom - rows, rows)
    out.add("box_left_right", grid[rows, across], True)
    out.add("box_up_down", grid[down, columns], True)
    out.add("box_half_turn", grid[down, across], True)
    i, j = top + columns - left, left + rows - top
    reached = inside & (i <= bottom) & (j <= right)
    out.add("box_transpose", np.where(reached, grid[np.clip(i, 0, h - 1), np.clip(j, 0, w - 1)], 0), True)
    colour_boxes = np.zeros((COLOURS + 1, 4), np.int64)
    colour_boxes[:, 2:] = -1
    for colour in range(1, COLOURS):
        ys, xs = np.nonzero(grid == colour)
        if len(ys):
            colour_boxes[colour] = ys.min(), xs.min(), ys.max(), xs.max()
    owner, nested = box_owners(colour_boxes, COLOURS - 1, h, w)
    out.add("colour_box", owner, True)
    out.add("colour_boxes", nested)


def _in_line(out: FeatureColumns, grid: Grid) -> None:
    """The first painted colour visible from a cell in each direction, its distance, and the content of the cell's row and column."""
    seen, distance, other = lines_of_sight(grid)
    for k, name in enumerate(DIRECTIONS):
        out.add(f"see_{name}", seen[k], True)
    for name, a, b in (("up_down", 0, 1), ("left_right", 2, 3), ("diagonal", 4, 7), ("other_diagonal", 5, 6)):
        out.add(f"between_{name}", np.where(seen[a] == seen[b], seen[a], 0), True)
        out.add(f"nearer_{name}", np.where((distance[b] == 0) | ((distance[a] > 0) & (distance[a] <= distance[b])), seen[a], seen[b]), True)
    out.add("see_count_4", (seen[:4] > 0).sum(axis=0))
    out.add("see_count_8", (seen > 0).sum(axis=0))
    out.add("see_highest_4", seen[:4].max(axis=0), True)
    out.add("see_highest_diagonal", seen[4:].max(axis=0), True)
    out.add("see_highest_8", seen.max(axis=0), True)
    near = np.where(distance > 0, distance, FAR)
    out.add("see_nearest_4", np.take_along_axis(seen[:4], near[:4].argmin(axis=0)[None], axis=0)[0], True)
    out.add("see_nearest_8", np.take_along_axis(seen, near.argmin(axis=0)[None], axis=0)[0], True)
    for k, name in enumerate(DIRECTIONS):
        out.add(f"other_{name}", other[k], True)
    out.add("see_distance_4", near[:4].min(axis=0))
    out.add("see_distance_8", near.min(axis=0))
    for k, name in enumerate(DIRECTIONS):
        out.add(f"distance_{name}", near[k])
    for name, lines in (("row", grid), ("column", grid.T)):
        painted = np.stack([painted_counts(line) for line in lines])
        commonest = painted.argmax(axis=1)
        for key, values, is_colour in (
            ("commonest", commonest, True),
            ("rarest", rarest_index(painted), True),
            ("painted", painted.sum(axis=1), False),
            ("colours", (painted > 0).sum(axis=1), False),
            ("first", lines[:, 0], True),
            ("last", lines[:, -1], True),
            ("full", (painted.max(axis=1) == lines.shape[1]) * commonest, True),
            ("ends_equal", lines[:, 0] == lines[:, -1], False),
        ):
            out.add(f"{name}_{key}", values[:, None] if name == "row" else values[None, :], is_colour)


def _places(out: FeatureColumns, grid: Grid) -> None:
    h, w = grid.shape
    rows, columns = np.indices((h, w))
    for modulus in (2, 3, 4):
        out.add(f"row_mod_{modulus}", rows % modulus)
        out.add(f"column_mod_{modulus}", columns % modulus)
        out.add(f"sum_mod_{modulus}", (rows + columns) % modulus)
        out.add(f"difference_mod_{modulus}", (rows - columns) % modulus)
    out.add("row_middle", np.abs(2 * rows - h + 1))
    out.add("column_middle", np.abs(2 * columns - w + 1))
    out.add("to_edge", np.minimum(np.minimum(rows, h - 1 - rows), np.minimum(columns, w - 1 - columns)))
    out.add("diagonal", np.abs(rows - columns))
    out.add("other_diagonal", np.abs(rows + columns - (w - 1)))
    out.add("row", rows)
    out.add("column", columns)
    out.add("row_from_below", h - 1 - rows)
    out.add("column_from_right", w - 1 - columns)


def _mirrors(out: FeatureColumns, grid: Grid) -> None:
    out.add("mirror_left_right", grid[:, ::-1], True)
    out.add("mirror_up_down", grid[::-1], True)
    out.add("half_turn", grid[::-1, ::-1], True)
    square = grid if grid.shape[0] == grid.shape[1] else np.zeros(grid.shape[::-1])
    out.add("transpose", square.T, True)
    out.add("other_transpose", square[::-1, ::-1].T, True)


def _whole(out: FeatureColumns, grid: Grid) -> None:
    counts = painted_counts(grid)
    order = [c for c in np.argsort(-counts, kind="stable") if counts[c]]
    chosen = [order[0] if order else 0, order[1] if len(order) > 1 else 0, order[-1] if order else 0]
    for name, colour in zip(("commonest", "second", "rarest"), chosen, strict=True):
        out.add(f"grid_{name}", np.array(colour), True)
        out.add(f"is_{name}", grid == colour)
    out.add("grid_colours", np.array(len(order)))
    for name, (i, j) in CORNERS.items():
        out.add(f"corner_{name}", grid[i, j], True)


def _panels(out: FeatureColumns, grid: Grid) -> None:
    """Where lines of one colour divide the grid into equal panels: the panel, the place in it, and the panels' cells at that place."""
    h, w = grid.shape
    found = find_panels(grid)
    spans_i, spans_j, colour = found or ([(0, h)], [(0, w)], 0)
    panel_i, panel_j = np.full(h, FAR), np.full(w, FAR)
    place_i, place_j = np.zeros(h, np.int64), np.zeros(w, np.int64)
    for spans, panel, place in ((spans_i, panel_i, place_i), (spans_j, panel_j, place_j)):
        for k, (begin, end) in enumerate(spans):
            panel[begin:end] = k
            place[begin:end] = np.arange(end - begin)
    stack = np.stack([grid[a:b, c:d] for a, b in spans_i for c, d in spans_j])
    height, width = stack.shape[1:]
    rows, columns = np.broadcast_arrays(panel_i[:, None], panel_j[None, :])
    inside = (rows < FAR) & (columns < FAR) & (found is not None)
    number = np.where(inside, rows * len(spans_j) + columns, 0)
    i, j = np.broadcast_arrays(place_i[:, None], place_j[None, :])

    def add(name: str, values: Array, is_colour: bool = False) -> None:
        out.add(f"panel_{name}", np.where(inside, values, 0), is_colour)

    out.add("panel_line", (found is not None) & ~inside)
    out.add("panel_line_colour", np.array(colour), True)
    add("row", rows + 1)
    add("column", columns + 1)
    add("place_row", i + 1)
    add("place_column", j + 1)
    counts = np.stack([painted_counts(panel) for panel in stack])
    painted, colours = counts.sum(axis=1), (counts > 0).sum(axis=1)
    add("painted", painted[number])
    add("more_painted", (painted[None, :] > painted[:, None]).sum(axis=1)[number])
    add("less_painted", (painted[None, :] < painted[:, None]).sum(axis=1)[number])
    add("commonest", counts.argmax(axis=1)[number], True)
    add("rarest", rarest_index(counts)[number], True)
    add("colours", colours[number])
    add("highest_there", stack.max(axis=0)[i, j], True)
    add("painted_there", (stack > 0).sum(axis=0)[i, j])
    by_count = np.argsort(-painted, kind="stable")
    ids = [panel.tobytes() for panel in stack]
    repeats = np.array([ids.count(panel_id) for panel_id in ids])
    fullest, emptiest, odd, plainest = (stack[k] for k in (by_count[0], by_count[-1], repeats.argmin(), colours.argmin()))
    add("fullest", fullest[i, j], True)
    add("emptiest", emptiest[i, j], True)
    add("repeats", repeats[number])
    add("odd_one", odd[i, j], True)
    add("fewest_colours", plainest[i, j], True)
    # A panel of the shape of the arrangement of panels may be a map of it.
    is_map = (height, width) == (len(spans_i), len(spans_j))
    map_i, map_j = np.minimum(rows, height - 1), np.minimum(columns, width - 1)
    for name, picture in (("map", fullest), ("emptiest_map", emptiest), ("odd_map", odd), ("fewest_map", plainest)):
        add(name, picture[map_i, map_j] * is_map, True)
    add("own_map", stack[number, map_i, map_j] * is_map, True)
    arranged = counts.reshape(len(spans_i), len(spans_j), COLOURS)
    add("in_row", arranged.sum(axis=1).argmax(axis=1)[np.minimum(rows, len(spans_i) - 1)], True)
    add("in_column", arranged.sum(axis=0).argmax(axis=1)[np.minimum(columns, len(spans_j) - 1)], True)


def _periods(out: FeatureColumns, grid: Grid) -> None:
    """The colour that the rest of the grid implies for a cell when the grid is a tiling with a minority of faults and holes."""
    for name, ignored in (("any", -1), ("painted", 0)):
        p, q, votes = best_period(grid, ignored)
        out.add(f"tile_{name}", votes, True)
        out.add(f"tile_{name}_differs", votes != grid)
        out.add(f"tile_{name}_size", np.array(p * q))
    rows, columns = np.indices(grid.shape)
    for name, along in (("row", rows), ("column", columns), ("sum", rows + columns), ("difference", rows - columns)):
        for modulus in (2, 3, 4):
            counts = np.zeros((modulus, COLOURS), np.int64)
            np.add.at(counts, (along % modulus, grid), 1)
            counts[:, 0] = 0
            out.add(f"stripe_{name}_{modulus}", counts.argmax(axis=1)[along % modulus], True)


@jit
def component_table(labels: Array, count: int, grid: Grid) -> tuple[Array, Array, Array]:
    """For every component its bounding box, its cells of each colour and the cells of each colour beside it.

    Returns:
        `component_boxes`, and int64 (count + 1, 10) twice.
    """
    h, w = labels.shape
    own, around = np.zeros((count + 1, COLOURS), np.int64), np.zeros((count + 1, COLOURS), np.int64)
    for i in range(h):
        for j in range(w):
            k = labels[i, j]
            own[k, grid[i, j]] += 1
            for d in range(4):
                a, b = i + STEPS[d, 0], j + STEPS[d, 1]
                if 0 <= a < h and 0 <= b < w and labels[a, b] != k:
                    around[k, grid[a, b]] += 1
    return component_boxes(labels, count), own, around


@jit
def depths(labels: Array) -> Array:
    """The depth of each cell in its component: 1 at its border, in steps in 8 directions; the edge of the grid is a border."""
    h, w = labels.shape
    depth = np.zeros((h, w), np.int64)
    level, remaining = 1, h * w
    while remaining > 0:
        for i in range(h):
            for j in range(w):
                if depth[i, j] != 0:
                    continue
                border = False
                for a in range(i - 1, i + 2):
                    for b in range(j - 1, j + 2):
                        if a < 0 or b < 0 or a >= h or b >= w or labels[a, b] != labels[i, j] or 0 < depth[a, b] < level:
                            border = True
                if border:
                    depth[i, j] = level
                    remaining -= 1
        level += 1
    return depth


@jit
def box_owners(boxes: Array, count: int, h: int, w: int) -> tuple[Array, Array]:
    """For each cell the index of the smallest box around it (0: none) and the number of boxes around it."""
    owner, nested = np.zeros((h, w), np.int64), np.zeros((h, w), np.int64)
    areas = np.zeros(count + 1, np.int64)
    for k in range(1, count + 1):
        areas[k] = (boxes[k, 2] - boxes[k, 0] + 1) * (boxes[k, 3] - boxes[k, 1] + 1)
        for i in range(boxes[k, 0], boxes[k, 2] + 1):
            for j in range(boxes[k, 1], boxes[k, 3] + 1):
                nested[i, j] += 1
                if owner[i, j] == 0 or areas[k] < areas[owner[i, j]]:
                    owner[i, j] = k
    return owner, nested


@jit
def lines_of_sight(grid: Grid) -> tuple[Array, Array, Array]:
    """In each of DIRECTIONS the first painted colour, its distance (0: none), and the first one other than the cell's own; (8, h, w)."""
    h, w = grid.shape
    seen, other = np.zeros((8, h, w), np.int64), np.zeros((8, h, w), np.int64)
    distance = np.zeros((8, h, w), np.int64)
    for k in range(8):
        for i in range(h):
            for j in range(w):
                a, b, steps = i + STEPS[k, 0], j + STEPS[k, 1], 1
                while 0 <= a < h and 0 <= b < w:
                    if grid[a, b] != 0:
                        if seen[k, i, j] == 0:
                            seen[k, i, j], distance[k, i, j] = grid[a, b], steps
                        if grid[a, b] != grid[i, j]:
                            other[k, i, j] = grid[a, b]
                            break
                    a, b, steps = a + STEPS[k, 0], b + STEPS[k, 1], steps + 1
    return seen, distance, other


@jit
def _count_votes(grid: Grid, p: int, q: int, ignored: int, counts: Array) -> int:
    """Set counts[:p, :q] to the number of cells of each colour in each place of a tile, and return the number of votes."""
    counts[:p, :q] = 0
    votes = 0
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            if grid[i, j] != ignored:
                counts[i % p, j % q, grid[i, j]] += 1
                votes += 1
    return votes


@jit
def best_period(grid: Grid, ignored: int) -> tuple[int, int, Array]:
    """The smallest tile (height, width) on which four fifths of the cells agree, and the majority colour of its copies for each cell.

    Args:
        ignored: a colour that has no vote, or -1. A side of the tile is at most half the grid's or all of it; where no tile fits, the grid
            is its own tile.
    """
    h, w = grid.shape
    best_p, best_q = h, w
    counts = np.zeros((h, w, COLOURS), np.int64)
    for p in range(1, h + 1):
        for q in range(1, w + 1):
            if p * q >= best_p * best_q or (p > h // 2 and p < h) or (q > w // 2 and q < w):
                continue
            votes = _count_votes(grid, p, q, ignored, counts)
            agreed = 0
            for i in range(p):
                for j in range(q):
                    agreed += counts[i, j].max()
            # One vote per place of the tile is left out: a single cell always agrees with itself.
            if votes > 0 and 5 * (agreed - p * q) >= 4 * (votes - p * q) and votes >= 2 * p * q:
                best_p, best_q = p, q
    _count_votes(grid, best_p, best_q, ignored, counts)
    majority = np.zeros((h, w), np.int64)
    for i in range(h):
        for j in range(w):
            majority[i, j] = counts[i % best_p, j % best_q].argmax()
    return best_p, best_q, majority
