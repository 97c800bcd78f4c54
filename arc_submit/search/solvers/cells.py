"""Per-cell rules: a small forest of decision trees that predicts the colour of every output cell from features of the input.

Applies where an output has its input's size, that of a crop of the input, a multiple of it, the size of one of the equal panels of the
input, or one cell for each panel or block. The rule fits all train pairs by construction, so the share of held-out pairs that it predicts
counts as explained. Several groups of features are tried, because the relevant ones are not known.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, grid_id, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.colours import RecolouredTask, recolourings
from arc_submit.search.crops import distinct_crops
from arc_submit.search.features import CORNERS, FeatureColumns, FeatureTable, cell_features, cell_table, mirror_code
from arc_submit.search.grid_tools import (
    Span,
    find_panels,
    fixed_colours,
    held_out_folds,
    inputs_of,
    keeps_size,
    oriented,
    output_cells,
    rarest_index,
)
from arc_submit.search.sizes import multiples
from arc_submit.search.store import Array
from arc_submit.search.tree import VALUES, Tree, fit, predict

NAME = "cells"
TREES = 7
# Bounds on the cells of all train outputs: for forests on all orientations, for several kinds of forests, and for any forest.
MAX_ROWS_WITH_VIEWS = 3000
MAX_ROWS_WITH_VARIANTS = 6000
MAX_ROWS = 12_000
MAX_CROPS = 3
MAX_FOLDS = 100  # more pairs than a task has: each pair is held out alone
# The groups of features for further forests beside the one with all features, on the original orientation and on all orientations.
_GROUPS = (("near", "lines"), ("near", "parts"), ("near", "parts", "lines"), ("near", "mirrors", "panels", "periods"))
_VIEW_GROUPS: tuple[tuple[str, ...], ...] = ((), ("near", "lines"), ("near", "parts"))


@dataclass(frozen=True)
class Forest:
    """Trees that vote, and the colours (bool (10,)) that stay, which need no vote."""

    trees: list[Tree]
    fixed: Array


def is_predictive(task: Task, trees: int, folds: int) -> bool:
    """Whether a plain forest predicts any held-out pair: if not, `solve` is seldom worth its work. True where it does not apply."""
    if not keeps_size(task):
        return True
    return any(answer.explained > 0 for answer in answers_from_tables(task, _same_size(task), trees, folds))


def solve(task: Task, trees: int = TREES, folds: int = MAX_FOLDS) -> list[SolverAnswer]:
    """Answers of forests with all or some features, in one or all orientations; the agreement of several forests lowers the cost.

    Args:
        trees: maximum number of trees in a forest.
        folds: the pairs are held out one by one, or in so many groups where there are more pairs.
    """
    versions = recolourings(task)
    if all(version.name for version in versions):
        versions.append(RecolouredTask.unchanged(task))
    if output_cells(task) > MAX_ROWS_WITH_VARIANTS:
        del versions[1:]
    answers = [version.restore(answer) for version in versions for answer in _solve_version(version.task, trees, folds)]
    agreement = Counter((answer.test, grid_id(answer.grid)) for answer in answers)
    # At the minimum of 20 the cheaper rule still comes first.
    return [replace(a, cost=max(20.0 + a.cost / 1000, a.cost - 10 * (agreement[a.test, grid_id(a.grid)] - 1))) for a in answers]


def _solve_version(task: Task, trees: int, folds: int) -> list[SolverAnswer]:
    inputs, outputs = inputs_of(task), [pair.output for pair in task.train]
    if keeps_size(task):
        tables = _same_size(task)
        answers = answers_from_tables(task, tables, trees, folds) + _with_views(task, folds)
        few_rows = output_cells(task) <= MAX_ROWS_WITH_VARIANTS
        if few_rows:
            answers += answers_from_tables(task, tables, trees, folds, only_changing=True)
        for groups in _GROUPS[: None if few_rows else 1]:
            answers += answers_from_tables(task, [table.only(groups) for table in tables], trees, folds)
        return answers
    answers = []
    kinds = [
        ("", _multiple(inputs, outputs)),
        ("", _panels(inputs, outputs)),
        ("one cell for each panel: ", _summary(inputs, outputs)),
    ]
    for name, grids in itertools.islice(distinct_crops(inputs, outputs), MAX_CROPS):
        kinds.append((f"{name}: ", [cell_table(grid) for grid in grids]))
    for place, (name, kind_tables) in enumerate(kinds):
        if kind_tables is not None:
            cost = 4 + place / 10 if name else 0  # the plainer crop first
            found = answers_from_tables(task, kind_tables, trees, folds)
            answers += [replace(answer, program=name + answer.program, cost=answer.cost + cost) for answer in found]
    return answers


# --- Forests -----------------------------------------------------------------------------------------------------------------------------


def answers_from_tables(
    task: Task, tables: Sequence[FeatureTable], trees: int = TREES, folds: int = MAX_FOLDS, only_changing: bool = False
) -> list[SolverAnswer]:
    """Answers of a forest trained on one table per example, train pairs first."""
    outputs = [pair.output for pair in task.train]
    pairs = len(outputs)
    if output_cells(task) > MAX_ROWS:
        return []
    count = trees if output_cells(task) <= MAX_ROWS_WITH_VIEWS else min(trees, 3)
    forest = fit_forest(tables[:pairs], outputs, count, only_changing)
    first = forest.trees[0]
    if first.errors:
        return []
    predicted, wrong = 0, 0.0
    for train, left_out in held_out_folds(pairs, folds):
        trained = fit_forest([tables[i] for i in train], [outputs[i] for i in train], count, only_changing)
        for k in left_out:
            guess = _vote(trained, tables[k])
            predicted += same_grid(guess, outputs[k])
            wrong += float((guess != outputs[k]).mean()) / pairs
    answers = []
    text = describe_tree(first, tables[0])
    for test, table in enumerate(tables[pairs:]):
        for voters in (forest, Forest([first], forest.fixed)):
            # Of rules that predict no pair completely the one with fewest wrong cells comes first.
            cost = 25 + 4 * first.leaves + (0 if voters is forest else 10) + 300 * wrong
            answers.append(SolverAnswer(test, _vote(voters, table), NAME, text, predicted / pairs, cost))
    return answers


def _with_views(task: Task, folds: int) -> list[SolverAnswer]:
    """Answers of forests that are trained on every train pair in all eight orientations, so that their rule prefers none."""
    if output_cells(task) > MAX_ROWS_WITH_VIEWS:
        return []
    outputs = [oriented(pair.output, k) for pair in task.train for k in range(8)]
    all_tables = [cell_table(oriented(pair.input, k)) for pair in task.train for k in range(8)] + [cell_table(grid) for grid in task.tests]
    pairs = len(task.train)
    answers = []
    for groups in _VIEW_GROUPS:
        tables = [table.only(groups) for table in all_tables] if groups else all_tables
        predicted = 0
        for train, left_out in held_out_folds(pairs, folds):
            views = [8 * k + view for k in train for view in range(8)]
            forest = fit_forest([tables[i] for i in views], [outputs[i] for i in views], 1)
            predicted += sum(same_grid(_vote(forest, tables[8 * k]), task.train[k].output) for k in left_out)
        if predicted == 0:
            continue
        forest = fit_forest(tables[: 8 * pairs], outputs, 3)
        text = f"in all orientations: {describe_tree(forest.trees[0], tables[0])}"
        cost = 25 + 4 * forest.trees[0].leaves
        for k, table in enumerate(tables[8 * pairs :]):
            answers.append(SolverAnswer(k, _vote(forest, table), NAME, text, predicted / pairs, cost))
    return answers


def fit_forest(tables: Sequence[FeatureTable], outputs: list[Grid], count: int = TREES, only_changing: bool = False) -> Forest:
    """The first tree may use every column, the others a random two thirds each; the seed is fixed.

    Args:
        only_changing: ignore cells of colours that no pair changes, in training and in prediction.
    """
    features = np.concatenate([table.features for table in tables])
    labels = np.concatenate([grid.ravel() for grid in outputs]).astype(np.int64)
    fixed = np.zeros(COLOURS, np.bool_)
    if tables[0].names[0] == "colour" and only_changing:
        fixed = fixed_colours(features[:, 0], labels)
        changing = ~fixed[features[:, 0]]
        if changing.any():
            features, labels = features[changing], labels[changing]
    copied = np.flatnonzero(tables[0].is_colour)
    rng = np.random.default_rng(0)
    varying = (features != features[0]).any(axis=0)  # the only columns that can split
    trees = [fit(features, labels, copied, varying)]
    for _ in range(count - 1):
        trees.append(fit(features, labels, copied, varying & (rng.random(features.shape[1]) < 0.67)))
    return Forest(trees, fixed)


def _vote(forest: Forest, table: FeatureTable) -> Grid:
    votes = np.zeros((len(table.features), 11), np.int64)
    for k, tree in enumerate(forest.trees):
        # The first tree decides ties.
        votes[np.arange(len(votes)), predict(tree, table.features)] += 2 if k else 3
    out = votes[:, :10].argmax(axis=1)
    if forest.fixed.any():
        colour = table.features[:, 0]
        out = np.where(forest.fixed[colour], colour, out)
    return frozen(out.reshape(table.shape))


def describe_tree(tree: Tree, table: FeatureTable) -> str:
    """The tree as nested conditions, shortened to a readable length."""

    def walk(node: int) -> str:
        feature, test, left, right, option = (int(v) for v in tree.nodes[node])
        if feature < 0:
            return str(option) if option < 10 else table.names[option - 10]
        relation = f"<= {test}" if test < VALUES else f"= {test - VALUES}"
        return f"({table.names[feature]} {relation} ? {walk(left)} : {walk(right)})"

    text = walk(0)
    return text if len(text) <= 400 else f"{text[:380]}... ({tree.leaves} leaves)"


# --- Tables of features for the possible relations between input and output sizes; None where a relation does not apply ------------------


def _same_size(task: Task) -> list[FeatureTable]:
    return [cell_table(grid) for grid in inputs_of(task)]


def _multiple(inputs: list[Grid], outputs: list[Grid]) -> list[FeatureTable] | None:
    """The output is a whole multiple of the input: features of the cell it would be scaled from and the one it would be tiled from."""
    times = multiples(inputs, outputs)
    if times is None:
        return None
    tables = []
    square = all(grid.shape[0] == grid.shape[1] for grid in inputs)
    for grid, (rows, columns) in zip(inputs, times, strict=True):
        h, w = grid.shape
        if max(h * rows, w * columns) > MAX_SIDE:
            return None
        i, j = np.indices((h * rows, w * columns))
        up, left, down, right = i % h, j % w, h - 1 - i % h, w - 1 - j % w
        sources = {"colour": (up, left), "left_right": (up, right), "up_down": (down, left), "half_turn": (down, right)}
        if square:
            sources |= {"transpose": (left, up), "other_transpose": (right, down), "turn": (right, up), "turn_back": (left, down)}
        out = FeatureColumns((i.shape[0], i.shape[1]))
        for name, (row, column) in sources.items():
            out.add(f"tiled_{name}", grid[row, column], True)
        out.add("tile_row", i // h)
        out.add("tile_column", j // w)
        out.add("block_row", i % rows)
        out.add("block_column", j % columns)
        scaled = cell_features(grid)
        for name, values, is_colour in zip(scaled.names, scaled.values, scaled.is_colour, strict=True):
            out.add(f"scaled_{name}", values[i // rows, j // columns], is_colour)
        tables.append(out.table())
    return tables


def _panels(inputs: list[Grid], outputs: list[Grid]) -> list[FeatureTable] | None:
    """The input divides into the same number of equal panels, with or without lines between them, each of the output's size."""
    for rows, columns in itertools.product(range(1, 5), repeat=2):
        if rows * columns == 1:
            continue
        panels = [_divide(grid, rows, columns) for grid in inputs]
        if all(panels) and all(parts[0].shape == out.shape for parts, out in zip(panels, outputs, strict=False)):
            return [_panel_table(parts) for parts in panels]
    return None


