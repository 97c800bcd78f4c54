"""Rules for outputs that come from one object of the input: cut out, turned, without its frame, recoloured, or only its colour.

The object is identified by one or two tests that the right object passes in every train pair and no object with another result does. Every
candidate is evaluated on every pair once, so that leaving out a pair costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, grid_id
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.grid_tools import block_side, distinct_lines, enlarged, held_out_folds, inputs_of, keeps_size
from arc_submit.search.solvers import completion
from arc_submit.search.solvers.objects import rules
from arc_submit.search.solvers.objects.scenes import Object, Scene, Segmentation, segmentations
from arc_submit.search.solvers.objects.traits import ObjectTests, make_tests
from arc_submit.search.solvers.objects.trust import NAME, cost_of
from arc_submit.search.store import Array

MAX_JOINED = 80  # tests that are combined in pairs
MAX_PARTS = 3  # restatements on a part of the input
MAX_ANSWERS = 4  # different answers for a test input


@dataclass(frozen=True)
class EvaluatedRule:
    """A rule with its results.

    Attributes:
        right: bool (pairs,), the pairs it reproduces.
        grids: its result for each test input, None where it has none or two different ones.
    """

    text: str
    cost: float
    right: Array
    grids: tuple[Grid | None, ...]


Extract = Callable[[Scene, int], Grid | None]


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the cheapest rules that reproduce every train pair."""
    if keeps_size(task):
        return []
    found: list[EvaluatedRule] = []
    parts: dict[str, tuple[str, float, Task]] = {}
    for segmentation in segmentations(inputs_of(task)):
        found += evaluate_rules(task, segmentation, _colour_traits(segmentation))
        if not found and len(parts) < MAX_PARTS:
            for text, cost, part in _parts(task, segmentation):
                parts.setdefault(part.digest(), (text, cost, part))
    answers = answers_of(task, found)
    if not answers:
        for text, cost, part in list(parts.values())[:MAX_PARTS]:
            for solve_part in (rules.solve, completion.solve):
                answers += [replace(a, solver=NAME, program=f"in the {text}: {a.program}", cost=a.cost + cost) for a in solve_part(part)]
    return answers


def _parts(task: Task, segmentation: Segmentation) -> Iterator[tuple[str, float, Task]]:
    """The task restated on the box, or the inside, of the one object of every input that has the output's size."""
    pairs = len(task.train)
    scenes = segmentation.scenes
    owner = segmentation.owners()
    for name, extra, crop in _PARTS:
        grids = [crop(scene, k) for scene in scenes for k in range(len(scene.objects))]
        fits = np.array([
            grid is not None and k < pairs and grid.shape == task.train[k].output.shape for grid, k in zip(grids, owner, strict=True)
        ])  # fmt: skip
        if any(not fits[owner == k].any() for k in range(pairs)):
            continue
        tests = make_tests(segmentation, pairs)
        for t in np.argsort(tests.costs, kind="stable"):
            passed = tests.passed[t]
            single = all(passed[owner == k].sum() == 1 for k in range(len(scenes)))
            if single and fits[passed & (owner < pairs)].all():
                chosen = [frozen(grid) for grid, selected in zip(grids, passed, strict=True) if selected and grid is not None]
                train = tuple(Pair(a, pair.output) for a, pair in zip(chosen, task.train, strict=False))
                text = f"{name} of the {segmentation.name} with {tests.names[t]}"
                yield text, segmentation.cost + extra + float(tests.costs[t]), Task(task.id, train, tuple(chosen[pairs:]))
                break


