"""Features of cells: for every cell of a grid, small integers that say what is there, around it, in line with it and in its component.

Knows nothing about outputs. Columns come in the order of how plain they are, because a tree takes the first of equally good ones.
"""

from __future__ import annotations

import numpy as np

from arc_submit.arc.grid import COLOURS, Grid
from arc_submit.search.primitives.lists import hole_count
from arc_submit.search.primitives.region import outside
from arc_submit.search.primitives.splitting import label
from arc_submit.search.store import Array

OUT = 10  # the colour of what lies outside the grid


class Columns:
    """Columns of features under construction: names, values clipped to 0..63, and which of them hold colours."""

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape
        self.names: list[str] = []
        self.values: list[Array] = []
        self.colours: list[bool] = []

    def add(self, name: str, values: Array, is_colour: bool = False) -> None:
        """Add a column from an array that broadcasts to the grid's shape."""
        self.names.append(name)
        self.values.append(np.clip(np.broadcast_to(values, self.shape), 0, 63).astype(np.uint8))
        self.colours.append(is_colour)

    def matrix(self) -> Array:
        """uint8 (cells, columns)."""
        return np.stack([values.ravel() for values in self.values], axis=1)


def cell_features(grid: Grid) -> Columns:
    """All features of a grid's cells."""
    grid = np.array(grid)
    out = Columns((grid.shape[0], grid.shape[1]))
    out.add("colour", grid, True)
    _neighbours(out, grid)
    _components(out, grid)
    _in_line(out, grid)
    _places(out, grid)
    _mirrors(out, grid)
    _whole(out, grid)
    return out


def _neighbours(out: Columns, grid: Grid) -> None:
    h, w = grid.shape
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
        columns = {key: np.zeros(count + 1, np.int64) for key in _COMPONENT_KEYS}
        for k in range(1, count + 1):
            ys, xs = np.nonzero(labels == k)
            top, left, bottom, right = ys.min(), xs.min(), ys.max(), xs.max()
            mask = (labels[top : bottom + 1, left : right + 1] == k).astype(np.int8)
            own = np.bincount(grid[ys, xs], minlength=COLOURS)
            columns["size"][k] = len(ys)
            columns["height"][k], columns["width"][k] = bottom - top + 1, right - left + 1
            columns["edge"][k] = top == 0 or left == 0 or bottom == grid.shape[0] - 1 or right == grid.shape[1] - 1
            columns["holes"][k] = hole_count(mask)
            columns["full"][k] = mask.all()
            columns["square"][k] = bottom - top == right - left
            columns["mirrored"][k] = bool((mask == mask[:, ::-1]).all()) + 2 * bool((mask == mask[::-1]).all())
            columns["rarest"][k] = int(np.where(own > 0, own, 10**6).argmin())
            columns["commonest"][k] = int(own.argmax())
        real = columns["size"][1:] if name == "object" else np.array([columns["size"][k] for k in range(1, count + 1)])
        colours = columns["commonest"][1:]
        for k in range(1, count + 1):
            peers = real[(colours != 0) == (colours[k - 1] != 0)]
            columns["larger"][k] = (peers > real[k - 1]).sum()
            columns["smaller"][k] = (peers < real[k - 1]).sum()
            columns["equal"][k] = (peers == real[k - 1]).sum()
        for key in _COMPONENT_KEYS:
            out.add(f"{name}_{key}", columns[key][labels], key in ("rarest", "commonest") and name == "object")
        if count:
            first_row, first_column = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
            last_row, last_column = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
            for k in range(1, count + 1):
                ys, xs = np.nonzero(labels == k)
                first_row[k], first_column[k], last_row[k], last_column[k] = ys.min(), xs.min(), ys.max(), xs.max()
            rows, columns_ = np.indices(grid.shape)
            out.add(f"{name}_from_top", np.where(labels > 0, rows - first_row[labels], 63))
            out.add(f"{name}_from_left", np.where(labels > 0, columns_ - first_column[labels], 63))
            out.add(f"{name}_from_bottom", np.where(labels > 0, last_row[labels] - rows, 63))
            out.add(f"{name}_from_right", np.where(labels > 0, last_column[labels] - columns_, 63))
        else:
            for side in ("top", "left", "bottom", "right"):
                out.add(f"{name}_from_{side}", np.full(grid.shape, 63))


_COMPONENT_KEYS = (
    "size", "larger", "smaller", "equal", "height", "width", "edge", "holes", "full", "square", "mirrored", "rarest", "commonest"
)  # fmt: skip


def _in_line(out: Columns, grid: Grid) -> None:
    """The first other painted colour seen from a cell in each direction, and what its row and column hold."""
    h, w = grid.shape
    for name, di, dj in (
        ("up", -1, 0), ("down", 1, 0), ("left", 0, -1), ("right", 0, 1),
        ("up_left", -1, -1), ("up_right", -1, 1), ("down_left", 1, -1), ("down_right", 1, 1),
    ):  # fmt: skip
        seen = np.zeros((h, w), np.int8)
        for i in range(h) if di <= 0 else range(h - 1, -1, -1):
            for j in range(w) if dj <= 0 else range(w - 1, -1, -1):
                a, b = i + di, j + dj
                if 0 <= a < h and 0 <= b < w:
                    seen[i, j] = grid[a, b] if grid[a, b] != 0 else seen[a, b]
        out.add(f"see_{name}", seen, True)
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
    out.add("grid_colours", np.full(grid.shape, len(order)))
    for name, (i, j) in (("top_left", (0, 0)), ("top_right", (0, -1)), ("bottom_left", (-1, 0)), ("bottom_right", (-1, -1))):
        out.add(f"corner_{name}", np.full(grid.shape, grid[i, j]), True)
