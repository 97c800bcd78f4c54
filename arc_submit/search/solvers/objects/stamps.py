"""Stamps: patches around objects of one kind that are the same in every output, learned by comparing the outputs around the objects.

A cell belongs to a patch if outputs of at least two train pairs show it and no object of the kind contradicts. The tests of a rule decide
where a stamp is used, not this module.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

import numpy as np

from arc_submit.arc.task import Task
from arc_submit.search.solvers.objects.effects import Action, Effect, on_background, painted_at
from arc_submit.search.solvers.objects.scenes import Object, Scene, Segmentation
from arc_submit.search.store import Array

REACH = 9  # the distance of a patch's edge from the upper left cell of an object's box
OWN = 10  # "the object's colour" in a patch
BACKGROUND = 11  # the background in a window
SPAN = 2 * REACH + 1
MAX_STAMPS = 24


def stamps(task: Task, segmentation: Segmentation) -> list[Action]:
    """One or two actions for each kind of object: painting over everything, and painting on background only."""
    kinds: dict[Hashable, list[int]] = {}
    before, after = [], []
    owned: list[tuple[int, int, int]] = []  # of each object its colour, background and pair
    for k, (pair, scene) in enumerate(zip(task.train, segmentation.scenes, strict=False)):
        shown = np.where(pair.input == scene.background, BACKGROUND, pair.input)
        for o in scene.objects:
            for kind in _kinds(o):
                kinds.setdefault(kind, []).append(len(owned))
            owned.append((o.colour, scene.background, k))
            before.append(_window(shown, o))
            after.append(_window(pair.output, o))
    if not owned:
        return []
    inputs, outputs = np.stack(before), np.stack(after)
    colours, backgrounds, pairs = np.array(owned).T
    out: list[Action] = []
    seen: set[bytes] = set()
    for index in kinds.values():
        if len(set(pairs[index].tolist())) < 2:
            continue
        # Other actions erase cells.
        changed = (outputs[index] != inputs[index]) & (outputs[index] != backgrounds[index, None, None])
        for behind in (False, True):
            usable = (outputs[index] >= 0) & ((inputs[index] == BACKGROUND) | (not behind))
            patch = _consensus(outputs[index], usable, changed, colours[index], pairs[index])
            key = patch.tobytes() + bytes([behind])
            if (patch >= 0).any() and key not in seen and len(out) < MAX_STAMPS:
                seen.add(key)
                cells = int((patch >= 0).sum())
                name = f"stamp {cells} cells{' on background' if behind else ''}"
                out.append(Action(name, 4.0 + 0.1 * cells + 0.5 * behind, partial(_stamp, patch=patch, behind=behind)))
    return out


def _kinds(o: Object) -> list[Hashable]:
    """The keys under which objects are of one kind: their size, their size and colour, and their picture."""
    return [(o.height, o.width), (o.height, o.width, o.colour), (o.picture.shape, o.picture.tobytes())]


def _window(grid: Array, o: Object) -> Array:
    """The cells around the upper left cell of an object's box, int8 (SPAN, SPAN); -1 outside the grid."""
    padded = np.pad(grid.astype(np.int8), REACH, constant_values=-1)
    return padded[o.top : o.top + SPAN, o.left : o.left + SPAN]


def _consensus(outputs: Array, usable: Array, changed: Array, colours: Array, pairs: Array) -> Array:
    """The patch of objects of one kind, int8 (SPAN, SPAN), -1 where there is none.

    Args:
        outputs: int8 (objects, SPAN, SPAN), the windows of the outputs.
        usable: bool, the cells of these windows that a patch may paint; `changed`, those that differ from the input.
        colours, pairs: int64 (objects,), the colour and the train pair of each object.
    """
    shown = [(usable & changed)[pairs == k].any(axis=0) for k in sorted(set(pairs.tolist()))]
    wanted = np.sum(shown, axis=0) >= 2
    is_own = ((outputs == colours[:, None, None]) | ~usable).all(axis=0)
    low, high = np.where(usable, outputs, 99).min(axis=0), np.where(usable, outputs, -1).max(axis=0)
    patch = np.full((SPAN, SPAN), -1, np.int8)
    constant = (low == high) & wanted
    patch[constant] = low[constant]
    # Own colours take precedence, because they generalise to new colours; with one own colour both readings fit the train pairs.
    several = len(np.unique(colours)) > 1
    patch[is_own & wanted & (several | ~constant)] = OWN
    return patch


def _stamp(scene: Scene, k: int, patch: Array, behind: bool) -> Effect:
    o = scene.objects[k]
    ys, xs = np.nonzero(patch >= 0)
    colours = np.where(patch[ys, xs] == OWN, o.colour, patch[ys, xs]).astype(np.int8)
    effect = painted_at(scene, ys + o.top - REACH, xs + o.left - REACH, colours)
    return on_background(scene, effect) if behind else effect