def _divide(grid: Grid, rows: int, columns: int) -> list[Grid]:
    """Equal panels in reading order, where each side divides evenly or leaves exactly one cell between panels; else none."""
    h, w = grid.shape
    gaps = [0 if side % parts == 0 else 1 if (side - parts + 1) % parts == 0 else -1 for side, parts in ((h, rows), (w, columns))]
    if min(gaps) < 0:
        return []
    height, width = (h - gaps[0] * (rows - 1)) // rows, (w - gaps[1] * (columns - 1)) // columns
    if height < 1 or width < 1:
        return []
    places = [(i * (height + gaps[0]), j * (width + gaps[1])) for i in range(rows) for j in range(columns)]
    return [grid[y : y + height, x : x + width] for y, x in places]


def _panel_table(panels: list[Grid]) -> FeatureTable:
    out = FeatureColumns((panels[0].shape[0], panels[0].shape[1]))
    for k, panel in enumerate(panels):
        out.add(f"panel_{k}", panel, True)
    out.add("painted_panels", (np.stack(panels) != 0).sum(axis=0))
    for k, panel in enumerate(panels):
        out.add(f"panel_{k}_cells", np.array((panel != 0).sum()))
        out.add(f"panel_{k}_parts_of_colours", np.array(len(np.unique(panel))))
    return out.table()


