"""Stamps: patches around objects of one kind that are the same in every output, learned by laying the outputs over one another.

A cell of a patch is kept where outputs of two train pairs or more show it and none of the same kind of object contradicts. Knows nothing
about when a stamp is to be used; that is for the tests of a rule.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.search.solvers.objects.actions import NONE, Action, Effect
from arc_submit.search.solvers.objects.scenes import Object, Scene, Segmentation
from arc_submit.search.store import Array

REACH = 9  # how far a patch goes from the upper left cell of an object's box
OWN = 10  # "the object's colour" in a patch
SPAN = 2 * REACH + 1
MAX_STAMPS = 24


def stamps(task: Task, segmentation: Segmentation) -> list[Action]:
    """One or two actions for each kind of object: painting over everything, and painting on background only."""
    kinds: dict[Hashable, list[tuple[int, int]]] = {}
    before, after = [], []
    objects: list[Object] = []
    backgrounds: list[int] = []
    for k, (pair, scene) in enumerate(zip(task.train, segmentation.scenes, strict=False)):
        for o in scene.objects:
            for kind in _kinds(o):
                kinds.setdefault(kind, []).append((len(objects), k))
            objects.append(o)
            backgrounds.append(scene.background)
            before.append(_window(np.where(pair.input == scene.background, OWN + 1, pair.input), o))
            after.append(_window(pair.output, o))
    if not objects:
        return []
    pictures, targets = np.stack(before), np.stack(after)
    grounds = np.array(backgrounds)
    own = np.array([o.colour for o in objects])[:, None, None]
    out: list[Action] = []
    seen: set[bytes] = set()
    for members in kinds.values():
        index = np.array([number for number, _ in members])
        pairs = np.array([pair for _, pair in members])
        if len(set(pairs.tolist())) < 2:
            continue
        for behind in (False, True):
            patch = _consensus(pictures[index], targets[index], own[index], grounds[index], pairs, behind)
            key = patch.tobytes() + bytes([behind])
            if (patch >= 0).any() and key not in seen and len(out) < MAX_STAMPS:
                seen.add(key)
                cells = int((patch >= 0).sum())
                name = f"stamp {cells} cells{' on background' if behind else ''}"
                out.append(Action(name, 4.0 + 0.1 * cells + 0.5 * behind, partial(_stamped, patch=patch, behind=behind)))
    return out


def _kinds(o: Object) -> list[Hashable]:
    """What may make objects one of a kind: their size, with their colour, or their very picture."""
    return [(o.height, o.width), (o.height, o.width, o.colour), (o.picture.shape, o.picture.tobytes())]


def _window(grid: Array, o: Object) -> Array:
    """What lies around the upper left cell of an object's box; -1 outside the grid."""
    padded = np.full((grid.shape[0] + 2 * REACH, grid.shape[1] + 2 * REACH), -1, np.int8)
    padded[REACH:-REACH, REACH:-REACH] = grid
    return padded[o.top : o.top + SPAN, o.left : o.left + SPAN]


def _consensus(before: Array, after: Array, own: Array, ground: Array, pairs: Array, behind: bool) -> Array:
    """int8 (SPAN, SPAN): the patch, -1 where there is none."""
    inside = after >= 0
    if behind:
        inside &= before == OWN + 1
    # What becomes background is left to other actions.
    changed = inside & (after != before) & (after != ground[:, None, None])
    shown = [changed[pairs == k].any(axis=0) for k in sorted(set(pairs.tolist()))]
    wanted = np.sum(shown, axis=0) >= 2
    is_own = ((after == own) | ~inside).all(axis=0)
    low, high = np.where(inside, after, 99).min(axis=0), np.where(inside, after, -1).max(axis=0)
    patch = np.full((SPAN, SPAN), -1, np.int8)
    constant = (low == high) & wanted
    patch[constant] = low[constant]
    # Own colours first: they speak for colours not seen yet; where all own colours are one, both readings agree on the train pairs.
    several = len(np.unique(own)) > 1
    patch[is_own & wanted & (several | ~constant)] = OWN
    return patch


def _stamped(scene: Scene, k: int, patch: Array, behind: bool) -> Effect:
    o = scene.objects[k]
    h, w = scene.grid.shape
    ys, xs = np.nonzero(patch >= 0)
    colours = np.where(patch[ys, xs] == OWN, o.colour, patch[ys, xs]).astype(np.int8)
    ys, xs = ys + o.top - REACH, xs + o.left - REACH
    keep = (ys >= 0) & (ys < h) & (xs >= 0) & (xs < w)
    cells, colours = ys[keep] * w + xs[keep], colours[keep]
    if behind:
        free = scene.grid.ravel()[cells] == scene.background
        cells, colours = cells[free], colours[free]
    return Effect(NONE, cells, colours)
