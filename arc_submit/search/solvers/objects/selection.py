"""Rules for outputs that come from one object of the input: cut out, turned, stripped of its frame, recoloured, or its colour alone.

Which object it is, is told by a test or two that the right object passes in every train pair and no object with another result does. All
candidates are judged on every pair, so that leaving a pair out costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, grid_id
from arc_submit.arc.task import Pair, Task
from arc_submit.search.answers import Answer
from arc_submit.search.solvers import completion
from arc_submit.search.solvers.objects import rules
from arc_submit.search.solvers.objects.scenes import Scene, Segmentation, segmentations
from arc_submit.search.solvers.objects.traits import Tests, make_tests
from arc_submit.search.solvers.objects.trust import NAME, cost_of
from arc_submit.search.store import Array

MAX_JOINED = 80  # tests that are tried two by two
MAX_PARTS = 3  # restatements on a part of the input
KEEP = 4  # different answers for a test input


@dataclass(frozen=True)
class Candidate:
    """A rule judged on the train pairs.

    Attributes:
        right: bool (pairs,), the pairs it reproduces.
        grids: what it gives for each test input, None where it gives nothing or two different things.
    """

    text: str
    cost: float
    right: Array
    grids: tuple[Grid | None, ...]


Result = Callable[[Scene, int], Grid | None]


def solve(task: Task) -> list[Answer]:
    """Answers of the cheapest rules that reproduce every train pair."""
    if all(pair.input.shape == pair.output.shape for pair in task.train):
        return []
    grids = [pair.input for pair in task.train] + list(task.tests)
    found: list[Candidate] = []
    parts: dict[str, tuple[str, float, Task]] = {}
    for segmentation in segmentations(grids):
        found += _candidates(task, segmentation)
        if not found and len(parts) < MAX_PARTS:
            for text, cost, part in _parts(task, segmentation):
                parts.setdefault(part.digest(), (text, cost, part))
    answers = ranked_answers(task, found)
    if not answers:
        for text, cost, part in list(parts.values())[:MAX_PARTS]:
            for solve_part in (rules.solve, completion.solve):
                answers += [replace(a, solver=NAME, program=f"in the {text}: {a.program}", cost=a.cost + cost) for a in solve_part(part)]
    return answers


def _parts(task: Task, segmentation: Segmentation) -> Iterator[tuple[str, float, Task]]:
    """The task restated on the box, or the inside, of the one object of every input whose size is the output's."""
    pairs = len(task.train)
    scenes = segmentation.scenes
    owner = np.concatenate([np.full(len(scene.objects), k) for k, scene in enumerate(scenes)])
    for name, extra, crop in _PARTS:
        grids = [crop(scene, k) for scene in scenes for k in range(len(scene.objects))]
        fits = np.array([
            grid is not None and k < pairs and grid.shape == task.train[k].output.shape for grid, k in zip(grids, owner, strict=True)
        ])  # fmt: skip
        if any(not fits[owner == k].any() for k in range(pairs)):
            continue
        tests = make_tests(scenes, pairs)
        for t in np.argsort(tests.costs, kind="stable"):
            passed = tests.passed[t]
            single = all(passed[owner == k].sum() == 1 for k in range(len(scenes)))
            if single and fits[passed & (owner < pairs)].all():
                chosen = [frozen(grid) for grid, yes in zip(grids, passed, strict=True) if yes and grid is not None]
                pieces = tuple(Pair(a, pair.output) for a, pair in zip(chosen, task.train, strict=False))
                text = f"{name} of the {segmentation.name} with {tests.names[t]}"
                yield text, segmentation.cost + extra + float(tests.costs[t]), Task(task.id, pieces, tuple(chosen[pairs:]))
                break


def ranked_answers(task: Task, candidates: list[Candidate]) -> list[Answer]:
    """At most KEEP different answers for each test input from candidates that are right on all pairs, trust put into the cost."""
    pairs = len(task.train)
    ordered = sorted(candidates, key=lambda c: c.cost)
    held_out = 0
    for k in range(pairs if pairs > 1 else 0):
        rest = np.arange(pairs) != k
        taught = next((c for c in ordered if c.right[rest].all()), None)
        held_out += taught is not None and bool(taught.right[k])
    answers: list[Answer] = []
    for test in range(len(task.tests)):
        seen: set[bytes] = set()
        for candidate in ordered:
            grid = candidate.grids[test]
            if candidate.right.all() and grid is not None and grid_id(grid) not in seen and len(seen) < KEEP:
                seen.add(grid_id(grid))
                cost = cost_of(candidate.cost, held_out, pairs)
                answers.append(Answer(test, grid, NAME, candidate.text, 1.0, cost))
    return answers


