"""Check a submission of `arc-submit ensemble` by a computation of its own, from the files alone; imports nothing of the library.

    python benchmarks/recompute_ensemble.py voting NAME=RUN_DIR NAME=submission.json ... --submission OUT/submission.json

The method is voting, concatenation, combination or precedence, with the sources in the order of the inputs (search, ttft, frozen in each)
and the weight 1. For each test input the attempts must be two answers with the best keys; where a third has as good a key, the output is
counted as tied.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

ORDER = ("search", "ttft", "frozen")
Grid = tuple[tuple[int, ...], ...]
Output = tuple[str, int]
Answers = list[tuple[Grid, float, float]]  # of one source for one output, best first: grid, votes, share


def as_grid(rows: Any) -> Grid:
    return tuple(tuple(row) for row in rows)


def is_grid(rows: Any) -> bool:
    good = isinstance(rows, list) and 0 < len(rows) <= 30 and all(isinstance(r, list) and 0 < len(r) <= 30 for r in rows)
    return good and len({len(r) for r in rows}) == 1 and all(type(c) is int and 0 <= c <= 9 for r in rows for c in r)


def bytes_of(grid: Grid) -> bytes:
    return bytes((len(grid), len(grid[0]))) + bytes(cell for row in grid for cell in row)


def searched(lines: list[dict[str, Any]]) -> Answers:
    """A search's answers: by their best score, each with one vote and its share of the odds."""
    best: dict[Grid, float] = {}
    for line in lines:
        if line["grid"] is not None:
            grid = as_grid(line["grid"])
            best[grid] = max(best.get(grid, -math.inf), line["logprob"])
    odds = {grid: math.exp(max(-50.0, min(50.0, score + 1.2))) for grid, score in best.items()}
    ranked = sorted(best, key=lambda grid: (-best[grid], bytes_of(grid)))
    return [(grid, 1.0, odds[grid] / sum(odds.values())) for grid in ranked]


def voted(lines: list[dict[str, Any]]) -> Answers:
    """A model's answers: by their votes, then by their mean log-probability; the shares are those of scored answers' probabilities."""
    pools: dict[Grid, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if line["grid"] is not None:
            pools[as_grid(line["grid"])].append(line)
    means = {grid: math.fsum(line["logprob"] for line in pool) / len(pool) for grid, pool in pools.items()}
    ranked = sorted(pools, key=lambda grid: (-len(pools[grid]), -means[grid], bytes_of(grid)))
    shares = {grid: float(len(pool)) for grid, pool in pools.items()}
    if all(line.get("logprobs") for pool in pools.values() for line in pool):
        shares = {grid: math.exp(min(0.0, mean)) for grid, mean in means.items()}
    return [(grid, float(len(pools[grid])), shares[grid] / sum(shares.values())) for grid in ranked]


def read_run(name: str, folder: Path) -> tuple[dict[str, dict[Output, Answers]], dict[str, dict[str, Any]]]:
    lines: dict[str, dict[Output, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    tasks: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "tasks").glob("*.json")):
        tasks |= json.loads(path.read_text())
    for path in sorted((folder / "predictions").glob("*/*.jsonl")):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            lines[line["source"]][line["task"], line["test"]].append(line)
    rank = {"search": searched}
    ordered = [source for source in ORDER if source in lines]
    return {f"{name}/{s}": {o: rank.get(s, voted)(found) for o, found in lines[s].items()} for s in ordered}, tasks


def read_file(name: str, path: Path, tasks: dict[str, dict[str, Any]]) -> dict[str, dict[Output, Answers]]:
    """The attempts of a submission: shares of 0.8 and 0.2, of 1 where both are equal; what fills an empty place is no answer."""
    answers: dict[Output, Answers] = {}
    for task_id, entries in json.loads(path.read_text()).items():
        for test, entry in enumerate(entries):
            given = [(as_grid(entry[k]), s) for k, s in (("attempt_1", 0.8), ("attempt_2", 0.2)) if is_grid(entry.get(k))]
            if task_id in tasks:
                given = _answers(given, tasks[task_id], test)
            if len(given) == 2 and given[0][0] == given[1][0]:
                given = [(given[0][0], 1.0)]
            total = sum(share for _, share in given)
            answers[task_id, test] = [(grid, 1.0, share / total) for grid, share in given]
    return {name: answers}


def _answers(given: list[tuple[Grid, float]], task: dict[str, Any], test: int) -> list[tuple[Grid, float]]:
    shown = as_grid(task["test"][test]["input"])
    # A fallback is the test input followed by a grid of one colour.
    if len(given) == 2 and given[0][0] == shown and len({cell for row in given[1][0] for cell in row}) == 1:
        return []
    return [(grid, share) for grid, share in given if grid != shown]


def keys(method: str, sources: dict[str, dict[Output, Answers]], output: Output) -> dict[Grid, tuple[float, ...]]:
    """The sort key of each answer to one test input, the least first."""
    found: dict[Grid, list[tuple[int, int, float, float]]] = defaultdict(list)
    for place, answers in enumerate(sources.values()):
        for rank, (grid, votes, share) in enumerate(answers.get(output, []), 1):
            found[grid].append((place, rank, votes, share))
    rules = {
        "voting": lambda given: (-math.fsum(share for *_, share in given),),
        "concatenation": lambda given: (-math.fsum(votes for _, _, votes, _ in given),),
        "combination": lambda given: min((rank, place) for place, rank, *_ in given),
        "precedence": lambda given: min((place, rank) for place, rank, *_ in given),
    }
    return {grid: tuple(float(f"{value:.6g}") for value in rules[method](given)) for grid, given in found.items()}


def check(method: str, inputs: list[str], submission: Path) -> dict[str, int]:
    """Compare a submission with this module's own; returns counts of outputs."""
    named = [text.partition("=")[::2] for text in inputs]
    read = {name: read_run(name, Path(path)) for name, path in named if Path(path).is_dir()}
    tasks = {task_id: task for _, own in read.values() for task_id, task in own.items()}
    sources: dict[str, dict[Output, Answers]] = {}
    for name, path in named:
        sources |= read[name][0] if name in read else read_file(name, Path(path), tasks)
    counts = {"outputs": 0, "answered": 0, "same": 0, "tied": 0, "different": 0}
    for task_id, entries in json.loads(submission.read_text()).items():
        for test, entry in enumerate(entries):
            by_grid = keys(method, sources, (task_id, test))
            attempts = [as_grid(entry["attempt_1"]), as_grid(entry["attempt_2"])]
            best = sorted(by_grid.values())[:2]
            given = [by_grid.get(grid) for grid in attempts[: len(best)]]
            counts["outputs"] += 1
            counts["answered"] += bool(best)
            if best:
                as_good = sum(key <= best[-1] for key in by_grid.values())
                kind = "different" if given != best else "tied" if as_good > len(best) else "same"
                counts[kind] += 1
                if kind == "different":
                    print(f"{task_id} test {test}: keys {given}, expected {best}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("voting", "concatenation", "combination", "precedence"))
    parser.add_argument("inputs", nargs="+", metavar="NAME=PATH")
    parser.add_argument("--submission", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps({"method": args.method} | check(args.method, args.inputs, args.submission)))


if __name__ == "__main__":
    main()
