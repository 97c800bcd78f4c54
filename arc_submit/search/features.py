"""Features of cells: for every cell of a grid, small integers that say what is there, around it, in line with it and in its component.

Knows nothing about outputs. Columns come in the order of how plain they are, because a tree takes the first of equally good ones.
"""

from __future__ import annotations

import itertools

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.search.jit import jit
from arc_submit.search.primitives.lists import hole_count
from arc_submit.search.primitives.region import outside
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

OUT = 10  # the colour of what lies outside the grid
DIRECTIONS = ("up", "down", "left", "right", "up_left", "up_right", "down_left", "down_right")
_STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [-1, 1], [1, -1], [1, 1]])


class Columns:
    """Columns of features under construction: names, values clipped to 0..63, and which of them hold colours."""

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape
        self.names: list[str] = []
        self.values: list[Array] = []
        self.colours: list[bool] = []
        self.groups: list[str] = []
        self.group = ""  # of the columns that are added next

    def add(self, name: str, values: Array, is_colour: bool = False) -> None:
        """Add a column from an array that broadcasts to the grid's shape."""
        self.names.append(name)
        self.values.append(np.clip(np.broadcast_to(values, self.shape), 0, 63).astype(np.uint8))
        self.colours.append(is_colour)
        self.groups.append(self.group)

    def matrix(self) -> Array:
        """uint8 (cells, columns)."""
        return np.stack([values.ravel() for values in self.values], axis=1)


def cell_features(grid: Grid) -> Columns:
    """All features of a grid's cells."""
    grid = np.array(grid)
    out = Columns((grid.shape[0], grid.shape[1]))
    for group, add in (
        ("near", _neighbours), ("parts", _components), ("lines", _in_line), ("places", _places), ("mirrors", _mirrors), ("whole", _whole),
        ("panels", _panels), ("periods", _periods),
    ):  # fmt: skip
        out.group = group
        add(out, grid)
    return out


def _neighbours(out: Columns, grid: Grid) -> None:
    h, w = grid.shape
    out.add("colour", grid, True)
    padded = np.full((h + 2, w + 2), OUT, np.int8)
    padded[1:-1, 1:-1] = grid
    around = []
    for name, i, j in (("up", 0, 1), ("down", 2, 1), ("left", 1, 0), ("right", 1, 2)):
        around.append(padded[i : i + h, j : j + w])
        out.add(name, around[-1], True)
    for name, i, j in (("up_left", 0, 0), ("up_right", 0, 2), ("down_left", 2, 0), ("down_right", 2, 2)):
        around.append(padded[i : i + h, j : j + w])
        out.add(name, around[-1], True)
    far = np.full((h + 4, w + 4), OUT, np.int8)
    far[2:-2, 2:-2] = grid
    for i, j in (
        (0, 2),
        (4, 2),
        (2, 0),
        (2, 4),
        (0, 0),
        (0, 4),
        (4, 0),
        (4, 4),
        (0, 1),
        (0, 3),
        (4, 1),
        (4, 3),
        (1, 0),
        (3, 0),
        (1, 4),
        (3, 4),
    ):
        out.add(f"at_{i - 2}_{j - 2}", far[i : i + h, j : j + w])
    stack = np.stack(around)
    out.add("same_around_4", (stack[:4] == grid).sum(axis=0))
    out.add("same_around_8", (stack == grid).sum(axis=0))
    painted = (stack > 0) & (stack < OUT)
    out.add("painted_around_4", painted[:4].sum(axis=0))
    out.add("painted_around_8", painted.sum(axis=0))
    out.add("highest_around_4", np.where(painted[:4], stack[:4], 0).max(axis=0), True)
    out.add("highest_around_8", np.where(painted, stack, 0).max(axis=0), True)


