"""The experiment rank-rate: LoRA rank, learning rate, and a fresh adapter against continuing the base's, at the same steps.

A continued adapter has a rank of its own, so that it is tried with the rates alone. Does not know what an adapter is.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.experiments.frame import add_run_options, measure_run, open_experiment, run_and_measure
from arc_submit.experiments.results import Panel, row_table, score_lines, write_results
from arc_submit.run.sweep import Point


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_run_options(parser)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 32, 128], metavar="R", help="ranks of fresh adapters (%(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", required=True, metavar="R", help="peak learning rates")
    parser.add_argument(
        "--base-adapter", type=Path, metavar="FOLDER", help="adapter that is continued, with the same rates (default: none)"
    )


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make the runs, and the table and the picture of them; returns figures."""
    if min(args.ranks) < 1:
        raise ConfigError(f"--ranks {min(args.ranks)}: at least 1 is needed")
    starts: list[int | Path] = [*dict.fromkeys(args.ranks), *([args.base_adapter] if args.base_adapter else [])]
    with open_experiment(args, "rank-rate") as (directory, chosen):
        points = [
            make_point(start, rate, seed, [*args.arguments, *chosen.words])
            for start in starts
            for rate in sorted(set(args.rates))
            for seed in args.seeds
        ]
        rows = run_and_measure(directory, points, partial(measure_run, source="ttft", chosen=chosen))
        text = f"{len(chosen.tasks)} tasks\n"
        text += row_table(rows, ("accuracy", "pass_n", "vote_2", "correct_pixels", "final_loss", "train_seconds", "short"))
        panels = [
            Panel("learning rate (log)", "vote_2, % of outputs", score_lines(rows, "adapter", "rate", "vote_2"), log=10),
            Panel("learning rate (log)", "final loss, nats a token", score_lines(rows, "adapter", "rate", "final_loss"), log=10),
        ]
        return write_results(args.out, text, panels, {"rows": [row.to_json() for row in rows]})


def make_point(start: int | Path, rate: float, seed: int, words: list[str]) -> Point:
    """The run with one adapter and rate.

    Args:
        start: the rank of a fresh adapter, or the folder of the one to continue.
    """
    fresh = isinstance(start, int)
    adapter, name = (f"fresh r{start}", f"rank={start}") if fresh else ("continued", "continued")
    settings = {"adapter": adapter, "rate": f"{rate:g}", "seed": str(seed)}
    options = ["--sources", "ttft", "--lora-rank" if fresh else "--base-adapter", str(start), "--ttft-learning-rate", f"{rate:g}"]
    return Point(f"{name},rate={rate:g},seed={seed}", settings, [*words, *options, "--seed", str(seed), "--pictures", "0"])
