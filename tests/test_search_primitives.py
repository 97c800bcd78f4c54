"""Every operation on images compared with a plain Python definition, on random grids."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise

import numba
import numpy as np
import pytest

from arc_submit.search.jit import borrowed
from arc_submit.search.operations import COUNT, LINE, OPERATIONS, SPLIT, TILING, Operation, transform
from arc_submit.search.primitives.splitting import apply_split
from arc_submit.search.store import image_cells, make_store

HEIGHT, WIDTH = 6, 8  # the output's size in these tests
TURNS = {
    "left_right": lambda a: a[:, ::-1],
    "up_down": lambda a: a[::-1],
    "half_turn": lambda a: a[::-1, ::-1],
    "transpose": lambda a: a.T,
    "other_transpose": lambda a: a[::-1, ::-1].T,
    "quarter_turn": lambda a: np.rot90(a),
    "turn_left": lambda a: np.rot90(a),
    "turn_right": lambda a: np.rot90(a, -1),
}
STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
STEPS |= {f"{a}_{b}": (STEPS[a][0], STEPS[b][1]) for a in ("up", "down") for b in ("left", "right")}
RAY_SETS = {
    "vertical": ["up", "down"],
    "horizontal": ["left", "right"],
    "plus": ["up", "down", "left", "right"],
    "falling": ["up_left", "down_right"],
    "rising": ["up_right", "down_left"],
    "cross": ["up_left", "up_right", "down_left", "down_right"],
    "star": list(STEPS),
}


def random_cells(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 8, 2)
    cells = rng.integers(0, rng.integers(2, 5), (h, w)) * (rng.random((h, w)) < rng.choice([0.3, 0.6, 1.0]))
    if seed % 3 == 0:
        cells[:, : w // 2] = cells[:, :1]
    if seed % 5 == 0:
        cells = cells[:, :1] * np.ones((1, h), int)
    return cells.astype(np.int8)


def by_frequency(a, most: bool) -> int:
    counts = Counter(int(v) for v in a.ravel() if v)
    return min(counts, key=lambda c: (-counts[c] if most else counts[c], c)) if counts else 0


def around(a, i, j, diagonal):
    for p in range(i - 1, i + 2):
        for q in range(j - 1, j + 2):
            if (p, q) != (i, j) and (diagonal or p == i or q == j):
                yield p, q, (a[p, q] if 0 <= p < a.shape[0] and 0 <= q < a.shape[1] else None)


def per_cell(a, rule):
    return np.array([[rule(i, j) for j in range(a.shape[1])] for i in range(a.shape[0])], dtype=np.int8).reshape(a.shape)


def highest_around(a, diagonal):
    return per_cell(a, lambda i, j: max([v or 0 for *_, v in around(a, i, j, diagonal)], default=0))


def parts(a, diagonal, same):
    """Components as sets of cells in reading order of their first cell; `same` decides whether two painted cells are connected."""
    seen, found = set(), []
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            if a[i, j] and (i, j) not in seen:
                part, todo = set(), [(i, j)]
                while todo:
                    p = todo.pop()
                    if p not in part:
                        part.add(p)
                        todo += [(y, x) for y, x, v in around(a, *p, diagonal) if v and same(v, a[p])]
                seen |= part
                found.append(part)
    return found


def hole_cells(a, diagonal):
    empty = per_cell(a, lambda i, j: 1 if a[i, j] == 0 else 0)
    inner = set()
    for part in parts(empty, diagonal, lambda u, v: True):
        if not any(i in (0, a.shape[0] - 1) or j in (0, a.shape[1] - 1) for i, j in part):
            inner |= part
    return inner


def expected_colour(name, c, a):
    most, least = by_frequency(a, True), by_frequency(a, False)
    return {
        "keep": lambda: np.where(a == c, a, 0),
        "erase": lambda: np.where(a == c, 0, a),
        "paint": lambda: np.where(a != 0, c, 0),
        "fill_background": lambda: np.where(a == 0, c, a),
        "keep_commonest": lambda: np.where(a == most, a, 0),
        "keep_rarest": lambda: np.where(a == least, a, 0),
        "erase_commonest": lambda: np.where(a == most, 0, a),
        "erase_rarest": lambda: np.where(a == least, 0, a),
        "paint_commonest": lambda: np.where(a != 0, most, 0),
        "paint_rarest": lambda: np.where(a != 0, least, 0),
        "fill_background_commonest": lambda: np.where(a == 0, most, a),
        "invert": lambda: np.where(a == 0, most, 0),
        "swap_two_colours": lambda: np.where(a != 0, sum(set(a.flat)) - a, 0) if len(set(a.flat) - {0}) == 2 else None,
        "cell_of_commonest": lambda: np.array([[most]]) if most else None,
        "cell_of_rarest": lambda: np.array([[least]]) if least else None,
    }[name]()


def expected_shape(name, y, x, a):
    h, w = a.shape
    ys, xs = np.nonzero(a)
    if name == "crop":
        return None if not len(ys) else (y + ys.min(), x + xs.min(), a[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
    if name == "to_origin":
        return 0, 0, a
    if name == "inner":
        return (y + 1, x + 1, a[1:-1, 1:-1]) if min(h, w) > 2 else None
    if name.endswith("_half"):
        k, m = h // 2, w // 2
        half = {
            "top": (y, x, a[:k]),
            "bottom": (y + h - k, x, a[h - k :]),
            "left": (y, x, a[:, :m]),
            "right": (y, x + w - m, a[:, w - m :]),
        }[name.removesuffix("_half")]
        return half if half[2].size else None
    if name.removeprefix("mirror_") in TURNS:
        return y, x, TURNS[name.removeprefix("mirror_")](a)
    if name == "hull":
        return y, x, np.full_like(a, by_frequency(a, True))
    if name == "centre":
        k, m = 2 - h % 2, 2 - w % 2
        return y + (h - k) // 2, x + (w - m) // 2, np.full((k, m), by_frequency(a, True))
    if name == "drop_blank_lines":
        return y, x, a[a.any(axis=1)][:, a.any(axis=0)]
    if name == "drop_repeated_lines":
        rows = [i for i in range(h) if i == 0 or (a[i] != a[i - 1]).any()]
        columns = [j for j in range(w) if j == 0 or (a[:, j] != a[:, j - 1]).any()]
        return y, x, a[rows][:, columns]
    dy, dx = STEPS[name.removeprefix("move_")]
    return y + dy, x + dx, a


def expected_region(name, a):
    h, w = a.shape
    most = by_frequency(a, True)
    if "holes" in name:
        inner = hole_cells(a, "closed" in name)
        return per_cell(a, lambda i, j: most if (i, j) in inner else a[i, j] if name.startswith("fill") else 0)
    if name in ("rim", "inside"):
        return per_cell(a, lambda i, j: a[i, j] if a[i, j] and any(not v for *_, v in around(a, i, j, True)) == (name == "rim") else 0)
    if name.startswith(("grow", "outline")):
        image = a if name.startswith("grow") else np.zeros_like(a)
        return np.where(a == 0, highest_around(a, "straight" not in name), image)
    if "lonely" in name:
        alone = per_cell(a, lambda i, j: all(v != a[i, j] for *_, v in around(a, i, j, True)))
        return np.where(alone == (name == "lonely_cells"), a, 0)
    if "full_lines" in name:
        rows = [len(set(a[i])) == 1 and a[i, 0] != 0 for i in range(h)]
        columns = [len(set(a[:, j])) == 1 and a[0, j] != 0 for j in range(w)]
        return per_cell(a, lambda i, j: a[i, j] if (rows[i] or columns[j]) == (name == "full_lines") else 0)
    if name.startswith("symmetrise_"):
        turned = TURNS[name.removeprefix("symmetrise_")](a)
        # A symmetry that exchanges rows and columns needs a square.
        return np.where(a == 0, turned, a) if name.removeprefix("symmetrise_") in ("left_right", "up_down", "half_turn") or h == w else None
    if name.startswith("fall_"):
        side = name.removeprefix("fall_")
        lines = a if side in ("left", "right") else a.T
        packed = []
        for line in lines:
            full, gap = [v for v in line if v], [0] * int((line == 0).sum())
            packed.append(full + gap if side in ("left", "up") else gap + full)
        out = np.array(packed).reshape(lines.shape)
        return out if side in ("left", "right") else out.T
    kind, what = name.split("_")
    return per_cell(a, lambda i, j: a[i, j] if {"rows": i, "columns": j, "squares": i + j}[what] % 2 == (kind == "odd") else 0)


def expected_line(name, argument, a):
    h, w = a.shape
    out = a.copy() if name != "connections" else np.zeros_like(a)

    def inside(i, j):
        return 0 <= i < h and 0 <= j < w

    if name == "rays":
        order = [d for d in STEPS if d in RAY_SETS.get(argument, [argument])]
        for d in order:
            for i in range(h):
                for j in range(w):
                    k = 1
                    while a[i, j] and inside(i + k * STEPS[d][0], j + k * STEPS[d][1]):
                        p, q = i + k * STEPS[d][0], j + k * STEPS[d][1]
                        if a[p, q]:
                            break
                        out[p, q] = a[i, j]
                        k += 1
        return out
    if name == "spread":
        while True:
            step = np.where(out == 0, highest_around(out, argument == "8"), out)
            if (step == out).all():
                return out
            out = step
    sets = {"columns": [(1, 0)], "rows": [(0, 1)], "rows_and_columns": [(1, 0), (0, 1)], "diagonals": [(1, 1), (1, -1)]}
    for di, dj in sets[argument]:
        for i in range(h):
            for j in range(w):
                k = 1
                while inside(i + k * di, j + k * dj) and not a[i + k * di, j + k * dj]:
                    k += 1
                if a[i, j] and inside(i + k * di, j + k * dj) and a[i + k * di, j + k * dj] == a[i, j]:
                    for m in range(1, k):
                        out[i + m * di, j + m * dj] = a[i, j]
    return out


def expected_tiling(name, times, y, x, a):
    h, w = a.shape
    across, down = np.concatenate([a, a[:, ::-1]], axis=1), np.concatenate([a, a[::-1]])
    if name == "scale":
        return y, x, np.kron(a, np.ones((times, times), int))
    if name in ("repeat_right", "repeat_down"):
        return y, x, np.tile(a, (1, times) if name == "repeat_right" else (times, 1))
    if name == "mirror_right":
        return y, x, np.tile(across, (1, 2))[:, : times * w]
    if name == "mirror_down":
        return y, x, np.tile(down, (2, 1))[: times * h]
    if name.startswith("fractal"):
        gaps = (a == 0) if "gaps" in name else (a != 0)
        return (y, x, np.kron(gaps, a)) if h * h <= 30 and w * w <= 30 else None
    if name == "rosette":
        return (y, x, np.block([[a, np.rot90(a, -1)], [np.rot90(a), np.rot90(a, 2)]])) if h == w else None
    if name == "embed":
        canvas = np.zeros((HEIGHT, WIDTH), int)
        for i in range(h):
            for j in range(w):
                if 0 <= y + i < HEIGHT and 0 <= x + j < WIDTH:
                    canvas[y + i, x + j] = a[i, j]
        return 0, 0, canvas
    if name == "stretch_to_size":
        return (0, 0, np.kron(a, np.ones((HEIGHT // h, WIDTH // w), int))) if HEIGHT % h == 0 and WIDTH % w == 0 else None
    quad = np.block([[a, a[:, ::-1]], [a[::-1], a[::-1, ::-1]]])
    if name == "repeat_to_size":
        return 0, 0, np.tile(a, (HEIGHT, WIDTH))[:HEIGHT, :WIDTH]
    if name == "mirror_to_size":
        return 0, 0, np.tile(quad, (HEIGHT, WIDTH))[:HEIGHT, :WIDTH]
    if name == "mirror_from_below_to_size":
        # The upper half of a pair of rows is the mirrored image, the lower half the image itself.
        return 0, 0, np.tile(np.concatenate([quad[h:], quad[:h]]), (HEIGHT, WIDTH))[:HEIGHT, :WIDTH]
    values = [v for v in a.ravel() if v or "painted" not in name]
    if not values or len(values) > HEIGHT * WIDTH:
        return None
    return 0, 0, np.array(values + [0] * (HEIGHT * WIDTH - len(values))).reshape(HEIGHT, WIDTH)


def expected_count(name, form, a):
    count = {
        "count_cells": int((a != 0).sum()),
        "count_colours": len(set(a.flat) - {0}),
        "count_components": len(parts(a, True, lambda u, v: u == v)),
        "count_holes": len(parts(per_cell(a, lambda i, j: (i, j) in hole_cells(a, False)), False, lambda u, v: True)),
    }[name]
    if not 1 <= count <= 30 or not a.any():
        return None
    shape = {"row": (1, count), "column": (count, 1), "square": (count, count), "diagonal": (count, count)}[form]
    out = np.full(shape, by_frequency(a, True))
    return 0, 0, out * np.eye(count, dtype=int) if form == "diagonal" else out


def expected(operation: Operation, y, x, a):
    name, _, argument = operation.name.removesuffix(")").partition("(")
    if operation.family == LINE:
        return y, x, expected_line(name, argument, a)
    if operation.family == TILING:
        return expected_tiling(name, int(argument or 0), y, x, a)
    if operation.family == COUNT:
        return expected_count(name, argument, a)
    if operation.family == 0:
        out = expected_colour(name, int(argument or 0), a)
    elif operation.family == 1:
        return expected_shape(name, y, x, a)
    else:
        out = expected_region(name, a)
    return None if out is None else (y, x, out)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.family <= COUNT], ids=lambda o: o.name)
def test_image_operations_agree_with_plain_definitions(operation):
    for seed in range(40):
        a = random_cells(seed)
        y, x = seed % 4 - 1, seed % 3
        got = transform(operation.family, operation.variant, operation.argument, y, x, a, HEIGHT, WIDTH)
        want = expected(operation, y, x, a)
        if want is None or want[2].size == 0:
            assert got[2].size == 0, (seed, a)
        else:
            assert got[:2] == (want[0], want[1]), (seed, a)
            np.testing.assert_array_equal(got[2], want[2], err_msg=f"{operation.name} of\n{a}")


def boxes(a, found, alone=True):
    """(y, x, cells) of sets of cells."""
    out = []
    for part in found:
        ys, xs = [p[0] for p in part], [p[1] for p in part]
        inside = per_cell(a, lambda i, j, part=part: a[i, j] if (i, j) in part or not alone else 0)
        out.append((min(ys), min(xs), inside[min(ys) : max(ys) + 1, min(xs) : max(xs) + 1]))
    return out


def strip_cuts(length, count):
    gap = 0 if length % count == 0 else 1
    size, rest = divmod(length - gap * (count - 1), count)
    return [(k * (size + gap), k * (size + gap) + size) for k in range(count)] if size > 0 and rest == 0 else []


def expected_split(name, a):
    h, w = a.shape
    if name.startswith(("components", "objects", "boxes")):
        same = (lambda u, v: u == v) if name.startswith("components") else (lambda u, v: True)
        return boxes(a, parts(a, "straight" not in name, same), alone="boxes" not in name)
    if name == "split_colours":
        return [b for c in range(1, 10) for b in boxes(a, [set(zip(*np.nonzero(a == c), strict=True))] if (a == c).any() else [])]
    if name == "split_rows":
        return [(i, 0, a[i : i + 1]) for i in range(h)]
    if name == "split_columns":
        return [(0, j, a[:, j : j + 1]) for j in range(w)]
    if name in ("background_parts", "hole_parts"):
        inner = hole_cells(a, False)
        mark = per_cell(a, lambda i, j: a[i, j] == 0 and (name == "background_parts" or (i, j) in inner))
        return boxes(mark, parts(mark, False, lambda u, v: True))
    if name == "panels":
        colours = [a[i, 0] for i in range(h) if a[i, 0] and (a[i] == a[i, 0]).all()]
        colours += [a[0, j] for j in range(w) if a[0, j] and (a[:, j] == a[0, j]).all()]
        if not colours:
            return []
        rows = [-1] + [i for i in range(h) if (a[i] == colours[0]).all()] + [h]
        columns = [-1] + [j for j in range(w) if (a[:, j] == colours[0]).all()] + [w]
        cuts = [(r + 1, s, c + 1, d) for r, s in pairwise(rows) for c, d in pairwise(columns)]
        return [(t, u, a[t:s, u:d]) for t, s, u, d in cuts if s > t and d > u]
    rows, columns = {"two_rows": (2, 1), "two_columns": (1, 2), "quarters": (2, 2), "three_rows": (3, 1), "three_columns": (1, 3)}[name]
    return [(t, u, a[t:s, u:d]) for t, s in strip_cuts(h, rows) for u, d in strip_cuts(w, columns)]


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.family == SPLIT], ids=lambda o: o.name)
def test_splits_agree_with_plain_definitions(operation):
    for seed in range(40):
        a = random_cells(seed)
        store = make_store(100_000, 1000, 100)
        apply_split(operation.variant, store, 2, 3, a)
        want = expected_split(operation.name, a)
        assert store.counters[1] == len(want), (seed, a)
        for k, (y, x, cells) in enumerate(want):
            assert tuple(store.images[k, :2]) == (2 + y, 3 + x), (seed, a)
            np.testing.assert_array_equal(image_cells(store, k), cells, err_msg=f"{operation.name} of\n{a}")


def test_an_array_without_counted_references_is_the_same_memory() -> None:
    """Compiled code reads and writes the caller's array, and leaves the caller's reference alone."""

    @numba.njit
    def add_one(array: np.ndarray) -> int:
        inside = borrowed(array)
        inside[0] += 1
        return int(inside.sum())

    array = np.arange(4)
    held = sys.getrefcount(array)
    assert [add_one(array) for _ in range(3)] == [7, 8, 9]
    assert array.tolist() == [3, 1, 2, 3]
    assert sys.getrefcount(array) == held

    @numba.njit
    def add_both(pair: tuple[np.ndarray, np.ndarray]) -> int:
        first, second = borrowed(pair)
        first[0] += 1
        return int(first.sum() + second.sum())

    other = np.ones(2, np.int8)
    assert add_both((array, other)) == 12
    assert array.tolist() == [4, 1, 2, 3]
    assert sys.getrefcount(array) == held