def _components(out: Columns, grid: Grid) -> None:
    """Features of the component a cell is in: of one colour (0 a colour like any other), then of painted cells of any colour."""
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
        rarest = np.where(own > 0, own, 10**6).argmin(axis=1)
        shapes = [b""] * (count + 1)
        holes, mirrored = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
        for k in range(1, count + 1):
            mask = (labels[boxes[k, 0] : boxes[k, 2] + 1, boxes[k, 1] : boxes[k, 3] + 1] == k).astype(np.int8)
            shapes[k] = bytes(mask.shape) + mask.tobytes()
            holes[k] = hole_count(mask) if sizes[k] > 3 else 0
            mirrored[k] = bool((mask == mask[:, ::-1]).all()) + 2 * bool((mask == mask[::-1]).all())
        edge = (boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (boxes[:, 2] == grid.shape[0] - 1) | (boxes[:, 3] == grid.shape[1] - 1)
        peers = (commonest[:, None] != 0) == (commonest[None, :] != 0)
        peers[:, 0] = False
        counted = {shape: shapes.count(shape) for shape in set(shapes)}
        numbers = around.copy()
        numbers[:, 0] = 0
        values = {
            "size": sizes,
            "larger": (peers & (sizes[None, :] > sizes[:, None])).sum(axis=1),
            "smaller": (peers & (sizes[None, :] < sizes[:, None])).sum(axis=1),
            "equal": (peers & (sizes[None, :] == sizes[:, None])).sum(axis=1),
            "height": heights,
            "width": widths,
            "edge": edge,
            "holes": holes,
            "full": sizes == heights * widths,
            "square": heights == widths,
            "mirrored": mirrored,
            "rarest": rarest,
            "commonest": commonest,
            "alike": np.array([counted[shape] for shape in shapes]),
            "neighbour": numbers.argmax(axis=1),
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
        box = boxes[labels]
        out.add(f"{name}_from_top", np.where(inside, rows - box[:, :, 0], 63))
        out.add(f"{name}_from_left", np.where(inside, columns - box[:, :, 1], 63))
        out.add(f"{name}_from_bottom", np.where(inside, box[:, :, 2] - rows, 63))
        out.add(f"{name}_from_right", np.where(inside, box[:, :, 3] - columns, 63))
        if name != "object":
            out.add(f"{name}_depth", depths(labels))
        else:
            _boxes(out, grid, boxes, commonest, count)


def _boxes(out: Columns, grid: Grid, boxes: Array, colours: Array, count: int) -> None:
    """The smallest box of an object that a cell lies in: its colour, the place in it and what its mirrors show there."""
    h, w = grid.shape
    owner, nested = box_owners(boxes, count, h, w)
    rows, columns = np.indices((h, w))
    inside = owner > 0
    top, left, bottom, right = (boxes[owner][:, :, k] for k in range(4))
    out.add("box_colour", np.where(inside, colours[owner], 0), True)
    out.add("boxes", nested)
    edge = np.minimum(np.minimum(rows - top, bottom - rows), np.minimum(columns - left, right - columns))
    out.add("box_to_edge", np.where(inside, edge, 63))
    out.add("box_diagonal", np.where(inside, np.abs((rows - top) - (columns - left)), 63))
    out.add("box_other_diagonal", np.where(inside, np.abs((rows - top) - (right - columns)), 63))
    out.add("box_row_middle", np.where(inside, np.abs(2 * rows - top - bottom), 63))
    out.add("box_column_middle", np.where(inside, np.abs(2 * columns - left - right), 63))
    across, down = np.where(inside, left + right - columns, columns), np.where(inside, top + bottom - rows, rows)
    out.add("box_left_right", grid[rows, across], True)
    out.add("box_up_down", grid[down, columns], True)
    out.add("box_half_turn", grid[down, across], True)
    i, j = top + columns - left, left + rows - top
    turned = inside & (i <= bottom) & (j <= right)
    out.add("box_transpose", np.where(turned, grid[np.clip(i, 0, h - 1), np.clip(j, 0, w - 1)], 0), True)
    colour_boxes = np.zeros((COLOURS + 1, 4), np.int64)
    colour_boxes[:, 2:] = -1
    for colour in range(1, COLOURS):
        ys, xs = np.nonzero(grid == colour)
        if len(ys):
            colour_boxes[colour] = ys.min(), xs.min(), ys.max(), xs.max()
    owner, nested = box_owners(colour_boxes, COLOURS - 1, h, w)
    out.add("colour_box", owner, True)
    out.add("colour_boxes", nested)


def _in_line(out: Columns, grid: Grid) -> None:
    """The first painted colour seen from a cell in each direction, how far it is, and what the cell's row and column hold."""
    seen, distance, other = rays(grid)
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
    near = np.where(distance > 0, distance, 63)
    out.add("see_nearest_4", np.take_along_axis(seen[:4], near[:4].argmin(axis=0)[None], axis=0)[0], True)
    out.add("see_nearest_8", np.take_along_axis(seen, near.argmin(axis=0)[None], axis=0)[0], True)
    for k, name in enumerate(DIRECTIONS):
        out.add(f"other_{name}", other[k], True)
    out.add("see_distance_4", near[:4].min(axis=0))
    out.add("see_distance_8", near.min(axis=0))
    for k, name in enumerate(DIRECTIONS):
        out.add(f"distance_{name}", near[k])
    for name, axis in (("row", 1), ("column", 0)):
        lines = grid if axis == 1 else grid.T
        counts = np.stack([np.bincount(line, minlength=COLOURS) for line in lines])
        painted = counts.copy()
        painted[:, 0] = 0
        commonest = painted.argmax(axis=1)
        rarest = np.where(painted > 0, painted, 10**6).argmin(axis=1) * (painted.sum(axis=1) > 0)
        ends = (lines[:, 0], lines[:, -1])
        for key, values, is_colour in (
            ("commonest", commonest, True),
            ("rarest", rarest, True),
            ("painted", painted.sum(axis=1), False),
            ("colours", (painted > 0).sum(axis=1), False),
            ("first", ends[0], True),
            ("last", ends[1], True),
            ("full", (painted.max(axis=1) == lines.shape[1]) * commonest, True),
            ("ends_equal", ends[0] == ends[1], False),
        ):
            out.add(f"{name}_{key}", values[:, None] if axis == 1 else values[None, :], is_colour)


def _places(out: Columns, grid: Grid) -> None:
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
    for name, values in (("row", rows), ("column", columns), ("row_from_below", h - 1 - rows), ("column_from_right", w - 1 - columns)):
        out.add(name, values)


def _mirrors(out: Columns, grid: Grid) -> None:
    out.add("mirror_left_right", grid[:, ::-1], True)
    out.add("mirror_up_down", grid[::-1], True)
    out.add("half_turn", grid[::-1, ::-1], True)
    square = grid.shape[0] == grid.shape[1]
    out.add("transpose", grid.T if square else np.zeros(grid.shape), True)
    out.add("other_transpose", grid[::-1, ::-1].T if square else np.zeros(grid.shape), True)


def _whole(out: Columns, grid: Grid) -> None:
    counts = np.bincount(grid.ravel(), minlength=COLOURS)
    counts[0] = 0
    order = [c for c in np.argsort(-counts, kind="stable") if counts[c]]
    picked = [order[0] if order else 0, order[1] if len(order) > 1 else 0, order[-1] if order else 0]
    for name, colour in zip(("commonest", "second", "rarest"), picked, strict=True):
        out.add(f"grid_{name}", np.full(grid.shape, colour), True)
        out.add(f"is_{name}", grid == colour)
    out.add("grid_colours", np.full(grid.shape, len(order)))
    for name, (i, j) in (("top_left", (0, 0)), ("top_right", (0, -1)), ("bottom_left", (-1, 0)), ("bottom_right", (-1, -1))):
        out.add(f"corner_{name}", np.full(grid.shape, grid[i, j]), True)


def _panels(out: Columns, grid: Grid) -> None:
    """Where lines of one colour cut the grid into equal panels: the panel, the place in it, and what the panels show at that place."""
    h, w = grid.shape
    found = find_panels(grid)
    if found is None:
        spans_i, spans_j, colour = [(0, h)], [(0, w)], 0
    else:
        spans_i, spans_j, colour = found
    panel_i, panel_j = np.full(h, 63), np.full(w, 63)
    place_i, place_j = np.zeros(h, np.int64), np.zeros(w, np.int64)
    for spans, panel, place in ((spans_i, panel_i, place_i), (spans_j, panel_j, place_j)):
        for k, (begin, end) in enumerate(spans):
            panel[begin:end] = k
            place[begin:end] = np.arange(end - begin)
    stack = np.stack([grid[a:b, c:d] for a, b in spans_i for c, d in spans_j])
    painted = (stack > 0).sum(axis=(1, 2))
    height, width = stack.shape[1:]
    rows, columns = np.broadcast_arrays(panel_i[:, None], panel_j[None, :])
    inside = (rows < 63) & (columns < 63) & (found is not None)
    number = np.where(inside, rows * len(spans_j) + columns, 0)
    i, j = np.broadcast_arrays(place_i[:, None], place_j[None, :])

    def add(name: str, values: Array, is_colour: bool = False) -> None:
        out.add(f"panel_{name}", np.where(inside, values, 0), is_colour)

    out.add("panel_line", (found is not None) & ~inside)
    out.add("panel_line_colour", np.full(grid.shape, colour if found is not None else 0), True)
    add("row", rows + 1)
    add("column", columns + 1)
    add("place_row", i + 1)
    add("place_column", j + 1)
    add("painted", painted[number])
    add("more_painted", (painted[None, :] > painted[:, None]).sum(axis=1)[number])
    add("less_painted", (painted[None, :] < painted[:, None]).sum(axis=1)[number])
    counts = np.stack([np.bincount(panel.ravel(), minlength=COLOURS) for panel in stack])
    counts[:, 0] = 0
    add("commonest", counts.argmax(axis=1)[number], True)
    add("rarest", (np.where(counts > 0, counts, 10**6).argmin(axis=1) * (painted > 0))[number], True)
    add("colours", (counts > 0).sum(axis=1)[number])
    add("highest_there", stack.max(axis=0)[i, j], True)
    add("painted_there", (stack > 0).sum(axis=0)[i, j])
    by_count = np.argsort(-painted, kind="stable")
    add("fullest", stack[by_count[0]][i, j], True)
    add("emptiest", stack[by_count[-1]][i, j], True)
    names = [bytes(panel.tobytes()) for panel in stack]
    repeats = np.array([names.count(name) for name in names])
    add("repeats", repeats[number])
    add("odd_one", stack[int(repeats.argmin())][i, j], True)
    fewest = (counts > 0).sum(axis=1)
    add("fewest_colours", stack[int(fewest.argmin())][i, j], True)
    # A panel as large as the grid of panels may be the map of them.
    same = (height, width) == (len(spans_i), len(spans_j))
    where_i, where_j = np.minimum(rows, height - 1), np.minimum(columns, width - 1)
    add("map", stack[by_count[0]][where_i, where_j] if same else np.zeros(grid.shape), True)
    add("emptiest_map", stack[by_count[-1]][where_i, where_j] if same else np.zeros(grid.shape), True)
    add("odd_map", stack[int(repeats.argmin())][where_i, where_j] if same else np.zeros(grid.shape), True)
    add("fewest_map", stack[int(fewest.argmin())][where_i, where_j] if same else np.zeros(grid.shape), True)
    squared = stack[number, where_i, where_j] if same else np.zeros(grid.shape)
    add("own_map", squared, True)
    add(
        "in_row",
        np.stack([counts[k * len(spans_j) : (k + 1) * len(spans_j)].sum(axis=0).argmax() for k in range(len(spans_i))])[
            np.minimum(rows, len(spans_i) - 1)
        ],
        True,
    )
    add(
        "in_column",
        np.stack([counts[k :: len(spans_j)].sum(axis=0).argmax() for k in range(len(spans_j))])[np.minimum(columns, len(spans_j) - 1)],
        True,
    )


def find_panels(grid: Grid) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int] | None:
    """Row spans, column spans and line colour where full lines of one colour cut a grid into at least two equal panels."""
    best = None
    for colour in range(COLOURS):
        mask = grid == colour
        lines_i, lines_j = np.flatnonzero(mask.all(axis=1)), np.flatnonzero(mask.all(axis=0))
        if 2 * len(lines_i) >= grid.shape[0] or 2 * len(lines_j) >= grid.shape[1]:
            continue
        spans_i, spans_j = spans(lines_i, grid.shape[0]), spans(lines_j, grid.shape[1])
        equal = len({b - a for a, b in spans_i}) == 1 and len({b - a for a, b in spans_j}) == 1
        panels = len(spans_i) * len(spans_j)
        # Painted lines are drawn on purpose; transparent ones may only happen to be free.
        if equal and panels > 1 and (best is None or (best[2] == 0 and colour > 0)):
            best = (spans_i, spans_j, colour)
    return best


def spans(lines: Array, length: int) -> list[tuple[int, int]]:
    """The runs (first, behind) of rows or columns between lines."""
    edges = [-1, *(int(k) for k in lines), length]
    return [(a + 1, b) for a, b in itertools.pairwise(edges) if b - a > 1]


def _periods(out: Columns, grid: Grid) -> None:
    """What the rest of the grid says of a cell when the grid is read as a tiling, with its faults and holes outvoted."""
    for name, ignored in (("any", -1), ("painted", 0)):
        p, q, votes = best_period(grid, ignored)
        out.add(f"tile_{name}", votes, True)
        out.add(f"tile_{name}_differs", votes != grid)
        out.add(f"tile_{name}_size", np.full(grid.shape, p * q))
    rows, columns = np.indices(grid.shape)
    for name, along in (("row", rows), ("column", columns), ("sum", rows + columns), ("difference", rows - columns)):
        for modulus in (2, 3, 4):
            counts = np.zeros((modulus, COLOURS), np.int64)
            np.add.at(counts, (along % modulus, grid), 1)
            counts[:, 0] = 0
            out.add(f"stripe_{name}_{modulus}", counts.argmax(axis=1)[along % modulus], True)


@jit
def component_table(labels: Array, count: int, grid: Grid) -> tuple[Array, Array, Array]:
    """Of every component its box (top, left, bottom, right), its cells of each colour and the cells of each colour that touch it.

    Returns:
        int64 (count + 1, 4), (count + 1, 10) and (count + 1, 10); row 0 is of no component.
    """
    h, w = labels.shape
    boxes = np.zeros((count + 1, 4), np.int64)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = h, w, -1, -1
    own, around = np.zeros((count + 1, COLOURS), np.int64), np.zeros((count + 1, COLOURS), np.int64)
    for i in range(h):
        for j in range(w):
            k = labels[i, j]
            boxes[k, 0], boxes[k, 1] = min(boxes[k, 0], i), min(boxes[k, 1], j)
            boxes[k, 2], boxes[k, 3] = max(boxes[k, 2], i), max(boxes[k, 3], j)
            own[k, grid[i, j]] += 1
            for d in range(4):
                a, b = i + _STEPS[d, 0], j + _STEPS[d, 1]
                if 0 <= a < h and 0 <= b < w and labels[a, b] != k:
                    around[k, grid[a, b]] += 1
    return boxes, own, around


@jit
def depths(labels: Array) -> Array:
    """How deep each cell lies in its component: 1 at its border, by steps in 8 directions; the edge of the grid is a border."""
    h, w = labels.shape
    depth = np.zeros((h, w), np.int64)
    level, left = 1, h * w
    while left > 0:
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
                    left -= 1
        level += 1
    return depth


@jit
def box_owners(boxes: Array, count: int, h: int, w: int) -> tuple[Array, Array]:
    """For each cell the number of the smallest box it lies in (0: none) and in how many boxes it lies."""
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
def rays(grid: Grid) -> tuple[Array, Array, Array]:
    """The first painted colour in each of DIRECTIONS, its distance (0: none), and the first painted colour other than the cell's own."""
    h, w = grid.shape
    seen, other = np.zeros((8, h, w), np.int64), np.zeros((8, h, w), np.int64)
    distance = np.zeros((8, h, w), np.int64)
    for k in range(8):
        for i in range(h):
            for j in range(w):
                a, b, steps = i + _STEPS[k, 0], j + _STEPS[k, 1], 1
                while 0 <= a < h and 0 <= b < w:
                    if grid[a, b] != 0:
                        if seen[k, i, j] == 0:
                            seen[k, i, j], distance[k, i, j] = grid[a, b], steps
                        if grid[a, b] != grid[i, j]:
                            other[k, i, j] = grid[a, b]
                            break
                    a, b, steps = a + _STEPS[k, 0], b + _STEPS[k, 1], steps + 1
    return seen, distance, other


@jit
def best_period(grid: Grid, ignored: int) -> tuple[int, int, Array]:
    """The smallest tile (height, width) that four fifths of the cells agree to, and the colour that its copies give each cell by majority.

    Args:
        ignored: a colour that has no vote, or -1. The tile is at most half the grid on one side at least; where none agrees, the grid
            is its own tile.
    """
    h, w = grid.shape
    best_p, best_q = h, w
    counts = np.zeros((h, w, COLOURS), np.int64)
    for p in range(1, h + 1):
        for q in range(1, w + 1):
            if p * q >= best_p * best_q or (p > h // 2 and p < h) or (q > w // 2 and q < w):
                continue
            counts[:p, :q] = 0
            cast = 0
            for i in range(h):
                for j in range(w):
                    if grid[i, j] != ignored:
                        counts[i % p, j % q, grid[i, j]] += 1
                        cast += 1
            agreed = 0
            for i in range(p):
                for j in range(q):
                    agreed += counts[i, j].max()
            # A class of one cell agrees with itself: it says nothing.
            if cast > 0 and 5 * (agreed - p * q) >= 4 * (cast - p * q) and cast >= 2 * p * q:
                best_p, best_q = p, q
    counts[:] = 0
    for i in range(h):
        for j in range(w):
            if grid[i, j] != ignored:
                counts[i % best_p, j % best_q, grid[i, j]] += 1
    votes = np.zeros((h, w), np.int64)
    for i in range(h):
        for j in range(w):
            votes[i, j] = counts[i % best_p, j % best_q].argmax()
    return best_p, best_q, votes
