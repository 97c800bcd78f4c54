"""Rules that grow: a cell takes a colour once a neighbour has it and the cell passes a test, again and again until nothing changes.

A rule is a short list of clauses "a cell whose neighbour there is settled becomes so, where the input looks like this". A cell is settled
where no pair changes its colour, or once it has grown. A clause must hold in every finished output, so that whatever has grown at any time
is right; clauses are added greedily until every changed cell of every train pair is reached. Lines that stop at what they meet, floods,
alternating patterns and bounces are such rules. Learning again without each train pair in turn tells how far to trust the rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import Answer
from arc_submit.search.colours import recolourings
from arc_submit.search.features import OUT, cell_features
from arc_submit.search.reductions import turned
from arc_submit.search.solvers.cells import Table, make_table
from arc_submit.search.store import Array

NAME = "growth"
MAX_CELLS = 4000  # of all train outputs
MAX_CELLS_TURNED = 600  # the same where each pair is learned from in all orientations
MAX_CLAUSES = 6
MAX_LITERALS = 1500
MAX_TABLE = 2_000_000  # cells times literals
MAX_STARTS = 150  # clauses that are tried with tests in one round
MAX_JOINED = 24  # clauses with one test that are tried with a second one
MAX_STEPS = 60
_GROUPS = ("near", "parts", "lines", "whole")
_OFFSETS = {
    "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1),
    "up_left": (-1, -1), "up_right": (-1, 1), "down_left": (1, -1), "down_right": (1, 1),
    "two_up": (-2, 0), "two_down": (2, 0), "two_left": (0, -2), "two_right": (0, 2),
}  # fmt: skip


@dataclass(frozen=True)
class Literals:
    """Yes-or-no tests of cells that look at the input alone.

    Attributes:
        names, columns, tests, costs: one each; a test t is value <= t, or value == t - 64 from 64 on, or value > t - 128 from 128 on.
    """

    names: tuple[str, ...]
    columns: Array
    tests: Array
    costs: Array

    def passed(self, table: Table) -> Array:
        """bool (cells, literals)."""
        values = table.features[:, self.columns]
        out = np.where(self.tests >= 128, values > self.tests - 128, values <= self.tests)
        return np.asarray(np.where((self.tests >= 64) & (self.tests < 128), values == self.tests - 64, out))


@dataclass(frozen=True)
class Clause:
    """One clause: which neighbour must be settled (-1: none), in which colour (-1: any), how many tests it must pass (by number), and the
    colour that the cell takes (-1: the neighbour's)."""

    neighbour: int
    colour: int
    grown: bool
    literals: tuple[int, ...]
    takes: int
    cost: float


@dataclass(frozen=True)
class Field:
    """An example as growth sees it.

    Attributes:
        grid: int8 (h, w).
        open: bool (h, w), cells that may grow.
        passed: bool (cells, literals).
    """

    grid: Grid
    open: Array
    passed: Array


def solve(task: Task) -> list[Answer]:
    """Answers of the rules that reproduce every train pair."""
    if any(p.input.shape != p.output.shape for p in task.train) or sum(p.output.size for p in task.train) > MAX_CELLS:
        return []
    answers: list[Answer] = []
    for number, version in enumerate(recolourings(task)[:2]):
        for answer in _solve_version(version.task, 1) + (_solve_version(version.task, 8) if number == 0 else []):
            text = f"{version.name}: {answer.program}" if version.name else answer.program
            answers.append(replace(answer, grid=version.undo(answer.test, answer.grid), program=text, cost=answer.cost + version.cost))
    return answers


def _solve_version(task: Task, views: int) -> list[Answer]:
    """Answers of the rule learned from each pair in one or in all eight orientations: then it favours none."""
    pairs = len(task.train)
    changing = {int(c) for pair in task.train for c in pair.input[pair.input != pair.output]}
    if not changing or (views > 1 and sum(pair.output.size for pair in task.train) > MAX_CELLS_TURNED):
        return []
    inputs = [turned(pair.input, k) for pair in task.train for k in range(views)] + list(task.tests)
    outputs = [turned(pair.output, k) for pair in task.train for k in range(views)]
    tables = [make_table(cell_features(grid)).only(_GROUPS) for grid in inputs]
    open_cells = [np.isin(grid, list(changing)) for grid in inputs]
    literals = make_literals(tables[: len(outputs)], open_cells[: len(outputs)])
    fields = [Field(grid, cells, literals.passed(table)) for grid, cells, table in zip(inputs, open_cells, tables, strict=True)]
    rule = learn(fields[: len(outputs)], outputs, literals)
    if rule is None or not any(clause.neighbour >= 0 for clause in rule):
        return []  # a rule that looks at nothing grown is one for other solvers
    held_out = 0
    for k in range(pairs if pairs > 1 else 0):
        rest = [i for i in range(len(outputs)) if i // views != k]
        lesson = learn([fields[i] for i in rest], [outputs[i] for i in rest], literals)
        held_out += lesson is not None and same_grid(grow(fields[k * views], lesson), outputs[k * views])
    cost = 14 + 2 * sum(clause.cost for clause in rule)
    text = ("in all orientations: " if views > 1 else "") + "; ".join(describe(clause, literals) for clause in rule)
    return [Answer(k, grow(fields[len(outputs) + k], rule), NAME, text, held_out / pairs, cost) for k in range(len(task.tests))]


def make_literals(tables: list[Table], open_cells: list[Array]) -> Literals:
    """Tests that divide the open cells, the plainest of equal ones, the plainest first as far as the bounds allow."""
    rows = np.concatenate([table.features[cells.ravel()] for table, cells in zip(tables, open_cells, strict=True)])
    names: list[str] = []
    columns, tests, costs = [], [], []
    most = min(MAX_LITERALS, MAX_TABLE // max(1, len(rows)))
    seen = {np.packbits(np.full(len(rows), answer)).tobytes() for answer in (False, True)}  # what all or none pass tells nothing
    for column, (name, is_colour) in enumerate(zip(tables[0].names, tables[0].colours, strict=True)):
        values = rows[:, column]
        levels = np.unique(values)[:12].tolist()
        options = [(f"{name} = {v}", 64 + v, values == v) for v in levels]
        if is_colour:
            options.append((f"{name} > 0", 128, values > 0))
        else:
            options += [(f"{name} <= {v}", v, values <= v) for v in levels[1:-1]]
            options += [(f"{name} > {v}", 128 + v, values > v) for v in levels[:-1]]
        for text, test, passed in options:
            key = np.packbits(passed).tobytes()
            if key not in seen and len(names) < most:
                seen.add(key)
                names.append(text)
                columns.append(column)
                tests.append(test)
                costs.append(1.0 + 0.01 * column)
    return Literals(tuple(names), np.array(columns, np.int64), np.array(tests, np.int64), np.array(costs))


def _shifted(grid: Array, offset: tuple[int, int], fill: int) -> Array:
    """What each cell sees at an offset."""
    h, w = grid.shape
    dy, dx = offset
    out = np.full((h, w), fill, grid.dtype)
    ys, xs = slice(max(0, -dy), min(h, h - dy)), slice(max(0, -dx), min(w, w - dx))
    ys_from, xs_from = slice(max(0, dy), min(h, h + dy)), slice(max(0, dx), min(w, w + dx))
    if h > abs(dy) and w > abs(dx):
        out[ys, xs] = grid[ys_from, xs_from]
    return out


def _seen(grid: Array, settled: Array, grown: Array) -> tuple[Array, Array]:
    """For every offset what colour is settled there (OUT where none), and whether it has grown: int8 and bool (offsets, cells)."""
    shown = np.where(settled, grid, OUT).astype(np.int8)
    colours = np.stack([_shifted(shown, offset, OUT).ravel() for offset in _OFFSETS.values()])
    new = np.stack([_shifted(grown, offset, 0).ravel() for offset in _OFFSETS.values()])
    return colours, new


def grow(field: Field, rule: list[Clause]) -> Grid:
    """What grows from an input; where two clauses disagree the first one wins."""
    grid = np.array(field.grid)
    settled, grown = ~field.open, np.zeros(field.open.shape, np.bool_)
    static = [field.passed[:, list(clause.literals)].all(axis=1) for clause in rule]
    for _ in range(MAX_STEPS):
        colours, new = _seen(grid, settled, grown)
        before = ~settled.ravel()
        takes = np.full(grid.size, -1)
        for clause, may in zip(rule, static, strict=True):
            fires = may & before & (takes < 0)
            if clause.neighbour >= 0:
                fires &= _fires(clause, colours, new)
            takes[fires] = clause.takes if clause.takes >= 0 else colours[clause.neighbour][fires]
        now = (takes >= 0).reshape(grid.shape)
        if not now.any():
            break
        grid[now] = takes.reshape(grid.shape)[now]
        settled, grown = settled | now, grown | now
    return frozen(grid)


def _fires(clause: Clause, colours: Array, new: Array) -> Array:
    seen = colours[clause.neighbour]
    fires = seen == clause.colour if clause.colour >= 0 else (seen != OUT) & (seen != 0)
    return np.asarray(fires & new[clause.neighbour] if clause.grown else fires)


def learn(fields: list[Field], outputs: list[Grid], literals: Literals) -> list[Clause] | None:
    """Clauses that are never wrong and together reach every changed cell, or None."""
    changed = [field.grid != out for field, out in zip(fields, outputs, strict=True)]
    opened = np.concatenate([field.open.ravel() for field in fields])
    target = np.concatenate([np.where(c, out, OUT).ravel() for c, out in zip(changed, outputs, strict=True)])[opened]
    static = np.concatenate([field.passed for field in fields])[opened].astype(np.float32)
    final = [_seen(out, ~field.open | c, c & field.open) for field, out, c in zip(fields, outputs, changed, strict=True)]
    colours = np.concatenate([a for a, _ in final], axis=1)[:, opened]
    new = np.concatenate([b for _, b in final], axis=1)[:, opened]
    starts = _starts(colours, new, target)
    rule: list[Clause] = []
    while len(rule) <= MAX_CLAUSES:
        now = [grow(field, rule) for field in fields] if rule else [field.grid for field in fields]
        left = np.concatenate([(a != b).ravel() for a, b in zip(now, outputs, strict=True)])[opened]
        if not left.any():
            return rule
        state = [_seen(a, ~field.open | (a != field.grid), field.open & (a != field.grid)) for a, field in zip(now, fields, strict=True)]
        now_colours = np.concatenate([a for a, _ in state], axis=1)[:, opened]
        now_new = np.concatenate([b for _, b in state], axis=1)[:, opened]
        clause = _best(starts, colours, new, now_colours, now_new, target, left, static, literals)
        if clause is None or len(rule) == MAX_CLAUSES:
            return None
        rule.append(clause)
    return None


def _starts(colours: Array, new: Array, target: Array) -> list[Clause]:
    """Clauses without tests: every neighbour, settled in any or one colour, with the neighbour's or one colour to take."""
    made = [int(c) for c in np.unique(target) if c != OUT]
    out = [Clause(-1, -1, False, (), c, 2.0) for c in made]
    for neighbour in range(len(_OFFSETS)):
        far = 1.0 if neighbour >= 8 else 0.3 if neighbour >= 4 else 0.0
        for grown in (False, True):
            out.append(Clause(neighbour, -1, grown, (), -1, 1.0 + far + 0.1 * grown))
            present = [int(c) for c in np.unique(colours[neighbour]) if c not in (0, OUT)]
            out += [Clause(neighbour, c, grown, (), c, 1.3 + far + 0.1 * grown) for c in present if c in made]
            out += [Clause(neighbour, c, grown, (), d, 1.8 + far + 0.1 * grown) for c in present for d in made if d != c]
    return out


def _best(
    starts: list[Clause], colours: Array, new: Array, now_colours: Array, now_new: Array, target: Array, left: Array, static: Array,
    literals: Literals,
) -> Clause | None:  # fmt: skip
    """The clause, never wrong, that explains most open changed cells for its cost."""
    every = np.ones(len(target), np.bool_)
    rows, wrongs, gains, clauses = [], [], [], []
    for clause in starts:
        fires = every if clause.neighbour < 0 else _fires(clause, colours, new)
        at_once = every if clause.neighbour < 0 else _fires(clause, now_colours, now_new)
        takes = clause.takes if clause.takes >= 0 else colours[clause.neighbour]
        right = fires & (target == takes) & left
        if (at_once & right).any():
            clauses.append(clause)
            rows.append(right)
            wrongs.append(fires & (target != takes))
            gains.append(at_once & right)
    if not clauses:
        return None
    # Those that explain most are the ones worth testing further.
    kept = sorted(np.argsort([-row.sum() for row in rows], kind="stable")[:MAX_STARTS].tolist())
    clauses = [clauses[k] for k in kept]
    right, wrong, gain = (np.stack([some[k] for k in kept]).astype(np.float32) for some in (rows, wrongs, gains))
    best: Clause | None = None
    best_score = 0.0

    def consider(count: float, clause: Clause) -> None:
        nonlocal best, best_score
        score = count / (1 + clause.cost)
        if score > best_score + 1e-9:
            best, best_score = clause, score

    for k in np.flatnonzero(wrong.sum(axis=1) == 0):
        consider(float(right[k].sum()), clauses[k])
    right_1, wrong_1, gain_1 = right @ static, wrong @ static, gain @ static
    scores = np.where((wrong_1 == 0) & (gain_1 > 0), right_1 / (1 + np.array([c.cost for c in clauses])[:, None] + literals.costs[None]), 0)
    k, a = np.unravel_index(scores.argmax(), scores.shape)
    if scores[k, a] > 0:
        consider(float(right_1[k, a]), replace(clauses[k], literals=(int(a),), cost=clauses[k].cost + float(literals.costs[a])))
    # A second test for those that are least wrong for what they explain.
    hopeful = np.where((gain_1 > 0) & (wrong_1 > 0), (right_1 - 2 * wrong_1) / (2 + literals.costs[None]), -np.inf)
    order = np.argsort(-hopeful, axis=None, kind="stable")[:MAX_JOINED]
    for place in order:
        k, a = np.unravel_index(place, hopeful.shape)
        if not np.isfinite(hopeful[k, a]):
            break
        column = static[:, a]
        bad, good, at_once = (wrong[k] * column) @ static, (right[k] * column) @ static, (gain[k] * column) @ static
        score = np.where((bad == 0) & (at_once > 0), good / (1 + clauses[k].cost + literals.costs[a] + literals.costs), 0)
        b = int(score.argmax())
        if score[b] > 0:
            cost = clauses[k].cost + float(literals.costs[a] + literals.costs[b])
            consider(float(good[b]), replace(clauses[k], literals=(int(a), b), cost=cost))
    return best


def describe(clause: Clause, literals: Literals) -> str:
    """A clause in words."""
    takes = "its colour" if clause.takes < 0 else str(clause.takes)
    tests = " and ".join(literals.names[a] for a in clause.literals)
    where = "anywhere"
    if clause.neighbour >= 0:
        kind = "grown" if clause.grown else "settled"
        where = f"{list(_OFFSETS)[clause.neighbour]} is {kind}{f' in {clause.colour}' if clause.colour >= 0 else ''}"
    return f"{takes} where {where}{f', {tests}' if tests else ''}"
