"""The experiment splits: one adapter for all tasks against adapters for groups of them, at the same total of steps.

Does not know how an adapter is trained; a run with --tasks-per-adapter does it.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.experiments.frame import add_run_options, measure_run, open_experiment, run_and_measure
from arc_submit.experiments.results import SCORES, row_table, score_panels, write_results
from arc_submit.run.sweep import Point

ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_run_options(parser)
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["1", "2", "5", "10", "20", "50", ALL],
        metavar="N",
        help="numbers of adapters; all: one for each task",
    )
    parser.add_argument("--total-steps", type=int, default=1000, metavar="N", help="steps of all adapters together (%(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make the runs, and the table and the picture of them; returns figures."""
    with open_experiment(args, "splits") as (directory, chosen):
        points = [
            make_point(splits, args.total_steps, len(chosen.tasks), seed, [*args.arguments, *chosen.words])
            for splits in split_numbers(args.splits, len(chosen.tasks), args.total_steps)
            for seed in args.seeds
        ]
        rows = run_and_measure(directory, points, partial(measure_run, source="ttft", chosen=chosen))
        text = f"{len(chosen.tasks)} tasks; {args.total_steps} steps in all, shared by the adapters\n"
        text += row_table(rows, (*SCORES, "correct_pixels", "final_loss", "train_seconds", "short"))
        panels = score_panels(rows, "adapters", "adapters (log)", log=2)
        return write_results(args.out, text, panels, {"rows": [row.to_json() for row in rows]})


def split_numbers(given: list[str], tasks: int, total_steps: int) -> list[int]:
    """The numbers of adapters, each once; those that are more than there are tasks are left out.

    Raises:
        ConfigError: where one is no number, or the steps do not suffice for one step of each adapter.
    """
    try:
        numbers = [tasks if one == ALL else int(one) for one in given]
    except ValueError:
        raise ConfigError(f"--splits {' '.join(given)}: write numbers, or all") from None
    chosen = list(dict.fromkeys(number for number in numbers if number <= tasks))
    if not chosen or min(chosen) < 1 or max(chosen) > total_steps:
        raise ConfigError(f"--splits {' '.join(given)}: from 1 to {min(tasks, total_steps)} (the tasks, and --total-steps)")
    return chosen


def make_point(splits: int, total_steps: int, tasks: int, seed: int, words: list[str]) -> Point:
    """The run with so many adapters.

    Groups have the same number of tasks, so that there may be fewer of them than asked for: 40 tasks in 30 splits are 20 pairs.

    Args:
        words: the other options of the run.
    """
    size = math.ceil(tasks / splits)
    adapters = math.ceil(tasks / size)
    steps = total_steps // adapters
    options = ["--sources", "ttft", "--tasks-per-adapter", str(size), "--ttft-steps", str(steps), "--seed", str(seed), "--pictures", "0"]
    settings = {"adapters": str(adapters), "tasks each": str(size), "steps each": str(steps), "seed": str(seed)}
    return Point(f"splits={adapters},seed={seed}", settings, [*words, *options])
