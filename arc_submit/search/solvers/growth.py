"""Rules that grow: a cell takes a colour once a neighbour has it and the cell passes a test, repeatedly until nothing changes.

A rule is a short list of clauses "a cell whose neighbour in some direction is settled takes a colour, where the input passes these tests".
A cell is settled if no pair changes its colour, or once it has grown. A clause must hold in every finished output, so that every
intermediate state of the growth is right; clauses are added greedily until every changed cell of every train pair is reached. Such rules
describe rays that stop at obstacles, floods, alternating patterns and bounces. Training again without each train pair in turn measures how
reliable the rule is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arc_submit.arc.grid import Grid, frozen, same_grid
from arc_submit.arc.task import Task
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.colours import recolourings
from arc_submit.search.features import OUT, FeatureTable, cell_table
from arc_submit.search.grid_tools import fixed_colours_of, keeps_size, oriented, output_cells
from arc_submit.search.store import Array

NAME = "growth"
MAX_CELLS = 4000  # of all train outputs
MAX_CELLS_TURNED = 600  # the same where each pair is used in all orientations
MAX_CLAUSES = 6
MAX_LITERALS = 1500
MAX_TABLE = 2_000_000  # cells times literals
MAX_STARTS = 150  # clauses that are extended by tests in one round
MAX_JOINED = 24  # clauses with one test that are extended by a second one
MAX_STEPS = 60
_GROUPS = ("near", "parts", "lines", "whole")
_OFFSETS = {
    "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1),
    "up_left": (-1, -1), "up_right": (-1, 1), "down_left": (1, -1), "down_right": (1, 1),
    "two_up": (-2, 0), "two_down": (2, 0), "two_left": (0, -2), "two_right": (0, 2),
}  # fmt: skip


@dataclass(frozen=True)
class Literals:
    """Tests of cells that depend on the input alone.

    Attributes:
        names, columns, tests, costs: one entry per test. A test t below 64 means value <= t, from 64 on value == t - 64, from 128 on
            value > t - 128.
    """

    names: tuple[str, ...]
    columns: Array
    tests: Array
    costs: Array

    def passed(self, table: FeatureTable) -> Array:
        """bool (cells, literals)."""
        values = table.features[:, self.columns]
        out = np.where(self.tests >= 128, values > self.tests - 128, values <= self.tests)
        return np.asarray(np.where((self.tests >= 64) & (self.tests < 128), values == self.tests - 64, out))


@dataclass(frozen=True)
class Clause:
    """One clause.

    Attributes:
        neighbour: index in _OFFSETS of the neighbour that must be settled, or -1.
        colour: the colour that the neighbour must have, or -1 for any painted one.
        grown: whether the neighbour must have grown.
        literals: indices of the tests that the cell must pass.
        takes: the colour that the cell takes, or -1 for the neighbour's.
    """

    neighbour: int
    colour: int
    grown: bool
    literals: tuple[int, ...]
    takes: int
    cost: float


@dataclass(frozen=True)
class GrowthField:
    """An example in the form that growth needs.

    Attributes:
        grid: int8 (h, w), the input.
        open: bool (h, w), cells that may grow.
        passed: bool (cells, literals).
    """

    grid: Grid
    open: Array
    passed: Array


@dataclass(frozen=True)
class Neighbourhood:
    """The settled neighbours of cells.

    Attributes:
        colours: int8 (offsets, cells), the colour at each offset, OUT where the neighbour is not settled.
        grown: bool (offsets, cells).
    """

    colours: Array
    grown: Array

    def matches(self, clause: Clause) -> Array:
        """bool (cells,): whether the clause's condition on the neighbour holds."""
        if clause.neighbour < 0:
            return np.ones(self.colours.shape[1], np.bool_)
        seen = self.colours[clause.neighbour]
        matches = seen == clause.colour if clause.colour >= 0 else (seen != OUT) & (seen != 0)
        return np.asarray(matches & self.grown[clause.neighbour] if clause.grown else matches)


