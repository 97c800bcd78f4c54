"""Conditions on related objects: traits of an object that depend on other objects of its scene, or on the whole scene.

They complete the traits of an object alone (objects/traits.py). This module does not know actions or outputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from arc_submit.arc.grid import COLOURS
from arc_submit.search.features import mirror_code
from arc_submit.search.solvers.objects.scenes import Scene
from arc_submit.search.solvers.objects.traits import count_lower
from arc_submit.search.solvers.related.relations import RELATIONS, reference, related, scaled_key
from arc_submit.search.store import Array

# Whether an object has the colour, the shape or the rows of a reference: what a key in the grid shows.
_KEYS = ("the largest", "the smallest", "the one of its own colour", "the one of its own shape", "the one with most colours",
         "the one in the corner", "the one that is enclosed", "the one that lies in another")  # fmt: skip


def relational_traits(scene: Scene) -> dict[str, Array]:
    """int64 (objects,) for each trait, the plainest first; the same names for every scene."""
    objects = scene.objects
    n = len(objects)
    colours, areas = np.array([o.colour for o in objects]), np.array([o.area for o in objects])
    tables = {name: related(scene, name) for name in RELATIONS}
    out: dict[str, npt.ArrayLike] = {}
    for colour in range(COLOURS):
        cells = np.array([(scene.grid[o.box] == colour).sum() for o in objects])
        out[f"cells of colour {colour} in its box"] = cells
        out[f"more cells of colour {colour} in the box"] = count_lower(-cells)
    for name in ("touches", "encloses", "is enclosed by", "holds", "lies in"):
        for colour in range(COLOURS):
            out[f"{name} colour {colour}"] = (tables[name] & (colours == colour)).any(axis=1)
    for key in _KEYS:
        k = reference(scene, key)
        out[f"has the colour of {key}"] = (colours == colours[k]) & (k >= 0)
    for name in ("has the shape of", "has the turned shape of", "has the scaled shape of", "has the size of"):
        out[f"{name} another"] = tables[name].any(axis=1)
        out[f"{name} another colour"] = (tables[name] & (colours[:, None] != colours)).any(axis=1)
        out[f"{name} a larger one"] = (tables[name] & (areas[:, None] < areas)).any(axis=1)
    for key in _KEYS:
        k = reference(scene, key)
        for name in ("has the shape of", "has the scaled shape of"):
            alike = tables[name][:, k] if k >= 0 else np.zeros(n, np.bool_)
            out[f"{name} {key} (2: is it)"] = alike + 2 * ((np.arange(n) == k) & (k >= 0))
    keys = [scaled_key(o) for o in objects]
    alike = np.array([keys.count(key) for key in keys])
    out["of its scaled shape"] = alike
    out["more of its scaled shape"] = count_lower(-alike)
    for name in ("touches", "encloses", "is enclosed by", "holds", "lies in", "shares rows with", "shares columns with", "is nearest to"):
        table = tables[name]
        others = table.sum(axis=1)
        out[f"{name} others"] = others
        out[f"more that {name} others"] = count_lower(-others)
        out[f"{name} its colour"] = (table & (colours[:, None] == colours)).any(axis=1)
        out[f"{name} another colour"] = (table & (colours[:, None] != colours)).any(axis=1)
        out[f"{name} a larger one"] = (table & (areas[:, None] < areas)).any(axis=1)
        out[f"{name} a smaller one"] = (table & (areas[:, None] > areas)).any(axis=1)
        out[f"{name} a single cell"] = (table & (areas == 1)).any(axis=1)
    for name in ("shares rows with", "shares columns with", "is nearest to"):
        for colour in range(COLOURS):
            out[f"{name} colour {colour}"] = (tables[name] & (colours == colour)).any(axis=1)
    for key in _KEYS:
        k = reference(scene, key)
        for name in ("shares rows with", "shares columns with", "touches"):
            out[f"{name} {key}"] = tables[name][:, k] if k >= 0 else np.zeros(n, np.bool_)
    for name, value in _whole(scene).items():
        out[name] = np.full(n, value)
    return {name: np.asarray(values, np.int64) for name, values in out.items()}


def _whole(scene: Scene) -> dict[str, int]:
    """Traits of the whole scene."""
    grid = scene.grid
    counts = np.bincount(grid.ravel(), minlength=COLOURS)
    if scene.background < COLOURS:
        counts[scene.background] = 0
    h, w = grid.shape
    found = {
        "colours in the grid": int((counts > 0).sum()),
        "objects in the grid": len(scene.objects),
        "grid taller than wide": int(np.sign(h - w)) + 1,
        "grid mirrored": mirror_code(grid),
        "colour of the grid's corner": int(grid[0, 0]),
    }
    for key in ("the largest", "the smallest"):
        k = reference(scene, key)
        found[f"colour of {key}"] = scene.objects[k].colour if k >= 0 else -1
    found["objects of one colour"] = int(len({o.colour for o in scene.objects}) == 1)
    found["commonest colour painted"] = int(counts.argmax())
    return found
