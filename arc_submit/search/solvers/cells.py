"""Per-cell rules: a small forest of decision trees that tells the colour of every output cell from features of the input.

Works where an output has its input's size, that of a crop of the input, a multiple of it, the size of one of the equal panels that the
input divides into, or one cell for each panel or block. The rule fits all train pairs by construction, so what counts as explained is what
it predicts of pairs it was not shown. Which features a rule should look at is not known: several groups of them are tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, grid_id, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.colours import IDENTITY, Recoloured, recolourings
from arc_submit.search.crops import crops
from arc_submit.search.features import Columns, cell_features, find_panels
from arc_submit.search.store import Array
from arc_submit.search.tree import VALUES, Tree, fit, predict

NAME = "cells"
TREES = 7
# Cells of all train outputs, which bound the work: up to so many a task is taught in all orientations, by forests of several kinds, at all.
MAX_ROWS_WITH_VIEWS = 3000
MAX_ROWS_WITH_VARIANTS = 6000
MAX_ROWS = 12_000
MAX_CROPS = 3
MAX_FOLDS = 100  # as good as none: each pair is held out alone
# The groups of features, beside all of them, that forests are restricted to, as they stand and in all orientations.
_GROUPS = (("near", "lines"), ("near", "parts"), ("near", "parts", "lines"), ("near", "mirrors", "panels", "periods"))
_VIEW_GROUPS: tuple[tuple[str, ...], ...] = ((), ("near", "lines"), ("near", "parts"))


@dataclass(frozen=True)
class Table:
    """One example as rows of features, in reading order of the output's cells.

    Attributes:
        features: uint8 (cells, columns).
        shape: (height, width) of the output.
        names: of the columns.
        colours: bool (columns,), which columns hold colours and may be copied.
        groups: of the columns, for rules that may look at some groups only.
    """

    features: Array
    shape: tuple[int, int]
    names: tuple[str, ...]
    colours: Array
    groups: tuple[str, ...]

    def only(self, groups: Sequence[str]) -> Table:
        """The columns of some groups."""
        kept = [k for k, group in enumerate(self.groups) if group in groups]
        names = tuple(self.names[k] for k in kept)
        return Table(self.features[:, kept], self.shape, names, self.colours[kept], tuple(self.groups[k] for k in kept))


@dataclass(frozen=True)
class Forest:
    """Trees that vote, and the colours (bool (10,)) that no train pair changes, which need no vote."""

    trees: list[Tree]
    fixed: Array


def foretold(task: Task, trees: int, folds: int) -> bool:
    """Whether a plain forest taught some pairs is right about any other one: if not, `solve` is seldom worth its work."""
    inputs = [pair.input for pair in task.train] + list(task.tests)
    outputs = [pair.output for pair in task.train]
    tables = _same_size(inputs, outputs)
    return tables is None or any(answer.explained > 0 for answer in answers_from_tables(task, tables, trees, folds))


def solve(task: Task, trees: int = TREES, folds: int = MAX_FOLDS) -> list[Answer]:
    """Answers of forests: with all features, with some of them, in one or in all orientations; an answer that several give counts more.

    Args:
        trees: in a forest, at most.
        folds: the pairs are held out one by one, or in so many groups where there are more of them.
    """
    versions = recolourings(task)
    if all(version.name for version in versions):
        versions.append(Recoloured(task, (IDENTITY,) * len(task.tests), "", 0))
    if sum(pair.output.size for pair in task.train) > MAX_ROWS_WITH_VARIANTS:
        del versions[1:]
    answers: list[Answer] = []
    for version in versions:
        for answer in _solve_version(version.task, trees, folds):
            text = f"{version.name}: {answer.program}" if version.name else answer.program
            answers.append(replace(answer, grid=version.undo(answer.test, answer.grid), program=text, cost=answer.cost + version.cost))
    given = Counter((answer.test, grid_id(answer.grid)) for answer in answers)
    # At the floor the cheaper rule still comes first.
    return [replace(a, cost=max(20.0 + a.cost / 1000, a.cost - 10 * (given[a.test, grid_id(a.grid)] - 1))) for a in answers]


def _solve_version(task: Task, trees: int, folds: int) -> list[Answer]:
    inputs = [pair.input for pair in task.train] + list(task.tests)
    outputs = [pair.output for pair in task.train]
    tables = _same_size(inputs, outputs)
    if tables is not None:
        answers = answers_from_tables(task, tables, trees, folds) + _with_views(task, folds)
        if sum(grid.size for grid in outputs) <= MAX_ROWS_WITH_VARIANTS:
            answers += answers_from_tables(task, tables, trees, folds, only_changing=True)
        for groups in _GROUPS[: 1 if sum(grid.size for grid in outputs) > MAX_ROWS_WITH_VARIANTS else None]:
            answers += answers_from_tables(task, [table.only(groups) for table in tables], trees, folds)
        return answers
    answers = []
    kinds = [
        ("", _multiple(inputs, outputs)),
        ("", _panels(inputs, outputs)),
        ("one cell for each panel: ", _summary(inputs, outputs)),
        *_cropped(inputs, outputs),
    ]
    for place, (name, tables) in enumerate(kinds):
        if tables is not None:
            cost = 4 + place / 10 if name else 0  # the plainer crop first
            found = answers_from_tables(task, tables, trees, folds)
            answers += [replace(answer, program=name + answer.program, cost=answer.cost + cost) for answer in found]
    return answers


def _cropped(inputs: list[Grid], outputs: list[Grid]) -> list[tuple[str, list[Table]]]:
    """The plainest crops that have every output's size: the output is such a crop with some cells changed."""
    found: list[tuple[str, list[Table]]] = []
    seen: list[list[bytes]] = []
    for name, crop in crops():
        cut: list[Grid] = []
        for k, grid in enumerate(inputs):
            part = crop(grid)
            if part is None or (k < len(outputs) and part.shape != outputs[k].shape):
                break
            cut.append(part)
        ids = [grid_id(grid) for grid in cut]
        if len(cut) == len(inputs) and ids not in seen:
            seen.append(ids)
            found.append((f"{name}: ", [make_table(cell_features(grid)) for grid in cut]))
        if len(found) == MAX_CROPS:
            break
    return found