def _candidates(task: Task, segmentation: Segmentation) -> Iterator[Candidate]:
    pairs = len(task.train)
    scenes = segmentation.scenes
    owner = np.concatenate([np.full(len(scene.objects), k) for k, scene in enumerate(scenes)])
    tests: Tests | None = None
    for name, cost, result in _results(task):
        results = _all_results(task, scenes, result)
        if results is None:
            continue
        if tests is None:
            tests = make_tests(scenes, pairs)
        good = np.array([grid == (grid_id(task.train[k].output) if k < pairs else None) for grid, k in zip(results, owner, strict=True)])
        for text, test_cost, passed in _questions(tests, good, owner, pairs):
            right = np.array([_agrees(good[passed & (owner == k)]) for k in range(pairs)])
            grids = tuple(_one(result, scenes[pairs + k], passed[owner == pairs + k]) for k in range(len(task.tests)))
            yield Candidate(f"{name} of the {segmentation.name} with {text}", segmentation.cost + cost + test_cost, right, grids)


def _all_results(task: Task, scenes: tuple[Scene, ...], result: Result) -> list[bytes | None] | None:
    """The results for all train objects and nothing for the others, or None where two pairs or more have no right one."""
    out: list[bytes | None] = []
    missed = 0
    for k, scene in enumerate(scenes):
        if k >= len(task.train):
            out += [None] * len(scene.objects)
            continue
        target = grid_id(task.train[k].output)
        grids = [result(scene, number) for number in range(len(scene.objects))]
        ids = [None if grid is None else grid_id(grid) for grid in grids]
        missed += target not in ids
        if missed > (1 if len(task.train) > 2 else 0):
            return None
        out += ids
    return out


def _questions(tests: Tests, good: Array, owner: Array, pairs: int) -> Iterator[tuple[str, float, Array]]:
    """Tests, alone and two by two, that at most one pair speaks against."""
    allowed = 1 if pairs > 2 else 0
    known = owner < pairs
    member = np.stack([owner[known] == k for k in range(pairs)]).astype(np.float32)  # (pairs, objects)
    passed = tests.passed[:, known].astype(np.float32)
    goods = (passed * good[known]) @ member.T  # (tests, pairs): right objects that pass
    bads = (passed * ~good[known]) @ member.T
    for t in np.flatnonzero(((goods == 0) | (bads > 0)).sum(axis=1) <= allowed):
        yield tests.names[t], float(tests.costs[t]), tests.passed[t]
    hopeful = np.flatnonzero(((goods == 0).sum(axis=1) <= allowed) & (bads.sum(axis=1) < bads[0].sum()))
    # Tests that keep fewest wrong objects are the ones worth joining.
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


def _one(result: Result, scene: Scene, passed: Array) -> Grid | None:
    """The result that all passing objects share."""
    grids = [result(scene, int(k)) for k in np.flatnonzero(passed)]
    if not grids or any(grid is None or grid_id(grid) != grid_id(grids[0]) for grid in grids if grids[0] is not None):
        return None
    return grids[0]


# --- What can be made of an object ---


def _results(task: Task) -> Iterator[tuple[str, float, Result]]:
    outputs = [pair.output for pair in task.train]
    if all((output == output[0, 0]).all() for output in outputs):
        if len({output.shape for output in outputs}) == 1:
            for name, cost, colour in (("colour", 0.0, _colour), ("rarest colour", 0.5, _rarest)):
                yield name, 1.0 + cost, _flat(colour, (outputs[0].shape[0], outputs[0].shape[1]))
        return
    used = sorted({int(c) for output in outputs for c in np.unique(output)})
    shared = [c for c in used if all((output == c).any() for output in outputs)]
    for crop_name, crop_cost, crop in _CROPS:
        for turn_name, turn_cost, turn in _TURNS:
            yield f"{turn_name}{crop_name}", crop_cost + turn_cost, _cut(crop, turn)
        for ground in shared:
            for paint in shared:
                if paint != ground:
                    yield f"{crop_name} in {paint} on {ground}", crop_cost + 2.0, _cut(_two_colours(crop, paint, ground), _as_it_is)


def _colour(scene: Scene, k: int) -> int:
    return scene.objects[k].colour