def answers_of(task: Task, evaluated: list[EvaluatedRule]) -> list[SolverAnswer]:
    """At most MAX_ANSWERS different answers for each test input, from the cheapest rules that are right on all pairs."""
    pairs = len(task.train)
    ordered = sorted(evaluated, key=lambda rule: rule.cost)
    predicted = 0
    for train, (k,) in held_out_folds(pairs):
        trained = next((rule for rule in ordered if rule.right[train].all()), None)
        predicted += trained is not None and bool(trained.right[k])
    answers: list[SolverAnswer] = []
    for test in range(len(task.tests)):
        seen: set[bytes] = set()
        for rule in ordered:
            grid = rule.grids[test]
            if rule.right.all() and grid is not None and grid_id(grid) not in seen and len(seen) < MAX_ANSWERS:
                seen.add(grid_id(grid))
                answers.append(SolverAnswer(test, grid, NAME, rule.text, 1.0, cost_of(rule.cost, predicted, pairs)))
    return answers


def evaluate_rules(
    task: Task, segmentation: Segmentation, further: Callable[[Scene], dict[str, Array]] | None = None
) -> Iterator[EvaluatedRule]:
    """Rules that at most one train pair contradicts; `further` gives traits for more tests."""
    pairs = len(task.train)
    scenes, owner = segmentation.scenes, segmentation.owners()
    tests: ObjectTests | None = None
    for name, cost, extract in _extractions(task):
        results = _results(task, scenes[:pairs], extract)
        if results is None:
            continue
        tests = tests or make_tests(segmentation, pairs, further)
        good = np.zeros(len(owner), np.bool_)
        good[: len(results)] = [result == grid_id(task.train[k].output) for result, k in zip(results, owner, strict=False)]
        for text, test_cost, passed in _selectors(tests, good, owner, pairs):
            right = np.array([_agrees(good[passed & (owner == k)]) for k in range(pairs)])
            grids = tuple(_common_result(extract, scenes[pairs + k], passed[owner == pairs + k]) for k in range(len(task.tests)))
            yield EvaluatedRule(f"{name} of the {segmentation.name} with {text}", segmentation.cost + cost + test_cost, right, grids)


def _colour_traits(segmentation: Segmentation) -> Callable[[Scene], dict[str, Array]] | None:
    """Which object of a scene has most cells of a colour, for each colour that objects of several colours have in every scene."""
    if all(o.colour_count == 1 for scene in segmentation.scenes for o in scene.objects):
        return None
    shared = [c for c in range(COLOURS) if all(any(o.counts[c] for o in scene.objects) for scene in segmentation.scenes)]

    def most(scene: Scene) -> dict[str, Array]:
        counts = np.array([o.counts for o in scene.objects])
        return {f"most cells of {c}": (counts[:, c] == counts[:, c].max()).astype(np.int64) for c in shared}

    return most if shared else None


def _results(task: Task, scenes: tuple[Scene, ...], extract: Extract) -> list[bytes | None] | None:
    """The ids of the results for all train objects, or None where too many pairs have no right one."""
    out: list[bytes | None] = []
    missed = 0
    for pair, scene in zip(task.train, scenes, strict=True):
        grids = [extract(scene, number) for number in range(len(scene.objects))]
        ids = [None if grid is None else grid_id(grid) for grid in grids]
        missed += grid_id(pair.output) not in ids
        if missed > (1 if len(task.train) > 2 else 0):
            return None
        out += ids
    return out


def _selectors(tests: ObjectTests, good: Array, owner: Array, pairs: int) -> Iterator[tuple[str, float, Array]]:
    """(Text, cost, objects that pass) of tests, alone and in pairs, that at most one train pair contradicts."""
    allowed = 1 if pairs > 2 else 0
    known = owner < pairs
    member = np.stack([owner[known] == k for k in range(pairs)]).astype(np.float32)  # (pairs, objects)
    passed = tests.passed[:, known].astype(np.float32)
    goods = (passed * good[known]) @ member.T  # (tests, pairs): right objects that pass
    bads = (passed * ~good[known]) @ member.T
    for t in np.flatnonzero(((goods == 0) | (bads > 0)).sum(axis=1) <= allowed):
        yield tests.names[t], float(tests.costs[t]), tests.passed[t]
    hopeful = np.flatnonzero(((goods == 0).sum(axis=1) <= allowed) & (bads.sum(axis=1) < bads[0].sum()))
    # The tests that fewest wrong objects pass are combined.
    hopeful = hopeful[np.argsort(bads[hopeful].sum(axis=1), kind="stable")][:MAX_JOINED]
    for place, a in enumerate(hopeful):
        both = passed[hopeful[:place]] * passed[a]
        if not len(both):
            continue
        wrong = (((both * good[known]) @ member.T == 0) | ((both * ~good[known]) @ member.T > 0)).sum(axis=1)
        for b in hopeful[:place][wrong <= allowed]:
            cost = float(tests.costs[a] + tests.costs[b]) + 1.0
            yield f"{tests.names[a]} and {tests.names[b]}", cost, tests.passed[a] & tests.passed[b]