def _summary(inputs: list[Grid], outputs: list[Grid]) -> list[Table] | None:
    """One output cell for each panel between lines, or for each equal block of the input."""
    found = [find_panels(grid) for grid in inputs]
    spans = [(panels[0], panels[1]) for panels in found if panels is not None]
    if len(spans) < len(inputs) or any((len(i), len(j)) != out.shape for (i, j), out in zip(spans, outputs, strict=False)):
        blocks = {(a.shape[0] / b.shape[0], a.shape[1] / b.shape[1]) for a, b in zip(inputs, outputs, strict=False)}
        height, width = blocks.pop()
        if blocks or height % 1 or width % 1 or height * width <= 1 or any(g.shape[0] % height or g.shape[1] % width for g in inputs):
            return None
        k, m = int(height), int(width)
        spans = [([(y, y + k) for y in range(0, g.shape[0], k)], [(x, x + m) for x in range(0, g.shape[1], m)]) for g in inputs]
    if any(max(len(i), len(j)) > MAX_SIDE for i, j in spans):
        return None
    return [_summary_table(grid, i, j) for grid, (i, j) in zip(inputs, spans, strict=True)]


def _summary_table(grid: Grid, rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> Table:
    panels = [grid[a:b, c:d] for a, b in rows for c, d in columns]
    shape = (len(rows), len(columns))
    out = Columns(shape)
    counts = np.stack([np.bincount(panel.ravel(), minlength=COLOURS) for panel in panels])
    painted = counts.copy()
    painted[:, 0] = 0
    total = painted.sum(axis=1)
    names = [panel.tobytes() for panel in panels]

    def add(name: str, values: object, is_colour: bool = False) -> None:
        out.add(name, np.array(values, dtype=np.int64).reshape(shape), is_colour)

    add("panel_commonest", painted.argmax(axis=1), True)
    add("panel_rarest", np.where(painted > 0, painted, 10**6).argmin(axis=1) * (total > 0), True)
    add("panel_commonest_of_all", counts.argmax(axis=1), True)
    add("panel_painted", total)
    add("panel_colours", (painted > 0).sum(axis=1))
    add("panel_more_painted", (total[None, :] > total[:, None]).sum(axis=1))
    add("panel_less_painted", (total[None, :] < total[:, None]).sum(axis=1))
    add("panel_repeats", [names.count(name) for name in names])
    add("panel_mirrored", [bool((p == p[:, ::-1]).all()) + 2 * bool((p == p[::-1]).all()) for p in panels])
    for name, (i, j) in (("top_left", (0, 0)), ("top_right", (0, -1)), ("bottom_left", (-1, 0)), ("bottom_right", (-1, -1))):
        add(f"panel_{name}", [panel[i, j] for panel in panels], True)
    add("panel_middle", [panel[panel.shape[0] // 2, panel.shape[1] // 2] for panel in panels], True)
    for colour in range(COLOURS):
        add(f"panel_cells_of_{colour}", counts[:, colour])
    for name, summary in (("shown", painted.argmax(axis=1)), ("full", np.where(counts.max(axis=1) == total, painted.argmax(axis=1), 0))):
        seen = cell_features(frozen(summary.reshape(shape)))
        for key, values, is_colour in zip(seen.names, seen.values, seen.colours, strict=True):
            out.add(f"{name}_{key}", values, is_colour)
    return make_table(out)


def _with_views(task: Task, folds: int) -> list[Answer]:
    """Answers of forests that are taught every train pair in all eight orientations, so that their rule favours none."""
    if sum(pair.output.size for pair in task.train) > MAX_ROWS_WITH_VIEWS:
        return []
    turned = [(frozen(_turned(p.input, k)), frozen(_turned(p.output, k))) for p in task.train for k in range(8)]
    all_tables = [make_table(cell_features(grid)) for grid in [a for a, _ in turned] + list(task.tests)]
    outputs = [b for _, b in turned]
    pairs = len(task.train)
    answers = []
    for groups in _VIEW_GROUPS:
        tables = [table.only(groups) for table in all_tables] if groups else all_tables
        held_out = 0
        for rest, left_out in held_out_folds(pairs, folds):
            known = [8 * k + view for k in rest for view in range(8)]
            forest = fit_forest([tables[i] for i in known], [outputs[i] for i in known], 1)
            held_out += sum(same_grid(_vote(forest, tables[8 * k]), task.train[k].output) for k in left_out)
        if held_out == 0:
            continue
        forest = fit_forest(tables[: 8 * pairs], outputs, 3)
        text = f"in all orientations: {describe(forest.trees[0], tables[0])}"
        cost = 25 + 4 * forest.trees[0].leaves
        for k, table in enumerate(tables[8 * pairs :]):
            answers.append(Answer(k, _vote(forest, table), NAME, text, held_out / pairs, cost))
    return answers


def _turned(grid: Grid, k: int) -> Grid:
    out = np.rot90(grid, k % 4)
    return frozen(out if k < 4 else out.T)


def held_out_folds(pairs: int, folds: int) -> Iterator[tuple[list[int], list[int]]]:
    """(Pairs to learn from, pairs left out), each pair left out once: one by one, or in `folds` groups where there are more pairs."""
    folds = min(folds, pairs)
    for fold in range(folds if pairs > 1 else 0):
        yield [k for k in range(pairs) if k % folds != fold], list(range(fold, pairs, folds))


def answers_from_tables(
    task: Task, tables: list[Table], trees: int = TREES, folds: int = MAX_FOLDS, only_changing: bool = False
) -> list[Answer]:
    """Answers of a forest learned from one table per example, train pairs first."""
    outputs = [pair.output for pair in task.train]
    pairs = len(outputs)
    if sum(grid.size for grid in outputs) > MAX_ROWS:
        return []
    count = trees if sum(grid.size for grid in outputs) <= MAX_ROWS_WITH_VIEWS else min(trees, 3)
    whole = fit_forest(tables[:pairs], outputs, count, only_changing)
    first = whole.trees[0]
    if first.errors:
        return []
    # The fair test: is each pair predicted by the rule that the other pairs teach?
    held_out, wrong = 0, 0.0
    for rest, left_out in held_out_folds(pairs, folds):
        taught = fit_forest([tables[i] for i in rest], [outputs[i] for i in rest], count, only_changing)
        for k in left_out:
            guess = _vote(taught, tables[k])
            held_out += same_grid(guess, outputs[k])
            wrong += float((guess != outputs[k]).mean()) / pairs
    answers = []
    text = describe(first, tables[0])
    for test, table in enumerate(tables[pairs:]):
        for forest in (whole, Forest([first], whole.fixed)):
            # Of rules that predict no pair whole the one that is nearest comes first.
            cost = 25 + 4 * first.leaves + (0 if forest is whole else 10) + 300 * wrong
            answers.append(Answer(test, _vote(forest, table), NAME, text, held_out / pairs, cost))
    return answers


def fit_forest(tables: list[Table], outputs: list[Grid], count: int = TREES, only_changing: bool = False) -> Forest:
    """The first tree may use every column, the others a random two thirds each; the seed is fixed.

    Args:
        only_changing: learn nothing from cells whose colour no pair changes, and leave such cells alone.
    """
    features = np.concatenate([table.features for table in tables])
    labels = np.concatenate([grid.ravel() for grid in outputs]).astype(np.int64)
    fixed = np.zeros(COLOURS, np.bool_)
    if tables[0].names[0] == "colour" and only_changing:
        fixed[features[:, 0]] = True
        fixed[features[features[:, 0] != labels, 0]] = False
        told = ~fixed[features[:, 0]]
        if told.any():
            features, labels = features[told], labels[told]
    copied = np.flatnonzero(tables[0].colours)
    rng = np.random.default_rng(0)
    # Columns that never vary cannot split.
    varying = (features != features[0]).any(axis=0)
    trees = [fit(features, labels, copied, varying)]
    for _ in range(count - 1):
        trees.append(fit(features, labels, copied, varying & (rng.random(features.shape[1]) < 0.67)))
    return Forest(trees, fixed)


def _vote(forest: Forest, table: Table) -> Grid:
    votes = np.zeros((len(table.features), 11), np.int64)
    for k, tree in enumerate(forest.trees):
        # The first tree decides ties.
        votes[np.arange(len(votes)), predict(tree, table.features)] += 2 if k else 3
    out = votes[:, :10].argmax(axis=1)
    if forest.fixed.any():
        colour = table.features[:, 0]
        out = np.where(forest.fixed[colour], colour, out)
    return frozen(out.reshape(table.shape))


def make_table(columns: Columns) -> Table:
    """The columns of one example as rows of features."""
    return Table(columns.matrix(), columns.shape, tuple(columns.names), np.array(columns.colours), tuple(columns.groups))


def _same_size(inputs: list[Grid], outputs: list[Grid]) -> list[Table] | None:
    if any(a.shape != b.shape for a, b in zip(inputs, outputs, strict=False)):
        return None
    return [make_table(cell_features(grid)) for grid in inputs]


def _multiple(inputs: list[Grid], outputs: list[Grid]) -> list[Table] | None:
    """The output is a whole multiple of the input: each cell sees the cell it would be scaled from and the one it would be tiled from."""
    times = _multiples(inputs, outputs)
    if times is None:
        return None
    tables = []
    square = all(grid.shape[0] == grid.shape[1] for grid in inputs)
    for grid, (rows, columns) in zip(inputs, times, strict=True):
        h, w = grid.shape
        if max(h * rows, w * columns) > MAX_SIDE:
            return None
        i, j = np.indices((h * rows, w * columns))
        out = Columns((i.shape[0], i.shape[1]))
        scaled = cell_features(grid)
        out.add("tiled_colour", grid[i % h, j % w], True)
        for name, row, column in (("tiled_left_right", i % h, w - 1 - j % w), ("tiled_up_down", h - 1 - i % h, j % w)):
            out.add(name, grid[row, column], True)
        out.add("tiled_half_turn", grid[h - 1 - i % h, w - 1 - j % w], True)
        if square:
            up, left, down, right = i % h, j % w, h - 1 - i % h, w - 1 - j % w
            for name, row, column in (
                ("transpose", left, up),
                ("other_transpose", right, down),
                ("turn", right, up),
                ("turn_back", left, down),
            ):
                out.add(f"tiled_{name}", grid[row, column], True)
        out.add("tile_row", i // h)
        out.add("tile_column", j // w)
        out.add("block_row", i % rows)
        out.add("block_column", j % columns)
        for name, values, is_colour in zip(scaled.names, scaled.values, scaled.colours, strict=True):
            out.add(f"scaled_{name}", values[i // rows, j // columns], is_colour)
        tables.append(make_table(out))
    return tables


def _multiples(inputs: list[Grid], outputs: list[Grid]) -> list[tuple[int, int]] | None:
    """How many times each output is as high and as wide as its input: the same for all, the input's own sides, or a count in it."""
    rules: list[Callable[[Grid], tuple[int, int]]] = [
        lambda grid: (outputs[0].shape[0] // inputs[0].shape[0], outputs[0].shape[1] // inputs[0].shape[1]),
        lambda grid: (grid.shape[0], grid.shape[1]),
        lambda grid: (len(np.unique(grid[grid != 0])),) * 2,
        lambda grid: (int((grid != 0).sum()),) * 2,
        lambda grid: (int((grid == 0).sum()),) * 2,
        lambda grid: (len(np.unique(grid)),) * 2,
    ]
    for rule in rules:
        times = [rule(grid) for grid in inputs]
        fits = all((g.shape[0] * a, g.shape[1] * b) == out.shape for g, (a, b), out in zip(inputs, times, outputs, strict=False))
        if fits and all(a * b > 0 for a, b in times) and any(a * b > 1 for a, b in times):
            return times
    return None


def _panels(inputs: list[Grid], outputs: list[Grid]) -> list[Table] | None:
    """The input divides into the same number of equal panels, with or without lines between, each of the output's size."""
    for rows in range(1, 5):
        for columns in range(1, 5):
            if rows * columns == 1:
                continue
            cut = [_cut(grid, rows, columns) for grid in inputs]
            if any(panels is None for panels in cut):
                continue
            whole = [panels for panels in cut if panels is not None]
            if any(panels[0].shape != out.shape for panels, out in zip(whole, outputs, strict=False)):
                continue
            tables = []
            for panels in whole:
                out = Columns((panels[0].shape[0], panels[0].shape[1]))
                for k, panel in enumerate(panels):
                    out.add(f"panel_{k}", panel, True)
                out.add("painted_panels", sum((panel != 0).astype(np.int64) for panel in panels))
                for k, panel in enumerate(panels):
                    out.add(f"panel_{k}_cells", np.full(panel.shape, int((panel != 0).sum())))
                    out.add(f"panel_{k}_parts_of_colours", np.full(panel.shape, len(np.unique(panel))))
                tables.append(make_table(out))
            return tables
    return None


def _cut(grid: Grid, rows: int, columns: int) -> list[Grid] | None:
    """Equal panels in reading order, where the side divides evenly or leaves exactly one cell between panels."""
    h, w = grid.shape
    gaps = []
    for side, parts in ((h, rows), (w, columns)):
        gaps.append(0 if side % parts == 0 else 1 if (side - parts + 1) % parts == 0 else -1)
    if min(gaps) < 0:
        return None
    height, width = (h - gaps[0] * (rows - 1)) // rows, (w - gaps[1] * (columns - 1)) // columns
    if height < 1 or width < 1:
        return None
    places = [(i * (height + gaps[0]), j * (width + gaps[1])) for i in range(rows) for j in range(columns)]
    return [grid[y : y + height, x : x + width] for y, x in places]


def describe(tree: Tree, table: Table) -> str:
    """The tree as nested conditions, cut at a length a person would read."""

    def walk(node: int) -> str:
        feature, test, left, right, option = (int(v) for v in tree.nodes[node])
        if feature < 0:
            return str(option) if option < 10 else table.names[option - 10]
        relation = f"<= {test}" if test < VALUES else f"= {test - VALUES}"
        return f"({table.names[feature]} {relation} ? {walk(left)} : {walk(right)})"

    text = walk(0)
    return text if len(text) <= 400 else f"{text[:380]}... ({tree.leaves} leaves)"