def _summary(inputs: list[Grid], outputs: list[Grid]) -> list[FeatureTable] | None:
    """One output cell for each panel between lines, or for each equal block of the input."""
    found = [find_panels(grid) for grid in inputs]
    spans = [(panels[0], panels[1]) for panels in found if panels is not None]
    if len(spans) < len(inputs) or any((len(i), len(j)) != out.shape for (i, j), out in zip(spans, outputs, strict=False)):
        ratios = {(a.shape[0] / b.shape[0], a.shape[1] / b.shape[1]) for a, b in zip(inputs, outputs, strict=False)}
        height, width = ratios.pop()
        if ratios or height % 1 or width % 1 or height * width <= 1 or any(g.shape[0] % height or g.shape[1] % width for g in inputs):
            return None
        k, m = int(height), int(width)
        spans = [([(y, y + k) for y in range(0, g.shape[0], k)], [(x, x + m) for x in range(0, g.shape[1], m)]) for g in inputs]
    if any(max(len(i), len(j)) > MAX_SIDE for i, j in spans):
        return None
    return [_summary_table(grid, i, j) for grid, (i, j) in zip(inputs, spans, strict=True)]


def _summary_table(grid: Grid, rows: list[Span], columns: list[Span]) -> FeatureTable:
    panels = [grid[a:b, c:d] for a, b in rows for c, d in columns]
    shape = (len(rows), len(columns))
    out = FeatureColumns(shape)
    counts = np.stack([np.bincount(panel.ravel(), minlength=COLOURS) for panel in panels])
    painted = counts.copy()
    painted[:, 0] = 0
    commonest = painted.argmax(axis=1)
    total = painted.sum(axis=1)
    ids = [panel.tobytes() for panel in panels]

    def add(name: str, values: object, is_colour: bool = False) -> None:
        out.add(name, np.array(values, dtype=np.int64).reshape(shape), is_colour)

    add("panel_commonest", commonest, True)
    add("panel_rarest", rarest_index(painted), True)
    add("panel_commonest_of_all", counts.argmax(axis=1), True)
    add("panel_painted", total)
    add("panel_colours", (painted > 0).sum(axis=1))
    add("panel_more_painted", (total[None, :] > total[:, None]).sum(axis=1))
    add("panel_less_painted", (total[None, :] < total[:, None]).sum(axis=1))
    add("panel_repeats", [ids.count(panel_id) for panel_id in ids])
    add("panel_mirrored", [mirror_code(panel) for panel in panels])
    for name, (i, j) in CORNERS.items():
        add(f"panel_{name}", [panel[i, j] for panel in panels], True)
    add("panel_middle", [panel[panel.shape[0] // 2, panel.shape[1] // 2] for panel in panels], True)
    for colour in range(COLOURS):
        add(f"panel_cells_of_{colour}", counts[:, colour])
    for name, summary in (("shown", commonest), ("full", np.where(counts.max(axis=1) == total, commonest, 0))):
        features = cell_features(frozen(summary.reshape(shape)))
        for key, values, is_colour in zip(features.names, features.values, features.is_colour, strict=True):
            out.add(f"{name}_{key}", values, is_colour)
    return out.table()