def _agrees(good: Array) -> bool:
    return len(good) > 0 and bool(good.all())


def _common_result(extract: Extract, scene: Scene, passed: Array) -> Grid | None:
    """The result that all passing objects share."""
    grids = [extract(scene, int(k)) for k in np.flatnonzero(passed)]
    if not grids or any(grid is None or grid_id(grid) != grid_id(grids[0]) for grid in grids if grids[0] is not None):
        return None
    return grids[0]


# --- Results of an object ----------------------------------------------------------------------------------------------------------------


def _extractions(task: Task) -> Iterator[tuple[str, float, Extract]]:
    """(Name, cost, function) of every way to make a grid from an object that the colours of the train outputs allow."""
    outputs = [pair.output for pair in task.train]
    if all((output == output[0, 0]).all() for output in outputs):
        if len({output.shape for output in outputs}) == 1:
            shape = outputs[0].shape
            yield "colour", 1.0, lambda scene, k: frozen(np.full(shape, scene.objects[k].colour))
            yield "rarest colour", 1.5, lambda scene, k: frozen(np.full(shape, scene.objects[k].rarest))
        return
    used = sorted({int(c) for output in outputs for c in np.unique(output)})
    shared = [c for c in used if all((output == c).any() for output in outputs)]
    for crop_name, crop_cost, crop in _CROPS:
        for turn_name, turn_cost, turn in _TURNS:
            yield f"{turn_name}{crop_name}", crop_cost + turn_cost, _turned(crop, turn)
        for ground in shared:
            for paint in shared:
                if paint != ground:
                    yield f"{crop_name} in {paint} on {ground}", crop_cost + 2.0, _turned(_two_colours(crop, paint, ground), _identity)
    if all(len(np.unique(output)) <= 2 for output in outputs):
        for place, (name, colour_of) in enumerate(_OTHER_COLOURS.items()):
            yield f"shrunk picture in {name}", 3.5 + 0.2 * place, _shrunk(colour_of)


def _turned(crop: Extract, turn: Callable[[Array], Array]) -> Extract:
    def extract(scene: Scene, k: int) -> Grid | None:
        grid = crop(scene, k)
        turned = None if grid is None else turn(grid)
        return None if turned is None or max(turned.shape) > MAX_SIDE else frozen(turned)

    return extract


def _two_colours(crop: Extract, colour: int, background: int) -> Extract:
    def extract(scene: Scene, k: int) -> Grid | None:
        grid = crop(scene, k)
        return None if grid is None else np.where(grid == scene.background, np.int8(background), np.int8(colour))

    return extract


def _shrunk(colour_of: Callable[[Scene, int], int | None]) -> Extract:
    """The object with one cell for each of the square blocks that it consists of, in a colour; None where there are no blocks."""

    def extract(scene: Scene, k: int) -> Grid | None:
        colour, mask = colour_of(scene, k), scene.objects[k].mask
        side = block_side(mask.astype(np.int8))
        return None if colour is None or side == 1 else frozen(np.where(mask[::side, ::side], np.int8(colour), scene.blank))

    return extract


