"""Every operation on lists compared with a plain Python definition, on lists of random images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from test_search_primitives import TURNS, by_frequency, hole_cells, parts, per_cell, random_cells

from arc_submit.search.operations import LIST, OPERATIONS
from arc_submit.search.primitives.lists import apply_list
from arc_submit.search.store import image_cells, make_store, push

HEIGHT, WIDTH = 12, 12  # the input's size in these tests
FORMS = {"row": lambda n: (1, n), "column": lambda n: (n, 1), "square": lambda n: (n, n), "diagonal": lambda n: (n, n)}


def random_list(seed):
    rng = np.random.default_rng(1000 + seed)
    images = []
    for k in range(rng.integers(1, 6)):
        a = random_cells(int(rng.integers(0, 6)) if seed % 2 else 7 * seed + k)
        if not a.any():
            a[0, 0] = 1
        if seed % 4 == 3 and images:
            a = images[0][2] * (rng.random(images[0][2].shape) < 0.7)
        if seed % 4 == 2 and k < 2:
            a = images[0][2] if images else np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
        images.append((int(rng.integers(0, 5)), int(rng.integers(0, 5)), a.astype(np.int8)))
    return images


def measure(images, criterion):
    def number(y, x, a):
        painted = a != 0
        return {
            "cells": lambda: painted.sum(),
            "area": lambda: a.size,
            "height": lambda: a.shape[0],
            "width": lambda: a.shape[1],
            "colours": lambda: len(set(a.flat) - {0}),
            "parts": lambda: len(parts(a, True, lambda u, v: u == v)),
            "top": lambda: y,
            "left": lambda: x,
            "holes": lambda: len(parts(per_cell(a, lambda i, j: (i, j) in hole_cells(a, False)), False, lambda u, v: True)),
            "copies": lambda: sum(b.shape == a.shape and ((b != 0) == painted).all() for *_, b in images),
            "symmetries": lambda: sum(np.array_equal(turn(a), a) for name, turn in TURNS.items() if name != "quarter_turn"),
            "fullness": lambda: painted.sum() * 1000 // a.size,
            "colour_copies": lambda: sum(by_frequency(b, True) == by_frequency(a, True) for *_, b in images),
            "rare_cells": lambda: painted.sum() - (a == by_frequency(a, True)).sum() if painted.any() else 0 - a.size,
        }[criterion]()

    return [int(number(*image)) for image in images]


def canvas(images, last_on_top, at_origin):
    placed = [(0 if at_origin else y, 0 if at_origin else x, a) for y, x, a in images]
    top, left = min(y for y, _, _ in placed), min(x for _, x, _ in placed)
    out = np.zeros((max(y + a.shape[0] for y, _, a in placed) - top, max(x + a.shape[1] for _, x, a in placed) - left), int)
    for y, x, a in placed if last_on_top else placed[::-1]:
        view = out[y - top : y - top + a.shape[0], x - left : x - left + a.shape[1]]
        view[a != 0] = a[a != 0]
    return [(top, left, out)]


def slide(images, direction):
    dy, dx = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[direction]
    if any(y + a.shape[0] > HEIGHT or x + a.shape[1] > WIDTH for y, x, a in images):
        return []
    ahead = {
        "up": lambda m: m[0],
        "down": lambda m: -m[0] - m[2].shape[0],
        "left": lambda m: m[1],
        "right": lambda m: -m[1] - m[2].shape[1],
    }
    taken, out = set(), []
    for y, x, a in sorted(images, key=ahead[direction]):
        cells = list(zip(*np.nonzero(a), strict=True))
        while cells and all(
            0 <= y + dy + i < HEIGHT and 0 <= x + dx + j < WIDTH and (y + dy + i, x + dx + j) not in taken for i, j in cells
        ):
            y, x = y + dy, x + dx
        taken |= {(y + i, x + j) for i, j in cells}
        out.append((y, x, a))
    return out


def expected(name, argument, images):
    count = len(images)
    if name.removeprefix("all_").removeprefix("but_") in ("most", "least"):
        values = measure(images, argument)
        extreme = max(values) if name.endswith("most") else min(values)
        ties = values.count(extreme)
        if count < 2 or ties == count or (name in ("most", "least") and ties != 1):
            return []
        return [m for m, v in zip(images, values, strict=True) if (v == extreme) != ("but" in name)]
    if name.startswith("sort"):
        values = measure(images, argument)
        return [images[k] for k in sorted(range(count), key=lambda k: values[k] * (1 if name == "sort_up" else -1))]
    if name.startswith(("compose", "overlay")):
        return canvas(images, "last" in name, name.startswith("overlay"))
    if name.startswith(("beside", "below")):
        down, gap = name.startswith("below"), 1 if "gap" in name else 0
        out, place = [], 0
        for _, _, a in images:
            out.append((place if down else 0, 0 if down else place, a))
            place += a.shape[0 if down else 1] + gap
        whole = canvas(out, True, False)
        return whole if whole[0][2].shape[0 if down else 1] <= 60 else []
    if name == "logic":
        if len({a.shape for *_, a in images}) > 1:
            return []
        painted = np.array([a != 0 for *_, a in images])
        total = painted.sum(axis=0)
        truth = {"all": total == count, "exactly_one": total == 1, "none": total == 0, "first_alone": (total == 1) & painted[0]}
        return [(0, 0, truth[argument] * max(1, by_frequency(images[0][2], True)))]
    if name == "slide":
        return slide(images, argument)
    if name == "count_bar":
        out = np.full(FORMS[argument](count), by_frequency(images[0][2], True))
        return [(0, 0, out * np.eye(count, dtype=int) if argument == "diagonal" else out)]
    return {"first": images[:1], "last": images[-1:], "reverse": images[::-1] if count > 1 else []}[name]


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.family == LIST], ids=lambda o: o.name)
def test_list_operations_agree_with_plain_definitions(operation):
    name, _, argument = operation.name.removesuffix(")").partition("(")
    outcomes = Counter()
    for seed in range(60):
        images = random_list(seed)
        store = make_store(100_000, 1000, 100)
        for y, x, a in images:
            assert push(store, y, x, a)
        apply_list(operation.variant, operation.argument, store, 0, len(images), HEIGHT, WIDTH)
        want = expected(name, argument, images)
        results = [(int(store.images[k, 0]), int(store.images[k, 1]), image_cells(store, k)) for k in range(len(images), store.counters[1])]
        assert len(results) == len(want), (seed, images)
        for (y, x, cells), (wy, wx, wcells) in zip(results, want, strict=True):
            assert (y, x) == (wy, wx), (seed, images)
            np.testing.assert_array_equal(cells, wcells)
        outcomes["some" if want else "none"] += 1
    assert outcomes["some"], "no list has a result"