def _rarest(scene: Scene, k: int) -> int:
    return scene.objects[k].rarest


def _flat(colour: Callable[[Scene, int], int], shape: tuple[int, int]) -> Result:
    return lambda scene, k: frozen(np.full(shape, colour(scene, k)))


def _cut(crop: Result, turn: Callable[[Array], Array]) -> Result:
    def result(scene: Scene, k: int) -> Grid | None:
        grid = crop(scene, k)
        turned = None if grid is None else turn(grid)
        return None if turned is None or max(turned.shape) > MAX_SIDE else frozen(turned)

    return result


def _box(scene: Scene, k: int) -> Grid | None:
    o = scene.objects[k]
    return scene.grid[o.top : o.top + o.height, o.left : o.left + o.width]


def _alone(scene: Scene, k: int) -> Grid | None:
    picture = scene.objects[k].picture
    return np.where(picture < 0, scene.blank, picture)


def _plain(scene: Scene, k: int) -> Grid | None:
    o = scene.objects[k]
    return np.where(o.mask, np.int8(o.colour), scene.blank)


def _inside(scene: Scene, k: int) -> Grid | None:
    o = scene.objects[k]
    return scene.grid[o.top + 1 : o.top + o.height - 1, o.left + 1 : o.left + o.width - 1] if min(o.height, o.width) > 2 else None


def _inside_alone(scene: Scene, k: int) -> Grid | None:
    """The inside of the box where the object's own colour counts as background."""
    o = scene.objects[k]
    box = _box(scene, k)
    return None if box is None else np.where(box == o.colour, scene.blank, box)


def _one_more(scene: Scene, k: int) -> Grid | None:
    """The box with a margin of one cell, inside the grid."""
    o = scene.objects[k]
    if o.top == 0 or o.left == 0 or o.top + o.height == scene.grid.shape[0] or o.left + o.width == scene.grid.shape[1]:
        return None
    return scene.grid[o.top - 1 : o.top + o.height + 1, o.left - 1 : o.left + o.width + 1]


def _quarter(scene: Scene, k: int) -> Grid | None:
    """The upper left quarter of the object."""
    o = scene.objects[k]
    grid = _alone(scene, k)
    return None if grid is None or min(o.height, o.width) < 2 else grid[: (o.height + 1) // 2, : (o.width + 1) // 2]


def _shrunk(scene: Scene, k: int) -> Grid | None:
    """The box without repeated rows and columns."""
    box = _box(scene, k)
    if box is None:
        return None
    box = box[np.concatenate([[True], (box[1:] != box[:-1]).any(axis=1)])]
    return np.asarray(box[:, np.concatenate([[True], (box[:, 1:] != box[:, :-1]).any(axis=0)])])


def _two_colours(crop: Result, colour: int, background: int) -> Result:
    def result(scene: Scene, k: int) -> Grid | None:
        grid = crop(scene, k)
        return None if grid is None else np.where(grid == scene.background, np.int8(background), np.int8(colour))

    return result


_PARTS: tuple[tuple[str, float, Result], ...] = (("box", 1.0, _box), ("inside", 1.5, _inside))
_CROPS: tuple[tuple[str, float, Result], ...] = (
    ("box", 1.0, _box),
    ("picture", 1.2, _alone),
    ("picture in its commonest colour", 2.0, _plain),
    ("inside", 1.5, _inside),
    ("box without its colour", 2.0, _inside_alone),
    ("box with a margin", 2.0, _one_more),
    ("quarter", 2.5, _quarter),
    ("box without repeated lines", 2.5, _shrunk),
)


def _as_it_is(grid: Array) -> Array:
    return grid


_TURNS: tuple[tuple[str, float, Callable[[Array], Array]], ...] = (
    ("", 0.0, _as_it_is),
    ("mirrored ", 2.0, lambda a: a[:, ::-1]),
    ("upside-down ", 2.0, lambda a: a[::-1]),
    ("half-turned ", 2.0, lambda a: a[::-1, ::-1]),
    ("transposed ", 2.5, lambda a: a.T),
    ("quarter-turned ", 2.5, lambda a: np.rot90(a, -1)),
    ("counter-turned ", 2.5, lambda a: np.rot90(a)),
    ("twice as large ", 3.0, lambda a: np.kron(a, np.ones((2, 2), np.int8))),
    ("mirror-doubled ", 3.0, lambda a: np.concatenate([a, a[:, ::-1]], axis=1)),
)
