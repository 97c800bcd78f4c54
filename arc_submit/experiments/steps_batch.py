"""The experiment steps-batch: many steps of small batches against few of large ones, at the same number of samples of each task.

Does not know how a step is taken.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.experiments.frame import add_run_options, measure_run, open_experiment, run_and_measure
from arc_submit.experiments.results import Panel, row_table, score_lines, write_results
from arc_submit.run.sweep import Point

_SHOWN = ("accuracy", "pass_n", "vote_2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_run_options(parser)
    parser.add_argument("--samples", type=int, default=128, metavar="N", help="samples that each adapter learns from (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="samples of a step (%(default)s)")
    parser.add_argument(
        "--rates", type=float, nargs="+", metavar="R", help="learning rates, each tried with each batch (default: the preset's)"
    )


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make the runs, and the table and the picture of them; returns figures."""
    for batch in args.batches:
        if batch < 1 or args.samples % batch:
            raise ConfigError(f"--batches {batch}: --samples {args.samples} is no multiple of it")
    with open_experiment(args, "steps-batch") as (directory, chosen):
        points = [
            make_point(batch, args.samples // batch, rate, seed, [*args.arguments, *chosen.words])
            for rate in args.rates or [None]
            for batch in args.batches
            for seed in args.seeds
        ]
        rows = run_and_measure(directory, points, partial(measure_run, source="ttft", chosen=chosen))
        text = f"{len(chosen.tasks)} tasks, {args.samples} samples for each adapter\n"
        text += row_table(rows, (*_SHOWN, "correct_pixels", "final_loss", "train_seconds", "short"))
        panels = [
            Panel("samples of a step (log)", "vote_2, % of outputs", score_lines(rows, "rate", "batch", "vote_2"), log=2),
            Panel("samples of a step (log)", "final loss, nats a token", score_lines(rows, "rate", "batch", "final_loss"), log=2),
        ]
        return write_results(args.out, text, panels, {"rows": [row.to_json() for row in rows]})


def make_point(batch: int, steps: int, rate: float | None, seed: int, words: list[str]) -> Point:
    """The run with one size of batches."""
    settings = {"rate": f"{rate:g}" if rate else "preset's", "batch": str(batch), "steps": str(steps), "seed": str(seed)}
    options = ["--sources", "ttft", "--ttft-batch-size", str(batch), "--ttft-steps", str(steps), "--seed", str(seed), "--pictures", "0"]
    options += ["--ttft-learning-rate", f"{rate:g}"] if rate else []
    return Point(f"batch={batch}" + (f",rate={rate:g}" if rate else "") + f",seed={seed}", settings, [*words, *options])