def _colour_of_only(fits: Callable[[Object, Object], bool]) -> Callable[[Scene, int], int | None]:
    """The colour that all objects that fit an object share; None where there is none, or more than one."""

    def colour_of(scene: Scene, k: int) -> int | None:
        colours = {o.colour for o in scene.objects if fits(o, scene.objects[k])}
        return colours.pop() if len(colours) == 1 else None

    return colour_of


def _rarest_other(scene: Scene, k: int) -> int | None:
    """The rarest colour of the grid that is neither the background nor the object's."""
    counts = np.bincount(scene.grid.ravel(), minlength=COLOURS)
    others = [c for c in np.flatnonzero(counts).tolist() if c not in (scene.background, scene.objects[k].colour)]
    return min(others, key=lambda c: int(counts[c])) if others else None


_OTHER_COLOURS: dict[str, Callable[[Scene, int], int | None]] = {
    "the colour of all others": _colour_of_only(lambda other, o: other is not o and other.colour != o.colour),
    "the rarest other colour": _rarest_other,
    "the colour of the single cells": _colour_of_only(lambda other, o: other is not o and other.area == 1),
}


def _box(scene: Scene, k: int) -> Grid:
    return scene.grid[scene.objects[k].box]


def _alone(scene: Scene, k: int) -> Grid:
    picture = scene.objects[k].picture
    return np.where(picture < 0, scene.blank, picture)


def _plain(scene: Scene, k: int) -> Grid:
    o = scene.objects[k]
    return np.where(o.mask, np.int8(o.colour), scene.blank)


def _inside(scene: Scene, k: int) -> Grid | None:
    o = scene.objects[k]
    return scene.grid[o.top + 1 : o.bottom - 1, o.left + 1 : o.right - 1] if min(o.height, o.width) > 2 else None


def _without_own_colour(scene: Scene, k: int) -> Grid:
    box = _box(scene, k)
    return np.where(box == scene.objects[k].colour, scene.blank, box)


def _with_margin(scene: Scene, k: int) -> Grid | None:
    """The box with a margin of one cell; None at the edge of the grid."""
    o = scene.objects[k]
    if o.top == 0 or o.left == 0 or o.bottom == scene.grid.shape[0] or o.right == scene.grid.shape[1]:
        return None
    return scene.grid[o.top - 1 : o.bottom + 1, o.left - 1 : o.right + 1]


def _quarter(scene: Scene, k: int) -> Grid | None:
    """The upper left quarter of the object."""
    o = scene.objects[k]
    return None if min(o.height, o.width) < 2 else _alone(scene, k)[: (o.height + 1) // 2, : (o.width + 1) // 2]


def _identity(grid: Array) -> Array:
    return grid


_PARTS: tuple[tuple[str, float, Extract], ...] = (("box", 1.0, _box), ("inside", 1.5, _inside))
_CROPS: tuple[tuple[str, float, Extract], ...] = (
    ("box", 1.0, _box),
    ("picture", 1.2, _alone),
    ("picture in its commonest colour", 2.0, _plain),
    ("inside", 1.5, _inside),
    ("box without its colour", 2.0, _without_own_colour),
    ("box with a margin", 2.0, _with_margin),
    ("quarter", 2.5, _quarter),
    ("box without repeated lines", 2.5, lambda scene, k: distinct_lines(_box(scene, k))),
)
_TURNS: tuple[tuple[str, float, Callable[[Array], Array]], ...] = (
    ("", 0.0, _identity),
    ("mirrored ", 2.0, lambda a: a[:, ::-1]),
    ("upside-down ", 2.0, lambda a: a[::-1]),
    ("half-turned ", 2.0, lambda a: a[::-1, ::-1]),
    ("transposed ", 2.5, lambda a: a.T),
    ("quarter-turned ", 2.5, lambda a: np.rot90(a, -1)),
    ("counter-turned ", 2.5, lambda a: np.rot90(a)),
    ("twice as large ", 3.0, lambda a: enlarged(a, 2)),
    ("mirror-doubled ", 3.0, lambda a: np.concatenate([a, a[:, ::-1]], axis=1)),
)