def solve(task: Task) -> list[SolverAnswer]:
    """Answers of the rules that reproduce every train pair."""
    if not keeps_size(task) or output_cells(task) > MAX_CELLS:
        return []
    answers: list[SolverAnswer] = []
    for number, version in enumerate(recolourings(task)[:2]):
        for views in (1, 8) if number == 0 else (1,):
            answers += [version.restore(answer) for answer in _solve_version(version.task, views)]
    return answers


def _solve_version(task: Task, views: int) -> list[SolverAnswer]:
    """Answers of the rule trained on each pair in one orientation, or in all eight so that it prefers none."""
    if views > 1 and output_cells(task) > MAX_CELLS_TURNED:
        return []
    inputs = [oriented(pair.input, k) for pair in task.train for k in range(views)] + list(task.tests)
    outputs = [oriented(pair.output, k) for pair in task.train for k in range(views)]
    examples, pairs = len(outputs), len(task.train)
    tables = [cell_table(grid).only(_GROUPS) for grid in inputs]
    fixed = fixed_colours_of(task)
    open_cells = [~fixed[grid] for grid in inputs]
    literals = make_literals(tables[:examples], open_cells[:examples])
    if not literals.names:
        return []  # all open cells have the same features, as in grids of one cell
    fields = [GrowthField(grid, cells, literals.passed(table)) for grid, cells, table in zip(inputs, open_cells, tables, strict=True)]
    rule = learn(fields[:examples], outputs, literals)
    if rule is None or not any(clause.neighbour >= 0 for clause in rule):
        return []  # a rule without neighbours belongs to other solvers
    predicted = 0
    for k in range(pairs if pairs > 1 else 0):
        rest = [i for i in range(examples) if i // views != k]
        trained = learn([fields[i] for i in rest], [outputs[i] for i in rest], literals)
        predicted += trained is not None and same_grid(grow(fields[k * views], trained), outputs[k * views])
    cost = 14 + 2 * sum(clause.cost for clause in rule)
    text = ("in all orientations: " if views > 1 else "") + "; ".join(describe_clause(clause, literals) for clause in rule)
    return [SolverAnswer(k, grow(field, rule), NAME, text, predicted / pairs, cost) for k, field in enumerate(fields[examples:])]


def make_literals(tables: list[FeatureTable], open_cells: list[Array]) -> Literals:
    """Different tests that some of the open cells pass, the plainest first, as many as the bounds allow."""
    rows = np.concatenate([table.features[cells.ravel()] for table, cells in zip(tables, open_cells, strict=True)])
    found: list[tuple[str, int, int, float]] = []
    limit = min(MAX_LITERALS, MAX_TABLE // max(1, len(rows)))
    seen = {np.packbits(np.full(len(rows), passed)).tobytes() for passed in (False, True)}
    for column, (name, is_colour) in enumerate(zip(tables[0].names, tables[0].is_colour, strict=True)):
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
            if key not in seen and len(found) < limit:
                seen.add(key)
                found.append((text, column, test, 1.0 + 0.01 * column))
    names, columns, tests, costs = zip(*found, strict=True) if found else ((), (), (), ())
    return Literals(names, np.array(columns, np.int64), np.array(tests, np.int64), np.array(costs, np.float64))


def _shifted(grid: Array, fill: int) -> Array:
    """The value at each of the offsets from each cell, (offsets, cells)."""
    h, w = grid.shape
    padded = np.full((h + 4, w + 4), fill, grid.dtype)
    padded[2 : 2 + h, 2 : 2 + w] = grid
    out = np.empty((len(_OFFSETS), h, w), grid.dtype)
    for k, (dy, dx) in enumerate(_OFFSETS.values()):
        out[k] = padded[2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]
    return out.reshape(len(_OFFSETS), h * w)


def _neighbourhood(grid: Array, settled: Array, grown: Array) -> Neighbourhood:
    shown = np.where(settled, grid, OUT).astype(np.int8)
    return Neighbourhood(_shifted(shown, OUT), _shifted(grown, 0))


def grow(field: GrowthField, rule: list[Clause]) -> Grid:
    """The grid that grows from an input; where two clauses disagree the first one wins."""
    grid = np.array(field.grid)
    settled, grown = ~field.open, np.zeros(field.open.shape, np.bool_)
    passed = [field.passed[:, list(clause.literals)].all(axis=1) for clause in rule]
    for _ in range(MAX_STEPS):
        around = _neighbourhood(grid, settled, grown)
        takes = np.full(grid.size, -1)
        for clause, passes in zip(rule, passed, strict=True):
            fires = passes & ~settled.ravel() & (takes < 0) & around.matches(clause)
            takes[fires] = clause.takes if clause.takes >= 0 else around.colours[clause.neighbour][fires]
        new = (takes >= 0).reshape(grid.shape)
        if not new.any():
            break
        grid[new] = takes.reshape(grid.shape)[new]
        settled, grown = settled | new, grown | new
    return frozen(grid)


@dataclass(frozen=True)
class _Evidence:
    """The open cells of all training examples, in one round of `learn`.

    Attributes:
        final: the neighbourhoods in the finished outputs.
        current: the neighbourhoods after the growth of the present rule.
        target: int8 (cells,), the output's colour of changed cells, OUT for the others.
        missing: bool (cells,), cells that the present rule has not reached.
        passed: float32 (cells, literals), 0 or 1.
    """

    final: Neighbourhood
    current: Neighbourhood
    target: Array
    missing: Array
    passed: Array


def learn(fields: list[GrowthField], outputs: list[Grid], literals: Literals) -> list[Clause] | None:
    """Clauses that are never wrong and together reach every changed cell, or None."""
    opened = np.concatenate([field.open.ravel() for field in fields])
    changed = [field.grid != out for field, out in zip(fields, outputs, strict=True)]
    target = np.concatenate([np.where(c, out, OUT).ravel() for c, out in zip(changed, outputs, strict=True)])[opened]
    passed = np.concatenate([field.passed for field in fields])[opened].astype(np.float32)

    def neighbourhoods(grids: list[Grid], settled: list[Array]) -> Neighbourhood:
        parts = [_neighbourhood(grid, ~f.open | s, f.open & s) for grid, s, f in zip(grids, settled, fields, strict=True)]
        return Neighbourhood(*(np.concatenate([getattr(p, name) for p in parts], axis=1)[:, opened] for name in ("colours", "grown")))

    final = neighbourhoods(outputs, changed)
    starts = _clauses_without_tests(final.colours, target)
    rule: list[Clause] = []
    while True:
        grids = [grow(field, rule) for field in fields] if rule else [field.grid for field in fields]
        missing = np.concatenate([(a != b).ravel() for a, b in zip(grids, outputs, strict=True)])[opened]
        if not missing.any():
            return rule
        if len(rule) == MAX_CLAUSES:
            return None
        current = neighbourhoods(grids, [grid != field.grid for grid, field in zip(grids, fields, strict=True)])
        clause = _best_clause(starts, _Evidence(final, current, target, missing, passed), literals)
        if clause is None:
            return None
        rule.append(clause)


def _clauses_without_tests(colours: Array, target: Array) -> list[Clause]:
    """Every neighbour, settled in any or one colour, with the neighbour's or one colour to take."""
    new_colours = [int(c) for c in np.unique(target) if c != OUT]
    out = [Clause(-1, -1, False, (), c, 2.0) for c in new_colours]
    for neighbour in range(len(_OFFSETS)):
        far = 1.0 if neighbour >= 8 else 0.3 if neighbour >= 4 else 0.0
        present = [int(c) for c in np.unique(colours[neighbour]) if c not in (0, OUT)]
        for grown in (False, True):
            out.append(Clause(neighbour, -1, grown, (), -1, 1.0 + far + 0.1 * grown))
            out += [Clause(neighbour, c, grown, (), c, 1.3 + far + 0.1 * grown) for c in present if c in new_colours]
            out += [Clause(neighbour, c, grown, (), d, 1.8 + far + 0.1 * grown) for c in present for d in new_colours if d != c]
    return out


def _best_clause(starts: list[Clause], evidence: _Evidence, literals: Literals) -> Clause | None:
    """The clause, never wrong, that explains most missing cells for its cost, with up to two tests."""
    target, passed = evidence.target, evidence.passed
    rows, wrongs, gains, clauses = [], [], [], []
    for clause in starts:
        fires = evidence.final.matches(clause)
        fires_now = evidence.current.matches(clause)
        takes = clause.takes if clause.takes >= 0 else evidence.final.colours[clause.neighbour]
        right = fires & (target == takes) & evidence.missing
        if (fires_now & right).any():
            clauses.append(clause)
            rows.append(right)
            wrongs.append(fires & (target != takes))
            gains.append(fires_now & right)
    if not clauses:
        return None
    # Only those that explain most are extended by tests.
    chosen = sorted(np.argsort([-row.sum() for row in rows], kind="stable")[:MAX_STARTS].tolist())
    clauses = [clauses[k] for k in chosen]
    right, wrong, gain = (np.stack([some[k] for k in chosen]).astype(np.float32) for some in (rows, wrongs, gains))
    best: Clause | None = None
    best_score = 0.0

    def consider(count: float, clause: Clause) -> None:
        nonlocal best, best_score
        score = count / (1 + clause.cost)
        if score > best_score + 1e-9:
            best, best_score = clause, score

    for k in np.flatnonzero(wrong.sum(axis=1) == 0):
        consider(float(right[k].sum()), clauses[k])
    # Counts for every clause with every test, (clauses, literals).
    right_1, wrong_1, gain_1 = right @ passed, wrong @ passed, gain @ passed
    scores = np.where((wrong_1 == 0) & (gain_1 > 0), right_1 / (1 + np.array([c.cost for c in clauses])[:, None] + literals.costs[None]), 0)
    k, a = np.unravel_index(scores.argmax(), scores.shape)
    if scores[k, a] > 0:
        consider(float(right_1[k, a]), replace(clauses[k], literals=(int(a),), cost=clauses[k].cost + float(literals.costs[a])))
    # A second test for the clauses that are least wrong in proportion to the cells they explain.
    hopeful = np.where((gain_1 > 0) & (wrong_1 > 0), (right_1 - 2 * wrong_1) / (2 + literals.costs[None]), -np.inf)
    places = np.argsort(-hopeful, axis=None, kind="stable")[:MAX_JOINED]
    ks, firsts = np.unravel_index(places[np.isfinite(hopeful.ravel()[places])], hopeful.shape)
    columns = passed[:, firsts].T
    # Sums of fewer than 2^24 ones are exact in float32, in any order.
    right_2, wrong_2, gain_2 = ((counts[ks] * columns) @ passed for counts in (right, wrong, gain))
    for place, (k, a) in enumerate(zip(ks, firsts, strict=True)):
        with_both = 1 + clauses[k].cost + literals.costs[a] + literals.costs
        score = np.where((wrong_2[place] == 0) & (gain_2[place] > 0), right_2[place] / with_both, 0)
        b = int(score.argmax())
        if score[b] > 0:
            cost = clauses[k].cost + float(literals.costs[a] + literals.costs[b])
            consider(float(right_2[place, b]), replace(clauses[k], literals=(int(a), b), cost=cost))
    return best


def describe_clause(clause: Clause, literals: Literals) -> str:
    """A clause in words."""
    takes = "its colour" if clause.takes < 0 else str(clause.takes)
    tests = " and ".join(literals.names[a] for a in clause.literals)
    where = "anywhere"
    if clause.neighbour >= 0:
        state = "grown" if clause.grown else "settled"
        where = f"{list(_OFFSETS)[clause.neighbour]} is {state}{f' in {clause.colour}' if clause.colour >= 0 else ''}"
    return f"{takes} where {where}{f', {tests}' if tests else ''}"
